"""From records to numbers: one value per cell and seed, then mean and standard error over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..declared.experiments import METHODS
from ..run.records import JUDGED, Key, Record, best, key_of, read_experiment, read_records


@dataclass(frozen=True)
class Measure:
    """A column of the tables."""

    label: str
    unit: str
    of: Callable[[Record], float]
    """Its value for one prompt."""


MEASURES = {
    "top1": Measure("Top@1", "reward", lambda r: max(r["rewards"])),
    "average": Measure("Avg@K", "reward", lambda r: statistics.fmean(r["rewards"])),
    "lmunit": Measure("LMUnit", "1 to 5", lambda r: r["judgement"]),
    "gold": Measure("Gold of the best", "points", lambda r: r["gold"][best(r)]),
}


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


@dataclass(frozen=True)
class Run:
    """A run folder, read."""

    declaration: Mapping[str, Any]
    records: Sequence[Record]
    """Those that did not fail, with `judgement` where a judge has scored the best answer."""
    failed: Sequence[Record]
    measures: tuple[str, ...]
    """Those of `MEASURES` that it has."""
    unjudged: int
    """Answers that a judge has left out; 0 without a judge."""

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read a run, finished or not, and its judgements if there are some."""
        declaration, records = read_experiment(folder), read_records(folder)
        judged: dict[Key, float] = {}
        if (folder / JUDGED / "run.json").is_file():
            found = read_records(folder / JUDGED)
            judged = {key_of(r): r["score"] for r in found if r["status"] == "ok"}
        fine = [
            {**record, "judgement": judged.get(key_of(record))}
            for record in records
            if record["status"] == "ok"
        ]
        measures = ["top1", "average"]
        if judged:
            measures.append("lmunit")
        if fine and all("gold" in record for record in fine):
            measures.append("gold")
        return cls(
            declaration,
            fine,
            [record for record in records if record["status"] == "failed"],
            tuple(measures),
            sum(record["judgement"] is None for record in fine) if judged else 0,
        )

    @property
    def toy(self) -> bool:
        """Whether it ran on the toy, where nothing is published."""
        return bool(self.declaration["testbed"] != "dream")

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

    def per_seed(self, measure: str, records: Iterable[Record]) -> dict[int, float]:
        """Seed -> mean over its prompts. Answers that are not judged are left out of `lmunit`."""
        values: dict[int, list[float]] = {}
        for record in records:
            if measure != "lmunit" or record["judgement"] is not None:
                values.setdefault(record["seed"], []).append(MEASURES[measure].of(record))
        return {seed: statistics.fmean(values[seed]) for seed in sorted(values)}

    def value(self, measure: str, **fields: Any) -> Value | None:
        """A measure of some cells, or None without records."""
        records = self.select(**fields)
        means = self.per_seed(measure, records)
        return value(list(means.values()), len(records)) if means else None
