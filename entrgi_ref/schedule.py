"""When tokens are committed: noise levels, and how many tokens each denoising step writes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from .draws import StepDraws
from .equations import equation
from .orders import ORIGIN, OrderFunction


@dataclass(frozen=True)
class Step:
    """One step of the schedule, from noise level t to s < t."""

    index: int
    """From 0 to T - 1."""
    t: float
    """In (0, 1]."""
    fraction: float
    """1 - s/t in (0, 1], the share of the masked tokens to commit; 1 at the last step."""
    count: int
    """How many of a response's tokens it commits, if every step before it committed its count."""


@equation("alg:schedule")
def schedule(denoising_steps: int, new_tokens: int) -> list[Step]:
    r"""The T steps of Algorithm 1, between the noise levels linspace(1, 0.001, T + 1).

    Of n masked tokens a step commits $\lfloor n (1 - s/t) \rfloor$, and the last step all that are
    left. With T = N = 128 that is none at the first step, one at each other, two at the last; with
    T = 256 and N = 128, 129 steps commit nothing. Source: authors' code.
    """
    levels = torch.linspace(1, 1e-3, denoising_steps + 1, dtype=torch.float32)
    fractions = 1 - levels[1:] / levels[:-1]
    fractions[-1] = 1
    steps, left = [], torch.tensor(new_tokens)
    for index, fraction in enumerate(fractions.tolist()):
        count = floor_share(left, fraction)
        steps.append(Step(index, levels[index].item(), fraction, int(count)))
        left = left - count
    return steps


def floor_share(n: Int[Tensor, "*shape"], fraction: float) -> Int[Tensor, "*shape"]:
    """floor(n * fraction), in float32 as in the authors' code, to round to the same side."""
    return (n.float() * fraction).floor().long()


def how_many(
    step: Step, masked: Bool[Tensor, "S N"], draw: StepDraws, order: str | OrderFunction
) -> Int[Tensor, "S"]:
    """How many tokens of each trajectory the step commits.

    A fixed share of the masked ones; under `origin` each with the probability of that share.
    """
    if order == ORIGIN:
        return torch.zeros_like(masked).masked_scatter(masked, draw.origin() < step.fraction).sum(1)
    return floor_share(masked.sum(1), step.fraction)


def commits_nothing(step: Step, quota: Int[Tensor, "S"], planned: bool) -> bool:
    """Whether the step leaves every response as it is, and can be skipped without a trace.

    Known in advance where the count is `planned`, neither random nor changed by masks that were
    written and count again. Otherwise the host asks the device, and waits.
    """
    return step.count == 0 if planned else not quota.any()
