"""The gradient that guidance estimates, computed exactly, and how far weight functions are from it.

What guidance climbs is the expected reward $E_{x \\sim q}[R(x)]$ over whole answers, where q is the
product of the token distributions at the masked positions. With two masked positions and the toy's
vocabulary that is a sum over 3,721 answers, so its gradient is known:

    dE[R]/dpsi_l,i = q_l,i (E[R | x_l = i] - E[R]) / tau

A weight function turns one draw of hard tokens into one estimate of it. The mean over many draws
shows its bias, a single draw what a gradient step has to work with.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from entrgi_ref import (
    WEIGHTS,
    KeyedDraws,
    SamplingConfig,
    StepReward,
    generate,
    hard_embedding,
    interpolate,
    nucleus,
    prompt_key,
    soft_embedding,
    token_distribution,
)
from entrgi_ref.paper.declared.experiments import LABELS
from entrgi_ref.protocols import BoundReward
from entrgi_ref.relaxation import WeightFunction

from .demo import BASE
from .statistics import Estimate, Numbers, bootstrap
from .studies import Finding, Setting
from .testbed import Testbed, held_out_prompts


def study(setting: Setting) -> Finding:
    """The command `gradients`."""
    states, draws, seed = (setting.options[name] for name in ("states", "draws", "seed"))
    testbed, base = setting.testbed, replace(BASE, seed=seed)
    found = agreements(testbed, base, states, draws)
    text = f"{markdown(found)}\n\n{states} states x {draws} draws; {testbed.description}."
    rows = {name: {key: vars(e) for key, e in vars(a).items()} for name, a in found.items()}
    more = {"draws": draws}
    return Finding(text, rows, testbed.description, base, states, [seed], more)


MASKED = 2
"""Masked positions in a state: as many as can be enumerated."""


def constant_half(logits: Float[Tensor, "n V"]) -> Float[Tensor, "n"]:
    """w = 0.5, whatever the entropy: a control for EntRGi."""
    return logits.new_full((len(logits),), 0.5)


ESTIMATORS: dict[str, WeightFunction] = {
    **{name: WEIGHTS[name] for name in ("expectation", "aps", "entrgi")},
    "w = 0.5": constant_half,
}


@dataclass(frozen=True, eq=False)
class States:
    """Answers with `MASKED` positions masked, and the denoiser's logits there."""

    prompts: list[str]
    response: Int[Tensor, "S N"]
    masked: Bool[Tensor, "S N"]
    logits: Float[Tensor, "n V"]


def sample_states(testbed: Testbed, count: int, base: SamplingConfig) -> States:
    """Unguided answers to held-out prompts, each with two positions masked at random."""
    unguided = replace(base.guided(steps=0), trajectories=1)
    denoiser, prompts = testbed.denoiser, held_out_prompts(count)
    response = generate(denoiser, testbed.reward, prompts, unguided).tokens[:, 0]
    everywhere = torch.ones_like(response, dtype=torch.bool).nonzero(as_tuple=True)
    draws = KeyedDraws.of(base.seed, [prompt_key(p) for p in prompts], 1)
    shuffled = draws.at(base.denoising_steps, *everywhere).order().view_as(response).argsort(1)
    masked = torch.zeros_like(response, dtype=torch.bool).scatter(1, shuffled[:, :MASKED], True)
    response = response.masked_fill(masked, denoiser.mask_id)
    encoded = denoiser.encode(prompts).tokens
    valid = torch.ones(count, encoded.shape[1] + response.shape[1], dtype=torch.bool)
    logits = denoiser(torch.cat([encoded, response], 1), valid, masked)
    return States(prompts, response, masked, logits.masked_fill(~denoiser.writable, -torch.inf))


@torch.no_grad()
def exact_gradient(
    testbed: Testbed, states: States, temperature: float
) -> Float[Tensor, "S masked V"]:
    """The gradient of the expected reward, by enumeration of all answers to each state."""
    q = token_distribution(states.logits, temperature).unflatten(0, (-1, MASKED))
    ids = testbed.denoiser.writable.nonzero().flatten()
    answers = torch.tensor(list(itertools.product(ids.tolist(), repeat=MASKED)))
    gradients = []
    for s, prompt in enumerate(states.prompts):
        response = states.response[s].expand(len(answers), -1)
        filled = response.masked_scatter(states.masked[s].expand_as(response), answers)
        step = testbed.reward.bind([prompt], len(answers)).at(filled, torch.zeros_like(filled) > 0)
        rewards = step(step.embeddings[:0], filled[0, :0])
        chance = q[s, torch.arange(MASKED), answers].double()
        p = chance.prod(1)
        slope = p * (rewards - (p * rewards).sum()) / temperature
        gradient = torch.zeros_like(q[s], dtype=torch.float64)
        gradients.append(gradient.scatter_add(1, answers.T, slope.expand(MASKED, -1)))
    return torch.stack(gradients)


def estimated_gradient(
    logits: Float[Tensor, "n V"],
    reward: StepReward,
    weight: WeightFunction,
    tokens: Int[Tensor, "n"],
    temperature: float,
) -> Float[Tensor, "n V"]:
    """The gradient of one step of `guide`, before Adam, for given hard tokens."""
    psi = logits.clone().requires_grad_()
    soft = soft_embedding(token_distribution(psi, temperature), reward.embeddings)
    mixed = interpolate(soft, hard_embedding(tokens, reward.embeddings), weight(psi.detach()))
    return torch.autograd.grad(reward(mixed, psi.detach().argmax(-1)).sum(), psi)[0]


@dataclass(frozen=True)
class Agreement:
    """How well a weight function's gradient agrees with the exact one, over all states together.

    Together, that is with the states' gradients side by side in one long vector: many states have
    hardly a gradient, and what an estimator does there hardly matters.
    """

    cosine_of_mean: Estimate
    """Between the exact gradient and the mean over many draws."""
    cosine_of_one: Estimate
    """Between the exact gradient and that of a single draw."""
    bias: Estimate
    """Distance of the mean over many draws from the exact gradient, in lengths of the exact one."""


def agreements(
    testbed: Testbed,
    base: SamplingConfig,
    states: int,
    draws: int,
    estimators: Mapping[str, WeightFunction] = ESTIMATORS,
) -> dict[str, Agreement]:
    """Compare estimators with the exact gradient, at a number of states with some draws each."""
    at = sample_states(testbed, states, base)
    exact = exact_gradient(testbed, at, base.temperature).flatten(1)
    bound = testbed.reward.bind(at.prompts, draws)
    step = _at(bound, at, draws)
    logits = at.logits.unflatten(0, (-1, MASKED)).repeat_interleave(draws, 0).flatten(0, 1)
    keys = [prompt_key(prompt) for prompt in at.prompts]
    slots = at.masked.repeat_interleave(draws, 0).nonzero(as_tuple=True)
    keyed = KeyedDraws.of(base.seed, keys, draws).at(0, *slots)
    tokens = keyed.hard(nucleus(token_distribution(logits, base.temperature), base.top_p), 0)
    found = {}
    for name, weight in estimators.items():
        gradient = estimated_gradient(logits, step, weight, tokens, base.temperature)
        each = gradient.double().view(states, draws, -1)
        mean = each.mean(1)
        along, length = (mean * exact).sum(1), (exact**2).sum(1)
        found[name] = Agreement(
            bootstrap(_columns(along, (mean**2).sum(1), length), _cosine),
            bootstrap(_columns(along, (each**2).sum(2).mean(1), length), _cosine),
            bootstrap(_columns(((mean - exact) ** 2).sum(1), length), _relative_length),
        )
    return found


def _columns(*columns: Tensor) -> Numbers:
    return torch.stack(columns, 1).numpy()


def _cosine(means: Numbers) -> Numbers:
    along, one, other = np.moveaxis(means, -1, 0)
    return along / np.sqrt(one * other)


def _relative_length(means: Numbers) -> Numbers:
    difference, length = np.moveaxis(means, -1, 0)
    return np.sqrt(difference / length)


def _at(bound: BoundReward, states: States, draws: int) -> StepReward:
    response = states.response.repeat_interleave(draws, 0)
    return bound.at(response, states.masked.repeat_interleave(draws, 0))


def markdown(found: Mapping[str, Agreement]) -> str:
    """The comparison as a table."""
    lines = [
        "| Weight | Cosine, mean of draws | Cosine, one draw | Relative bias |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, agreement in found.items():
        cells = [agreement.cosine_of_mean, agreement.cosine_of_one, agreement.bias]
        lines.append(f"| {LABELS.get(name, name)} | " + " | ".join(c.text(2) for c in cells) + " |")
    return "\n".join(lines)
