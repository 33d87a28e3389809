"""What each thing in the room `fast` gives: a run with it switched off, over a run with all."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from ... import guidance
from ...fast import adam, draw, nucleus, rows
from ...relaxation import soft_embedding, token_distribution
from .bench import Bench, seconds_of

NEVER = 2**62
"""No table is as large."""


def by_autograd(
    probabilities: Tensor, slope: Tensor, soft: Tensor, embeddings: Tensor, temperature: float
) -> Tensor:
    """The gradient of the logits as `logit_gradient` has it, from a graph that autograd keeps."""
    with torch.enable_grad():
        psi = (probabilities.log() * temperature).requires_grad_()
        again = soft_embedding(token_distribution(psi, temperature), embeddings)
    return torch.autograd.grad(again, psi, slope)[0]


SWITCHES: dict[str, Callable[[], Any]] = {
    "nucleus": lambda: patch.object(nucleus, "applies", lambda probabilities: False),
    "draw": lambda: patch.object(draw, "applies", lambda probabilities: False),
    "rows": lambda: patch.dict(rows.AT_A_TIME, dict.fromkeys(rows.AT_A_TIME, NEVER)),
    "gradient": lambda: patch.object(guidance, "logit_gradient", by_autograd),
    "adam": lambda: patch.object(adam, "LARGE", NEVER),
}
"""File of the room `fast` -> what puts the plain version in its place."""


@contextmanager
def without(name: str) -> Iterator[None]:
    """Switch one of them off."""
    with SWITCHES[name]():
        yield


def switched(made: Bench, device: torch.device, rounds: int = 3) -> dict[str, float]:
    """Seconds without each over seconds with all, the medians of runs in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ("all", *SWITCHES)}
    for _ in range(rounds):
        seconds["all"].append(seconds_of(made.ours, device))
        for name in SWITCHES:
            with without(name):
                seconds[name].append(seconds_of(made.ours, device))
    median = {name: statistics.median(found) for name, found in seconds.items()}
    return {name: median[name] / median["all"] for name in SWITCHES}
