"""Intervals: what else could have come out, had other prompts been drawn, and rank correlations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from entrgi_ref.paper.shown.intervals import Estimate, Numbers, bootstrap

__all__ = ["MOST", "STUDENT", "Estimate", "Numbers", "bootstrap", "over", "spearman", "student"]

STUDENT = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
    *(2.040, 2.037, 2.035, 2.032, 2.030, 2.028, 2.026, 2.024, 2.023),
)
"""The 97.5% quantile of Student's t for 1, 2, ... degrees of freedom."""
MOST = len(STUDENT) + 1
"""Repeats of which `student` knows the interval."""


def student(values: Numbers) -> Estimate:
    """The mean of 2 to 40 repeats with Student's interval, of a single one without (nan).

    `ValueError` for none or more.
    """
    n = len(values)
    if not 1 <= n <= MOST:
        raise ValueError(f"values: got {n}, expected 1 to {MOST} repeats")
    mean = float(values.mean())
    half = STUDENT[n - 2] * float(values.std(ddof=1)) / n**0.5 if n > 1 else float("nan")
    return Estimate(mean, mean - half, mean + half)


def over(units: int, found: Mapping[str, float]) -> Estimate:
    """An estimate of a record over some units; of a single one without the interval, of which both
    ends stand there as the number itself.
    """
    estimate = Estimate(**found)
    return estimate if units > 1 else Estimate(estimate.mean, float("nan"), float("nan"))


def spearman(x: Numbers, y: Numbers, seed: int = 0) -> tuple[float, float]:
    """The rank correlation, and the share of 10,000 shufflings in which it is as far from 0.

    Nan and 1 if there are fewer than 4 pairs, or if either does not vary.
    """
    if len(x) < 4 or not np.ptp(x) or not np.ptp(y):
        return float("nan"), 1.0
    a, b = (_standardised(_ranks(values)) for values in (x, y))
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(np.tile(b, (10_000, 1)), axis=1) @ a
    rho = float(a @ b)
    return rho, float((1 + (np.abs(shuffled) >= abs(rho) - 1e-12).sum()) / 10_001)


def _ranks(values: Numbers) -> Numbers:
    """Ranks from 0; equal values share their mean rank."""
    below = (values[:, None] > values).sum(1)
    return below + ((values[:, None] == values).sum(1) - 1) / 2


def _standardised(values: Numbers) -> Numbers:
    centred = values - values.mean()
    return centred / np.linalg.norm(centred)
