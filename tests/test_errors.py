"""Eq. 8: E and D trade one for one. And the records of an observer."""

import dataclasses

import pytest
import torch
from hypothesis import given
from test_relaxation import soft_hard_weight

from entrgi_ref import (
    Candidates,
    DenoisingRecord,
    Generation,
    GradientRecord,
    Prompts,
    approximation_error,
    discreteness_error,
    interpolate,
)


@given(soft_hard_weight())
def test_errors_share_the_distance_from_soft_to_hard(case):
    soft, hard, w = case
    mixed = interpolate(soft, hard, w)
    distance = (hard - soft).pow(2).sum(1).sqrt()
    E, D = approximation_error(mixed, soft), discreteness_error(mixed, hard)
    torch.testing.assert_close(E, w * distance)
    torch.testing.assert_close(D, (1 - w) * distance)
    torch.testing.assert_close(E + D, distance)


@given(soft_hard_weight())
def test_expectation_has_no_E_and_aps_no_D(case):
    soft, hard, w = case
    assert approximation_error(interpolate(soft, hard, 0 * w), soft).max() == 0
    assert discreteness_error(interpolate(soft, hard, 0 * w + 1), hard).max() < 1e-12


@pytest.mark.parametrize(
    "record", [GradientRecord, DenoisingRecord, Candidates, Prompts, Generation]
)
def test_records_are_frozen(record):
    """An observer or an order that assigns to what it is given must not steer the algorithm."""
    blank = object.__new__(record)
    for field in dataclasses.fields(record):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(blank, field.name, None)
