"""The methods as one family: a constant weight from 0 to 1, or the entropy's, over M."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from entrgi_ref import SamplingConfig, generate

from .demo import BASE, records_of
from .statistics import Estimate, bootstrap
from .studies import Finding, Setting
from .table import MEASURES, Record, by_prompt
from .testbed import Testbed, held_out_prompts

WEIGHTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, "entropy")
GRADIENT_STEPS = (1, 2, 3, 4, 6, 8)
SHOWN = ("top1", "average", "gold_best", "gold_mean", "valid")


@dataclass(frozen=True)
class Constant:
    """The same weight everywhere: 0 is Expectation, 1 is APS."""

    w: float

    def __call__(self, logits: Float[Tensor, "n V"]) -> Float[Tensor, "n"]:
        return logits.new_full((len(logits),), self.w)


def settings(base: SamplingConfig, weight: float | str, steps: int) -> SamplingConfig:
    """`base` with the dial at a place."""
    function = "entrgi" if weight == "entropy" else Constant(float(weight))
    return base.guided(weight=function, steps=steps)


def study(setting: Setting) -> Finding:
    """The command `dial`."""
    testbed, plan = setting.testbed, setting.plan
    found = turn(testbed, BASE, held_out_prompts(plan.prompts), plan.seeds)
    return Finding(markdown(found), found, testbed.description, BASE, plan.prompts, plan.seeds)


def turn(
    testbed: Testbed, base: SamplingConfig, prompts: Sequence[str], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Every place of the dial: w, M, and the measures in `SHOWN` with their intervals.

    M = 0 is Best-of-N, whatever w is.
    """
    places: list[tuple[float | str, int]] = [("entropy", 0)]
    places += [(w, M) for M in GRADIENT_STEPS for w in WEIGHTS]
    found = []
    for w, M in places:
        records: list[Record] = []
        for seed in seeds:
            config = replace(settings(base, w, M), seed=seed)
            generation = generate(testbed.denoiser, testbed.reward, prompts, config)
            records += records_of(testbed, "dial", generation, 0.0)
        measures: dict[str, Estimate] = {
            name: bootstrap(by_prompt(records, "dial", name)) for name in SHOWN
        }
        found.append({"w": w, "M": M, "measures": {n: vars(e) for n, e in measures.items()}})
    return found


def markdown(found: Sequence[Mapping[str, Any]], measure: str = "gold_mean") -> str:
    """A measure: w down, M across."""
    at = {(row["w"], row["M"]): Estimate(**row["measures"][measure]) for row in found}
    steps = sorted({M for _, M in at if M})
    lines = [
        f"| {MEASURES[measure].label} | {' | '.join(f'M = {M}' for M in steps)} |",
        f"| --- |{' ---: |' * len(steps)}",
    ]
    for w in WEIGHTS:
        label = "w = H / log K" if w == "entropy" else f"w = {w:g}"
        lines.append(f"| {label} | {' | '.join(at[w, M].text(2) for M in steps)} |")
    return "\n".join(lines)
