"""When tokens are committed: noise levels, and how many tokens each denoising step writes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from . import checks
from .draws import StepDraws
from .equations import equation
from .orders import ORDERS, ORIGIN, OrderFunction


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
    """How many tokens the schedule commits of `new_tokens` masks. A loop asks `how_many` instead,
    which knows how many masks there are."""


MANY = 2**16
"""More tokens and steps than anybody waits for: a schedule of as many takes a second."""


@equation("alg:schedule")
def schedule(denoising_steps: int, new_tokens: int) -> list[Step]:
    r"""The T steps of Algorithm 1, between the noise levels linspace(1, 0.001, T + 1).

    Of n masked tokens a step commits $\lfloor n (1 - s/t) \rfloor$, and the last step all that are
    left. With T = N = 128 the first step commits none, the last two, and all between them one; with
    T = 256 and N = 128, 129 steps commit nothing. `new_tokens` is how many are masked at first.
    T in [1, 2^16), N in [0, 2^16), or else `ValueError`. Source: authors' code.
    """
    checks.integer("denoising_steps", denoising_steps, minimum=1, below=MANY)
    checks.integer("new_tokens", new_tokens, minimum=0, below=MANY)
    levels = torch.linspace(1, 1e-3, denoising_steps + 1, dtype=torch.float32)
    fractions = 1 - levels[1:] / levels[:-1]
    fractions[-1] = 1
    steps, left = [], torch.tensor(new_tokens)
    for index, (t, fraction) in enumerate(
        zip(levels[:-1].tolist(), fractions.tolist(), strict=True)
    ):
        count = floor_share(left, fraction)
        steps.append(Step(index, t, fraction, int(count)))
        left = left - count
    return steps


def floor_share(n: Int[Tensor, "*shape"], fraction: float) -> Int[Tensor, "*shape"]:
    """floor(n * fraction), in float32 as in the authors' code, to round to the same side."""
    return (n.float() * fraction).floor().long()


@checks.explained
def how_many(
    step: Step, masked: Bool[Tensor, "S N"], chance: StepDraws, order: str | OrderFunction
) -> Int[Tensor, "S"]:
    """How many tokens of each trajectory the step commits.

    The step's fraction of the masked ones, rounded down, which at the last step is all of them.
    Under `origin` chance decides: each masked token is counted with that fraction as its
    probability. `rank` puts the counted ones first.
    """
    checks.choice_or_function("order", order, [*ORDERS, ORIGIN])
    if masked.dtype != torch.bool:
        raise ValueError(f"masked: got {masked.dtype}, expected torch.bool")
    if order == ORIGIN:
        counted = checks.uniform("origin", chance.origin(), checks.count(masked)) < step.fraction
        return torch.zeros_like(masked).masked_scatter(masked, counted).sum(1)
    return floor_share(masked.sum(1), step.fraction)


def busy_steps(denoising_steps: int, blanks: Iterable[int]) -> set[int]:
    """The steps at which a response with one of these numbers of blanks commits a token."""
    plans = [schedule(denoising_steps, n) for n in sorted(set(blanks))]
    return {step.index for plan in plans for step in plan if step.count}
