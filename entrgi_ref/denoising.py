"""The outer loop of Algorithm 1: predict, guide, commit, until nothing is masked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from . import checks
from .config import DTYPES, SamplingConfig
from .draws import Draws, KeyedDraws, nucleus
from .equations import equation
from .errors import DenoisingStep, GradientStep
from .guidance import guide
from .orders import ORIGIN, Candidates, commit, rank
from .protocols import Denoiser, Reward
from .relaxation import token_distribution
from .schedule import Step, commits_nothing, how_many, schedule

Slots = tuple[Int[Tensor, "n"], ...]
"""Row and position of every masked position, in (S, N) order."""


@equation("alg:generate")
@torch.no_grad()
def generate(
    denoiser: Denoiser,
    reward: Reward,
    prompts: Sequence[str],
    config: SamplingConfig | None = None,
    *,
    observe: Callable[[DenoisingStep], None] | None = None,
    draws: Draws | None = None,
) -> Generation:
    """Algorithm 1: answer each prompt K times, guiding every denoising step by the reward.

    A response starts fully masked. Every step predicts its masked tokens, guides the prediction,
    draws a candidate for each of them and commits the most confident candidates; the rest stays
    masked. All trajectories move together, and none depends on another.

    Args:
        denoiser: the frozen mask predictor.
        reward: the frozen reward model, which guides and, at the end, scores.
        prompts: at least one.
        config: the settings, by default the paper's.
        observe: called with a `DenoisingStep` after every step that runs. Without it nothing is
            recorded.
        draws: where the random choices come from, by default `KeyedDraws` of the seed and the
            prompts.

    Raises:
        ValueError: for inputs that do not fit, before a model runs; for what a model or a weight
            function returns if it does not fit, before anything is made of it; for logits or
            rewards that are not finite and weights outside [0, 1], with step and prompts.

    Source: seed, authors' code.
    """
    config = config or SamplingConfig()
    _check(denoiser, reward, prompts)
    K, N, order, guidance = config.trajectories, config.new_tokens, config.order, config.guidance
    encoded = denoiser.encode(prompts)
    prompt = encoded.tokens.repeat_interleave(K, 0)
    valid = F.pad(encoded.valid.repeat_interleave(K, 0), (0, N), value=True)
    response = prompt.new_full((len(prompt), N), denoiser.mask_id)
    bound = reward.bind(prompts, K)
    draws = draws or KeyedDraws.of(config.seed, encoded.keys, K, prompt.device)
    planned = order != ORIGIN and not config.write_every_id
    last = denoiser.eos_id if config.eos_last and order != ORIGIN else None

    for step in schedule(config.denoising_steps, N):
        masked = response == denoiser.mask_id
        slots = masked.nonzero(as_tuple=True)
        draw = draws.at(step.index, *slots)
        quota = how_many(step, masked, draw, order)
        if config.skip_empty_steps and commits_nothing(step, quota, planned):
            continue

        logits = predict(
            denoiser,
            torch.cat([prompt, response], 1),
            valid,
            masked,
            dtype=DTYPES[guidance.dtype],
            every_id=config.write_every_id,
        )

        gradient_steps: list[GradientStep] = []
        with _naming(step, slots, prompts, K):
            guided_logits = guide(
                logits,
                bound.at(response, masked),
                weight=guidance.weight_function(config.temperature),
                steps=guidance.steps,
                step_size=guidance.step_size,
                temperature=config.temperature,
                top_p=config.top_p,
                draw=draw.hard,
                observe=gradient_steps.append if observe else None,
                trajectories=len(response),
            )

        candidates = draw_candidates(
            logits,
            guided_logits,
            draw.candidates,
            temperature=config.temperature,
            top_p=config.top_p,
        )
        confidence = rank(candidates, draw, order, config.order_temperature)
        committed = commit(candidates.tokens, confidence, quota, masked, last)
        written = response.masked_scatter(masked, candidates.tokens)
        response = torch.where(committed, written, response)
        if observe:
            observe(
                _record(step, masked, gradient_steps, candidates, confidence, committed, response)
            )

    return _scored(denoiser, reward, prompts, response, config)


@dataclass(frozen=True, eq=False)
class Generation:
    """The answers to P prompts, K each."""

    prompts: tuple[str, ...]
    tokens: Int[Tensor, "P K N"]
    responses: list[list[str]]
    """The decoded answers, K for each prompt."""
    rewards: Float[Tensor, "P K"]
    """The reward model's score of each decoded answer."""
    config: SamplingConfig

    @property
    def top1(self) -> Float[Tensor, "P"]:
        """Top@1: the largest reward among a prompt's K answers."""
        return self.rewards.amax(1)

    @property
    def average(self) -> Float[Tensor, "P"]:
        """Avg@K: the mean reward of a prompt's K answers."""
        return self.rewards.mean(1)

    @property
    def best(self) -> list[str]:
        """Each prompt's answer with the largest reward."""
        best = self.rewards.argmax(1).tolist()
        return [answers[k] for answers, k in zip(self.responses, best, strict=True)]


def predict(
    denoiser: Denoiser,
    tokens: Int[Tensor, "S L"],
    valid: Bool[Tensor, "S L"],
    masked: Bool[Tensor, "S N"],
    *,
    dtype: torch.dtype | None = None,
    every_id: bool = False,
) -> Float[Tensor, "n V"]:
    """phi, the denoiser's logits at the masked positions, -inf for ids that may not be written.

    In `dtype`, or in the denoiser's own. -inf bans an id from all that follows: its probability,
    its part of the soft embedding and the entropy, and its gradient are 0. With `every_id` nothing
    is banned. Source: authors' code; the ban is ours.
    """
    logits = denoiser(tokens, valid, masked)
    checks.shape("the denoiser's logits", logits, (None, len(denoiser.writable)), "[n, V]")
    logits = logits.to(dtype or logits.dtype)
    return logits if every_id else logits.masked_fill(~denoiser.writable, -torch.inf)


def draw_candidates(
    logits: Float[Tensor, "n V"],
    guided_logits: Float[Tensor, "n V"],
    draw: Callable[[Float[Tensor, "n V"]], Int[Tensor, "n"]],
    *,
    temperature: float,
    top_p: float,
) -> Candidates:
    r"""Eq. 7, first half: a token for each masked position, $x \sim \mathrm{softmax}(\psi / \tau)$.

    Drawn from the nucleus of mass `top_p`. Source: seed; nucleus: authors' code.
    """
    probabilities = nucleus(token_distribution(guided_logits, temperature), top_p)
    return Candidates(draw(probabilities), probabilities, guided_logits, logits, temperature)


def _check(denoiser: Denoiser, reward: Reward, prompts: Sequence[str]) -> None:
    strings = not isinstance(prompts, str) and all(isinstance(prompt, str) for prompt in prompts)
    if not strings or len(prompts) == 0:
        raise ValueError(f"prompts: got {prompts!r}, expected a list of at least one string")
    checks.shape("reward.embeddings", reward.embeddings, (len(denoiser.writable), None), "[V, d]")
    if denoiser.writable[denoiser.mask_id]:
        raise ValueError("denoiser.writable: got True at the mask token, expected False")


@contextmanager
def _naming(step: Step, slots: Slots, prompts: Sequence[str], K: int) -> Iterator[None]:
    """Add the denoising step and the prompts to an error of guidance."""
    try:
        yield
    except checks.GuidanceError as error:
        rows = slots[0][error.where] if error.per_position else error.where.nonzero()
        named = sorted({row // K for row in rows.flatten().tolist()})
        listing = checks.some([f"{p} ({prompts[p][:40]!r})" for p in named])
        message = f"denoising step {step.index}: {error.reason}, for prompt {listing}"
        raise ValueError(message) from error


def _record(
    step: Step,
    masked: Tensor,
    gradient_steps: list[GradientStep],
    candidates: Candidates,
    confidence: Tensor,
    committed: Tensor,
    tokens: Tensor,
) -> DenoisingStep:
    def stacked(name: str, width: int) -> Tensor:
        rows = [getattr(gradient_step, name) for gradient_step in gradient_steps]
        return torch.stack(rows) if rows else confidence.new_zeros(0, width)

    n = len(confidence)
    return DenoisingStep(
        step=step.index,
        t=step.t,
        masked=masked,
        entropy=stacked("entropy", n),
        weight=stacked("weight", n),
        E=stacked("E", n),
        D=stacked("D", n),
        rewards=stacked("rewards", len(masked)),
        logits=candidates.logits,
        guided_logits=candidates.guided_logits,
        candidates=candidates.tokens,
        confidence=confidence,
        committed=committed,
        tokens=tokens,
    )


def _scored(
    denoiser: Denoiser,
    reward: Reward,
    prompts: Sequence[str],
    response: Tensor,
    config: SamplingConfig,
) -> Generation:
    P, K = len(prompts), config.trajectories
    texts = denoiser.decode(response)
    rewards = reward.score([prompt for prompt in prompts for _ in range(K)], texts)
    checks.shape("reward.score", rewards, (P * K,), "[S], one number per response")
    if not rewards.isfinite().all():
        bad = sorted({row // K for row in (~rewards.isfinite()).nonzero().flatten().tolist()})
        listing = checks.some([f"{p} ({prompts[p][:40]!r})" for p in bad])
        raise ValueError(f"the reward of the finished answer is not finite, for prompt {listing}")
    return Generation(
        prompts=tuple(prompts),
        tokens=response.unflatten(0, (P, K)),
        responses=[texts[p * K : (p + 1) * K] for p in range(P)],
        rewards=rewards.unflatten(0, (P, K)),
        config=config,
    )
