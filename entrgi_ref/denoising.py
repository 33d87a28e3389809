"""The outer loop of Algorithm 1: at every step of the schedule predict, guide and commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from . import checks
from .config import DTYPES, SamplingConfig
from .draws import Draws, KeyedDraws, nucleus
from .equations import equation
from .errors import DenoisingRecord, GradientRecord, stacked
from .fast.unchanged import Unchanged
from .guidance import guide
from .orders import ORIGIN, Candidates, commit, rank
from .parts import in_parts
from .protocols import Denoiser, Reward, Template
from .relaxation import token_distribution
from .schedule import how_many


@equation("alg:generate")
@torch.inference_mode(False)  # `guide` can make no gradient of a tensor made under it
@torch.no_grad()
def generate(
    denoiser: Denoiser,
    reward: Reward,
    prompts: Sequence[str],
    config: SamplingConfig | None = None,
    *,
    start: Int[Tensor, "P N"] | Sequence[Int[Tensor, "_"]] | None = None,
    keys: Iterable[int] | None = None,
    observe: Callable[[DenoisingRecord], None] | None = None,
    draws: Draws | None = None,
    vocabulary_batch: int | None = None,
) -> Generation:
    """Algorithm 1: answer each prompt K times, guiding every denoising step by the reward.

    A response starts fully masked. Every step predicts its masked tokens, guides the prediction,
    draws a candidate for each of them and commits some, as the order says; the rest stays masked.
    Steps that commit nothing may be skipped. Trajectories move together, but none reads another.

    Args:
        denoiser: the frozen mask predictor.
        reward: the frozen reward model, which guides and, at the end, scores.
        prompts: at least one.
        config: the settings, by default those of `entrgi_ref.config`.
        start: infilling: each prompt's response, with the mask token where something is to be
            written. All other tokens stay; a step commits a share of each response's own masks.
            A list if some are shorter than N: they are padded, and no model attends to padding.
        keys: an integer in [-2^63, 2^63) per prompt, from which its random numbers are made. By
            default the denoiser's, a hash of the text: the same prompt twice is answered alike.
        observe: called with a `DenoisingRecord`, which it only reads, after every step that runs.
        draws: where random choices come from, in place of seed and keys.
        vocabulary_batch: masked positions that are guided at a time, for less memory (`parts.py`).

    Raises:
        ValueError: for inputs that do not fit, before a model runs; for what a model or a function
            of yours returns in another shape or type; with step and prompts, for logits or rewards
            that are not finite, confidence that is nan, or weights outside [0, 1].

    Source: seed, authors' code; infilling: ours.
    """
    checks.arguments(denoiser, reward, config, draws)
    config = config or SamplingConfig()
    K, N, tau = config.trajectories, config.new_tokens, config.temperature
    checks.prompts(prompts)
    keys = keys if keys is None else checks.keys(keys, len(prompts), beside=draws)
    checks.vocabulary(denoiser.writable, denoiser.mask_id, reward.embeddings)
    template = Template.of(start, (len(prompts), N), denoiser)
    checks.rows_at_a_time("vocabulary_batch", vocabulary_batch)
    observe = None if observe is None else checks.only_reads("observe", observe)

    encoded = checks.encoded(denoiser.encode(prompts), len(prompts))
    prompt = encoded.tokens.repeat_interleave(K, 0)
    valid = torch.cat([encoded.valid, template.present.to(prompt.device)], 1)
    valid = valid.repeat_interleave(K, 0)
    blanks = (template.tokens == denoiser.mask_id).sum(1).tolist()
    steps = config.guided_steps(blanks)
    reader: Denoiser = Unchanged(denoiser) if config.may_pause(blanks) else denoiser
    checks.precisions([guidance for _, guidance in steps], denoiser)
    response = template.tokens.to(prompt).repeat_interleave(K, 0)
    bound = template.bind(reward, prompts, K)
    if draws is None:
        draws = KeyedDraws.of(config.seed, keys or encoded.keys, K, prompt.device)
    put_last = denoiser.eos_id if config.eos_last and config.order != ORIGIN else None

    for step, guidance in steps:
        masked = response == denoiser.mask_id
        row, position = masked.nonzero(as_tuple=True)
        chance = checks.step_draws(draws.at(step.index, row, position), config)
        quota = how_many(step, masked, chance, config.order)
        if config.left_to_chance and config.skip_empty_steps and not quota.any():
            continue

        fixed = checks.asked("reward.at", bound.at, response, masked)
        tokens = torch.cat([prompt, response], 1)
        dtype, every_id = DTYPES[guidance.dtype], config.write_every_id
        logits = predict(reader, tokens, valid, masked, dtype, every_id, n=len(row))
        records: list[GradientRecord] = []
        with checks.naming(step.index, row, prompts, K):
            climb = in_parts(vocabulary_batch, draws, step.index, row, position) or guide
            guided_logits = climb(
                logits,
                fixed,
                weight=guidance.weight_function(tau),
                steps=guidance.steps,
                step_size=guidance.step_size,
                temperature=tau,
                top_p=config.top_p,
                draw=chance.hard,
                optimiser=guidance.optimiser,
                observe=records.append if observe else None,
                trajectories=len(response),
            )
            drawn = draw_candidates(logits, guided_logits, chance.candidates, tau, config.top_p)
            confidence = rank(drawn, chance, config.order, config.order_temperature)

        committed = commit(drawn.tokens, confidence, quota, masked, put_last)
        response = torch.where(committed, response.masked_scatter(masked, drawn.tokens), response)
        outer = (logits, guided_logits, drawn.tokens, confidence, committed, response)
        if observe:
            inner = stacked(records, len(row), len(response), response.device)
            observe(DenoisingRecord(step.index, step.t, masked, *inner, *outer))
        del logits, guided_logits, drawn, outer  # the next prediction needs the memory

    return _scored(reward, prompts, response, template.decode(denoiser, response), config)


@dataclass(frozen=True, eq=False)
class Generation:
    """The answers to P prompts, K each."""

    prompts: tuple[str, ...]
    tokens: Int[Tensor, "P K N"]
    responses: list[list[str]]
    """The decoded answers, K for each prompt."""
    rewards: Float[Tensor, "P K"]
    """The reward model's score of each decoded answer, in the reward model's dtype."""
    config: SamplingConfig

    @property
    def top1(self) -> Float[Tensor, "P"]:
        """Top@1: the largest reward among a prompt's K answers, in float64."""
        return self.rewards.double().amax(1)

    @property
    def average(self) -> Float[Tensor, "P"]:
        """Avg@K: the mean reward of a prompt's K answers, in float64."""
        return self.rewards.double().mean(1)

    @property
    def best(self) -> list[str]:
        """Each prompt's answer with the largest reward."""
        best = self.rewards.argmax(1).tolist()
        return [answers[k] for answers, k in zip(self.responses, best, strict=True)]


@checks.explained
def predict(
    denoiser: Denoiser,
    tokens: Int[Tensor, "S L"],
    valid: Bool[Tensor, "S L"],
    masked: Bool[Tensor, "S N"],
    dtype: torch.dtype | None = None,
    every_id: bool = False,
    n: int | None = None,
) -> Float[Tensor, "n V"]:
    """phi, the denoiser's logits at the masked positions, -inf for ids that may not be written.

    In `dtype`, or in the denoiser's own. -inf bans an id from all that follows: its probability,
    its part of the soft embedding and the entropy, and its gradient are 0. With `every_id` nothing
    is banned. `n` is how many rows to insist on. Source: authors' code; the ban: ours.
    """
    logits = checks.asked("denoiser", denoiser, tokens, valid, masked)
    logits = checks.logits(logits, n, len(denoiser.writable)).to(dtype or logits.dtype)
    return logits if every_id else logits.masked_fill(~denoiser.writable, -torch.inf)


@checks.explained
def draw_candidates(
    logits: Float[Tensor, "n V"],
    guided_logits: Float[Tensor, "n V"],
    draw: Callable[[Float[Tensor, "n V"]], Int[Tensor, "n"]],
    temperature: float,
    top_p: float,
) -> Candidates:
    r"""Eq. 7, first half: a token for each masked position, $x \sim \mathrm{softmax}(\psi / \tau)$.

    Drawn from the nucleus of mass `top_p`. Source: seed; nucleus: authors' code.
    """
    probabilities = nucleus(token_distribution(guided_logits, temperature), top_p)
    tokens = checks.drawn(checks.asked("draw", draw, probabilities), guided_logits, written=True)
    return Candidates(tokens, probabilities, guided_logits, logits, temperature)


def _scored(
    reward: Reward, prompts: Sequence[str], ids: Tensor, texts: list[str], config: SamplingConfig
) -> Generation:
    P, K = len(prompts), config.trajectories
    rewards = checks.scores(reward.score([p for p in prompts for _ in range(K)], texts), prompts, K)
    answers = [texts[p * K : (p + 1) * K] for p in range(P)]
    tokens, rewards = ids.unflatten(0, (P, K)), rewards.unflatten(0, (P, K))
    return Generation(tuple(prompts), tokens, answers, rewards, config)
