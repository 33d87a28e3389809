"""`guide` in parts: the same numbers in less memory.

A table has a row per masked position, and all work on one goes by rows; only the reward model reads
all positions together, and what it reads is narrow, [n, d]. So some rows at a time will do: of the
distribution q, its nucleus and the gradient there are never more. What stays whole are phi, psi and
the optimiser's state. The price is that q is made twice in a gradient step: for what the reward
model reads, and for the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from . import checks
from .draws import Draws, nucleus
from .errors import GradientRecord
from .fast.adam import adam
from .fast.gradient import logit_gradient
from .fast.rows import argmax
from .guidance import OPTIMISERS, OptimiserFunction
from .protocols import StepReward
from .relaxation import (
    WeightFunction,
    hard_embedding,
    interpolate,
    soft_embedding,
    token_distribution,
)


@dataclass(frozen=True, eq=False)
class Part:
    """Some of a step's masked positions, and how their hard tokens are drawn."""

    rows: slice
    draw: Callable[[Float[Tensor, "r V"], int], Int[Tensor, "r"]]


def in_parts(
    size: int | None, draws: Draws, step: int, row: Int[Tensor, "n"], position: Int[Tensor, "n"]
) -> Callable[..., Float[Tensor, "n V"]] | None:
    """`guide` for a denoising step, at most `size` of its masked positions at a time. Without a
    size None, for all together.

    `row` and `position` are those of the step's masks, in (S, N) order. `draws` are asked for each
    part by itself, so draws of yours must heed both. Source: ours.
    """
    if size is None:
        return None
    slices = [slice(start, start + size) for start in range(0, len(row), size)]
    parts = [Part(rows, draws.at(step, row[rows], position[rows]).hard) for rows in slices]
    return partial(guide_in_parts, parts=parts)


@torch.inference_mode(False)
@torch.enable_grad()
def guide_in_parts(
    logits: Float[Tensor, "n V"],
    reward: StepReward,
    *,
    parts: Sequence[Part],
    weight: WeightFunction,
    steps: int,
    step_size: float,
    temperature: float,
    top_p: float,
    draw: object = None,
    optimiser: str | OptimiserFunction = "adam",
    observe: Callable[[GradientRecord], None] | None = None,
    trajectories: int | None = None,
) -> Float[Tensor, "n V"]:
    """Eq. 6 as `guide` has it, in parts. Each has an optimiser of its own, which makes the same
    steps: an optimiser that mixes positions is refused.

    Each part brings its own `draw`. The weight must be a function of each row by itself. Raises
    what `guide` raises. Source: ours.
    """
    checks.tables(logits, reward.embeddings, steps)
    weight = checks.only_reads("weight", weight)
    checks.climb(step_size, temperature, top_p, optimiser, OPTIMISERS)

    conditions = checks.Conditions()
    conditions.require("the denoiser's logits are not finite", logits.amax(-1).isfinite())
    psi = logits.detach().clone()
    make: Any = OPTIMISERS[optimiser] if isinstance(optimiser, str) else optimiser
    if make is adam:
        make = partial(adam, whole=psi)
    pieces = [psi[part.rows] for part in parts]  # views: a step in one is a step in psi
    climbs = [checks.optimiser(make, piece, step_size) for piece in pieces]

    for m in range(steps if len(logits) else 0):
        found = [
            _read(part.draw, piece, m, weight, temperature, top_p, reward.embeddings)
            for part, piece in zip(parts, pieces, strict=True)
        ]
        soft, hard, w = (torch.cat(some) for some in zip(*found, strict=True))
        mixed = interpolate(soft.requires_grad_(), hard, w)
        rewards = checks.rewards(reward(mixed, argmax(psi)), trajectories)
        if observe is not None:
            observe(GradientRecord.of(m, psi, w, soft, hard, rewards))
        (slope,) = torch.autograd.grad(rewards.sum(), soft, allow_unused=True)
        conditions.require_step(m, soft, w, rewards, slope)
        for part, piece, climb in zip(parts, pieces, climbs, strict=True):
            q, g, e = token_distribution(piece, temperature), slope[part.rows], soft[part.rows]
            piece.grad = logit_gradient(q, -g, e, reward.embeddings, temperature)
            climb.step()
            del q, piece.grad  # one memory, which the next part needs
            if callable(optimiser):  # its weight decay may move what is banned
                piece.masked_fill_(logits[part.rows] == -torch.inf, -torch.inf)

    conditions.require("the guided logits are not finite", psi.amax(-1).isfinite())
    conditions.settle()
    return psi.detach()


def _read(
    draw: Callable[[Float[Tensor, "r V"], int], Int[Tensor, "r"]],
    psi: Float[Tensor, "r V"],
    m: int,
    weight: WeightFunction,
    temperature: float,
    top_p: float,
    embeddings: Float[Tensor, "V d"],
) -> tuple[Float[Tensor, "r d"], Float[Tensor, "r d"], Float[Tensor, "r"]]:
    """Eqs. 1 to 4 for some rows: soft and hard embeddings, and the weight."""
    q = token_distribution(psi, temperature)
    soft = soft_embedding(q, embeddings)
    tokens = checks.drawn(checks.asked("draw", draw, nucleus(q, top_p), m), psi)
    del q  # for the weight makes tables too
    w = weight(psi)
    checks.shape("weight", w, psi.shape[:1], "[n], one number per masked position")
    return soft, hard_embedding(tokens, embeddings), w
