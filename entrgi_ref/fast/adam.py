"""Adam without what takes longer than its numbers."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

LARGE = 2**20
"""A smaller table is in the cache, where one pass gains nothing."""


def adam(parameters: Iterable[Tensor], lr: float, whole: Tensor | None = None) -> torch.optim.Adam:
    """`torch.optim.Adam`, which goes over a large table of float32 once instead of six times.

    The one pass rounds otherwise in the last digit. So of parameters that are parts of a table,
    the `whole` decides.
    """
    parameters = list(parameters)
    tables = parameters if whole is None else [whole]
    large = all(p.dtype == torch.float32 and p.numel() > LARGE for p in tables)
    return (
        torch.optim.Adam(parameters, lr=lr, fused=True) if large else SmallAdam(parameters, lr=lr)
    )


class SmallAdam(torch.optim.Adam):
    """torch's steps in every bit, for parameters that all have a gradient and no weight decay.

    torch makes a table more, and looks at options that nobody has chosen.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move each parameter."""
        (group,) = self.param_groups
        beta, beta_of_squares = group["betas"]
        for psi in group["params"]:
            state, slope = self.state[psi], psi.grad
            if not state:
                state |= {"k": 0, "mean": torch.zeros_like(psi), "square": torch.zeros_like(psi)}
            state["k"] += 1
            mean = state["mean"].lerp_(slope, 1 - beta)
            square = state["square"].mul_(beta_of_squares)
            square.addcmul_(slope, slope, value=1 - beta_of_squares)
            # Both means began at 0, and are too small by these factors.
            size = group["lr"] / (1 - beta ** state["k"])
            root = square.sqrt().div_((1 - beta_of_squares ** state["k"]) ** 0.5)
            psi.addcdiv_(mean, root.add_(group["eps"]), value=-size)
