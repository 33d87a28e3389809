"""A denoising step in parts: what `guide`, `draw_candidates` and `rank` give, with less memory.

A table has a row per masked position, and all work on one goes by rows; only the reward model reads
all positions together, and what it reads is narrow, [n, d]. So some rows at a time will do: of the
distribution q, its nucleus, the gradient, and what candidates are drawn from there are never more.
What stays whole are phi, psi and the optimiser's state. The price is that q is made twice in a
gradient step: for what the reward model reads, and for the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from . import checks
from .config import GuidanceConfig, SamplingConfig
from .draws import Draws, StepDraws, nucleus
from .errors import GradientRecord
from .fast.adam import adam
from .fast.gradient import logit_gradient
from .guidance import OPTIMISERS
from .orders import Candidates, rank
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
    """Some of a step's masked positions, and their random choices."""

    rows: slice
    chance: StepDraws


def parts_of(
    size: int, draws: Draws, step: int, row: Int[Tensor, "n"], position: Int[Tensor, "n"]
) -> list[Part]:
    """The masked positions of a step, at most `size` in each part; of none there is one part."""
    slices = [slice(start, start + size) for start in range(0, max(1, len(row)), size)]
    return [Part(rows, draws.at(step, row[rows], position[rows])) for rows in slices]


def guided_in_parts(
    logits: Float[Tensor, "n V"],
    reward: StepReward,
    parts: Sequence[Part],
    guidance: GuidanceConfig,
    config: SamplingConfig,
    observe: Callable[[GradientRecord], None] | None,
    trajectories: int,
) -> tuple[Float[Tensor, "n V"], Candidates, Float[Tensor, "n"]]:
    """What `generate` makes of a prediction: psi, the candidates, and the confidence in them.

    The distribution that candidates were drawn from is forgotten by then, nan: it would be a table.
    Raises what `guide` and `rank` raise, but the first part in which an order of yours returns nan
    is the only one that is named. Source: ours.
    """
    guided_logits = guide_in_parts(
        logits, reward, parts, guidance, config.temperature, config.top_p, observe, trajectories
    )
    found = [_chosen(part, logits, guided_logits, config) for part in parts]
    tokens, confidence = (torch.cat(pieces) for pieces in zip(*found, strict=True))
    forgotten = logits.new_full((), torch.nan).expand_as(logits)  # takes no memory
    drawn = Candidates(tokens, forgotten, guided_logits, logits, config.temperature)
    return guided_logits, drawn, confidence


@torch.inference_mode(False)
@torch.enable_grad()
def guide_in_parts(
    logits: Float[Tensor, "n V"],
    reward: StepReward,
    parts: Sequence[Part],
    guidance: GuidanceConfig,
    temperature: float,
    top_p: float,
    observe: Callable[[GradientRecord], None] | None = None,
    trajectories: int | None = None,
) -> Float[Tensor, "n V"]:
    """Eq. 6 as `guide` has it, in parts. Each has an optimiser of its own, which makes the same
    steps: an optimiser that mixes positions is refused.

    The weight must be a function of each row by itself. Raises what `guide` raises. Source: ours.
    """
    weight, optimiser = guidance.weight_function(temperature), guidance.optimiser
    steps, step_size = guidance.steps, guidance.step_size
    checks.tables(logits, reward.embeddings, steps)
    checks.climb(weight, step_size, temperature, top_p, optimiser, OPTIMISERS)

    conditions = checks.Conditions()
    conditions.require("the denoiser's logits are not finite", logits.amax(-1).isfinite())
    psi = logits.detach().clone()
    make = OPTIMISERS[optimiser] if isinstance(optimiser, str) else optimiser
    if make is adam:
        make = partial(adam, whole=psi)
    pieces = [psi[part.rows] for part in parts]  # views: a step in one is a step in psi
    climbs = [checks.optimiser(make([piece], lr=step_size)) for piece in pieces]
    embeddings = reward.embeddings.detach()

    for m in range(steps if len(logits) else 0):
        found = [
            _read(piece, part.chance, m, weight, temperature, top_p, embeddings)
            for part, piece in zip(parts, pieces, strict=True)
        ]
        soft, hard, w = (torch.cat(some) for some in zip(*found, strict=True))
        mixed = interpolate(soft.requires_grad_(), hard, w)
        rewards = reward(mixed, psi.argmax(-1))
        checks.rewards(rewards, trajectories)
        if observe:
            observe(GradientRecord.of(m, psi, w, soft, hard, rewards))
        slope = torch.autograd.grad(rewards.sum(), soft, allow_unused=True)[0]
        conditions.require_step(m, w, rewards, slope)
        soft = soft.detach()
        for part, piece, climb in zip(parts, pieces, climbs, strict=True):
            rows = part.rows
            q, g, e = token_distribution(piece, temperature), slope[rows], soft[rows]
            piece.grad = logit_gradient(q, g, e, embeddings, temperature).neg_()
            del q  # its memory holds the gradient now
            climb.step()
            piece.grad = None
            if callable(optimiser):  # its weight decay may move what is banned
                piece.masked_fill_(logits[rows] == -torch.inf, -torch.inf)

    conditions.require("the guided logits are not finite", psi.amax(-1).isfinite())
    conditions.settle()
    return psi.detach()


def _read(
    psi: Float[Tensor, "r V"],
    chance: StepDraws,
    m: int,
    weight: WeightFunction,
    temperature: float,
    top_p: float,
    embeddings: Float[Tensor, "V d"],
) -> tuple[Float[Tensor, "r d"], Float[Tensor, "r d"], Float[Tensor, "r"]]:
    """Eqs. 1 to 4 for some rows: soft and hard embeddings, and the weight."""
    q = token_distribution(psi, temperature)
    soft = soft_embedding(q, embeddings)
    tokens = chance.hard(nucleus(q, top_p), m)
    checks.shape("draw", tokens, psi.shape[:1], "[n], one token per masked position")
    del q  # for the weight makes tables too
    w = weight(psi)
    checks.shape("weight", w, psi.shape[:1], "[n], one number per masked position")
    return soft, hard_embedding(tokens, embeddings), w


def _chosen(
    part: Part,
    logits: Float[Tensor, "n V"],
    guided_logits: Float[Tensor, "n V"],
    config: SamplingConfig,
) -> tuple[Int[Tensor, "r"], Float[Tensor, "r"]]:
    """Eq. 7 for some rows: the candidates' tokens, and the confidence in them."""
    psi, tau = guided_logits[part.rows], config.temperature
    probabilities = nucleus(token_distribution(psi, tau), config.top_p)
    tokens = part.chance.candidates(probabilities)
    drawn = Candidates(tokens, probabilities, psi, logits[part.rows], tau)
    with _counted_from_the_first(part.rows, len(logits)):
        confidence = rank(drawn, part.chance, config.order, config.order_temperature)
    return tokens, confidence


@contextmanager
def _counted_from_the_first(rows: slice, n: int) -> Iterator[None]:
    """Mark the positions of a part that an error speaks of among all positions."""
    try:
        yield
    except checks.GuidanceError as error:
        where = error.where.new_zeros(n)
        where[rows] = error.where
        raise checks.GuidanceError(error.reason, where, error.per_position) from error
