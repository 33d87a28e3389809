"""A network whose work on a GPU is recorded once and then replayed.

A reward model of some billion numbers keeps a GPU busy for less time than Python needs to hand it
the work, some thousand small pieces for each gradient step. All steps of a batch have the same
pieces: only the numbers in them differ. So they are recorded at the first call, as a CUDA graph,
and then started together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Backbone = Callable[
    [Float[Tensor, "S read d"], Bool[Tensor, "S 1 read all"], Int[Tensor, "S read"]],
    Float[Tensor, "S read d"],
]
"""Embeddings, mask and positions -> hidden states."""


def replayed(backbone: Backbone) -> Backbone:
    """The same function, recorded at the first call, for inputs of the shapes that it had there.

    Backward once for each call, before the next. Whatever else it reads, such as a cache, must stay
    where it is.
    """
    recorded: list[Callable[..., Any]] = []

    def replay(embedded: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        if not recorded:
            samples = embedded.detach().clone().requires_grad_(), mask.clone(), positions.clone()
            with torch.enable_grad():
                recorded.append(torch.cuda.make_graphed_callables(backbone, samples))
        hidden: Tensor = recorded[0](embedded, mask, positions)
        return hidden

    return replay
