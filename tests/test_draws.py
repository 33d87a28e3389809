"""Keyed random numbers, the nucleus, and drawing by inversion."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from test_relaxation import arrays

import reference
from entrgi_ref import (
    KeyedDraws,
    SamplingConfig,
    inverse_cdf,
    nucleus,
    prompt_key,
    token_distribution,
)
from entrgi_ref.draws import Purpose, _sorted_nucleus, absorb, unit_interval

SEEDS = st.integers(0, 2**63 - 1)
KEYS = st.integers(-(2**63), 2**63 - 1)


def everywhere(S: int, N: int):
    """Row and position of all slots of a response."""
    return torch.ones(S, N, dtype=torch.bool).nonzero(as_tuple=True)


def test_hash_is_splitmix64():
    """The first outputs for the seed 1234567, as published for the generator's other versions."""
    outputs = [absorb(torch.tensor(1234567), i).item() % 2**64 for i in range(3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(KEYS, KEYS)
def test_a_number_and_a_tensor_are_absorbed_alike(state, field):
    state = torch.tensor(state)
    assert torch.equal(absorb(state, field), absorb(state, torch.tensor(field)))
    assert absorb(state, field).item() % 2**64 == reference.mix(state.item() % 2**64, field)


@given(st.one_of(KEYS, st.just(-1)))
@example(-1)
def test_unit_interval_is_half_open(state):
    u = unit_interval(torch.tensor(state))
    assert 0 <= u.item() < 1
    assert u.dtype == torch.float64


@given(SEEDS, st.lists(KEYS, min_size=1, max_size=3), st.integers(0, 500), st.integers(0, 9))
def test_uniform_numbers_are_those_of_the_definition(seed, keys, step, m):
    row, position = everywhere(2 * len(keys), 3)
    draw = KeyedDraws.of(seed, keys, 2).at(step, row, position)
    for purpose in Purpose:
        found = draw.uniform(purpose, m).tolist()
        expected = [
            reference.uniform([seed, keys[s // 2], s % 2, int(purpose), step, m, l])
            for s, l in zip(row.tolist(), position.tolist(), strict=True)
        ]
        assert found == expected


def test_no_two_purposes_places_or_times_share_a_number():
    row, position = everywhere(6, 5)
    purposes = Purpose.__members__.values()  # by name: an enumeration hides what it has twice
    numbers = []
    for seed, step, m, purpose in itertools.product(range(3), range(4), range(3), purposes):
        draw = KeyedDraws.of(seed, [7, 8], 3).at(step, row, position)
        numbers += draw.uniform(purpose, m).tolist()
    assert len(set(numbers)) == len(numbers) == 3 * 4 * 3 * len(purposes) * 30


def test_numbers_look_uniform_along_every_field():
    """Kolmogorov-Smirnov distance and lag correlation, over neighbours in each field of the key."""
    n = 2000
    row = torch.arange(n)
    zero = torch.zeros(n, dtype=torch.int64)
    draws = KeyedDraws.of(0, [1], n)
    along = {
        "trajectory": draws.at(0, row, zero).order(),
        "position": draws.at(0, zero, row).order(),
        "seed": torch.cat(
            [KeyedDraws.of(s, [1], 1).at(0, zero[:1], zero[:1]).order() for s in range(n)]
        ),
        "key": KeyedDraws.of(0, range(n), 1).at(0, row, zero).order(),
        "step": torch.cat([draws.at(s, zero[:1], zero[:1]).order() for s in range(n)]),
        "gradient step": torch.cat(
            [draws.at(0, zero[:1], zero[:1]).uniform(Purpose.HARD, m) for m in range(n)]
        ),
    }
    for field, u in along.items():
        assert len(u) == n
        distance = (u.sort().values - (torch.arange(n) + 0.5) / n).abs().max().item()
        assert distance < 1.95 / math.sqrt(n), field  # p = 0.001
        lag = torch.corrcoef(torch.stack([u[:-1], u[1:]]))[0, 1].item()
        assert abs(lag) < 3.3 / math.sqrt(n), field


def test_prompt_keys_are_stable_and_differ():
    assert prompt_key("sea castle gloomy") == prompt_key("sea castle gloomy")
    assert prompt_key("") == -5426141060434712860  # another value would change every answer
    assert len({prompt_key(f"prompt {i}") for i in range(1000)}) == 1000
    assert prompt_key("Ärger 海 ") == -8438725148448477366
    texts = ("a", "A", " a", "a ", "a\n", "\ufeffa", "ä", "a\u0308")
    assert len(set(map(prompt_key, texts))) == len(texts)


# The nucleus


@given(arrays(-6, 6), st.floats(0.01, 1))
def test_nucleus_is_that_of_the_definition(logits, top_p):
    q = token_distribution(logits, 1)
    cut = nucleus(q, top_p)
    for row, found in zip(q.tolist(), cut.tolist(), strict=True):
        assert found == pytest.approx(reference.nucleus(row, top_p))


@given(arrays(-6, 6), st.floats(0.01, 0.999))
def test_nucleus_is_the_smallest_set_that_passes_the_mass(logits, top_p):
    q = token_distribution(logits, 1)
    kept = nucleus(q, top_p) > 0
    mass = (q * kept).sum(1)
    least = q.masked_fill(~kept, 2).amin(1)
    assert torch.all(mass > top_p - 1e-9)
    assert torch.all(mass - least <= top_p + 1e-9)
    assert torch.all(q.masked_fill(kept, 0).amax(1) <= least)
    torch.testing.assert_close(nucleus(q, top_p).sum(1), torch.ones(len(q), dtype=q.dtype))


def test_nucleus_of_one_is_everything_and_a_tiny_one_is_greedy():
    q = torch.tensor([[0.1, 0.5, 0.4], [0.4, 0.2, 0.4]])
    assert torch.equal(nucleus(q, 1.0), q)
    assert nucleus(q, 1e-9).tolist() == [[0, 1, 0], [1, 0, 0]]  # of equals the first
    assert nucleus(q[:1], 0.5).tolist() == [[0, pytest.approx(5 / 9), pytest.approx(4 / 9)]]


def test_a_nucleus_is_not_cut_to_a_number_of_tokens():
    """Top-p alone, without a top-k (row 29 of the ledger): 60/64 is below 0.95, 61/64 above."""
    cut = nucleus(torch.full((1, 64), 1 / 64), 0.95)
    assert (cut > 0).sum() == 61 > 50
    assert "top_k" not in SamplingConfig.__dataclass_fields__


@given(arrays(-6, 6), st.floats(0.01, 1))
def test_the_sorted_nucleus_is_that_of_the_definition(logits, top_p):
    """The plain version, which half precision and gradients take."""
    q = token_distribution(logits, 1)
    for row, found in zip(q.tolist(), _sorted_nucleus(q, top_p).tolist(), strict=True):
        assert found == pytest.approx(reference.nucleus(row, top_p))
    cut = nucleus(q.bfloat16(), top_p).double()
    torch.testing.assert_close(cut.sum(1), torch.ones(len(q), dtype=cut.dtype), atol=0.02, rtol=0)


@pytest.mark.parametrize("cut", [nucleus, _sorted_nucleus])
def test_masses_are_compared_in_float32_whose_tokens_they_are(cut):
    """0.5 + 0.2 is 0.7 there, and a little more where what is rounded off counts."""
    q = torch.tensor([[0.5, 0.2, 0.1, 0.2]])
    assert q[0, :2].double().sum() > 0.7
    assert (cut(q, 0.7) > 0).tolist() == [[True, True, False, True]]
    assert (cut(q.double() / q.double().sum(), 0.699) > 0).tolist() == [[True, True, False, False]]


def test_of_equals_the_lower_ids_are_in_the_sorted_nucleus():
    """In a row so long that an unstable sort would mix them."""
    q = torch.full((2, 5000), 1 / 5000, dtype=torch.bfloat16)
    for row in (_sorted_nucleus(q, 0.3) > 0).tolist():
        assert row == sorted(row, reverse=True)
        assert 0 < sum(row) < 5000


def test_nucleus_of_half_precision_accumulates_in_more():
    """A running sum in bfloat16 stops growing long before the mass of a flat distribution."""
    q = torch.full((1, 4096), 1 / 4096, dtype=torch.bfloat16)
    assert (nucleus(q, 0.5) > 0).sum().item() == 2049


# Drawing


@given(arrays(0, 1), st.floats(0, 1, exclude_max=True))
@example(torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64), 0.0)
@example(torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64), 1 - 2**-53)
@example(torch.tensor([[0.1] * 10 + [0.0]], dtype=torch.float64), 1 - 2**-53)
def test_inverse_cdf_never_draws_the_impossible(weights, u):
    weights[:, 1] += 0.5
    q = weights / weights.sum(1, keepdim=True)
    token = inverse_cdf(q, torch.full((len(q),), u, dtype=torch.float64))
    assert torch.all(q.gather(1, token[:, None]) > 0)
    for row, x in zip(q.tolist(), token.tolist(), strict=True):
        assert sum(row[:x]) <= u * sum(row) + 1e-12
        assert sum(row[: x + 1]) >= u * sum(row) - 1e-12


def test_inverse_cdf_draws_with_the_given_probabilities():
    q = torch.tensor([0.2, 0.0, 0.5, 0.3])
    u = (torch.arange(1000) + 0.5) / 1000
    drawn = inverse_cdf(q.expand(1000, 4), u)
    assert torch.bincount(drawn, minlength=4).tolist() == [200, 0, 500, 300]


@pytest.mark.parametrize("V", [4, 5000])
def test_inverse_cdf_wants_a_number_for_each_row(as_users_run_it, V):
    with pytest.raises(ValueError, match=r"uniform: got shape \[1\], expected .* \[2\]"):
        inverse_cdf(torch.full((2, V), 1 / V), torch.tensor([0.1]))


def test_inverse_cdf_wants_no_more_numbers_than_rows_of_a_large_table(as_users_run_it):
    """Which is worked on a few rows at a time: all of the numbers would not be looked at."""
    probabilities = torch.full((262, 4000), 1 / 4000)
    with pytest.raises(ValueError, match=r"uniform: got shape \[600\], expected .* \[262\]"):
        inverse_cdf(probabilities, torch.rand(600))


@pytest.mark.parametrize("given", ["abc", None, [0.5, 0.5], torch.ones(3), torch.ones(2, 2, 5)])
@pytest.mark.parametrize("top_p", [0.5, 1])
def test_a_nucleus_is_that_of_rows(as_users_run_it, given, top_p):
    with pytest.raises(ValueError, match=r"^probabilities: got .*\[n, V\]"):
        nucleus(given, top_p)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_numbers_do_not_depend_on_how_a_position_is_stored(as_users_run_it, dtype):
    draws, row, position = KeyedDraws.of(0, [1], 2), torch.tensor([0, 1]), torch.tensor([3, 200])
    position = position.clamp_max(torch.iinfo(dtype).max)
    expected = draws.at(0, row, position).order()
    assert torch.equal(draws.at(0, row, position.to(dtype)).order(), expected)


def test_inverse_cdf_of_no_rows_is_none_and_of_no_tokens_refused(as_users_run_it):
    assert inverse_cdf(torch.zeros(0, 3), torch.zeros(0)).tolist() == []
    with pytest.raises(ValueError, match=r"^probabilities: got none, expected those of one token"):
        inverse_cdf(torch.zeros(2, 0), torch.zeros(2))


@pytest.mark.parametrize("seed", [1.9, "1", True, 2**63, -(2**63) - 1, None])
def test_a_seed_is_an_integer(as_users_run_it, seed):
    with pytest.raises(ValueError, match="seed: got"):
        KeyedDraws.of(seed, [1], 2)


@pytest.mark.parametrize("wrong", [0, -1, True, 1.0])
def test_trajectories_and_steps_are_counted(as_users_run_it, wrong):
    with pytest.raises(ValueError, match=f"^trajectories: got {wrong}, expected an integer"):
        KeyedDraws.of(5, [1], wrong)
    draws, place = KeyedDraws.of(5, [1], 2), torch.tensor([0, 1])
    if wrong:
        with pytest.raises(ValueError, match=f"^step: got {wrong}, expected an integer"):
            draws.at(wrong, place, place)
        with pytest.raises(ValueError, match=f"^gradient_step: got {wrong}, expected an integer"):
            draws.at(0, place, place).hard(torch.full((2, 3), 1 / 3), wrong)


@pytest.mark.parametrize("rows", [[1], [0, 1, 1], [[0, 1]]])
def test_each_masked_position_has_a_row(as_users_run_it, rows):
    """One row for all would be taken for the row of each."""
    with pytest.raises(ValueError, match=r"^position: got shape \[2\], expected .*as many as rows"):
        KeyedDraws.of(5, [1], 2).at(0, torch.tensor(rows), torch.tensor([0, 1]))


def test_inverse_cdf_stays_in_the_vocabulary_for_nan():
    token = inverse_cdf(torch.full((2, 3), math.nan), torch.tensor([0.0, 0.9]))
    assert torch.all((token >= 0) & (token < 3))


def test_nucleus_of_one_cuts_nothing_although_sums_are_rounded():
    q = torch.tensor([[0.5, 0.5, 1e-7, 1e-8]])  # 1 + 1e-7 before the last one
    assert torch.equal(nucleus(q, 1.0), q)


def test_inverse_cdf_scales_the_number_to_the_sum():
    u = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    q = torch.tensor([0.25, 0.0, 0.5, 0.25])
    for scale in (0.5, 1.0, 4.0):
        drawn = inverse_cdf((scale * q).expand(1000, 4), u)
        assert torch.bincount(drawn, minlength=4).tolist() == [250, 0, 500, 250]


def test_inverse_cdf_reaches_tokens_below_the_resolution_of_float32():
    q = torch.tensor([[0.5, 1e-9, 0.5]])
    numbers = torch.tensor([0.5 - 1e-9, 0.5, 0.5 + 1e-9], dtype=torch.float64)
    assert inverse_cdf(q.expand(3, 3), numbers).tolist() == [0, 1, 2]


def test_inverse_cdf_draws_nothing_impossible_where_the_product_rounds_up():
    """Only the smallest numbers do that: 0.75 times the smallest is the smallest."""
    q = torch.tensor([[5e-324, 0.0, 0.0]], dtype=torch.float64)
    assert inverse_cdf(q, torch.tensor([0.75], dtype=torch.float64)).tolist() == [0]


@pytest.mark.parametrize("top_p", [-1, 0, 1.0001, math.nan, "0.9", None])
def test_a_mass_that_is_none_is_refused(as_users_run_it, top_p):
    with pytest.raises(ValueError, match=r"top_p: got .*expected a number in \(0, 1\]"):
        nucleus(torch.tensor([[0.5, 0.5]]), top_p)


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint64, np.int8])
def test_seeds_steps_and_keys_may_be_numpys(as_users_run_it, kind, recwarn):
    expected = KeyedDraws.of(5, [1, 2], 2)
    found = KeyedDraws.of(kind(5), np.array([1, 2], dtype=kind), kind(2))
    assert torch.equal(found.rows, expected.rows)
    rows, positions = torch.tensor([0, 3]), torch.tensor([1, 0])
    assert torch.equal(
        found.at(kind(3), rows, positions).order(), expected.at(3, rows, positions).order()
    )
    assert not recwarn


def test_a_seed_may_have_each_of_64_bits():
    ends = (-(2**63), -1, 0, 2**63 - 1)
    assert len({KeyedDraws.of(seed, [7], 1).rows.item() for seed in ends}) == 4


def test_a_key_beyond_64_bits_is_refused():
    with pytest.raises(ValueError, match=r"keys: got 9223372036854775808"):
        KeyedDraws.of(5, [2**63], 2)


def test_what_random_numbers_are_for_has_a_number_that_stays():
    """Records name seeds and keys: with others here they could not be computed again."""
    assert {one.name: one.value for one in Purpose} == {
        "HARD": 1,
        "COMMIT": 2,
        "ORDER": 3,
        "ORIGIN": 4,
        "RESAMPLE": 5,
    }
