"""Equations 1 to 5: from the logits of a masked position to the vector that the reward model reads.

A reward model reads token embeddings, but a masked position has no token yet, only a distribution
over tokens. These functions turn that distribution into one vector, and decide what the gradient
sees of it. They know nothing of models.

Dimension letters of the package's signatures:

    P  prompts
    S  trajectories in the batch: K for each prompt, side by side
    L  length of prompt and response together
    N  length of the response
    n  masked positions, flat over the batch, in (S, N) order
    V  diffusion vocabulary
    d  width of the reward model's embeddings
    M  gradient steps in each of T denoising steps

Symbols: `logits` is here psi, `temperature` tau, `probabilities` q, `embeddings` E^R; `soft`,
`hard` and `mixed` are e with a bar, a tilde and a hat. In the loops `logits` is phi, from which psi
starts. The sources (seed, page, ...) are explained in `entrgi_ref`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from . import checks
from .equations import equation
from .fast.rows import by_rows

WeightFunction = Callable[[Float[Tensor, "n V"]], Float[Tensor, "n"]]
"""Logits at the masked positions -> weight of the hard embedding at each, in [0, 1]."""


@equation("eq:token-distribution")
@by_rows
def token_distribution(logits: Float[Tensor, "n V"], temperature: float) -> Float[Tensor, "n V"]:
    r"""Eq. 1, the token distribution $q = \mathrm{softmax}(\psi / \tau)$.

    Rows sum to 1. A logit of -inf gives probability 0. `temperature` is tau, in [1e-6, 1e6] or else
    `ValueError`; a small one is greedy, a large one uniform. Source: seed.
    """
    temperature = checks.temperature(temperature)
    return tempered(logits, temperature).softmax(-1)


def tempered(logits: Float[Tensor, "n V"], temperature: float) -> Float[Tensor, "n V"]:
    """(psi - max psi) / tau: the softmax of this is that of psi / tau, and cannot overflow."""
    return (logits - logits.amax(-1, keepdim=True).detach()).div_(temperature)


@equation("eq:soft-embedding")
def soft_embedding(
    probabilities: Float[Tensor, "n V"], embeddings: Float[Tensor, "V d"]
) -> Float[Tensor, "n d"]:
    r"""Eq. 2, the soft embedding $\bar e = \sum_i q_i E^R_i$, or continuous relaxation.

    It lies in the convex hull of the token embeddings and is differentiable in q. But it is no
    token's embedding, so the reward model may never have read anything like it. In the dtype of
    `embeddings`; `ValueError` for one that is not of floating point. Source: seed.
    """
    checks.floating(probabilities=probabilities, embeddings=embeddings)
    return probabilities.to(embeddings.dtype) @ embeddings


@equation("eq:hard-embedding")
def hard_embedding(
    tokens: Int[Tensor, "n"], embeddings: Float[Tensor, "V d"]
) -> Float[Tensor, "n d"]:
    r"""Eq. 3, the hard embedding $\tilde e = E^R[x]$ of sampled tokens $x \sim q$.

    What the reward model was trained to read, but constant in q. Drawn from the `nucleus` of q. On
    a CPU a token outside [0, V) raises `ValueError`. Source: seed.
    """
    return F.embedding(checks.ids("tokens", tokens, len(embeddings)), embeddings)


@equation("eq:entropy")
@by_rows
def entropy(logits: Float[Tensor, "n V"], *, epsilon: float = 0.0) -> Float[Tensor, "n"]:
    r"""Eq. 4, the entropy $H(q) = -\sum_i q_i \log q_i$ of $q = \mathrm{softmax}(\psi)$.

    In nats, in [0, log V]; 0 log 0 = 0, and logits of -inf or of any finite size give finite values
    and gradients. Computed in float32 at least. `epsilon` is added inside the logarithm, as the
    authors' code adds 1e-10, which lets H fall below 0 by as much; 0 or in [1e-30, 1e-3], or
    else `ValueError`. Source: seed; epsilon: authors' code.
    """
    epsilon = checks.epsilon(epsilon)
    log_q = logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    q = log_q.exp()
    # A finite floor in place of log 0 = -inf makes 0 log 0 = 0, in the gradient too.
    log_q = (q + epsilon).log() if epsilon else log_q.clamp_min(torch.finfo(log_q.dtype).min)
    return -(q * log_q).sum(-1)


@equation("eq:entropy-weight")
@by_rows
def entropy_weight(
    logits: Float[Tensor, "n V"], *, temperature: float = 1.0, epsilon: float = 0.0
) -> Float[Tensor, "n"]:
    r"""Eq. 4, EntRGi's weight of the hard embedding, $w = H(q) / \log K$; the paper's K is V here.

    In [0, 1]: 0 where the logits are certain of the token, 1 where all V are equally likely. V is
    the width of `logits`, banned ids (-inf) included, and 2 at least, or else `ValueError`.
    Detached: for the gradient the weight is a constant.

    Here q has the `temperature` 1 by default, as in the authors' code, where that of Eq. 1 has tau.
    At tau < 1 the entropy, and so the weight, is smaller. `temperature` and `epsilon` have
    the ranges of `token_distribution` and `entropy`. Source: seed; temperature: authors' code.
    """
    temperature = checks.temperature(temperature)
    checks.choices(logits)
    psi = logits.detach()
    h = entropy(psi if temperature == 1 else tempered(psi, temperature), epsilon=epsilon)
    return (h / math.log(logits.shape[-1])).clamp(0, 1)  # rounding can pass either end by an ulp


@equation("eq:interpolation")
def interpolate(
    soft: Float[Tensor, "n d"], hard: Float[Tensor, "n d"], weight: Float[Tensor, "n"]
) -> Float[Tensor, "n d"]:
    r"""Eq. 5, what the reward model reads, $\hat e = \bar e + \mathrm{sg}(w (\tilde e - \bar e))$.

    sg stops the gradient. So the value is $(1 - w) \bar e + w \tilde e$, and the gradient that of
    $\bar e$ alone, for any w: the reward's gradient is *taken* near real tokens and *applied* to
    the whole distribution. Without sg it would shrink by 1 - w and vanish at w = 1: another method.
    Another shape, or no floating point, raises `ValueError`. Source: page, authors' code.
    """
    checks.mixable(soft, hard, weight)
    return soft + (weight.to(soft.dtype)[:, None] * (hard - soft)).detach()


def expectation_weight(logits: Float[Tensor, "n V"]) -> Float[Tensor, "n"]:
    """w = 0, Expectation: the reward model reads the continuous relaxation. Source: page."""
    return logits.new_zeros(logits.shape[0])


def aps_weight(logits: Float[Tensor, "n V"]) -> Float[Tensor, "n"]:
    """w = 1, APS (Rout et al. 2025): the straight-through estimator. Source: page."""
    return logits.new_ones(logits.shape[0])


WEIGHTS: dict[str, WeightFunction] = {
    "expectation": expectation_weight,
    "aps": aps_weight,
    "entrgi": entropy_weight,
    "entrgi_tempered": partial(entropy_weight, temperature=0.7),
}
"""The guided methods by name. A method *is* its weight function, so any other makes a new one.
`entrgi_tempered` has the q of Eq. 1: here at the paper's tau, in settings at their temperature."""
