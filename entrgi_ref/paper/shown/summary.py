"""From records to numbers: one value per cell and seed, then mean and standard error over seeds.

Methods are compared on the same prompts: on those of which all of them have an answer.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ..declared.experiments import METHODS
from ..declared.published import LMUNIT
from ..judged.judge import UNIT_TESTS
from ..judged.judging import without_digit
from ..run.records import (
    Key,
    Record,
    best,
    judges_of,
    key_of,
    read_declaration,
    read_experiment,
    read_records,
    require_judgement,
)


@dataclass(frozen=True)
class Measure:
    """A column of the tables."""

    label: str
    unit: str
    of: Callable[[Record], float | None]
    """Its value for one prompt, None if it has none."""


TOP1 = Measure("Top@1", "reward", lambda r: max(r["rewards"]))
AVERAGE = Measure("Avg@K", "reward", lambda r: statistics.fmean(r["rewards"]))
GOLD = Measure("Gold of the best", "points", lambda r: r["gold"][best(r)])


@dataclass(frozen=True, eq=False)
class JudgedBy:
    """What a judge says of a run."""

    name: str
    """`LMUnit` if it is that, else the name of its model."""
    backend: str
    unit_tests: tuple[str, ...]
    scores: Mapping[Key, float]
    replies: int
    without_digit: int
    """How many of its replies have none."""

    @classmethod
    def read(cls, folder: Path) -> JudgedBy:
        """Read the judgements of one judge."""
        declaration = read_declaration(folder)
        found = read_records(folder, require_judgement)
        without, replies = without_digit(found)
        model = str(declaration["model"]["name"])
        return cls(
            name="LMUnit" if model == LMUNIT else model.rsplit("/", 1)[-1],
            backend=str(declaration["backend"]),
            unit_tests=tuple(declaration["unit_tests"]),
            scores={key_of(r): r["score"] for r in found if r["status"] == "ok"},
            replies=replies,
            without_digit=without,
        )

    @property
    def is_the_papers(self) -> bool:
        """Whether it is LMUnit, asked by our words for the paper's criteria."""
        return self.name == "LMUnit" and self.unit_tests == UNIT_TESTS

    def measure(self, label: str) -> Measure:
        """Its scores as a column."""
        return Measure(label, "1 to 5", lambda r: self.scores.get(key_of(r)))


@dataclass(frozen=True)
class Value:
    """Mean and standard error over the seeds."""

    mean: float
    error: float | None
    """None for a single seed."""
    seeds: int
    prompts: int
    """Over all seeds."""

    def text(self, digits: int = 2) -> str:
        """`mean ± standard error`; the mean alone if there is one seed."""
        error = "" if self.error is None else f" ± {self.error:.{digits}f}"
        return f"{self.mean:.{digits}f}{error}".replace("-", "−")


def value(per_seed: Sequence[float], prompts: int) -> Value:
    """Mean and standard error (the sample deviation over the root of their number) over seeds."""
    n = len(per_seed)
    error = statistics.stdev(per_seed) / n**0.5 if n > 1 else None
    return Value(statistics.fmean(per_seed), error, n, prompts)


Place = tuple[str, int, int]
"""Benchmark, seed, index of the prompt."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder, read."""

    declaration: Mapping[str, Any]
    records: Sequence[Record]
    """Those that did not fail."""
    failed: Sequence[Record]
    judges: Sequence[JudgedBy]

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read a run, finished or not, and what judges say of it."""
        declaration, records = read_experiment(folder), read_records(folder)
        return cls(
            declaration,
            [record for record in records if record["status"] == "ok"],
            [record for record in records if record["status"] == "failed"],
            [JudgedBy.read(judge) for judge in judges_of(folder)],
        )

    @cached_property
    def measures(self) -> dict[str, Measure]:
        """What can be measured of it, by name. A judge's is `judge:` and its label."""
        found = {"top1": TOP1, "average": AVERAGE}
        for label, judge in self.judges_by_label.items():
            found["lmunit" if judge.is_the_papers else f"judge:{label}"] = judge.measure(label)
        if self.records and all("gold" in record for record in self.records):
            found["gold"] = GOLD
        return found

    @cached_property
    def judges_by_label(self) -> dict[str, JudgedBy]:
        """The judges by what they are called, no two alike."""
        names = [
            judge.name if judge.unit_tests == UNIT_TESTS else f"{judge.name}, other unit tests"
            for judge in self.judges
        ]
        counts = Counter(names)
        labels = [
            name if counts[name] == 1 else f"{name} #{number}"
            for number, name in enumerate(names, 1)
        ]
        return dict(zip(labels, self.judges, strict=True))

    @property
    def toy(self) -> bool:
        """Whether it ran on the toy, where nothing is published."""
        return bool(self.declaration["testbed"] != "dream")

    @property
    def prompts(self) -> int:
        """How many were asked for of each benchmark and seed, at most."""
        asked = self.declaration.get("asked", [])
        return max((n for one in asked for n in one["prompts"].values()), default=0)

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """In the order of the declaration."""
        return tuple(self.declaration["benchmarks"])

    @property
    def methods(self) -> tuple[str, ...]:
        """Those that it has records of."""
        there = {record["method"] for record in self.records}
        return tuple(method for method in METHODS if method in there)

    def variants(self, field: str) -> list[Any]:
        """The values of a field of the variants: reward models in the order of their sizes, numbers
        of gradient steps from the smallest.
        """
        there = {record["variant"][field] for record in self.records if field in record["variant"]}
        order = list(self.declaration["rewards"])
        return sorted(there, key=lambda v: order.index(v) if v in order else v)

    def select(self, **fields: Any) -> list[Record]:
        """The records with these fields, or with these fields of their variant."""
        return [
            record
            for record in self.records
            if all(record.get(k, record["variant"].get(k)) == v for k, v in fields.items())
        ]

    @cached_property
    def common(self) -> Callable[[str], set[Place]]:
        """Measure -> the prompts of which every method (and variant) has it that has any with that
        benchmark and seed. Only there are methods compared.
        """

        def places(measure: str) -> set[Place]:
            of = self.measures[measure].of
            cells: dict[tuple[str, int], dict[str, set[int]]] = {}
            for record in self.records:
                if of(record) is not None:
                    who = f"{record['method']} {sorted(record['variant'].items())}"
                    there = cells.setdefault((record["benchmark"], record["seed"]), {})
                    there.setdefault(who, set()).add(record["idx"])
            return {
                (benchmark, seed, idx)
                for (benchmark, seed), by_method in cells.items()
                for idx in set.intersection(*by_method.values())
            }

        return cache(places)

    @property
    def left_out(self) -> list[Record]:
        """Answers that do not count, as another method has none to that prompt."""
        common = self.common("top1")
        return [r for r in self.records if place_of(r) not in common]

    def per_seed(self, measure: str, records: Iterable[Record]) -> dict[int, float]:
        """Seed -> mean over its prompts, of those that all methods have."""
        values: dict[int, list[float]] = {}
        common, of = self.common(measure), self.measures[measure].of
        for record in records:
            found = of(record)
            if found is not None and place_of(record) in common:
                values.setdefault(record["seed"], []).append(found)
        return {seed: statistics.fmean(values[seed]) for seed in sorted(values)}

    def value(self, measure: str, **fields: Any) -> Value | None:
        """A measure of some cells, or None without records."""
        records, common = self.select(**fields), self.common(measure)
        means = self.per_seed(measure, records)
        prompts = sum(place_of(record) in common for record in records)
        return value(list(means.values()), prompts) if means else None


def place_of(record: Record) -> Place:
    """The prompt of a record."""
    return record["benchmark"], record["seed"], record["idx"]
