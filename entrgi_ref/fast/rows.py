"""Functions of rows, applied to a few rows at a time.

A table of [n, V] numbers is larger than any cache: 39 MB for 64 rows of 152,064. A function that
goes over it five times then waits for the memory five times, and makes five tables on the way. On
a few rows at a time it does so once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

AT_A_TIME = {"cpu": 2**19, "cuda": 2**26}
"""Numbers that are worked on together: on a CPU as many as its cache holds, on a GPU as many as
keep it busy.
"""

Function = TypeVar("Function", bound=Callable[..., Tensor])


def by_rows(function: Function) -> Function:
    """`function`, called with a few rows at a time where its first argument is large.

    Its tensors must all have one row per row of the first, and so must what it returns. Where a
    gradient is wanted it is called once, with everything.
    """
    parameters = inspect.signature(function)

    @wraps(function)
    def in_parts(*given: Any, **options: Any) -> Tensor:
        if not given or any(isinstance(option, Tensor) for option in options.values()):
            bound = parameters.bind(*given, **options)
            given, options = bound.args, bound.kwargs
        first, *others = given
        most = AT_A_TIME.get(first.device.type, AT_A_TIME["cpu"])
        wanted = torch.is_grad_enabled() and first.requires_grad
        fits = all(len(other) == len(first) for other in others if isinstance(other, Tensor))
        if wanted or first.ndim != 2 or first.numel() <= most or not fits:
            return function(first, *others, **options)
        size = max(1, most // first.shape[1])
        columns = [
            other.split(size) if isinstance(other, Tensor) else [other] * (-(-len(first) // size))
            for other in others
        ]
        found: Tensor | None = None
        for i, part in enumerate(first.split(size)):
            some = function(part, *(column[i] for column in columns), **options)
            if found is None:
                found = some.new_empty((len(first), *some.shape[1:]))
            found[i * size : i * size + len(some)] = some
        assert found is not None
        return found

    return cast(Function, in_parts)


def argmax(table: Tensor) -> Tensor:
    """Where each row has its largest number, the first of equal ones."""
    if table.is_cpu and table.dtype in (torch.float32, torch.float64):
        return torch.from_numpy(table.detach().numpy().argmax(-1))  # it compares many at a time
    return table.argmax(-1)
