"""The nucleus of a large vocabulary on a GPU, without sorting it, as two kernels of Triton.

The nucleus ends at a number: the least probability of which all that is above weighs at most
`top_p`. Positive floats are ordered like their bits, so this number is found from its leading bits
on, two at a time: each pass over a row adds up what is above three thresholds. All tokens above it
are in, and of those that are equal to it the first ones. No number leaves the GPU on the way.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

COLUMNS, WARPS = 1024, 4
"""So many tokens of a row are worked on at a time, by so many groups of 32 threads."""
BITS = 30
"""Of a float32 that is at most 1. The others are 0."""


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """As `entrgi_ref.nucleus`, for float32."""
    rows, width = probabilities.shape
    probabilities = probabilities.contiguous()
    edge = torch.empty(rows, dtype=torch.int32, device=probabilities.device)
    mass = torch.empty(rows, dtype=torch.float64, device=probabilities.device)
    found = torch.empty_like(probabilities)
    shape = {"WIDTH": width, "COLUMNS": COLUMNS, "num_warps": WARPS}
    _find_edge[(rows,)](probabilities, edge, mass, top_p, PASSES=BITS // 2, BITS=BITS, **shape)
    _cut[(rows,)](probabilities, edge, mass, found, top_p, **shape)
    return found


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _find_edge(  # type: ignore[no-untyped-def]
    probabilities,
    edges,
    masses,
    top_p,
    PASSES: tl.constexpr,
    BITS: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The bits of the number at which a row's nucleus ends, and the mass of all that is above."""
    row = tl.program_id(0).to(tl.int64)
    probabilities += row * WIDTH
    # The last bits that are known to have more than top_p above them, and the first that have not.
    below, mass = tl.full((), -1, tl.int32), tl.full((), 0.0, tl.float64)
    step = 1 << BITS
    for _ in range(PASSES):
        step = step >> 2
        low, middle, high = below + step, below + 2 * step, below + 3 * step
        above_low = tl.zeros((COLUMNS,), tl.float64)
        above_middle = tl.zeros((COLUMNS,), tl.float64)
        above_high = tl.zeros((COLUMNS,), tl.float64)
        for start in range(0, WIDTH, COLUMNS):
            at = start + tl.arange(0, COLUMNS)
            q = tl.load(probabilities + at, mask=at < WIDTH, other=0.0)
            bits, exact = q.to(tl.int32, bitcast=True), q.to(tl.float64)
            above_low += tl.where(bits > low, exact, 0.0)
            above_middle += tl.where(bits > middle, exact, 0.0)
            above_high += tl.where(bits > high, exact, 0.0)
        # Compared in float32, as in the plain version.
        to_low, to_middle, to_high = tl.sum(above_low), tl.sum(above_middle), tl.sum(above_high)
        if to_low.to(tl.float32) <= top_p:
            mass = to_low
        elif to_middle.to(tl.float32) <= top_p:
            below, mass = low, to_middle
        elif to_high.to(tl.float32) <= top_p:
            below, mass = middle, to_high
        else:
            below = high
    tl.store(edges + row, below + 1)
    tl.store(masses + row, mass)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _cut(  # type: ignore[no-untyped-def]
    probabilities,
    edges,
    masses,
    found,
    top_p,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A row's nucleus, which sums to 1."""
    row = tl.program_id(0).to(tl.int64)
    probabilities += row * WIDTH
    found += row * WIDTH
    edge, mass = tl.load(edges + row), tl.load(masses + row)
    value = edge.to(tl.float32, bitcast=True).to(tl.float64)
    equals = tl.full((), 0, tl.int32)
    total = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, WIDTH, COLUMNS):
        at = start + tl.arange(0, COLUMNS)
        q = tl.load(probabilities + at, mask=at < WIDTH, other=0.0)
        bits = q.to(tl.int32, bitcast=True)
        equal = ((bits == edge) & (at < WIDTH)).to(tl.int32)
        before = equals + tl.cumsum(equal, 0) - equal
        mass_before = (mass + before.to(tl.float64) * value).to(tl.float32)
        kept = tl.where((bits > edge) | ((equal == 1) & (mass_before <= top_p)), q, 0.0)
        equals += tl.sum(equal)
        total += kept
        tl.store(found + at, kept, mask=at < WIDTH)
    sum_ = tl.sum(total)
    for start in range(0, WIDTH, COLUMNS):
        at = start + tl.arange(0, COLUMNS)
        kept = tl.load(found + at, mask=at < WIDTH, other=0.0)
        tl.store(found + at, kept / sum_, mask=at < WIDTH)
