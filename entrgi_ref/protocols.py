"""What the algorithm asks of the two frozen networks. Whatever has these methods will do: an object
of your own goes to `generate` as it is. One may play all three parts of a reward.

A `Denoiser` predicts the tokens at masked positions. A `Reward` is narrowed down in three steps, so
that what stays fixed is computed once:

    Reward       bind(prompts)            ->  BoundReward   once per call of `generate`
    BoundReward  at(response, masked)     ->  StepReward    once per denoising step
    StepReward   (mixed, likeliest)       ->  rewards       once per gradient step

Dimension letters: see `entrgi_ref.relaxation`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Prompts:
    """Encoded prompts, padded on the left to one length, so that every response starts at the same
    column.
    """

    tokens: Int[Tensor, "P prompt"]
    valid: Bool[Tensor, "P prompt"]
    """False where `tokens` is padding."""
    keys: tuple[int, ...]
    """One stable integer per prompt, which fixes its random numbers: see `prompt_key`."""


def prompt_key(prompt: str) -> int:
    """A 64-bit hash of the prompt's text: the same in every process, and on every machine.

    Source: ours.
    """
    return int.from_bytes(
        hashlib.blake2b(prompt.encode(), digest_size=8).digest(), "little", signed=True
    )


@runtime_checkable
class Denoiser(Protocol):
    """A frozen mask predictor.

    It may also have a `dtype`, that of its logits: then what cannot be guided in it is refused
    before it runs.
    """

    @property
    def mask_id(self) -> int:
        """The token that stands at a masked position."""

    @property
    def eos_id(self) -> int | None:
        """The token that ends an answer, if there is one."""

    @property
    def writable(self) -> Bool[Tensor, "V"]:
        """The ids that may appear in an answer: at least not the mask token."""

    def encode(self, prompts: Sequence[str]) -> Prompts:
        """Tokenise the prompts, through the chat template if there is one."""

    def __call__(
        self, tokens: Int[Tensor, "S L"], valid: Bool[Tensor, "S L"], masked: Bool[Tensor, "S N"]
    ) -> Float[Tensor, "n V"]:
        """The logits of the token at each masked position, given all other tokens.

        `tokens` is prompt and response, `valid` is False at the padding on the left, `masked` marks
        the response's masked positions. Rows come in (S, N) order, and any shift between a position
        and its output is already done. It may be asked about some of the trajectories only, and
        what it returned may be held meanwhile: so each call makes a tensor of its own.
        """

    def decode(self, response: Int[Tensor, "S N"]) -> list[str]:
        """The text of each response."""


@runtime_checkable
class StepReward(Protocol):
    """The reward model with prompts and committed tokens fixed, as `guide` receives it."""

    @property
    def embeddings(self) -> Float[Tensor, "V d"]:
        """The reward model's embedding table, in the order of the diffusion vocabulary."""

    def __call__(
        self, mixed: Float[Tensor, "n d"], likeliest: Int[Tensor, "n"]
    ) -> Float[Tensor, "S"]:
        """The reward of each trajectory, differentiable in what is read at the masked positions.

        `likeliest` are the most likely tokens there, the argmax of psi, for rewards that must know
        where an answer ends. A reward must depend on its own trajectory alone: the gradient is that
        of their sum.
        """


@runtime_checkable
class BoundReward(Protocol):
    """The reward model with its prompts read, one row per trajectory, each prompt's trajectories
    side by side.
    """

    def at(self, response: Int[Tensor, "S N"], masked: Bool[Tensor, "S N"]) -> StepReward:
        """Fix the tokens at the positions that are not masked."""


@runtime_checkable
class Reward(Protocol):
    """A frozen reward model."""

    @property
    def embeddings(self) -> Float[Tensor, "V d"]:
        """The embedding table, in the order of the diffusion vocabulary."""

    def bind(self, prompts: Sequence[str], trajectories: int) -> BoundReward:
        """Read each prompt once, for `trajectories` rows each."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Float[Tensor, "S"]:
        """The reward of finished texts, one prompt per response: what the results report."""
