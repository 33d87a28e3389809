"""Algorithm 1, the outer loop."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from entrgi_ref import (
    WEIGHTS,
    Candidates,
    DenoisingRecord,
    Generation,
    GuidanceConfig,
    KeyedDraws,
    SamplingConfig,
    approximation_error,
    commit,
    draw_candidates,
    entropy,
    entropy_weight,
    generate,
    guide,
    how_many,
    predict,
    rank,
    schedule,
)
from entrgi_ref.draws import KeyedStepDraws
from entrgi_ref.orders import ORDERS as ORDER_FUNCTIONS
from entrgi_ref.orders import by_entropy
from entrgi_ref.schedule import floor_share
from properties import tried
from tiny import TinyDenoiser, TinyReward, Trainable, stand_in

ORDERS = ["entropy", "maskgit_plus", "topk_margin", "anchor", "origin"]
FLOAT64 = GuidanceConfig(dtype="float64", steps=2)
SMALL = SamplingConfig(FLOAT64, trajectories=2, new_tokens=6, denoising_steps=6)
PROMPTS = ["12", "40577"]


def observed(config=SMALL, prompts=PROMPTS, seed=0, **networks):
    """A generation and the records of its steps."""
    records: list[DenoisingRecord] = []
    denoiser = networks.get("denoiser") or TinyDenoiser(seed)
    reward = networks.get("reward") or TinyReward(seed + 50)
    return generate(denoiser, reward, prompts, config, observe=records.append), records


def _fitting(settings):
    """The order `origin` ranks nothing that a temperature could mix, and refuses one."""
    return settings | ({"order_temperature": 0.0} if settings["order"] == "origin" else {})


CONFIGS = st.fixed_dictionaries(
    {
        "trajectories": st.integers(1, 3),
        "new_tokens": st.integers(1, 8),
        "denoising_steps": st.integers(1, 12),
        "order": st.sampled_from(ORDERS),
        "order_temperature": st.sampled_from([0.0, 0.7]),
        "eos_last": st.booleans(),
        "skip_empty_steps": st.booleans(),
        "seed": st.integers(0, 2**63 - 1),
    }
).map(_fitting)


# What holds for every generation


@tried(60)
@given(st.integers(0, 10**6), CONFIGS, st.integers(0, 2))
def test_commitments_stay_and_follow_the_schedule(seed, settings, steps):
    config = SamplingConfig(replace(FLOAT64, steps=steps), **settings)
    denoiser = TinyDenoiser(seed)
    generation, records = observed(config, denoiser=denoiser, reward=TinyReward(seed))
    S, N = len(PROMPTS) * config.trajectories, config.new_tokens
    counts = {step.index: step.count for step in schedule(config.denoising_steps, N)}
    before = torch.full((S, N), denoiser.mask_id)
    for record in records:
        n = int(record.masked.sum())
        assert torch.equal(record.masked, before == denoiser.mask_id)
        assert torch.all(record.masked[record.committed])
        if config.order != "origin":
            assert record.committed.sum(1).tolist() == [counts[record.step]] * S
        proposal = before.masked_scatter(record.masked, record.candidates)
        assert torch.equal(record.tokens, torch.where(record.committed, proposal, before))
        for name in ("entropy", "weight", "E", "D"):
            assert getattr(record, name).shape == (steps if n else 0, n) or n == 0
        assert record.logits.shape == record.guided_logits.shape == (n, denoiser.vocabulary)
        before = record.tokens
    assert torch.equal(generation.tokens.flatten(0, 1), before)
    assert torch.all(denoiser.writable[generation.tokens])
    if config.order != "origin":
        ran = [record.step for record in records]
        assert ran == [i for i in counts if counts[i] or not config.skip_empty_steps]
        new_boards = 1 + sum(bool(record.committed.any()) for record in records[:-1])
        assert denoiser.calls == new_boards
        assert new_boards == len(ran) or not config.skip_empty_steps


@tried(30)
@given(st.integers(0, 10**6), CONFIGS)
def test_skipping_empty_steps_changes_nothing(seed, settings):
    config = SamplingConfig(FLOAT64, **settings)
    one, _ = observed(replace(config, skip_empty_steps=True), seed=seed)
    other, _ = observed(replace(config, skip_empty_steps=False), seed=seed)
    assert torch.equal(one.tokens, other.tokens)
    assert torch.equal(one.rewards, other.rewards)


def test_skipping_saves_the_calls():
    config = replace(SMALL, denoising_steps=20, order="origin", trajectories=1)
    for order, most in (("entropy", 6), ("origin", 13)):
        denoiser = TinyDenoiser(0)
        observed(replace(config, order=order), denoiser=denoiser)
        assert denoiser.calls <= most


@tried(30)
@given(
    st.integers(0, 10**6),
    CONFIGS,
    st.lists(st.text("0123456789", min_size=1, max_size=9), min_size=2, max_size=4, unique=True),
    st.randoms(use_true_random=False),
)
def test_an_answer_does_not_depend_on_its_batch(seed, settings, prompts, random):
    """Alone, or among prompts of other lengths, in any order: the same tokens, in float64."""
    config = SamplingConfig(FLOAT64, **settings)
    together, _ = observed(config, prompts, seed)
    shuffled = random.sample(prompts, len(prompts))
    reordered, _ = observed(config, shuffled, seed)
    for p, prompt in enumerate(prompts):
        alone, _ = observed(config, [prompt], seed)
        assert torch.equal(together.tokens[p], alone.tokens[0])
        assert torch.equal(together.tokens[p], reordered.tokens[shuffled.index(prompt)])
        torch.testing.assert_close(together.rewards[p], alone.rewards[0])


def test_the_first_trajectories_do_not_depend_on_how_many_there_are():
    two, _ = observed(SMALL)
    five, _ = observed(replace(SMALL, trajectories=5))
    assert torch.equal(two.tokens, five.tokens[:, :2])


def test_the_seed_decides():
    first, _ = observed(SMALL)
    again, _ = observed(SMALL)
    assert torch.equal(first.tokens, again.tokens)
    others = [observed(replace(SMALL, seed=seed))[0].tokens for seed in range(1, 9)]
    assert all(not torch.equal(first.tokens, other) for other in others)
    assert len({tuple(row.tolist()) for row in first.tokens.flatten(0, 1)}) > 1


def test_global_generators_are_neither_used_nor_touched():
    torch.manual_seed(1)
    first, _ = observed(SMALL)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    second, _ = observed(SMALL)
    assert torch.equal(first.tokens, second.tokens)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("forced", "method"), [(0.0, "expectation"), (1.0, "aps")])
def test_entrgi_with_its_weight_forced_is_expectation_or_aps(order, forced, method):
    def weight(logits):
        return entropy_weight(logits) * 0 + forced

    named, records = observed(replace(SMALL, order=order, guidance=replace(FLOAT64, weight=method)))
    own, own_records = observed(
        replace(SMALL, order=order, guidance=replace(FLOAT64, weight=weight))
    )
    assert torch.equal(named.tokens, own.tokens)
    for a, b in zip(records, own_records, strict=True):
        assert torch.equal(a.guided_logits, b.guided_logits)


def test_best_of_n_is_no_steps_whatever_the_weight():
    runs = [
        observed(replace(SMALL, guidance=GuidanceConfig(weight, steps=0, dtype="float64")))
        for weight in WEIGHTS
    ]
    for generation, records in runs:
        assert torch.equal(generation.tokens, runs[0][0].tokens)
        for record in records:
            assert torch.equal(record.guided_logits, record.logits)
            assert record.weight.shape == (0, len(record.candidates))
            assert record.rewards.shape == (0, 4)


def test_guidance_raises_the_reward():
    """On average over prompts and seeds: what the method is for."""
    prompts = [str(i) for i in range(16)]
    config = replace(SMALL, guidance=replace(FLOAT64, steps=3, step_size=1.0))
    unguided = replace(config, guidance=replace(config.guidance, steps=0))
    base = observed(unguided, prompts)[0].rewards.mean()
    for weight in WEIGHTS:
        guided = replace(config, guidance=replace(config.guidance, weight=weight))
        assert observed(guided, prompts)[0].rewards.mean() > base + 0.3


# Settings


@pytest.mark.parametrize(
    "changes",
    [{}, {"order": by_entropy}, {"write_every_id": True}, {"order_temperature": 0.7}],
)
def test_ends_of_sequence_come_last(changes):
    """With a denoiser that likes to end: EOS candidates wait until nothing else is left."""
    denoiser = TinyDenoiser(0, sharpness=0.3)
    denoiser.head[:, denoiser.eos_id] += 0.4
    seen = 0
    for eos_last in (True, False):
        config = replace(SMALL, eos_last=eos_last, seed=4, **changes)
        _, records = observed(config, denoiser=denoiser)
        early = 0
        for record in records:
            candidate = torch.zeros_like(record.tokens).masked_scatter(
                record.masked, record.candidates
            )
            ends = record.masked & (candidate == denoiser.eos_id)
            waiting = record.masked & ~ends & ~record.committed
            early += int(((ends & record.committed).any(1) & waiting.any(1)).sum())
            seen += int(ends.sum())
        assert (early == 0) == eos_last
    assert seen > 10


def test_a_denoiser_without_an_end_of_sequence():
    denoiser = TinyDenoiser(0)
    denoiser.eos_id = None
    generation, _ = observed(denoiser=denoiser)
    assert generation.tokens.shape == (2, 2, 6)


@pytest.mark.parametrize("order", ["entropy", "maskgit_plus", "topk_margin", "anchor"])
def test_the_most_confident_are_committed(order):
    _, records = observed(replace(SMALL, order=order, eos_last=False, denoising_steps=3))
    for record in records:
        grid = torch.full(record.masked.shape, math.nan, dtype=torch.float64)
        grid = grid.masked_scatter(record.masked, record.confidence)
        for row in range(len(grid)):
            kept, left = (
                grid[row, record.committed[row]],
                grid[row, record.masked[row] & ~record.committed[row]],
            )
            assert len(left) == 0 or kept.min() >= left.max()


def test_of_equally_confident_positions_the_earlier_comes_first():
    _, records = observed(
        replace(SMALL, order=lambda candidates: torch.zeros(len(candidates.tokens)), eos_last=False)
    )
    for record in records:
        for row in range(len(record.masked)):
            first = record.masked[row].nonzero()[: int(record.committed[row].sum()), 0]
            assert torch.equal(record.committed[row].nonzero()[:, 0], first)


def test_an_order_of_your_own():
    """From right to left, by the position of the candidates in their row."""

    def right_to_left(candidates: Candidates):
        return torch.arange(len(candidates.tokens)).double()

    _, records = observed(replace(SMALL, order=right_to_left, eos_last=False))
    last_step = records[-1].committed
    assert torch.equal(last_step, (torch.arange(6) < 2).expand(4, 6))


def test_order_temperature_mixes_the_order_and_zero_does_not():
    orders = {
        temperature: {
            tuple(record.committed[0].int().argmax().item() for record in records)
            for seed in range(6)
            for _, records in [
                observed(
                    replace(
                        SMALL,
                        guidance=replace(FLOAT64, steps=0),
                        order="entropy",
                        order_temperature=temperature,
                        seed=seed,
                        trajectories=1,
                        temperature=1e-6,  # greedy tokens: only the order can differ
                    )
                )
            ]
        }
        for temperature in (0.0, 5.0)
    }
    assert len(orders[0.0]) == 1
    assert len(orders[5.0]) > 3


def test_order_temperature_mixes_an_order_of_your_own_too():
    config = replace(SMALL, order="maskgit_plus", order_temperature=0.7, trajectories=4)
    named, _ = observed(config)
    own, _ = observed(replace(config, order=ORDER_FUNCTIONS["maskgit_plus"]))
    still, _ = observed(replace(config, order_temperature=0.0))
    assert torch.equal(own.tokens, named.tokens)
    assert not torch.equal(named.tokens, still.tokens)


def test_origin_commits_each_position_with_the_probability_of_the_step():
    config = SamplingConfig(
        replace(FLOAT64, steps=0), 64, 16, 4, order="origin", skip_empty_steps=False
    )
    _, records = observed(config, ["1", "2", "3", "4"])
    for record, step in zip(records, schedule(4, 16), strict=True):
        n = int(record.masked.sum())
        share = int(record.committed.sum()) / n
        deviation = math.sqrt(step.fraction * (1 - step.fraction) / n)
        assert abs(share - step.fraction) <= 4 * deviation


def test_every_id_may_be_written_and_masks_are_filled_again():
    """Ledger row 12: with a likely mask, rows lag behind, and masks may be left at the end."""
    denoiser = TinyDenoiser(0, sharpness=0.3)
    denoiser.head[:, denoiser.mask_id] += 0.5
    config = replace(SMALL, write_every_id=True, trajectories=8)
    generation, records = observed(config, denoiser=denoiser)
    assert (generation.tokens == denoiser.mask_id).any()
    assert len({tuple(record.masked.sum(1).tolist()) for record in records[-1:]}) == 1
    assert len(set(records[-1].masked.sum(1).tolist())) > 1
    for record in records:
        share = next(s.fraction for s in schedule(6, 6) if s.index == record.step)
        expected = floor_share(record.masked.sum(1), share)
        assert torch.equal(record.committed.sum(1), expected)
    strict, _ = observed(replace(config, write_every_id=False), denoiser=denoiser)
    assert not (strict.tokens == denoiser.mask_id).any()


def test_ids_that_may_not_be_written_have_no_part_in_anything():
    """The same answer as with a table in which those ids' embeddings are anything else."""
    denoiser = TinyDenoiser(0)
    denoiser.writable[3] = denoiser.writable[7] = False
    reward = TinyReward(50)
    first, records = observed(denoiser=denoiser, reward=reward, prompts=["12", "456"])
    for record in records:
        assert torch.all(record.logits[:, [3, 7, 13]] == -torch.inf)
        assert torch.all(record.guided_logits[:, [3, 7, 13]] == -torch.inf)
    changed = TinyReward(50)
    committed = changed.embeddings.clone()
    changed.embeddings[[3, 7]] = 1e3
    second, _ = observed(denoiser=denoiser, reward=changed, prompts=["12", "456"])
    assert not torch.equal(committed, changed.embeddings)
    assert torch.equal(first.tokens, second.tokens)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("float32", torch.float32),
        ("float64", torch.float64),
        ("bfloat16", torch.bfloat16),
        ("denoiser", torch.float64),
    ],
)
def test_dtype_is_that_of_the_guided_logits(name, dtype):
    _, records = observed(replace(SMALL, guidance=GuidanceConfig(dtype=name)))
    for record in records:
        assert record.logits.dtype == record.guided_logits.dtype == dtype


@pytest.mark.parametrize("vocabulary_batch", [None, 5])
@pytest.mark.parametrize("tau", [0.3, 2.0])
@pytest.mark.parametrize(("weight", "own"), [("entrgi", False), ("entrgi_tempered", True)])
def test_the_tempered_weight_alone_is_that_of_the_sampling_temperature(
    weight, own, tau, vocabulary_batch
):
    records = []
    guidance = replace(FLOAT64, weight=weight, epsilon=1e-4)
    config = replace(SMALL, guidance=guidance, temperature=tau)
    options = {"observe": records.append, "vocabulary_batch": vocabulary_batch}
    generate(TinyDenoiser(0, sharpness=0.5), TinyReward(50), PROMPTS, config, **options)
    for record in records:
        expected = entropy_weight(record.logits, temperature=tau if own else 1, epsilon=1e-4)
        torch.testing.assert_close(record.weight[0], expected)
        assert (record.entropy[0] > 0.2).any()


def test_authors_settings_run():
    generation, records = observed(SMALL.authors())
    assert generation.tokens.shape == (2, 2, 6)
    assert records[0].logits[:, -1].isfinite().all()


# What is observed


def test_records_hold_what_figures_2_and_3_need():
    config = replace(SMALL, guidance=replace(FLOAT64, weight="aps", steps=3))
    _, records = observed(config)
    for record in records:
        n = len(record.candidates)
        assert (
            record.entropy.shape
            == record.weight.shape
            == record.E.shape
            == record.D.shape
            == (3, n)
        )
        assert record.rewards.shape == (3, 4)
        assert torch.all(record.weight == 1)
        assert torch.all(record.D < 1e-9)
        torch.testing.assert_close(record.entropy[0], entropy(record.logits))
    assert [record.step for record in records] == [1, 2, 3, 4, 5]
    assert [record.t for record in records] == [step.t for step in schedule(6, 6)[1:]]


def test_nothing_is_recorded_when_nobody_listens(monkeypatch):
    def never(*arguments):
        raise AssertionError("a record was made for nobody")

    monkeypatch.setattr("entrgi_ref.denoising.DenoisingRecord", never)
    monkeypatch.setattr("entrgi_ref.guidance.GradientRecord", never)
    monkeypatch.setattr("entrgi_ref.errors.approximation_error", never)
    generate(TinyDenoiser(0), TinyReward(50), PROMPTS, SMALL)


def test_observing_changes_nothing():
    seen, _ = observed(SMALL)
    unseen = generate(TinyDenoiser(0), TinyReward(50), PROMPTS, SMALL)
    assert torch.equal(seen.tokens, unseen.tokens)
    assert torch.equal(seen.rewards, unseen.rewards)


class Noted(list):
    """An observer, or draws, that are false as long as they have noted nothing."""

    __call__ = list.append

    def at(self, *where):
        self.append(where)
        return KeyedDraws.of(5, [1, 2], 2).at(*where)


def test_an_observer_that_is_an_empty_list_observes():
    seen = Noted()
    generate(TinyDenoiser(0), TinyReward(50), PROMPTS, SMALL, observe=seen)
    assert [record.step for record in seen] == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="observe: got 0, expected a function"):
        generate(TinyDenoiser(0), TinyReward(50), PROMPTS, SMALL, observe=0)


@pytest.mark.parametrize("vocabulary_batch", [None, 5])
def test_draws_that_are_an_empty_list_are_drawn_from(vocabulary_batch):
    networks, options = (TinyDenoiser(0), TinyReward(50)), {"vocabulary_batch": vocabulary_batch}
    draws = KeyedDraws.of(5, [1, 2], 2)
    expected = generate(*networks, PROMPTS, SMALL, draws=draws, **options)
    found = generate(*networks, PROMPTS, SMALL, draws=Noted(), **options)
    assert torch.equal(found.tokens, expected.tokens)


def test_records_do_not_alias_what_changes_later():
    _, records = observed(SMALL)
    for earlier, later in itertools.pairwise(records):
        assert not torch.equal(earlier.tokens, later.tokens)
        assert not torch.equal(earlier.logits, earlier.guided_logits)
        assert torch.equal(later.masked, earlier.tokens == 13)


# The result


def test_generation_reports_best_and_average():
    generation, _ = observed(replace(SMALL, trajectories=3))
    denoiser, reward = TinyDenoiser(0), TinyReward(50)
    assert generation.prompts == tuple(PROMPTS)
    for p, prompt in enumerate(PROMPTS):
        assert generation.responses[p] == denoiser.decode(generation.tokens[p])
        scores = reward.score([prompt] * 3, generation.responses[p])
        torch.testing.assert_close(generation.rewards[p], scores)
        assert generation.top1[p] == generation.rewards[p].max()
        torch.testing.assert_close(generation.average[p], scores.mean())
        assert generation.best[p] == generation.responses[p][int(scores.argmax())]


def test_defaults_are_used_without_a_config():
    records: list[DenoisingRecord] = []
    with pytest.raises(IndexError):  # the tiny network has 64 positions, the paper's answer 128
        generate(TinyDenoiser(0), TinyReward(0), ["1"], observe=records.append)


# Bad input


@pytest.mark.parametrize("prompts", [[], (), "one string", [1], ["a", None]])
def test_prompts_are_a_list_of_strings(as_users_run_it, prompts):
    denoiser = TinyDenoiser(0)
    with pytest.raises(ValueError, match=r"prompts: got .* expected a list of at least one string"):
        generate(denoiser, TinyReward(0), prompts, SMALL)
    assert denoiser.calls == 0


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("denoiser", "a path", "a Denoiser, which has 'mask_id'"),
        ("denoiser", TinyDenoiser, "a Denoiser, which has 'mask_id'"),
        ("reward", lambda texts: texts, "a Reward, which has 'embeddings'"),
        ("config", {}, "a SamplingConfig, which has 'guided_steps'"),
        ("config", FLOAT64, "a SamplingConfig, which has 'guided_steps'"),
        ("draws", 0, "Draws, which has 'at'"),
    ],
)
def test_what_is_no_part_of_it_is_refused(as_users_run_it, name, value, expected):
    """Also what is false: it does not stand for the default."""
    denoiser, reward = TinyDenoiser(0), TinyReward(0)
    given = {"denoiser": denoiser, "reward": reward, "config": SMALL} | {name: value}
    with pytest.raises(ValueError, match=rf"^{name}: got .*, expected {expected}$"):
        generate(prompts=PROMPTS, **given)
    assert denoiser.calls == 0


def test_networks_must_share_a_vocabulary(as_users_run_it):
    denoiser = TinyDenoiser(0)
    with pytest.raises(
        ValueError, match=r"reward.embeddings: got shape \[9, 6\], expected .* \[14, any\]"
    ):
        generate(denoiser, TinyReward(0, vocabulary=9), PROMPTS, SMALL)
    assert denoiser.calls == 0


def test_the_mask_is_not_writable(as_users_run_it):
    denoiser = TinyDenoiser(0)
    denoiser.writable = torch.ones(14, dtype=torch.bool)
    with pytest.raises(ValueError, match="writable: got True at the mask token"):
        generate(denoiser, TinyReward(0), PROMPTS, SMALL)
    assert denoiser.calls == 0


class Wrong:
    """A network of which one method returns something else."""

    def __init__(self, network, **methods):
        self.network, self.call = network, methods.pop("call", None)
        vars(self).update(methods)
        stand_in(self, network)

    def __call__(self, *arguments):
        return self.call(self.network(*arguments))


def test_a_denoiser_of_the_wrong_shape(as_users_run_it):
    denoiser = Wrong(TinyDenoiser(0), call=lambda logits: logits[:, :5])
    with pytest.raises(
        ValueError, match=r"denoiser's logits: got shape \[24, 5\], expected .* \[24, 14\]"
    ):
        generate(denoiser, TinyReward(0), PROMPTS, SMALL)


@pytest.mark.parametrize("change", [lambda logits: logits[:-1], lambda logits: logits.repeat(2, 1)])
def test_a_denoiser_of_a_wrong_number_of_rows(as_users_run_it, change):
    denoiser = Wrong(TinyDenoiser(0), call=change)
    with pytest.raises(
        ValueError, match=r"denoiser's logits: got shape .*expected \[n, V\] = \[24"
    ):
        generate(denoiser, TinyReward(0), PROMPTS, SMALL)


class WrongReward(TinyReward):
    """A reward whose steps return `change(rewards)`, from the denoising step `since` on."""

    change = staticmethod(lambda rewards: rewards)
    since = 0

    def bind(self, prompts, trajectories):
        bound, steps = super().bind(prompts, trajectories), itertools.count()

        def at(response, masked):
            step, late = bound.at(response, masked), next(steps) >= self.since
            return Wrong(step, call=self.change) if late else step

        return Wrong(bound, at=at)


@pytest.mark.parametrize(
    "change", [lambda r: r[:, None], lambda r: r.sum(), lambda r: r[:2], lambda r: r.tolist()]
)
def test_a_reward_of_the_wrong_shape(as_users_run_it, change):
    reward = WrongReward(0)
    reward.change = change
    with pytest.raises(ValueError, match=r"reward: got .* \[S\], one number per trajectory"):
        generate(TinyDenoiser(0), reward, PROMPTS, SMALL)


def test_a_final_score_of_the_wrong_shape(as_users_run_it):
    reward = Wrong(TinyReward(0), score=lambda prompts, responses: torch.zeros(2))
    with pytest.raises(ValueError, match=r"reward.score: got shape \[2\], expected .* = \[4\]"):
        generate(TinyDenoiser(0), reward, PROMPTS, SMALL)


def test_a_final_score_that_is_not_finite():
    scores = torch.tensor([0.0, 1.0, math.nan, 2.0])
    reward = Wrong(TinyReward(0), score=lambda prompts, responses: scores)
    with pytest.raises(
        ValueError, match=r"finished answer is not finite, for prompt 1 \('40577'\)"
    ):
        generate(TinyDenoiser(0), reward, PROMPTS, SMALL)


@pytest.mark.parametrize(
    "weight", [lambda logits: logits, lambda logits: logits.sum(), lambda logits: 1]
)
def test_a_weight_of_the_wrong_shape(as_users_run_it, weight):
    with pytest.raises(ValueError, match=r"weight: got .*\[n\], one number per masked position"):
        observed(replace(SMALL, guidance=replace(FLOAT64, weight=weight)))


def test_an_order_of_the_wrong_shape(as_users_run_it):
    with pytest.raises(ValueError, match="order: got shape"):
        observed(replace(SMALL, order=lambda candidates: candidates.probabilities))


def test_a_reward_that_turns_nan_names_the_step_and_the_prompt():
    reward = WrongReward(50)
    reward.since = 3
    reward.change = lambda rewards: rewards * torch.tensor([1, 1, math.nan, 1])
    message = (
        r"denoising step 4: the reward is not finite at gradient step 0, for prompt 1 \('40577'\)$"
    )
    with pytest.raises(ValueError, match=message):
        generate(TinyDenoiser(0), reward, PROMPTS, SMALL)


@pytest.mark.parametrize(("row", "prompt"), [(2, r"0 \('12'\)"), (3, r"1 \('40577'\)")])
def test_a_prompt_has_as_many_rows_as_trajectories(row, prompt):
    """Three, of two prompts."""
    bad, three = torch.arange(6) == row, replace(SMALL, trajectories=3)
    guiding, scoring = WrongReward(50), TinyReward(50)
    guiding.change = lambda rewards: rewards.masked_fill(bad, math.nan)
    scoring.score = lambda prompts, responses: torch.where(bad, math.inf, 0.0)
    where = bad[:, None].expand(6, 6).flatten().double()  # of the first step that runs
    weighing = replace(three, guidance=replace(FLOAT64, weight=lambda logits: 2 * where))
    for reward, config, said in (
        (guiding, three, "denoising step 1: the reward is not finite at gradient step 0"),
        (scoring, three, "the reward of the finished answer is not finite"),
        (
            TinyReward(50),
            weighing,
            r"denoising step 1: the weight is outside \[0, 1\] at gradient step 0",
        ),
    ):
        with pytest.raises(ValueError, match=rf"^{said}, for prompt {prompt}$"):
            generate(TinyDenoiser(0), reward, PROMPTS, config)


def test_a_weight_that_leaves_its_range_names_the_step_and_the_prompts():
    calls = itertools.count()

    def weight(logits):
        w = entropy_weight(logits)
        if (
            next(calls) == 5
        ):  # the third denoising step has 2 gradient steps, of which this is the second
            w = w.index_fill(0, torch.tensor([0, len(w) - 1]), 1.5)
        return w

    message = (
        r"denoising step 3: the weight is outside \[0, 1\] at gradient step 1, "
        r"for prompt 0 \('12'\), 1 \('40577'\)$"
    )
    with pytest.raises(ValueError, match=message):
        observed(replace(SMALL, guidance=replace(FLOAT64, weight=weight)))


def test_what_is_shown_to_an_order_or_an_observer_is_only_read(as_users_run_it):
    def sorting(candidates):
        return candidates.probabilities.mul_(2).amax(-1)

    with pytest.raises(ValueError, match="order: it wrote into what it was given"):
        observed(replace(SMALL, order=sorting))
    networks = TinyDenoiser(0), TinyReward(50)
    with pytest.raises(ValueError, match="observe: got 5, expected a function"):
        generate(*networks, PROMPTS, SMALL, observe=5)
    assert networks[0].calls == 0
    with pytest.raises(ValueError, match="observe: it wrote into what it was given"):
        generate(*networks, PROMPTS, SMALL, observe=lambda record: record.tokens.fill_(7))
    with torch.inference_mode():
        generate(*networks, PROMPTS, replace(SMALL, order=by_entropy), observe=lambda record: None)


@pytest.mark.parametrize("steps", [0, 2])
def test_a_denoiser_that_turns_nan_names_the_step_and_the_prompt(steps):
    denoiser = Wrong(
        TinyDenoiser(0),
        call=lambda logits: logits.index_fill(0, torch.tensor([len(logits) - 1]), math.nan),
    )
    message = r"denoising step 1: the denoiser's logits are not finite, for prompt 1 \('40577'\)$"
    with pytest.raises(ValueError, match=message):
        generate(
            denoiser, TinyReward(0), PROMPTS, replace(SMALL, guidance=replace(FLOAT64, steps=steps))
        )


def test_E_in_the_record_is_the_distance_to_the_soft_embedding():
    """Recomputed from outside: psi of the first gradient step is phi."""
    reward = TinyReward(50)
    seen = []

    class Spy(TinyReward):
        def bind(self, prompts, trajectories):
            bound = super().bind(prompts, trajectories)

            def at(response, masked):
                step = bound.at(response, masked)

                class AtStep:
                    embeddings = step.embeddings

                    def __call__(self, mixed, likeliest):
                        seen.append(mixed.detach())
                        return step(mixed, likeliest)

                return AtStep()

            return Wrong(bound, at=at)

    _, records = observed(reward=Spy(50))
    for i, record in enumerate(records):
        soft = (record.logits / SMALL.temperature).softmax(1) @ reward.embeddings
        torch.testing.assert_close(record.E[0], approximation_error(seen[2 * i], soft))


def test_steps_without_a_plan_run_where_masks_were_written():
    """Rows that lag behind may commit at a step at which the plan has nothing to do."""
    config = replace(SMALL, new_tokens=128, denoising_steps=999)
    planned = [step.index for step, _ in config.guided_steps()]
    assert len(planned) <= 128
    assert 873 not in planned
    for left_to_chance in ({"write_every_id": True}, {"order": "origin"}):
        steps = replace(config, **left_to_chance).guided_steps()
        assert [step.index for step, _ in steps] == list(range(999))
    everything = replace(config, skip_empty_steps=False).guided_steps()
    assert [step.index for step, _ in everything] == list(range(999))


@pytest.mark.parametrize("left_to_chance", [{"order": "origin"}, {"write_every_id": True}])
def test_steps_at_which_chance_commits_nothing_run_unless_they_are_skipped(left_to_chance):
    config = replace(SMALL, trajectories=2, denoising_steps=12, **left_to_chance)
    _, every = observed(replace(config, skip_empty_steps=False))
    busy = [record.step for record in every if record.committed.any()]
    assert [record.step for record in every] == list(range(12))
    assert 0 < len(busy) < 12
    assert [record.step for record in observed(config)[1]] == busy


# Infilling

TEMPLATES = torch.tensor([[13, 3, 13, 13, 12, 13], [5, 13, 7, 8, 9, 2]])
"""Four blanks and one; 13 is the mask, 12 ends an answer."""


@tried(40)
@given(st.integers(0, 10**6), CONFIGS, st.data())
def test_fixed_tokens_never_change_and_all_blanks_are_filled(seed, settings, data):
    config = SamplingConfig(FLOAT64, **settings)
    N = config.new_tokens
    rows = st.lists(st.integers(0, 13), min_size=N, max_size=N).filter(lambda row: 13 in row)
    start = torch.tensor(data.draw(st.lists(rows, min_size=2, max_size=2)))
    before = start.clone()
    generation = generate(TinyDenoiser(seed), TinyReward(seed), PROMPTS, config, start=start)
    fixed = (start != 13)[:, None].expand_as(generation.tokens)
    expected = start[:, None].expand_as(generation.tokens)
    assert torch.equal(generation.tokens[fixed], expected[fixed])
    assert not (generation.tokens == 13).any()
    assert torch.equal(start, before)


def test_the_schedule_counts_each_responses_own_masks():
    records: list[DenoisingRecord] = []
    generate(
        TinyDenoiser(0), TinyReward(0), PROMPTS, SMALL, start=TEMPLATES, observe=records.append
    )
    committed = {record.step: record.committed.sum(1).tolist() for record in records}
    four, one = ([step.count for step in schedule(6, n)] for n in (4, 1))
    expected = {i: [four[i]] * 2 + [one[i]] * 2 for i in range(6) if four[i] or one[i]}
    assert committed == expected
    assert sum(map(sum, zip(*committed.values(), strict=True))) == 2 * (4 + 1)


@tried(20)
@given(st.integers(0, 10**6), CONFIGS)
def test_a_template_of_blanks_is_plain_generation(seed, settings):
    config = SamplingConfig(FLOAT64, **settings)
    networks = TinyDenoiser(seed), TinyReward(seed)
    start = torch.full((2, config.new_tokens), 13)
    filled = generate(*networks, PROMPTS, config, start=start)
    plain = generate(*networks, PROMPTS, config)
    assert torch.equal(filled.tokens, plain.tokens)
    assert torch.equal(filled.rewards, plain.rewards)


@pytest.mark.parametrize("order", ORDERS)
def test_a_filled_in_answer_does_not_depend_on_its_batch(order):
    config = replace(SMALL, order=order)
    together = generate(TinyDenoiser(0), TinyReward(0), PROMPTS, config, start=TEMPLATES)
    for p, prompt in enumerate(PROMPTS):
        start = TEMPLATES[p : p + 1]
        alone = generate(TinyDenoiser(0), TinyReward(0), [prompt], config, start=start)
        assert torch.equal(together.tokens[p], alone.tokens[0])


def test_the_reward_reads_the_fixed_tokens():
    """Guidance towards a token that stands in the template already makes no difference there."""
    one, other = TEMPLATES.clone(), TEMPLATES.clone()
    other[:, 1] = torch.tensor([4, 13])
    answers = [
        generate(TinyDenoiser(0), TinyReward(0), PROMPTS, SMALL, start=start)
        for start in (one, other)
    ]
    assert not torch.equal(answers[0].rewards, answers[1].rewards)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (TEMPLATES[:1], r"start: got shape \[1, 6\], expected \[P, N\] = \[2, 6\]"),
        (TEMPLATES[:, :5], r"start: got shape \[2, 5\], expected \[P, N\] = \[2, 6\]"),
        (TEMPLATES.double(), "start: got torch.float64, expected integers"),
        (TEMPLATES == 13, "start: got torch.bool, expected integers"),
        (TEMPLATES + 1, r"start: got ids outside of the vocabulary, expected \[0, 14\)"),
        (TEMPLATES - 3, r"start: got ids outside of the vocabulary"),
        (TEMPLATES.clamp(max=12), "start: nothing is to be written for prompt 0, 1"),
        (TEMPLATES.tolist(), "start: got .*, expected a tensor"),
    ],
)
def test_templates_that_do_not_fit_are_refused(as_users_run_it, start, message):
    denoiser = TinyDenoiser(0)
    with pytest.raises(ValueError, match=message):
        generate(denoiser, TinyReward(0), PROMPTS, SMALL, start=start)
    assert denoiser.calls == 0


# Keys


def test_keys_make_one_prompt_two_draws():
    networks = TinyDenoiser(0), TinyReward(0)
    twice = generate(*networks, ["12", "12"], SMALL)
    assert torch.equal(twice.tokens[0], twice.tokens[1])
    keyed = generate(*networks, ["12", "12"], SMALL, keys=[1, 2])
    assert not torch.equal(keyed.tokens[0], keyed.tokens[1])
    second = generate(*networks, ["12"], SMALL, keys=[2])
    assert torch.equal(second.tokens[0], keyed.tokens[1])


def test_arrays_of_numpy_are_as_good_as_lists(as_users_run_it):
    networks = TinyDenoiser(0), TinyReward(0)
    expected = generate(*networks, PROMPTS, SMALL, keys=[5, -7])
    found = generate(*networks, np.array(PROMPTS), SMALL, keys=np.array([5, -7]))
    assert torch.equal(found.tokens, expected.tokens)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": torch.zeros(1, 3, dtype=torch.int64)}, r"encode, tokens: got shape \[1, 3\]"),
        ({"valid": torch.ones(2, 1, dtype=torch.bool)}, r"encode, valid: got shape \[2, 1\]"),
        ({"keys": (1, 2, 3)}, "encode, keys: got 3, expected 2"),
        ({"tokens": torch.ones(2, 5, dtype=torch.int32)}, "encode, tokens: got torch.int32"),
        ({"tokens": torch.ones(2, 5)}, "encode, tokens: got torch.float32"),
        ({"valid": torch.ones(2, 5)}, "encode, valid: got torch.float32"),
    ],
)
def test_encoded_prompts_that_do_not_fit_are_refused(as_users_run_it, changes, message):
    denoiser = TinyDenoiser(0)
    denoiser.encode = lambda prompts: replace(TinyDenoiser.encode(denoiser, prompts), **changes)
    with pytest.raises(ValueError, match=f"denoiser.{message}"):
        generate(denoiser, TinyReward(0), PROMPTS, SMALL)
    assert denoiser.calls == 0


@pytest.mark.parametrize("texts", [["one"], "a" * 4, [1] * 4, None])
def test_decoded_texts_that_do_not_fit_are_refused(as_users_run_it, texts):
    denoiser = TinyDenoiser(0)
    denoiser.decode = lambda response: texts
    with pytest.raises(ValueError, match=r"denoiser.decode: got .*a list of 4 strings"):
        generate(denoiser, TinyReward(0), PROMPTS, SMALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda drawn: drawn[1:], r"draw: got shape \[\d+\], expected \[n\]"),
        (lambda drawn: torch.full_like(drawn, -1), r"draw: got -1.*, expected ids in \[0, 14\)"),
        (lambda drawn: torch.full_like(drawn, 13), "draw: got 13, .*, expected ids that may be"),
        (lambda drawn: drawn.double(), "draw: got torch.float64, expected integers"),
    ],
)
def test_drawn_tokens_that_are_no_ids_are_refused(as_users_run_it, change, message):
    class Changed(KeyedStepDraws):
        def candidates(self, probabilities):
            return change(super().candidates(probabilities))

    class Draws(KeyedDraws):
        def at(self, *where):
            found = super().at(*where)
            return Changed(found.step, found.state, found.position)

    draws = Draws.of(0, [1, 2], SMALL.trajectories)
    with pytest.raises(ValueError, match=message):
        generate(TinyDenoiser(0), TinyReward(0), PROMPTS, SMALL, draws=draws)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda uniform: None, "got None, expected a tensor"),
        (lambda uniform: uniform[1:], r"got shape \[\d+\]"),
        (lambda uniform: uniform * math.nan, r"got a number outside of \[0, 1\)"),
        (lambda uniform: 1 + uniform, r"got a number outside of \[0, 1\)"),
        (lambda uniform: uniform > 0, "got torch.bool, expected floating point"),
    ],
)
@pytest.mark.parametrize(
    ("name", "settings"),
    [("origin", {"order": "origin"}), ("order", {"order_temperature": 1.0})],
)
def test_uniform_numbers_that_are_none_are_refused(as_users_run_it, name, settings, change, said):
    """Of nan, for one, nothing would ever be committed."""

    class Changed(KeyedStepDraws):
        """With one kind of numbers changed."""

    setattr(Changed, name, lambda self: change(getattr(KeyedStepDraws, name)(self)))

    class Draws(KeyedDraws):
        def at(self, *where):
            found = super().at(*where)
            return Changed(found.step, found.state, found.position)

    draws = Draws.of(0, [1, 2], SMALL.trajectories)
    with pytest.raises(ValueError, match=f"draws, {name}: {said}"):
        generate(TinyDenoiser(0), TinyReward(0), PROMPTS, replace(SMALL, **settings), draws=draws)


class WritesInto:
    """Makes of a method one that writes into an argument before it does its work."""

    def __init__(self, method, argument):
        self.method, self.argument = method, argument

    def __call__(self, *given):
        given[self.argument].zero_()
        return self.method(*given)


@pytest.mark.parametrize("argument", [0, 1, 2])
def test_a_denoiser_that_writes_into_what_it_is_given_is_refused(as_users_run_it, argument):
    class Writing(TinyDenoiser):
        def __call__(self, *given):
            return WritesInto(super().__call__, argument)(*given)

    with pytest.raises(ValueError, match=r"^denoiser: it wrote into what it was given"):
        generate(Writing(0), TinyReward(50), PROMPTS, SMALL)


@pytest.mark.parametrize("argument", [0, 1])
def test_a_reward_that_writes_into_the_board_is_refused(as_users_run_it, argument):
    reward = TinyReward(50)
    bind = reward.bind

    def writing(prompts, trajectories):
        bound = bind(prompts, trajectories)
        return SimpleNamespace(at=WritesInto(bound.at, argument))

    reward.bind = writing
    with pytest.raises(ValueError, match=r"^reward.at: it wrote into what it was given"):
        generate(TinyDenoiser(0), reward, PROMPTS, SMALL)
    reward.bind = lambda prompts, trajectories: None
    with pytest.raises(ValueError, match=r"^reward.bind: got None, expected a BoundReward"):
        generate(TinyDenoiser(0), reward, PROMPTS, SMALL)


def test_texts_are_those_of_the_tokens(as_users_run_it):
    denoiser = TinyDenoiser(0)
    denoiser.decode = WritesInto(denoiser.decode, 0)
    with pytest.raises(ValueError, match=r"^denoiser.decode: it wrote into what it was given"):
        generate(denoiser, TinyReward(50), PROMPTS, SMALL)
    denoiser.encode = lambda prompts: None
    with pytest.raises(ValueError, match=r"^denoiser.encode: got None, expected Prompts"):
        generate(denoiser, TinyReward(50), PROMPTS, SMALL)


def test_of_keys_without_end_one_too_many_is_read(as_users_run_it):
    keys = itertools.count()
    with pytest.raises(ValueError, match="keys: got count"):
        generate(TinyDenoiser(0), TinyReward(50), PROMPTS, SMALL, keys=keys)
    assert next(keys) == len(PROMPTS) + 1


def test_keys_beside_draws_are_refused():
    draws = KeyedDraws.of(0, [1, 2], SMALL.trajectories)
    with pytest.raises(ValueError, match="keys: got keys beside draws"):
        generate(TinyDenoiser(0), TinyReward(0), PROMPTS, SMALL, keys=[1, 2], draws=draws)


@pytest.mark.parametrize(
    "keys", [[1], [1, 2, 3], [1, 2**63], [1, "2"], [1, True], 5, "12", [1, 1.0]]
)
def test_keys_that_do_not_fit_are_refused(as_users_run_it, keys):
    denoiser = TinyDenoiser(0)
    with pytest.raises(ValueError, match="keys: got"):
        generate(denoiser, TinyReward(0), PROMPTS, SMALL, keys=keys)
    assert denoiser.calls == 0


# Guidance by step


def test_no_gradient_steps_cost_nothing():
    """M = 0 at a step: the reward is not called, and psi is phi."""
    called = []
    reward = WrongReward(0)
    reward.change = lambda rewards: called.append(1) or rewards
    late = SamplingConfig(lambda step: replace(FLOAT64, steps=2 if step.t < 0.4 else 0), 2, 6, 6)
    records: list[DenoisingRecord] = []
    generate(TinyDenoiser(0), reward, PROMPTS, late, observe=records.append)
    steps = [record for record in records if record.t < 0.4]
    assert len(called) == 2 * len(steps) > 0
    for record in records:
        guided = not torch.equal(record.guided_logits, record.logits)
        assert guided == (record.t < 0.4)
        assert record.rewards.shape == (2 if record.t < 0.4 else 0, 4)


def test_each_step_is_guided_as_its_own_settings_say():
    """Its method, precision, optimiser, size and number of gradient steps, by `guide` itself."""
    of_step = (
        GuidanceConfig("entrgi", 0, dtype="bfloat16"),  # skipped: nothing is committed
        GuidanceConfig("aps", 1, 0.3, "float64"),
        GuidanceConfig("entrgi", 2, 3.0, "float32", optimiser="sgd"),
        GuidanceConfig("expectation", 3, 0.5, "float64", optimiser=torch.optim.RMSprop),
        GuidanceConfig("entrgi_tempered", 1, 1.0, "float64", epsilon=1e-3),
        GuidanceConfig("entrgi", 2, 2.0, "denoiser"),
    )
    _, records = observed(replace(SMALL, guidance=lambda step: of_step[step.index]))
    bound, response = TinyReward(50).bind(PROMPTS, 2), torch.full((4, 6), 13)
    draws = KeyedDraws.of(0, TinyDenoiser(0).encode(PROMPTS).keys, 2)
    assert [record.step for record in records] == [1, 2, 3, 4, 5]
    for record in records:
        own = of_step[record.step]
        expected = guide(
            record.logits,
            bound.at(response, record.masked),
            weight=own.weight_function(0.7),
            steps=own.steps,
            step_size=own.step_size,
            temperature=0.7,
            top_p=0.95,
            draw=draws.at(record.step, *record.masked.nonzero(as_tuple=True)).hard,
            optimiser=own.optimiser,
        )
        assert record.logits.dtype == (torch.float32 if record.step == 2 else torch.float64)
        assert torch.equal(record.guided_logits, expected)
        response = record.tokens


def test_guidance_that_is_the_same_at_every_step_is_the_setting():
    by_step, _ = observed(replace(SMALL, guidance=lambda step: FLOAT64))
    plain, _ = observed(SMALL)
    assert torch.equal(by_step.tokens, plain.tokens)


def test_a_function_that_gives_no_guidance_is_refused_before_a_model_runs(as_users_run_it):
    denoiser = TinyDenoiser(0)
    config = replace(SMALL, guidance=lambda step: None if step.index == 5 else FLOAT64)
    with pytest.raises(ValueError, match="guidance: got None for denoising step 5"):
        generate(denoiser, TinyReward(0), PROMPTS, config)
    assert denoiser.calls == 0


# What comes out


def test_means_of_rewards_are_of_double_precision():
    """In bfloat16 the mean of 8.0 and 8.0625 is 8.0 again."""
    rewards = torch.tensor([[8.0, 8.0625, 8.0, 8.0625]], dtype=torch.bfloat16)
    tokens = torch.zeros(1, 4, 2, dtype=torch.int64)
    generation = Generation(("a",), tokens, [["b"] * 4], rewards, SMALL)
    assert generation.average.dtype == generation.top1.dtype == torch.float64
    assert generation.average.item() == 8.03125
    assert generation.top1.item() == 8.0625


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_rewards_of_answers_are_in_the_dtype_of_the_reward(dtype):
    reward = TinyReward(50)
    score = reward.score
    reward.score = lambda prompts, responses: score(prompts, responses).to(dtype)
    generation, _ = observed(reward=reward)
    assert generation.rewards.dtype == dtype
    assert generation.top1.dtype == generation.average.dtype == torch.float64


def test_of_equal_rewards_the_first_is_the_best():
    """As in the records of a run."""
    tokens = torch.zeros(1, 3, 2, dtype=torch.int64)
    rewards = torch.tensor([[1.0, 2.0, 2.0]])
    assert Generation(("a",), tokens, [["b", "c", "d"]], rewards, SMALL).best == ["c"]


@pytest.mark.parametrize("where", [0, 3])
def test_an_order_that_returns_nan_is_named(where):
    """nan would sort before all numbers, and be committed first."""

    def order(candidates):
        confidence = candidates.probabilities.amax(1)
        return confidence.index_fill(0, torch.tensor([where * len(confidence) // 4]), math.nan)

    prompt = r"1 \('40577'\)" if where == 3 else r"0 \('12'\)"
    message = rf"denoising step 1: the order's confidence is nan, for prompt {prompt}$"
    with pytest.raises(ValueError, match=message):
        observed(replace(SMALL, order=order))


def test_an_order_may_return_infinities():
    def order(candidates):
        last = torch.arange(len(candidates.tokens)) % 2 == 0
        return torch.where(last, -math.inf, math.inf).double()

    generation, _ = observed(replace(SMALL, order=order))
    assert not (generation.tokens == 13).any()


class Counted(TinyDenoiser):
    """It notes how many trajectories it reads."""

    def __init__(self, seed):
        super().__init__(seed)
        self.read = []

    def __call__(self, tokens, valid, masked):
        self.read.append(len(tokens))
        return super().__call__(tokens, valid, masked)


def test_only_boards_that_have_changed_are_read_and_logits_are_held_only_there(monkeypatch):
    few = {"trajectories": 4, "new_tokens": 4, "denoising_steps": 4}
    unguided = replace(SMALL, guidance=GuidanceConfig(steps=0), **few)
    denoiser = Counted(0)
    observed(replace(unguided, order="origin"), ["12"], denoiser=denoiser)
    assert min(denoiser.read) < max(denoiser.read) == 4
    # Steps at which chance commits nothing at all are skipped.
    alone = replace(unguided, order="origin", trajectories=1, denoising_steps=12)
    _, records = observed(alone, ["12"])
    assert len(records) < 12
    assert all(record.committed.any() for record in records)
    monkeypatch.setattr("entrgi_ref.denoising.Unchanged", None)
    together = Counted(0)
    observed(unguided, ["12"], denoiser=together)
    assert set(together.read) == {4}


def test_no_graph_is_kept_of_trainable_networks():
    reward = TinyReward(50)
    reward.head.requires_grad_()
    generation, _ = observed(denoiser=Trainable(0), reward=reward)
    assert not generation.rewards.requires_grad
    assert reward.head.grad is None


class ReadsPromptsFirst(TinyReward):
    """What it reads of the prompts is part of the gradient later."""

    def bind(self, prompts, trajectories):
        return TinyReward(self.seed).bind(prompts, trajectories)


def test_it_runs_under_inference_mode():
    expected, _ = observed()
    networks = {"denoiser": TinyDenoiser(0), "reward": ReadsPromptsFirst(50)}
    with torch.inference_mode():
        found, _ = observed(**networks)
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.rewards, expected.rewards)


# A loop of one's own


def test_the_steps_of_the_loop_take_values():
    """`generate`, written by hand from what it calls."""
    denoiser, reward, N, K = TinyDenoiser(0), TinyReward(50), 6, 2
    encoded = denoiser.encode(PROMPTS)
    prompt = encoded.tokens.repeat_interleave(K, 0)
    valid = F.pad(encoded.valid.repeat_interleave(K, 0), (0, N), value=True)
    response = torch.full((4, N), denoiser.mask_id)
    bound, draws = reward.bind(PROMPTS, K), KeyedDraws.of(0, encoded.keys, K)
    for step in schedule(6, N):
        masked = response == denoiser.mask_id
        chance = draws.at(step.index, *masked.nonzero(as_tuple=True))
        phi = predict(denoiser, torch.cat([prompt, response], 1), valid, masked)
        psi = guide(
            phi,
            bound.at(response, masked),
            weight=WEIGHTS["entrgi"],
            steps=2,
            step_size=0.5,
            temperature=0.7,
            top_p=0.95,
            draw=chance.hard,
        )
        candidates = draw_candidates(phi, psi, chance.candidates, 0.7, 0.95)
        confidence = rank(candidates, chance)
        quota = how_many(step, masked, chance, "entropy")
        committed = commit(candidates.tokens, confidence, quota, masked, denoiser.eos_id)
        response = torch.where(
            committed, response.masked_scatter(masked, candidates.tokens), response
        )
    expected, _ = observed()
    assert torch.equal(response, expected.tokens.flatten(0, 1))


@pytest.mark.parametrize(("tau", "first"), [(0.1, 1), (2.0, 0)])
def test_candidates_are_ranked_at_the_temperature_that_they_are_drawn_at(
    as_users_run_it, tau, first
):
    """Of two tokens that are equally likely, and of four of which one is a little likelier."""
    logits = torch.tensor([[3.0, 3.0, -90.0, -90.0], [1.0, 0.0, 0.0, 0.0]])
    drawn = draw_candidates(logits, logits, lambda q: q.argmax(1), tau, 1.0)
    assert drawn.temperature == tau
    assert rank(drawn, None, "entropy").argmax() == first


def test_the_steps_of_the_loop_check_what_they_are_given(as_users_run_it):
    denoiser = TinyDenoiser(0)
    masked = torch.ones(1, 6, dtype=torch.bool)
    tokens, confidence = torch.zeros(6, dtype=torch.int64), torch.zeros(6)
    with pytest.raises(ValueError, match=r"quota: got shape \[2\]"):
        commit(tokens, confidence, torch.ones(2), masked)
    with pytest.raises(ValueError, match=r"confidence: got shape \[3\]"):
        commit(tokens, confidence[:3], torch.ones(1, dtype=torch.long), masked)
    for wrong in (True, 1.0, -1):
        with pytest.raises(ValueError, match=rf"^put_last: got {wrong}, expected an integer"):
            commit(tokens, confidence, torch.ones(1, dtype=torch.long), masked, wrong)
    with pytest.raises(ValueError, match=r"denoising_steps: got 0"):
        schedule(0, 4)
    with pytest.raises(ValueError, match=r"new_tokens: got -1"):
        schedule(4, -1)
    logits = torch.zeros(6, 14)
    with pytest.raises(ValueError, match=r"top_p: got 0"):
        draw_candidates(logits, logits, lambda p: tokens, 0.7, 0)
    candidates = draw_candidates(logits, logits, lambda p: tokens, 0.7, 0.9)
    with pytest.raises(ValueError, match=r"order: got 'entopy'.*did you mean 'entropy'"):
        rank(candidates, None, "entopy")
    assert denoiser.calls == 0


def test_the_steps_of_the_loop_say_which_argument_is_of_another_kind(as_users_run_it):
    logits, masked = torch.zeros(2, 5), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"^draw: got 3, expected Callable"):
        draw_candidates(logits, logits, 3, 0.7, 0.9)
    with pytest.raises(ValueError, match=r"^denoiser: got None, expected Denoiser"):
        predict(None, masked.long(), masked, masked)


def test_it_runs_with_deterministic_algorithms_on_a_cpu():
    expected, _ = observed()
    torch.use_deterministic_algorithms(True)
    try:
        found, _ = observed()
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(found.tokens, expected.tokens)


@pytest.mark.parametrize("writable", [[True] * 13 + [False], torch.ones(14), None])
def test_writable_that_does_not_fit_is_refused(as_users_run_it, writable):
    denoiser = TinyDenoiser(0)
    denoiser.writable = writable
    with pytest.raises(ValueError, match=r"denoiser.writable: got .*expected a bool tensor \[V\]"):
        generate(denoiser, TinyReward(0), PROMPTS, SMALL)


def test_float16_is_refused_before_a_network_that_says_its_dtype_runs(as_users_run_it):
    """Also where guidance begins late."""
    denoiser, reward = TinyDenoiser(0), TinyReward(0)
    denoiser.dtype, reward.bind = torch.float16, None

    def late(step):
        return GuidanceConfig(dtype="denoiser", steps=1 if step.t < 0.3 else 0)

    for guidance in (GuidanceConfig(dtype="denoiser"), late):
        with pytest.raises(ValueError, match=r"logits: got torch.float16, expected float32"):
            generate(denoiser, reward, PROMPTS, replace(SMALL, guidance=guidance))
    assert denoiser.calls == 0


def test_keys_may_be_a_tensor(as_users_run_it):
    networks = TinyDenoiser(0), TinyReward(0)
    expected = generate(*networks, PROMPTS, SMALL, keys=[5, -7])
    found = generate(*networks, PROMPTS, SMALL, keys=torch.tensor([5, -7]))
    assert torch.equal(found.tokens, expected.tokens)


def test_a_prompt_that_is_no_valid_text_is_refused(as_users_run_it):
    with pytest.raises(ValueError, match=r"prompts: got .*which is not valid text"):
        generate(TinyDenoiser(0), TinyReward(0), ["12", "a\udcff"], SMALL)
