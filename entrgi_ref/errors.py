"""Equation 8, how far the interpolation moves the reward model's input, and what an observer sees.

The algorithm itself traces nothing. `guide` and `generate` hand these records to an observer, a
callback, if there is one; figures, traces and displays are made of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from .equations import equation


@equation("eq:approximation-error")
def approximation_error(
    mixed: Float[Tensor, "n d"], soft: Float[Tensor, "n d"]
) -> Float[Tensor, "n"]:
    r"""Eq. 8, $\mathcal E = \lVert \hat e - \bar e \rVert = w \lVert \tilde e - \bar e \rVert$.

    The distance from the point where the gradient is taken, the reward model's input, to the point
    where it is applied, the soft embedding. Not negative, in units of the embedding, 0 for
    Expectation. Source: the paper's Figures 2 and 3 show it; the formula: ours.
    """
    return (mixed - soft).norm(dim=-1)


@equation("eq:discreteness-error")
def discreteness_error(
    mixed: Float[Tensor, "n d"], hard: Float[Tensor, "n d"]
) -> Float[Tensor, "n"]:
    r"""Eq. 8, $\mathcal D = \lVert \hat e - \tilde e \rVert = (1-w)\lVert \tilde e - \bar e\rVert$.

    The distance from the reward model's input to the embedding of the drawn token. Not negative, in
    units of the embedding, 0 for APS. E + D does not depend on w: the two trade one for one.
    Source: named in the seed; the formula: ours.
    """
    return (mixed - hard).norm(dim=-1)


@dataclass(frozen=True, eq=False)
class GradientStep:
    """What `guide` reports of each gradient step: the point at which the gradient is taken."""

    gradient_step: int
    """Index of the step, from 0 to M - 1."""
    entropy: Float[Tensor, "n"]
    """H(softmax(psi)) in nats, at temperature 1, before the update."""
    weight: Float[Tensor, "n"]
    """w, of the hard embedding."""
    E: Float[Tensor, "n"]
    """The approximation error."""
    D: Float[Tensor, "n"]
    """The discreteness error."""
    rewards: Float[Tensor, "S"]
    """R of the mixed embeddings, before the update."""


@dataclass(frozen=True, eq=False)
class DenoisingStep:
    """What `generate` reports of each denoising step that runs. An unguided step has M = 0.

    What has n entries has one for each masked position, in (S, N) order.
    """

    step: int
    """Index of the denoising step, from 0 to T - 1."""
    t: float
    """Noise level before the step, in (0, 1]."""
    masked: Bool[Tensor, "S N"]
    """Where the response was masked before the step."""
    entropy: Float[Tensor, "M n"]
    weight: Float[Tensor, "M n"]
    E: Float[Tensor, "M n"]
    D: Float[Tensor, "M n"]
    rewards: Float[Tensor, "M S"]
    """These five as in `GradientStep`, a row for each gradient step."""
    logits: Float[Tensor, "n V"]
    """phi, the prediction, with -inf for ids that may not be written."""
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
