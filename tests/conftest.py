"""Shapes are checked at run time in every test; properties follow a profile of hypothesis."""

import functools
import os
import sys
from pathlib import Path

import hypothesis
import jaxtyping
import pytest
import torch
import typer.main
import typer.testing

import properties  # noqa: F401, its profiles
import typecheck
from browsing import axe, browser  # noqa: F401, fixtures

ROOT = Path(__file__).parent.parent
# What is checked is shapes. Command lines have none, nor do most of the experiments.
ROOMS = ("entrgi_ref", "entrgi_ref/models", "entrgi_ref/rivals", "entrgi_ref/watching", "toy")
SOURCES = [path for room in ROOMS for path in ROOT.glob(f"{room}/*.py")]
SOURCES += [ROOT / "entrgi_ref" / "paper" / "run" / "errors_by_prompt.py"]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in SOURCES
    if "from jaxtyping" in path.read_text()
]
jaxtyping.jaxtyped = typecheck.decorator
jaxtyping.install_import_hook(MODULES, "typecheck.check")

os.environ["OMP_NUM_THREADS"] = "1"  # commands that tests start would each take every core
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # and those of two threads would wait by computing
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


# The commands of an application are made once, and not whenever a test calls one.
typer.main.get_command = typer.testing._get_command = functools.cache(typer.main.get_command)


def pytest_runtest_setup(item):
    typecheck.begin()
    torch.set_num_threads(1)  # commands set it: two workers with two threads each wait all the time


@pytest.fixture
def as_users_run_it():
    """Without the run-time checks of shapes and types, which are the tests' own: for bad input."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def words_alone(request, monkeypatch):
    """Figures take most of a report's time: only the tests that are marked so draw them, and most
    of those in one format.
    """
    figures = sys.modules.get("entrgi_ref.paper.shown.figures")
    if figures is None:  # and to import it would take a second
        return
    draws = request.node.get_closest_marker("draws")
    if not draws:
        monkeypatch.setattr(figures, "draw", lambda run, name, to: [])
    elif "every format" not in draws.args:
        monkeypatch.setattr(figures, "KINDS", {"svg": figures.KINDS["svg"]})
