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
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from . import checks


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


@checks.explained
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
    before it runs. And a `pad_id`: then padding at the end of a template is no part of the answer.
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

        `tokens` is prompt and response, `valid` is False at the padding before a prompt and behind
        a shorter template, `masked` marks the response's masked positions. Rows come in (S, N)
        order, and any shift between a position and its output is already done. A call may be about
        some of the trajectories only, and earlier results may still be in use: so each call
        returns a tensor of its own.
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

    It may also have a method `infilling(given, present)`, both [S, N], that returns the same for
    answers with blanks: `given` are the tokens of the template, `present` is False at the padding
    behind a shorter one. Without it, templates of different lengths are refused.
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


@dataclass(frozen=True, eq=False)
class Template:
    """What each response begins with: blanks alone, or text with blanks in it (infilling)."""

    tokens: Int[Tensor, "P N"]
    """The mask token at a blank."""
    present: Bool[Tensor, "P N"]
    """False at the padding behind a response that is shorter than others: nothing attends to it."""
    given: Bool[Tensor, "P N"]
    """Text that stands from the start, and stays."""

    @classmethod
    def of(
        cls,
        start: Int[Tensor, "P N"] | Sequence[Int[Tensor, "_"]] | None,
        shape: tuple[int, int],
        denoiser: Denoiser,
    ) -> Template:
        """That of `start`, as `generate` takes it, or without it [P, N] blanks.

        Raises `ValueError` if it does not fit.
        """
        mask_id, padding = denoiser.mask_id, getattr(denoiser, "pad_id", None)
        padding = None if padding == mask_id else padding
        lengths = torch.full(shape[:1], shape[1])
        if start is None:
            start = torch.full(shape, mask_id)
        elif isinstance(start, Sequence) and start and all(isinstance(r, Tensor) for r in start):
            for row in start:
                checks.shape("start", row, (None,), "[n]")
            lengths = torch.tensor([len(row) for row in start])
            filler = next(i for i in (padding, denoiser.eos_id, 0, 1) if i not in (None, mask_id))
            start = pad_sequence(list(start), True, filler)
        tokens = checks.start(start, shape, len(denoiser.writable), mask_id)
        tokens = tokens.to(denoiser.writable.device)
        present = (torch.arange(shape[1]) < lengths[:, None]).to(tokens.device)
        if padding is not None:  # in the run of it at the end
            present &= ~(tokens == padding).flip(1).cumprod(1).flip(1).bool()
        return cls(tokens, present, present & (tokens != mask_id))

    def bind(self, reward: Reward, prompts: Sequence[str], trajectories: int) -> BoundReward:
        """The reward with its prompts read, told which tokens are given and which are padding.

        Raises `ValueError` for padding that it does not know how to leave out.
        """
        given, present = (
            side.repeat_interleave(trajectories, 0) for side in (self.given, self.present)
        )
        bound = reward.bind(prompts, trajectories)
        if not hasattr(bound, "infilling"):
            checks.has("reward.bind", bound, "a BoundReward", "at")
        return infilled(reward, bound, given, present)

    def decode(self, denoiser: Denoiser, responses: Int[Tensor, "S N"]) -> list[str]:
        """The text of each response, K of them for each template, without the padding."""
        if self.present.all():
            texts = checks.asked("denoiser.decode", denoiser.decode, responses)
            return checks.texts(texts, len(responses))
        lengths = self.present.sum(1).repeat_interleave(len(responses) // len(self.tokens))
        return [
            text
            for row, length in zip(responses, lengths.tolist(), strict=True)
            for text in checks.texts(denoiser.decode(row[None, :length]), 1)
        ]


def infilled(
    reward: Reward, bound: Any, given: Bool[Tensor, "S N"], present: Bool[Tensor, "S N"]
) -> BoundReward:
    """A `bound` reward, told which tokens are given and which are padding.

    Raises `ValueError` for padding that it does not know how to leave out.
    """
    if hasattr(bound, "infilling"):
        checks.function("reward.infilling", bound.infilling)
        bound = checks.asked("reward.infilling", bound.infilling, given, present)
        checks.has("reward.infilling", bound, "a BoundReward", "at")
    elif not present.all():
        raise ValueError(
            f"start: got templates of different lengths, which {type(reward).__name__} cannot read "
            "together; answer them one by one"
        )
    checks.function("reward.at", bound.at)
    found: BoundReward = bound
    return found
