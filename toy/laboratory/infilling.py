"""`exact infilling`: samplers on wide languages, between two words that are given.

With an empty board a wide language leaves every word open, so weights are large. Between two given
words it leaves few, and weights are nearly as small as a large language model's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from . import distribution
from .experiment import Json
from .languages import NetworkReward, RewardKind, Wide
from .sampling import BETAS, STEP_SIZES, Samplers

METHODS = distribution.WIDE_METHODS
ENOUGH = 2.0
"""Nats: the least entropy of what may stand between the given words."""
COMPARED = tuple(("i", "infilling", "entrgi", other) for other in ("matched", "expectation", "aps"))


@dataclass(frozen=True, eq=False)
class Gap:
    """The words between two given ones, as a language of their own: a wide one, given both."""

    around: Wide
    first: int
    last: int

    @classmethod
    def draw(cls, around: Wide) -> Gap:
        """The ends of the first answer whose inside has an entropy of `ENOUGH`. No reward is
        asked.
        """
        g = torch.Generator().manual_seed(1_000 * around.seed + 6)
        while True:
            answer = around.sample(1, g)[0]
            gap = cls(around, int(answer[0]), int(answer[-1]))
            if gap.entropy >= ENOUGH:
                return gap

    @property
    def V(self) -> int:  # noqa: N802
        return self.around.V

    @property
    def N(self) -> int:  # noqa: N802
        return self.around.N - 2

    def whole(self, answers: Int[Tensor, "S N"]) -> Int[Tensor, "S around"]:
        """The answers with the given words at their ends."""
        ends = answers.new_tensor([self.first, self.last]).expand(len(answers), 2)
        return torch.cat([ends[:, :1], answers, ends[:, 1:]], 1)

    def conditionals(
        self, tokens: Int[Tensor, "S N"], masked: Bool[Tensor, "S N"]
    ) -> Float[Tensor, "S N V"]:
        around = nn.functional.pad(masked, (1, 1), value=False)
        return self.around.conditionals(self.whole(tokens), around)[:, 1:-1]

    def sample(self, count: int, generator: torch.Generator) -> Int[Tensor, "count N"]:
        """Word by word, each given all before it and both ends."""
        return torch.cat(
            [self._some(min(256, count - i), generator)[0] for i in range(0, count, 256)]
        )

    def _some(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Answers, and the log-probability of each."""
        tokens = torch.full((count, self.N), self.V)
        total = torch.zeros(count, dtype=torch.float64)
        for i in range(self.N):
            q = self.conditionals(tokens, tokens == self.V)[:, i]
            tokens[:, i] = q.multinomial(1, generator=generator).squeeze(1)
            total += q.gather(1, tokens[:, i, None]).squeeze(1).log()
        return tokens, total

    @cached_property
    def _given(self) -> float:
        """The log-probability of the two given words."""
        tokens, inside = self._some(1, torch.Generator().manual_seed(0))
        return float(self.around.log_likelihood(self.whole(tokens)) - inside)

    @property
    def entropy(self) -> float:
        """In nats, from 256 answers."""
        return float(-self._some(256, torch.Generator().manual_seed(0))[1].mean())

    def log_likelihood(self, answers: Int[Tensor, "S N"]) -> Float[Tensor, "S"]:
        return self.around.log_likelihood(self.whole(answers)) - self._given

    def gold(self, answers: Int[Tensor, "S N"]) -> Float[Tensor, "S"]:
        """In standard deviations over the whole language."""
        return self.around.gold(self.whole(answers))

    def meaning(self, width: int) -> Float[Tensor, "V width"]:
        return self.around.meaning(width)


@dataclass(frozen=True, eq=False)
class GapReward(NetworkReward):
    """A reward model that reads the given words, too."""

    gap: Gap | None = None

    def at(self, response: Int[Tensor, "S N"], masked: Bool[Tensor, "S N"]) -> NetworkReward:
        assert self.gap is not None
        around = nn.functional.pad(masked, (1, 1), value=False)
        return NetworkReward(self.network, self.gap.whole(response), around)

    def of(self, answers: Int[Tensor, "S N"]) -> Float[Tensor, "S"]:
        assert self.gap is not None
        return super().of(self.gap.whole(answers))


@dataclass(frozen=True)
class InfillingDesign:
    """Samplers between two words of a wide language each."""

    seeds: tuple[int, ...]
    draws: int
    methods: tuple[str, ...] = METHODS
    reward: RewardKind = field(default_factory=RewardKind)

    @property
    def settings(self) -> dict[str, Json]:
        return {
            "draws": self.draws,
            "methods": self.methods,
            "reward": asdict(self.reward),
            "wide": distribution.WIDE,
            "smoothing": distribution.SMOOTHING,
            "entropy": ENOUGH,
            "step_sizes": STEP_SIZES,
            "betas": BETAS,
            "levels": distribution.LEVELS,
        }

    @property
    def units(self) -> Sequence[str]:
        return [f"infilling-{seed}" for seed in self.seeds]

    def measure(self, unit: str) -> Json:
        seed = int(unit.removeprefix("infilling-"))
        around = Wide(seed, *distribution.WIDE, distribution.SMOOTHING)
        return measure(Gap.draw(around), self.draws, self.methods, self.reward)

    def summary(self, results: Mapping[str, Any]) -> tuple[str, Json]:
        rows = distribution.summarise(list(results.values()))
        return markdown(rows), rows


def markdown(rows: Mapping[str, Any]) -> str:
    """What the command prints."""
    return "\n\n".join(
        (answers_table(rows), distribution.matched_table(rows), distribution.places_table(rows))
    )


def answers_table(rows: Mapping[str, Any]) -> str:
    """The registered question with its answers."""
    return distribution.comparisons_table(distribution.answers(rows, COMPARED))


def measure(gap: Gap, draws: int, methods: Sequence[str], kind: RewardKind) -> dict[str, Any]:
    """One language: reward against the log-likelihood given up for it, beyond what the unguided
    sampler gives up because it writes some words together. That stands under `kl`.
    """
    trained = NetworkReward.trained(gap.around, kind, gap.around.seed)
    reward = GapReward(trained.network, gap=gap)

    samplers = Samplers(gap, reward, draws, gap.around.seed)
    unguided = samplers.guided("expectation", 0, 0.5)
    typical = float(gap.log_likelihood(unguided).mean())

    def point(answers: Tensor) -> dict[str, float]:
        return {
            "kl": typical - float(gap.log_likelihood(answers).mean()),
            "reward": float(reward.of(answers).mean()),
            "gold": float(gap.gold(answers).mean()),
        }

    exact = gap.sample(1024, torch.Generator().manual_seed(gap.around.seed))
    both = torch.stack([reward.of(exact), gap.gold(exact)])
    return {
        "kind": "infilling",
        "V": gap.V,
        "N": gap.N,
        "entropy": gap.entropy,
        "correlation": float(torch.corrcoef(both)[0, 1]),
        "unguided": point(unguided),
        "exact": point(exact),
        "matched": samplers.mean_weight(),
        "curves": {
            name: {
                place: point(draw())
                for place, draw in curve.items()
                if place.startswith(("M = 3,", "beta"))
            }
            for name, curve in samplers.curves(methods).items()
        },
        "segment": distribution.segment(replace(gap.around, smoothing=0.0), trained),
    }


def design(quick: bool, first_seed: int, units: int | None) -> InfillingDesign:
    """The command's."""
    count = units or (1 if quick else 12)
    seeds = tuple(range(first_seed, first_seed + count))
    if quick:
        return InfillingDesign(seeds, 64, ("expectation", "aps", "entrgi", "lookahead"))
    return InfillingDesign(seeds, 256)
