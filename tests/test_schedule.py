"""When tokens are committed (ledger, row 7)."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from entrgi_ref import how_many, schedule
from entrgi_ref.schedule import busy_steps, floor_share


def test_schedule_of_the_published_numbers():
    counts = [step.count for step in schedule(128, 128)]
    assert counts == [0] + [1] * 126 + [2]
    assert sum(step.count == 0 for step in schedule(256, 128)) == 129


def test_as_many_steps_as_tokens_write_one_at_a_time_and_two_at_the_end():
    """So T = N is not quite one token per step (row 28 of the ledger)."""
    assert [step.count for step in schedule(1, 1)] == [1]
    for N in range(2, 257):
        assert [step.count for step in schedule(N, N)] == [0] + [1] * (N - 2) + [2], N


@given(st.integers(1, 300), st.integers(1, 300))
def test_schedule_commits_everything_in_falling_levels(T, N):
    steps = schedule(T, N)
    assert [step.index for step in steps] == list(range(T))
    assert sum(step.count for step in steps) == N
    assert steps[0].t == 1
    assert steps[-1].fraction == 1
    levels = [step.t for step in steps] + [1e-3]
    left = N
    for step, (t, s) in zip(steps, itertools.pairwise(levels), strict=True):
        assert t == pytest.approx(1 - (1 - 1e-3) * step.index / T)
        assert s < t
        if step.index < T - 1:
            assert step.fraction == pytest.approx(1 - s / t, rel=1e-3)
            assert step.count == math.floor(torch.tensor(float(left)) * step.fraction)
        left -= step.count
    assert left == 0


def test_shares_are_rounded_as_in_float32():
    """0.1 is a little more in float32, so a tenth of 10 is 1 exactly; 0.7 a little less."""
    n = torch.tensor([10, 10])
    assert floor_share(n, torch.tensor(0.1).item()).tolist() == [1, 1]
    assert floor_share(torch.tensor(127), 1.0).item() == 127


def test_schedule_is_rounded_as_in_the_authors_code():
    """With T = 999 the quotients are near whole numbers, and float32 decides."""
    T, left = 999, 128
    levels = torch.linspace(1, 1e-3, T + 1)
    for i, step in enumerate(schedule(T, left)):
        share = 1 - levels[i + 1] / levels[i] if i < T - 1 else 1
        assert step.count == int(torch.tensor(float(left)) * share)
        left -= step.count
    assert floor_share(torch.tensor(10), torch.tensor(0.7).item()).item() == 7  # 6.9999999 exactly


def test_more_than_anybody_waits_for_is_refused():
    """It would take minutes, or commit another number than there are: float32 counts to 2^24."""
    for T, N in ((2**16, 4), (10**7, 4), (2**45, 4), (3, 2**16), (3, 2**40 + 1)):
        with pytest.raises(ValueError, match=r"expected an integer below 2\^16"):
            schedule(T, N)


def test_nothing_is_committed_of_nothing():
    assert [step.count for step in schedule(3, 0)] == [0, 0, 0]
    assert busy_steps(3, [0]) == set()
    with pytest.raises(ValueError, match="new_tokens: got -1"):
        schedule(3, -1)
    with pytest.raises(ValueError, match="denoising_steps: got 0"):
        schedule(0, 3)


def test_busy_steps_are_those_of_any_of_the_responses():
    for blanks in ([1], [1, 1], [5, 2], [0, 8]):
        found = {s.index for n in blanks for s in schedule(8, n) if s.count}
        assert busy_steps(8, blanks) == found


def test_how_many_of_each_trajectory(as_users_run_it):
    masked = torch.tensor([[True] * 6, [True, False] * 3, [False] * 6])
    step = schedule(4, 6)[2]
    expected = [math.floor(n * step.fraction) for n in (6, 3, 0)]
    assert how_many(step, masked, SimpleNamespace(), "entropy").tolist() == expected
    assert how_many(schedule(1, 6)[0], masked, SimpleNamespace(), "anchor").tolist() == [6, 3, 0]


def test_chance_says_how_many_under_origin(as_users_run_it):
    """A number below the fraction counts, one that is equal to it does not."""
    masked = torch.tensor([[True, True, False], [False, True, True]])
    step = schedule(2, 3)[0]
    drawn = torch.tensor([0.0, step.fraction, step.fraction / 2, 0.999], dtype=torch.float64)
    found = how_many(step, masked, SimpleNamespace(origin=lambda: drawn), "origin")
    assert found.tolist() == [1, 1]


def test_what_is_no_mask_and_no_order_is_refused(as_users_run_it):
    """Numbers would be added up in place of counted, and an order that is unknown asked nobody."""
    masked, step = torch.tensor([[True, True, False]]), schedule(1, 3)[0]
    with pytest.raises(ValueError, match=r"^masked: got torch.int64, expected torch.bool$"):
        how_many(step, 3 * masked.long(), SimpleNamespace(), "entropy")
    with pytest.raises(ValueError, match=r"^order: got 'orign', .*did you mean 'origin'\?$"):
        how_many(step, masked, SimpleNamespace(), "orign")
    assert how_many(step, masked, SimpleNamespace(), lambda candidates: None).tolist() == [2]
