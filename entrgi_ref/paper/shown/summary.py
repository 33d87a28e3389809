"""From records to numbers: one value per cell and seed, then mean and standard error over seeds;
and differences between methods, prompt by prompt.

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

from ...watching import printable
from ..declared.experiments import in_order
from ..declared.published import LMUNIT
from ..judged.judge import UNIT_TESTS
from ..judged.judging import without_digit
from ..run.records import (
    Key,
    best,
    judges_of,
    key_of,
    of_best,
    read_by_key,
    read_experiment,
    read_judge,
    read_records,
)
from ..run.required import Record
from .paired import Compared, Difference, Place, paired


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
    model: str
    """With its commit, if it is from the hub."""
    backend: str
    unit_tests: tuple[str, ...]
    scores: Mapping[Key, float]
    judged: int
    """Answers, those too whose judgement failed."""
    replies: int
    without_digit: int
    """How many of its replies have none."""

    @classmethod
    def read(cls, folder: Path, run: str, answers: Sequence[Record]) -> JudgedBy:
        """Read what one judge says of the answers of the run with the fingerprint `run`."""
        declaration, there = read_judge(folder, run), set(map(key_of, answers))
        found = [r for r in read_records(folder, of_best(answers)) if key_of(r) in there]
        without, replies = without_digit(found)
        model, commit = str(declaration["model"]["name"]), declaration["model"].get("commit")
        return cls(
            name="LMUnit" if model == LMUNIT else printable(model.rsplit("/", 1)[-1]),
            model=printable(model if commit is None else f"{model}@{commit}"),
            backend=str(declaration["backend"]),
            unit_tests=tuple(declaration["unit_tests"]),
            scores={key_of(r): r["score"] for r in found if r["status"] == "ok"},
            judged=len(found),
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


def _all(record: Record) -> Record:
    return record


def _numbers(record: Record) -> Record:
    versions = record.get("versions", {}).get("entrgi_ref", "unknown")
    return {
        **{name: record[name] for name in IN_TABLES if name in record},
        "same_prompt": hash(record["prompt"]),
        "versions": {"entrgi_ref": versions},
    }


def _with_texts(record: Record) -> Record:
    return {**_numbers(record), "responses": record["responses"]}


IN_TABLES = (
    *("experiment", "benchmark", "method", "variant", "seed", "idx", "status", "reason"),
    *("rewards", "gold", "errors", "commit"),
)
"""The fields that tables and figures are made of."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder, read."""

    declaration: Mapping[str, Any]
    records: Sequence[Record]
    """Those that did not fail."""
    failed: Sequence[Record]
    judges: Sequence[JudgedBy]

    @classmethod
    def read(cls, folder: Path, *, whole: bool = True) -> Run:
        """Read a run, finished or not, and what judges say of it.

        Unless it is wanted `whole`, texts and settings are left out: of 100,000 records they are
        most of a gigabyte.
        """
        declaration, judges = read_experiment(folder), judges_of(folder)
        keep = _all if whole else _with_texts if judges else _numbers

        by_key = read_by_key(folder, keep=keep)
        records = [by_key[key] for key in sorted(by_key)]
        answers = [record for record in records if record["status"] == "ok"]
        run = declaration["fingerprint"]
        return cls(
            declaration,
            answers,
            [record for record in records if record["status"] == "failed"],
            [JudgedBy.read(judge, run, answers) for judge in judges],
        )

    @cached_property
    def measures(self) -> dict[str, Measure]:
        """What can be measured of it, by name. A judge's is `judge:` and its label."""
        found = {"top1": TOP1, "average": AVERAGE}
        for label, judge in self.judges_by_label.items():
            found[self.measure_of(label)] = judge.measure(label)
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

    def measure_of(self, label: str) -> str:
        """The name of a judge's measure: `lmunit` if it is the paper's and the only such."""
        papers = [judge for judge in self.judges if judge.is_the_papers]
        return "lmunit" if papers == [self.judges_by_label[label]] else f"judge:{label}"

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

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """Those that it has records of."""
        return tuple(in_order({common["method"] for common, _ in self._cells}))

    def variants(self, field: str) -> list[Any]:
        """The values of a field of the variants: reward models in the order of their sizes, numbers
        of gradient steps from the smallest.
        """
        there = {common[field] for common, _ in self._cells if field in common}
        order = list(self.declaration["rewards"])
        return sorted(there, key=lambda v: order.index(v) if v in order else v)

    @cached_property
    def _cells(self) -> list[tuple[dict[str, Any], list[Record]]]:
        """The records of each cell, with the fields that they have in common."""
        found: dict[tuple[object, ...], tuple[dict[str, Any], list[Record]]] = {}
        for record in self.records:
            cell = record["benchmark"], record["method"], record["seed"], repr(record["variant"])
            if cell not in found:
                common = {name: record[name] for name in ("benchmark", "method", "seed")}
                found[cell] = ({**record["variant"], **common}, [])
            found[cell][1].append(record)
        return list(found.values())

    def select(self, **fields: Any) -> list[Record]:
        """The records with these fields, or with these fields of their variant."""
        within = {name: value for name, value in fields.items() if name == "idx"}
        return [
            record
            for common, records in self._cells
            if all(common.get(k) == v for k, v in fields.items() if k not in within)
            for record in records
            if all(record[k] == v for k, v in within.items())
        ]

    @cached_property
    def common(self) -> Callable[[str], set[Place]]:
        """Measure -> the prompts of which every method (and variant) has it that has any of that
        benchmark. Only there are methods compared.
        """

        def places(measure: str) -> set[Place]:
            of = self.measures[measure].of
            found: dict[str, dict[str, set[Place]]] = {}
            for record in self.records:
                if of(record) is not None:
                    who = f"{record['method']} {sorted(record['variant'].items())}"
                    by_method = found.setdefault(record["benchmark"], {})
                    by_method.setdefault(who, set()).add(place_of(record))
            common = [set.intersection(*by_method.values()) for by_method in found.values()]
            return set().union(*common)

        return cache(places)

    def compared(self, **fields: Any) -> list[Record]:
        """Those of `select` to whose prompts all methods have an answer."""
        common = self.common("top1")
        return [record for record in self.select(**fields) if place_of(record) in common]

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
        return self._value(measure, frozenset(fields.items()))

    @cached_property
    def _value(self) -> Callable[[str, frozenset[tuple[str, Any]]], Value | None]:
        """Tables, data and figures ask for the same numbers."""

        def found(measure: str, fields: frozenset[tuple[str, Any]]) -> Value | None:
            records, common = self.select(**dict(fields)), self.common(measure)
            means = self.per_seed(measure, records)
            prompts = sum(place_of(record) in common for record in records)
            return value(list(means.values()), prompts) if means else None

        return cache(found)

    @property
    def baseline(self) -> str:
        """The method that the others are compared with: Best-of-N, or the first of those that have
        run.
        """
        return self.methods[0]

    @cached_property
    def paired(self) -> Callable[[str], dict[Compared, Difference]]:
        """Benchmark -> the differences to the baseline with the same variant, on the prompts that
        all methods have.
        """
        prompts = {place_of(record): _same_prompt(record) for record in self.records}

        def differences(benchmark: str) -> dict[Compared, Difference]:
            values: dict[Compared, dict[Place, float]] = {}
            for name, measure in self.measures.items():
                common = self.common(name)
                for record in self.select(benchmark=benchmark):
                    place, found = place_of(record), measure.of(record)
                    if place in common and found is not None:
                        who = compared_of(name, record["method"], record["variant"])
                        values.setdefault(who, {})[place] = found
            pairs = {}
            for name, method, variant in values:
                first = values.get((name, self.baseline, variant))
                if method != self.baseline and first is not None:
                    pairs[name, method, variant] = (values[name, method, variant], first)
            return paired(pairs, prompts)

        return cache(differences)


def compared_of(measure: str, method: str, variant: Mapping[str, str | int]) -> Compared:
    """What a difference is found by."""
    return measure, method, frozenset(variant.items())


def _same_prompt(record: Record) -> int:
    """Equal for records of one prompt. Seeds shuffle prompts, so its index is not."""
    return int(record["same_prompt"]) if "same_prompt" in record else hash(record["prompt"])


def place_of(record: Record) -> Place:
    """The prompt of a record."""
    return record["benchmark"], record["seed"], record["idx"]
