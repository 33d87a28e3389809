"""The nucleus of a large vocabulary, without sorting it.

Which tokens are in it is decided by a mass: that of all tokens before, in order of falling
probability. Three facts make a sort of everything unnecessary:

1. Of V tokens, one with a probability below (1 - top_p) / V cannot be in the nucleus: all that
   come after it, and it itself, weigh less than 1 - top_p together.
2. Positive floats are ordered like their bits. So the mass in each of some thousand bins of equal
   leading bits says in which of them the nucleus ends: what is above is in, what is below is out,
   and only the tokens of this bin have to be put in order.
3. Numbers of float32 from 2^-29 to 1 add up exactly in float64, in whatever order. So the set is
   that of the sorted version to the last token.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

LARGE = 2**12
"""A smaller vocabulary is sorted."""
EXACT = 2.0**-29
FEW = 2**10
"""So many tokens are sorted at once."""
SAMPLED, SPREAD = 64, 0.2
"""Of every so many tokens one is asked whether it can be in the nucleus. Where this share of them
can, it is not worth while to pick them out.
"""
CACHED = 2**15
"""So many values are put into their bins at a time."""
SAMPLE = 2**11
"""So many values say where most of them are: there the bins are."""
BINS = 13
"""There are up to 2^13 bins."""


def applies(probabilities: Tensor) -> bool:
    """Whether the fast version is for these probabilities."""
    if torch.is_grad_enabled() and probabilities.requires_grad:
        return False
    if probabilities.dtype != torch.float32 or probabilities.shape[-1] < LARGE:
        return False
    return probabilities.is_cpu or (probabilities.is_cuda and find_spec("triton") is not None)


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """As `entrgi_ref.nucleus`."""
    if probabilities.is_cuda:
        from . import nucleus_kernel  # Triton comes with torch where torch knows GPUs

        return nucleus_kernel.nucleus(probabilities, top_p)
    found = torch.zeros_like(probabilities)
    for row, to in zip(probabilities, found, strict=True):
        _cut(row, top_p, to)
    return found.div_(found.sum(-1, keepdim=True))


def _cut(row: Tensor, top_p: float, found: Tensor) -> None:
    """Put into `found`, which is 0, the probabilities of the tokens of the nucleus."""
    least = (float(row.sum()) * (1 - 1e-4) - top_p) / len(row)  # fact 1, rounding aside
    tokens, values, mass_above = None, row, 0.0
    if least >= EXACT:
        if float((row[::SAMPLED] >= least).float().mean()) < SPREAD:
            tokens = (row >= least).nonzero().squeeze(1)
            values = row[tokens]
        if len(values) > FEW and float(values.amax()) > 1.01 * float(values.amin()):
            inside, mass_above, below_edge = _last_bin(values, least, top_p)
            torch.threshold(row, below_edge, 0, out=found)
            tokens, values = inside if tokens is None else tokens[inside], values[inside]
    if not bool((values == values[0]).all()):
        values, order = values.sort(descending=True, stable=True)
        tokens = order if tokens is None else tokens[order]
    exact = values.double()
    mass_before = exact.cumsum(0).sub_(exact).add_(mass_above)
    kept = int((mass_before.float() <= top_p).sum())
    if tokens is None:
        found[:kept] = values[:kept]
    else:
        found[tokens[:kept]] = values[:kept]


def _last_bin(values: Tensor, least: float, top_p: float) -> tuple[Tensor, float, float]:
    """Which values are in the bin where the nucleus ends; the mass above, and its last number."""
    sample = values[:: max(1, len(values) // SAMPLE)].sort().values
    ends = sample[len(sample) // 100], sample[-1 - len(sample) // 100]
    low, high = _bits(max(least, float(ends[0]))), _bits(max(least, float(ends[1])))
    shift = max(0, (high - low).bit_length() - BINS)
    size = ((high - low) >> shift) + 1
    mass = values.new_zeros(size, dtype=torch.float64)
    for part in values.split(CACHED):
        # The first and the last bin have also what lies beyond them.
        bins = ((part.view(torch.int32) - low) >> shift).clamp_(0, size - 1)
        mass.scatter_add_(0, bins.long(), part.double())
    above = F.pad(mass.flip(0).cumsum(0)[:-1], (1, 0)).flip(0)
    last = int((above.float() > top_p).sum())
    start = 0.0 if last == 0 else _float(low + (last << shift))
    end = torch.inf if last == size - 1 else _float(low + ((last + 1) << shift) - 1)
    inside = ((values >= start) & (values <= end)).nonzero().squeeze(1)
    return inside, float(above[last]), end


def _bits(number: float) -> int:
    return int(torch.tensor(number, dtype=torch.float32).view(torch.int32))


def _float(bits: int) -> float:
    return float(torch.tensor(bits, dtype=torch.int32).view(torch.float32))
