"""docs/laboratory/proofs.md: each of its statements, on numbers.

Exact gradients are sums over all answers, written here with numpy; the estimates are single steps
of `guide`, for all draws that there are.
"""

import itertools
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial import Polynomial

from building.records import ROOT
from entrgi_ref import WEIGHTS, guide
from entrgi_ref.guidance import OPTIMISERS
from properties import tried

PAGE = (ROOT / "docs" / "laboratory" / "proofs.md").read_text(encoding="utf-8")
SEEDS = st.integers(0, 2**32 - 1)
UNIT = st.floats(0, 1)
INSIDE = st.floats(0.05, 0.95)
EPSILON = 1e-8  # Adam's
few = tried(20)


class Problem:
    """Random logits at n masked positions, a table of embeddings and a temperature."""

    def __init__(self, seed, positions=3, tokens=3):
        self.random = np.random.default_rng(seed)
        self.n = int(self.random.integers(1, positions + 1))
        self.V = int(self.random.integers(2, tokens + 1))
        self.d = int(self.random.integers(1, 4))
        self.logits = self.random.uniform(-3, 3, (self.n, self.V))
        self.table = self.random.normal(size=(self.V, self.d))
        self.temperature = float(self.random.uniform(0.5, 2))

    @property
    def q(self):
        scaled = self.logits / self.temperature
        unnormalised = np.exp(scaled - scaled.max(1, keepdims=True))
        return unnormalised / unnormalised.sum(1, keepdims=True)

    @property
    def soft(self):
        return self.q @ self.table

    @property
    def answers(self):
        return np.array(list(itertools.product(range(self.V), repeat=self.n)))

    def chance(self, q):
        return np.prod(q[np.arange(self.n), self.answers], axis=1)

    def numbers(self, *shape):
        return torch.from_numpy(self.random.normal(size=shape))

    def exact(self, reward):
        """q_i (E[R | x_l = i] - E[R]) / tau, by enumeration."""
        values = reward(torch.from_numpy(self.table[self.answers])).numpy()
        p, gradient = self.chance(self.q), np.zeros((self.n, self.V))
        for l, i in itertools.product(range(self.n), range(self.V)):
            has = self.answers[:, l] == i
            gradient[l, i] = (p[has] * (values[has] - p @ values)).sum() / self.temperature
        return gradient

    def each(self, reward, w, top_p=1.0, observe=None):
        """The gradient of every draw [draws, n, V], and the draws' chances.

        `w` is a number, one number per position, or a weight function.
        """
        count, chances = len(self.answers), []

        def draw(probabilities, m):
            chances.append(self.chance(probabilities[: self.n].numpy()))
            return torch.from_numpy(self.answers).flatten()

        psi = torch.from_numpy(self.logits).repeat(count, 1)
        guided = self.guided(psi, reward, w, top_p=top_p, draw=draw, observe=observe)
        return (guided - psi).view(count, self.n, self.V).numpy(), chances[0]

    def mean(self, reward, w, top_p=1.0):
        gradients, chance = self.each(reward, w, top_p)
        return np.tensordot(chance, gradients, 1)

    def guided(self, psi, reward, w, *, draw, **more):
        """What `guide` makes of logits of any number of trajectories; one step of 1, plain."""
        plain = {"steps": 1, "step_size": 1.0, "top_p": 1.0, "optimiser": "sgd"}
        return guide(
            psi,
            Bound(self, reward),
            weight=w if callable(w) else constant(w),
            temperature=self.temperature,
            draw=draw,
            trajectories=len(psi) // self.n,
            **plain | more,
        )


class Bound:
    """A reward [draws, n, d] -> [draws], as `guide` wants it."""

    def __init__(self, problem, function):
        self.embeddings = torch.from_numpy(problem.table)
        self.shape = (-1, problem.n, problem.d)
        self.function = function

    def __call__(self, mixed, likeliest):
        return self.function(mixed.view(self.shape))


def constant(w):
    """A number for all positions, or one for each, repeated for all trajectories."""
    values = torch.as_tensor(w, dtype=torch.float64).flatten()
    return lambda psi: values.repeat(len(psi) // len(values))


def close(found, expected, tolerance=1e-10):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=tolerance)


def widest(table):
    """The largest distance of two embeddings."""
    return max(np.linalg.norm(a - b) for a in table for b in table)


# Rewards


def affine(problem):
    a = problem.numbers(problem.n, problem.d)
    return lambda e: 2 + (a * e).sum((1, 2))


def multilinear(problem, most=3):
    """A product over every set of at most `most` positions."""
    n, d = problem.n, problem.d
    sets = [s for k in range(1, most + 1) for s in itertools.combinations(range(n), k)]
    parts = [(list(s), problem.numbers(len(s), d), problem.numbers(1)) for s in sets]
    return lambda e: sum(c * ((e[:, s] * a).sum(2) + 0.3).prod(1) for s, a, c in parts)


def quadratic(problem):
    """Of all positions together."""
    A, a = problem.numbers(problem.n * problem.d, problem.n * problem.d), affine(problem)
    return lambda e: ((e.flatten(1) @ A) * e.flatten(1)).sum(1) + a(e)


class Waves:
    """A sum of sines, whose derivatives of every order are bounded."""

    def __init__(self, problem):
        self.a = problem.numbers(4, problem.n * problem.d)
        self.c = problem.numbers(4)

    def __call__(self, e):
        return (e.flatten(1) @ self.a.T).sin() @ self.c

    @property
    def L(self):
        """The second derivative is a sum of -c sin(.) a a^T."""
        return torch.linalg.matrix_norm((self.a.T * self.c.abs()) @ self.a, 2).item()

    @property
    def L2(self):
        return (self.c.abs() * self.a.norm(dim=1) ** 3).sum().item()


def slopes(reward, points):
    """The gradient in the embeddings [draws, n, d]."""
    points = torch.from_numpy(points).requires_grad_()
    return torch.autograd.grad(reward(points).sum(), points)[0].numpy()


# What is estimated


@few
@given(SEEDS)
def test_the_exact_gradient_is_that_of_the_expected_reward(seed):
    """By differences of the sum over all answers."""
    problem = Problem(seed)
    reward = Waves(problem)
    values = reward(torch.from_numpy(problem.table[problem.answers])).numpy()
    exact, step, logits = problem.exact(reward), 1e-5, problem.logits
    for l, i in np.ndindex(logits.shape):
        expected = []
        for sign in (1, -1):
            problem.logits = logits.copy()
            problem.logits[l, i] += sign * step
            expected.append(problem.chance(problem.q) @ values)
        assert exact[l, i] == pytest.approx((expected[0] - expected[1]) / (2 * step), abs=1e-7)


@few
@given(SEEDS, UNIT)
def test_an_estimate_is_what_the_slope_says_of_each_token(seed, w):
    problem = Problem(seed)
    reward = Waves(problem)
    hard, soft = problem.table[problem.answers], problem.soft
    g = slopes(reward, (1 - w) * soft + w * hard)
    along = np.einsum("xld,lid->xli", g, problem.table - soft[:, None])
    found, _ = problem.each(reward, w)
    close(found, problem.q * along / problem.temperature)


# 1. Straight rewards


@few
@given(SEEDS, st.data())
def test_an_affine_reward_gives_every_draw_the_exact_gradient(seed, data):
    problem = Problem(seed)
    reward = affine(problem)
    exact = problem.exact(reward)
    constants = data.draw(st.lists(UNIT, min_size=problem.n, max_size=problem.n))
    top_p = data.draw(st.floats(0.01, 1))
    for w in (*WEIGHTS.values(), constants):
        found, _ = problem.each(reward, w, top_p)
        close(found, np.broadcast_to(exact, found.shape))


@few
@given(SEEDS, st.data())
def test_a_multilinear_reward_gives_every_weight_the_exact_mean(seed, data):
    problem = Problem(seed)
    reward = multilinear(problem)
    exact = problem.exact(reward)
    constants = data.draw(st.lists(UNIT, min_size=problem.n, max_size=problem.n))
    for w in (*WEIGHTS.values(), constants):
        close(problem.mean(reward, w), exact)
    found, _ = problem.each(reward, 0.0, top_p=data.draw(st.floats(0.01, 1)))
    close(found, np.broadcast_to(exact, found.shape))


def test_a_single_draw_is_not_exact_for_a_multilinear_reward():
    problem = Problem(0)
    problem.n, problem.V, problem.d = 2, 2, 1
    problem.logits, problem.table = np.zeros((2, 2)), np.array([[0.0], [1.0]])
    found, _ = problem.each(product_of_two, 1.0)
    away = np.abs(found - problem.exact(product_of_two)).max((1, 2))
    assert away.min() > 0.1 / problem.temperature


@few
@given(SEEDS, UNIT)
def test_the_noise_of_a_reward_of_pairs_is_proportional_to_w(seed, w):
    problem = Problem(seed)
    reward = multilinear(problem, most=2)
    exact = problem.exact(reward)
    noise, whole = (problem.each(reward, x)[0] - exact for x in (w, 1.0))
    close(noise, w * whole)


@few
@given(SEEDS)
def test_any_table_of_rewards_has_a_multilinear_continuation(seed):
    problem = Problem(seed)
    problem.d, problem.table = problem.V, np.eye(problem.V)
    worth = problem.numbers(*[problem.V] * problem.n)

    def reward(e):
        letters = "abc"[: problem.n]
        each = ",".join(f"x{letter}" for letter in letters)
        return torch.einsum(f"{letters},{each}->x", worth, *e.unbind(1))

    found = [problem.each(reward, w)[0] for w in (0.0,)] + [problem.mean(reward, 1.0)[None]]
    values = worth.numpy()[tuple(problem.answers.T)]
    close(reward(torch.from_numpy(problem.table[problem.answers])).numpy(), values)
    for gradients in found:
        close(gradients, np.broadcast_to(problem.exact(reward), gradients.shape))


def product_of_two(e):
    """One number per position, and the reward is their product."""
    return e[:, 0, 0] * e[:, 1, 0]


@few
@given(st.floats(0.55, 0.95), UNIT)
def test_the_nucleus_adds_a_bias(likely, w):
    """Tokens at 0 and 1 with the chances `likely` and 1 - likely: only the first is ever drawn."""
    problem = Problem(0)
    problem.n, problem.V, problem.d, problem.temperature = 2, 2, 1, 0.7
    problem.table = np.array([[0.0], [1.0]])
    problem.logits = np.log([[likely, 1 - likely]] * 2) * problem.temperature
    exact = problem.exact(product_of_two)
    close(problem.mean(product_of_two, w), exact)
    close(problem.mean(product_of_two, w, top_p=0.5), (1 - w) * exact)
    close(exact[0, 1], likely * (1 - likely) * (1 - likely) / problem.temperature)


@few
@given(SEEDS, UNIT, st.floats(0.2, 1))
def test_with_a_nucleus_the_mean_is_taken_between_two_soft_embeddings(seed, w, top_p):
    problem = Problem(seed)
    reward = multilinear(problem)
    kept = np.zeros_like(problem.q)
    for row, chances in zip(kept, problem.q, strict=True):
        for i in np.argsort(-chances, kind="stable"):
            if row.sum() <= top_p:
                row[i] = chances[i]
    nucleus = kept / kept.sum(1, keepdims=True)
    away = np.linalg.norm(nucleus @ problem.table - problem.soft, axis=1)
    assert np.all(away <= (1 - top_p) * widest(problem.table) + 1e-12)
    at = (1 - w) * problem.soft + w * (nucleus @ problem.table)
    g = slopes(reward, at[None])[0]
    along = np.einsum("ld,lid->li", g, problem.table - problem.soft[:, None])
    close(problem.mean(reward, w, top_p), problem.q * along / problem.temperature)


# 2. The two errors


def errors(problem, w):
    """E and D of all draws [draws, n], as `guide` shows them to an observer, and the chances."""
    records = []
    _, chance = problem.each(affine(problem), w, observe=records.append)
    (record,) = records
    shape = (-1, problem.n)
    return record.E.view(shape).numpy(), record.D.view(shape).numpy(), chance


@few
@given(SEEDS, UNIT)
def test_E_and_D_add_up_to_the_same_for_every_w(seed, w):
    problem = Problem(seed)
    E, D, _ = errors(problem, w)
    distance = np.linalg.norm(problem.table[problem.answers] - problem.soft, axis=2)
    close(E, w * distance)
    close(D, (1 - w) * distance)
    close(E + D, distance)
    close(E**2 + D**2, (w**2 + (1 - w) ** 2) * distance**2)


@few
@given(SEEDS, UNIT)
def test_the_mean_square_of_E_is_w_squared_times_the_spread(seed, w):
    problem = Problem(seed)
    E, _, chance = errors(problem, w)
    close(chance @ E**2, w**2 * spread(problem))


@few
@given(SEEDS)
def test_the_spread_is_bounded_by_the_entropy(seed):
    problem = Problem(seed, tokens=8)
    q = problem.q
    square = widest(problem.table) ** 2
    pairs = (1 - (q**2).sum(1)) / 2 * square
    assert np.all(spread(problem) <= pairs + 1e-12)
    assert np.all(pairs <= -(q * np.log(q)).sum(1) / 2 * square + 1e-12)


def spread(problem):
    """Mean square distance of a token's embedding from the soft one, at each position."""
    away = problem.table - problem.soft[:, None]
    return (problem.q * (away**2).sum(2)).sum(1)


# 3. How far from Expectation


def slope_differences(problem, reward, w):
    """Slopes at the mixed embeddings less those at the soft ones, and the root of sum E^2."""
    hard, soft = problem.table[problem.answers], problem.soft
    w = np.asarray(w)[:, None]
    mixed = (1 - w) * soft + w * hard
    length = np.sqrt(((w * (hard - soft)) ** 2).sum((1, 2)))
    return slopes(reward, mixed) - slopes(reward, soft[None]), length


@few
@given(SEEDS, st.lists(UNIT, min_size=3, max_size=3))
def test_the_slope_moves_by_at_most_L_times_E(seed, w):
    problem = Problem(seed)
    reward, w = Waves(problem), w[: problem.n]
    difference, length = slope_differences(problem, reward, w)
    E, _, _ = errors(problem, w)
    close(length, np.sqrt((E**2).sum(1)))
    assert np.all(np.linalg.norm(difference, axis=(1, 2)) <= reward.L * length + 1e-12)


@few
@given(SEEDS, st.lists(UNIT, min_size=3, max_size=3))
def test_the_gradient_of_the_logits_is_as_near(seed, w):
    problem = Problem(seed)
    reward, w = Waves(problem), w[: problem.n]
    _, length = slope_differences(problem, reward, w)
    away = np.linalg.norm(problem.table - problem.soft[:, None], axis=2)
    bound = reward.L * length / problem.temperature
    difference = np.abs(problem.each(reward, w)[0] - problem.each(reward, 0.0)[0])
    assert np.all(difference <= bound[:, None, None] * problem.q * away + 1e-12)
    together = np.sqrt((difference.sum(2) ** 2).sum(1))
    assert np.all(together <= bound * away.max() + 1e-12)


@few
@given(SEEDS, UNIT, st.floats(0.1, 10))
def test_both_bounds_are_reached(seed, w, L):
    """By L/2 times the square, with embeddings on a line."""
    problem = Problem(seed, positions=1)
    problem.d, problem.table = 1, problem.table[:, :1]

    def reward(e):
        return L / 2 * (e**2).sum((1, 2))

    difference, length = slope_differences(problem, reward, [w])
    close(np.abs(difference[:, 0, 0]), L * length)
    bound = L * length[:, None] / problem.temperature
    found = problem.each(reward, w)[0] - problem.each(reward, 0.0)[0]
    close(np.abs(found[:, 0]), bound * problem.q * np.abs(problem.table - problem.soft).T)

    problem.V, problem.table, problem.logits = 2, problem.table[:2], np.zeros((1, 2))
    _, length = slope_differences(problem, reward, [w])
    found = problem.each(reward, w)[0] - problem.each(reward, 0.0)[0]
    farthest = np.abs(problem.table - problem.soft).max()
    close(np.abs(found).sum((1, 2)), L * length * farthest / problem.temperature)


@few
@given(SEEDS, st.lists(UNIT, min_size=3, max_size=3))
def test_the_mean_slope_moves_by_the_square_of_E(seed, w):
    problem = Problem(seed)
    reward, w = Waves(problem), w[: problem.n]
    difference, _ = slope_differences(problem, reward, w)
    mean = np.tensordot(problem.chance(problem.q), difference, 1)
    bound = reward.L2 / 2 * (np.square(w) * spread(problem)).sum()
    assert np.linalg.norm(mean) <= bound + 1e-12


# 4. What Adam does


def adam_step(g, step_size):
    return step_size * g / (np.abs(g) + EPSILON)


def one_draw(problem, reward, w, **more):
    """Logits after Adam's steps, with one draw, and the gradient of the first."""
    tokens = problem.random.integers(0, problem.V, problem.n)
    soft, hard = problem.soft, problem.table[tokens]
    g = slopes(reward, (soft + w * (hard - soft))[None])[0]
    along = np.einsum("ld,lid->li", g, problem.table - soft[:, None])
    gradient = problem.q * along / problem.temperature
    psi = torch.from_numpy(problem.logits)
    more = {"optimiser": "adam", "draw": lambda q, m: torch.from_numpy(tokens)} | more
    return problem.guided(psi, reward, w, **more).numpy(), gradient


@tried(40)
@given(SEEDS, UNIT, st.floats(0.01, 2), st.floats(-12, 3))
def test_one_step_of_adam_is_the_closed_form(seed, w, step_size, power):
    problem = Problem(seed, tokens=6)
    waves, scale = Waves(problem), 10.0**power
    guided, g = one_draw(problem, lambda e: scale * waves(e), w, step_size=step_size)
    np.testing.assert_allclose(guided, problem.logits + adam_step(g, step_size), rtol=0, atol=1e-9)


@few
@given(SEEDS, UNIT)
def test_banned_and_hidden_logits_stay(seed, w):
    problem = Problem(seed, tokens=6)
    n, V = problem.n, problem.V
    problem.logits[:, V - 1] = -np.inf
    waves = Waves(problem)
    read = (torch.arange(n) > 0)[:, None]  # the first position is hidden
    guided, _ = one_draw(problem, lambda e: waves(e * read), w, step_size=0.5)
    assert np.all(guided[:, V - 1] == -np.inf)
    assert np.array_equal(guided[0], problem.logits[0])
    if V > 2:
        assert np.all(guided[1:, :-1] != problem.logits[1:, :-1])


@pytest.mark.parametrize("step_size", [0.5, 1.0])
def test_a_gradient_of_epsilon_moves_half_a_step(step_size):
    for size, share in ((1e-8, 0.5), (1e-6, 100 / 101), (1e-10, 1 / 101), (1e-4, 10**4 / 10001)):
        problem = Problem(0)
        problem.n, problem.V, problem.d, problem.temperature = 1, 2, 1, 1.0
        problem.logits, problem.table = np.zeros((1, 2)), np.array([[0.0], [1.0]])
        slope = 4 * size  # q (1 - q) is a quarter
        moved, g = one_draw(problem, lambda e, s=slope: s * e.sum((1, 2)), 0.3, step_size=step_size)
        close(g, [[-size, size]], 1e-20)
        close(moved, [[-step_size * share, step_size * share]])


@few
@given(SEEDS, UNIT, st.floats(0, 8))
def test_the_rewards_scale_does_not_matter_where_gradients_are_large(seed, w, power):
    problem = Problem(seed, tokens=6)
    waves = Waves(problem)
    moved = []
    state = problem.random.bit_generator.state
    for scale in (1e-6, 10 ** (power - 6)):  # at the smaller one some gradients are too small
        problem.random.bit_generator.state = state  # the same draw
        guided, g = one_draw(problem, lambda e, s=scale: s * waves(e), w, step_size=0.5)
        moved.append(guided - problem.logits)
        if len(moved) == 1:
            large = np.abs(g) >= 100 * EPSILON
            signs = np.sign(g)[large]
    assert np.all(np.abs(moved[0][large] - 0.5 * signs) <= 0.5 / 101 + 1e-12)
    assert np.all(np.abs(moved[0] - moved[1])[large] <= 0.5 / 101 + 1e-12)


@few
@given(SEEDS, UNIT)
def test_the_gradient_of_a_position_sums_to_zero(seed, w):
    problem = Problem(seed, tokens=6)
    _, g = one_draw(problem, Waves(problem), w)
    plain, _ = one_draw(problem, Waves(problem), w, optimiser="sgd")
    close(g.sum(1), 0)
    close((plain - problem.logits).sum(1), 0)
    guided, g = one_draw(problem, Waves(problem), w, step_size=0.5)
    assert np.all((guided > problem.logits).any(1) == (guided < problem.logits).any(1))


def test_rounding_moves_the_logit_of_a_certain_token():
    """In float32, and not in float64. The distribution is the same."""
    table = torch.randn(1000, 64, generator=torch.Generator().manual_seed(0))
    slope = torch.randn(64, generator=torch.Generator().manual_seed(1))
    moved = {}
    for dtype in (torch.float32, torch.float64):
        problem = Problem(0)
        problem.n, problem.d, problem.temperature = 1, 64, 0.7
        problem.table = table.to(dtype).numpy()
        logits = torch.zeros(1, 1000, dtype=dtype)
        logits[0, 0] = 40

        def reward(e):
            return (e * slope.to(e.dtype)).sum((1, 2))

        guided = problem.guided(
            logits, reward, 0.0, optimiser="adam", step_size=0.5, draw=lambda q, m: q.argmax(1)
        )
        moved[dtype] = abs(guided - logits)[0, 0].item()
        torch.testing.assert_close((guided / 0.7).softmax(1), (logits / 0.7).softmax(1))
    assert moved[torch.float32] > 0.4
    assert moved[torch.float64] < 1e-6


def adam_moves(gradients, step_size=1.0):
    """How `guide`'s Adam moves numbers that get these gradients [M, numbers], step by step."""
    numbers = torch.zeros(gradients.shape[1], dtype=torch.float64)
    climb = OPTIMISERS["adam"]([numbers], lr=step_size)
    places = [numbers.clone()]
    for row in torch.as_tensor(gradients, dtype=torch.float64):
        numbers.grad = -row
        climb.step()
        places.append(numbers.clone())
    return torch.stack(places).diff(dim=0).numpy()


def largest_step(t, b1=0.9, b2=0.999):
    """B_t of the page, from the sums."""
    past = np.arange(t)
    a = (1 - b1) * b1**past / (1 - b1**t)
    c = (1 - b2) * b2**past / (1 - b2**t)
    return math.sqrt((a**2 / c).sum())


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12))
def test_no_step_of_adam_is_larger_than_the_bound(sequence):
    moves = np.abs(adam_moves(np.array(sequence)[:, None])[:, 0])
    for t, move in enumerate(moves, 1):
        assert move <= largest_step(t) + 1e-12


def test_growing_gradients_reach_the_bound_at_every_step():
    growing = (0.999 / 0.9) ** np.arange(1, 301)
    bounds = np.array([largest_step(t) for t in range(1, 301)])
    np.testing.assert_allclose(adam_moves(growing[:, None])[:, 0], bounds, rtol=1e-7)
    assert bounds[-1] > 0.1 / math.sqrt(0.001)  # the bound that is often quoted
    ratio = 0.9**2 / 0.999
    limit = 0.1 / math.sqrt(0.001 * (1 - ratio))
    assert largest_step(20_000) == pytest.approx(limit)
    assert limit == pytest.approx(7.27, abs=0.005)


def test_a_search_for_the_worst_three_gradients_finds_the_growing_ones():
    random = np.random.default_rng(0)
    bound = sum(map(largest_step, (1, 2, 3)))
    best, width = np.ones(3), 3.0
    for _ in range(30):
        tried = best[:, None] * np.exp(width * random.normal(size=(3, 2000)))
        tried *= np.where(random.random((3, 2000)) < 0.1, -1, 1)
        tried[:, 0] = best
        total = np.abs(adam_moves(tried).sum(0))
        assert np.all(total <= bound)
        best, width = tried[:, total.argmax()] / tried[0, total.argmax()], width * 0.7
    assert total.max() == pytest.approx(bound, abs=1e-7)
    assert best == pytest.approx([1, 1.11, 1.11**2], abs=1e-2)
    assert 0.5 * bound == pytest.approx(1.5025, abs=5e-5)


@few
@given(SEEDS, UNIT, st.integers(1, 8))
def test_guided_logits_stay_within_the_bound(seed, w, steps):
    problem = Problem(seed, tokens=6)
    guided, _ = one_draw(problem, Waves(problem), w, steps=steps, step_size=0.5)
    bound = 0.5 * sum(map(largest_step, range(1, steps + 1)))
    assert np.all(np.abs(guided - problem.logits) <= bound + 1e-12)


# 5. What the weight does to the mean


class TwoTokens(Problem):
    """One masked position, tokens at 0 and 1, of which the second has the chance p."""

    def __init__(self, p, temperature=0.7):
        self.n, self.V, self.d, self.temperature = 1, 2, 1, temperature
        self.table = np.array([[0.0], [1.0]])
        self.logits = np.log([[1 - p, p]]) * temperature
        self.factor = p * (1 - p) / temperature

    def slope(self, R, w):
        """The mean slope of a weight: the gradient of the second logit, less its factor."""
        return self.mean(on_the_line(R), w)[0, 1] / self.factor

    def each_slope(self, R, w):
        return self.each(on_the_line(R), w)[0][:, 0, 1] / self.factor

    def exact_slope(self, R):
        return self.exact(on_the_line(R))[0, 1] / self.factor


def on_the_line(R):
    """A polynomial's value at the only position."""
    return lambda e: sum(c * e[:, 0, 0] ** k for k, c in enumerate(R.coef))


def polynomials(degree):
    number = st.floats(-2, 2)
    return st.lists(number, min_size=degree + 1, max_size=degree + 1).map(Polynomial)


@few
@given(polynomials(5), INSIDE, UNIT)
def test_two_tokens_compare_slopes(R, p, w):
    two, slope = TwoTokens(p), R.deriv()
    close(two.exact_slope(R), R(1) - R(0), 1e-9)
    close(two.slope(R, 0.0), slope(p), 1e-9)
    close(two.slope(R, 1.0), (1 - p) * slope(0) + p * slope(1), 1e-9)
    close(two.slope(R, w), (1 - p) * slope((1 - w) * p) + p * slope((1 - w) * p + w), 1e-9)


@few
@given(INSIDE, UNIT)
def test_the_square_is_wrong_by_a_factor_of_2p(p, w):
    square = Polynomial([0, 0, 1])
    close(TwoTokens(p).exact_slope(square), 1)
    close(TwoTokens(p).slope(square, w), 2 * p)


@few
@given(INSIDE, st.floats(-5, 5))
def test_straight_through_can_be_exact_for_a_bent_reward(p, bend):
    R = Polynomial([0, 1]) + bend * Polynomial([0, 0, 1]) * Polynomial([1, -1]) ** 2
    close(TwoTokens(p).each_slope(R, 1.0), [1, 1])
    close(TwoTokens(p).exact_slope(R), 1)
    close(TwoTokens(p).slope(R, 0.0), 1 + bend * (2 * p - 6 * p**2 + 4 * p**3))


@few
@given(SEEDS, st.lists(UNIT, min_size=3, max_size=3))
def test_a_quadratic_reward_gives_every_weight_the_same_mean(seed, w):
    problem = Problem(seed)
    reward = quadratic(problem)
    expectation = problem.mean(reward, 0.0)
    close(problem.mean(reward, w[: problem.n]), expectation)
    close(problem.mean(reward, WEIGHTS["entrgi"]), expectation)


@few
@given(SEEDS)
def test_a_quadratic_reward_leaves_out_half_of_the_bend(seed):
    problem = Problem(seed, positions=1)
    reward = quadratic(problem)
    A = torch.autograd.functional.hessian(
        lambda e: reward(e.view(1, 1, -1)).sum(), torch.zeros(problem.d, dtype=torch.float64)
    ).numpy()
    away = problem.table - problem.soft
    bend = np.einsum("id,de,ie->i", away, A, away)
    missing = problem.q * (bend - problem.q @ bend) / (2 * problem.temperature)
    close(problem.exact(reward) - problem.mean(reward, 0.5), missing)


@few
@given(st.floats(-2, 2), st.floats(-2, 2), UNIT)
def test_quadratic_rewards_are_exact_for_two_equal_chances(a, b, w):
    R = Polynomial([0, b, a])
    close(TwoTokens(0.5).slope(R, w), a + b)
    close(TwoTokens(0.5).exact_slope(R), a + b)


@few
@given(INSIDE, UNIT)
def test_a_quadratic_reward_can_turn_the_sign_of_every_weight(p, w):
    R = Polynomial([0, -0.5, 1])
    close(TwoTokens(p).exact_slope(R), 0.5)
    close(TwoTokens(p).slope(R, w), 2 * p - 0.5)


@few
@given(INSIDE)
def test_a_cubic_reward_can_blind_or_turn_every_draw_of_aps(p):
    blind, turned = Polynomial([0, 0, 3, -2]), Polynomial([0, -0.5, 3, -2])
    two = TwoTokens(p)
    close(two.exact_slope(blind), 1)
    close(two.each_slope(blind, 1.0), [0, 0])
    close(two.exact_slope(turned), 0.5)
    close(two.each_slope(turned, 1.0), [-0.5, -0.5])


@few
@given(polynomials(5))
def test_expectation_is_right_on_average_over_p(R):
    """Gauss-Legendre's five nodes, which integrate R' of degree 4 exactly."""
    nodes, weights = np.polynomial.legendre.leggauss(5)
    found = [TwoTokens((1 + x) / 2).slope(R, 0.0) for x in nodes]
    close(weights @ found / 2, R(1) - R(0), 1e-9)


@few
@given(polynomials(5), INSIDE, UNIT)
def test_both_slopes_expanded(R, p, w):
    two, derivatives = TwoTokens(p), [R.deriv(k)(p) for k in range(1, 6)]
    moments = [(1 - p) * (-p) ** k + p * (1 - p) ** k for k in range(5)]
    assert moments[1:3] == pytest.approx([0, p * (1 - p)])
    series = sum(w**k / math.factorial(k) * derivatives[k] * moments[k] for k in range(5))
    close(two.slope(R, w), series, 1e-9)
    exact = sum(
        derivatives[k - 1] / math.factorial(k) * ((1 - p) ** k - (-p) ** k) for k in range(1, 6)
    )
    close(two.exact_slope(R), exact, 1e-9)
    first, second, third = derivatives[:3]
    if np.allclose(derivatives[3:], 0):
        close(exact, first + (1 - 2 * p) / 2 * second + (1 - 3 * p * (1 - p)) / 6 * third, 1e-9)


@few
@given(polynomials(3), INSIDE, UNIT)
def test_a_cubic_rewards_bias_in_two_terms(R, p, w):
    two, s = TwoTokens(p), p * (1 - p)
    second, third = R.deriv(2)(p), R.deriv(3)(p)
    bias = -(1 - 2 * p) / 2 * second + (w**2 * s / 2 - (1 - 3 * s) / 6) * third
    close(two.slope(R, w) - two.exact_slope(R), bias, 1e-9)


@few
@given(polynomials(4), UNIT)
def test_for_two_equal_chances_one_over_root_three_is_exact(R, w):
    two = TwoTokens(0.5)
    close(two.slope(R, 1 / math.sqrt(3)), two.exact_slope(R), 1e-9)
    bias = (w**2 / 8 - 1 / 24) * R.deriv(3)(0.5)
    close(two.slope(R, w) - two.exact_slope(R), bias, 1e-9)
    assert WEIGHTS["entrgi"](torch.from_numpy(two.logits)).tolist() == pytest.approx([1])


@few
@given(polynomials(5), UNIT)
def test_a_fifth_power_is_not_exact_for_it(R, w):
    two = TwoTokens(0.5)
    bias = (w**2 / 8 - 1 / 24) * R.deriv(3)(0.5) + (w**4 / 384 - 1 / 1920) * R.deriv(5)(0.5)
    close(two.slope(R, w) - two.exact_slope(R), bias, 1e-9)


@few
@given(st.floats(0.5 - math.sqrt(1 / 12) + 1e-6, 0.5), UNIT, st.booleans())
def test_the_best_weight_of_the_third_derivative_grows_with_certainty(p, w, mirrored):
    """For a cubic reward that is straight at p; EntRGi's weight falls instead."""
    p = 1 - p if mirrored else p
    two, s = TwoTokens(p), p * (1 - p)
    R = Polynomial([-p, 1]) ** 3 + Polynomial([0, 0.2])
    best = math.sqrt((1 - 3 * s) / (3 * s))
    close(two.slope(R, best), two.exact_slope(R), 1e-9)
    close(two.slope(R, w) - two.exact_slope(R), 3 * s * (w**2 - best**2), 1e-9)


# The page


NAMED = re.findall(r"\{\{ test test_proofs\.py::(\w+) \}\}", PAGE)


def test_every_test_is_named_once_and_every_name_is_a_test():
    source = (ROOT / "tests" / "test_proofs.py").read_text(encoding="utf-8")
    statements = source.partition("# The page")[0]
    assert sorted(NAMED) == sorted(re.findall(r"^def (test_\w+)\(", statements, re.MULTILINE))


def test_every_statement_has_its_proof_and_its_test():
    statements = PAGE.split("\n**Statement")[1:]
    assert len(statements) >= 15
    for part in statements:
        where = part.partition("\n")[0]
        assert "Proof" in part, where
        assert "{{ test test_proofs.py::" in part, where
