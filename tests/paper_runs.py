"""Runs of the paper's experiments for the tests: on the tiny checkpoints, and on networks tinier
still.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from building.records import ROOT
from checkpoints import DREAM, REWARD
from entrgi_ref import GuidanceConfig, SamplingConfig
from entrgi_ref.paper.__main__ import app
from entrgi_ref.paper.declared.plan import Plan
from entrgi_ref.paper.run.folder import RunFolder
from entrgi_ref.paper.run.records import key_of
from entrgi_ref.paper.run.runner import Runner
from tiny_testbed import TinyTestbed

PROMPTS = [f"explain number {i}{' please' * (i % 4)}" for i in range(9)]


def benchmark_file(folder):
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    return path


def arguments(benchmark, out, *more, experiment="main"):
    """The options of a run that the issue of this project's experimenters is about, in small."""
    return [
        *("run", experiment, "--dream", str(DREAM), "--reward", str(REWARD)),
        *("--benchmark", str(benchmark), "--prompts", "6", "--seeds", "1,2", "--new-tokens", "8"),
        *("--denoising-steps", "8", "--trajectories", "2", "--batch-size", "2"),
        *("--device", "cpu", "--out", str(out)),
        *map(str, more),
    ]


def invoke(*words, code=0):
    done = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def start(words, launcher=(sys.executable,)):
    """A process of the command line, as users start it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*launcher, "-m", "entrgi_ref.paper", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=environment,
    )


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["entrgi_ref.paper.__main__", "entrgi_ref.models"])


def fork(words):
    """The same process, of one that has imported everything: it begins at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["entrgi_ref.paper", *words])  # processes take over
        module = {"run_name": "__main__", "alter_sys": True}
        options = {"kwargs": module, "daemon": True}  # it does not outlive the tests
        process = FORKS.Process(target=runpy.run_module, args=("entrgi_ref.paper",), **options)
        process.start()
    return process


def lines(folder):
    """All records of a folder, as they are written, timings aside."""
    found = []
    for file in (folder / "records").glob("*.jsonl"):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            del record["timing"]
            found.append(record)
    return found


def by_key(folder):
    """Key -> record, timings aside. None is there twice."""
    found = lines(folder)
    keyed = {key_of(record): record for record in found}
    assert len(keyed) == len(found)
    return keyed


TINY_BASE = SamplingConfig(
    GuidanceConfig(steps=1, dtype="float64"), trajectories=2, new_tokens=4, denoising_steps=4
)


def tiny_run(folder, testbed=None, *, base=TINY_BASE, prompts=5, batch_size=2, **options):
    """Run an experiment in this process, on networks of one layer. Returns what it said."""
    testbed = testbed or TinyTestbed()
    plan = Plan.of(
        options.pop("experiment", "main"),
        base,
        options.pop("seeds", [1]),
        prompts,
        batch_size,
        options.pop("methods", ["bon", "entrgi"]),
    )
    said = []
    if options.pop("asked", False):
        options["asked"] = plan.asked(testbed)
    opened = RunFolder(folder, plan.declaration(testbed), **options)
    Runner(plan, testbed, opened, said.append).run()
    opened.close()
    return said
