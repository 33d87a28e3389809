"""Equation 8, the two errors of the reward model's input, and the records that observers get.

These errors are distances in units of the embedding, not exceptions. The algorithm traces nothing:
`guide` and `generate` hand the records to a callback, if any; figures and pages are made of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from . import checks
from .equations import equation
from .relaxation import entropy, interpolate


@equation("eq:approximation-error")
def approximation_error(
    mixed: Float[Tensor, "n d"], soft: Float[Tensor, "n d"]
) -> Float[Tensor, "n"]:
    r"""Eq. 8, $\mathcal E = \lVert \hat e - \bar e \rVert = w \lVert \tilde e - \bar e \rVert$.

    The distance from where the gradient is taken, the reward model's input, to where it is applied,
    the soft embedding: 0 for Expectation. Source: the paper's Figures 2 and 3; the formula: ours.
    """
    checks.shape("soft", soft, tuple(mixed.shape), "[n, d], that of mixed")
    return (_precise(mixed) - _precise(soft)).norm(dim=-1)


@equation("eq:discreteness-error")
def discreteness_error(
    mixed: Float[Tensor, "n d"], hard: Float[Tensor, "n d"]
) -> Float[Tensor, "n"]:
    r"""Eq. 8, $\mathcal D = \lVert \hat e - \tilde e \rVert = (1-w)\lVert \tilde e - \bar e\rVert$.

    The distance from the reward model's input to the drawn token's embedding: 0 for APS but for
    rounding. E + D does not depend on w: they trade one for one. Source: seed; the formula: ours.
    """
    checks.shape("hard", hard, tuple(mixed.shape), "[n, d], that of mixed")
    return (_precise(mixed) - _precise(hard)).norm(dim=-1)


def _precise(vectors: Tensor) -> Tensor:
    """In float32 at least: in bfloat16 a difference of two near points is mostly rounding."""
    return vectors.to(torch.promote_types(vectors.dtype, torch.float32))


@dataclass(frozen=True, eq=False)
class GradientRecord:
    """What an observer of `guide` gets of each gradient step, before the logits move."""

    gradient_step: int
    """Index of the step, from 0 to M - 1."""
    entropy: Float[Tensor, "n"]
    """H(softmax(psi)) in nats, at temperature 1."""
    weight: Float[Tensor, "n"]
    """w, of the hard embedding."""
    E: Float[Tensor, "n"]
    """The approximation error."""
    D: Float[Tensor, "n"]
    """The discreteness error."""
    rewards: Float[Tensor, "S"]
    """R of the mixed embeddings."""

    @classmethod
    @torch.no_grad()
    def of(
        cls, m: int, psi: Tensor, weight: Tensor, soft: Tensor, hard: Tensor, rewards: Tensor
    ) -> GradientRecord:
        """The record of step `m`. Eq. 5 is computed anew, for bfloat16 would lose a small w."""
        soft, hard = _precise(soft), _precise(hard)
        mixed = interpolate(soft, hard, weight)
        E, D = approximation_error(mixed, soft), discreteness_error(mixed, hard)
        return cls(m, entropy(psi), weight.detach(), E, D, rewards.detach())


@dataclass(frozen=True, eq=False)
class DenoisingRecord:
    """What an observer of `generate` gets of each denoising step that runs.

    What has n entries has one for each masked position, in (S, N) order. Without guidance M is 0.
    """

    step: int
    """Index of the denoising step, from 0 to T - 1."""
    t: float
    """Noise level before the step, in (0, 1]."""
    masked: Bool[Tensor, "S N"]
    """Where the response was masked before the step."""
    entropy: Float[Tensor, "M n"]
    """This and the next four as in `GradientRecord`, a row for each gradient step."""
    weight: Float[Tensor, "M n"]
    E: Float[Tensor, "M n"]
    D: Float[Tensor, "M n"]
    rewards: Float[Tensor, "M S"]
    logits: Float[Tensor, "n V"]
    """phi, the prediction, with -inf for ids that may not be written, if any."""
    guided_logits: Float[Tensor, "n V"]
    """psi after the last gradient step."""
    candidates: Int[Tensor, "n"]
    """The token drawn for each masked position."""
    confidence: Float[Tensor, "n"]
    """What the positions were ranked by."""
    committed: Bool[Tensor, "S N"]
    """Where the candidate was kept: some of `masked`."""
    tokens: Int[Tensor, "S N"]
    """The response after the step."""


def stacked(
    records: Sequence[GradientRecord], n: int, S: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Entropy, weight, E, D and rewards, a row per gradient step. There may be none."""

    def rows(name: str, width: int) -> Tensor:
        found = [getattr(record, name) for record in records]
        return torch.stack(found) if found else torch.zeros(0, width, device=device)

    return rows("entropy", n), rows("weight", n), rows("E", n), rows("D", n), rows("rewards", S)
