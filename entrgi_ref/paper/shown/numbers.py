"""The numbers of the report's tables as data, in full precision: a row per method, variant and
benchmark.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..declared.experiments import LABELS, METHODS, RIVALS, in_order, label_of
from ..declared.published import published
from .comparable import differences, is_the_papers
from .summary import Run, compared_of

OURS = ("bon_equal_compute", *RIVALS)
"""Methods that are not in the paper."""
OF_THE_PAPER = ("top1", "average", "lmunit")
"""The measures of the paper's main table."""
VARIED = ("reward", "gradient_steps")
"""What variants may differ in."""

Row = dict[str, str | int | float | bool | None]


def beside_the_published(run: Run) -> bool:
    """Whether published numbers stand beside the measured ones."""
    return not run.toy and run.declaration["experiment"] == "main"


def varied(run: Run) -> list[str]:
    """The fields in which the variants of a run differ."""
    return [field for field in VARIED if run.variants(field)]


def cells(run: Run, benchmark: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a benchmark's table: a method, and a value for each field that is varied.

    What is published and not measured has a row too; rivals have one only if they have been run.
    """
    fields = varied(run)
    methods: Sequence[str] = run.methods
    if beside_the_published(run):
        methods = in_order({*METHODS, *run.methods})
    for method in methods:
        for values in _combinations(run, fields):
            if not fields or run.select(benchmark=benchmark, method=method, **values):
                yield method, values


def _combinations(run: Run, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
    if not fields:
        yield {}
        return
    for value in run.variants(fields[0]):
        for rest in _combinations(run, fields[1:]):
            yield {fields[0]: value, **rest}


def in_the_paper(run: Run, benchmark: str, method: str) -> bool:
    """Whether the paper has a method on a benchmark."""
    return method in LABELS and method not in OURS and is_the_papers(run, benchmark)


def answers_of(run: Run, benchmark: str, method: str, **values: Any) -> list[int]:
    """K, the fewest and the most, once if they are one; none without records."""
    records = run.select(benchmark=benchmark, method=method, **values)
    found = {len(record["rewards"]) for record in records}
    return sorted({min(found), max(found)}) if found else []


def columns(run: Run) -> dict[str, str]:
    """The names of a row's fields, and what they hold."""
    found = {
        "benchmark": "name",
        "method": "name, as --methods has it",
        "label": "name, as the tables have it",
        "reward": "name of the reward model",
        **({"gradient_steps": "M"} if "gradient_steps" in varied(run) else {}),
        "answers_min": "K, answers to a prompt at least",
        "answers_max": "K, answers to a prompt at most",
    }
    for name, measure in run.measures.items():
        unit = _words(measure.unit)
        found[f"{name}_mean_{unit}"] = f"{measure.label} ({measure.unit}), mean over the seeds"
        found[f"{name}_standard_error_{unit}"] = (
            f"{measure.label} ({measure.unit}), standard error over the seeds; none of one seed"
        )
        found[f"{name}_seeds"] = f"{measure.label}, seeds"
        found[f"{name}_prompts"] = f"{measure.label}, prompts that count, over all seeds"
        less = f"{measure.label} ({measure.unit}) less that of {label_of(run.baseline)}"
        found[f"{name}_difference_{unit}"] = f"{less}, mean over prompts and seeds"
        found[f"{name}_difference_low_{unit}"] = f"{less}, lower end of its 95% interval"
        found[f"{name}_difference_high_{unit}"] = f"{less}, upper end of its 95% interval"
        found[f"{name}_difference_prompts"] = f"{less}, different prompts"
        if beside_the_published(run) and name in OF_THE_PAPER:
            found[f"{name}_published_{unit}"] = f"{measure.label} ({measure.unit}), published"
    if beside_the_published(run):
        found["comparable"] = "whether the run is what the published numbers were made by"
    return found


def rows(run: Run) -> list[Row]:
    """A row per method, variant and benchmark; None where there is no number."""
    comparable = beside_the_published(run) and not any(differences(run))
    found: list[Row] = []
    for benchmark in run.benchmarks:
        for method, values in cells(run, benchmark):
            K = answers_of(run, benchmark, method, **values)
            row: Row = dict.fromkeys(columns(run))
            row |= {"benchmark": benchmark, "method": method, "label": label_of(method)}
            row |= {"reward": str(run.declaration["main_reward"]), **values}
            if K:
                row |= {"answers_min": K[0], "answers_max": K[-1]}
            for name, measure in run.measures.items():
                unit = _words(measure.unit)
                measured = run.value(name, benchmark=benchmark, method=method, **values)
                if measured is not None:
                    row |= {
                        f"{name}_mean_{unit}": measured.mean,
                        f"{name}_standard_error_{unit}": measured.error,
                        f"{name}_seeds": measured.seeds,
                        f"{name}_prompts": measured.prompts,
                    }
                difference = run.paired(benchmark).get(compared_of(name, method, values))
                if difference is not None:
                    estimate = difference.estimate
                    row |= {
                        f"{name}_difference_{unit}": estimate.mean,
                        f"{name}_difference_low_{unit}": _known(estimate.low),
                        f"{name}_difference_high_{unit}": _known(estimate.high),
                        f"{name}_difference_prompts": difference.prompts,
                    }
                if f"{name}_published_{unit}" in row and in_the_paper(run, benchmark, method):
                    row[f"{name}_published_{unit}"] = published(benchmark, method, name)
            if beside_the_published(run):
                row["comparable"] = comparable
            found.append(row)
    return found


def as_json(run: Run, table: Sequence[Row], notes: Sequence[str]) -> str:
    """The rows as JSON, with what their fields hold and what must be known to read them."""
    content: Mapping[str, Any] = {
        "experiment": run.declaration["experiment"],
        "testbed": run.declaration["testbed"],
        "fingerprint": run.declaration["fingerprint"],
        "columns": columns(run),
        "rows": table,
        "notes": notes,
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _known(end: float) -> float | None:
    return None if math.isnan(end) else end


def _words(unit: str) -> str:
    return unit.replace(" ", "_")
