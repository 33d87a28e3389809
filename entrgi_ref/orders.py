"""The order in which positions are committed.

At each denoising step every masked position has a candidate, a token drawn for it. The most
confident candidates are kept, the other positions stay masked. An order says what confidence is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from . import checks
from .draws import StepDraws
from .equations import equation
from .fast.rows import by_rows
from .relaxation import entropy, tempered


@dataclass(frozen=True, eq=False)
class Candidates:
    """The tokens drawn for the masked positions, and what they were drawn from."""

    tokens: Int[Tensor, "n"]
    probabilities: Float[Tensor, "n V"]
    """What they were drawn from: the nucleus of the guided softmax(psi / tau)."""
    guided_logits: Float[Tensor, "n V"]
    """psi."""
    logits: Float[Tensor, "n V"]
    """phi, before guidance."""
    temperature: float
    """tau."""

    def __post_init__(self) -> None:
        checks.shape("probabilities", self.probabilities, (None, None), "[n, V]")
        expected = "[n], one token per masked position"
        checks.shape("draw", self.tokens, self.probabilities.shape[:1], expected)
        table = tuple(self.probabilities.shape)
        checks.shape("guided_logits", self.guided_logits, table, "[n, V]")
        checks.shape("logits", self.logits, table, "[n, V]")


OrderFunction = Callable[[Candidates], Float[Tensor, "n"]]
"""Candidates -> confidence of each; the largest are committed first. See `ORDERS`."""


@equation("alg:order")
def by_entropy(candidates: Candidates) -> Float[Tensor, "n"]:
    """`entropy`: the negative entropy of the *unguided* softmax(phi / tau), not cut, in nats.

    First come the positions of which the denoiser itself is most certain: guidance moves the ranks
    of all other orders but `origin`, not of this one. Source: authors' code.
    """
    return -_entropy_at(candidates.logits, candidates.temperature)


@by_rows
def _entropy_at(logits: Float[Tensor, "n V"], temperature: float) -> Float[Tensor, "n"]:
    return entropy(tempered(logits, temperature))


def by_probability(candidates: Candidates) -> Float[Tensor, "n"]:
    """`maskgit_plus`: the candidate's probability in the guided nucleus. Source: authors' code."""
    return _at_candidates(candidates.probabilities, candidates)


def by_margin(candidates: Candidates) -> Float[Tensor, "n"]:
    """`topk_margin`: the lead of the most probable token over the second, in the guided nucleus.

    Source: authors' code.
    """
    checks.choices(candidates.probabilities)
    top = candidates.probabilities.topk(2, dim=-1).values
    return top[:, 0] - top[:, 1]


def by_logit(candidates: Candidates) -> Float[Tensor, "n"]:
    """`anchor`: the candidate's guided logit. Source: authors' code."""
    return _at_candidates(candidates.guided_logits, candidates)


def _at_candidates(values: Float[Tensor, "n V"], candidates: Candidates) -> Float[Tensor, "n"]:
    return values.gather(-1, candidates.tokens[:, None]).squeeze(-1)


ORDERS: dict[str, OrderFunction] = {
    "entropy": by_entropy,
    "maskgit_plus": by_probability,
    "topk_margin": by_margin,
    "anchor": by_logit,
}
"""The orders that rank positions, by name."""

ORIGIN = "origin"
"""The order that asks nobody: each position is committed with the probability of the schedule.

Each has a uniform number, and those whose number is below the schedule's fraction are committed.
`how_many` counts them, and `rank` puts the smallest numbers first."""


def plackett_luce(
    confidence: Float[Tensor, "n"], order_temperature: float, uniform: Float[Tensor, "n"]
) -> Float[Tensor, "n"]:
    """Confidence made random: to take its k largest is to draw k positions without replacement.

    They are drawn with probability softmax(confidence / order_temperature). `order_temperature` is
    in [1e-6, 1e6] or else `ValueError`. This is the Gumbel-top-k trick (Kool et al. 2019): to each
    logit it adds a Gumbel number, made of a `uniform` one in [0, 1). In the dtype of `uniform`,
    which is float64 so that numbers near 1 are told apart. Source: authors' code, which draws by
    torch.multinomial; the trick: ours.
    """
    checks.temperature(order_temperature, "order_temperature")
    return confidence.to(uniform) / order_temperature - torch.log(-torch.log(uniform))


@checks.explained
def rank(
    candidates: Candidates,
    chance: StepDraws,
    order: str | OrderFunction = "entropy",
    order_temperature: float = 0.0,
) -> Float[Tensor, "n"]:
    """The confidence by which masked positions are committed, in an `order` by name or of yours.

    `chance` gives the uniform numbers of a random order: that of an `order_temperature` above 0
    (see `plackett_luce`), or `origin`. `GuidanceError` where an order of yours returns nan.
    """
    checks.choice_or_function("order", order, [*ORDERS, ORIGIN])
    order_temperature = checks.order_temperature(order_temperature)
    if order == ORIGIN:
        if order_temperature:
            raise ValueError(
                f"order_temperature: got {order_temperature!r}, expected 0 under 'origin'"
            )
        return -checks.uniform("origin", chance.origin(), len(candidates.tokens))
    ranking = ORDERS[order] if isinstance(order, str) else checks.only_reads("order", order)
    confidence = ranking(candidates)
    checks.shape("order", confidence, candidates.tokens.shape, "[n], one number per position")
    if callable(order):  # of the others this is known, and the host need not wait for the device
        conditions = checks.Conditions()
        conditions.require("the order's confidence is nan", ~confidence.isnan())
        conditions.settle()
    if order_temperature:
        uniform = checks.uniform("order", chance.order(), len(candidates.tokens))
        confidence = plackett_luce(confidence, order_temperature, uniform)
    return confidence


@equation("alg:commit")
def commit(
    tokens: Int[Tensor, "n"],
    confidence: Float[Tensor, "n"],
    quota: Int[Tensor, "S"],
    masked: Bool[Tensor, "S N"],
    put_last: int | None = None,
) -> Bool[Tensor, "S N"]:
    """Eq. 7, second half: where to write, at the `quota` most confident candidates per trajectory.

    Only masked positions are ever chosen. Those whose candidate is the token `put_last`, the end of
    an answer, come after all others. Among equals the earlier position comes first, and confidence
    that is nan is the least. Source: authors' code; the order of equals is ours.
    """
    checks.shape("quota", quota, masked.shape[:1], "[S], one number per trajectory")
    quota = checks.ids("quota", quota, masked.shape[1] + 1)
    checks.shape(
        "tokens", tokens, (checks.count(masked),), "[n], one candidate per masked position"
    )
    checks.shape("confidence", confidence, tokens.shape, "[n], one number per candidate")
    confidence = confidence.nan_to_num(-torch.inf, torch.inf, -torch.inf)
    falling = (
        confidence.new_zeros(masked.shape)
        .masked_scatter(masked, confidence)
        .argsort(dim=1, descending=True, stable=True)
    )
    group = torch.where(masked, 0, 2)  # 1 is for what comes last among the masked
    if put_last is not None:
        put_last = checks.integer("put_last", put_last, minimum=0)
        group = group.masked_scatter(masked, (tokens == put_last).long())
    # A stable sort by group keeps the order of confidence within each group.
    queue = falling.gather(1, group.gather(1, falling).argsort(dim=1, stable=True))
    place = queue.argsort(dim=1)
    return masked & (place < quota[:, None])
