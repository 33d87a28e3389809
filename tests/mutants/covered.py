"""A plugin of pytest: which test runs which lines, and how long each test takes."""

from __future__ import annotations

import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import coverage
import pytest

FOLDER = "MUTANTS_COVERED"
"""The environment variable with the folder to write to: files of each process of pytest-xdist."""


WORKER = "PYTEST_XDIST_WORKER"


class Covered:
    """Counts the lines of each test, its fixtures included."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = defaultdict(float)
        self.coverage = coverage.Coverage(
            data_file=folder / f".coverage.{_worker()}",
            branch=True,
            source=["entrgi_ref", "toy"],
            messages=False,
        )
        self.coverage.start()
        self.names: dict[str, str] = {}

    def pytest_collection_finish(self, session) -> None:
        """pytest-xdist has added a test's group to its name."""
        for item in session.items:
            group = item.get_closest_marker("xdist_group")
            ending = f"@{group.args[0]}" if group else ""
            self.names[item.nodeid] = item.nodeid.removesuffix(ending)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.coverage.switch_context(self.names[nodeid])

    def pytest_runtest_logreport(self, report) -> None:
        if not report.skipped:
            self.seconds[self.names[report.nodeid]] += report.duration

    def pytest_sessionfinish(self) -> None:
        self.coverage.stop()
        data, here = self.coverage.get_data(), Path.cwd()
        lines = {
            str(Path(file).relative_to(here)): data.contexts_by_lineno(file)
            for file in data.measured_files()
        }
        written = {"seconds": self.seconds, "lines": lines}
        (self.folder / f"{_worker()}.json").write_text(json.dumps(written))
        self.coverage.save()


def _worker() -> str:
    return f"{os.environ[WORKER]}-{os.getpid()}"


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config) -> None:
    """Begin before anything of ours is imported, in the processes that run tests."""
    if WORKER in os.environ:
        early_config.pluginmanager.register(Covered(Path(os.environ[FOLDER])))
        del os.environ["PYTEST_PLUGINS"]  # not in what tests start


def read(folder: Path) -> tuple[dict[str, float], dict[str, dict[int, set[str]]]]:
    """Seconds of each test; the tests of each line of each file, all processes together.

    What runs before any test, when modules are imported, is the test "".
    """
    seconds: dict[str, float] = {}
    lines: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path in folder.glob("*.json"):
        found = json.loads(path.read_text())
        seconds |= found["seconds"]
        for file, of_file in found["lines"].items():
            for line, tests in of_file.items():
                lines[file][int(line)] |= set(tests)
    return seconds, lines


def share(folder: Path, files: Sequence[str]) -> dict[str, Any]:
    """How many lines and branches of some files the tests run, and which they do not."""
    with tempfile.TemporaryDirectory() as work:
        found = coverage.Coverage(data_file=Path(work) / "all", messages=False)
        found.combine([str(path) for path in folder.glob(".coverage.*")], keep=True)
        found.json_report(include=[*files], outfile=str(Path(work) / "report.json"))
        report = json.loads((Path(work) / "report.json").read_text())
    total = report["totals"]
    return {
        "lines": [total["covered_lines"], total["num_statements"]],
        "branches": [total["covered_branches"], total["num_branches"]],
        "not_run": {
            file: [*of["missing_lines"], *of["missing_branches"]]
            for file, of in report["files"].items()
            if of["missing_lines"] or of["missing_branches"]
        },
    }
