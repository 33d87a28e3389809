"""The orders of commitment, by hand and by enumeration."""

import itertools
import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from building import examples
from entrgi_ref import ORDERS, Candidates, KeyedDraws, commit, nucleus, rank, token_distribution
from entrgi_ref.orders import plackett_luce
from properties import tried

PHI = torch.tensor([[0.0, 0.0, 3.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
PSI = torch.tensor([[0.3, 0.1, 2.0], [0.0, 5.0, 1.0]], dtype=torch.float64)
TAU = 0.5
CANDIDATES = Candidates(
    tokens=torch.tensor([2, 0]),
    probabilities=nucleus(token_distribution(PSI, TAU), 0.99),
    guided_logits=PSI,
    logits=PHI,
    temperature=TAU,
)


def test_entropy_ranks_by_the_unguided_distribution_at_the_temperature():
    z = 2 + math.exp(6)
    first = -2 / z * math.log(1 / z) - math.exp(6) / z * math.log(math.exp(6) / z)
    assert ORDERS["entropy"](CANDIDATES).tolist() == pytest.approx([-first, -math.log(3)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_entropy_of_a_small_temperature_does_not_overflow(dtype):
    """30 / 1e-4 is more than float16 can hold, and 1e35 / 1e-4 than float32."""
    logits = torch.tensor([[30.0, 1.0, 0.0], [0.0, 0.0, 0.0]], dtype=dtype)
    if dtype == torch.float32:
        logits *= 1e34
    drawn = Candidates(torch.tensor([0, 0]), logits, logits, logits, 1e-4)
    assert ORDERS["entropy"](drawn).tolist() == pytest.approx([0, -math.log(3)], abs=1e-3)


def test_maskgit_plus_ranks_by_the_candidates_probability_in_the_nucleus():
    z = math.exp(0.6) + math.exp(0.2) + math.exp(4)
    kept = (math.exp(4) + math.exp(0.6)) / z  # 0.97: the third token stays too
    assert kept < 0.99
    assert ORDERS["maskgit_plus"](CANDIDATES).tolist() == pytest.approx([math.exp(4) / z, 0])


def test_topk_margin_ranks_by_the_lead_in_the_nucleus():
    z = math.exp(0.6) + math.exp(0.2) + math.exp(4)
    lead = (math.exp(4) - math.exp(0.6)) / z
    assert ORDERS["topk_margin"](CANDIDATES).tolist() == pytest.approx([lead, 1])


def test_the_lead_of_one_of_two_tokens():
    p = torch.tensor([[0.75, 0.25], [1.0, 0.0]])
    two = Candidates(torch.tensor([0, 0]), p, p, p, TAU)
    assert ORDERS["topk_margin"](two).tolist() == [0.5, 1.0]


def test_candidates_are_drawn_from_a_table(as_users_run_it):
    """With one token for each of its rows."""
    p = torch.tensor([[0.75, 0.25], [1.0, 0.0]])
    for tokens, wrong, name in (([0, 0], p[:, 0], "probabilities"), ([0], p, "draw")):
        with pytest.raises(ValueError, match=rf"^{name}: got shape \[\d\], expected \[n"):
            Candidates(torch.tensor(tokens), wrong, p, p, TAU)


def test_anchor_ranks_by_the_guided_logit():
    assert ORDERS["anchor"](CANDIDATES).tolist() == [2.0, 0.0]


def test_the_order_of_the_second_code_ranks_by_the_guided_distribution():
    """The function that docs/extending.md gives (row 27 of the ledger)."""
    blocks = [each.code for each in examples.examples(examples.DOCS / "extending.md")]
    (code,) = [code for code in blocks if code.startswith("def by_guided_entropy(")]
    written = {"Candidates": Candidates, "torch": torch}
    exec(code, written)
    z = math.exp(0.6) + math.exp(0.2) + math.exp(4)
    first = -sum(math.exp(x) / z * math.log(math.exp(x) / z) for x in (0.6, 0.2, 4))
    found = written["by_guided_entropy"](CANDIDATES)
    assert found.tolist() == pytest.approx([-first, 0])
    assert found.argmax() != ORDERS["entropy"](CANDIDATES).argmax()  # guidance changed the order


def test_order_temperature_draws_without_replacement():
    """The k largest are k draws without replacement: all ordered pairs of 4, by their chances."""
    confidence = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)
    n, temperature = 40_000, 1.5
    u = torch.rand(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scores = plackett_luce(confidence.expand(n, 4).reshape(-1), temperature, u.reshape(-1))
    first_two = scores.view(n, 4).argsort(dim=1, descending=True)[:, :2]
    counts = torch.bincount(first_two[:, 0] * 4 + first_two[:, 1], minlength=16)
    p = (confidence / temperature).softmax(0).tolist()
    statistic = 0.0
    for a, b in itertools.permutations(range(4), 2):
        expected = n * p[a] * p[b] / (1 - p[a])
        statistic += (counts[a * 4 + b].item() - expected) ** 2 / expected
    assert statistic < 31.3  # chi-square with 11 degrees of freedom, p = 0.001


def test_order_temperature_tells_numbers_near_one_apart():
    """In float32 both would round to 1, and -log(-log 1) is infinite."""
    uniform = torch.tensor([1 - 2**-53, 1 - 2**-40, 0.5], dtype=torch.float64)
    first, second, third = plackett_luce(torch.zeros(3), 1.0, uniform).tolist()
    assert math.inf > first > second > third


@pytest.mark.parametrize("order_temperature", [1e-46, 1e-40, 0, -1.0, math.nan, math.inf])
def test_order_temperatures_that_cannot_be_divided_by_are_refused(order_temperature):
    uniform = torch.tensor([0.25, 0.5], dtype=torch.float64)
    with pytest.raises(ValueError, match="order_temperature: got"):
        plackett_luce(torch.zeros(2), order_temperature, uniform)


def test_small_order_temperatures_keep_half_precision_finite():
    confidence = torch.tensor([-9.0, -10.0, -9.5], dtype=torch.float16)
    uniform = torch.full((3,), 0.5, dtype=torch.float64)
    scores = plackett_luce(confidence, 1e-6, uniform)
    assert scores.isfinite().all()
    assert scores.argsort().tolist() == [1, 2, 0]


def test_origin_takes_the_smallest_numbers_first():
    """Those below the schedule's fraction, which `how_many` counts."""
    place = torch.arange(len(CANDIDATES.tokens))
    draws = KeyedDraws.of(0, [1], 1).at(0, torch.zeros_like(place), place)
    confidence = rank(CANDIDATES, draws, "origin")
    assert torch.equal(confidence.argsort(descending=True), draws.origin().argsort())


def test_a_random_origin_is_refused(as_users_run_it):
    """`origin` ranks nothing that a temperature could mix."""
    draws = KeyedDraws.of(0, [1], 1).at(0, torch.tensor([0]), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"order_temperature: got 0.5, expected 0"):
        rank(CANDIDATES, draws, "origin", 0.5)


def test_confidence_that_is_nan_comes_last():
    tokens, masked = torch.arange(3), torch.tensor([[True, True, True]])
    confidence = torch.tensor([math.nan, -9.0, 1.0])
    for quota, expected in ((1, [False, False, True]), (2, [False, True, True])):
        kept = commit(tokens, confidence, torch.tensor([quota]), masked)
        assert kept.tolist() == [expected]


@pytest.mark.parametrize("n", [1, 3, 5])
def test_there_is_a_candidate_for_each_masked_position(as_users_run_it, n):
    masked = torch.tensor([[True, True, False]])
    with pytest.raises(ValueError, match=r"tokens: got shape .* = \[2\]"):
        commit(torch.arange(n), torch.rand(n), torch.tensor([1]), masked)


def test_among_equals_the_earlier_position_is_committed():
    """In an answer so long that an unstable sort would mix them."""
    N, quota = 3000, 1000
    masked = torch.ones(1, N, dtype=torch.bool)
    kept = commit(torch.arange(N), torch.zeros(N), torch.tensor([quota]), masked)
    assert kept[0].nonzero().flatten().tolist() == list(range(quota))


@tried(100)
@given(seed=st.integers(0, 2**31), put_last=st.none() | st.integers(0, 2))
def test_commits_are_those_of_a_sort_in_words(seed, put_last):
    """One trajectory after another: ends last, then by confidence, then from left to right."""
    chance, S, N = random.Random(seed), 4, 6
    masked = torch.tensor([[chance.random() < 0.8 for _ in range(N)] for _ in range(S)])
    n = int(masked.sum())
    confidence = chance.choices([-math.inf, -1.5, 0.0, 0.25, 0.25 + 1e-12, math.inf, math.nan], k=n)
    tokens, quota = chance.choices(range(3), k=n), chance.choices(range(N + 1), k=S)
    ranks = torch.tensor(confidence, dtype=torch.float64)
    found = commit(torch.tensor(tokens).long(), ranks, torch.tensor(quota), masked, put_last)

    expected, place = torch.zeros_like(masked), iter(range(n))
    for s in range(S):
        waiting = []
        for position in masked[s].nonzero().flatten().tolist():
            i = next(place)
            value = -math.inf if math.isnan(confidence[i]) else confidence[i]
            waiting.append((tokens[i] == put_last, -value, position))
        for *_, position in sorted(waiting)[: quota[s]]:
            expected[s, position] = True
    assert torch.equal(found, expected)
