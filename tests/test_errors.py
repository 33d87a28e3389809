"""Eq. 8: E and D trade one for one. And the records of an observer."""

import dataclasses
import math

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
from entrgi_ref.errors import stacked


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


def test_distances_in_bfloat16_are_those_of_the_numbers_given():
    """Their difference is not rounded: 8 digits after one, less what is far smaller."""
    one = torch.tensor([[1.0, 1.0]], dtype=torch.bfloat16)
    other = torch.tensor([[2.0**-9, 3 * 2.0**-10]], dtype=torch.bfloat16)
    for distance in (approximation_error, discreteness_error):
        found = distance(one, other)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, (one.float() - other.float()).norm(dim=1))


def test_the_entropy_of_a_record_has_no_epsilon():
    """That of the weight is the method's, this one is what is observed."""
    psi = torch.tensor([[0.0, -torch.inf], [0.0, 0.0]], dtype=torch.float64)
    some = torch.zeros(2, 3, dtype=torch.float64)
    record = GradientRecord.of(4, psi, psi.new_ones(2), some, some, psi.new_zeros(1))
    assert record.gradient_step == 4
    assert record.entropy[0] == 0
    assert record.entropy[1].item() == pytest.approx(math.log(2), rel=1e-14)


def test_what_is_recorded_of_no_gradient_steps_has_the_shape_of_some():
    shapes = [tuple(rows.shape) for rows in stacked([], 3, 5, torch.device("cpu"))]
    assert shapes == [(0, 3)] * 4 + [(0, 5)]


@pytest.mark.parametrize(
    "record", [GradientRecord, DenoisingRecord, Candidates, Prompts, Generation]
)
def test_records_are_frozen(record):
    """An observer or an order that assigns to what it is given must not steer the algorithm."""
    blank = object.__new__(record)
    for field in dataclasses.fields(record):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(blank, field.name, None)
