"""The toy as a testbed of the paper's experiments: `python -m toy run main`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from entrgi_ref.checks import choice
from entrgi_ref.paper.declared.benchmarks import Benchmark
from entrgi_ref.paper.declared.costs import Costs

from .laboratory import measured, templates
from .language import split_prompts
from .testbed import Testbed, gold_score
from .training import REWARDS, Track, no_progress

Load = Callable[[str], Testbed]
"""The networks with a reward model of a size."""


@dataclass(eq=False)
class ToyTestbed:
    """The mask predictor, reward models of three sizes (or the quick one), the gold score."""

    load: Load
    quick: bool
    training_seed: int
    _loaded: dict[str, Testbed] = field(default_factory=dict, init=False)

    @property
    def rewards(self) -> tuple[str, ...]:
        return ("medium",) if self.quick else tuple(REWARDS)

    @property
    def main_reward(self) -> str:
        return "medium"

    @property
    def benchmarks(self) -> Sequence[Benchmark]:
        held_out = tuple(map(str, split_prompts()[1]))
        return [Benchmark("toy", held_out, f"{len(held_out)} held-out prompts")]

    @property
    def declaration(self) -> Mapping[str, Any]:
        size = "quick" if self.quick else "full"
        return {
            "testbed": "toy",
            "denoiser": f"{size}, training seed {self.training_seed}",
            "rewards": {name: {"name": f"toy-{name}"} for name in self.rewards},
            "main_reward": self.main_reward,
            "benchmarks": {b.name: b.source for b in self.benchmarks},
        }

    @property
    def device(self) -> str:
        return f"cpu, {torch.get_num_threads()} threads"

    def _testbed(self, reward: str) -> Testbed:
        choice("reward", reward, self.rewards)
        if reward not in self._loaded:
            self._loaded[reward] = self.load(reward)
        return self._loaded[reward]

    def examine(self, new_tokens: int) -> None:
        """Nothing is loaded from elsewhere."""

    def denoiser(self) -> Any:
        return self._testbed(self.main_reward).denoiser

    def reward(self, name: str) -> Any:
        return self._testbed(name).reward

    def costs(self, reward: str, prompts: Sequence[str], new_tokens: int) -> Costs:
        return self._testbed(reward).costs

    def gold(self, prompt: str, response: str) -> float | None:
        return gold_score(prompt, response)


@dataclass(eq=False)
class LanguageTestbed:
    """A template language of the laboratory in the toy's place, with networks of its own."""

    seed: int
    """Of the language and of its networks."""
    quick: bool
    track: Track = no_progress

    @cached_property
    def _testbed(self) -> templates.Testbed:
        plan = measured.QUICK if self.quick else measured.FULL
        return templates.Testbed.load(*measured.recipes_of(plan, self.seed), self.track)

    @property
    def rewards(self) -> tuple[str, ...]:
        return measured.SIZES

    @property
    def main_reward(self) -> str:
        return measured.MAIN

    @property
    def benchmarks(self) -> Sequence[Benchmark]:
        plan = measured.QUICK if self.quick else measured.FULL
        prompts = templates.held_out_prompts(templates.draw_language(self.seed, plan.words))
        return [Benchmark("language", prompts, f"{len(prompts)} held-out prompts")]

    @property
    def declaration(self) -> Mapping[str, Any]:
        return {
            "testbed": "template language",
            "denoiser": f"{'quick' if self.quick else 'full'}, language {self.seed}",
            "rewards": {name: {"name": f"language-{self.seed}-{name}"} for name in self.rewards},
            "main_reward": self.main_reward,
            "benchmarks": {b.name: b.source for b in self.benchmarks},
        }

    @property
    def device(self) -> str:
        return f"cpu, {torch.get_num_threads()} threads"

    def examine(self, new_tokens: int) -> None:
        """Nothing is loaded from elsewhere."""

    def denoiser(self) -> Any:
        return self._testbed.denoiser

    def reward(self, name: str) -> Any:
        choice("reward", name, self.rewards)
        return self._testbed.rewards[name]

    def costs(self, reward: str, prompts: Sequence[str], new_tokens: int) -> Costs:
        return self._testbed.costs(reward)

    def gold(self, prompt: str, response: str) -> float | None:
        return self._testbed.gold_score(prompt, response)
