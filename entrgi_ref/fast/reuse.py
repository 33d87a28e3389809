"""Memory of tables of [n, V] numbers, used again.

On a CPU the system hands out memory page by page, when it is first written to. For a table this
takes longer than the writing, and a large one is given back as soon as it is freed. A GPU's memory
is kept by torch; here we keep what our own tables leave, as long as a function works that is
`reusing`.

Memory is used again when no tensor refers to it any longer, whoever may have held one.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from math import prod
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])

LARGE = 2**20
"""Bytes. The C library itself keeps what is smaller."""

_left: ContextVar[list[Tensor] | None] = ContextVar("_left", default=None)
"""Memory that nobody uses. None outside of functions that are `reusing`."""


def reusing(function: Function) -> Function:
    """`function`, in which `empty` hands out the memory of tables that are gone."""

    @wraps(function)
    def with_memory(*given: Any, **options: Any) -> Any:
        if _left.get() is not None:
            return function(*given, **options)
        token = _left.set([])
        try:
            return function(*given, **options)
        finally:
            _left.reset(token)

    return cast(Function, with_memory)


def empty(like: Tensor, *shape: int) -> Tensor:
    """A table of this shape with anything in it, in another's dtype and on its device."""
    left, size = _left.get(), prod(shape) * like.element_size()
    if left is None or size < LARGE or not like.is_cpu:
        return like.new_empty(shape)
    fitting = [i for i, memory in enumerate(left) if len(memory) >= size]
    memory = left.pop(fitting[0]) if fitting else torch.empty(size, dtype=torch.uint8)
    lent = memory.numpy()[:size]
    table = torch.from_numpy(lent).view(like.dtype).view(shape)
    # What torch makes of the array holds it, and so does every view: with the last one it goes.
    weakref.finalize(lent, left.append, memory).atexit = False
    return table


@torch.no_grad()
def copy(table: Tensor) -> Tensor:
    """A detached copy."""
    return empty(table, *table.shape).copy_(table)
