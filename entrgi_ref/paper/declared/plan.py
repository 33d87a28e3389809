"""An experiment with everything that decides its records."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from ...checks import choice, integer
from ...checks import seeds as checked_seeds
from ...commands.own_weights import OwnWeight, named
from ...config import SamplingConfig
from .costs import Costs
from .experiments import EXPERIMENTS, LABELS, Cell, Experiment
from .methods import Method
from .testbed import Testbed


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
    own_weights: Mapping[str, OwnWeight] = field(default_factory=dict)
    """The functions of the methods that are not ours."""

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

        A method may be a weight function of yours, as MODULE:FUNCTION. `gradient_steps` takes the
        place of the M of `base`, or of those that the experiment varies.
        """
        choice("experiment", name, EXPERIMENTS)
        experiment = EXPERIMENTS[name]
        if gradient_steps is not None:
            integer("gradient_steps", gradient_steps, minimum=0)
            if experiment.gradient_steps == (None,):
                base = base.guided(steps=gradient_steps)
            else:
                experiment = replace(experiment, gradient_steps=(gradient_steps,))
        if experiment.observed and base.constant_guidance.steps == 0:
            raise ValueError(
                f"gradient_steps: got 0, expected 1 or more: {name} shows their errors"
            )
        known = (*experiment.methods, *experiment.beside)
        names, own = named(methods, known, LABELS)
        sampled = checked_seeds(seeds)
        if prompts < 1:
            raise ValueError(f"prompts: got {prompts}, expected an integer of at least 1")
        size = None if batch_size == "auto" else _batch_size(batch_size)
        kept = tuple(m for m in known if m in names) + tuple(own) or experiment.methods
        return cls(experiment, base, sampled, prompts, size, kept, own)

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
        return self.method(testbed, cell).config

    def method(self, testbed: Testbed, cell: Cell) -> Method:
        """The method of a cell, with its settings."""
        base = replace(self.base, seed=cell.seed)
        if "gradient_steps" in cell.variant:
            base = base.guided(steps=int(cell.variant["gradient_steps"]))

        @cache
        def costs() -> Costs:
            # Of all prompts of the benchmark, so that a run may be given more of them.
            (benchmark,) = [b for b in testbed.benchmarks if b.name == cell.benchmark]
            reward = self.reward(testbed, cell)
            return testbed.costs(reward, benchmark.prompts, self.base.new_tokens)

        return Method.of(cell.method, base, costs, self.own_weights)

    @staticmethod
    def reward(testbed: Testbed, cell: Cell) -> str:
        """The reward model of a cell."""
        return str(cell.variant.get("reward", testbed.main_reward))

    def asked(self, testbed: Testbed) -> dict[str, Any]:
        """What of the run is to be computed: which cells, and how many prompts in each."""
        return {
            "methods": list(self.methods),
            **({"own_weights": own} if (own := self.declared_weights) else {}),
            "seeds": list(self.seeds),
            "variants": [
                dict(v) for v in self.experiment.variants(testbed.rewards, testbed.main_reward)
            ],
            "prompts": {b.name: min(self.prompts, len(b.prompts)) for b in testbed.benchmarks},
        }

    @property
    def declared_weights(self) -> dict[str, dict[str, str]]:
        """Method -> where its function is from, for those that are not ours."""
        return {name: weight.declaration for name, weight in self.own_weights.items()}

    def declaration(self, testbed: Testbed) -> dict[str, Any]:
        """What the run is. Seeds, methods and the number of prompts are left out: a folder may be
        given more of them. The prompts of a small run are the first of a large one's.
        """
        settings = json.loads(self.base.to_json())
        del settings["seed"]
        return {
            "experiment": self.experiment.name,
            "settings": settings,
            "batch_size": "auto" if self.batch_size is None else self.batch_size,
            **testbed.declaration,
        }


def prompts_of(testbed: Testbed) -> Callable[[Mapping[str, Any]], str | None]:
    """The question which prompt a record of this testbed is of; None of a benchmark or an index
    that it does not have.
    """
    benchmarks = {benchmark.name: benchmark for benchmark in testbed.benchmarks}

    @cache
    def drawn(name: str, seed: int) -> list[str]:
        return benchmarks[name].drawn(seed, len(benchmarks[name].prompts))

    def prompt(record: Mapping[str, Any]) -> str | None:
        if record["benchmark"] not in benchmarks:
            return None
        prompts, idx = drawn(record["benchmark"], record["seed"]), record["idx"]
        return prompts[idx] if idx < len(prompts) else None

    return prompt


def _batch_size(given: str | int) -> int:
    known = isinstance(given, int) or re.fullmatch("[0-9]{1,18}", given)
    size = int(given) if known else 0
    if size < 1:
        raise ValueError(f"batch_size: got {given!r}, expected auto or an integer of at least 1")
    return size
