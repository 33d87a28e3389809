"""Tiny random networks in float64, with prompts of different lengths: what `generate` is tested on.

A prompt is a string of digits, one token each. Attention reads the real tokens only, and positions
count from the first of them, so padding on the left must not change anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from entrgi_ref import Prompts, prompt_key

PROMPT_IDS = 10
"""Ids 0 to 9 are digits; they can be written too."""


def _random(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator) * scale


def _positions(valid: Tensor) -> Tensor:
    """Counted from the first real token; what stands before it does not matter."""
    return (torch.arange(valid.shape[1]) - (~valid).sum(1, keepdim=True)).clamp_min(0)


def _digits(prompts: list[str]) -> tuple[Tensor, Tensor]:
    length = max(map(len, prompts))
    tokens = torch.tensor([[0] * (length - len(p)) + [int(c) for c in p] for p in prompts])
    valid = torch.arange(length) >= torch.tensor([[length - len(p)] for p in prompts])
    return tokens, valid


def stand_in(wrapper: object, network: object) -> None:
    """Give a wrapper whatever the network has and it lacks.

    Set, and not looked up by `__getattr__`: from Python 3.12 on, isinstance with a protocol does
    not call that, so that the wrapper would be no `Denoiser` for the run-time checks.
    """
    for name in dir(network):
        if not name.startswith("_") and not hasattr(wrapper, name):
            setattr(wrapper, name, getattr(network, name))


class TinyDenoiser:
    """One attention layer. The last id is the mask, the one before ends an answer."""

    def __init__(self, seed: int, vocabulary: int = 14, sharpness: float = 0.5):
        self.vocabulary, self.mask_id, self.eos_id = vocabulary, vocabulary - 1, vocabulary - 2
        self.writable = torch.arange(vocabulary) < vocabulary - 1
        self.embedding = _random(seed, vocabulary, 8)
        self.position = _random(seed + 1, 64, 8)
        self.query, self.value = _random(seed + 2, 8, 8), _random(seed + 3, 8, 8)
        self.head = _random(seed + 4, 8, vocabulary, scale=sharpness)
        self.calls = 0

    def encode(self, prompts):
        tokens, valid = _digits(list(prompts))
        return Prompts(tokens, valid, tuple(map(prompt_key, prompts)))

    def __call__(self, tokens, valid, masked):
        self.calls += 1
        x = self.embedding[tokens] + self.position[_positions(valid)]
        attention = (x @ self.query @ x.mT / 3).masked_fill(~valid[:, None, :], -torch.inf)
        hidden = torch.tanh(attention.softmax(-1) @ x @ self.value + x)
        return (hidden @ self.head)[:, -masked.shape[1] :][masked]

    def decode(self, response):
        return [" ".join(map(str, row)) for row in response.tolist()]


class Trainable(TinyDenoiser):
    """Its weights want gradients, and none is kept of what it says."""

    def __call__(self, tokens, valid, masked):
        self.head.requires_grad_()
        logits = super().__call__(tokens, valid, masked)
        assert not logits.requires_grad
        return logits


@dataclass
class TinyReward:
    """A nonlinear function of all embeddings, of their order and of the prompt."""

    seed: int
    vocabulary: int = 14
    width: int = 6
    scale: float = 1.0

    def __post_init__(self):
        self.embeddings = _random(self.seed, self.vocabulary, self.width)
        self.position = _random(self.seed + 1, 64, self.width)
        self.mix = _random(self.seed + 2, self.width, self.width)
        self.local = _random(self.seed + 3, self.width, self.width)
        self.head = _random(self.seed + 4, self.width, scale=self.scale)

    def of(self, embedded: Tensor, valid: Tensor) -> Tensor:
        x = (embedded + self.position[_positions(valid)]) * valid[..., None]
        mean = x.sum(1, keepdim=True) / valid.sum(1)[:, None, None]
        hidden = torch.tanh(x @ self.local + mean @ self.mix) * valid[..., None]
        return hidden.sum(1) @ self.head

    def bind(self, prompts, trajectories):
        tokens, valid = _digits(list(prompts))
        return _Bound(
            self,
            tokens.repeat_interleave(trajectories, 0),
            valid.repeat_interleave(trajectories, 0),
        )

    def score(self, prompts, responses):
        tokens, valid = _digits(list(prompts))
        answers = torch.tensor([[int(word) for word in response.split()] for response in responses])
        nothing = torch.zeros_like(answers, dtype=torch.bool)
        return _Bound(self, tokens, valid).at(answers, nothing)(self.embeddings[:0], answers[0, :0])


@dataclass
class _Bound:
    reward: TinyReward
    prompt: Tensor
    valid: Tensor

    def at(self, response, masked):
        return _AtStep(self, response, masked)


@dataclass
class _AtStep:
    bound: _Bound
    response: Tensor
    masked: Tensor

    @property
    def embeddings(self):
        return self.bound.reward.embeddings

    def __call__(self, mixed, likeliest):
        embedded = self.embeddings[torch.cat([self.bound.prompt, self.response], 1)]
        masked = F.pad(self.masked, (self.bound.prompt.shape[1], 0), value=False)
        embedded = embedded.masked_scatter(masked[..., None], mixed.to(embedded))
        valid = F.pad(self.bound.valid, (0, self.response.shape[1]), value=True)
        return self.bound.reward.of(embedded, valid)
