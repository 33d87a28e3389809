"""The inner loop of Algorithm 1: climb the reward with the logits of the masked positions.

Both networks are frozen. What is optimised is psi, one row of logits per masked position; it starts
at the denoiser's prediction and is thrown away after the denoising step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from . import checks
from .draws import nucleus
from .equations import equation
from .errors import GradientStep, approximation_error, discreteness_error
from .protocols import StepReward
from .relaxation import (
    WeightFunction,
    entropy,
    hard_embedding,
    interpolate,
    soft_embedding,
    token_distribution,
)


@equation("eq:guidance-step")
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
    observe: Callable[[GradientStep], None] | None = None,
    trajectories: int | None = None,
) -> Float[Tensor, "n V"]:
    r"""Eq. 6, $\psi \leftarrow \psi + \eta \nabla_\psi R(\hat e)$, M times: the guided logits.

    The step is Adam's, with its state new at every call, and not the plain one of the formula:
    three steps with eta = 0.5 move a logit by up to 1.5, almost whatever the size of its gradient.
    R is summed over the trajectories; as none reads another's positions, each climbs its own.

    Args:
        logits: phi, the denoiser's logits. Not changed. psi has their dtype, and an entry of -inf
            stays -inf.
        reward: reads the mixed embeddings and returns one number per trajectory.
        weight: logits -> w in [0, 1] per position. This is the method, see `WEIGHTS`.
        steps: M >= 0. With 0 the logits come back as they are, which makes Best-of-N.
        step_size: eta > 0, in logits.
        temperature: tau of Eq. 1.
        top_p: in (0, 1], the mass of the nucleus from which the hard token is drawn. The soft
            embedding uses the full distribution.
        draw: (probabilities, gradient step) -> the hard token at each masked position.
        observe: called with a `GradientStep` at every step.
        trajectories: S, if it is known: how many rewards to insist on.

    Raises:
        ValueError: for settings, shapes or types that do not fit, before anything is made of them.
        GuidanceError: a `ValueError`, after the last step, if a reward, its gradient or all logits
            of a position were not finite, or a weight was outside [0, 1].

    Source: seed, authors' code.
    """
    _check(logits, reward, weight, steps, step_size, temperature, top_p)
    conditions = checks.Conditions()
    conditions.require("the denoiser's logits are not finite", logits.amax(-1).isfinite())
    psi = logits.detach().clone().requires_grad_()
    adam = torch.optim.Adam([psi], lr=step_size, maximize=True)

    for m in range(steps if len(logits) else 0):
        q = token_distribution(psi, temperature)  # Eq. 1
        soft = soft_embedding(q, reward.embeddings)  # Eq. 2
        tokens = draw(nucleus(q.detach(), top_p), m)
        checks.shape("draw", tokens, logits.shape[:1], "[n], one token per masked position")
        hard = hard_embedding(tokens, reward.embeddings)  # Eq. 3
        w = weight(psi.detach())  # Eq. 4
        mixed = interpolate(soft, hard, w)  # Eq. 5
        rewards = reward(mixed, psi.detach().argmax(-1))
        _require(conditions, m, w, rewards, trajectories)
        if observe:
            observe(_record(m, psi, w, soft, hard, mixed, rewards))
        psi.grad = torch.autograd.grad(rewards.sum(), psi)[0]
        finite = psi.grad.isfinite().all(-1)
        conditions.require(f"the gradient is not finite at gradient step {m}", finite)
        adam.step()  # Eq. 6

    conditions.settle()
    return psi.detach()


def _check(
    logits: Tensor,
    reward: StepReward,
    weight: WeightFunction,
    steps: int,
    step_size: float,
    temperature: float,
    top_p: float,
) -> None:
    checks.shape("logits", logits, (None, None), "[n, V]")
    if not logits.is_floating_point():
        raise ValueError(f"logits: got {logits.dtype}, expected a floating-point dtype")
    checks.shape("reward.embeddings", reward.embeddings, (logits.shape[1], None), "[V, d]")
    if not callable(weight):
        raise ValueError(f"weight: got {weight!r}, expected a function, as in WEIGHTS['entrgi']")
    checks.integer("steps", steps, minimum=0)
    checks.number("step_size", step_size, 0, 1e6)
    checks.temperature(temperature)
    checks.number("top_p", top_p, 0, 1)


def _require(
    conditions: checks.Conditions, m: int, w: Tensor, rewards: Tensor, trajectories: int | None
) -> None:
    checks.shape("reward", rewards, (trajectories,), "[S], one number per trajectory")
    if not rewards.requires_grad:
        raise ValueError("reward: got rewards without a gradient, expected a function of `mixed`")
    at = f"at gradient step {m}"
    conditions.require(f"the weight is outside [0, 1] {at}", (w >= 0) & (w <= 1))
    conditions.require(f"the reward is not finite {at}", rewards.isfinite(), per_position=False)


@torch.no_grad()
def _record(
    m: int, psi: Tensor, w: Tensor, soft: Tensor, hard: Tensor, mixed: Tensor, rewards: Tensor
) -> GradientStep:
    E, D = approximation_error(mixed, soft), discreteness_error(mixed, hard)
    return GradientStep(m, entropy(psi), w.detach(), E, D, rewards.detach())
