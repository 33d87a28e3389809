"""make mutants: break the code at each place, and count what the tests notice.

Tests are chosen by the lines that they run: see `tests_of`. A mutant survives if none of them
fails. What a record says can be repeated: the same code has the same mutants, and a share of them
is drawn by a seed.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import multiprocessing
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Protocol

from . import covered, trial
from .places import ROOMS, Mutant, files, mutants

ROOT = Path(__file__).parent.parent.parent
TESTS = ("tests", *(f"--ignore=tests/test_{name}.py" for name in ("browse", "live", "site")))
"""All but those in a browser: these are of the site."""
STRUCTURE = (
    *("tests/test_equations.py", "tests/test_defaults.py", "tests/test_fast.py::test_sizes"),
    "tests/test_draws.py::test_what_random_numbers",
)
"""Tests of what stands in a module, whether it runs or not."""
SECONDS = 20.0
"""Of tests for each mutant, as they took without it."""
LONGER, STARTING = 5, 3.0
"""Times as long may tests take with a mutant, and the seconds before the first: then it hangs, and
is caught.
"""

copy: trial.Copy
"""Of this process."""


class Changed(Protocol):
    """A mutant, whoever made it."""

    @property
    def file(self) -> str: ...

    @property
    def lines(self) -> tuple[int, int]:
        """As those of a `Mutant`."""

    def code(self, root: Path) -> str:
        """The file with the change."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Try all mutants of the rooms, or a share of them."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument(
        "--room", action="append", type=of_room, metavar="ROOM[=SHARE]", help="all by default"
    )
    parser.add_argument("--share", type=float, default=1.0, help="of the mutants, drawn by --seed")
    parser.add_argument("--seed", type=int, default=14)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument(
        "--again", action="store_true", help="go on: what was caught is tried only in changed files"
    )
    parser.add_argument("--json", type=Path, default=Path("results/mutants/record.json"))
    parser.add_argument("--covered", type=Path, default=Path("results/mutants/covered"))
    given = parser.parse_args(arguments)
    begun = time.monotonic()
    given.json.parent.mkdir(parents=True, exist_ok=True)
    counted = which_test_runs_what(given.covered, given.processes)
    chosen = partial(tests_of, counted, most=SECONDS)
    imported = partial(when_imported, counted.lines)
    outcomes = Outcomes(given.json.with_suffix(".jsonl"), again=given.again)

    rooms = {}
    for room, share in given.room or [(room, None) for room in ROOMS]:
        share = given.share if share is None else share
        found = [mutant for file in files(ROOT, room) for mutant in mutants(ROOT, file)]
        drawn = [mutant for mutant in found if is_drawn(mutant, share, given.seed)]
        known = outcomes.caught.keys() | outcomes.survived
        left = [mutant for mutant in drawn if mutant not in known]
        random.Random(given.seed).shuffle(left)  # so that it can be told how long it takes
        try_all(left, chosen, imported, given.processes, outcomes)
        coverage = covered.share(given.covered, files(ROOT, room))
        rooms[room] = {"share": share, "of": len(found), "coverage": coverage}
        rooms[room] |= summary(drawn, outcomes)
        print(f"{room}: {rooms[room]['killed']} of {rooms[room]['tried']} caught", flush=True)
    from entrgi_ref.commands.provenance import versions

    words = sys.argv[1:] if arguments is None else arguments
    record = {
        "command": " ".join(["python -m mutants", *words]),
        "commit": outcomes.commit,
        "caught_at": sorted({*outcomes.caught.values()}),
        "versions": versions(),
        "testbed": "the tests of make test",
        "machine": f"{platform.machine()}, {given.processes} processes of a CPU",
        "seconds": round(time.monotonic() - begun),
        "settings": {"seconds_of_tests": SECONDS},
        "seeds": [given.seed],
        "rooms": rooms,
    }
    given.json.write_text(json.dumps(record, indent=1) + "\n")
    print(given.json)


def of_room(text: str) -> tuple[str, float | None]:
    """The room, and the share of its mutants if one is said."""
    room, _, share = text.partition("=")
    if room not in ROOMS:
        raise argparse.ArgumentTypeError(f"got {room!r}, expected one of {', '.join(ROOMS)}")
    return room, float(share) if share else None


def which_test_runs_what(folder: Path, processes: int) -> covered.Found:
    """From an earlier run, if the folder has it."""
    if not list(folder.glob("*.json")):
        measure(folder, processes)
    return covered.read(folder)


def measure(folder: Path, processes: int) -> None:
    """Run all tests once but those of a release, and note which lines each runs."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "pytest", "--dist", "loadgroup", "-n", str(processes), *TESTS]
    command += ["-m", "not deep"]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {
        covered.FOLDER: str(folder.absolute()),
        "PYTHONPATH": paths,
        "PYTEST_PLUGINS": covered.__name__,  # a -p would reach the processes of tests too late
    }
    if subprocess.run(command, cwd=ROOT, env=environment).returncode:
        raise SystemExit("tests fail without any mutant: mend these first")


def tests_of(counted: covered.Found, mutant: Changed, most: float) -> tuple[list[str], float]:
    """Tests that run a mutant's statement, as many as fit into so many seconds, and theirs. First
    those of the file that is named after its module, then those that run it themselves and not by a
    fixture, then the quickest. It is at least one, if any runs it.

    What stands in a module is run by no test. It is tried by those that use a name from the file,
    and then by those that run anything of it.
    """
    seconds = counted.seconds
    of_file = counted.lines.get(mutant.file, {})
    first, last = mutant.lines
    here = [of_file[line] for line in range(first, last + 1) if line in of_file]
    who = set().union(*(here or of_file.values())) - {""}
    itself = {test for test in who if not test.startswith(covered.FIXTURE)}
    found = itself.union(*(counted.asking[fixture] for fixture in who - itself))
    structure, naming = {test for test in seconds if test.startswith(STRUCTURE)}, set()
    if mutant.lines == (0, 0):
        naming = {test for test in seconds if test.partition("[")[0] in naming_tests()[mutant.file]}
        found |= structure | naming
    own = f"_{Path(mutant.file).stem}.py"  # such as test_paper_required.py
    took, kept, made = 0.0, [], set()

    def costs(test: str) -> float:
        fixtures = {*counted.shared.get(test, ())} - made
        return seconds.get(test, 0.0) + sum(counted.making.get(one, 0.0) for one in fixtures)

    def rank(test: str) -> tuple[bool, bool, bool, bool, float, str]:
        place = test not in structure, test not in naming, own not in test, test not in itself
        return *place, costs(test), test

    for test in sorted(found, key=rank):
        if kept and took + costs(test) > most:
            continue  # another may need what is made by now
        took += costs(test)
        made |= {*counted.shared.get(test, ())}
        kept.append(test)
    return kept, took


@cache
def naming_tests() -> defaultdict[str, set[str]]:
    """File -> tests that use a name from it, or its own."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in sorted(ROOT.glob("tests/**/test_*.py")):
        tree = ast.parse(path.read_text())
        whose: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                module = (node.module or "").replace(".", "/")
                for name in node.names:
                    inner = f"{module}/{name.name}.py"
                    file = inner if (ROOT / inner).exists() else f"{module}.py"
                    whose[name.asname or name.name] = file
        for test in tree.body:
            if isinstance(test, ast.FunctionDef):
                used = {node.id for node in ast.walk(test) if isinstance(node, ast.Name)}
                for name in used & whose.keys():
                    found[whose[name]].add(f"{path.relative_to(ROOT)}::{test.name}")
    return found


def when_imported(lines: dict[str, dict[int, set[str]]], mutant: Changed) -> bool:
    """Whether its statement runs when modules are imported, or tests collected."""
    if mutant.lines == (0, 0):
        return True  # be it in a lambda, which a fork could change too late
    first, last = mutant.lines
    of_file = lines.get(mutant.file, {})
    return any("" in of_file.get(line, ()) for line in range(first, last + 1))


def is_drawn(mutant: Mutant, share: float, seed: int) -> bool:
    """Whether it belongs to the share, whatever else there is."""
    return random.Random(f"{seed} {mutant}").random() < share


class Outcomes:
    """Which mutants were caught, and at which commit: a line of a file for each trial.

    `again` goes on with those of an earlier run, but for files that have changed since, and for
    what survived if a test has.
    """

    def __init__(self, path: Path, *, again: bool) -> None:
        from entrgi_ref.commands.provenance import commit

        self.path, self.commit = path, commit()
        self.caught: dict[Mutant, str] = {}
        self.survived: set[Mutant] = set()
        if not again:
            path.unlink(missing_ok=True)
        for line in path.read_text().splitlines() if path.exists() else ():
            found = json.loads(line)
            mutant = Mutant(**found["mutant"] | {"lines": tuple(found["mutant"]["lines"])})
            if "-dirty" in found["commit"]:
                continue  # of code that nobody knows
            changed = _changed_since(found["commit"])
            if mutant.file in changed:
                continue
            if found["caught"]:
                self.caught[mutant] = found["commit"]
            elif not any(file.startswith("tests/") and "mutants/" not in file for file in changed):
                self.survived.add(mutant)

    def note(self, mutant: Mutant, caught: bool) -> None:
        """Keep what became of a mutant."""
        if caught:
            self.caught[mutant] = self.commit
        line = {"mutant": asdict(mutant), "caught": caught, "commit": self.commit}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


@cache
def _changed_since(commit: str) -> frozenset[str]:
    """Files that differ from those of a commit."""
    command = ["git", "diff", "--name-only", commit]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return frozenset(told.stdout.split())


def try_all(drawn: Sequence[Mutant], chosen, imported, processes: int, outcomes: Outcomes) -> None:
    """Try each, several at a time."""
    fresh = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(processes, fresh, begin, (Path(folder),)) as pool,
    ):
        running = {
            pool.submit(caught, mutant, *chosen(mutant), imported(mutant)): mutant
            for mutant in drawn
        }
        for number, done in enumerate(as_completed(running), 1):
            mutant = running[done]
            if done.exception():
                pool.shutdown(cancel_futures=True)
            outcomes.note(mutant, done.result())
            if not done.result():
                print(f"[{number}/{len(drawn)}] survived: {mutant}", file=sys.stderr, flush=True)
            if number % 100 == 0:
                print(f"[{number}/{len(drawn)}]", file=sys.stderr, flush=True)


def summary(drawn: Sequence[Mutant], outcomes: Outcomes) -> dict:
    """How many are caught, by file, and which are not."""
    survivors = [mutant for mutant in drawn if mutant not in outcomes.caught]
    of_file = Counter(mutant.file for mutant in drawn)
    survived = Counter(mutant.file for mutant in survivors)
    return {
        "tried": len(drawn),
        "killed": len(drawn) - len(survivors),
        "files": {
            file: [of_file[file] - survived[file], of_file[file]] for file in sorted(of_file)
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


def caught(mutant: Changed, tests: Sequence[str], seconds: float, imported: bool) -> bool:
    """Whether the tests notice, which take so long without it. What no test runs none notices."""
    code, limit = mutant.code(ROOT), LONGER * (seconds + STARTING)
    tests = [test for test in tests if test in copy.collected]  # others were there when measured
    return bool(tests) and copy.killed(mutant.file, code, tests, limit, imported=imported)


def change(mutant: Mutant) -> str:
    """What stood there and what stands there, as one line."""
    right = (ROOT / mutant.file).read_text().splitlines()
    wrong = mutant.code(ROOT).splitlines()
    compared = difflib.SequenceMatcher(None, right, wrong, autojunk=False).get_opcodes()
    parts = [
        f"{_joined(right[i:j])} -> {_joined(wrong[k:m])}"
        for kind, i, j, k, m in compared
        if kind != "equal"
    ]
    return " // ".join(part for part in parts if part.strip() != "->")


def _joined(lines: Sequence[str]) -> str:
    return " ".join(line.strip() for line in lines if line.strip())
