"""The tests themselves: they notice twenty mistakes that one could make in good faith."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mutants import trial
from mutants.conceptual import MISTAKES

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.xdist_group("mutants")


@pytest.fixture(scope="module")
def tried():
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": paths}
    command = [sys.executable, "-m", "mutants.conceptual"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(line.rsplit(": ", 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_caught(name, tried):
    assert tried[name] == "caught"


def _raise(error):
    raise error


def test_a_trial_ends_as_pytest_would():
    """With what the work says; interrupted; or stopped, when it takes too long."""
    assert trial._forked(lambda: 1, 20) == trial.FAILED
    for error in (KeyboardInterrupt, SystemExit):
        assert trial._forked(lambda error=error: _raise(error), 20) == trial.UNREADABLE[0]
    assert trial._forked(lambda: time.sleep(60), 0.1) == trial.TOO_LONG
