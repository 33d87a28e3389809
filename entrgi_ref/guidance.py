"""The inner loop of Algorithm 1: climb the reward with the logits of the masked positions.

Both networks are frozen. What is optimised is psi, one row of logits per masked position; it starts
at the denoiser's prediction and is thrown away after the denoising step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from . import checks
from .draws import nucleus
from .equations import equation
from .errors import GradientRecord
from .fast.adam import adam
from .fast.gradient import logit_gradient
from .fast.rows import argmax
from .protocols import StepReward
from .relaxation import (
    WeightFunction,
    hard_embedding,
    interpolate,
    soft_embedding,
    token_distribution,
)

OptimiserFunction = Callable[..., Any]
"""([psi], lr=step_size) -> an optimiser of torch, such as the class `torch.optim.RMSprop`."""
OPTIMISERS: dict[str, OptimiserFunction] = {"adam": adam, "sgd": torch.optim.SGD}
"""How a gradient becomes a step: `adam` as in the authors' code, `sgd` as Eq. 6 reads."""


@equation("eq:guidance-step")
@torch.inference_mode(False)  # the gradient is needed, whatever the caller has switched off
@torch.enable_grad()
def guide(
    logits: Float[Tensor, "n V"],
    reward: StepReward,
    *,
    weight: WeightFunction,
    steps: int,
    step_size: float,
    temperature: float,
    top_p: float,
    draw: Callable[[Float[Tensor, "n V"], int], Int[Tensor, "n"]],
    optimiser: str | OptimiserFunction = "adam",
    observe: Callable[[GradientRecord], None] | None = None,
    trajectories: int | None = None,
) -> Float[Tensor, "n V"]:
    r"""Eq. 6, $\psi \leftarrow \psi + \eta \nabla_\psi R(\hat e)$, M times: the guided logits.

    The formula is plain ascent; the default is Adam, begun anew at every call. Three of its steps
    with eta = 0.5 move a logit by up to 1.5, almost whatever its gradient's size. R is summed over
    the trajectories; as none reads another's positions, each climbs its own.

    Args:
        logits: phi, the denoiser's logits. Not changed. psi has their dtype, which may not be
            float16 if there are steps; an entry of -inf stays -inf.
        reward: reads mixed embeddings and likeliest tokens; returns one number per trajectory.
        weight: logits, which it only reads -> w in [0, 1] per position. The method: see `WEIGHTS`.
        steps: M >= 0. With 0 the logits come back as they are, which makes Best-of-N.
        step_size: eta > 0; for Adam in logits.
        temperature: tau of Eq. 1.
        top_p: in (0, 1], mass of the nucleus that hard tokens are drawn from. Soft ones use all q.
        draw: (probabilities, gradient step) -> the hard token at each masked position.
        optimiser: a name in `OPTIMISERS`, or a class of `torch.optim` that mixes no positions.
        observe: called with a `GradientRecord` at every step, before psi moves.
        trajectories: S, where rewards of another number should be refused.

    Raises:
        ValueError: for settings, shapes or types that do not fit, before anything is made of them.
        GuidanceError: a `ValueError`, after the last step, if a reward, its gradient (or that
            squared), an embedding or logits were not finite, or a weight was outside [0, 1].

    Source: seed, authors' code.
    """
    checks.tables(logits, reward.embeddings, steps)
    weight = checks.only_reads("weight", weight)
    checks.climb(step_size, temperature, top_p, optimiser, OPTIMISERS)

    conditions = checks.Conditions()
    conditions.require("the denoiser's logits are not finite", logits.amax(-1).isfinite())
    psi = logits.detach().clone()
    make = OPTIMISERS[optimiser] if isinstance(optimiser, str) else optimiser
    climb = checks.optimiser(make, psi, step_size)

    for m in range(steps if len(logits) else 0):
        q = token_distribution(psi, temperature)  # Eq. 1
        soft = soft_embedding(q, reward.embeddings).requires_grad_()  # Eq. 2
        tokens = checks.drawn(checks.asked("draw", draw, nucleus(q, top_p), m), psi)
        hard = hard_embedding(tokens, reward.embeddings)  # Eq. 3
        w = weight(psi)  # Eq. 4
        mixed = interpolate(soft, hard, w)  # Eq. 5
        rewards = checks.rewards(reward(mixed, argmax(psi)), trajectories)
        if observe is not None:
            observe(GradientRecord.of(m, psi, w, soft, hard, rewards))
        (slope,) = torch.autograd.grad(rewards.sum(), soft, allow_unused=True)
        conditions.require_step(m, soft, w, rewards, slope)
        psi.grad = logit_gradient(q, -slope, soft, reward.embeddings, temperature)
        climb.step()  # Eq. 6; torch's optimisers go down
        del q, psi.grad  # one memory, which the next step needs
        if callable(optimiser):  # its weight decay may move what is banned
            psi.masked_fill_(logits == -torch.inf, -torch.inf)

    conditions.require("the guided logits are not finite", psi.amax(-1).isfinite())
    conditions.settle()
    return psi.detach()
