"""Intervals: what else could have come out, had other prompts been drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
RESAMPLES = 10_000
AT_ONCE = 2**20
"""How many draws of units are held at a time."""


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
    """The mean over independent units, or a statistic of means, with its percentile interval; of a
    single unit without one (nan).

    `values` has a row or a number for each unit. Which units a resample has depends on their number
    and the seed alone, so differences between two methods on the same units are paired.
    """
    (found,) = bootstraps(values if values.ndim > 1 else values[:, None], statistic, seed)
    return found


def bootstraps(
    values: Numbers, statistic: Callable[[Numbers], Numbers] | None = None, seed: int = 0
) -> list[Estimate]:
    """The same of several numbers at once, which are columns of `values` or of the statistic."""
    of = statistic or (lambda means: means)
    whole = of(values.mean(0, keepdims=True)).reshape(-1)
    if len(values) == 1:
        return [Estimate(float(mean), float("nan"), float("nan")) for mean in whole]
    means = of(_resampled(values, seed)).reshape(RESAMPLES, -1)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return [Estimate(*map(float, each)) for each in zip(whole, low, high, strict=True)]


def _resampled(values: Numbers, seed: int) -> Numbers:
    """The columns' means over each resample, [RESAMPLES, columns].

    By how often a resample has each unit, and some resamples at a time: a run may have thousands of
    prompts and dozens of columns.
    """
    n, rng = len(values), np.random.default_rng(seed)
    means = np.empty((RESAMPLES, values.shape[1]))
    rows = max(1, AT_ONCE // n)
    for start in range(0, RESAMPLES, rows):
        block = means[start : start + rows]
        chosen = rng.integers(n, size=(len(block), n))
        chosen += n * np.arange(len(block))[:, None]
        counts = np.bincount(chosen.ravel(), minlength=chosen.size).reshape(chosen.shape)
        block[:] = counts @ values / n
    return means
