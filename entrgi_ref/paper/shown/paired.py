"""Differences between methods, prompt by prompt, with their intervals."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np

from .intervals import Estimate, bootstraps

Place = tuple[str, int, int]
"""Benchmark, seed, index of the prompt."""
Who = tuple[str, frozenset[tuple[str, str | int]]]
"""A method and the fields of its variant."""


@dataclass(frozen=True)
class Difference:
    """A method's mean less the baseline's."""

    estimate: Estimate
    """With a percentile interval over the prompts; without one (nan) if there is one prompt."""
    prompts: int
    """How many different ones."""
    pairs: int
    """How many values of each method: of a prompt one for each seed that has drawn it."""


def paired(
    values: Mapping[Who, Mapping[Place, float]], baseline: str, prompts: Mapping[Place, Hashable]
) -> dict[Who, Difference]:
    """Each method's difference to `baseline` with the same variant, over the places of `values`,
    which are the same for all.

    The unit of the bootstrap is a prompt, with all that seeds have drawn of it.
    """
    who = [each for each in values if each[0] != baseline and (baseline, each[1]) in values]
    if not who:
        return {}
    places = sorted(values[who[0]])
    unit = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts[p] for p in places))}
    rows = [
        [*(values[m, v][place] - values[baseline, v][place] for m, v in who), 1.0]
        for place in places
    ]
    sums = np.zeros((len(unit), len(who) + 1))
    np.add.at(sums, [unit[prompts[place]] for place in places], rows)
    found = bootstraps(sums, lambda means: means[:, :-1] / means[:, -1:])
    if len(unit) == 1:
        found = [Estimate(each.mean, float("nan"), float("nan")) for each in found]
    return {
        each: Difference(estimate, len(unit), len(places))
        for each, estimate in zip(who, found, strict=True)
    }
