"""The demo's table: measures per method, their intervals, and their paired differences to
Best-of-N.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entrgi_ref.paper.declared.experiments import LABELS

from .statistics import Estimate, bootstrap, student

Record = dict[str, Any]
"""What one method did with one prompt and seed: see `toy.demo.records_of`."""


@dataclass(frozen=True)
class Measure:
    """A column of the table."""

    label: str
    unit: str
    digits: int


MEASURES = {
    "top1": Measure("Top@1", "reward", 2),
    "average": Measure("Avg@K", "reward", 2),
    "gold_best": Measure("Gold of the best", "points", 2),
    "gold_mean": Measure("Gold, mean", "points", 2),
    "log_likelihood": Measure("Log-likelihood", "nats/token", 2),
    "valid": Measure("Valid", "share", 3),
}


def measures_of(record: Record) -> dict[str, float]:
    """The table's measures of one record."""
    rewards = record["rewards"]
    return {
        "top1": max(rewards),
        "average": float(np.mean(rewards)),
        "gold_best": record["gold"][int(np.argmax(rewards))],
        "gold_mean": float(np.mean(record["gold"])),
        "log_likelihood": float(np.mean(record["log_likelihood"])),
        "valid": float(np.mean(record["valid"])),
    }


def by_prompt(records: Sequence[Record], method: str, measure: str) -> NDArray[np.float64]:
    """A measure of a method for each prompt, averaged over the seeds."""
    values: dict[int, list[float]] = {}
    for record in records:
        if record["method"] == method:
            values.setdefault(record["idx"], []).append(measures_of(record)[measure])
    return np.array([np.mean(values[idx]) for idx in sorted(values)])


def seconds_by_seed(records: Sequence[Record], method: str) -> NDArray[np.float64]:
    """The seconds that a method took per prompt, one number per seed: each seed is one batch."""
    seconds = {
        r["seed"]: r["timing"]["seconds_per_prompt"] for r in records if r["method"] == method
    }
    return np.array([seconds[seed] for seed in sorted(seconds)])


@dataclass(frozen=True)
class Row:
    """A row of the table: a method's measures, and their paired differences to Best-of-N at the
    same K.
    """

    method: str
    trajectories: int
    """K."""
    measures: dict[str, Estimate]
    differences: dict[str, Estimate]
    seconds: Estimate
    time_ratio: float
    """The median over the seeds of this method's time over EntRGi's."""

    @property
    def label(self) -> str:
        return LABELS.get(self.method, self.method)


def summarise(records: Sequence[Record]) -> list[Row]:
    """The table's rows, one per method, in the order of the records.

    Raises `ValueError` if none of them is `bon`, to which the differences are taken.
    """
    rows = []
    methods = dict.fromkeys(record["method"] for record in records)
    if "bon" not in methods:
        raise ValueError(f"methods: got {', '.join(methods)}, expected `bon` among them")
    entrgi = seconds_by_seed(records, "entrgi" if "entrgi" in methods else "bon")
    for method in methods:
        values = {measure: by_prompt(records, method, measure) for measure in MEASURES}
        against = {
            measure: values[measure] - by_prompt(records, "bon", measure) for measure in MEASURES
        }
        seconds = seconds_by_seed(records, method)
        rows.append(
            Row(
                method=method,
                trajectories=len(next(r for r in records if r["method"] == method)["rewards"]),
                measures={measure: bootstrap(values[measure]) for measure in MEASURES},
                differences={measure: bootstrap(against[measure]) for measure in MEASURES},
                seconds=_not_negative(student(seconds)),
                time_ratio=float(np.median(seconds / entrgi)) if "entrgi" in methods else np.nan,
            )
        )
    return rows


def _not_negative(seconds: Estimate) -> Estimate:
    return replace(seconds, low=float(np.maximum(seconds.low, 0)))  # nan, of one seed, stays nan


REWARD_AND_GOLD = ("top1", "average", "gold_best", "gold_mean")
FLUENCY = ("log_likelihood", "valid")


def markdown(rows: Sequence[Row]) -> str:
    """The measures and their differences to Best-of-N, as four narrow tables."""
    cost = {
        "Seconds per prompt": [row.seconds.text(3) for row in rows],
        "Time / EntRGi's": [f"{row.time_ratio:.2f}" for row in rows],
    }
    others = [row for row in rows if row.method != "bon"]
    return f"""\
Reward and gold:

{means(rows, REWARD_AND_GOLD)}

Fluency and cost:

{_table(rows, _means(rows, FLUENCY) | cost)}

Difference to Best-of-N, prompt by prompt:

{_table(others, _differences(others, REWARD_AND_GOLD))}

{_table(others, _differences(others, FLUENCY))}
"""


def means(rows: Sequence[Row], names: Sequence[str]) -> str:
    """A table of some of the measures."""
    return _table(rows, _means(rows, names))


def _means(rows: Sequence[Row], names: Sequence[str]) -> dict[str, list[str]]:
    return {
        _head(name): [row.measures[name].text(MEASURES[name].digits) for row in rows]
        for name in names
    }


def _differences(rows: Sequence[Row], names: Sequence[str]) -> dict[str, list[str]]:
    return {
        _head(name): [row.differences[name].text(MEASURES[name].digits, sign=True) for row in rows]
        for name in names
    }


def _head(name: str) -> str:
    return f"{MEASURES[name].label} ({MEASURES[name].unit})"


def _table(rows: Sequence[Row], columns: Mapping[str, Sequence[str]]) -> str:
    """A Markdown table, padded so that it can be read as plain text too."""
    columns = {
        "Method": [row.label for row in rows],
        "K": [str(row.trajectories) for row in rows],
        **columns,
    }
    widths = {head: max(2, len(head), *map(len, cells)) for head, cells in columns.items()}
    lines = [
        [head.ljust(widths[head]) for head in columns],
        [_rule(head, width) for head, width in widths.items()],
    ]
    for i in range(len(rows)):
        lines.append(
            [
                c[i].ljust(widths[h]) if h == "Method" else c[i].rjust(widths[h])
                for h, c in columns.items()
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rule(head: str, width: int) -> str:
    return "-" * width if head == "Method" else "-" * (width - 1) + ":"
