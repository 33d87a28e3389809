"""Run an experiment: every prompt of every cell, in batches, each written as soon as it is done.

Processes share the work by taking the next batch that nobody holds; none waits for another.
"""

from __future__ import annotations

import time
from collections.abc import Callable
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
        self._answerer = Answerer(self.plan, self.testbed, self.say)

    def run(self) -> None:
        """Compute what is missing, until nothing is."""
        left = batches(self.plan, self.testbed)
        while True:
            self.folder.refresh()
            left = [batch for batch in left if not self._done(batch)]
            if not left:
                return
            taken = [self._take(batch) for batch in left]
            if not any(taken):
                time.sleep(POLL_SECONDS)  # others hold all that is left; one of them may die

    def _done(self, batch: Batch) -> bool:
        return all(key in self.folder.done for key in batch.keys)

    def _take(self, batch: Batch) -> bool:
        """Compute a batch unless another process holds it; whether it was ours."""
        with self.folder.lock(repr(batch.keys[0])) as ours:
            if not ours:
                return False
            self.folder.refresh()
            if not self._done(batch):
                for record in self._answerer.records(batch):
                    fresh = key_of(record) not in self.folder.done
                    self.folder.write(record)
                    if fresh:
                        self.progress(record)
                        self._count(record)
            return True

    def _count(self, record: Record) -> None:
        """End the run if nothing works."""
        self._failures = self._failures + 1 if record["status"] == "failed" else 0
        if self._failures == self.give_up_after > 0:
            raise ValueError(
                f"prompts: the last {self._failures} all failed, so the run ends here; the last "
                f"because of: {record['reason']} (--give-up-after 0 would go on)"
            )
