"""The same run by the actors of a Ray cluster, each with the networks on a GPU of its own.

Ray places the actors, starts a dead one again wherever there is room, and gives it its batch again.
Here an actor that has nothing to do is handed the next batch, and what it returns is written.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ... import checks
from ...commands.provenance import made_with
from ..declared.plan import Plan
from ..declared.testbed import Testbed
from .batches import Answerer, Batch
from .records import differences
from .required import Record
from .runner import POLL_SECONDS, Runner

ENGINES = ("local", "ray")
RESTARTS = 8
"""So often an actor is started again. A batch that kills every process would be tried for ever."""
CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Cluster:
    """Which actors compute a run."""

    address: str | None = None
    """None starts a cluster on this machine, which ends with the run."""
    actors: int | None = None
    """None is one for each GPU, also of nodes that join later."""
    gpus: bool = True
    """Whether an actor needs a GPU, if the cluster has any."""


def cluster_of(
    engine: str, address: str | None, actors: int | None, *, gpus: bool
) -> Cluster | None:
    """What the options of these names stand for; None if this process computes."""
    checks.choice("engine", engine, ENGINES)
    if engine == "local":
        for name, given in (("ray_address", address), ("ray_actors", actors)):
            if given is not None:
                raise ValueError(f"{name}: got {given!r}, which has no effect without --engine ray")
        return None
    if "LOCAL_RANK" in os.environ:
        raise ValueError("engine: got 'ray' under torchrun; one process hands out all: start one")
    if actors is not None:
        checks.integer("ray_actors", actors, minimum=1)
    return Cluster(address, actors, gpus)


class Actors:
    """The actors of a run, for as long as its context is open."""

    def __init__(self, cluster: Cluster, plan: Plan, testbed: Testbed):
        """`ValueError` if Ray is not installed."""
        self.cluster = cluster
        try:
            import ray
        except ImportError as error:
            raise ValueError(
                "ray: not installed; pip install 'entrgi-ref[ray]', in a clone '.[ray]'"
            ) from error
        self._ray = ray
        expected = _declared(plan, testbed)
        self._arguments = (plan, testbed, expected, torch.get_num_threads())
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, ExitStack]] = {}
        """What will hold the records -> the actor, and the lock of the batch."""

    def __enter__(self) -> Actors:
        self._ours = not self._ray.is_initialized()  # a program that has connected stays so
        if self._ours:
            self._connect()
        resources = self._ray.cluster_resources()
        self._per_actor = int(self.cluster.gpus and resources.get("GPU", 0) >= 1)
        # A batch that is lost with its actor is computed again by it, wherever it is started again.
        # That is not counted: until a lost node is known to be lost, each call to it is a failure.
        self._Actor = self._ray.remote(
            num_cpus=1, num_gpus=self._per_actor, max_restarts=RESTARTS, max_task_retries=-1
        )(Actor)
        return self

    def __exit__(self, *error: object) -> None:
        for _, lock in self._busy.values():
            lock.close()
        self._dismiss()
        for actor, _ in self._busy.values():
            self._ray.kill(actor)
        if self._ours:
            self._ray.shutdown()

    def _connect(self) -> None:
        address = self.cluster.address
        quiet = {"log_to_driver": False, "logging_level": "WARNING"}
        if address is None:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent from here
            self._ray.init(address="local", include_dashboard=False, **quiet)
            return
        _require_answer(address)
        try:
            self._ray.init(address=address, **quiet)
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(f"ray_address: {address!r}: {' '.join(str(error).split())}") from error

    def load(self) -> None:
        """Wait until one has loaded the networks. `ValueError` if they cannot be loaded."""
        self._ask()
        while not self._idle:
            self._collect(None)

    def run(self, runner: Runner) -> None:
        """Compute what is missing, until nothing is."""
        for taken in runner.take():
            if taken is None:
                # An actor that Ray starts again may be waiting for a place.
                self._dismiss()
                self._collect(runner, POLL_SECONDS)
                continue
            batch, lock = taken
            with lock:
                while not self._idle:
                    self._ask()
                    self._collect(runner)
                actor = self._idle.pop()
                self._busy[actor.records.remote(batch)] = (actor, lock.pop_all())

    def _ask(self) -> None:
        """Ask Ray for actors that are wanted by now: nodes may have joined."""
        wanted = self.cluster.actors
        if wanted is None:
            gpus = int(self._ray.cluster_resources().get("GPU", 0))
            wanted = max(1, gpus) if self._per_actor else 1
        for _ in range(wanted - len(self._idle) - len(self._busy)):
            actor = self._Actor.remote(*self._arguments)
            self._busy[actor.records.remote(None)] = (actor, ExitStack())

    def _collect(self, runner: Runner | None, timeout: float | None = None) -> None:
        """Wait for one of them, and write what it has computed."""
        if not self._busy:
            time.sleep(timeout or 0)
            return
        done, _ = self._ray.wait(list(self._busy), num_returns=1, timeout=timeout)
        for returned in done:
            actor, lock = self._busy.pop(returned)
            self._idle.append(actor)
            with lock:
                with self._errors():
                    records, said = self._ray.get(returned)
                if runner is not None:
                    for message in said:
                        runner.say(message)
                    runner.write(records)

    def _dismiss(self) -> None:
        """Let those go that have nothing to do."""
        while self._idle:
            self._ray.kill(self._idle.pop())

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """What was raised in an actor, as if it had been raised here."""
        try:
            yield
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            raise ValueError(
                f"ray: an actor died and is not started again: {' '.join(str(error).split())}"
            ) from error


class Actor:
    """What holds the networks, in a process that Ray starts."""

    def __init__(self, plan: Plan, testbed: Testbed, expected: Mapping[str, Any], threads: int):
        """Nothing is loaded yet: an error here would reach the driver as a dead actor.

        `expected` is what the driver says of the run and of its code.
        """
        # Ray allows one thread. Sums in another number of threads round differently.
        torch.set_num_threads(threads)
        self.plan, self.testbed, self.expected = plan, testbed, expected
        self._said: list[str] = []
        self._answerer: Answerer | None = None

    def records(self, batch: Batch | None) -> tuple[list[Record], list[str]]:
        """The records of a batch, and what there is to say about it.

        None loads the networks. `ValueError` if they cannot be loaded, or are not the driver's.
        """
        if self._answerer is None:
            self._require_same()
            self._answerer = Answerer(self.plan, self.testbed, self._said.append)
        self._said.clear()
        if batch is None:
            self.testbed.reward(self.testbed.main_reward)
            return [], []
        try:
            return list(self._answerer.records(batch)), list(self._said)
        except torch.AcceleratorError as error:
            # The device is lost to this process, but perhaps not to the next one.
            print(f"the device is lost: {error}", file=sys.stderr, flush=True)
            os._exit(1)

    def _require_same(self) -> None:
        here = _declared(self.plan, self.testbed)
        differing = "; ".join(
            f"{name}: {driver!r} at the driver, {actor!r} here"
            for name, driver, actor in differences(self.expected, here)
        )
        if differing:
            raise ValueError(
                f"ray: an actor on {socket.gethostname()} would compute another run ({differing}); "
                "give every node the same code, checkpoints and --dtype"
            )


def _declared(plan: Plan, testbed: Testbed) -> dict[str, Any]:
    """What must be the same at the driver and at its actors."""
    own = {"own_weights": plan.declared_weights} if plan.own_weights else {}
    return {**plan.declaration(testbed), **own, "made_with": made_with()}


def _require_answer(address: str) -> None:
    """Raise `ValueError` if nothing answers at HOST:PORT, for which Ray itself would wait long."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        return  # such as auto
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ValueError(f"ray_address: nothing answers at {address} ({error})") from error
