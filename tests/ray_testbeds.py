"""Testbeds whose processes die, or cannot load. Imports little, as every actor imports it."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tiny_testbed import TinyTestbed


def written(folder):
    """The number of records."""
    files = (folder / "records").glob("*.jsonl")
    return sum(file.read_bytes().count(b"\n") for file in files)


@dataclass
class Watched(TinyTestbed):
    """Leaves the ids of the processes that compute; the one that is to die dies.

    Its gold score is the number of threads.
    """

    folder: Path = None
    deaths: tuple[str, ...] = ()
    """Ways to die, each once: when an answer is there, and some records of others are."""

    def gold(self, prompt, response):
        if self.folder is not None:
            self.folder.joinpath(f"pid-{os.getpid()}").touch()
            for n, way in enumerate(self.deaths, 1):
                if written(self.folder) >= 4 * n and first(self.folder / way):
                    if way == "killed":
                        os.kill(os.getpid(), signal.SIGKILL)
                    raise torch.AcceleratorError("CUDA error: an illegal memory access")
        return float(torch.get_num_threads())


def first(flag):
    try:
        flag.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@dataclass
class Deadly(TinyTestbed):
    def gold(self, prompt, response):
        os._exit(1)


@dataclass
class Broken(TinyTestbed):
    def reward(self, name):
        raise ValueError("checkpoint: no weights")


@dataclass
class Elsewhere(TinyTestbed):
    """Other weights in every process."""

    here: int = field(default_factory=os.getpid)

    @property
    def declaration(self):
        return {**super().declaration, "dtype": "float32" if os.getpid() == self.here else "half"}
