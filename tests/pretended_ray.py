"""As much of Ray as `--engine ray` asks for, in one process: its actors die when they are told to.

A dead actor is started again as Ray does it, up to `max_restarts`, and computes its batch again.
Which result comes first, and whether one comes before the time is up, follows from a seed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from faults import current


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause):
        super().__init__(str(cause))
        self.cause = cause


exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)


@dataclass
class Fate:
    """What happens to the actors of a process."""

    seed: int
    deaths: int

    def __post_init__(self):
        self.random = random.Random(self.seed)


@dataclass(eq=False)
class Handle:
    kind: Any
    arguments: tuple
    left: int
    """So often it is started again."""
    killed: bool = False

    def __post_init__(self):
        self.started = self.kind(*self.arguments)
        self.records = SimpleNamespace(remote=lambda batch: Returned(self, batch))

    def compute(self, batch):
        assert not self.killed, "nobody waits for an actor that was let go"
        fate = current().fate
        while fate.deaths > 0 and fate.random.random() < 0.5:
            fate.deaths -= 1
            if self.left == 0:
                raise RayError("the actor died")
            self.started, self.left = self.kind(*self.arguments), self.left - 1
        try:
            return self.started.records(batch)
        except Exception as error:
            raise RayTaskError(error) from error


@dataclass(eq=False)
class Returned:
    handle: Handle
    batch: Any
    result: Any = field(default=None)


def is_initialized():
    return True


def cluster_resources():
    return {}


def remote(*, max_restarts, **_):
    def of(kind):
        return SimpleNamespace(remote=lambda *arguments: Handle(kind, arguments, max_restarts))

    return of


def wait(returned, *, num_returns, timeout):
    """One that is done, or none if the time is up."""
    process = current()
    if timeout is not None:
        if fault := process.operation("kill"):
            process.fail(fault)
        if process.fate.random.random() < 0.3:
            return [], returned
    return [process.fate.random.choice(returned)], returned


def get(returned):
    return returned.handle.compute(returned.batch)


def kill(handle):
    handle.killed = True
