"""Numbers and tables from the run records in docs/records.

`python docs/building/records.py` writes the tables of README.md and docs/ledger.md anew.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from entrgi_ref.paper.declared.experiments import LABELS  # noqa: E402
from entrgi_ref.paper.declared.published import SKYWORK  # noqa: E402
from entrgi_ref.paper.run import dry  # noqa: E402
from toy import dial, ledger, spread  # noqa: E402
from toy.statistics import Estimate, student  # noqa: E402
from toy.table import REWARD_AND_GOLD, Row, means  # noqa: E402

RECORDS = ROOT / "docs" / "records"


def read(name: str) -> dict[str, Any]:
    """A run record."""
    return dict(json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8")))


def value(name: str, path: str) -> Any:
    """What a record holds at a path of keys and indices with dots between, such as
    `rows.entrgi.average.0`. In a list of rows a method's name is an index too.
    """
    found: Any = read(name)
    for key in path.split("."):
        if isinstance(found, list) and not key.lstrip("-").isdigit():
            (found,) = [row for row in found if row.get("method") == key]
        else:
            found = found[int(key) if isinstance(found, list) else key]
    return found


def estimate(name: str, path: str) -> Estimate:
    """A number with its interval; of a list of repeats the mean with Student's interval."""
    found = value(name, path)
    return student(np.array(found)) if isinstance(found, list) else Estimate(**found)


def rows(name: str) -> list[Row]:
    """The rows of a demo's record."""

    def estimates(written: Mapping[str, Any]) -> dict[str, Estimate]:
        return {measure: Estimate(**numbers) for measure, numbers in written.items()}

    return [
        Row(
            method=row["method"],
            trajectories=row["trajectories"],
            measures=estimates(row["measures"]),
            differences=estimates(row["differences"]),
            seconds=Estimate(**row["timing"]["seconds_per_prompt"]),
            time_ratio=row["timing"]["ratio_to_entrgi"],
        )
        for row in read(name)["rows"]
    ]


def gradients(name: str) -> str:
    """The cosines to the exact gradient."""
    cosines = {
        LABELS.get(method, method): Estimate(**found["cosine_of_mean"])
        for method, found in read(name)["rows"].items()
    }
    lines = [f"| {' | '.join(cosines)} |", f"| {' | '.join(['---:'] * len(cosines))} |"]
    return "\n".join([*lines, f"| {' | '.join(c.text(2) for c in cosines.values())} |"])


REGIMES = {
    "spread-m1": "M = 1",
    "spread": "M = 3, as above",
    "spread-m8": "M = 8",
    "spread-small": "a smaller reward model (2 layers)",
    "spread-std3": "embeddings started three times as large",
}


def regimes(measure: str) -> str:
    """The difference to Best-of-N in other settings and with other reward models."""
    spreads = {label: read(name)["rows"] for name, label in REGIMES.items()}
    methods = ("expectation", "aps", "entrgi")
    heads = " | ".join(LABELS[method] for method in methods)
    lines = [f"| regime | {heads} |", f"| --- |{' ---: |' * len(methods)}"]
    for label, found in spreads.items():
        cells = (student(np.array(found[m][measure])).text(2, sign=True) for m in methods)
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def memory(reward: str) -> str:
    """The memory that is predicted with a reward model, by prompts and new tokens."""
    found = read("memory")["tables"][reward]["rows"]
    lengths = sorted({row["new_tokens"] for row in found})
    lines = [f"| prompts x K | {' | '.join(f'N = {N}' for N in lengths)} | step at N = 128 |"]
    lines.append(f"| --- |{' ---: |' * (len(lengths) + 1)}")
    for start in range(0, len(found), len(lengths)):
        row = found[start : start + len(lengths)]
        (seconds,) = [one["seconds_per_step"] for one in row if one["new_tokens"] == 128]
        name = f"{row[0]['prompts']} x {row[0]['trajectories']}"
        lines.append(f"| {name} | {' | '.join(map(dry.cell, row))} | {seconds:.1f} s |")
    return "\n".join(lines)


def effects() -> dict[str, dict[str, Estimate]]:
    """The rows of the ledger's record."""
    return {
        name: {measure: Estimate(**numbers) for measure, numbers in effect.items()}
        for name, effect in read("ledger")["rows"].items()
    }


TABLES: dict[str, Callable[[], str]] = {
    "ledger": lambda: ledger.markdown(effects()),
    "regimes": lambda: regimes("gold_mean"),
    "regimes-top1": lambda: regimes("top1"),
    "demo": lambda: means(rows("demo"), REWARD_AND_GOLD),
    "spread": lambda: spread.markdown(read("spread")["rows"]),
    "gradients": lambda: gradients("gradients"),
    **{f"memory-{size}": partial(memory, size) for size in SKYWORK},
    "dial": lambda: dial.markdown(read("dial")["rows"]),
}
BLOCK = re.compile(r"(<!-- record: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str) -> str:
    """`text` with every block between markers made from its record."""
    return BLOCK.sub(lambda m: f"{m[1]}\n{TABLES[m[2]]()}\n\n{m[3]}", text)


if __name__ == "__main__":
    for page in (ROOT / "README.md", ROOT / "docs" / "ledger.md"):
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
