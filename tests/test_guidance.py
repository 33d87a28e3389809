"""Eq. 6, the inner loop."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_relaxation import arrays

import reference
from entrgi_ref import (
    WEIGHTS,
    GradientRecord,
    GuidanceConfig,
    GuidanceError,
    SamplingConfig,
    approximation_error,
    entropy,
    entropy_weight,
    guide,
)
from entrgi_ref.checks import some
from entrgi_ref.parts import Part, guide_in_parts

SETTINGS = {
    "weight": WEIGHTS["entrgi"],
    "steps": 3,
    "step_size": 0.5,
    "temperature": 0.7,
    "top_p": 0.95,
}


class Reward:
    """A smooth reward of one trajectory, from any function of the mixed embeddings."""

    def __init__(self, embeddings, function):
        self.embeddings, self.function = embeddings, function
        self.seen = []

    def __call__(self, mixed, likeliest):
        self.seen.append((mixed.detach().clone(), likeliest))
        return self.function(mixed)[None]


def draw_first(probabilities, gradient_step):
    return probabilities.argmax(1)


def random_problem(seed=0, n=3, V=6, d=4):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, V, dtype=torch.float64, generator=generator) * 2
    embeddings = torch.randn(V, d, dtype=torch.float64, generator=generator)
    slope = torch.randn(n, d, dtype=torch.float64, generator=generator)
    return logits, Reward(embeddings, lambda mixed: torch.tanh(mixed * slope).sum())


def in_two_parts(logits, reward, *, draw, **settings):
    """`guide_in_parts`, called as `guide` is."""
    parts = [Part(slice(0, 1), draw), Part(slice(1, None), draw)]
    return guide_in_parts(logits, reward, parts=parts, **settings)


both = pytest.mark.parametrize("climb", [guide, in_two_parts])


@given(arrays())
def test_no_steps_return_the_logits(logits):
    reward = Reward(torch.zeros(logits.shape[1], 2), None)
    guided = guide(logits, reward, **SETTINGS | {"steps": 0}, draw=draw_first)
    assert torch.equal(guided, logits)
    assert reward.seen == []


@pytest.mark.parametrize("method", sorted(WEIGHTS))
def test_steps_are_adams(method):
    """Against Adam and the softmax's derivative written out with numbers."""
    logits, reward = random_problem()
    guidance = GuidanceConfig(method, steps=4, step_size=0.3)
    config = SamplingConfig(guidance, temperature=0.6, top_p=0.8)
    numbers = {(m, l): reference.uniform([m, l]) for m in range(4) for l in range(3)}

    def draw(probabilities, m):
        rows = enumerate(probabilities.tolist())
        return torch.tensor([reference.draw(row, numbers[m, l]) for l, row in rows])

    guided = guide(
        logits,
        reward,
        weight=guidance.weight_function(0.6),
        steps=4,
        step_size=0.3,
        temperature=0.6,
        top_p=0.8,
        draw=draw,
    )
    expected = reference.guided(
        logits.tolist(), reward, [0, 1, 2], config, lambda m, l: numbers[m, l]
    )
    torch.testing.assert_close(
        guided, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-7
    )


def test_input_is_not_changed_and_the_result_is_detached():
    logits, reward = random_problem()
    before = logits.clone()
    logits.requires_grad_()
    guided = guide(logits, reward, **SETTINGS, draw=draw_first)
    assert torch.equal(logits, before)
    assert not guided.requires_grad
    assert logits.grad is None
    assert not torch.equal(guided, logits)


def test_it_works_under_no_grad_and_leaves_no_gradients_in_the_reward():
    logits, reward = random_problem()
    reward.embeddings.requires_grad_()
    with torch.no_grad():
        guided = guide(logits, reward, **SETTINGS, draw=draw_first)
    assert reward.embeddings.grad is None
    assert not torch.equal(guided, logits)


def test_banned_ids_stay_banned():
    logits, reward = random_problem()
    logits[:, 2] = -torch.inf
    guided = guide(logits, reward, **SETTINGS, draw=draw_first)
    assert torch.all(guided[:, 2] == -torch.inf)
    others = [v for v in range(6) if v != 2]
    assert torch.all(guided[:, others].isfinite())


@pytest.mark.parametrize(
    ("size", "moved"), [(1e-4, 1.50), (1e-6, 1.49), (1e-8, 0.75), (1e-10, 0.015)]
)
def test_adam_is_nearly_a_sign_step(size, moved):
    """Ledger row 4: what three equal gradients do to a logit, by the gradient's size."""
    logits = torch.zeros(1, 2, dtype=torch.float64)

    class Straight:
        embeddings = torch.tensor([[1.0], [0.0]], dtype=torch.float64)

        def __call__(self, mixed, likeliest):
            return mixed.sum(1) * 4 * size  # dR/dpsi = q(1 - q) 4 size = size at psi = 0

    guided = guide(
        logits,
        Straight(),
        **SETTINGS | {"weight": WEIGHTS["expectation"], "step_size": 0.5, "temperature": 1},
        draw=draw_first,
    )
    assert guided[0, 0].item() == pytest.approx(moved, rel=0.05)


@pytest.mark.parametrize("w", [0.1, 0.9, 1])
def test_adam_hides_the_missing_stop_gradient_unless_w_is_one(monkeypatch, w):
    """Ledger row 17: a factor 1 - w on a position's gradient cancels in Adam's step, 0 does not."""

    def literal(soft, hard, weight):
        return (1 - weight)[:, None] * soft + weight[:, None] * hard

    logits, reward = random_problem()
    settings = SETTINGS | {"weight": lambda logits: torch.full_like(logits[:, 0], w)}
    ours = guide(logits, reward, **settings, draw=draw_first)
    monkeypatch.setattr("entrgi_ref.guidance.interpolate", literal)
    theirs = guide(logits, reward, **settings, draw=draw_first)
    assert (ours - logits).abs().mean() > 0.5
    torch.testing.assert_close(theirs, logits if w == 1 else ours, rtol=0, atol=2e-3)


def test_each_trajectory_climbs_its_own_reward():
    """Two trajectories together move as each does alone."""
    logits, _ = random_problem(n=4)
    embeddings = torch.randn(6, 3, dtype=torch.float64)
    slopes = torch.randn(2, 3, dtype=torch.float64)

    class Rows:
        def __init__(self, rows):
            self.embeddings, self.rows = embeddings, rows

        def __call__(self, mixed, likeliest):
            of = mixed.view(len(self.rows), -1, 3)
            return torch.tanh(of * slopes[self.rows][:, None]).sum((1, 2))

    together = guide(logits, Rows([0, 1]), **SETTINGS, draw=draw_first, trajectories=2)
    for row, own in ((0, logits[:2]), (1, logits[2:])):
        alone = guide(own, Rows([row]), **SETTINGS, draw=draw_first)
        torch.testing.assert_close(together[2 * row : 2 * row + 2], alone)


@given(st.integers(0, 10**6), st.integers(1, 3))
def test_expectation_climbs_a_smooth_reward_for_a_small_step(seed, steps):
    logits, reward = random_problem(seed)

    def at(psi):
        q = (psi / 0.7).softmax(1)
        return reward.function(q @ reward.embeddings).item()

    guided = guide(
        logits,
        reward,
        **SETTINGS | {"weight": WEIGHTS["expectation"], "steps": 1, "step_size": 1e-5},
        draw=draw_first,
    )
    assert at(guided) > at(logits)


def test_with_hard_tokens_the_reward_need_not_rise():
    """The gradient is taken at one point and applied at another.

    R(e) = -e^2 and tokens at -1 and +2: the soft embedding lies at 0.05, but the drawn token at -1,
    where the slope points up. APS follows it and moves the soft embedding away from the maximum at
    0; Expectation, at the same logits, moves it closer.
    """
    logits = torch.tensor([[0.65, 0.35]], dtype=torch.float64).log()
    reward = Reward(
        torch.tensor([[-1.0], [2.0]], dtype=torch.float64), lambda mixed: -(mixed**2).sum()
    )
    settings = {"steps": 1, "step_size": 1e-4, "temperature": 1, "top_p": 1.0, "draw": draw_first}

    def soft_reward(psi):
        return reward.function(psi.softmax(1) @ reward.embeddings).item()

    before = soft_reward(logits)
    assert soft_reward(guide(logits, reward, weight=WEIGHTS["expectation"], **settings)) > before
    assert soft_reward(guide(logits, reward, weight=WEIGHTS["aps"], **settings)) < before


def test_what_the_reward_reads_and_what_is_observed():
    logits, reward = random_problem()
    records: list[GradientRecord] = []
    drawn = []

    def draw(probabilities, m):
        drawn.append((probabilities, m))
        return torch.tensor([m, m + 1, m + 2])

    guide(logits, reward, **SETTINGS, draw=draw, observe=records.append)
    assert [r.gradient_step for r in records] == [m for _, m in drawn] == [0, 1, 2]

    mixed, likeliest = reward.seen[0]
    q = (logits / 0.7).softmax(1)
    soft, hard = q @ reward.embeddings, reward.embeddings[:3]
    w = entropy(logits) / math.log(6)
    torch.testing.assert_close(mixed, (1 - w)[:, None] * soft + w[:, None] * hard)
    assert torch.equal(likeliest, logits.argmax(1))
    torch.testing.assert_close(records[0].entropy, entropy(logits))
    torch.testing.assert_close(records[0].weight, w)
    torch.testing.assert_close(records[0].E, approximation_error(mixed, soft))
    torch.testing.assert_close(records[0].E + records[0].D, (hard - soft).norm(dim=1))
    for record, (mixed, _) in zip(records, reward.seen, strict=True):
        torch.testing.assert_close(record.rewards, reward.function(mixed)[None])

    probabilities, _ = drawn[0]
    for row, expected in zip(probabilities.tolist(), q.tolist(), strict=True):
        assert row == pytest.approx(reference.nucleus(expected, 0.95))
    assert not any(p.requires_grad for p, _ in drawn)


def test_the_entropy_that_is_observed_is_computed_in_float32():
    """As the weight is, also of logits in 16 bits."""
    logits, records = (3 * torch.randn(2, 5000)).bfloat16(), []
    reward = Reward(torch.randn(5000, 4).bfloat16(), torch.sum)
    guide(logits, reward, **SETTINGS, draw=draw_first, observe=records.append)
    assert records[0].entropy.dtype == torch.float32
    expected = entropy(logits.double()).float()
    torch.testing.assert_close(records[0].entropy, expected, rtol=1e-5, atol=0)


def test_observing_changes_nothing():
    logits, reward = random_problem()
    seen = guide(logits, reward, **SETTINGS, draw=draw_first, observe=lambda record: None)
    assert torch.equal(seen, guide(logits, reward, **SETTINGS, draw=draw_first))


def test_no_masked_positions_are_nothing_to_do():
    _, reward = random_problem()
    guided = guide(torch.zeros(0, 6), reward, **SETTINGS, draw=draw_first)
    assert guided.shape == (0, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": -1}, "steps: got -1"),
        ({"steps": 2.0}, "steps: got 2.0"),
        ({"step_size": 0}, "step_size: got 0"),
        ({"step_size": math.nan}, "step_size: got nan"),
        ({"temperature": 0}, "temperature: got 0"),
        ({"top_p": 1.5}, r"top_p: got 1.5, expected a number in \(0, 1\]"),
        ({"weight": "entrgi"}, "weight: got 'entrgi', expected a function"),
        ({"weight": lambda logits: logits}, r"weight: got shape \[[13], 6\], expected \[n\]"),
        ({"weight": lambda logits: 0.5}, "weight: got 0.5, expected a tensor"),
        ({"trajectories": 2}, r"reward: got shape \[1\], expected \[S\], .* = \[2\]"),
        ({"draw": lambda q, m: torch.zeros(2).long()}, r"draw: got shape \[2\], expected \[n\]"),
        ({"optimiser": "adamw"}, "optimiser: got 'adamw'"),
    ],
)
@both
def test_wrong_settings_are_refused(as_users_run_it, climb, change, message):
    logits, reward = random_problem()
    with pytest.raises(ValueError, match=message):
        climb(logits, reward, **{**SETTINGS, "draw": draw_first, **change})


@both
def test_wrong_tensors_are_refused(as_users_run_it, climb):
    logits, reward = random_problem()
    with pytest.raises(ValueError, match=r"logits: got shape \[6\], expected \[n, V\]"):
        climb(logits[0], reward, **SETTINGS, draw=draw_first)
    with pytest.raises(ValueError, match=r"logits: got torch.int64, expected a floating-point"):
        climb(logits.long(), reward, **SETTINGS, draw=draw_first)
    whole = Reward(reward.embeddings.long(), reward.function)
    with pytest.raises(ValueError, match=r"reward.embeddings: got torch.int64, expected a float"):
        climb(logits, whole, **SETTINGS, draw=draw_first)
    with pytest.raises(
        ValueError, match=r"reward.embeddings: got shape \[6, 4\], expected .* \[5, any\]"
    ):
        climb(logits[:, :5], reward, **SETTINGS, draw=draw_first)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([6, 0, -1], r"draw: got 6, -1, expected ids in \[0, 6\)"),
        ([0.0, 1.0, 2.0], "draw: got torch.float64, expected integers"),
        ([True, True, False], "draw: got torch.bool, expected integers"),
    ],
)
@both
def test_hard_tokens_that_are_no_ids_are_refused(as_users_run_it, climb, ids, message):
    logits, reward = random_problem(3)
    tokens = torch.tensor(ids, dtype=torch.float64 if isinstance(ids[0], float) else None)

    def drawn_by(climbed, number):  # `in_two_parts` asks for the first row and for the others
        rows = {1: slice(0, 1), 2: slice(1, None), 3: slice(None)}
        return climb(climbed, reward, **SETTINGS, draw=lambda q, m: number[rows[len(q)]])

    with pytest.raises(ValueError, match="draw: got"):
        drawn_by(logits, tokens)
    if climb is guide:
        with pytest.raises(ValueError, match=message):
            drawn_by(logits, tokens)
    as_int32 = drawn_by(logits, torch.tensor([0, 5, 1], dtype=torch.int32))
    assert torch.equal(as_int32, drawn_by(logits, torch.tensor([0, 5, 1])))


@pytest.mark.parametrize("shape", [(), (1, 1)])
def test_rewards_of_the_wrong_shape_are_refused(as_users_run_it, shape):
    logits, reward = random_problem()
    function = reward.function

    class Odd(Reward):
        def __call__(self, mixed, likeliest):
            return function(mixed).view(shape)

    with pytest.raises(ValueError, match=r"reward: got shape .*expected \[S\], one number per"):
        guide(logits, Odd(reward.embeddings, None), **SETTINGS, draw=draw_first)


def test_rewards_that_cannot_be_differentiated_are_refused():
    logits, reward = random_problem()
    reward.function = lambda mixed: mixed.detach().sum()
    with pytest.raises(ValueError, match="rewards without a gradient"):
        guide(logits, reward, **SETTINGS, draw=draw_first)


@both
def test_a_weight_that_writes_into_the_logits_is_refused(climb):
    """It would make another method of it, without a word."""
    logits, reward = random_problem()

    def in_place(psi):
        psi /= 0.7
        return entropy_weight(psi)

    message = "weight: it wrote into what it was given, which it may only read"
    with pytest.raises(ValueError, match=message):
        climb(logits, reward, **SETTINGS | {"weight": in_place}, draw=draw_first)
    with torch.inference_mode():
        guide(logits.clone(), reward, **SETTINGS, draw=draw_first)


@both
def test_a_weight_may_keep_its_memory_or_be_without_gradients(climb):
    """Each step has the weight of its own: what is made next changes neither it nor its record."""
    logits, reward = random_problem()
    memory = torch.zeros(3, dtype=torch.float64)

    def kept(psi):
        return memory[: len(psi)].copy_(entropy_weight(psi))

    expected, records = [], []
    settings = SETTINGS | {"draw": draw_first}
    right = climb(logits, reward, **settings, observe=expected.append)
    found = climb(logits, reward, **settings | {"weight": kept}, observe=records.append)
    assert torch.equal(found, right)
    for record, other in zip(records, expected, strict=True):
        assert torch.equal(record.weight, other.weight)
    without = settings | {"weight": torch.inference_mode()(entropy_weight)}
    assert torch.equal(climb(logits, reward, **without), right)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("when", [0, 2])
def test_a_reward_that_goes_bad_is_named(bad, when):
    logits, reward = random_problem()
    function, calls = reward.function, itertools.count()
    reward.function = lambda mixed: function(mixed) + (bad if next(calls) == when else 0)
    with pytest.raises(
        GuidanceError, match=f"reward is not finite at gradient step {when}"
    ) as error:
        guide(logits, reward, **SETTINGS, draw=draw_first)
    assert error.value.where.tolist() == [True]
    assert not error.value.per_position


@pytest.mark.parametrize("bad", [-0.01, 1.01, math.nan])
def test_a_weight_out_of_range_is_named(bad):
    logits, reward = random_problem()

    def weight(logits):
        return torch.tensor([0.5, bad, 0.5], dtype=logits.dtype)

    with pytest.raises(
        GuidanceError, match=r"weight is outside \[0, 1\] at gradient step 0"
    ) as error:
        guide(logits, reward, **{**SETTINGS, "weight": weight}, draw=draw_first)
    assert error.value.where.tolist() == [False, True, False]
    assert error.value.per_position


@pytest.mark.parametrize("row", [[math.nan, 0.0], [math.inf, 0.0], [-math.inf, -math.inf]])
@pytest.mark.parametrize("steps", [0, 1])
@both
def test_logits_that_are_not_finite_are_named(climb, row, steps):
    logits = torch.tensor([[0.0, 1.0], row])
    reward = Reward(torch.ones(2, 3), lambda mixed: mixed.sum())
    with pytest.raises(GuidanceError, match=r"^the denoiser's logits are not finite") as error:
        climb(logits, reward, **SETTINGS | {"steps": steps}, draw=draw_first)
    assert error.value.where.tolist() == [False, True]


def test_a_reward_is_told_the_likeliest_tokens_of_the_moved_logits():
    """At step m: those of what m steps alone would return."""
    logits, reward = random_problem(n=8)
    settings = SETTINGS | {"step_size": 2.0}
    guide(logits, reward, **settings, draw=draw_first)
    likely = [
        guide(logits, Reward(reward.embeddings, reward.function), **settings | {"steps": m},
              draw=draw_first).argmax(1)
        for m in range(3)
    ]  # fmt: skip
    for (_, likeliest), expected in zip(reward.seen, likely, strict=True):
        assert torch.equal(likeliest, expected)
    assert not torch.equal(likely[0], likely[2])


@both
def test_the_likeliest_token_is_that_of_the_logits(climb):
    """At a high temperature float32 gives both tokens the same probability."""
    logits = torch.tensor([[1.0, 1.0 + 2**-23, 0.0]] * 2)
    reward = Reward(torch.eye(3), lambda mixed: mixed.sum())
    climb(logits, reward, **SETTINGS | {"steps": 1, "temperature": 10.0}, draw=draw_first)
    assert reward.seen[0][1].tolist() == [1, 1]


def test_neither_the_weight_function_nor_the_observer_is_given_a_graph():
    logits, reward = random_problem()
    records: list[GradientRecord] = []
    trained = torch.ones((), dtype=torch.float64, requires_grad=True)

    def weight(psi):
        assert not psi.requires_grad
        return WEIGHTS["entrgi"](psi) * trained

    guide(logits, reward, **SETTINGS | {"weight": weight}, draw=draw_first, observe=records.append)
    for record in records:
        for tensor in (record.entropy, record.weight, record.E, record.D, record.rewards):
            assert not tensor.requires_grad


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", 0), ("top_p", 0), ("step_size", -1.0), ("weight", None)]
)
def test_wrong_settings_are_refused_even_if_there_is_nothing_to_do(as_users_run_it, name, value):
    logits, reward = random_problem()
    for change in ({"steps": 0}, {"steps": 3}):
        with pytest.raises(ValueError, match=f"{name}: got"):
            guide(logits[:0], reward, **SETTINGS | change | {name: value}, draw=draw_first)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_gradient_that_is_not_finite_is_named(steps):
    """The slope of a root is infinite at 0, and 0 times that is not a number."""
    logits, _ = random_problem()
    embeddings = torch.eye(6, dtype=torch.float64)
    reward = Reward(embeddings, lambda mixed: (mixed * 0).square().sum().sqrt())
    with pytest.raises(GuidanceError, match="gradient is not finite at gradient step 0"):
        guide(logits, reward, **SETTINGS | {"steps": steps}, draw=draw_first)


def test_the_position_whose_gradient_is_not_finite_is_named():
    logits, _ = random_problem()
    bad = torch.zeros(len(logits), 6, dtype=torch.float64)
    bad[1, 3] = math.nan

    def not_a_number_at_one(mixed):
        mixed.register_hook(lambda slope: slope + bad)
        return mixed.sum()

    reward = Reward(torch.eye(6, dtype=torch.float64), not_a_number_at_one)
    with pytest.raises(GuidanceError, match="gradient is not finite at gradient step 0") as error:
        guide(logits, reward, **SETTINGS | {"steps": 1}, draw=draw_first)
    assert error.value.where.nonzero().flatten().tolist() == [1]


def test_a_long_list_is_cut_in_a_message():
    assert some(range(8)) == "0, 1, 2, 3, 4, 5, 6, 7"
    assert some(range(9)) == "0, 1, 2, 3, 4, 5, 6, 7 and 1 more"


def test_the_largest_mass_of_a_nucleus_is_one(as_users_run_it):
    logits, reward = random_problem()
    with pytest.raises(ValueError, match="top_p: got"):
        guide(logits, reward, **SETTINGS | {"top_p": 1.0000001, "steps": 0}, draw=draw_first)


def test_draws_of_the_wrong_shape_are_refused(as_users_run_it):
    logits, reward = random_problem()
    with pytest.raises(ValueError, match="draw: got shape"):
        guide(logits, reward, **SETTINGS, draw=lambda probabilities, m: torch.tensor([0]))


# Precision


@both
def test_float16_is_refused_where_adam_would_divide_by_zero(as_users_run_it, climb):
    """Adam's epsilon of 1e-8 is 0 in float16, and 0 / 0 is not a number."""
    logits, reward = random_problem()
    half = Reward(reward.embeddings.half(), lambda mixed: mixed.sum())
    with pytest.raises(ValueError, match=r"logits: got torch.float16, expected float32.*epsilon"):
        climb(logits.half(), half, **SETTINGS, draw=draw_first)
    assert half.seen == []
    unguided = climb(logits.half(), half, **SETTINGS | {"steps": 0}, draw=draw_first)
    assert torch.equal(unguided, logits.half())


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@both
def test_logits_that_the_last_step_makes_bad_are_named(climb, steps, bad):
    """What comes after the last gradient is nobody's input but the answer's."""
    logits, reward = random_problem()

    class Breaks(torch.optim.SGD):
        taken = 0

        def step(self, closure=None):
            super().step(closure)
            self.taken += 1
            if self.taken == steps:
                with torch.no_grad():
                    self.param_groups[0]["params"][0][-1, 2] = bad

    settings = SETTINGS | {"steps": steps, "optimiser": Breaks}
    with pytest.raises(GuidanceError, match="guided logits are not finite") as error:
        climb(logits, reward, **settings, draw=draw_first)
    assert error.value.where.tolist() == [climb is in_two_parts, False, True]  # in each optimiser


@pytest.mark.parametrize("w", [1e-4, 1e-3, 0.003, 0.02, 0.5, 0.999])
def test_recorded_errors_are_not_rounded_to_the_embeddings_dtype(w):
    """In bfloat16 soft + w (hard - soft) is soft itself below w = 0.002."""
    logits, reward = random_problem(d=64)
    embeddings = reward.embeddings.bfloat16()
    coarse = Reward(embeddings, lambda mixed: mixed.float().sum())
    records: list[GradientRecord] = []
    settings = SETTINGS | {"weight": lambda psi: torch.full_like(psi[:, 0], w), "steps": 1}
    guide(logits.float(), coarse, **settings, draw=draw_first, observe=records.append)
    soft = (logits.float() / 0.7).softmax(1).bfloat16() @ embeddings
    length = (embeddings[logits.argmax(1)].double() - soft.double()).norm(dim=1)
    torch.testing.assert_close(records[0].E.double(), w * length, rtol=1e-3, atol=0)
    torch.testing.assert_close(records[0].D.double(), (1 - w) * length, rtol=1e-3, atol=0)


@pytest.mark.parametrize("switched_off", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("in_parts", [False, True])
def test_it_works_where_gradients_are_switched_off(in_parts, switched_off):
    logits, reward = random_problem()
    how = {"draw": draw_first}
    if in_parts:
        how = {"parts": [Part(slice(0, 1), draw_first), Part(slice(1, None), draw_first)]}
    function = guide_in_parts if in_parts else guide
    expected = function(logits, reward, **SETTINGS, **how)
    with switched_off():
        guided = function(logits.clone(), reward, **SETTINGS, **how)
    assert torch.equal(guided, expected)


@pytest.mark.parametrize("in_parts", [False, True])
def test_a_reward_that_does_not_read_its_embeddings_is_one_clear_line(in_parts, as_users_run_it):
    logits, reward = random_problem()
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    deaf = Reward(reward.embeddings, lambda mixed: weight)
    how = {"parts": [Part(slice(None), draw_first)]} if in_parts else {"draw": draw_first}
    with pytest.raises(ValueError, match="without a gradient, expected a function of `mixed`"):
        (guide_in_parts if in_parts else guide)(logits, deaf, **SETTINGS, **how)


@both
def test_a_reward_made_under_inference_mode_is_one_clear_line(climb):
    logits, reward = random_problem()
    with torch.inference_mode():
        reward.embeddings = reward.embeddings.clone()
    with pytest.raises(ValueError, match=r"reward.embeddings: .*torch.inference_mode"):
        climb(logits, reward, **SETTINGS, draw=draw_first)


# Optimisers


def test_gradient_ascent_is_the_formula():
    """Eq. 6 as it is written: psi + eta times the gradient, M times."""
    logits, reward = random_problem()
    psi = logits.clone()
    for _ in range(3):
        psi.requires_grad_()
        soft = (psi / 0.7).softmax(1) @ reward.embeddings
        (gradient,) = torch.autograd.grad(reward.function(soft), psi)
        psi = (psi + 0.3 * gradient).detach()
    settings = SETTINGS | {"weight": WEIGHTS["expectation"], "step_size": 0.3}
    for optimiser in ("sgd", torch.optim.SGD):
        guided = guide(logits, reward, **settings, optimiser=optimiser, draw=draw_first)
        torch.testing.assert_close(guided, psi)
    assert not torch.allclose(guide(logits, reward, **settings, draw=draw_first), psi)


@pytest.mark.parametrize("optimiser", [torch.optim.RMSprop, torch.optim.AdamW, torch.optim.Adagrad])
def test_any_optimiser_of_torch_climbs(optimiser):
    logits, reward = random_problem()
    logits[:, 2] = -torch.inf
    settings = SETTINGS | {"weight": WEIGHTS["expectation"], "step_size": 1e-3, "steps": 1}
    guided = guide(logits, reward, **settings, optimiser=optimiser, draw=draw_first)

    def at(psi):
        return reward.function((psi / 0.7).softmax(1) @ reward.embeddings).item()

    assert at(guided) > at(logits)
    assert torch.all(guided[:, 2] == -torch.inf)


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "NAdam", "RMSprop", "Rprop", "ASGD"])
def test_weight_decay_leaves_banned_ids_banned(kind):
    """It would pull at their -inf, and with momentum make it nan."""
    logits, reward = random_problem()
    logits[:, 2] = -torch.inf
    decay = {} if kind == "Rprop" else {"weight_decay": 0.1}

    def optimiser(rows, lr):
        return getattr(torch.optim, kind)(rows, lr=lr, **decay)

    settings = SETTINGS | {"weight": WEIGHTS["aps"], "step_size": 0.1, "optimiser": optimiser}
    guided = guide(logits, reward, **settings, draw=draw_first)
    assert torch.all(guided[:, 2] == -torch.inf)
    without = torch.tensor([0, 1, 3, 4, 5])
    alone = Reward(reward.embeddings[without], reward.function)
    expected = guide(logits[:, without], alone, **settings, draw=draw_first)
    torch.testing.assert_close(guided[:, without], expected)


@both
def test_what_is_banned_at_one_position_is_banned_there_alone(climb):
    logits, reward = random_problem()
    logits[0, 2] = logits[2, 4] = -torch.inf

    def decaying(rows, lr):
        return torch.optim.RMSprop(rows, lr=lr, weight_decay=0.1)

    guided = climb(logits, reward, **SETTINGS, optimiser=decaying, draw=draw_first)
    assert torch.equal(guided == -torch.inf, logits == -torch.inf)
    assert not guided.isnan().any()


@pytest.mark.parametrize("kind", ["Muon", "Adafactor", "SparseAdam"])
def test_an_optimiser_in_which_positions_are_mixed_is_refused(as_users_run_it, kind):
    """And one that is made of it."""
    if kind == "Muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("torch has it since 2.9")
    logits, reward = random_problem()
    with pytest.raises(ValueError, match=rf"optimiser: got one of {kind}, .*for each number"):
        guide(logits, reward, **SETTINGS, optimiser=getattr(torch.optim, kind), draw=draw_first)
    own = type("Own", (getattr(torch.optim, kind),), {})
    with pytest.raises(ValueError, match=r"optimiser: got one of Own, .*for each number"):
        guide(logits, reward, **SETTINGS, optimiser=own, draw=draw_first)


def test_a_reward_that_reads_nothing_of_mixed_is_refused(as_users_run_it):
    logits, reward = random_problem()
    reward.function = lambda mixed: torch.tensor(1.0, requires_grad=True)
    with pytest.raises(ValueError, match=r"reward: got rewards .*expected a function of `mixed`"):
        guide(logits, reward, **SETTINGS, draw=draw_first)


@pytest.mark.parametrize("optimiser", [torch.optim.LBFGS, lambda rows, lr: None])
def test_an_optimiser_that_makes_no_step_of_a_gradient_is_refused(as_users_run_it, optimiser):
    logits, reward = random_problem()
    with pytest.raises(ValueError, match=r"optimiser: got one of .*takes no argument"):
        guide(logits, reward, **SETTINGS, optimiser=optimiser, draw=draw_first)


@pytest.mark.parametrize("optimiser", ["adamw", None, 3])
def test_an_optimiser_that_is_none_is_refused(as_users_run_it, optimiser):
    logits, reward = random_problem()
    with pytest.raises(ValueError, match=r"optimiser: got .*'adam', 'sgd'"):
        guide(logits, reward, **SETTINGS, optimiser=optimiser, draw=draw_first)
