"""Run an experiment: every prompt of every cell, in batches, each written as soon as it is done.

Processes share the work by taking the next batch that nobody holds; none waits for another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from ..declared.plan import Plan
from ..declared.testbed import Testbed
from .batches import Answerer, Batch, batches
from .folder import RunFolder
from .records import key_of
from .required import Record

GIVE_UP_AFTER = 16
"""Failures in a row, without a success, after which a run ends."""
POLL_SECONDS = 2.0
"""How often to look for batches whose process has died, once nothing else is left."""


@dataclass
class Runner:
    """One process of a run."""

    plan: Plan
    testbed: Testbed
    folder: RunFolder
    say: Callable[[str], None]
    progress: Callable[[Record], None] = lambda record: None
    give_up_after: int = GIVE_UP_AFTER
    """So many failures in a row end the run; 0 never does."""

    def __post_init__(self) -> None:
        self._failures = 0

    def run(self) -> None:
        """Compute what is missing, until nothing is."""
        answerer = Answerer(self.plan, self.testbed, self.say)
        for taken in self.take():
            if taken is None:
                time.sleep(POLL_SECONDS)
                continue
            batch, lock = taken
            with lock:
                self.write(answerer.records(batch))

    def take(self) -> Iterator[tuple[Batch, ExitStack] | None]:
        """What is missing, batch by batch, until nothing is; each is held until its lock is closed.

        None if all that is left is held already, by others, one of which may die, or by the caller.
        """
        left = batches(self.plan, self.testbed)
        while True:
            self.folder.refresh()
            left = [batch for batch in left if not self._done(batch)]
            if not left:
                return
            any_held = False
            for batch in left:
                with ExitStack() as lock:
                    held = lock.enter_context(self.folder.lock(repr(batch.keys[0])))
                    any_held |= held
                    if held:
                        self.folder.refresh()
                    if held and not self._done(batch):
                        yield batch, lock.pop_all()
            if not any_held:
                yield None

    def write(self, records: Iterable[Record]) -> None:
        """Write what is new of some records. `ValueError` if too many in a row have failed."""
        for record in records:
            fresh = key_of(record) not in self.folder.done
            self.folder.write(record)
            if fresh:
                self.progress(record)
                self._count(record)

    def _done(self, batch: Batch) -> bool:
        return all(key in self.folder.done for key in batch.keys)

    def _count(self, record: Record) -> None:
        """End the run if nothing works."""
        self._failures = self._failures + 1 if record["status"] == "failed" else 0
        if self._failures == self.give_up_after > 0:
            raise ValueError(
                f"prompts: the last {self._failures} all failed, so the run ends here; the last "
                f"because of: {record['reason']} (--give-up-after 0 would go on)"
            )
