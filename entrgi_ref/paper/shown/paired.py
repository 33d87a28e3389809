"""Differences between methods, prompt by prompt, with their intervals."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np

from .intervals import Estimate, bootstraps

Place = tuple[str, int, int]
"""Benchmark, seed, index of the prompt."""
Compared = tuple[str, str, frozenset[tuple[str, str | int]]]
"""A measure, a method, and the fields of its variant."""
Values = Mapping[Place, float]


@dataclass(frozen=True)
class Difference:
    """A method's mean less the baseline's."""

    estimate: Estimate
    """With a percentile interval over the prompts; without one (nan) if there is one prompt."""
    prompts: int
    """How many different ones. Seeds may share some."""


def paired(
    pairs: Mapping[Compared, tuple[Values, Values]], prompts: Mapping[Place, Hashable]
) -> dict[Compared, Difference]:
    """The differences of pairs of a method's values and the baseline's at the same places.

    The unit of the bootstrap is a prompt, with all that seeds have drawn of it. What is there at
    the same places is resampled together.
    """
    alike: dict[frozenset[Place], list[Compared]] = {}
    for each, (values, _) in pairs.items():
        alike.setdefault(frozenset(values), []).append(each)
    found: dict[Compared, Difference] = {}
    for common, compared in alike.items():
        places = sorted(common)
        unit = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts[p] for p in places))}
        sums = np.zeros((len(unit), len(compared) + 1))
        both = [pairs[each] for each in compared]
        rows = np.array([[*(a[place] - b[place] for a, b in both), 1.0] for place in places])
        np.add.at(sums, [unit[prompts[place]] for place in places], rows)
        estimates = bootstraps(sums, lambda means: means[:, :-1] / means[:, -1:])
        for each, estimate in zip(compared, estimates, strict=True):
            found[each] = Difference(estimate, len(unit))
    return found
