"""Intervals: what else could have come out, had other prompts been drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95% interval."""

    mean: float
    low: float
    high: float

    def text(self, digits: int, sign: bool = False) -> str:
        """`mean [low, high]`, rounded."""
        form = f"{'+' if sign else ''}.{digits}f"
        if np.isnan(self.low):
            return f"{self.mean:{form}}".replace("-", "−")
        return f"{self.mean:{form}} [{self.low:{form}}, {self.high:{form}}]".replace("-", "−")


def bootstrap(values: NDArray[np.float64], seed: int = 0) -> Estimate:
    """The mean of `values`, one per independent unit, with its percentile bootstrap interval over
    the units.

    The resamples depend on the number of units and the seed alone, so that the differences between
    two methods on the same units are paired.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[chosen].mean(1), [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high))


T_QUANTILE = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    6: 2.447,
    7: 2.365,
    8: 2.306,
    9: 2.262,
}
"""The 97.5% quantile of Student's t by degrees of freedom."""


def student(values: NDArray[np.float64]) -> Estimate:
    """The mean of a few repeats with Student's interval; without one (nan) for a single value."""
    mean, n = float(values.mean()), len(values)
    half = (
        T_QUANTILE.get(n - 1, 2.0) * float(values.std(ddof=1)) / n**0.5 if n > 1 else float("nan")
    )
    return Estimate(mean, mean - half, mean + half)
