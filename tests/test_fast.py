"""What is done sooner at a large vocabulary, against the plain versions."""

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import entrgi_ref.fast
from entrgi_ref import (
    ORDERS,
    Candidates,
    entropy,
    entropy_weight,
    inverse_cdf,
    nucleus,
    soft_embedding,
    token_distribution,
)
from entrgi_ref.fast import draw, gradient, rows
from entrgi_ref.fast import nucleus as fast
from entrgi_ref.fast.adam import adam
from entrgi_ref.fast.gradient import logit_gradient
from entrgi_ref.fast.rows import by_rows
from properties import tried


def sorted_nucleus(p, top_p):
    """The plain version: everything is sorted. Sums in float64, compared in the precision of p."""
    falling, order = p.sort(dim=-1, descending=True, stable=True)
    before = F.pad(falling.cumsum(-1, dtype=torch.float64)[:, :-1], (1, 0)).to(p.dtype)
    kept = falling.masked_fill(before > top_p, 0)
    return torch.zeros_like(p).scatter(-1, order, kept / kept.sum(-1, keepdim=True))


def summed_inverse_cdf(p, uniform):
    """The plain version: a row is added up token by token."""
    cumulative = p.double().cumsum(-1)
    total = cumulative[:, -1:].contiguous()
    token = torch.searchsorted(cumulative, uniform[:, None] * total, right=True)
    return token.minimum(torch.searchsorted(cumulative, total)).squeeze(-1)


def random_rows(kind, n, width, seed):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, width, generator=g)
    if kind == "middling":
        logits *= 4
    elif kind == "one-hot":
        logits[:, int(torch.randint(width, (1,), generator=g))] += 60
    elif kind == "two peaks":
        logits[:, :2] += 9
    elif kind == "ties":
        logits = logits.mul(2).round()
    elif kind == "uniform":
        logits = torch.zeros(n, width)
    elif kind == "banned":
        logits[:, torch.rand(width, generator=g) < 0.9] = -torch.inf
    elif kind == "half uniform":
        logits = torch.where(torch.rand(n, width, generator=g) < 0.5, 0.0, 1e-4)
    elif kind == "falling":  # a sample of such a row is one of all ranks
        logits = -0.7 * torch.arange(1, width + 1).log() + logits / 1000
    elif kind == "striped":  # a sample of such a row at even distances is one of a kind
        logits[:, :: max(1, width // fast.SAMPLE)] += 3
    return logits.softmax(-1)


KINDS = [
    *("spread", "middling", "one-hot", "two peaks", "ties", "uniform", "banned", "half uniform"),
    *("falling", "striped"),
]
TOP_P = st.sampled_from([1e-6, 0.1, 0.5, 0.9, 0.95, 0.99, 0.9999, 1 - 2**-20])


@tried(60)
@given(
    kind=st.sampled_from(KINDS),
    width=st.sampled_from([fast.LARGE, fast.LARGE + 1, 3 * fast.LARGE - 7]),
    top_p=TOP_P,
    seed=st.integers(0, 2**31),
)
def test_the_nucleus_is_that_of_a_sort_to_the_last_token(kind, width, top_p, seed):
    p = random_rows(kind, 3, width, seed)
    assert fast.applies(p)
    found, expected = nucleus(p, top_p), sorted_nucleus(p, top_p)
    assert torch.equal(found > 0, expected > 0)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "share", [pytest.param(10, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.deep)]
)
def test_a_million_rows_in_all(share, kind):
    """A hundred thousand of each kind, most of them small; or a tenth of them."""
    compared = 0
    for width, count in ((30, 48_000), (64, 38_400), (385, 10_400), (fast.LARGE + 3, 3_200)):
        for seed in range(8):
            p = random_rows(kind, count // (8 * share), width, seed)
            p = p[~p.isnan().any(1)]  # everything banned
            top_p = (0.3, 0.9, 0.95, 0.99)[seed % 4]
            assert torch.equal(nucleus(p, top_p) > 0, sorted_nucleus(p, top_p) > 0)
            compared += len(p)
    for seed in range(4 // min(share, 4)):
        p = random_rows(kind, 8, 152_064, 100 + seed)
        assert torch.equal(nucleus(p, 0.95) > 0, sorted_nucleus(p, 0.95) > 0)
    assert compared == 1_000_000 / len(KINDS) / share


@pytest.mark.parametrize("kind", KINDS)
def test_the_nucleus_at_a_real_vocabulary(kind):
    p = random_rows(kind, 2, 152_064, 0)
    assert torch.equal(nucleus(p, 0.95) > 0, sorted_nucleus(p, 0.95) > 0)


@pytest.mark.parametrize(("kind", "most"), [("spread", 1), ("falling", 1), ("striped", 6)])
def test_one_look_at_all_masses_is_enough_unless_the_sample_misleads(monkeypatch, kind, most):
    looks = []
    mass_above = fast.Room.mass_above

    def counted(room, *given):
        looks.append(1)
        return mass_above(room, *given)

    monkeypatch.setattr(fast.Room, "mass_above", counted)
    p = random_rows(kind, 4, 152_064, 1)
    assert torch.equal(nucleus(p, 0.95) > 0, sorted_nucleus(p, 0.95) > 0)
    assert 4 <= len(looks) <= 4 * most
    assert kind != "striped" or len(looks) > 4


def misleading(seed):
    """A row of which the sample is of another spread and level than the rest; and a top-p."""
    width, g = 50_000, torch.Generator().manual_seed(seed)
    spread, level = torch.rand(2, generator=g).tolist()
    logits = torch.randn(1, width, generator=g)
    sampled = logits[:, :: width // fast.SAMPLE]
    sampled.copy_(3 * spread * torch.randn(1, sampled.shape[1], generator=g) + 8 * (level - 0.5))
    return logits.softmax(-1), 0.01 + 0.98 * float(torch.rand(1, generator=g))


@pytest.mark.parametrize("seed", [4, 11, 29, 64, 77, 87, 113, 254])
def test_the_nucleus_where_a_sample_misleads(seed):
    """Which ends of the search this reaches was looked up, for each seed."""
    p, top_p = misleading(seed)
    assert torch.equal(nucleus(p, top_p) > 0, sorted_nucleus(p, top_p) > 0)


@pytest.mark.parametrize("levels", [(14, 15), (14, 15, 16, 17), (13, 17, 15)])
def test_a_mass_that_is_top_p_to_the_last_bit(levels):
    """All sums are exact here. A token is in if the mass before it is top_p, and not more."""
    share = 1 / len(levels)
    p = torch.cat([torch.full([int(share * 2**k)], 2.0**-k) for k in levels])
    p = p[torch.randperm(len(p), generator=torch.Generator().manual_seed(0))][None]
    for i in range(1, len(levels)):
        for top_p in (i * share, math.nextafter(i * share, 0) - 1e-7, i * share + 1e-7):
            assert torch.equal(nucleus(p, top_p) > 0, sorted_nucleus(p, top_p) > 0)


def even(seed):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(1, 60_000, generator=g).mul(0.3).softmax(-1), None


@pytest.mark.parametrize(
    ("row", "seed", "before"),
    [
        *((even, 91, 30_000), (even, 1, 8_000), (even, 21, 50_500)),
        *((misleading, 27, 12), (misleading, 391, 12), (misleading, 583, 12)),
    ],
)
def test_a_mass_that_is_top_p_in_float32(row, seed, before):
    """The last token is in if the mass before it is added up without rounding: which rows a sum in
    float32 would cut short was looked up.
    """
    p, _ = row(seed)
    mass = p.sort(descending=True).values.cumsum(-1, dtype=torch.float64)
    top_p = float(mass[0, before].float())
    found = nucleus(p, top_p) > 0
    assert torch.equal(found, sorted_nucleus(p, top_p) > 0)
    assert found.sum() == before + 2


def test_the_nucleus_where_a_sample_holds_nothing():
    """All its tokens have no probability, the others have some: such as are banned."""
    width = 50_000
    p = random_rows("spread", 2, width, 1)
    p[:, :: width // fast.SAMPLE] = 0
    p /= p.sum(-1, keepdim=True)
    for top_p in (0.1, 0.9):
        assert torch.equal(nucleus(p, top_p) > 0, sorted_nucleus(p, top_p) > 0)


def whole_numbers(kind, width):
    """A row of multiples of 2^-24, all sums of which are exact: the work is the same everywhere."""
    g = torch.Generator().manual_seed(1)

    def draw(low, high):
        return torch.randint(low, high, (width,), generator=g)

    some = slice(None, None, max(1, width // 4096))
    if kind == "spread":
        n = draw(1, 750)
    elif kind == "middling":
        n = draw(0, 80) * draw(0, 80) // 40 * (draw(0, 5) == 0)
    elif kind == "peaked":
        n = draw(0, 2) + (draw(0, 400) == 0) * draw(0, 30_000)
    elif kind == "sampled more":
        n = draw(1, 100)
        n[some] += 300
    elif kind == "sampled less":
        n = draw(100, 200)
        n[some] //= 4
    return (n * (16_000_000 // int(n.sum()))).float()[None] * 2.0**-24


WORK = {
    ("spread", 40000, 0.2): ([4445, 90], [90], 1),
    ("spread", 40000, 0.5): ([4445, 858], [858], 1),
    ("spread", 40000, 0.85): ([4445, 371], [371], 1),
    ("middling", 40000, 0.5): ([7020], [7020], 0),
    ("middling", 40000, 0.2): ([6507], [6507], 0),
    ("peaked", 40000, 0.5): ([102], [102], 0),
    ("sampled more", 40000, 0.2): ([4445, 223], [204, 223], 5),
    ("sampled more", 40000, 0.5): ([4445, 35818], [455, 35818], 4),
    ("sampled less", 40000, 0.5): ([4445, 38555], [38555], 1),
    ("peaked", 4095, 0.5): ([], [], 0),  # sorted in place, which is not counted
    ("peaked", 4096, 0.5): ([9], [9], 0),
    ("spread", 8192, 0.5): ([8192], [], 0),
    ("spread", 8193, 0.5): ([4097, 109], [109], 1),
}


def work(monkeypatch, p, top_p):
    """How many values are sorted at a time, how many picked out, how often all masses are read."""
    ordered, picked, looks = [], [], []
    sort, between, above = np.sort, fast.Room.between, fast.Room.mass_above

    def counted_sort(values, *given):
        ordered.append(values.shape[-1])
        return sort(values, *given)

    def counted_between(*given):
        found = between(*given)
        picked.append(len(found))
        return found

    def counted_above(*given):
        looks.append(1)
        return above(*given)

    monkeypatch.setattr(np, "sort", counted_sort)
    monkeypatch.setattr(fast.Room, "between", counted_between)
    monkeypatch.setattr(fast.Room, "mass_above", counted_above)
    nucleus(p, top_p)
    return ordered, picked, len(looks)


@pytest.mark.parametrize(("kind", "width", "top_p"), WORK)
def test_how_much_of_a_row_is_sorted_and_how_often_it_is_read(monkeypatch, kind, width, top_p):
    """Work as it was counted when docs/performance.md was measured: the set would be the same with
    more of it.
    """
    p = whole_numbers(kind, width)
    assert torch.equal(nucleus(p, top_p) > 0, sorted_nucleus(p, top_p) > 0)
    assert work(monkeypatch, p, top_p) == WORK[kind, width, top_p]


@pytest.mark.parametrize(("times", "whole"), [(1.5, False), (0.75, True), (0.1, True)])
def test_a_row_is_sorted_whole_where_sums_would_not_be_exact(monkeypatch, times, whole):
    """Tokens that may be in the nucleus weigh 2^-29 at least, or so many times that."""
    p = whole_numbers("spread", 40_000)
    top_p = float(p.double().sum()) * (1 - 1e-4) - 40_000 * times * 2.0**-29
    ordered, *_ = work(monkeypatch, p, top_p)
    assert (ordered == [40_000]) == whole


def test_sizes_are_those_that_were_measured():
    """Of docs/performance.md. Another size would give the same numbers, at another speed."""
    assert (fast.LARGE, fast.FEW, fast.SAMPLED, fast.SPREAD) == (4096, 8192, 64, 0.2)
    assert (fast.SAMPLE, fast.MARGIN, draw.LARGE, draw.BLOCK) == (4096, 8, 4096, 512)
    assert rows.AT_A_TIME == {"cpu": 2**19, "cuda": 2**26}
    assert gradient.TOKENS == {"cpu": 2**12, "cuda": 2**15}


@tried(60)
@given(
    kind=st.sampled_from(KINDS),
    width=st.sampled_from([2, 3, 64, 385, fast.LARGE - 1]),
    top_p=TOP_P,
    double=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_the_nucleus_of_a_small_vocabulary_is_that_of_a_sort_in_every_bit(
    kind, width, top_p, double, seed
):
    p = random_rows(kind, 5, width, seed)
    p = p[~p.isnan().any(1)]
    p = p.double() if double else p
    assert torch.equal(nucleus(p, top_p), sorted_nucleus(p, top_p))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [300, 1000, fast.LARGE + 5, 2**17])
def test_of_many_equals_the_lower_ids_are_in_and_beside_them_rows_without_any(width, dtype):
    even = torch.full((1, width), 1 / width)
    p = torch.cat([even, random_rows("spread", 2, width, 0)]).to(dtype)
    found = nucleus(p, 0.5) > 0
    assert torch.equal(found, sorted_nucleus(p, 0.5) > 0)
    assert found[0].nonzero().flatten().tolist() == list(range(int(found[0].sum())))
    assert abs(int(found[0].sum()) - width / 2) < 2
    for row, alone in zip(found, p, strict=True):
        assert torch.equal(nucleus(alone[None], 0.5)[0] > 0, row)


def test_tokens_at_the_edges_of_bins_are_in_one_of_them():
    """Probabilities an odd number of floats apart: some are the first or the last of their bin."""
    first = int(torch.tensor(1 / 22_000).view(torch.int32))
    p = (first + 63 * torch.arange(20_000)).int().view(torch.float32)[torch.randperm(20_000)]
    for top_p in torch.linspace(0.01, 0.9, 120).tolist():
        assert torch.equal(nucleus(p[None], top_p) > 0, sorted_nucleus(p[None], top_p) > 0)


def test_the_nucleus_of_what_is_no_distribution_is_that_of_a_sort():
    """Rows that sum to less or more than 1; nan does not end in an error here."""
    p = random_rows("spread", 4, fast.LARGE, 1) * torch.tensor([[0.2], [0.96], [1.5], [1.0]])
    for top_p in (0.3, 0.95):
        assert torch.equal(nucleus(p, top_p) > 0, sorted_nucleus(p, top_p) > 0)
    p[3, 5] = torch.nan
    assert nucleus(p, 0.95)[3].isnan().any()


def test_the_nucleus_can_be_differentiated():
    """As the plain version can: what is cut does not change with a small step."""
    p = random_rows("spread", 2, fast.LARGE, 0).requires_grad_()
    (nucleus(p, 0.5) * torch.arange(fast.LARGE)).sum().backward()
    assert p.grad.abs().sum() > 0


@tried(60)
@given(
    kind=st.sampled_from(KINDS),
    width=st.sampled_from([draw.LARGE, draw.LARGE + 1, draw.LARGE + draw.BLOCK - 1]),
    u=st.lists(st.floats(0, 1, exclude_max=True), min_size=3, max_size=3),
    cut=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_a_draw_in_two_levels_is_that_of_the_sums(kind, width, u, cut, seed):
    p = random_rows(kind, 3, width, seed)
    p = nucleus(p, 0.9) if cut else p
    uniform = torch.tensor(u, dtype=torch.float64)
    found = inverse_cdf(p, uniform)
    assert (p.gather(1, found[:, None]) > 0).all()
    expected = summed_inverse_cdf(p, uniform)
    cumulative = F.pad(p.double().cumsum(1), (1, 0))
    for row in (found != expected).nonzero().flatten().tolist():  # a number between two tokens
        target = uniform[row] * cumulative[row, -1]
        edges = cumulative[row, sorted([found[row], expected[row]])[1]]
        assert float(edges) == pytest.approx(float(target), abs=1e-14)


@pytest.mark.parametrize("width", [9, draw.LARGE + 1, 3 * draw.LARGE])
def test_a_draw_is_by_shares_of_the_sum(width):
    p = random_rows("spread", 40, width, 1)
    uniform = torch.rand(40, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for scale in (2.0**-5, 2.0**3):
        assert torch.equal(inverse_cdf(p, uniform), inverse_cdf(scale * p, uniform))


@pytest.mark.parametrize("seed", [9, 23, 51, 56])
def test_no_rounding_draws_what_has_no_mass(seed):
    """The largest number, and rows whose last tokens have none: two sums of one row can differ."""
    g = torch.Generator().manual_seed(seed)
    p = (3 * torch.randn(64, draw.LARGE + 300, generator=g)).exp()
    p[:, -3:] = 0
    drawn = inverse_cdf(p, torch.full([64], 1 - 2**-53, dtype=torch.float64))
    assert (p.gather(1, drawn[:, None]) > 0).all()


@pytest.mark.parametrize("width", [9, draw.LARGE, draw.LARGE + draw.BLOCK - 1])
def test_a_draw_tells_numbers_near_the_end_of_a_token_apart(width):
    """Sums in float32 would be wrong by some 1e-8."""
    p = random_rows("spread", 1, width, 3)
    ends = p.double().cumsum(1)[0] / p.double().sum()
    tokens = torch.arange(width - 1)[:: max(1, width // 300)]
    for side in (0, 1):
        uniform = ends[tokens] + (2 * side - 1) * 1e-12
        assert torch.equal(inverse_cdf(p.expand(len(tokens), -1), uniform), tokens + side)


def test_draws_of_a_large_vocabulary_are_in_two_levels(monkeypatch):
    asked, original = [], draw.inverse_cdf

    def noted(probabilities, uniform):
        asked.append(probabilities.shape[1])
        return original(probabilities, uniform)

    monkeypatch.setattr(draw, "inverse_cdf", noted)
    for width in (4095, 4096, 4097):
        inverse_cdf(random_rows("spread", 2, width, 0), torch.rand(2).double())
    assert asked == [4096, 4097]


def test_the_ends_of_a_draw():
    p = torch.zeros(2, draw.LARGE + 3)
    p[:, [draw.BLOCK - 1, draw.LARGE + 1]] = 0.5
    ends = torch.tensor([0, 1 - 2**-53], dtype=torch.float64)
    assert inverse_cdf(p, ends).tolist() == [draw.BLOCK - 1, draw.LARGE + 1]
    half = torch.tensor([0.5, 0.5 - 2**-54], dtype=torch.float64)
    assert inverse_cdf(p, half).tolist() == [draw.LARGE + 1, draw.BLOCK - 1]
    last = torch.zeros(2, draw.LARGE + 3)
    last[:, -1] = 1
    assert inverse_cdf(last, ends).tolist() == [draw.LARGE + 2] * 2
    nan = torch.full_like(p, torch.nan)
    assert (inverse_cdf(nan, half) < p.shape[1]).all()


@pytest.mark.parametrize("temperature", [0.1, 0.7, 3.0])
@tried(30)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 4), width=st.sampled_from([3, 50, 9000]))
def test_the_gradient_in_closed_form_is_that_of_autograd(temperature, seed, n, width):
    g = torch.Generator().manual_seed(seed)
    psi = torch.randn(n, width, dtype=torch.float64, generator=g) * 3
    psi[:, 1] = -torch.inf
    embeddings = torch.randn(width, 5, dtype=torch.float64, generator=g)
    slope = torch.randn(n, 5, dtype=torch.float64, generator=g)
    leaf = psi.clone().requires_grad_()
    soft = soft_embedding(token_distribution(leaf, temperature), embeddings)
    (expected,) = torch.autograd.grad(soft, leaf, slope)
    q = token_distribution(psi, temperature)
    found = logit_gradient(q, slope, soft.detach(), embeddings, temperature)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert found.data_ptr() == q.data_ptr()
    assert (found[:, 1] == 0).all()


def test_a_gradient_of_part_of_the_vocabulary_or_at_no_temperature_is_refused(as_users_run_it):
    """4,096 columns are worked on at a time: those that follow would stay probabilities."""
    q, few, all_ = torch.full((1, 5000), 1 / 5000), torch.ones(4096, 2), torch.ones(5000, 2)
    slope = torch.ones(1, 2)
    with pytest.raises(ValueError, match="shorter"):
        logit_gradient(q, slope, slope, few, 0.7)
    for wrong in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"^temperature: got .*, expected a number in"):
            logit_gradient(q, slope, slope, all_, wrong)


@pytest.mark.parametrize(("width", "certain"), [(300, 7), (9000, 7), (9000, 5000), (9000, 8999)])
def test_the_gradient_in_16_bits_is_as_good_as_autograds(width, certain):
    """A token that is nearly certain: its gradient is a small difference of two products."""
    g = torch.Generator().manual_seed(0)
    psi = torch.randn(8, width, generator=g)
    psi[:, certain] += 12
    embeddings = torch.randn(width, 16, generator=g).bfloat16()
    slope = torch.randn(8, 16, generator=g).bfloat16()
    leaf = psi.clone().requires_grad_()
    soft = soft_embedding(token_distribution(leaf, 0.7), embeddings)
    (expected,) = torch.autograd.grad(soft, leaf, slope)
    q = token_distribution(psi, 0.7)
    found = logit_gradient(q, slope, soft.detach(), embeddings, 0.7)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6 if width == 300 else 4e-6)
    assert float(expected[:, certain].abs().max()) > 1e-5  # small, but not noise


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_in_parts_are_the_same_rows(monkeypatch, dtype):
    g = torch.Generator().manual_seed(0)
    logits, uniform = torch.randn(7, 30, generator=g).to(dtype), torch.rand(7, generator=g).double()

    def computed():
        q = token_distribution(logits, 0.7)
        weight = entropy_weight(logits, temperature=0.5)
        return q, entropy(logits, epsilon=1e-10), weight, nucleus(q, 0.9), inverse_cdf(q, uniform)

    whole = computed()
    for size in (1, 29, 30, 60, 61):
        monkeypatch.setitem(rows.AT_A_TIME, "cpu", size)
        for one, other in zip(whole, computed(), strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)


class Tables(TorchDispatchMode):
    """Counts what is made of so many numbers or more."""

    def __init__(self, numbers):
        super().__init__()
        self.numbers, self.made = numbers, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **kwargs or {})
        if isinstance(found, torch.Tensor) and found.numel() >= self.numbers:
            there = {one.data_ptr() for one in args if isinstance(one, torch.Tensor)}
            self.made += found.data_ptr() not in there  # else it is a view
        return found


@pytest.mark.parametrize(
    ("function", "tables"),
    [
        (lambda logits: token_distribution(logits, 0.7), 1),
        (entropy, 0),
        (lambda logits: entropy_weight(logits, temperature=0.5), 0),
        (lambda logits: nucleus(logits.softmax(-1), 0.9), 2),
        (lambda logits: inverse_cdf(logits.softmax(-1), torch.rand(len(logits)).double()), 1),
        (lambda p: ORDERS["entropy"](Candidates(p[:, 0].long(), p, p, p, 0.7)), 0),
    ],
)
def test_no_more_tables_are_made_than_what_is_asked_for(monkeypatch, function, tables):
    logits = torch.randn(6, 30).bfloat16()  # float32 has ways of its own
    monkeypatch.setitem(rows.AT_A_TIME, "cpu", 60)
    with Tables(logits.numel()) as counted:
        function(logits)
    assert counted.made == tables


def test_as_many_rows_at_a_time_as_are_worth_while(monkeypatch):
    monkeypatch.setitem(rows.AT_A_TIME, "cpu", 60)
    sizes = []

    @by_rows
    def sums(table):
        sizes.append(tuple(table.shape))
        return table.sum(-1)

    for rows_, width, expected in [
        (2, 30, [(2, 30)]),
        (3, 30, [(2, 30), (1, 30)]),
        (3, 29, [(2, 29), (1, 29)]),
        (3, 31, [(1, 31)] * 3),
        (2, 61, [(1, 61)] * 2),
        (5, 15, [(4, 15), (1, 15)]),
    ]:
        sizes.clear()
        table = torch.randn(rows_, width)
        assert torch.equal(sums(table), table.sum(-1))
        assert sizes == expected


@pytest.mark.parametrize("size", [30, 10**6])
def test_arguments_may_be_given_by_name(monkeypatch, size):
    """A table by its name is parted too."""
    monkeypatch.setitem(rows.AT_A_TIME, "cpu", size)
    logits, uniform = torch.randn(7, 30), torch.rand(7).double()
    q = token_distribution(logits=logits, temperature=0.7)
    assert torch.equal(q, token_distribution(logits, 0.7))
    assert torch.equal(nucleus(top_p=0.9, probabilities=q), nucleus(q, 0.9))
    assert torch.equal(inverse_cdf(q, uniform=uniform), inverse_cdf(q, uniform))
    assert torch.equal(entropy(epsilon=0.0, logits=logits), entropy(logits))
    with pytest.raises(TypeError, match="top_p"):
        nucleus(q)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_largest_of_each_row_is_the_first_of_equal_ones(dtype):
    table = torch.tensor([[1, 3, 3, -1], [-torch.inf] * 4, [0, -torch.inf, 0, 7]], dtype=dtype)
    assert rows.argmax(table).tolist() == [1, 0, 3]
    assert rows.argmax(table.requires_grad_()).tolist() == [1, 0, 3]
    assert rows.argmax(torch.tensor([[1, torch.nan, 3]], dtype=dtype)).tolist() == [1]
    assert rows.argmax(torch.empty(0, 4, dtype=dtype)).shape == (0,)


def test_rows_are_not_parted_where_a_gradient_is_wanted(monkeypatch):
    monkeypatch.setitem(rows.AT_A_TIME, "cpu", 10)
    sizes = []

    @by_rows
    def double(x):
        sizes.append(len(x))
        return 2 * x

    x = torch.ones(4, 5, requires_grad=True)
    double(x).sum().backward()
    assert sizes == [4]
    assert torch.equal(x.grad, torch.full((4, 5), 2.0))
    with torch.no_grad():
        assert torch.equal(double(x), 2 * x)
    assert sizes == [4, 2, 2]


def test_adam_in_one_pass_is_adam():
    g = torch.Generator().manual_seed(0)
    start = torch.randn(3, 500_000, generator=g)
    gradients = [torch.randn(start.shape, generator=g) for _ in range(3)]
    found = []
    for make in (adam, torch.optim.Adam):
        psi = start.clone()
        optimiser = make([psi], lr=0.5)
        for slope in gradients:
            psi.grad = slope
            optimiser.step()
        found.append(psi)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)
    assert math.isclose(float((found[0] - start).abs().max()), 1.5, rel_tol=0.2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-12, 1e-6, 1.0, 1e6])
def test_adam_of_a_small_table_is_torchs_in_every_bit(dtype, size):
    g = torch.Generator().manual_seed(0)
    starts = [torch.randn(rows, 7, generator=g).to(dtype) for rows in (5, 2)]
    slopes = [[size * torch.randn(x.shape, generator=g).to(dtype) for x in starts] for _ in "12345"]
    found = []
    for make in (adam, torch.optim.Adam):
        tables = [start.clone() for start in starts]
        optimiser = make(tables, lr=0.3)
        for step in slopes:
            for psi, slope in zip(tables, step, strict=True):
                psi.grad = slope.clone()
            optimiser.step()
            found.extend(psi.clone() for psi in tables)
    ours, theirs = found[: len(found) // 2], found[len(found) // 2 :]
    assert all(map(torch.equal, ours, theirs))
    if size > 1e-9:
        assert not any(map(torch.equal, ours[:2], starts))


def test_which_tables_adam_goes_over_once():
    def fused(*sizes, dtype=torch.float32, whole=None):
        return adam([torch.zeros(n, dtype=dtype) for n in sizes], 0.5, whole).defaults["fused"]

    assert not fused(2**20)
    assert fused(2**20 + 1)
    assert not fused(2**20 + 1, 2)
    assert not fused(2**20 + 1, dtype=torch.float64)
    assert not fused(2, dtype=torch.bfloat16)
    assert fused(2, whole=torch.zeros(2**20 + 1))
    assert not fused(2**20 + 1, whole=torch.zeros(2))


@pytest.mark.parametrize(
    ("width", "dtype", "triton", "expected"),
    [
        (fast.LARGE, torch.float32, True, True),
        (fast.LARGE, torch.float32, False, False),
        (fast.LARGE - 1, torch.float32, True, False),
        (fast.LARGE, torch.float64, True, False),
    ],
)
def test_on_a_gpu_the_kernel_is_for_large_tables_where_triton_is(
    width, dtype, triton, expected, monkeypatch
):
    """And then it is what is called. Without a GPU: of what is asked of the table alone."""
    monkeypatch.setattr(fast, "find_spec", lambda name: object() if triton else None)
    table = SimpleNamespace(
        is_cuda=True, is_cpu=False, dtype=dtype, shape=(2, width), requires_grad=False
    )
    assert fast.applies(table) is expected
    kernel = SimpleNamespace(nucleus=lambda *given: given)
    monkeypatch.setitem(sys.modules, "entrgi_ref.fast.nucleus_kernel", kernel)
    monkeypatch.setattr(entrgi_ref.fast, "nucleus_kernel", kernel, raising=False)
    assert fast.nucleus(table, 0.9) == (table, 0.9)


def test_draws_elsewhere_than_on_a_cpu_add_up_in_float64_without_a_copy():
    """Seen on the device that has shapes and no numbers."""
    p, u = torch.full((3, 5000), 1 / 5000, device="meta"), torch.zeros(3, device="meta")
    found = draw.inverse_cdf(p, u)
    assert (found.shape, found.dtype, found.device.type) == ((3,), torch.int64, "meta")
