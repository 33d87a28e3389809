"""Numerical ground: gradients through real reward models, precisions, and every sampler.

Slopes are held against finite differences, float32 and bfloat16 against float64 with bounds that
docs/testing.md states, and what is drawn against its distribution: by a chi-square statistic with
fixed keys, so that a test fails or passes at every run.
"""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from checkpoints import DREAM, LONG, REWARD, SHORT, causal, response_tokens
from entrgi_ref import (
    ORDERS,
    Candidates,
    commit,
    draw_candidates,
    entropy_weight,
    guide,
    hard_embedding,
    how_many,
    interpolate,
    nucleus,
    rank,
    schedule,
    soft_embedding,
    token_distribution,
)
from entrgi_ref.draws import KeyedDraws, inverse_cdf
from entrgi_ref.errors import GradientRecord, stacked
from entrgi_ref.models import SumOfRewards, examine_reward, load_denoiser
from entrgi_ref.orders import ORIGIN, plackett_luce
from entrgi_ref.relaxation import WEIGHTS
from entrgi_ref.rivals.smc import survivors
from properties import tried

REAL = 152_064  # the width of Dream's output layer

# Gradients of `guide` through the real classes


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    denoiser = load_denoiser(DREAM, dtype="float64", device="cpu")
    sequence, likelihood = (
        examine_reward(path, unmatched="zero").load(denoiser, dtype="float64")
        for path in (REWARD, causal(tmp_path_factory.mktemp("causal")))
    )
    both = SumOfRewards.of([sequence, likelihood], [1.0, -0.5])
    return denoiser, {"sequence": sequence, "likelihood": likelihood, "both": both}


@pytest.mark.parametrize("kind", ["sequence", "likelihood", "both"])
@pytest.mark.parametrize("weight", ["expectation", "entrgi", "aps"])
def test_a_step_of_guide_is_the_slope_of_the_reward(kind, weight, models):
    """Plain ascent with eta = 1: what psi moves by is the slope of R, the hard part held still."""
    denoiser, rewards = models
    reward, temperature = rewards[kind], 0.7
    response = response_tokens(denoiser, 2, 6)
    masked = torch.tensor([[True, False, True, True, False, False]] * 2)
    step = reward.bind([SHORT, LONG], 1).at(response, masked)
    n, V = int(masked.sum()), len(denoiser.writable)
    random = torch.Generator().manual_seed(5)
    psi = 3 * torch.randn(n, V, dtype=torch.float64, generator=random)
    seen = []

    def draw(probabilities, _):
        return probabilities.argmax(-1)

    moved = guide(
        psi,
        step,
        weight=WEIGHTS[weight],
        steps=1,
        step_size=1.0,
        temperature=temperature,
        top_p=1.0,
        draw=draw,
        optimiser="sgd",
        observe=seen.append,
    )
    soft = soft_embedding(token_distribution(psi, temperature), step.embeddings)
    hard = step.embeddings[psi.argmax(-1)]
    held = (WEIGHTS[weight](psi)[:, None] * (hard - soft)).detach()

    @torch.no_grad()
    def reward_at(logits):
        soft = soft_embedding(token_distribution(logits, temperature), step.embeddings)
        return step(soft + held, psi.argmax(-1)).sum()

    assert float(seen[0].rewards.sum()) == pytest.approx(float(reward_at(psi)), rel=1e-12)
    gradient, h = moved - psi, 1e-5
    likely = psi.topk(3).indices  # others have next to no slope
    directions = [torch.randn(n, V, dtype=torch.float64, generator=random) for _ in range(2)]
    for row, column in itertools.product(range(n), range(3)):
        one = torch.zeros_like(psi)
        one[row, likely[row, column]] = 1
        directions.append(one)
    assert float(gradient.abs().max()) > 1e-5
    for direction in directions:
        numeric = (reward_at(psi + h * direction) - reward_at(psi - h * direction)) / (2 * h)
        found = float((gradient * direction).sum())
        assert found == pytest.approx(float(numeric), rel=1e-5, abs=1e-10)


# Precisions

PARTS = {torch.float32: 2**-24, torch.bfloat16: 2**-8}
"""u: the largest relative error of rounding to a precision."""


@pytest.mark.parametrize("dtype", PARTS, ids=str)
@tried(40)
@given(
    seed=st.integers(0, 2**32),
    scale=st.sampled_from([0.01, 1.0, 5.0, 20.0]),
    V=st.sampled_from([2, 75, 3000]),
    temperature=st.sampled_from([0.3, 0.7, 1.0]),
)
def test_equations_in_a_precision_are_those_of_float64(dtype, seed, scale, V, temperature):
    """Of logits that both precisions have: what is left is what the equations themselves lose."""
    random = torch.Generator().manual_seed(seed)
    logits = (scale * torch.randn(3, V, generator=random)).to(dtype)
    E = torch.randn(V, 8, generator=random).to(dtype)
    part = PARTS[dtype]

    q = token_distribution(logits, temperature)
    exact = token_distribution(logits.double(), temperature)
    spread = (logits.double().amax(-1, keepdim=True) - logits.double()) / temperature
    assert q.dtype == dtype
    bound = part * (4 + 3 * spread) + 2**-24 * V / 32
    assert torch.all((q.double() - exact).abs() <= bound * exact + 1e-37)

    w, exact_w = entropy_weight(logits), entropy_weight(logits.double())
    assert w.dtype == torch.float32
    assert float((w.double() - exact_w).abs().max()) <= 1e-6 + 2**-24 * V / 256

    soft, exact_soft = soft_embedding(exact.to(dtype), E), soft_embedding(exact, E.double())
    size = (exact.to(dtype).double() @ E.double().abs()).clamp_min(1e-30)
    assert float(((soft.double() - exact_soft).abs() / size).max()) <= 4 * part + V * 2**-24

    hard = E[exact.argmax(-1)]
    mixed = interpolate(soft, hard, w)
    exact_mixed = interpolate(soft.double(), hard.double(), w.double())
    size = soft.double().abs() + hard.double().abs()
    assert float(((mixed.double() - exact_mixed).abs() / size.clamp_min(1e-30)).max()) <= 8 * part


@pytest.mark.parametrize("dtype", PARTS, ids=str)
@pytest.mark.parametrize(("rows", "of_q", "of_w"), [("random", 32, 256), ("made for it", 8, 8)])
def test_the_sum_over_a_real_vocabulary_is_that_of_float64(rows, of_q, of_w, dtype):
    """But for what is lost beside the sum so far: most of it cancels in random logits."""
    logits = 4 * torch.randn(2, REAL, generator=torch.Generator().manual_seed(0))
    if rows == "made for it":
        logits = torch.zeros(2, REAL)
        logits[0, :128] = 9.5  # some in each part of the sum that a processor adds up by itself
        logits[1, :16] = 13.5
    logits, exact = logits.to(dtype), logits.to(dtype).double()
    error = (entropy_weight(logits).double() - entropy_weight(exact)).abs()
    assert float(error.max()) <= 1e-6 + 2**-24 * REAL / of_w
    q, exact_q = token_distribution(logits, 1.0).double(), token_distribution(exact, 1.0)
    below = exact.amax(-1, keepdim=True) - exact
    bound = PARTS[dtype] * (4 + 3 * below) + 2**-24 * REAL / of_q
    assert bool(((q - exact_q).abs() <= bound * exact_q).all())


# Devices


def test_what_is_made_is_made_where_its_tensors_are():
    """On torch's device without numbers, beside which a tensor of the CPU is refused or seen."""
    meta, (S, N, V, d) = torch.device("meta"), (4, 3, 6, 2)
    n = S * N
    tokens, logits = torch.zeros(n, dtype=torch.long, device=meta), torch.zeros(n, V, device=meta)
    soft, E = torch.zeros(n, d, device=meta), torch.zeros(V, d, device=meta)
    masked = torch.ones(S, N, dtype=torch.bool, device=meta)
    draws = KeyedDraws.of(0, [7, 8], S // 2, meta)
    chance, step = draws.at(1, tokens, tokens), schedule(2, N)[1]
    drawn = draw_candidates(logits, logits, chance.candidates, 0.7, 0.9)
    made = [
        *(weight(logits) for weight in WEIGHTS.values()),
        soft_embedding(token_distribution(logits, 0.7), E),
        chance.hard(logits, 2),
        inverse_cdf(torch.zeros(n, 5000, device=meta), chance.origin()),
        *(rank(drawn, chance, order) for order in (*ORDERS, ORIGIN)),
        *(rank(drawn, chance, order, 0.5) for order in ORDERS),
        *(how_many(step, masked, chance, order) for order in ("entropy", ORIGIN)),
        survivors(torch.zeros(S, device=meta), draws, 1, 2),
        *stacked([], n, S, meta),
    ]
    record = GradientRecord.of(0, logits, made[0], soft, hard_embedding(tokens, E), soft[:S, 0])
    quota = torch.ones(S, dtype=torch.long, device=meta)
    made += [record.entropy, record.E, record.D, commit(tokens, made[0], quota, masked, 2)]
    assert isinstance(drawn, Candidates)
    assert {one.device for one in made} == {meta}


# Samplers

DRAWS = 4096


def chi_square(counts, expected):
    """Mean 0 and deviation 1 for many bins, whatever their number."""
    assert float(expected.min()) > 20
    statistic = float(((counts - expected) ** 2 / expected).sum())
    freedom = len(expected) - 1
    return (statistic - freedom) / math.sqrt(2 * freedom)


def bins(probabilities, number):
    """Which of about equally heavy bins each token is in, neighbours in id together."""
    mass = probabilities.double().cumsum(0)
    return ((mass - 1e-9) / mass[-1] * number).long().clamp(0, number - 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("purpose", ["hard", "candidates"])
@pytest.mark.parametrize("V", [5, 75, pytest.param(REAL, marks=pytest.mark.slow)])
def test_tokens_are_drawn_by_their_probabilities(purpose, dtype, V):
    """What guidance draws at a gradient step, and what is written: keyed, one row per position."""
    random = torch.Generator().manual_seed(V)
    q = token_distribution(torch.randn(1, V, generator=random).to(dtype), 1.0)
    number = min(V, 40)
    places = bins(q[0], number) if number < V else torch.arange(V)
    expected = torch.zeros(number, dtype=torch.float64).index_add(0, places, q[0].double())
    rows = 64
    trajectory, position = torch.zeros(rows, dtype=torch.long), torch.arange(rows)
    draws = KeyedDraws.of(7, [11], 1)
    counts = torch.zeros(number, dtype=torch.float64)
    for step in range(DRAWS // rows):
        at = draws.at(step, trajectory, position)
        table = q.expand(rows, V)
        tokens = at.hard(table, 2) if purpose == "hard" else at.candidates(table)
        counts += torch.bincount(places[tokens], minlength=number)
    heavy = expected * DRAWS / expected.sum() > 20
    assert int(heavy.sum()) > number / 2
    counts, expected = counts[heavy], expected[heavy] / expected[heavy].sum() * counts[heavy].sum()
    assert abs(chi_square(counts, expected)) < 4


def test_the_nucleus_is_drawn_by_what_it_leaves():
    """Of the real vocabulary: nothing outside, and what is inside by its share."""
    q = token_distribution(4 * torch.randn(1, REAL, generator=torch.manual_seed(1)), 1.0)
    left = nucleus(q, 0.5)
    numbers = torch.rand(DRAWS, dtype=torch.float64, generator=torch.manual_seed(2))
    tokens = torch.cat([inverse_cdf(left.expand(len(u), -1), u) for u in numbers.split(64)])
    assert torch.all(left[0, tokens] > 0)
    kept = left[0] > 0
    total = float(q[0, kept].sum())
    assert total == pytest.approx(0.5, abs=0.02)
    expected = torch.where(kept, q[0].double() / total, 0.0)
    places = bins(expected, 30)
    counts = torch.bincount(places[tokens], minlength=30).double()
    weights = torch.zeros(30, dtype=torch.float64).index_add(0, places, expected)
    heavy = weights * DRAWS > 20
    counts, weights = counts[heavy], weights[heavy]
    assert abs(chi_square(counts, weights / weights.sum() * counts.sum())) < 4


def test_an_order_with_a_temperature_draws_by_softmax():
    """The first of five positions, from keyed numbers."""
    confidence, rounds = torch.tensor([0.0, 0.5, 1.0, -1.0, 0.2], dtype=torch.float64), 4000
    draws = KeyedDraws.of(3, range(rounds), 1)
    row, position = torch.arange(rounds).repeat_interleave(5), torch.arange(5).repeat(rounds)
    uniform = draws.at(2, row, position).order()
    scores = plackett_luce(confidence.repeat(rounds), 0.8, uniform).view(rounds, 5)
    counts = torch.bincount(scores.argmax(1), minlength=5).double()
    assert abs(chi_square(counts, (confidence / 0.8).softmax(0) * rounds)) < 4


def test_origin_commits_each_position_with_its_probability():
    """Numbers of its own, of which the share below p is p."""
    rounds = 8000
    draws = KeyedDraws.of(3, range(rounds), 1)
    at = draws.at(1, torch.arange(rounds), torch.zeros(rounds, dtype=torch.long))
    for p in (0.05, 0.3, 0.9):
        share = float((at.origin() < p).double().mean())
        assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / rounds)


def test_resampling_draws_a_particle_as_often_as_its_weight_says():
    """K w times on average, floor or ceil of it each time."""
    log_weights = torch.tensor([0.0, 1.0, -0.5, 0.3], dtype=torch.float64)
    prompts, K = 4000, 4
    chosen = survivors(log_weights.repeat(prompts), KeyedDraws.of(1, range(prompts), K), 3, prompts)
    times = torch.nn.functional.one_hot(chosen.view(prompts, K) % K, K).sum(1).double()
    wanted = K * log_weights.softmax(0)
    assert torch.all((times >= wanted.floor()) & (times <= wanted.ceil()))
    fraction = wanted - wanted.floor()
    error = (times.mean(0) - wanted).abs() / (fraction * (1 - fraction) / prompts).sqrt()
    assert float(error.max()) < 4
