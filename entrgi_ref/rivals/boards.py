"""Answers in the making: what an unguided step of Algorithm 1 reads and writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from .. import checks
from ..config import DTYPES, GuidanceConfig, SamplingConfig
from ..denoising import Generation, draw_candidates, predict
from ..draws import KeyedDraws
from ..orders import ORIGIN, Candidates, commit, rank
from ..protocols import Denoiser
from ..schedule import Step, how_many


@runtime_checkable
class Scorer(Protocol):
    """What a rival asks: every `Reward` has it, and so has any object with such a method."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Float[Tensor, "S"]:
        """The reward of finished texts, one prompt per response."""


@dataclass
class Boards:
    """P prompts with K answers each, in rows, each prompt's side by side."""

    denoiser: Denoiser
    prompts: tuple[str, ...]
    config: SamplingConfig
    prompt: Int[Tensor, "S prompt"]
    valid: Bool[Tensor, "S L"]
    response: Int[Tensor, "S N"]
    draws: KeyedDraws
    guided: list[tuple[Step, GuidanceConfig]]
    """The steps that are made, each with its guidance, of which the precision counts."""

    @classmethod
    def of(
        cls,
        denoiser: Denoiser,
        prompts: Sequence[str],
        config: SamplingConfig,
        keys: Iterable[int] | None = None,
    ) -> Boards:
        """Fully masked answers. `keys` as those of `generate`."""
        config = config.guided(steps=0)
        K, N = config.trajectories, config.new_tokens
        checks.prompts(prompts)
        keys = keys if keys is None else checks.keys(keys, len(prompts))
        checks.writable(denoiser.writable, denoiser.mask_id)
        encoded = checks.encoded(denoiser.encode(prompts), len(prompts))
        prompt = encoded.tokens.repeat_interleave(K, 0)
        valid = F.pad(encoded.valid.repeat_interleave(K, 0), (0, N), value=True)
        response = prompt.new_full((len(prompt), N), denoiser.mask_id)
        draws = KeyedDraws.of(config.seed, keys or encoded.keys, K, prompt.device)
        guided = config.guided_steps([N])
        return cls(denoiser, tuple(prompts), config, prompt, valid, response, draws, guided)

    @property
    def masked(self) -> Bool[Tensor, "S N"]:
        """Where nothing is written yet."""
        return self.response == self.denoiser.mask_id

    @property
    def steps(self) -> list[Step]:
        """The steps that are made: those that commit nothing may be skipped."""
        return [step for step, _ in self.guided]

    def predict(self, turn: int = 0) -> Float[Tensor, "n V"]:
        """phi, at all masked positions, in the precision of the step whose `turn` it is, by its
        place in `steps`. A mask predictor is not asked about finished answers.

        `ValueError`, with the prompts, where it is not finite.
        """
        masked, every_id = self.masked, self.config.write_every_id
        if not masked.any():
            return torch.zeros(0, len(self.denoiser.writable), device=self.response.device)
        tokens = torch.cat([self.prompt, self.response], 1)
        _, guidance = self.guided[min(turn, len(self.guided) - 1)]
        dtype = DTYPES[guidance.dtype]
        row = masked.nonzero()[:, 0]
        logits = predict(self.denoiser, tokens, self.valid, masked, dtype, every_id, n=len(row))
        finite = logits.amax(-1).isfinite()
        if not finite.all():
            listing = checks.named(row[~finite], self.prompts, self.config.trajectories)
            raise ValueError(f"the denoiser's logits are not finite, for prompt {listing}")
        return logits

    def write(self, tokens: Int[Tensor, "n"], committed: Bool[Tensor, "S N"]) -> None:
        """Write the tokens of the masked positions where they are committed."""
        written = self.response.masked_scatter(self.masked, tokens)
        self.response = torch.where(committed, written, self.response)

    def next(
        self, step: Step, logits: Float[Tensor, "n V"]
    ) -> tuple[Candidates, Float[Tensor, "n"], Bool[Tensor, "S N"]]:
        """The candidates of a step, their confidence, and where they would be committed."""
        config, masked = self.config, self.masked
        chance = self.draws.at(step.index, *masked.nonzero(as_tuple=True))
        tau, order = config.temperature, config.order
        drawn = draw_candidates(logits, logits, chance.candidates, tau, config.top_p)
        confidence = rank(drawn, chance, order, config.order_temperature)
        quota = how_many(step, masked, chance, order)
        put_last = self.denoiser.eos_id if config.eos_last and order != ORIGIN else None
        return drawn, confidence, commit(drawn.tokens, confidence, quota, masked, put_last)

    def completed(self, logits: Float[Tensor, "n V"]) -> Int[Tensor, "S N"]:
        """The answers, with the likeliest token wherever nothing is written."""
        return self.response.masked_scatter(self.masked, logits.argmax(-1))

    def scores(
        self, reward: Scorer, responses: Int[Tensor, "R N"], rows: Int[Tensor, "R"]
    ) -> Float[Tensor, "R"]:
        """The rewards of complete answers to the prompts of these rows, in the reward's dtype."""
        K = self.config.trajectories
        prompts = [self.prompts[row // K] for row in rows.tolist()]
        rewards: Any = reward.score(prompts, self.texts(responses))
        real = isinstance(rewards, Tensor) and rewards.is_floating_point()
        if real and rewards.shape == rows.shape and not rewards.isfinite().all():
            listing = checks.named(rows[~rewards.isfinite().to(rows.device)], self.prompts, K)
            raise ValueError(f"the reward of an answer is not finite, for prompt {listing}")
        found: Tensor = checks.scores(rewards, prompts, 1)
        return found.to(responses.device)

    def texts(self, responses: Int[Tensor, "R N"]) -> list[str]:
        """The decoded answers."""
        decoded = checks.asked("denoiser.decode", self.denoiser.decode, responses)
        return list(checks.texts(decoded, len(responses)))

    def generation(self, reward: Scorer) -> Generation:
        """The finished answers, scored."""
        P, K = len(self.prompts), self.config.trajectories
        rewards = self.scores(reward, self.response, torch.arange(P * K))
        texts = self.texts(self.response)
        answers = [texts[p * K : (p + 1) * K] for p in range(P)]
        tokens, rewards = self.response.unflatten(0, (P, K)), rewards.unflatten(0, (P, K))
        return Generation(self.prompts, tokens, answers, rewards, self.config)
