"""Random numbers that depend on what they are for and on nothing else, and tokens drawn with them.

Every uniform number is a hash of (seed, prompt key, trajectory, purpose, denoising step, gradient
step, position). There is no generator state: an answer does not depend on the other prompts in its
batch, on the number of processes or on what ran before (up to rounding in the models), an
interrupted run needs nothing saved, and a test can replay recorded draws.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from . import checks
from .equations import equation
from .fast import draw as fast_draw
from .fast import nucleus as fast_nucleus
from .fast.rows import by_rows


@runtime_checkable
class StepDraws(Protocol):
    """The random choices of one denoising step, one per masked position, in (S, N) order."""

    def hard(self, probabilities: Float[Tensor, "n V"], gradient_step: int) -> Int[Tensor, "n"]:
        """The token of the hard embedding, drawn anew at each gradient step.

        `guide` receives this as `draw`.
        """

    def candidates(self, probabilities: Float[Tensor, "n V"]) -> Int[Tensor, "n"]:
        """The token that is written if the position is committed."""

    def order(self) -> Float[Tensor, "n"]:
        """The uniform number in [0, 1) behind a random order of commitment."""

    def origin(self) -> Float[Tensor, "n"]:
        """The uniform number in [0, 1) that decides, under the order `origin`, who is committed."""


@runtime_checkable
class Draws(Protocol):
    """All random choices of one call of `generate`."""

    def at(self, step: int, row: Int[Tensor, "n"], position: Int[Tensor, "n"]) -> StepDraws:
        """The choices of a denoising step at its masked positions, given as row and column."""


class Purpose(IntEnum):
    """What a random number is for: different purposes never share one."""

    HARD = 1
    COMMIT = 2
    ORDER = 3
    ORIGIN = 4
    RESAMPLE = 5


def absorb(
    state: Int[Tensor, "*#shape"], field: Int[Tensor, "*#shape"] | int
) -> Int[Tensor, "..."]:
    """Mix one field into a 64-bit hash state.

    With fields 0, 1, 2, ... the results are the outputs of SplitMix64 (Steele et al. 2014) seeded
    with `state`. The state is mixed after every field, because a sum of the fields would give
    (1, 2) and (2, 1) the same numbers. Source: ours.
    """
    if isinstance(field, Tensor):
        z = state + (field + 1) * _signed(GOLDEN_RATIO)
    else:  # multiplied here, as a copy to the device would make the host wait
        z = state + _signed((int(field) + 1) * GOLDEN_RATIO)
    z = (z ^ _shift_right(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift_right(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shift_right(z, 31)


GOLDEN_RATIO = 0x9E3779B97F4A7C15
"""2^64 / the golden ratio: SplitMix64's step."""


def _signed(number: int) -> int:
    """The int64 with the bits of `number`, because torch cannot multiply unsigned integers."""
    return (number + 2**63) % 2**64 - 2**63


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """The logical shift, which torch lacks: its own copies the sign bit."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def unit_interval(state: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The upper 53 bits of a hash as a float64 in [0, 1)."""
    return _shift_right(state, 11).double() * 2.0**-53


@dataclass(frozen=True, eq=False)
class KeyedDraws:
    """The draws that `generate` makes by default."""

    rows: Int[Tensor, "S"]
    """A hash of (seed, prompt key, trajectory) for each trajectory."""

    @classmethod
    @checks.explained
    def of(
        cls, seed: int, keys: Iterable[int], trajectories: int, device: torch.device | None = None
    ) -> KeyedDraws:
        """The draws for a number of trajectories for each prompt key (see `prompt_key`). Seed and
        keys are in [-2^63, 2^63), or else `ValueError`.
        """
        seed = checks.integer("seed", seed, minimum=-(2**63), below=2**63)
        found = torch.tensor(checks.keys(keys))[:, None]
        trajectories = checks.integer("trajectories", trajectories, minimum=1, below=2**24)
        prompts = absorb(absorb(torch.zeros_like(found), seed), found)
        return cls(absorb(prompts, torch.arange(trajectories)).flatten().to(device))

    @checks.explained
    def at(self, step: int, row: Int[Tensor, "n"], position: Int[Tensor, "n"]) -> KeyedStepDraws:
        step = checks.integer("step", step, minimum=0)
        checks.shape("position", position, tuple(row.shape), "[n], as many as rows")
        position = checks.ids("position", position, 2**62)
        try:
            state = self.rows.index_select(0, row)
        except torch.OutOfMemoryError:  # a RuntimeError, and no fault of the rows
            raise
        except (IndexError, RuntimeError) as error:
            expected = f"int64 in [0, {len(self.rows)})"
            raise ValueError(f"row: got {checks.shown(row)}, expected {expected}") from error
        return KeyedStepDraws(step, state, position)


@dataclass(frozen=True, eq=False)
class KeyedStepDraws:
    """The draws of one denoising step."""

    step: int
    state: Int[Tensor, "n"]
    """The hash of the trajectory that each masked position belongs to."""
    position: Int[Tensor, "n"]
    """Counted from the start of the response."""
    _begun: dict[Purpose, Int[Tensor, "n"]] = field(default_factory=dict, init=False, repr=False)
    """Hashes of all fields before the gradient step."""

    def uniform(self, purpose: Purpose, gradient_step: int = 0) -> Float[Tensor, "n"]:
        """One number in [0, 1) for each masked position."""
        gradient_step = checks.integer("gradient_step", gradient_step, minimum=0)
        if (state := self._begun.get(purpose)) is None:
            state = absorb(absorb(self.state, int(Purpose(purpose))), self.step)
            self._begun[purpose] = state
        return unit_interval(absorb(absorb(state, gradient_step), self.position))

    def hard(self, probabilities: Float[Tensor, "n V"], gradient_step: int) -> Int[Tensor, "n"]:
        return inverse_cdf(probabilities, self.uniform(Purpose.HARD, gradient_step))

    def candidates(self, probabilities: Float[Tensor, "n V"]) -> Int[Tensor, "n"]:
        return inverse_cdf(probabilities, self.uniform(Purpose.COMMIT))

    def order(self) -> Float[Tensor, "n"]:
        return self.uniform(Purpose.ORDER)

    def origin(self) -> Float[Tensor, "n"]:
        return self.uniform(Purpose.ORIGIN)


@equation("alg:nucleus")
def nucleus(probabilities: Float[Tensor, "n V"], top_p: float) -> Float[Tensor, "n V"]:
    """The distribution cut to its nucleus, the fewest most probable tokens that pass mass `top_p`.

    In order of falling probability, a token stays if the mass of all before it is at most `top_p`,
    in (0, 1] or else `ValueError`: so the most probable one always does, and at 1 all do. The
    others get probability 0, and rows sum to 1 again. Among equals the lower id comes first. The
    hard token of Eq. 3 and the committed one of Eq. 7 are drawn from the nucleus; the soft
    embedding of Eq. 2 is not cut. Source: authors' code; what comes first among equals: ours.
    """
    checks.shape("probabilities", probabilities, (None, None), "[n, V]")
    top_p = checks.number("top_p", top_p, 0, 1)
    if top_p == 1:
        return probabilities
    if fast_nucleus.applies(probabilities):
        return fast_nucleus.nucleus(probabilities, top_p)
    return _sorted_nucleus(probabilities, top_p)


@by_rows
def _sorted_nucleus(probabilities: Float[Tensor, "n V"], top_p: float) -> Float[Tensor, "n V"]:
    """The plain version."""
    falling, order = probabilities.sort(dim=-1, descending=True, stable=True)
    mass = falling.cumsum(-1, dtype=torch.float64)  # exact for float32
    mass_before = F.pad(mass[:, :-1], (1, 0)).to(torch.promote_types(falling.dtype, torch.float32))
    kept = falling.masked_fill(mass_before > top_p, 0)
    kept = kept / kept.sum(-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, order, kept)


@equation("alg:draw")
@by_rows
def inverse_cdf(
    probabilities: Float[Tensor, "n V"], uniform: Float[Tensor, "n"]
) -> Int[Tensor, "n"]:
    """One token per row: the first at which the cumulative probability exceeds `uniform` in [0, 1).

    Never a token of probability 0. Rows need not sum to 1 exactly, the number is scaled to their
    sum. `ValueError` on a CPU for a number outside of [0, 1) and for a row of zeros. Source: ours.
    """
    checks.shape("probabilities", probabilities, (None, None), "[n, V]")
    checks.uniform("uniform", uniform, len(probabilities))
    if not probabilities.shape[1]:
        raise ValueError("probabilities: got none, expected those of one token or more")
    if fast_draw.applies(probabilities):
        return fast_draw.inverse_cdf(probabilities, uniform)
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    total = checks.some_mass(cumulative[:, -1:].contiguous())
    token = torch.searchsorted(cumulative, uniform.to(cumulative)[:, None] * total, right=True)
    # The product may round up to the total. The first token to reach the total is the last possible
    # one; for nan there is none, and the id must still be one of the vocabulary.
    last = torch.searchsorted(cumulative, total).clamp_max(probabilities.shape[-1] - 1)
    return token.minimum(last).squeeze(-1)
