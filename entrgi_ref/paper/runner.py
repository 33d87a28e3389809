"""Run an experiment: every prompt of every cell, in batches, each written as soon as it is done.

Which prompts share a batch follows from the list of prompts and the batch size alone, so a run that
was interrupted computes the same batches again and writes what is missing. Processes share the work
by taking the next batch that nobody holds; none waits for another.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..checks import choice, integer
from ..commands.memory import out_of_memory
from ..config import SamplingConfig
from ..denoising import Generation, generate
from .errors_by_prompt import ErrorsByPrompt
from .experiments import EXPERIMENTS, Cell, Experiment
from .records import Key, Record, RunFolder, fingerprint, key_of
from .testbed import Testbed

AUTO_BATCH = 16
"""Prompts in a batch to begin with under --batch-size auto; halved until it fits."""
POLL_SECONDS = 2.0
"""How often to look for batches whose process has died, once nothing else is left."""


@dataclass(frozen=True)
class Plan:
    """An experiment with everything that decides its records."""

    experiment: Experiment
    base: SamplingConfig
    seeds: tuple[int, ...]
    prompts: int
    """Per benchmark and seed."""
    batch_size: int | None
    """None finds what fits."""
    methods: tuple[str, ...]

    @classmethod
    def of(
        cls,
        name: str,
        base: SamplingConfig,
        seeds: Sequence[int],
        prompts: int,
        batch_size: str | int,
        methods: Sequence[str] = (),
        gradient_steps: int | None = None,
    ) -> Plan:
        """Check and complete what the command line says.

        `gradient_steps` takes the place of the M of `base`, or of those that the experiment varies.
        """
        choice("experiment", name, EXPERIMENTS)
        experiment = EXPERIMENTS[name]
        if gradient_steps is not None:
            integer("gradient_steps", gradient_steps, minimum=0)
            if experiment.gradient_steps == (None,):
                base = replace(base, guidance=replace(base.guidance, steps=gradient_steps))
            else:
                experiment = replace(experiment, gradient_steps=(gradient_steps,))
        if experiment.observed and base.guidance.steps == 0:
            raise ValueError(
                f"gradient_steps: got 0, expected 1 or more: {name} shows their errors"
            )
        for method in methods:
            choice("methods", method, experiment.methods)
        if not seeds or len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds: got {list(seeds)}, expected different integers")
        for seed in seeds:
            if not 0 <= seed < 2**63:
                raise ValueError(f"seeds: got {seed}, expected integers from 0 to 2^63 - 1")
        if prompts < 1:
            raise ValueError(f"prompts: got {prompts}, expected an integer of at least 1")
        size = None if batch_size == "auto" else _batch_size(batch_size)
        kept = tuple(m for m in experiment.methods if m in methods) or experiment.methods
        return cls(experiment, base, tuple(seeds), prompts, size, kept)

    def cells(self, testbed: Testbed) -> Iterator[Cell]:
        """All cells, seed by seed, so that a run that is stopped early has something of each."""
        variants = self.experiment.variants(testbed.rewards, testbed.main_reward)
        for seed in self.seeds:
            for variant in variants:  # outside: another reward model has to be loaded
                for benchmark in testbed.benchmarks:
                    for method in self.methods:
                        yield Cell(self.experiment.name, benchmark.name, method, variant, seed)

    def drawn(self, testbed: Testbed, cell: Cell) -> list[str]:
        """The prompts of a cell."""
        (benchmark,) = [b for b in testbed.benchmarks if b.name == cell.benchmark]
        return benchmark.drawn(cell.seed, self.prompts)

    def settings(self, testbed: Testbed, cell: Cell) -> SamplingConfig:
        """The settings of a cell."""
        steps = cell.variant.get("gradient_steps", self.base.guidance.steps)
        guided = replace(self.base.guidance, steps=int(steps))
        base = replace(self.base, guidance=guided, seed=cell.seed)
        if cell.method not in ("bon", "bon_equal_compute"):
            return replace(base, guidance=replace(guided, weight=cell.method))
        unguided = replace(base, guidance=replace(guided, steps=0))
        if cell.method == "bon":
            return unguided
        costs = testbed.costs(
            self.reward(testbed, cell), self.drawn(testbed, cell), self.base.new_tokens
        )
        return replace(unguided, trajectories=costs.equal_trajectories(base, unguided))

    @staticmethod
    def reward(testbed: Testbed, cell: Cell) -> str:
        """The reward model of a cell."""
        return str(cell.variant.get("reward", testbed.main_reward))

    def asked(self, testbed: Testbed) -> dict[str, Any]:
        """What of the run is to be computed: which cells, and how many prompts in each."""
        return {
            "methods": list(self.methods),
            "seeds": list(self.seeds),
            "variants": [
                dict(v) for v in self.experiment.variants(testbed.rewards, testbed.main_reward)
            ],
            "prompts": {b.name: min(self.prompts, len(b.prompts)) for b in testbed.benchmarks},
        }

    def declaration(self, testbed: Testbed) -> dict[str, Any]:
        """What the run is. Seeds and methods are left out: a folder may be given more of them."""
        settings = json.loads(self.base.to_json())
        del settings["seed"]
        return {
            "experiment": self.experiment.name,
            "settings": settings,
            "prompts": self.prompts,
            "batch_size": "auto" if self.batch_size is None else self.batch_size,
            **testbed.declaration,
        }


def _batch_size(given: str | int) -> int:
    try:
        size = int(given)
    except ValueError:
        size = 0
    if size < 1:
        raise ValueError(f"batch_size: got {given!r}, expected auto or an integer of at least 1")
    return size


@dataclass(frozen=True)
class Batch:
    """Some prompts of a cell, next to each other."""

    cell: Cell
    start: int
    prompts: tuple[str, ...]

    @property
    def keys(self) -> list[Key]:
        """Those of its records."""
        return [key_of(self.identity(i)) for i in range(len(self.prompts))]

    def identity(self, i: int) -> Record:
        """The fields that say which record it is."""
        cell = self.cell
        return {
            "experiment": cell.experiment,
            "benchmark": cell.benchmark,
            "method": cell.method,
            "variant": dict(cell.variant),
            "seed": cell.seed,
            "idx": self.start + i,
        }

    def part(self, start: int, size: int) -> Batch:
        """Some of its prompts."""
        return Batch(self.cell, self.start + start, self.prompts[start : start + size])


def batches(plan: Plan, testbed: Testbed) -> list[Batch]:
    """All batches of a run, in the order in which they are taken."""
    size = plan.batch_size or AUTO_BATCH
    found = []
    for cell in plan.cells(testbed):
        prompts = plan.drawn(testbed, cell)
        for start in range(0, len(prompts), size):
            found.append(Batch(cell, start, tuple(prompts[start : start + size])))
    return found


@dataclass
class Runner:
    """One process of a run."""

    plan: Plan
    testbed: Testbed
    folder: RunFolder
    say: Callable[[str], None]
    progress: Callable[[Record], None] = lambda record: None

    def __post_init__(self) -> None:
        self._declaration = self.plan.declaration(self.testbed)
        self._settings: dict[str, SamplingConfig] = {}
        self._fits: dict[str, int] = {}
        """Cell, whatever its seed -> the most prompts that have not yet run out of memory."""

    def run(self) -> None:
        """Compute what is missing, until nothing is."""
        left = batches(self.plan, self.testbed)
        while True:
            self.folder.refresh()
            left = [batch for batch in left if not self._done(batch)]
            if not left:
                return
            taken = [self._take(batch) for batch in left]
            if not any(taken):
                time.sleep(POLL_SECONDS)  # others hold all that is left; one of them may die

    def _done(self, batch: Batch) -> bool:
        return all(key in self.folder.done for key in batch.keys)

    def _take(self, batch: Batch) -> bool:
        """Compute a batch unless another process holds it; whether it was ours."""
        with self.folder.lock(repr(batch.keys[0])) as ours:
            if not ours:
                return False
            self.folder.refresh()
            if not self._done(batch):
                # A network that cannot be loaded ends the run: it is not the fault of the prompts.
                self.testbed.reward(self.plan.reward(self.testbed, batch.cell))
                for record in self._records(batch, self._config(batch.cell)):
                    fresh = key_of(record) not in self.folder.done
                    self.folder.write(record)
                    if fresh:
                        self.progress(record)
            return True

    def _config(self, cell: Cell) -> SamplingConfig:
        if repr(cell) not in self._settings:
            self._settings[repr(cell)] = self.plan.settings(self.testbed, cell)
        return self._settings[repr(cell)]

    def _records(self, batch: Batch, config: SamplingConfig) -> Iterator[Record]:
        """The records of a batch; prompt by prompt if it fails, in halves if it does not fit."""
        kind = repr(replace(batch.cell, seed=0))
        size = min(self._fits.get(kind, len(batch.prompts)), len(batch.prompts))
        for start in range(0, len(batch.prompts), size):
            part = batch.part(start, size)
            alone = len(part.prompts) == 1
            try:
                yield from self._generated(part, config)
            except Exception as error:
                full = out_of_memory(error)
                if isinstance(error, torch.AcceleratorError) and not full:
                    raise  # the device is lost, and with it every prompt that would come now
                reason = " ".join(str(error).split()) or type(error).__name__
            else:
                continue
            # Outside of the handler, which would keep the failed batch's tensors alive.
            if full:
                _empty_cache()
            if alone:
                self.say(f"failed: {reason}")
                yield self._failed(part, config, reason)
            elif full:
                self._fits[kind] = len(part.prompts) // 2
                self.say(
                    f"out of memory with {len(part.prompts)} prompts, going on with "
                    f"{self._fits[kind]}"
                )
                yield from self._records(part, config)
            else:
                self.say(f"a batch failed, its prompts are tried one by one: {reason}")
                for i in range(len(part.prompts)):
                    yield from self._records(part.part(i, 1), config)

    def _generated(self, batch: Batch, config: SamplingConfig) -> list[Record]:
        denoiser = self.testbed.denoiser()
        reward = self.testbed.reward(self.plan.reward(self.testbed, batch.cell))
        errors = None
        if self.plan.experiment.observed:
            errors = ErrorsByPrompt(len(batch.prompts), config.trajectories, reward.embeddings)
        start = time.perf_counter()
        generation = generate(denoiser, reward, batch.prompts, config, observe=errors)
        seconds = time.perf_counter() - start
        return [
            self._record(batch, i, config)
            | {
                "status": "ok",
                "reason": None,
                **self._answers(generation, i),
                "errors": errors.of(i) if errors else None,
                "timing": {"seconds_per_prompt": seconds / len(batch.prompts)},
            }
            for i in range(len(batch.prompts))
        ]

    def _answers(self, generation: Generation, i: int) -> Mapping[str, Any]:
        prompt, responses = generation.prompts[i], generation.responses[i]
        gold = [self.testbed.gold(prompt, response) for response in responses]
        scores = {} if None in gold else {"gold": gold}
        return {"responses": responses, "rewards": generation.rewards[i].tolist(), **scores}

    def _failed(self, batch: Batch, config: SamplingConfig, reason: str) -> Record:
        failed = {"status": "failed", "reason": reason, "responses": [], "rewards": []}
        return self._record(batch, 0, config) | failed | {"errors": None, "timing": {}}

    def _record(self, batch: Batch, i: int, config: SamplingConfig) -> Record:
        return {
            **batch.identity(i),
            "prompt": batch.prompts[i],
            "settings": {
                **json.loads(config.to_json()),
                "denoiser": self._declaration["denoiser"],
                "reward": self.plan.reward(self.testbed, batch.cell),
            },
            "fingerprint": fingerprint(self._declaration),
            "versions": versions(),
            "device": self.testbed.device,
        }


def versions() -> dict[str, str]:
    """Of what computes the records."""
    import sys

    from .. import __version__

    found = {
        "entrgi_ref": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if "transformers" in sys.modules:
        found["transformers"] = sys.modules["transformers"].__version__
    return found


def _empty_cache() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
