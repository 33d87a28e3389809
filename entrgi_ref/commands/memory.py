"""Running out of memory, as a line that says what to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def out_of_memory(error: Exception) -> bool:
    """Whether that is what an error means, on a GPU or on a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def memory(advice: str) -> Iterator[None]:
    """Turn running out of memory into a `ValueError` with advice."""
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise ValueError(f"out of memory: {advice}") from error
