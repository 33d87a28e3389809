"""A testbed of networks of one layer, which fail on demand. Imports little: so do its processes."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from entrgi_ref.paper.declared.benchmarks import Benchmark
from entrgi_ref.paper.declared.costs import Costs
from tiny import TinyDenoiser, TinyReward


class FailingDenoiser(TinyDenoiser):
    """Runs out of memory above a number of trajectories."""

    most_rows = 10**6

    def __call__(self, tokens, valid, masked):
        if len(tokens) > self.most_rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().__call__(tokens, valid, masked)


@dataclass
class FailingReward(TinyReward):
    """Gives no number for the prompts that it dislikes."""

    dislikes: tuple[str, ...] = ()

    def score(self, prompts, responses):
        scores = super().score(prompts, responses)
        bad = torch.tensor([prompt in self.dislikes for prompt in prompts])
        return scores.masked_fill(bad, torch.nan)


@dataclass
class TinyTestbed:
    """Networks of one layer, whose prompts are digits."""

    prompts: tuple[str, ...] = ("1", "22", "333", "4444", "55555")
    name: str = "digits"
    denoise: FailingDenoiser = field(default_factory=lambda: FailingDenoiser(1))
    judge: FailingReward = field(default_factory=lambda: FailingReward(2))
    rewards: tuple[str, ...] = ("small", "large")
    main_reward: str = "large"
    device: str = "cpu"
    vocabulary_batch: int | None = None
    loads: int = 0

    @property
    def benchmarks(self):
        return [Benchmark(self.name, self.prompts, "digits")]

    @property
    def declaration(self):
        return {
            "testbed": "tiny",
            "denoiser": {"name": "tiny"},
            "rewards": {name: {"name": name} for name in self.rewards},
            "main_reward": self.main_reward,
            "benchmarks": {benchmark.name: "digits" for benchmark in self.benchmarks},
        }

    def examine(self, new_tokens):
        pass

    def denoiser(self):
        return self.denoise

    def reward(self, name):
        assert name in self.rewards
        self.loads += 1
        return self.judge

    def costs(self, reward, prompts, new_tokens):
        return Costs(denoiser=2.0, reward=1.0)

    def gold(self, prompt, response):
        return None
