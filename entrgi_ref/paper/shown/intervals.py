"""Intervals: what else could have come out, had other prompts been drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A number and its 95% interval."""

    mean: float
    low: float
    high: float

    def text(self, digits: int, sign: bool = False) -> str:
        """`mean [low, high]`, rounded; without brackets if there is no interval."""
        form = f"{'+' if sign else ''}.{digits}f"
        interval = "" if np.isnan(self.low) else f" [{self.low:{form}}, {self.high:{form}}]"
        return f"{self.mean:{form}}{interval}".replace("-", "−")


def bootstrap(
    values: Numbers, statistic: Callable[[Numbers], Numbers] | None = None, seed: int = 0
) -> Estimate:
    """The mean over independent units, or a statistic of means, with its percentile interval.

    `values` has a row or a number for each unit. Which units a resample has depends on their number
    and the seed alone, so differences between two methods on the same units are paired.
    """
    of = statistic or (lambda means: means)
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(of(values[chosen].mean(1)), [0.025, 0.975])
    return Estimate(float(of(values.mean(0, keepdims=True))[0]), float(low), float(high))
