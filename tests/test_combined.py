"""Several rewards as one: the weighted sum, its gradient, and which kind a checkpoint is."""

from types import SimpleNamespace

import pytest
import torch
from paper_runs import invoke

from checkpoints import DREAM, LONG, REWARD, SHORT, causal, other_tokenizer
from entrgi_ref import GuidanceConfig, SamplingConfig, generate
from entrgi_ref.models import (
    LikelihoodReward,
    SequenceReward,
    SumOfRewards,
    examine_reward,
    load_denoiser,
)
from entrgi_ref.models.checkpoints import identity
from entrgi_ref.paper.run.records import read_experiment, read_records
from tiny import TinyDenoiser, TinyReward

CONFIG = SamplingConfig(
    GuidanceConfig("entrgi", 2, dtype="float64"), trajectories=2, new_tokens=6, denoising_steps=4
)
PROMPTS = ["12", "3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return causal(tmp_path_factory.mktemp("causal"))


@pytest.fixture(scope="module")
def real(folder):
    denoiser = load_denoiser(DREAM, dtype="float64", device="cpu")
    return denoiser, *(
        examine_reward(path, unmatched="zero").load(denoiser, dtype="float64")
        for path in (REWARD, folder)
    )


def test_the_configuration_says_which_kind_it_is(real):
    _, sequence, likelihood = real
    assert isinstance(sequence, SequenceReward)
    assert isinstance(likelihood, LikelihoodReward)


def test_a_sum_of_one_is_that_reward():
    """Token for token, and so is the reward twice with weights that add up to 1."""
    reward = TinyReward(0)
    alone = generate(TinyDenoiser(0), reward, PROMPTS, CONFIG)
    for parts, weights in (([reward], [1]), ([reward, reward], [0.25, 0.75])):
        total = SumOfRewards.of(parts, weights)
        found = generate(TinyDenoiser(0), total, PROMPTS, CONFIG)
        assert torch.equal(found.tokens, alone.tokens)
        assert torch.allclose(found.rewards, alone.rewards)


def test_scores_are_added_in_their_own_precision():
    """Not in that of the tables of embeddings."""

    class Scored(TinyReward):
        def __post_init__(self):
            super().__post_init__()
            self.embeddings = self.embeddings.bfloat16()

        def score(self, prompts, responses):
            return torch.tensor([self.scale])

    total = SumOfRewards.of([Scored(0, scale=1.001), Scored(0, scale=-4.003)], [2, 0.5])
    found = total.score(["12"], ["3"])
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(2 * 1.001 - 0.5 * 4.003, abs=1e-6)


def test_each_reward_reads_its_own_precision():
    """Beside a wider table too, with which its own has been widened."""

    class Part:
        def __init__(self, dtype):
            self.embeddings, self.seen = torch.ones(3, 2, dtype=dtype), []

        def bind(self, prompts, trajectories):
            return self

        def at(self, response, masked):
            return self

        def __call__(self, mixed, likeliest):
            self.seen.append(mixed.dtype)
            return mixed.float().sum()[None]

        def score(self, prompts, responses):
            return torch.zeros(len(prompts))

    parts = [Part(torch.bfloat16), Part(torch.float32)]
    total = SumOfRewards.of(parts, [1, 1])
    none = torch.zeros(1, 2, dtype=torch.int64)
    step = total.bind(["1"], 1).at(none, none == 0)
    step(total.embeddings[:2], none[0])
    assert [part.seen for part in parts] == [[torch.bfloat16], [torch.float32]]


def test_rewards_of_tables_of_different_widths_are_added(real):
    """Of whole tokens, where each part can be asked by itself, and of finished texts."""
    _, *parts = real
    weights = (2.0, -0.5)
    total = SumOfRewards.of(parts, weights)
    assert total.embeddings.shape[1] == sum(part.embeddings.shape[1] for part in parts)
    torch.manual_seed(0)
    response = torch.randint(0, 300, (4, 5))
    masked = torch.tensor([True, False, True, True, False]).expand(4, -1)
    likeliest = response[masked]

    def rewards(reward):
        step = reward.bind([SHORT, LONG], 2).at(response, masked)
        return step(step.embeddings[likeliest], likeliest)

    expected = sum(a * rewards(part) for a, part in zip(weights, parts, strict=True))
    assert torch.allclose(rewards(total), expected)
    texts = ["a river", "home"]
    scores = [a * p.score([SHORT, LONG], texts) for a, p in zip(weights, parts, strict=True)]
    assert torch.allclose(total.score([SHORT, LONG], texts), sum(scores))


def test_the_gradient_is_the_sum_of_the_gradients_in_logits(real):
    """`guide` through the sum, by plain gradient ascent, is one step along the weighted sum of
    what each reward asks for.
    """
    from entrgi_ref import guide

    denoiser, *parts = real
    response = torch.randint(0, 300, (2, 4), generator=torch.Generator().manual_seed(1))
    masked = torch.tensor([[True, False, True, False]] * 2)
    logits = torch.randn(4, len(denoiser.writable), dtype=torch.float64)
    logits[:, denoiser.mask_id] = -torch.inf
    logits = logits * 4

    def climbed(reward):
        fixed = reward.bind([SHORT], 2).at(response, masked)
        options = {"weight": lambda psi: psi.new_zeros(len(psi)), "steps": 1, "step_size": 1.0}
        guided = guide(
            logits,
            fixed,
            **options,
            temperature=0.7,
            top_p=0.95,
            draw=lambda q, m: q.argmax(-1),
            optimiser="sgd",
        )
        return (guided - logits).nan_to_num()

    apart = 2 * climbed(parts[0]) - 3 * climbed(parts[1])
    together = climbed(SumOfRewards.of(parts, (2, -3)))
    assert torch.allclose(together, apart, rtol=1e-9, atol=1e-12)
    assert together.abs().max() > 1e-6


def test_a_sum_fills_in_templates_of_different_lengths(real):
    denoiser, *parts = real
    total = SumOfRewards.of(parts, (1, 1))
    starts = [denoiser.template(text) for text in ("a __ home", "the river ____ is long")]
    N = max(map(len, starts))
    config = SamplingConfig(CONFIG.guidance, 1, N, denoising_steps=4)
    together = generate(denoiser, total, [SHORT, LONG], config, start=starts)
    alone = SamplingConfig(CONFIG.guidance, 1, len(starts[0]), denoising_steps=4)
    found = generate(denoiser, total, [SHORT], alone, start=starts[:1])
    assert torch.equal(found.tokens[0], together.tokens[0, :, : len(starts[0])])
    rows = [torch.tensor([13, 3, 13, 13, 4, 13]), torch.tensor([5, 13, 7])]
    blind = SumOfRewards.of([TinyReward(0)], [1])
    with pytest.raises(ValueError, match="templates of different lengths, which TinyReward"):
        generate(TinyDenoiser(0), blind, PROMPTS, CONFIG, start=rows)


def test_each_part_of_a_sum_is_told_of_the_template():
    class Told(TinyReward):
        def bind(self, prompts, trajectories):
            bound = super().bind(prompts, trajectories)
            bound.infilling = lambda *sides: SimpleNamespace(at=bound.at, told=(self, *sides))
            return bound

    parts = [Told(0), Told(1), Told(2)]
    sides = torch.tensor([[True, False]]), torch.tensor([[True, True]])
    bound = SumOfRewards.of(parts, (1, 1, 1)).bind(PROMPTS[:1], 1).infilling(*sides)
    assert [part.told for part in bound.parts] == [(part, *sides) for part in parts]


@pytest.mark.parametrize(
    ("parts", "weights", "message"),
    [
        ([TinyReward(0)], [1, 2], "reward_weight: got 2 for 1 rewards, expected one for each"),
        ([], [], "reward_weight: got 0 for 0 rewards"),
        ([TinyReward(0)], [0.0], "reward_weight: got 0.0, expected a finite number, not 0"),
        ([TinyReward(0)], ["a"], "reward_weight: got 'a', expected a finite number, not 0"),
        ([TinyReward(0)], [True], "reward_weight: got True, expected a finite number"),
        ([TinyReward(0)], [float("nan")], "reward_weight: got nan, expected a finite number"),
        (
            [TinyReward(0), TinyReward(0, vocabulary=15)],
            [1, 1],
            "rewards: got tables of 14, 15 rows, expected the same vocabulary",
        ),
    ],
)
def test_sums_that_mean_nothing_are_refused(as_users_run_it, parts, weights, message):
    with pytest.raises(ValueError, match=message):
        SumOfRewards.of(parts, weights)


def test_a_causal_model_with_another_tokenizer_is_refused(real, folder, tmp_path):
    """By the share of tokens that it knows, before its weights are loaded."""
    other = other_tokenizer(folder, tmp_path / "other")
    with pytest.raises(ValueError, match="vocabulary: the reward model has"):
        examine_reward(other).vocabulary(real[0].tokens)


# Runs


def run_of(tmp_path, *words, name="run"):
    benchmark = tmp_path / "questions.jsonl"
    benchmark.write_text('{"prompt": "explain entropy"}\n{"prompt": "explain it again"}\n')
    few = "--prompts 2 --seeds 1 --new-tokens 5 --trajectories 2 --methods entrgi --device cpu"
    networks = ["--denoiser", str(DREAM), "--benchmark", str(benchmark), "--dtype", "float64"]
    out = tmp_path / name
    invoke("run", "main", *networks, *few.split(), "--out", out, *words)
    return out, read_records(out)


def test_a_run_under_a_weighted_sum(real, folder, tmp_path):
    """Its records are the sum's answers, its declaration names each part, and it can be resumed."""
    rewards = ["--reward", str(REWARD), "--reward", f"other={folder}"]
    weights = ["--reward-weight", "0.5", "--reward-weight", "2"]
    out, records = run_of(tmp_path, *rewards, *weights)
    denoiser = real[0]
    parts = [examine_reward(path).load(denoiser, dtype="float64") for path in (REWARD, folder)]
    total = SumOfRewards.of(parts, [0.5, 2])
    for record in records:
        settings = SamplingConfig(
            GuidanceConfig("entrgi", dtype="float64"), 2, 5, denoising_steps=5, seed=1
        )
        expected = generate(denoiser, total, [record["prompt"]], settings)
        assert record["responses"] == expected.responses[0]
        assert record["rewards"] == pytest.approx(expected.rewards[0].tolist())
        assert record["settings"]["reward"] == "sum"
    declared = read_experiment(out)["rewards"]["sum"]
    assert declared["name"] == "0.5 reward-tiny + 2 other"
    assert [part["weight"] for part in declared["parts"]] == [0.5, 2]
    assert [part["contents"] for part in declared["parts"]] == [
        identity(REWARD)["contents"],
        identity(folder)["contents"],
    ]
    (out / "records").rename(out / "gone")
    (out / "records").mkdir()
    again = run_of(tmp_path, *rewards, *weights)[1]
    assert [r["responses"] for r in again] == [r["responses"] for r in records]
    with pytest.raises(ValueError, match="reward_weight: got 1 for 2 rewards"):
        run_of(tmp_path, *rewards, "--reward-weight", "1", name="other")


def test_a_run_under_a_likelihood(real, folder, tmp_path):
    _, records = run_of(tmp_path, "--reward", str(folder), "--methods", "entrgi,smc")
    assert {record["method"] for record in records} == {"entrgi", "smc"}
    assert all(record["status"] == "ok" and max(record["rewards"]) < 0 for record in records)
