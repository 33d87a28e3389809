"""A testbed whose networks cost nothing: an answer is a hash of what it is an answer to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import torch

from entrgi_ref import GuidanceConfig, SamplingConfig
from entrgi_ref.denoising import Generation
from entrgi_ref.paper.declared.benchmarks import Benchmark
from entrgi_ref.paper.declared.methods import Method
from entrgi_ref.paper.declared.plan import Plan
from entrgi_ref.paper.judged.judge import DIGITS

BASE = SamplingConfig(
    GuidanceConfig(steps=1, dtype="float64"), trajectories=2, new_tokens=4, denoising_steps=4
)
METHODS = ("bon", "entrgi")
REASON = "the networks give no number"


def number(*words):
    """In [0, 1), of 16 bits."""
    digest = hashlib.blake2b(repr(words).encode(), digest_size=2).digest()
    return int.from_bytes(digest, "big") / 2**16


class HashMethod(Method):
    takes_draws = False

    def answer(self, denoiser, reward, prompts, **_):
        if reward.dislikes.intersection(prompts):
            raise ValueError(REASON)
        K = self.config.trajectories
        responses = [
            [f"“{number(self.name, self.config.seed, p, k)}”\n{p}" for k in range(K)]
            for p in prompts
        ]
        rewards = torch.tensor(
            [[number(response) for response in each] for each in responses], dtype=torch.float64
        )
        nothing = torch.zeros(len(prompts), K, 1, dtype=torch.int64)
        return Generation(tuple(prompts), nothing, responses, rewards, self.config)


class HashPlan(Plan):
    def method(self, testbed, cell):
        found = super().method(testbed, cell)
        return HashMethod(found.name, found.config, found.options)


@dataclass(frozen=True)
class HashTestbed:
    """It gives no answer to prompts that it dislikes."""

    dislikes: frozenset[str] = frozenset()
    prompts: ClassVar = ("1", "22", "é\u2028", "4444")
    rewards: ClassVar = ("small",)
    main_reward: ClassVar = "small"
    device: ClassVar = "cpu"

    @property
    def benchmarks(self):
        return [Benchmark("digits", self.prompts, "digits")]

    @property
    def declaration(self):
        return {
            "testbed": "hash",
            "denoiser": {"name": "hash"},
            "rewards": {name: {"name": name} for name in self.rewards},
            "main_reward": self.main_reward,
            "benchmarks": {"digits": "digits"},
        }

    def examine(self, new_tokens):
        pass

    def denoiser(self):
        return self

    def reward(self, name):
        return self

    def gold(self, prompt, response):
        return number("gold", response)


class HashJudge:
    """A judge of this kind."""

    declaration: ClassVar = {"backend": "hash", "model": {"name": "hash"}, "precision": "none"}

    def load(self):
        return self

    def answer(self, questions):
        found = []
        for each in questions:
            digit = DIGITS[int(5 * number(each))]
            found.append([(digit, {digit: 0.0})])
        return found
