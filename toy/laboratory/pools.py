"""Best-of-K for every K at once, from one large pool of answers."""

from __future__ import annotations

from functools import lru_cache

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
    return float(curve(rewards, values)[K - 1])


def curve(rewards: Numbers, values: Numbers) -> Numbers:
    """`best_of` for K from 1 to n."""
    order = np.argsort(rewards, kind="stable")
    _, start, count = np.unique(rewards[order], return_index=True, return_counts=True)
    means = np.add.reduceat(values[order], start) / count
    # the best is among the worst i answers in C(i, K) of the C(n, K) choices
    within = _shares(len(rewards))[:, [0, *(start + count)]]
    return np.asarray(np.diff(within) @ means)


@lru_cache(maxsize=8)
def _shares(n: int) -> Numbers:
    """C(i, K) / C(n, K) in row K - 1 and column i: the product of (i - j) / (n - j) over j < K."""
    i, j = np.arange(n + 1), np.arange(n)[:, None]
    return np.cumprod(np.maximum(i - j, 0) / (n - j), axis=0)


def worth(curve: Numbers, value: float) -> int | None:
    """The smallest K with which Best-of-K reaches a value; None if no K of the pool does."""
    reached = np.flatnonzero(curve >= value)
    return int(reached[0]) + 1 if len(reached) else None
