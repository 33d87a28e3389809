"""How far a run is, for a person who waits."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from .shown import is_terminal

Record = dict[str, Any]


def quiet(message: str) -> None:
    """Say nothing."""


class Progress:
    """One bar over the prompts on a terminal, with means so far and the time left; else a line for
    each cell.
    """

    def __init__(self, total: int, done: Callable[[], int], loud: bool):
        """`done` counts what all processes together have done."""
        self.live = loud and is_terminal(sys.stderr)
        self.loud, self.total, self.done = loud, total, done
        self.before = self.reached = done()
        self.cell: tuple[Any, ...] | None = None
        self.top1: list[float] = []
        self.start = time.perf_counter()
        self.bar: Any = None

    def __enter__(self) -> Progress:
        if self.live:
            from tqdm import tqdm

            self.bar = tqdm(
                total=self.total, initial=self.before, unit="prompt", dynamic_ncols=True
            )
        elif self.loud and self.before:
            self.say(f"{self.before} of {self.total} prompts are done already")
        return self

    def __exit__(self, *error: object) -> None:
        self._end_of_cell()
        if self.bar is not None:
            self.bar.close()

    def say(self, message: str) -> None:
        """Print a line without spoiling the bar."""
        if self.bar is not None:
            self.bar.write(message, file=sys.stderr)
        else:
            print(message, file=sys.stderr, flush=True)

    def __call__(self, record: Record) -> None:
        """Count a record that has been written."""
        cell = (record["benchmark"], record["method"], str(record["variant"]), record["seed"])
        if cell != self.cell:
            self._end_of_cell()  # of what was reached before this record
            self.cell, self.top1 = cell, []
        self.reached = self.done()
        if record["rewards"]:
            self.top1.append(max(record["rewards"]))
        if self.bar is not None:
            self.bar.update(self.reached - self.bar.n)
            self.bar.set_postfix_str(self._means())

    def _means(self) -> str:
        assert self.cell is not None
        mean = f", Top@1 {sum(self.top1) / len(self.top1):.2f}" if self.top1 else ""
        return f"{self.cell[0]} {self.cell[1]} seed {self.cell[3]}{mean}"

    def _end_of_cell(self) -> None:
        if self.cell is not None and self.loud and not self.live:
            seconds = time.perf_counter() - self.start
            left = seconds / max(1, self.reached - self.before) * (self.total - self.reached)
            rest = f", {duration(left)} left" if left > 0 else ""
            self.say(f"{self.reached} of {self.total} prompts: {self._means()}{rest}")


def duration(seconds: float) -> str:
    """Seconds in words: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
