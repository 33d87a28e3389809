"""The nucleus without sorting the vocabulary.

Of a small one the values alone are sorted, which the processor does many at a time, and not where
they stand. The last value of the nucleus says which tokens are in it.

Of a large one not even all values. Whether a token is in is decided by a mass: that of all tokens
before it, in order of falling probability. Three facts help:

1. Of V tokens, one with a probability below (1 - top_p) / V cannot be in the nucleus: all that
   come after it, and it itself, weigh less than 1 - top_p together.
2. The mass above a value is one pass over the row. It says on which side of this value the nucleus
   ends, and a sample of the row about how far from it. So one pass mostly leaves few values to be
   sorted.
3. Numbers of float32 from 2^-29 to 1 add up exactly in float64, in whatever order. So the set is
   that of the sorted version to the last token.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Values = NDArray[np.float32]
ZERO, INFINITE = np.float32(0), np.float32(np.inf)

LARGE = 2**12
"""Of a smaller vocabulary all values are sorted."""
EXACT = 2.0**-29
FEW = 2**13
"""So many values are sorted at once."""
SAMPLED, SPREAD = 64, 0.2
"""Of every so many tokens one is asked whether it can be in the nucleus. Where this share of them
can, it is not worth while to pick them out.
"""
SAMPLE, MARGIN = 2**12, 8
"""So many values say where the nucleus ends, give or take at least so many of them."""


def applies(probabilities: Tensor) -> bool:
    """Whether the fast version is for these probabilities."""
    if torch.is_grad_enabled() and probabilities.requires_grad:
        return False
    if probabilities.is_cuda:
        return _large(probabilities) and find_spec("triton") is not None
    return probabilities.is_cpu and probabilities.dtype in (torch.float32, torch.float64)


def _large(probabilities: Tensor) -> bool:
    return probabilities.dtype == torch.float32 and probabilities.shape[-1] >= LARGE


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """As `entrgi_ref.nucleus`."""
    if probabilities.is_cuda:
        from . import nucleus_kernel  # Triton comes with torch where torch knows GPUs

        return nucleus_kernel.nucleus(probabilities, top_p)
    if not _large(probabilities):
        return _by_values(probabilities, top_p)
    found = torch.empty_like(probabilities)
    room = Room(probabilities.shape[1])
    for row, to in zip(probabilities.detach(), found, strict=True):
        values = row.numpy()
        last, kept, equal, mass = _last(values, top_p, room)
        torch.threshold(row, float(np.nextafter(last, ZERO)), 0, out=to).div_(mass)
        if kept < equal:  # among equals the lower id comes first
            to[np.flatnonzero(values == last)[kept:]] = 0
    return found


def _by_values(probabilities: Tensor, top_p: float) -> Tensor:
    """Equal to the plain version in every bit.

    What is true is 1 here and what is false 0, in the numbers' own precision: torch compares and
    multiplies numbers many at a time, and truth values one by one.
    """
    falling = probabilities.detach().neg()
    falling.numpy().sort(-1)  # in place: one more table takes half as long as sorting it
    falling.neg_()
    width = falling.shape[1]
    inside = falling.cumsum(-1, dtype=torch.float64)[:, :-1].to(falling.dtype).le_(top_p)
    kept = inside.sum(-1, keepdim=True).long()  # beside the first
    last = falling.gather(-1, kept)
    tied = falling.gather(-1, (kept + 1).clamp_max(width - 1)) == last
    falling[:, 1:].mul_(inside)
    total = falling.sum(-1, keepdim=True)
    found = torch.ge(probabilities, last, out=falling).mul_(probabilities)
    if (tied & (kept + 1 < width)).any():  # among equals the lower id comes first
        equal = probabilities == last
        room = kept + 1 - (probabilities > last).sum(-1, keepdim=True)
        found.masked_fill_(equal & (equal.cumsum(-1, dtype=torch.int32) > room), 0)
    return found.div_(total)


class Room:
    """Memory for what is made of a row: to ask for it anew would take longer than to use it."""

    def __init__(self, width: int):
        self.exact, self.above = torch.empty(width, dtype=torch.float64), torch.empty(width)
        self.inside, self.below = np.empty((2, width), dtype=np.bool_)

    def between(self, values: Values, low: np.float32, high: np.float32) -> Values:
        """Those of the values that are above `low` and at most `high`."""
        inside, below = self.inside[: len(values)], self.below[: len(values)]
        np.greater(values, low, out=inside)
        np.less_equal(values, high, out=below)
        return values[np.flatnonzero(np.logical_and(inside, below, out=inside))]

    def mass_above(self, number: np.float32, values: Values) -> float:
        """The exact mass of all values above a number."""
        above, exact = self.above[: len(values)], self.exact[: len(values)]
        torch.threshold(torch.from_numpy(values), float(number), 0, out=above)
        return float(exact.copy_(above).sum())


def _last(values: Values, top_p: float, room: Room) -> tuple[np.float32, int, int, float]:
    """The last value of a row's nucleus; of those equal to it, how many are in and how many there
    are; and the mass of the nucleus.
    """
    total = float(torch.from_numpy(values).sum())
    least = (total * (1 - 1e-4) - top_p) / len(values)  # fact 1, rounding aside
    mass_above = 0.0
    if least >= EXACT:
        sample = values[::SAMPLED]
        if np.count_nonzero(sample >= least) < SPREAD * len(sample):
            values = room.between(values, np.nextafter(np.float32(least), ZERO), INFINITE)
            total = float(values.sum())
        if len(values) > FEW:
            values, mass_above = _around_the_last(values, top_p / total, top_p, room)
    falling = np.sort(values)[::-1] if values.min() < values.max() else values
    mass = mass_above + np.cumsum(falling, dtype=np.float64)
    kept = 1 + int((mass[:-1].astype(np.float32) <= np.float32(top_p)).sum())
    last = falling[kept - 1]
    rising = falling[::-1]
    above = len(rising) - int(np.searchsorted(rising, last, "right"))
    until = len(rising) - int(np.searchsorted(rising, last, "left"))
    return last, kept - above, until - above, float(mass[kept - 1])


def _around_the_last(
    values: Values, share: float, top_p: float, room: Room
) -> tuple[Values, float]:
    """Some values, among which is the last of the nucleus; and the mass of all above them. Of the
    mass of all values the nucleus has about this `share`.
    """
    sample = np.sort(values[:: max(1, len(values) // SAMPLE)])[::-1]
    sample = sample[sample >= EXACT]
    if not len(sample):
        return values, 0.0
    ends = np.concatenate([[INFINITE], sample, [np.nextafter(np.float32(EXACT), ZERO)]])
    masses, limit = np.cumsum(sample, dtype=np.float64), np.float32(top_p)
    # The last value of the nucleus is above that of `low`, and at most that of `high`.
    high, low, mass_above = 0, len(ends) - 1, 0.0
    guess = min(int(np.searchsorted(masses, share * masses[-1])) + 1, len(sample))
    mass = room.mass_above(ends[guess], values)
    # Where the nucleus ends the sample says badly, but well how far that is from a known mass.
    there = masses[guess - 1] + (top_p - mass) * len(sample) / len(values)
    better = int(np.searchsorted(masses, there)) + 1
    margin = MARGIN + 4 * round(abs(better - guess) ** 0.5)
    if np.float32(mass) <= limit:
        high, mass_above = guess, mass
        end = min(low, max(better, guess) + margin)
        around = room.between(values, ends[end], ends[high])
        if np.float32(mass_above + around.sum(dtype=np.float64)) > limit:
            return around, mass_above
    else:
        low = guess
        end = max(high, min(better, guess) - margin)
        around = room.between(values, ends[low], ends[end])
        mass -= around.sum(dtype=np.float64)
        if np.float32(mass) <= limit:
            return around, mass
    while low - high > 32 * MARGIN:  # the sample has led astray
        middle = (high + low) // 2
        mass = room.mass_above(ends[middle], values)
        if np.float32(mass) <= limit:
            high, mass_above = middle, mass
        else:
            low = middle
    return room.between(values, ends[low], ends[high]), mass_above
