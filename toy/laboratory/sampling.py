"""Every method as a sampler of a laboratory language, with a dial for its strength."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from entrgi_ref import DenoisingRecord, GuidanceConfig, SamplingConfig, generate
from entrgi_ref.relaxation import WeightFunction
from entrgi_ref.rivals import damped, lookahead, smc
from entrgi_ref.schedule import Step
from toy.dial import Constant

from .languages import PROMPT, ExactDenoiser, Language, NetworkReward

STEP_SIZES = (0.125, 0.25, 0.5, 1.0, 2.0)
"""eta: the dial of guided methods, at M = 3."""
OTHER_STEPS = (1, 8)
"""M, at eta = 0.5."""
BETAS = (4.0, 2.0, 1.0, 0.5, 0.25)
"""The dial of methods that aim at a tilted distribution, in units of the reward."""
PARTICLES = 8


@dataclass(frozen=True, eq=False)
class ScoreFunction:
    """REINFORCE as guidance: a `Reward` whose gradient is that of the score function.

    Its embeddings are one-hot. So under the weight of Expectation it is given q itself, draws two
    answers from it, and takes the mean of the other's reward off each (leave one out). It needs no
    gradient of the reward model; two forward passes cost what one forward and one backward pass do.
    """

    reward: NetworkReward
    generator: torch.Generator
    response: Int[Tensor, "S N"] | None = None
    masked: Bool[Tensor, "S N"] | None = None
    DRAWS = 2

    @cached_property
    def embeddings(self) -> Float[Tensor, "V V"]:
        return torch.eye(len(self.reward.embeddings), dtype=torch.float64)

    def bind(self, prompts: Sequence[str], trajectories: int) -> ScoreFunction:
        return self

    def at(self, response: Int[Tensor, "S N"], masked: Bool[Tensor, "S N"]) -> ScoreFunction:
        return replace(self, response=response, masked=masked)

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Float[Tensor, "S"]:
        return self.reward.score(prompts, responses)

    def __call__(
        self, mixed: Float[Tensor, "n V"], likeliest: Int[Tensor, "n"]
    ) -> Float[Tensor, "S"]:
        assert self.response is not None
        assert self.masked is not None
        q = mixed.detach()
        draws = q.multinomial(self.DRAWS, True, generator=self.generator)
        rewards = torch.stack(
            [self.reward.of(self.response.masked_scatter(self.masked, x)) for x in draws.unbind(1)]
        )
        others = (rewards.sum(0) - rewards) / (self.DRAWS - 1)
        row = self.masked.nonzero()[:, 0]
        advantage = (rewards - others)[:, row].T / self.DRAWS
        slope = torch.zeros_like(q).scatter_add(1, draws, advantage / q.gather(1, draws))
        linear = (slope * mixed).sum(1)
        climbed = torch.zeros(len(self.response), dtype=q.dtype).index_add(0, row, linear)
        return rewards.mean(0) + climbed - climbed.detach()


@dataclass(frozen=True)
class Fading:
    """eta falls with what is still masked: at noise level t it is eta t. The other way round than
    `entrgi_ref.rivals.damped`.
    """

    guidance: GuidanceConfig

    def __call__(self, step: Step) -> GuidanceConfig:
        return self.guidance.but(step_size=self.guidance.step_size * step.t)


def fading(config: SamplingConfig) -> SamplingConfig:
    """Settings whose eta fades."""
    return replace(config, guidance=Fading(config.constant_guidance))


Change = Callable[[SamplingConfig], SamplingConfig] | None
CHANGES = {"damped": damped, "fading": fading}
"""EntRGi with another step size at each denoising step."""


@dataclass(frozen=True, eq=False)
class Samplers:
    """The methods on one language with one reward model."""

    language: Language
    reward: NetworkReward
    draws: int
    seed: int
    """Of the draws."""

    @property
    def base(self) -> SamplingConfig:
        """At temperature 1 and without a nucleus, so that the language itself is what an unguided
        sampler would draw from if it wrote one word at a time.
        """
        N = self.language.N
        unguided = GuidanceConfig(steps=0, dtype="float64")
        return SamplingConfig(
            unguided,
            self.draws,
            N,
            N,
            temperature=1.0,
            top_p=1.0,
            seed=self.seed,
        )

    def guided(
        self, weight: str | WeightFunction, M: int, eta: float, change: Change = None
    ) -> Int[Tensor, "draws N"]:
        """Answers under guidance, whose step size may change from step to step."""
        guidance = GuidanceConfig(weight, M, eta, dtype="float64")
        config = replace(self.base, guidance=guidance)
        config = change(config) if change else config
        found = generate(ExactDenoiser(self.language), self.reward, [PROMPT], config)
        return found.tokens[0]

    def score_function(self, M: int, eta: float) -> Int[Tensor, "draws N"]:
        """Answers under guidance by REINFORCE, leave one out."""
        reward = ScoreFunction(self.reward, torch.Generator().manual_seed(self.seed))
        guidance = GuidanceConfig("expectation", M, eta, dtype="float64")
        config = replace(self.base, guidance=guidance)
        return generate(ExactDenoiser(self.language), reward, [PROMPT], config).tokens[0]

    def lookahead(self, beta: float) -> Int[Tensor, "draws N"]:
        """At most six words are asked about at a position: the cost of three gradient steps."""
        most = min(6, self.language.V)
        denoiser = ExactDenoiser(self.language)
        found = lookahead(denoiser, self.reward, [PROMPT], self.base, candidates=most, beta=beta)
        return found.tokens[0]

    def smc(self, beta: float) -> Int[Tensor, "draws N"]:
        """Independent runs of a few particles each."""
        runs = self.draws // PARTICLES
        config = replace(self.base, trajectories=PARTICLES)
        found = smc(
            ExactDenoiser(self.language),
            self.reward,
            [PROMPT] * runs,
            config,
            beta=beta,
            keys=range(runs),
        )
        return found.tokens.flatten(0, 1)

    def mean_weight(self) -> float:
        """Of EntRGi at M = 3, eta = 0.5, over all positions, gradient steps and denoising steps, by
        draws of their own.
        """
        weights: list[Tensor] = []

        def note(record: DenoisingRecord) -> None:
            weights.append(record.weight.flatten())

        config = replace(
            self.base,
            guidance=GuidanceConfig("entrgi", 3, 0.5, dtype="float64"),
            trajectories=min(256, self.draws),
            seed=self.seed + 1,
        )
        generate(ExactDenoiser(self.language), self.reward, [PROMPT], config, observe=note)
        return float(torch.cat(weights).mean())

    def curves(
        self, names: Sequence[str]
    ) -> Mapping[str, Mapping[str, Callable[[], Int[Tensor, "draws N"]]]]:
        """For each method its settings, and how answers are drawn under each."""
        weights: dict[str, str | WeightFunction] = {
            "expectation": "expectation",
            "aps": "aps",
            "entrgi": "entrgi",
            "w = 0.5": Constant(0.5),
            "matched": Constant(self.mean_weight()),
        }
        places = [(3, eta) for eta in STEP_SIZES] + [(M, 0.5) for M in OTHER_STEPS]
        found: dict[str, dict[str, Callable[[], Int[Tensor, "draws N"]]]] = {}
        for name in names:
            if name in weights:
                guided = partial(self.guided, weights[name])
                found[name] = {_place(M, eta): partial(guided, M, eta) for M, eta in places}
            elif name in CHANGES:
                changed = partial(self.guided, "entrgi", 3, change=CHANGES[name])
                found[name] = {_place(3, eta): partial(changed, eta) for eta in STEP_SIZES}
            elif name == "loo":
                found[name] = {
                    _place(3, eta): partial(self.score_function, 3, eta) for eta in STEP_SIZES
                }
            else:
                draw = {"lookahead": self.lookahead, "smc": self.smc}[name]
                found[name] = {f"beta = {beta:g}": partial(draw, beta) for beta in BETAS}
        return found


def _place(M: int, eta: float) -> str:
    return f"M = {M}, eta = {eta:g}"
