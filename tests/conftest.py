"""Shapes are checked at run time in every test; hypothesis repeats itself in CI."""

import os
from pathlib import Path

import hypothesis
import jaxtyping
import pytest
import torch

TOY = Path(__file__).parent.parent / "toy"
# All but the command line, whose framework passes other types than its annotations say.
MODULES = [f"toy.{path.stem}" for path in TOY.glob("*.py") if not path.stem.startswith("__")]
jaxtyping.install_import_hook(["entrgi_ref", *MODULES], "typecheck.check")

torch.set_num_threads(1)
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture
def as_users_run_it():
    """Without the run-time checks of shapes and types, which are the tests' own: for bad input."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
