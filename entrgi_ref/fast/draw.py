"""The inverse of a cumulative distribution over a large vocabulary, found in two levels.

First the block of tokens in which the distribution passes the number, by the sums of all blocks;
then the token in this block. Only one block per row is ever added up token by token.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import checks

LARGE = 2**12
"""A smaller vocabulary is added up as it is."""
BLOCK = 2**9


def applies(probabilities: Tensor) -> bool:
    """Whether the fast version is for these probabilities."""
    return probabilities.shape[-1] >= LARGE


def inverse_cdf(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """As `entrgi_ref.inverse_cdf`, but for rounding of float64 where a row is added up."""
    width = probabilities.shape[1]
    whole = width // BLOCK * BLOCK
    blocks = probabilities[:, :whole].unflatten(1, (-1, BLOCK))
    if blocks.is_cpu:  # which is slow at sums of another precision
        blocks = blocks.double()
    blocks = blocks.sum(2, dtype=torch.float64)
    rest = probabilities[:, whole:].sum(1, keepdim=True, dtype=torch.float64)
    mass = torch.cat([blocks, rest], 1)
    target = uniform.to(mass)[:, None] * checks.some_mass(mass.cumsum(1)[:, -1:])
    block, reached = _first(mass, target)
    start = block * BLOCK
    left = target - reached
    place = (start + torch.arange(BLOCK, device=start.device)).clamp_max(width - 1)
    inside = probabilities.gather(1, place)
    beyond = start + torch.arange(BLOCK, device=start.device) >= width
    token, _ = _first(inside.double().masked_fill(beyond, 0), left)
    return (start + token).clamp_max(width - 1).squeeze(1)


def _first(mass: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The first place at which the sum passes `target`, or the last one of any mass; and the sum
    before it.
    """
    sums = mass.cumsum(1)
    place = torch.searchsorted(sums, target, right=True)
    last = torch.searchsorted(sums, sums[:, -1:].contiguous())
    place = place.minimum(last).clamp_max(mass.shape[1] - 1)
    return place, F.pad(sums, (1, 0)).gather(1, place)
