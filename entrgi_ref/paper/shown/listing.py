"""What the command `list` says: the experiments, and how far runs are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..declared.experiments import EXPERIMENTS
from ..run.records import earlier_layout, judges_of, read_experiment, read_records
from .summary import JudgedBy


def listing(folders: Sequence[Path]) -> str:
    """The experiments, what they regenerate, and how far the runs in `folders` are."""
    width = max(map(len, EXPERIMENTS))
    lines = [f"{name:{width}}  {e.regenerates}" for name, e in EXPERIMENTS.items()]
    for folder in folders:
        try:
            declared, records = read_experiment(folder), read_records(folder)
        except ValueError as error:
            lines.append(f"\n{folder}: cannot be read: {error}")
            continue
        answers = [record for record in records if record["status"] == "ok"]
        lines.append(
            f"\n{folder}: {declared['experiment']}, {len(answers)} prompts done, "
            f"{len(records) - len(answers)} failed"
        )
        wanted: dict[str, int] = {}
        for asked in declared.get("asked", []):
            for name, n in asked["prompts"].items():
                wanted[name] = max(n, wanted.get(name, 0))
        cells = Counter(
            (
                record["benchmark"],
                record["method"],
                " ".join(f"{k}={v}" for k, v in record["variant"].items()),
                record["seed"],
            )
            for record in records
        )
        for (benchmark, method, variant, seed), count in cells.items():
            what = " ".join(part for part in (benchmark, method, variant) if part)
            of = wanted.get(benchmark, count)
            lines.append(f"  {what}, seed {seed}: {count} of {of}")
        for judge in judges_of(folder):
            try:
                found = JudgedBy.read(judge, declared["fingerprint"], answers)
            except ValueError as error:
                lines.append(f"  judged by {judge.name}: cannot be read: {error}")
            else:
                lines.append(f"  judged by {judge.name}: {found.judged} of {len(answers)}")
        lines += [f"  {note}" for note in earlier_layout(folder)]
    if not folders:
        lines.append("\nNo runs yet below results/.")
    return "\n".join(lines)
