"""Runs of the paper's experiments for the tests: on the tiny checkpoints, and on networks tinier
still, which fail on demand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field

import torch
from typer.testing import CliRunner

from building.records import ROOT
from checkpoints import DREAM, REWARD
from entrgi_ref import GuidanceConfig, SamplingConfig
from entrgi_ref.paper.__main__ import app
from entrgi_ref.paper.declared.benchmarks import Benchmark
from entrgi_ref.paper.declared.costs import Costs
from entrgi_ref.paper.declared.plan import Plan
from entrgi_ref.paper.run.folder import RunFolder
from entrgi_ref.paper.run.records import key_of
from entrgi_ref.paper.run.runner import Runner
from tiny import TinyDenoiser, TinyReward

PROMPTS = [f"explain number {i}{' please' * (i % 4)}" for i in range(9)]


def benchmark_file(folder):
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    return path


def arguments(benchmark, out, *more, experiment="main"):
    """The options of a run that the issue of this project's experimenters is about, in small."""
    return [
        *("run", experiment, "--dream", str(DREAM), "--reward", str(REWARD)),
        *("--benchmark", str(benchmark), "--prompts", "6", "--seeds", "1,2", "--new-tokens", "12"),
        *("--denoising-steps", "12", "--trajectories", "2", "--batch-size", "2"),
        *("--device", "cpu", "--out", str(out)),
        *map(str, more),
    ]


def invoke(*words, code=0):
    done = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def start(words, launcher=(sys.executable,)):
    """A process of the command line, as users start it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*launcher, "-m", "entrgi_ref.paper", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=environment,
    )


def lines(folder):
    """All records of a folder, as they are written, timings aside."""
    found = []
    for file in (folder / "records").glob("*.jsonl"):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            del record["timing"]
            found.append(record)
    return found


def by_key(folder):
    """Key -> record, timings aside. None is there twice."""
    found = lines(folder)
    keyed = {key_of(record): record for record in found}
    assert len(keyed) == len(found)
    return keyed


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
            "benchmarks": {self.name: "digits"},
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


TINY_BASE = SamplingConfig(
    GuidanceConfig(steps=1, dtype="float64"), trajectories=2, new_tokens=4, denoising_steps=4
)


def tiny_run(folder, testbed=None, *, base=TINY_BASE, prompts=5, batch_size=2, **options):
    """Run an experiment in this process, on networks of one layer. Returns what it said."""
    testbed = testbed or TinyTestbed()
    plan = Plan.of(
        options.pop("experiment", "main"),
        base,
        options.pop("seeds", [1]),
        prompts,
        batch_size,
        options.pop("methods", ["bon", "entrgi"]),
    )
    said = []
    if options.pop("asked", False):
        options["asked"] = plan.asked(testbed)
    opened = RunFolder(folder, plan.declaration(testbed), **options)
    Runner(plan, testbed, opened, said.append).run()
    opened.close()
    return said
