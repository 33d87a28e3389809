"""The toy's networks behind the package's two protocols, and a closed-form reward as a control."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from entrgi_ref import Prompts, checks, prompt_key

from .language import (
    CATEGORY,
    EOS,
    ID,
    LENGTH,
    MASK,
    TOPIC,
    VOCABULARY,
    Prompt,
    of_word,
    parse_prompt,
)
from .networks import MaskPredictor, RewardModel

PROMPT_LENGTH = 3
"""Tokens in a prompt: one for each of its words."""
WRITABLE = torch.tensor([CATEGORY[word] not in ("PROMPT", "MASK") for word in VOCABULARY])
"""Which tokens may stand in an answer, [V]: all but the words of prompts and the mask."""


def encode_words(sentences: Sequence[Sequence[str]]) -> Int[Tensor, "S N"]:
    """The ids of sentences of one length; `ValueError` for a word that the language lacks."""
    return torch.tensor([[of_word(ID, word) for word in sentence] for sentence in sentences])


def encode_prompts(prompts: Sequence[str]) -> Int[Tensor, "P 3"]:
    """The ids of prompts, each three words."""
    return encode_words([parse_prompt(prompt) for prompt in prompts])


def words_of(response: str) -> list[str]:
    """The words of a decoded response, with the ends of sequence that `decode` left out: `LENGTH`
    in all.
    """
    words = response.split()
    return words + [EOS] * (LENGTH - len(words))


def plain_attention() -> AbstractContextManager[None]:
    """Attention without the kernel for long sequences, which takes twice as long for short ones."""
    context: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return context


class ToyDenoiser:
    """A trained `MaskPredictor` as a `Denoiser`. Responses are `LENGTH` tokens long."""

    mask_id = ID[MASK]
    eos_id = ID[EOS]
    writable = WRITABLE

    def __init__(self, network: MaskPredictor):
        self.network = network.eval().requires_grad_(False)

    def encode(self, prompts: Sequence[str]) -> Prompts:
        tokens = encode_prompts(prompts)
        valid = torch.ones_like(tokens, dtype=torch.bool)
        return Prompts(tokens, valid, tuple(map(prompt_key, prompts)))

    def __call__(
        self, tokens: Int[Tensor, "S L"], valid: Bool[Tensor, "S L"], masked: Bool[Tensor, "S N"]
    ) -> Float[Tensor, "n V"]:
        checks.shape("new_tokens", masked, (None, LENGTH), "[S, N] in the toy")
        with plain_attention():
            return self.network(tokens, F.pad(masked, (PROMPT_LENGTH, 0), value=False))

    def template(self, text: str) -> Int[Tensor, "N"]:
        """A response with blanks, for `start` of `generate`: each underscore is one word to be
        written, and what follows the text are ends of sequence.

        Raises `ValueError` for words that are not in the language, if there is no blank, and if
        there are more than `LENGTH` words.
        """
        words = text.replace("_", " _ ").split()
        for word in words:
            if word != "_":
                checks.choice("template: word", word, [w for w in ID if WRITABLE[ID[w]]])
        if "_" not in words or len(words) > LENGTH:
            raise ValueError(
                f"template: got {text!r}, expected at most {LENGTH} words, some of them blanks, as "
                "in 'a _ finds the _'"
            )
        ids = [self.mask_id if word == "_" else ID[word] for word in words]
        return torch.tensor(ids + [self.eos_id] * (LENGTH - len(ids)))

    def decode(self, response: Int[Tensor, "S N"]) -> list[str]:
        """The words; ends of sequence at the end are left out (and `words_of` adds them)."""
        texts = []
        for row in checks.ids("response", response, len(VOCABULARY)).tolist():
            words = [VOCABULARY[id] for id in row]
            while len(words) > 1 and words[-1] == EOS:
                words.pop()
            texts.append(" ".join(words))
        return texts


@dataclass(frozen=True, eq=False)
class ToyReward:
    """A trained `RewardModel` as a `Reward`. It reads prompt, response and an end of sequence."""

    network: RewardModel

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(False)

    @property
    def embeddings(self) -> Float[Tensor, "V d"]:
        return self.network.embedding.weight

    def bind(self, prompts: Sequence[str], trajectories: int) -> _Bound:
        return _Bound(self.network, encode_prompts(prompts).repeat_interleave(trajectories, 0))

    @torch.no_grad()
    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Float[Tensor, "S"]:
        answers = encode_words([words_of(response) for response in responses])
        tokens = append_end(torch.cat([encode_prompts(prompts), answers], 1))
        with plain_attention():
            return self.network(self.network.embedding(tokens))


def append_end(tokens: Int[Tensor, "S L"]) -> Int[Tensor, "S L+1"]:
    """The end of sequence at which a reward model is read off."""
    return F.pad(tokens, (0, 1), value=ID[EOS])


@dataclass(frozen=True, eq=False)
class _Bound:
    network: RewardModel
    prompt: Int[Tensor, "S 3"]

    def at(self, response: Int[Tensor, "S N"], masked: Bool[Tensor, "S N"]) -> _AtStep:
        tokens = append_end(torch.cat([self.prompt, response], 1))
        return _AtStep(self.network, tokens, F.pad(masked, (PROMPT_LENGTH, 1), value=False))


@dataclass(frozen=True, eq=False)
class _AtStep:
    network: RewardModel
    tokens: Int[Tensor, "S read"]
    masked: Bool[Tensor, "S read"]

    @property
    def embeddings(self) -> Float[Tensor, "V d"]:
        return self.network.embedding.weight

    def __call__(
        self, mixed: Float[Tensor, "n d"], likeliest: Int[Tensor, "n"]
    ) -> Float[Tensor, "S"]:
        embedded = self.network.embedding(self.tokens).masked_scatter(self.masked[..., None], mixed)
        with plain_attention():
            return self.network(embedded)


@dataclass(frozen=True, eq=False)
class ClosedFormReward:
    """A control that needs no training:

    +1 for each noun on one of the prompt's topics, -1 for each other noun.

    It is linear in its embeddings, which are one-hot, so every weight function gives the same
    gradient, the exact one of the expected reward. Where methods differ here, they do so by chance.
    """

    embeddings: Float[Tensor, "V V"] = field(default_factory=lambda: torch.eye(len(VOCABULARY)))

    def bind(self, prompts: Sequence[str], trajectories: int) -> _BoundClosedForm:
        points = torch.tensor([_noun_points(parse_prompt(prompt)) for prompt in prompts])
        return _BoundClosedForm(
            self.embeddings, points.to(self.embeddings).repeat_interleave(trajectories, 0)
        )

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Float[Tensor, "S"]:
        tokens = encode_words([words_of(response) for response in responses])
        return self.bind(prompts, 1).points.gather(1, tokens).sum(1)


def _noun_points(prompt: Prompt) -> list[float]:
    on_topic = {True: 1.0, False: -1.0}
    return [on_topic[TOPIC[word] in prompt[:2]] if word in TOPIC else 0.0 for word in VOCABULARY]


@dataclass(frozen=True, eq=False)
class _BoundClosedForm:
    embeddings: Float[Tensor, "V V"]
    points: Float[Tensor, "S V"]

    def at(self, response: Int[Tensor, "S N"], masked: Bool[Tensor, "S N"]) -> _ClosedFormAtStep:
        return _ClosedFormAtStep(self.embeddings, self.points, response, masked)


@dataclass(frozen=True, eq=False)
class _ClosedFormAtStep:
    embeddings: Float[Tensor, "V V"]
    points: Float[Tensor, "S V"]
    response: Int[Tensor, "S N"]
    masked: Bool[Tensor, "S N"]

    def __call__(
        self, mixed: Float[Tensor, "n V"], likeliest: Int[Tensor, "n"]
    ) -> Float[Tensor, "S"]:
        embedded = self.embeddings[self.response].masked_scatter(self.masked[..., None], mixed)
        return torch.einsum("snv,sv->s", embedded, self.points)
