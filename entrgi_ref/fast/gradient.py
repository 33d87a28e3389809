"""The gradient of the logits in closed form."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .. import checks
from ..equations import equation

TOKENS = {"cpu": 2**12, "cuda": 2**15}
"""So many columns are worked on at a time, so that no second table is made; more on a GPU, which
would wait for the host.
"""


@equation("eq:logit-gradient")
@torch.no_grad()
def logit_gradient(
    probabilities: Float[Tensor, "n V"],
    slope: Float[Tensor, "n d"],
    soft: Float[Tensor, "n d"],
    embeddings: Float[Tensor, "V d"],
    temperature: float,
) -> Float[Tensor, "n V"]:
    r"""Eq. 6, $\nabla_{\psi_i} R = q_i\, \langle g, E^R_i - \bar e \rangle / \tau$.

    The chain rule through Eqs. 1 and 2. `slope` is g, the gradient of R with respect to the soft
    embedding: a logit grows if its token lies further along g than the soft embedding does, and
    the more the likelier the token is. autograd computes the same, but would keep tables of [n, V]
    for it. The gradient takes the place of `probabilities`. Source: ours.
    """
    temperature = checks.temperature(temperature)
    size = TOKENS.get(probabilities.device.type, TOKENS["cpu"])
    parts = list(zip(probabilities.split(size, 1), embeddings.split(size), strict=True))
    if embeddings.dtype == probabilities.dtype:
        slope = slope / temperature
        minus = -(slope * soft).sum(-1, keepdim=True)
        for q, e in parts:
            q.mul_(torch.addmm(minus, slope, e.mT))
        return probabilities
    # Of less precision: the mean of rounded products, as autograd takes it.
    at_soft = sum((q * (slope @ e.mT)).sum(-1, keepdim=True) for q, e in parts)
    for q, e in parts:
        q.mul_(((slope @ e.mT).to(q.dtype) - at_soft) / temperature)
    return probabilities
