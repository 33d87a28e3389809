"""How the time of a run grows with each of its sizes, beside how it should grow.

What should be follows from the parts of one step, each timed by itself: some grow with a size, some
do not. So the expected slope is that of their sum.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from .bench import Bench, seconds_of
from .networks import SUFFIX, Shape

Grow = Callable[[Shape, float], Shape]

SIZES: dict[str, Grow] = {
    "S": lambda s, f: replace(s, trajectories=round(s.trajectories * f)),
    "N": lambda s, f: replace(s, new_tokens=round(s.new_tokens * f)),
    "V": lambda s, f: replace(s, vocabulary=round(s.vocabulary * f)),
    "prompt": lambda s, f: replace(s, prompt=round(s.prompt * f)),
    "M": lambda s, f: replace(s, gradient_steps=round(s.gradient_steps * f)),
    "T": lambda s, f: replace(s, denoising_steps=round(s.denoising_steps * f)),
}
"""Name -> the shape with so many times of it."""
FACTORS = (1.0, 2.0, 4.0)
REAL = 100_000
"""More tokens than this only a real vocabulary has."""


@dataclass(frozen=True)
class Line:
    """A size, the seconds of a run at some multiples of it, and two slopes in log-log."""

    size: str
    values: list[int]
    seconds: list[float]
    expected: float
    measured: float


def scaling(base: Shape, device: torch.device, rounds: int = 3) -> list[dict[str, Any]]:
    """Time runs at 1, 2 and 4 times each size, all others as in `base`; but the real vocabulary is
    the largest.
    """
    if base.vocabulary > REAL / max(FACTORS):
        base = replace(base, vocabulary=round(base.vocabulary / max(FACTORS)))
    parts = parts_of(Bench.of(base, device), device)
    found = []
    for size, grow in SIZES.items():
        shapes = [grow(base, factor) for factor in FACTORS]
        runs = [Bench.of(shape, device) for shape in shapes]
        times: list[list[float]] = [[] for _ in runs]
        for _ in range(rounds):
            for i, run in enumerate(runs):
                times[i].append(seconds_of(run.ours, device))
        seconds = [statistics.median(each) for each in times]
        totals = [expected_seconds(parts, base, shape) for shape in shapes]
        line = Line(
            size,
            [value_of(shape, size) for shape in shapes],
            seconds,
            slope(FACTORS, totals),
            slope(FACTORS, seconds),
        )
        found.append(asdict(line))
    return found


def parts_of(made: Bench, device: torch.device) -> dict[str, float]:
    """Those of `bench`, with the denoiser's last layer apart, which grows with the vocabulary."""
    parts = made.parts(lambda call: seconds_of(call, device))
    network = made.denoiser.network
    hidden = network.lm_head.weight.new_zeros((sum(masks_of(made)), made.shape.denoiser.width))
    with torch.no_grad():
        head = sum(
            seconds_of(partial(network.lm_head, part), device)
            for part in hidden.split(masks_of(made))
        )
    return parts | {"head": head, "denoiser": max(0.0, parts["denoiser"] - head)}


def masks_of(made: Bench) -> list[int]:
    """How many masked positions each step has."""
    return [int(masked.sum()) for _, masked in made.steps.boards]


def expected_seconds(parts: dict[str, float], base: Shape, shape: Shape) -> float:
    """What a run of `shape` takes if each part of a run of `base` grows with what it works on."""

    def times(count: Callable[[Shape], float]) -> float:
        return count(shape) / count(base)

    steps = times(lambda s: min(s.denoising_steps, s.new_tokens))
    rows = times(lambda s: s.prompts * s.trajectories)
    masks = rows * times(lambda s: s.new_tokens) * steps
    tables = masks * times(lambda s: s.vocabulary)
    per_gradient_step = times(lambda s: s.gradient_steps)
    per_draw = times(lambda s: s.gradient_steps + 1)
    read = rows * steps * per_gradient_step * times(lambda s: s.new_tokens + SUFFIX)
    growth = {
        "denoiser": rows * steps * times(lambda s: s.prompt + s.new_tokens),
        "head": tables,
        "rest": steps,
        "reward_forward": read,
        "reward_backward": read,
        "softmax": tables * per_draw,
        "nucleus": tables * per_draw,
        "draw": tables * per_draw,
        "entropy": tables * per_gradient_step,
        "gradient": tables * per_gradient_step,
        "adam": tables * per_gradient_step,
    }
    return sum(seconds * growth[name] for name, seconds in parts.items())


def value_of(shape: Shape, size: str) -> int:
    """How large a size is in a shape."""
    fields = {
        "S": shape.prompts * shape.trajectories,
        "N": shape.new_tokens,
        "V": shape.vocabulary,
        "prompt": shape.prompt,
        "M": shape.gradient_steps,
        "T": shape.denoising_steps,
    }
    return fields[size]


def slope(factors: tuple[float, ...], values: list[float]) -> float:
    """That of the line of least squares through the logarithms: 1 for what is proportional."""
    x, y = [math.log(factor) for factor in factors], [math.log(value) for value in values]
    line = statistics.linear_regression(x, y)
    return line.slope
