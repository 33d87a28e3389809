"""What all records of a run say alike. A line that says another thing may have been edited."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from .required import Record

Subject = tuple[Any, ...]
"""Of what something is said."""
DIGITS = 1e-4
"""By how much edges may be off: devices sum the norms of embeddings in another order."""


class Agreement:
    """What records say of each prompt's text, and of the edges of their histograms."""

    def __init__(self) -> None:
        self.whole = True
        """Whether nothing has been said in two ways."""
        self._said: dict[Subject, list[tuple[Any, list[int]]]] = {}
        """Subject -> what is said of it, and how often."""

    def add(self, record: Record) -> None:
        """Take note of a record."""
        for subject, value in _says(record):
            said = self._said.setdefault(subject, [])
            for known, times in said:
                if _same(known, value):
                    times[0] += 1
                    break
            else:
                said.append((value, [1]))
                self.whole = self.whole and len(said) == 1

    def against(self, record: Record) -> str | None:
        """What a record says unlike most. Where no way is the most frequent, all are unlike it:
        nobody knows which one is right.
        """
        for subject, value in _says(record):
            said = self._said.get(subject, [])
            if len(said) < 2:
                continue
            most = max(times[0] for _, times in said)
            right = [known for known, times in said if times[0] == most]
            if len(right) > 1 or not _same(right[0], value):
                return f"its {subject[0]} {OTHER[subject[0]]}"
        return None


PROMPT, EDGES = "prompt", "errors.histogram"
OTHER = {
    PROMPT: "is another text than that of other records with its benchmark, seed and idx",
    EDGES: "has other edges than those of other records",
}


def _says(record: Record) -> Iterator[tuple[Subject, Any]]:
    yield (PROMPT, record["benchmark"], record["seed"], record["idx"]), record["prompt"]
    if record.get("errors") is not None:
        histogram = record["errors"]["histogram"]
        edges = histogram["entropy_edges"], histogram["error_edges"]
        yield (EDGES, record["variant"].get("reward")), edges


def _same(a: Any, b: Any) -> bool:
    return bool(a == b) or (isinstance(a, tuple) and all(map(_close, a, b)))


def _close(a: Sequence[float], b: Sequence[float]) -> bool:
    return len(a) == len(b) and all(
        math.isclose(x, y, rel_tol=DIGITS) for x, y in zip(a, b, strict=True)
    )
