"""A plugin of pytest: which test runs which lines, and how long each test takes.

What the fixture of a module or a session runs, it runs for the first test that asks for it. It is
counted for all that ask.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import coverage
import pytest

FOLDER = "MUTANTS_COVERED"
"""The environment variable with the folder to write to: files of each process of pytest-xdist."""


WORKER = "PYTEST_XDIST_WORKER"
FIXTURE = "fixture "
"""Before the name of a fixture that several tests share, where lines are counted."""


@dataclass(frozen=True)
class Found:
    """What was counted, all processes together."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Of each test, without the fixtures that it shares."""
    lines: dict[str, dict[int, set[str]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(set))
    )
    """The tests and shared fixtures of each line of each file. What runs before any test, when
    modules are imported, is the test "".
    """
    shared: dict[str, list[str]] = field(default_factory=dict)
    """The fixtures that each test shares with others."""
    making: dict[str, float] = field(default_factory=dict)
    """Seconds that each of these fixtures takes once."""

    @cached_property
    def asking(self) -> dict[str, set[str]]:
        """The tests that ask for each shared fixture."""
        found: dict[str, set[str]] = defaultdict(set)
        for test in self.seconds:
            for fixture in self.shared[test]:
                found[fixture].add(test)
        return found


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
        self.shared: dict[str, list[str]] = {}
        self.making: dict[str, float] = defaultdict(float)
        self.within: list[str] = [""]
        """Where lines are counted now: a test, and the fixtures that are being made for it."""

    def pytest_collection_finish(self, session) -> None:
        """pytest-xdist has added a test's group to its name."""
        for item in session.items:
            group = item.get_closest_marker("xdist_group")
            ending = f"@{group.args[0]}" if group else ""
            name = self.names[item.nodeid] = item.nodeid.removesuffix(ending)
            found = [definitions[-1] for definitions in item._fixtureinfo.name2fixturedefs.values()]
            self.shared[name] = [_fixture(one) for one in found if one.scope != "function"]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.within = [self.names[nodeid]]
        self.coverage.switch_context(self.within[-1])

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef, request) -> Iterator[None]:
        if fixturedef.scope == "function":
            return (yield)
        begun, inner = time.perf_counter(), sum(self.making.values())
        name = _fixture(fixturedef)
        self.within.append(name)
        self.coverage.switch_context(name)
        try:
            return (yield)
        finally:
            self.within.pop()
            self.coverage.switch_context(self.within[-1])
            inner = sum(self.making.values()) - inner
            took = time.perf_counter() - begun - inner
            self.making[name] += took
            self.seconds[self.within[0]] -= took

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
        written = {
            "seconds": self.seconds,
            "lines": lines,
            "shared": self.shared,
            "making": self.making,
        }
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


def _fixture(definition) -> str:
    return f"{FIXTURE}{definition.baseid}::{definition.argname}"


def read(folder: Path) -> Found:
    """What all processes have counted."""
    found = Found()
    written = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    for one in written:
        found.seconds.update(one["seconds"])
        found.shared.update(one["shared"])
        for fixture, took in one["making"].items():
            found.making[fixture] = max(took, found.making.get(fixture, 0.0))
        for file, of_file in one["lines"].items():
            for line, who in of_file.items():
                found.lines[file][int(line)] |= {*who}
    return found


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
