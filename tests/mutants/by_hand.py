"""python -m mutants.by_hand FILE ...: mutants that somebody wrote, after reading the code.

A file is a list in JSON: {"file": "entrgi_ref/guidance.py", "right": text that stands there once,
"wrong": what takes its place, "why": what goes wrong, and for whom}. All tests that run a changed
statement are tried, however long they take. What survives is printed, and is in the record.
"""

from __future__ import annotations

import argparse
import difflib
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from . import score
from .conceptual import Mistake
from .places import ROOMS, files, statements


@dataclass(frozen=True)
class Written:
    """A mutant that somebody wrote."""

    file: str
    right: str
    wrong: str
    why: str

    def code(self, root: Path) -> str:
        """The file with the change. `ValueError` if the right text does not stand there once."""
        return Mistake(self.file, self.right, self.wrong, ()).code(root)

    @property
    def lines(self) -> tuple[int, int]:
        """First and last of the statements that are changed; (0, 0) if one is in no function."""
        source = (score.ROOT / self.file).read_text()
        right, wrong = source.splitlines(), self.code(score.ROOT).splitlines()
        compared = difflib.SequenceMatcher(None, right, wrong, autojunk=False).get_opcodes()
        found = statements(source)
        whole = [
            found.get(line + 1, (0, 0))
            for kind, i, j, *_ in compared
            if kind != "equal"
            for line in range(i, max(j, i + 1))  # of what is put in: the line after it
            if line < len(right) and right[line].strip()
        ]
        if not whole or (0, 0) in whole:
            return 0, 0
        return min(first for first, _ in whole), max(last for _, last in whole)


def main(arguments: Sequence[str] | None = None) -> None:
    """Try all mutants of some files."""
    parser = argparse.ArgumentParser(prog="python -m mutants.by_hand", description=__doc__)
    parser.add_argument("written", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, default=Path("results/mutants/by-hand.json"))
    parser.add_argument("--covered", type=Path, default=Path("results/mutants/covered"))
    given = parser.parse_args(arguments)
    begun = time.monotonic()
    given.json.parent.mkdir(parents=True, exist_ok=True)
    found = [Written(**one) for path in given.written for one in json.loads(path.read_text())]
    counted = score.which_test_runs_what(given.covered, given.processes)
    survivors = []
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(
            given.processes, multiprocessing.get_context("spawn"), score.begin, (Path(folder),)
        ) as pool,
    ):
        running = {}
        for mutant in found:
            tests = score.tests_of(counted, mutant, float("inf"))
            imported = score.when_imported(counted.lines, mutant)
            running[pool.submit(score.caught, mutant, *tests, imported)] = mutant
        for number, done in enumerate(as_completed(running), 1):
            mutant = running[done]
            if not done.result():
                survivors.append(mutant)
                print(f"survived: {mutant.file}: {mutant.why}", flush=True)
            if number % 50 == 0:
                print(f"[{number}/{len(found)}]", file=sys.stderr, flush=True)
    room_of = {file: room for room in ROOMS for file in files(score.ROOT, room)}
    tried, left = (Counter(room_of[one.file] for one in some) for some in (found, survivors))
    from entrgi_ref.commands.provenance import commit, versions

    words = sys.argv[1:] if arguments is None else arguments
    record = {
        "command": " ".join(["python -m mutants.by_hand", *words]),
        "commit": commit(),
        "versions": versions(),
        "testbed": "the tests of make test and make test-slow",
        "machine": f"{platform.machine()}, {given.processes} processes of a CPU",
        "seconds": round(time.monotonic() - begun),
        "settings": {"tests": "all that run a changed statement"},
        "seeds": ["none"],
        "tried": len(found),
        "killed": len(found) - len(survivors),
        "rooms": {room: [tried[room] - left[room], tried[room]] for room in ROOMS},
        "survivors": [{"file": one.file, "why": one.why} for one in survivors],
    }
    given.json.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{record['killed']} of {record['tried']} caught: {given.json}")


if __name__ == "__main__":
    main()
