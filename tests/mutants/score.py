"""make mutants: break the code at each place, and count what the tests notice.

Tests are chosen by the lines that they run: see `tests_of`. A mutant survives if none of them
fails. What a record says can be repeated: the same code has the same mutants, and a share of them
is drawn by a seed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import partial
from pathlib import Path

from . import covered, trial
from .places import ROOMS, Mutant, files, mutants

ROOT = Path(__file__).parent.parent.parent
TESTS = ("tests", *(f"--ignore=tests/test_{name}.py" for name in ("browse", "live", "site")))
"""All but those in a browser: these are of the site."""
SECONDS = 10.0
"""Of tests for each mutant, as they took without it."""
LONGER = 5
"""Times as long may tests take with a mutant: then it hangs, and is caught."""

copy: trial.Copy
"""Of this process."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Try all mutants of the rooms, or a share of them."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--room", action="append", choices=ROOMS, help="all by default")
    parser.add_argument("--share", type=float, default=1.0, help="of the mutants, drawn by --seed")
    parser.add_argument("--seed", type=int, default=14)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, default=Path("results/mutants/record.json"))
    parser.add_argument("--covered", type=Path, default=Path("results/mutants/covered"))
    given = parser.parse_args(arguments)
    begun = time.monotonic()
    given.json.parent.mkdir(parents=True, exist_ok=True)
    if not list(given.covered.glob("*.json")):
        measure(given.covered, given.processes)
    seconds, lines = covered.read(given.covered)
    chosen = partial(tests_of, seconds, lines)
    imported = partial(when_imported, lines)

    rooms = {}
    for room in given.room or ROOMS:
        found = [mutant for file in files(ROOT, room) for mutant in mutants(ROOT, file)]
        drawn = random.Random(given.seed).sample(found, round(given.share * len(found)))
        rooms[room] = {"of": len(found)} | tried(drawn, chosen, imported, given.processes)
        print(f"{room}: {rooms[room]['killed']} of {rooms[room]['tried']} caught", flush=True)
    from entrgi_ref.commands.provenance import commit

    record = {
        "command": " ".join(["make mutants", *(sys.argv[1:] if arguments is None else arguments)]),
        "commit": commit(),
        "machine": f"{platform.machine()}, {given.processes} processes of a CPU",
        "seconds": round(time.monotonic() - begun),
        "share": given.share,
        "seed": given.seed,
        "rooms": rooms,
    }
    given.json.write_text(json.dumps(record, indent=1) + "\n")
    print(given.json)


def measure(folder: Path, processes: int) -> None:
    """Run all tests once, and note which lines each runs."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "pytest", "-p", "mutants.covered", "--dist", "loadgroup"]
    command += ["-n", str(processes), *TESTS]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {covered.FOLDER: str(folder.absolute()), "PYTHONPATH": paths}
    if subprocess.run(command, cwd=ROOT, env=environment).returncode:
        raise SystemExit("tests fail without any mutant: mend these first")


def tests_of(
    seconds: dict[str, float], lines: dict[str, dict[int, set[str]]], mutant: Mutant
) -> list[str]:
    """Tests that run a mutant's statement, as many as fit into `SECONDS`: first those of the file
    that is named after its module, then the quickest.
    """
    of_file = lines.get(mutant.file, {})
    first, last = mutant.lines
    here = [of_file[line] for line in range(first, last + 1) if line in of_file]
    found = set().union(*(here or of_file.values())) - {""}
    own = f"tests/test_{Path(mutant.file).stem}.py"
    budget, kept = SECONDS, []
    for test in sorted(found, key=lambda test: (own not in test, seconds.get(test, 0.0), test)):
        budget -= seconds.get(test, 0.0)
        if budget < 0:
            break
        kept.append(test)
    return kept


def when_imported(lines: dict[str, dict[int, set[str]]], mutant: Mutant) -> bool:
    """Whether its statement runs when modules are imported, or tests collected."""
    first, last = mutant.lines
    of_file = lines.get(mutant.file, {})
    return any("" in of_file.get(line, ()) for line in range(first, last + 1))


def tried(drawn: Sequence[Mutant], chosen, imported, processes: int) -> dict:
    """How many are caught, and which are not."""
    survivors: list[Mutant] = []
    killed: Counter[str] = Counter()
    fresh = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(processes, fresh, begin, (Path(folder),)) as pool,
    ):
        running = {
            pool.submit(caught, mutant, chosen(mutant), imported(mutant)): mutant
            for mutant in drawn
        }
        for number, done in enumerate(as_completed(running), 1):
            mutant = running[done]
            if done.result():
                killed[mutant.file] += 1
            else:
                survivors.append(mutant)
                print(f"[{number}/{len(drawn)}] survived: {mutant}", file=sys.stderr, flush=True)
            if number % 100 == 0:
                print(f"[{number}/{len(drawn)}]", file=sys.stderr, flush=True)
    return {
        "tried": len(drawn),
        "killed": killed.total(),
        "files": {
            file: [killed[file], sum(mutant.file == file for mutant in drawn)]
            for file in sorted({mutant.file for mutant in drawn})
        },
        "survivors": [
            asdict(mutant) | {"change": change(mutant)}
            for mutant in sorted(survivors, key=lambda one: (one.file, one.lines, one.operator))
        ],
    }


def begin(folder: Path) -> None:
    """A process of its own: a copy, and what tests need."""
    global copy
    copy = trial.Copy(ROOT, folder / str(os.getpid()), TESTS)


def caught(mutant: Mutant, tests: Sequence[str], imported: bool) -> bool:
    """Whether the tests notice. Nothing notices what no test runs."""
    code, limit = mutant.code(ROOT), LONGER * (SECONDS + 1)
    return bool(tests) and copy.killed(mutant.file, code, tests, limit, imported=imported)


def change(mutant: Mutant) -> str:
    """The lines that differ, as one line."""
    right = (ROOT / mutant.file).read_text().splitlines()
    wrong = mutant.code(ROOT).splitlines()
    return " // ".join(_changed(right, wrong))


def _changed(right: Sequence[str], wrong: Sequence[str]) -> Iterator[str]:
    for one, other in zip(right, wrong, strict=False):
        if one != other:
            yield f"{one.strip()} -> {other.strip()}"
            return
