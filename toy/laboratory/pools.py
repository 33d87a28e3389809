"""Best-of-K for every K at once, from one large pool of answers."""

from __future__ import annotations

import math

import numpy as np

from ..statistics import Numbers


def best_of(rewards: Numbers, values: Numbers, K: int) -> float:
    """The mean value of the answer with the largest reward among K, drawn from a pool of n without
    replacement: the mean over all C(n, K) choices, so without bias.

    Among answers of equal reward each is as likely to be the best. `ValueError` unless
    1 <= K <= n.
    """
    n = len(rewards)
    if not 1 <= K <= n:
        raise ValueError(f"K: got {K}, expected 1 to {n}, the answers in the pool")
    order = np.argsort(rewards, kind="stable")
    _, start, count = np.unique(rewards[order], return_index=True, return_counts=True)
    means = np.add.reduceat(values[order], start) / count
    # the best is among the first i answers in C(i, K) of the C(n, K) choices
    within = np.array([_share(int(i), K, n) for i in (0, *(start + count))])
    return float(means @ np.diff(within))


def _share(i: int, K: int, n: int) -> float:
    """C(i, K) / C(n, K)."""
    return math.comb(i, K) / math.comb(n, K)


def curve(rewards: Numbers, values: Numbers) -> Numbers:
    """`best_of` for K from 1 to n."""
    return np.array([best_of(rewards, values, K) for K in range(1, len(rewards) + 1)])


def worth(curve: Numbers, value: float) -> int | None:
    """The smallest K with which Best-of-K reaches a value; None if no K of the pool does."""
    reached = np.flatnonzero(curve >= value)
    return int(reached[0]) + 1 if len(reached) else None
