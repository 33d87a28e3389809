"""The toy's networks: training is deterministic, caching safe, and both fit the protocols."""

import os
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from entrgi_ref import Denoiser, GuidanceConfig, Reward, SamplingConfig, generate, prompt_key
from toy import testbed as toy_testbed
from toy import training
from toy.ahead import train_ahead
from toy.language import EOS, ID, LENGTH, MASK, VOCABULARY, gold, split_prompts
from toy.models import (
    WRITABLE,
    ClosedFormReward,
    ToyDenoiser,
    ToyReward,
    encode_prompts,
    encode_words,
    words_of,
)
from toy.networks import MaskPredictor, RewardModel, Size, Transformer
from toy.testbed import gold_score, held_out_prompts, log_likelihood, valid
from toy.training import (
    DENOISER,
    QUICK_DENOISER,
    QUICK_REWARD,
    REWARDS,
    DenoiserRecipe,
    RewardRecipe,
    cache_key,
    cached,
    corpus,
    mixture,
    no_progress,
    stored,
    train,
)

pytestmark = pytest.mark.xdist_group("toy_training")  # its examples are drawn once

TINY_DENOISER = DenoiserRecipe(Size(16, 1), steps=12, batch=8, examples=50)
TINY_REWARD = RewardRecipe(Size(16, 1), steps=12, batch=8, examples=50)
TINY = SamplingConfig(GuidanceConfig(steps=2), trajectories=2, new_tokens=LENGTH, denoising_steps=4)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_CACHE", str(tmp_path))
    return tmp_path


def tensors(network):
    return network.state_dict().items()


def same(one, other) -> bool:
    return all(
        torch.equal(a, b) for (_, a), (_, b) in zip(tensors(one), tensors(other), strict=True)
    )


@pytest.mark.parametrize("recipe", [TINY_DENOISER, TINY_REWARD])
def test_training_depends_on_the_recipe_alone(recipe):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = train(recipe, no_progress)
    second = train(recipe, no_progress)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(first, second)
    assert not same(first, train(replace(recipe, seed=1), no_progress))


@pytest.mark.parametrize("recipe", [TINY_DENOISER, TINY_REWARD])
def test_first_weights_examples_and_their_order_are_of_the_training_seed(recipe):
    """Each of the three: one of them is enough for another network."""
    seen = []

    class Spied(type(recipe)):
        def build(self):
            seen.append(torch.initial_seed())
            return super().build()

        def data(self, rng):
            seen.append(rng.getstate() == random.Random(7).getstate())
            return super().data(rng)

        def loss(self, network, tokens, targets, generator):
            seen.append(generator.initial_seed())
            return super().loss(network, tokens, targets, generator)

    train(Spied(**vars(replace(recipe, seed=7, steps=1))), no_progress)
    assert seen == [7, True, 7]


def test_training_keeps_the_number_of_threads():
    torch.set_num_threads(2)
    seen = set()

    def track(steps, label):
        for step in steps:
            seen.add(torch.get_num_threads())
            yield step

    def interrupted(steps, label):
        raise KeyboardInterrupt

    try:
        train(TINY_REWARD, track)
        assert seen == {1}  # so that sums are added up in one order
        assert torch.get_num_threads() == 2
        with pytest.raises(KeyboardInterrupt):
            train(TINY_REWARD, interrupted)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_training_lowers_the_loss():
    for recipe in (replace(TINY_DENOISER, steps=150), replace(TINY_REWARD, steps=150)):
        tokens, targets = recipe.data(random.Random(recipe.seed))  # what it was trained on
        losses = []
        for network in (recipe.build(), train(recipe, no_progress)):
            generator = torch.Generator().manual_seed(0)
            losses.append(recipe.loss(network, tokens, targets, generator).item())
        assert losses[1] < 0.8 * losses[0]


def test_the_mask_predictor_learns_from_what_is_not_masked():
    """The prompt and some of the answer; how much of it is masked is uniform."""
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, tokens, masked):
            seen.append((tokens, masked))
            return torch.zeros(int(masked.sum()), len(VOCABULARY))

    tokens, targets = replace(TINY_DENOISER, examples=1500).data(random.Random(0))
    loss = TINY_DENOISER.loss(Spy(), tokens, targets, torch.Generator().manual_seed(0))
    ((read, masked),) = seen
    assert (read[masked] == ID[MASK]).all()
    assert torch.equal(read[~masked], tokens[~masked])
    assert not masked[:, :3].any()
    assert loss.item() == pytest.approx(np.log(len(VOCABULARY)))
    share = masked[:, 3:].double().mean(1)
    assert share.mean().item() == pytest.approx(0.5, abs=0.03)
    assert share.std().item() == pytest.approx((1 / 12 + 1 / 6 / LENGTH) ** 0.5, abs=0.03)


@pytest.fixture(scope="module")
def examples():
    """Prompts and answers of the corpus, and of the mixture that is made of the same."""
    return tuple(make(random.Random(0), 2500) for make in (corpus, mixture))


def test_training_never_sees_the_held_out_prompts(examples):
    train_prompts, held_out = split_prompts()
    for prompts, _ in examples:
        assert not set(prompts) & set(held_out)
        assert set(prompts) == set(train_prompts)


def test_the_mixture_is_what_the_recipe_says(examples):
    """Half corpus, a quarter answers to another prompt, a quarter with up to 30% random words."""
    plain, mixed = examples
    prompts = np.array([a != b for a, b in zip(plain[0], mixed[0], strict=True)])
    answers = np.array(
        [
            np.mean([v != w for v, w in zip(a, b, strict=True)])
            for a, b in zip(plain[1], mixed[1], strict=True)
        ]
    )
    assert prompts.mean() == pytest.approx(0.25, abs=0.03)
    assert (answers > 0).mean() == pytest.approx(0.2, abs=0.03)  # in some of a quarter, none
    assert not (prompts & (answers > 0)).any()
    assert answers.mean() == pytest.approx(0.25 * 0.15, abs=0.005)
    swapped = [pair for pair in zip(plain[0], mixed[0], strict=True) if pair[0] != pair[1]]
    for field, choices in (("subjects", 8), ("objects", 8), ("style", 5)):
        others = np.mean([getattr(a, field) != getattr(b, field) for a, b in swapped])
        assert others == pytest.approx(1 - 1 / choices, abs=0.05)
    written = {word for answer in mixed[1] for word in answer}
    assert written == {w for w, writable in zip(VOCABULARY, WRITABLE, strict=True) if writable}


def test_reward_models_learn_the_gold_score_in_standard_deviations():
    recipe = replace(TINY_REWARD, examples=300)
    tokens, targets = recipe.data(random.Random(3))
    examples = zip(*mixture(random.Random(3), 300), strict=True)
    scores = np.array([gold(prompt, answer) for prompt, answer in examples])
    expected = (scores - scores.mean()) / scores.std(ddof=1)
    assert targets.tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert (tokens[:, -1] == ID[EOS]).all()


def test_progress_is_tracked():
    seen = []

    def track(steps, label):
        seen.append(label)
        yield from steps

    train(TINY_REWARD, track)
    assert seen == ["training a reward model of width 16"]


@pytest.mark.parametrize("recipe", [TINY_DENOISER, TINY_REWARD])
def test_the_cache_gives_back_what_was_trained(recipe, cache, monkeypatch):
    trained = cached(recipe)
    [file] = cache.iterdir()
    assert file.suffix == ".safetensors"
    monkeypatch.setattr("toy.training.train", None)
    assert same(trained, cached(recipe))


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "text"])
def test_a_damaged_cache_file_is_noticed_and_rebuilt(damage, cache, capsys):
    trained = cached(TINY_REWARD)
    [file] = cache.iterdir()
    content = bytearray(file.read_bytes())
    content[-3] ^= 0x10
    broken = {"truncate": content[:-100], "flip": content, "empty": b"", "text": b"not a network"}
    file.write_bytes(bytes(broken[damage]))
    assert same(trained, cached(TINY_REWARD))
    assert "damaged" in capsys.readouterr().out
    assert same(trained, cached(TINY_REWARD))
    assert capsys.readouterr().out == ""
    assert list(cache.iterdir()) == [file]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_in_the_cache_is_refused(make, cache):
    cache.mkdir(exist_ok=True)
    make(training.stored(TINY_REWARD))
    with pytest.raises(ValueError, match=r"^cache: .* is no file; remove it$"):
        train_ahead([TINY_DENOISER, TINY_REWARD], 1, training.no_progress)


@pytest.mark.slow
def test_networks_that_are_trained_side_by_side_are_those_trained_one_by_one(cache):
    shown = []

    def track(networks, label):
        shown.append(label)
        yield from networks

    recipes = [TINY_DENOISER, TINY_REWARD, replace(TINY_REWARD, steps=0)]  # none without a step
    train_ahead(recipes, 2, track)
    assert shown == ["training 3 networks, 2 at a time"]
    assert {file.name for file in cache.iterdir()} == {stored(r).name for r in recipes[:2]}
    for recipe in recipes[:2]:
        assert same(cached(recipe), train(recipe, no_progress))
    train_ahead(recipes[:2], 2, track)  # they are there
    train_ahead(recipes, 1, track)  # one at a time: when its turn comes
    assert len(shown) == 1
    assert len([*cache.iterdir()]) == 2


def test_the_cache_key_is_that_of_the_configuration():
    recipes = [TINY_REWARD, TINY_DENOISER, *(replace(TINY_REWARD, **change) for change in (
        {"seed": 1}, {"steps": 13}, {"size": Size(16, 2)}, {"size": Size(16, 1, 2)}, {"batch": 9},
        {"learning_rate": 1e-3}, {"examples": 51}, {"embedding_std": 0.5},
    ))]  # fmt: skip
    assert len({cache_key(recipe) for recipe in recipes}) == len(recipes)
    assert cache_key(TINY_REWARD) == cache_key(replace(TINY_REWARD))


def test_other_code_and_another_torch_are_other_networks(monkeypatch):
    keys, read = {cache_key(TINY_REWARD)}, Path.read_text
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "0.1")
        keys.add(cache_key(TINY_REWARD))
    for changed in ("language.py", "models.py", "networks.py", "training.py"):
        with monkeypatch.context() as patch:
            mark = lambda path, name=changed: read(path) + "#" * (path.name == name)  # noqa: E731
            patch.setattr(Path, "read_text", mark)
            keys.add(cache_key(TINY_REWARD))
    assert len(keys) == 6
    assert cache_key(TINY_REWARD) in keys


def test_reward_models_come_in_three_sizes():
    parameters = [
        sum(p.numel() for p in REWARDS[name].build().parameters())
        for name in ("small", "medium", "large")
    ]
    assert parameters == sorted(set(parameters))


# The networks behind the protocols


@pytest.fixture
def denoiser():
    return ToyDenoiser(train(TINY_DENOISER, no_progress))


@pytest.fixture(params=["trained", "closed form"])
def reward(request):
    if request.param == "closed form":
        return ClosedFormReward()
    return ToyReward(train(TINY_REWARD, no_progress))


def test_they_fit_the_protocols(denoiser, reward):
    assert isinstance(denoiser, Denoiser)
    assert isinstance(reward, Reward)
    assert denoiser.writable.sum() == len(VOCABULARY) - 8 - 5 - 1
    assert not denoiser.writable[denoiser.mask_id]


def test_a_prompt_has_a_key_of_its_own_wherever_it_stands(denoiser):
    prompts = ["sea castle gloomy", "sea castle grand", "sea  castle gloomy "]
    for order in (prompts, prompts[::-1]):
        assert denoiser.encode(order).keys == tuple(map(prompt_key, order))


def test_a_response_survives_its_text(denoiser):
    ids = torch.tensor(
        [
            [ID[w] for w in words_of("the whale finds the knight")],
            [ID[w] for w in words_of(f"the {EOS} whale")],
            [ID[EOS]] * LENGTH,
        ]
    )
    texts = denoiser.decode(ids)
    assert texts == ["the whale finds the knight", f"the {EOS} whale", EOS]
    assert [[ID[w] for w in words_of(text)] for text in texts] == ids.tolist()


def test_score_is_the_step_reward_of_a_finished_answer(denoiser, reward):
    prompts = ["sea castle gloomy", "sky farm plain"]
    responses = ["the whale finds the knight", "an eagle hides a goat today"]
    tokens = torch.tensor([[ID[w] for w in words_of(response)] for response in responses])
    bound = reward.bind(prompts, 1)
    nothing = torch.zeros_like(tokens, dtype=torch.bool)
    finished = bound.at(tokens, nothing)(reward.embeddings[:0], tokens[0, :0])
    torch.testing.assert_close(reward.score(prompts, responses), finished)
    # The same tokens given as embeddings, at positions that are called masked.
    masked = torch.zeros_like(nothing)
    masked[:, 1:4] = True
    hidden = tokens.masked_fill(masked, ID[MASK])
    mixed = reward.embeddings[tokens[masked]]
    torch.testing.assert_close(bound.at(hidden, masked)(mixed, tokens[masked]), finished)


def test_rewards_do_not_mix_trajectories(denoiser, reward):
    prompts = held_out_prompts(3)
    tokens = torch.randint(0, 60, (6, LENGTH), generator=torch.Generator().manual_seed(0))
    masked = torch.ones_like(tokens, dtype=torch.bool)
    mixed = reward.embeddings[tokens[masked]].clone().requires_grad_()
    rewards = reward.bind(prompts, 2).at(tokens, masked)(mixed, tokens[masked])
    assert rewards.shape == (6,)
    gradient = torch.autograd.grad(rewards[3], mixed)[0].view(6, LENGTH, -1)
    assert gradient[3].abs().sum() > 0
    assert gradient[[0, 1, 2, 4, 5]].abs().max() == 0


def test_trajectories_of_a_prompt_stand_side_by_side(reward):
    prompts, K = ["sea castle gloomy", "sky farm plain"], 3
    responses = ["the whale finds the knight", "an eagle hides a goat", "the oak finds the whale"]
    tokens = torch.tensor([[ID[w] for w in words_of(response)] for response in responses * 2])
    nothing = torch.zeros_like(tokens, dtype=torch.bool)
    found = reward.bind(prompts, K).at(tokens, nothing)(reward.embeddings[:0], tokens[0, :0])
    for row, prompt in enumerate(prompts):
        expected = reward.score([prompt] * K, responses)
        torch.testing.assert_close(found[row * K : (row + 1) * K], expected)


def test_a_reward_model_is_causal_and_read_off_the_last_position():
    network = train(TINY_REWARD, no_progress)
    embedded = torch.randn(2, 20, 16, generator=torch.Generator().manual_seed(0))
    other = embedded.clone()
    other[:, -1, 0] += 1
    before, after = network.transformer(embedded), network.transformer(other)
    torch.testing.assert_close(before[:, :-1], after[:, :-1])
    assert (before[:, -1] - after[:, -1]).abs().max() > 1e-3
    torch.testing.assert_close(network(embedded), network.head(before[:, -1]).squeeze(-1))


def test_the_closed_form_by_hand():
    reward = ClosedFormReward()
    scores = reward.score(
        ["sea castle gloomy"] * 3,
        ["the whale finds the knight", "the oak finds the oak", "the whale finds the goat"],
    )
    assert scores.tolist() == [2, -2, 0]


def test_the_closed_form_is_of_the_precision_of_its_table():
    """Each trajectory beside the others of its prompt, with mixed embeddings or its own words."""
    reward = ClosedFormReward(torch.eye(len(VOCABULARY), dtype=torch.float64))
    prompts = ["sea castle gloomy", "farm city tiny"]
    words = encode_words([words_of("the whale finds the knight")] * 4)
    masked = torch.zeros_like(words, dtype=torch.bool)
    masked[:, 1] = True
    goats = reward.embeddings[[ID["goat"]] * 4] / 3
    found = reward.bind(prompts, 2).at(words, masked)(goats, words[:, 1])
    expected = torch.tensor([1 - 1 / 3, 1 - 1 / 3, 1 / 3 - 1, 1 / 3 - 1], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    scores = reward.score(prompts, ["the whale finds the knight"] * 2)
    assert (scores.dtype, scores.tolist()) == (torch.float64, [2, -2])


def test_networks_are_frozen(denoiser):
    reward = ToyReward(train(TINY_REWARD, no_progress))
    generate(denoiser, reward, ["sea castle gloomy"], TINY)
    for network in (denoiser.network, reward.network):
        assert not network.training
        assert not any(p.requires_grad or p.grad is not None for p in network.parameters())


def test_another_length_is_refused(as_users_run_it, denoiser, reward):
    with pytest.raises(
        ValueError, match=r"new_tokens: got shape \[4, 5\], expected .* = \[any, 16\]"
    ):
        generate(denoiser, reward, held_out_prompts(2), replace(TINY, new_tokens=5))


def test_log_likelihood_by_the_chain_rule(denoiser):
    """For one answer, token by token; the first end of sequence counts, the others do not."""
    prompt, response = "sea castle gloomy", "the whale finds"
    tokens = [ID[word] for word in words_of(response)]
    total = 0.0
    for i in range(4):
        row = torch.tensor([tokens[:i] + [ID[MASK]] * (LENGTH - i)])
        here = torch.arange(LENGTH)[None] == i
        visible = torch.cat([encode_prompts([prompt]), row], 1)
        logits = denoiser(visible, torch.ones_like(visible, dtype=torch.bool), here)[0]
        total += logits.log_softmax(0)[tokens[i]].item()
    found = log_likelihood(denoiser, [prompt] * 2, [response, EOS])
    assert found[0].item() == pytest.approx(total / 4, rel=1e-5)


def test_log_likelihood_is_each_answers_own_in_any_company(denoiser):
    """Answers that have ended are read no more, and each of the others is of its own prompt."""
    prompts = ["sea castle gloomy", "forest sky plain", "farm city tiny"]
    answers = ["the whale", EOS, "a goat finds the tram and the goat finds the tram"]
    found = log_likelihood(denoiser, prompts, answers)
    alone = [
        log_likelihood(denoiser, [prompt], [answer])
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    torch.testing.assert_close(found, torch.cat(alone), rtol=1e-5, atol=1e-5)
    swapped = log_likelihood(denoiser, prompts[::-1], answers)
    assert (swapped - found).abs()[[0, 2]].min() > 1e-4


def test_measures_read_decoded_responses():
    assert gold_score("sea castle gloomy", "the whale finds the knight") == 2
    assert valid("the whale finds the knight")
    assert not valid(EOS)


def test_held_out_prompts_are_bounded():
    assert len(held_out_prompts(96)) == 96
    assert held_out_prompts(1) == held_out_prompts(96)[:1]
    for count in (0, 97):
        with pytest.raises(ValueError, match=f"prompts: got {count}, expected 1 to 96"):
            held_out_prompts(count)


def test_testbeds_say_what_they_are(monkeypatch):
    for name, recipe in (("QUICK_DENOISER", TINY_DENOISER), ("QUICK_REWARD", TINY_REWARD)):
        monkeypatch.setattr(f"toy.testbed.{name}", recipe)
    monkeypatch.setattr("toy.testbed.DENOISER", None)  # these are all quick
    testbed = toy_testbed.Testbed.load(quick=True, seed=3, embedding_std=0.5)
    assert testbed.description == (
        "mask predictor of seed 3, quick reward model of seed 3 with embeddings started at "
        "standard deviation 0.5"
    )
    layer = 4 * 16 * 16 + 2 * 4 * 16 * 16 + 9 * 16 + 4 * 16  # attention, MLP, biases, two norms
    assert testbed.costs.reward == 20 * (layer + 2 * 16 + 16 + 1)
    assert testbed.costs.denoiser == 19 * (layer + 2 * 16 + 16 * 75 + 75)
    _, other = testbed.pairs(2)
    assert other.description == testbed.description.replace("seed 3", "seed 4")
    closed = toy_testbed.Testbed.load("closed_form", quick=True, seed=0)
    assert closed.costs.reward == 0
    assert [pair.description for pair in closed.pairs(2)] == [
        f"quick mask predictor of seed {seed}, closed-form reward" for seed in (0, 1)
    ]
    with pytest.raises(ValueError, match="did you mean 'large'"):
        toy_testbed.Testbed.load("lage", seed=0)


def test_gradients_are_cut_to_length_1(monkeypatch):
    """However steep the loss is; the rate of learning rises in the first tenth of the steps."""
    lengths, rates, step = [], [], torch.optim.AdamW.step

    def noted(optimiser):
        (group,) = optimiser.param_groups
        each = [parameter.grad.norm() for parameter in group["params"]]
        lengths.append(torch.stack(each).norm().item())
        assert group["weight_decay"] == 0.01
        rates.append(group["lr"])
        return step(optimiser)

    recipe = replace(TINY_REWARD, steps=20, learning_rate=0.01)
    steep = lambda *given: 1e4 * RewardRecipe.loss(recipe, *given)  # noqa: E731
    object.__setattr__(recipe, "loss", steep)
    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    train(recipe, no_progress)
    assert lengths == [pytest.approx(1, abs=1e-3)] * 20
    assert rates.index(max(rates)) == 1
    assert max(rates) == pytest.approx(0.01)
    waves = [(1 + np.cos(np.pi * i / 18)) / 2 for i in range(19)]
    assert rates[1:] == pytest.approx([4e-8 + (0.01 - 4e-8) * wave for wave in waves])


def test_at_least_one_word_in_16_is_masked(monkeypatch, as_users_run_it):
    """Where the rate that is drawn is less; with chance 1/16 for each word."""
    rates, chances = torch.tensor([[0.0], [0.5]]), torch.arange(LENGTH).expand(2, -1) / LENGTH
    drawn = iter([rates, chances])
    monkeypatch.setattr(torch, "rand", lambda *shape, generator: next(drawn))
    seen = []

    def network(tokens, masked):
        seen.append(masked.sum(1).tolist())
        return torch.zeros(int(masked.sum()), len(VOCABULARY))

    TINY_DENOISER.loss(network, torch.zeros(2, 19, dtype=torch.long), None, None)
    assert seen == [[1, 8]]


def test_the_recipes_of_the_networks():
    """Another network has other numbers: those of the records are of these."""
    assert (
        DenoiserRecipe(Size(64, 2, 4), 2400, 0, 64, 0.006, 60_000),
        DenoiserRecipe(Size(48, 2, 4), 1200, 0, 64, 0.006, 20_000),
    ) == (DENOISER, QUICK_DENOISER)
    assert {
        "small": RewardRecipe(Size(24, 2, 4), 1600, 0, 64, 0.004, 60_000, 1.0),
        "medium": RewardRecipe(Size(48, 4, 4), 1600, 0, 64, 0.004, 60_000, 1.0),
        "large": RewardRecipe(Size(96, 4, 4), 3200, 0, 64, 0.002, 120_000, 1.0),
        "quick": RewardRecipe(Size(24, 2, 4), 800, 0, 64, 0.006, 20_000, 1.0),
    } == {**REWARDS, "quick": QUICK_REWARD}


def test_networks_are_kept_in_a_folder_that_is_made(monkeypatch, tmp_path):
    monkeypatch.setenv("TOY_CACHE", str(tmp_path / "a" / "b"))
    path = stored(TINY_REWARD)
    assert path.parent == tmp_path / "a" / "b"
    assert re.fullmatch(r"RewardRecipe-[0-9a-f]{16}\.safetensors", path.name)
    cached(replace(TINY_REWARD, steps=1))
    cached(replace(TINY_DENOISER, steps=1))
    assert len([*path.parent.iterdir()]) == 2
    monkeypatch.delenv("TOY_CACHE")
    assert stored(TINY_REWARD).parent == Path(training.__file__).parent / ".cache"


@pytest.mark.parametrize("causal", [False, True])
def test_a_transformer_by_its_equations(causal):
    """Before each part the vectors are normed; four heads share the width; nothing is dropped."""
    torch.manual_seed(0)
    d, L = 8, 5
    network = Transformer(Size(d, 2), L, causal)
    assert network.position.std().item() == pytest.approx(0.02, rel=0.4)
    x = embedded = torch.randn(2, L, d)
    p = {name: value.detach() for name, value in network.named_parameters()}
    x = x + p["position"]
    for layer in range(2):
        w = {n.removeprefix(f"layers.layers.{layer}."): v for n, v in p.items()}
        normed = F.layer_norm(x, (d,), w["norm1.weight"], w["norm1.bias"])
        qkv = normed @ w["self_attn.in_proj_weight"].T + w["self_attn.in_proj_bias"]
        q, k, v = (part.view(2, L, 4, 2).transpose(1, 2) for part in qkv.split(d, -1))
        scores = q @ k.transpose(2, 3) / 2**0.5
        if causal:
            scores = scores.masked_fill(torch.ones(L, L).triu(1) > 0, -torch.inf)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(2, L, d)
        x = x + mixed @ w["self_attn.out_proj.weight"].T + w["self_attn.out_proj.bias"]
        normed = F.layer_norm(x, (d,), w["norm2.weight"], w["norm2.bias"])
        hidden = F.gelu(normed @ w["linear1.weight"].T + w["linear1.bias"])
        assert hidden.shape[-1] == 4 * d
        x = x + hidden @ w["linear2.weight"].T + w["linear2.bias"]
    x = F.layer_norm(x, (d,), p["layers.norm.weight"], p["layers.norm.bias"])
    for trained in (True, False):
        torch.testing.assert_close(network.train(trained)(embedded), x)


def test_a_mask_predictor_reads_both_ways_and_a_reward_model_one():
    predictor = MaskPredictor(Size(8, 1), 7, 3).eval()
    tokens, first = torch.tensor([[0, 1, 2], [0, 1, 3]]), torch.tensor([[True, False, False]] * 2)
    one, other = predictor(tokens, first)
    assert (one - other).abs().max() > 1e-6
    judge = RewardModel(Size(8, 1), 7, 3, 0.25)
    assert judge.embedding.weight.std().item() == pytest.approx(0.25, rel=0.3)
    assert judge(torch.zeros(2, 3, 8)).shape == (2,)


def test_quick_recipes_are_smaller():
    assert QUICK_DENOISER.steps * QUICK_DENOISER.size.width < 100_000
    assert QUICK_REWARD.examples < REWARDS["medium"].examples
