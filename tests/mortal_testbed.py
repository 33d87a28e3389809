"""The testbed whose networks cost nothing, in processes that can be found. Actors import it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from entrgi_ref.paper.run import start
from hash_testbed import BASE, METHODS, HashPlan, HashTestbed


@dataclass(frozen=True)
class MortalTestbed(HashTestbed):
    """Takes a while for each answer, and leaves the ids of the processes that compute."""

    pids: Path = Path()
    seconds: float = 0.0

    def gold(self, prompt, response):
        (self.pids / str(os.getpid())).touch()
        time.sleep(self.seconds)
        return super().gold(prompt, response)


def run(folder, pids, seconds):
    """A run that takes a while, in a process of its own."""
    plan = HashPlan.of("main", BASE, (1, 2), 4, 2, METHODS)
    start.run(plan, MortalTestbed(pids=pids, seconds=seconds), folder, str)
