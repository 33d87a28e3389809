"""The wheel, as somebody gets it who has no clone: installed in an environment of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from checkpoints import DREAM, REWARD

ROOT = Path(__file__).parent.parent
pytestmark = [pytest.mark.deep, pytest.mark.xdist_group("wheel")]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The commands of an environment that has the wheel, and the libraries of this one.

    A .pth file brings those; it does not bring an editable installation, which is a .pth itself.
    """
    home = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", home], cwd=ROOT)
    [wheel] = home.glob("*.whl")
    run([sys.executable, "-m", "venv", home / "bare"], cwd=home)
    [packages] = (home / "bare").glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
    pip = [home / "bare" / "bin" / "python", "-m", "pip", "install", "--no-deps", "--no-index"]
    run([*pip, wheel], cwd=home)
    return home / "bare" / "bin"


def run(command, cwd):
    """In a folder that is not the clone, and with nothing on the path that points there."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_the_wheel_that_is_imported(installed, tmp_path):
    code = "import entrgi_ref, importlib.util as u; print(entrgi_ref.__file__, u.find_spec('toy'))"
    assert run([installed / "python", "-c", code], tmp_path).split() == [
        str(next(installed.parent.glob("lib/python*/site-packages")) / "entrgi_ref/__init__.py"),
        "None",  # the README says so
    ]


@pytest.mark.parametrize("command", ["entrgi", "entrgi-paper"])
def test_help_and_commands(command, installed, tmp_path):
    assert f"Usage: {command} " in run([installed / command, "--help"], tmp_path)


def test_a_prompt_is_answered_and_its_page_written(installed, tmp_path):
    """The page is made of files that are not Python's."""
    small = "--new-tokens 4 --denoising-steps 4 --trajectories 2 --device cpu --dtype float32"
    networks = ["--denoiser", DREAM, "--reward", REWARD]
    run([installed / "entrgi", "explain", *networks, *small.split(), "--out", "out"], tmp_path)
    written = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert '"responses"' in written["answers.json"]
    [page] = (text for name, text in written.items() if name.endswith(".html"))
    assert re.search(r"<style>.*<script", page, re.DOTALL)


def test_an_experiment_is_run_and_browsed(installed, tmp_path):
    """The page of all answers, too, is made of files that are not Python's."""
    (tmp_path / "questions.jsonl").write_text('{"prompt": "explain entropy"}\n')
    few = "--prompts 1 --seeds 1 --new-tokens 4 --denoising-steps 4 --trajectories 2 --device cpu"
    networks = ["--denoiser", DREAM, "--reward", REWARD, "--benchmark", "questions.jsonl"]
    words = [*networks, *few.split(), "--methods", "entrgi", "--out", "r"]
    run([installed / "entrgi-paper", "run", "main", *words], tmp_path)
    run([installed / "entrgi-paper", "browse", "r"], tmp_path)
    [page] = (tmp_path / "r").glob("*.html")
    assert re.search(r"<style>.*<script", page.read_text(), re.DOTALL)
    # The wheel is no checkout: a record that named the commit of somebody's repository would lie.
    [records] = (tmp_path / "r" / "records").glob("*.jsonl")
    assert '"commit": "unknown"' in (tmp_path / "r" / "run.json").read_text() + records.read_text()
