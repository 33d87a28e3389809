"""Checks whose errors say what was given, what was expected and where.

Settings and shapes are checked before any work. Whether numbers are finite is known only on the
device: those conditions are collected there, and read once per denoising step, so that checking
does not make the host wait for the device.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def integer(name: str, value: object, minimum: int) -> None:
    """Raise `ValueError` unless `value` is an integer of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name}: got {value!r}, expected an integer of at least {minimum}")


def number(name: str, value: object, low: float, high: float, *, low_allowed: bool = False) -> None:
    """Raise `ValueError` unless `value` is in (low, high], or [low, high] with `low_allowed`."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    inside = number and (low < value <= high or (low_allowed and value == low))  # type: ignore[operator]
    if not inside:  # nan never is
        interval = f"{'[' if low_allowed else '('}{low:g}, {high:g}]"
        raise ValueError(f"{name}: got {value!r}, expected a number in {interval}")


def temperature(value: object, name: str = "temperature") -> None:
    """Raise `ValueError` unless `value` is a temperature at which a softmax can be computed."""
    number(name, value, 1e-6, 1e6, low_allowed=True)


def choice(name: str, value: object, allowed: Iterable[str]) -> None:
    """Raise `ValueError` unless `value` is one of `allowed`; the message suggests the nearest."""
    allowed = list(allowed)
    if value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        names = ", ".join(map(repr, allowed))
        raise ValueError(f"{name}: got {value!r}, expected one of {names}{hint}")


def boolean(name: str, value: object) -> None:
    """Raise `ValueError` unless `value` is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: got {value!r}, expected True or False")


def shape(name: str, value: object, expected: tuple[int | None, ...], meaning: str) -> None:
    """Raise `ValueError` unless `value` is a tensor of the expected shape; None is any size."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name}: got {value!r:.60}, expected a tensor of shape {meaning}")
    fits = len(value.shape) == len(expected) and all(
        size in (None, given) for given, size in zip(value.shape, expected, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in expected)
        raise ValueError(f"{name}: got shape {list(value.shape)}, expected {meaning} = [{wanted}]")


class GuidanceError(ValueError):
    """A number went bad on the way. `reason` says which one, and when.

    `where` marks the trajectories [S] concerned, or the masked positions [n] if `per_position`.
    """

    def __init__(self, reason: str, where: Tensor, per_position: bool):
        self.reason, self.where, self.per_position = reason, where, per_position
        kind = "masked positions" if per_position else "trajectories"
        super().__init__(f"{reason}; {kind}: {some(where.nonzero().flatten().tolist())}")


def some(items: Sequence[object]) -> str:
    """A list for a message, cut when it is long."""
    more = f" and {len(items) - 8} more" if len(items) > 8 else ""
    return ", ".join(map(str, items[:8])) + more


class Conditions:
    """Conditions collected on the device and read together, so that the host waits only once."""

    def __init__(self) -> None:
        self._collected: list[tuple[str, Tensor, bool]] = []

    def require(self, reason: str, holds: Tensor, *, per_position: bool = True) -> None:
        """Add a condition: what to say, and where all is well."""
        self._collected.append((reason, holds, per_position))

    def settle(self) -> None:
        """Raise `GuidanceError` for the first condition that does not hold everywhere."""
        verdicts = torch.stack([holds.all() for _, holds, _ in self._collected]).tolist()
        for (reason, holds, per_position), fine in zip(self._collected, verdicts, strict=True):
            if not fine:
                raise GuidanceError(reason, ~holds, per_position)
