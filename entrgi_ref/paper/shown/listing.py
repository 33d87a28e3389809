"""What the command `list` says: the experiments, and how far runs are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ...watching import printable
from ..declared.experiments import EXPERIMENTS
from ..run.records import (
    earlier_layout,
    judges_of,
    read_by_key,
    read_experiment,
    read_records,
)
from ..run.required import Record, asked_of
from .summary import JudgedBy


def listing(folders: Sequence[Path]) -> str:
    """The experiments, what they regenerate, and how far the runs in `folders` are."""
    width = max(map(len, EXPERIMENTS))
    lines = [f"{name:{width}}  {e.regenerates}" for name, e in EXPERIMENTS.items()]
    for folder in folders:
        try:
            declared = read_experiment(folder)
            states = {k: r["status"] for k, r in read_by_key(folder, keep=_status).items()}
            judges = judges_of(folder)
        except (OSError, ValueError) as error:
            lines.append(f"\n{folder}: cannot be read: {printable(str(error))}")
            continue
        done = sum(state == "ok" for state in states.values())
        lines.append(
            f"\n{folder}: {declared['experiment']}, {done} prompts done, "
            f"{len(states) - done} failed"
        )
        wanted = asked_of(declared)
        cells = Counter(key[1:5] for key in states)
        for (benchmark, method, variant, seed), count in sorted(cells.items()):
            varied = (f"{k}={v}" for k, v in json.loads(variant).items())
            what = " ".join([benchmark, method, *varied])
            of = wanted.get((benchmark, method, variant, seed), count)
            lines.append(f"  {printable(what)}, seed {seed}: {count} of {of}")
        answers = [r for r in read_records(folder) if r["status"] == "ok"] if judges else []
        for judge in judges:
            name = printable(judge.name)
            try:
                found = JudgedBy.read(judge, declared["fingerprint"], answers)
            except ValueError as error:
                lines.append(f"  judged by {name}: cannot be read: {printable(str(error))}")
            else:
                lines.append(f"  judged by {name}: {found.judged} of {len(answers)}")
        lines += [f"  {note}" for note in earlier_layout(folder)]
    if not folders:
        lines.append("\nNo runs yet below results/.")
    return "\n".join(lines)


def _status(record: Record) -> Record:
    return {"status": record["status"]}
