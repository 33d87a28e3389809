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


@pytest.mark.slow
def test_what_a_shared_fixture_runs_counts_for_all_that_ask(tmp_path):
    """And its seconds are counted once, beside those of the tests."""
    pytest.importorskip("cosmic_ray", reason="make test-slow installs it")
    from mutants import covered, score
    from mutants.places import Mutant

    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/__init__.py").write_text(
        "def slept():\n    import time\n    time.sleep(0.4)\n"
    )
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "from toy import slept\n"
        "@pytest.fixture(scope='module')\n"
        "def inner():\n    slept()\n"
        "@pytest.fixture(scope='module')\n"
        "def outer(inner): pass\n"
        "@pytest.fixture\n"
        "def own(): pass\n"
        "def test_first(outer): pass\n"
        "def test_second(own, outer): pass\n"
        "def test_other(own): pass\n"
    )
    paths = os.pathsep.join([str(tmp_path), str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": paths, "PYTEST_PLUGINS": covered.__name__}
    environment |= {covered.FOLDER: str(tmp_path)}
    environment.pop(covered.WORKER, None)
    command = [sys.executable, "-m", "pytest", "-n", "1", "-c", os.devnull, f"--rootdir={tmp_path}"]
    subprocess.run([*command, "test_it.py"], cwd=tmp_path, env=environment, check=True)
    found = covered.read(tmp_path)
    asking = {"test_it.py::test_first", "test_it.py::test_second"}
    (fixture,) = found.lines["toy/__init__.py"][3]
    assert found.asking[fixture] == asking
    assert found.lines["toy/__init__.py"][1] == {""}
    assert sorted(took > 0.4 for took in found.making.values()) == [False, True]
    assert found.seconds.keys() == asking | {"test_it.py::test_other"}
    assert max(found.seconds.values()) < 0.4
    mutant = Mutant("toy/__init__.py", (3, 3), "core/NumberReplacer", 0)
    kept, took = score.tests_of(found, mutant, 20)
    assert {*kept} == asking
    assert 0.4 < took < 0.8


@pytest.mark.slow
def test_a_mutant_by_hand_is_of_the_statements_that_it_changes(tmp_path, monkeypatch):
    pytest.importorskip("cosmic_ray", reason="make test-slow installs it")
    from mutants import score
    from mutants.by_hand import Written

    lines = [
        "X = 1",
        "def f(a):",
        "    b = (",
        "        a + 1",
        "    )",
        "    return b",
        "def g():",
    ]
    (tmp_path / "m.py").write_text("\n".join([*lines, "    return X", ""]))
    monkeypatch.setattr(score, "ROOT", tmp_path)

    def of(right, wrong):
        mutant = Written("m.py", right, wrong, "")
        assert wrong in mutant.code(tmp_path)
        return mutant.lines

    assert of("a + 1", "a + 2") == (3, 5)
    assert of("a + 1\n    )\n    return b", "a + 2\n    )\n    return -b") == (3, 6)
    assert of("    return b", "    b = -b\n    return b") == (6, 6)
    assert of("X = 1", "X = 2") == (0, 0)
    assert of("    return X\n", "    return 2\n") == (8, 8)
    with pytest.raises(ValueError, match="'b' stands there 2x"):
        of("b", "c")
