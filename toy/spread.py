"""A comparison on several trained pairs: how much of a result is one pair's luck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np

from entrgi_ref import DenoisingRecord, SamplingConfig, checks, generate
from entrgi_ref.commands.options import names_list, seed_list
from entrgi_ref.commands.own_weights import named
from entrgi_ref.paper.declared.experiments import LABELS, METHODS

from .demo import BASE, Plan, compare, methods_of
from .dial import Constant
from .statistics import student
from .studies import Finding, Setting
from .table import MEASURES, REWARD_AND_GOLD, Record, summarise, verdict
from .testbed import Testbed, held_out_prompts

Spread = dict[str, dict[str, list[float]]]
"""Method -> measure -> its difference to the baseline on each pair."""
MEAN = "mean"
"""Stands for the constant that is EntRGi's mean weight on the pair."""


def study(setting: Setting) -> Finding:
    """The command `spread`."""
    asked = setting.options
    base = BASE.guided(steps=asked["gradient_steps"])
    pairs, baseline = asked["pairs"], asked["baseline"]
    seeds = seed_list(asked["seeds"]) if asked["seeds"] else setting.plan.seeds
    plan = Plan(asked["prompts"] or setting.plan.prompts, checks.seeds(seeds))
    names, own = named(names_list(asked["methods"]) or list(METHODS), METHODS, LABELS)
    checks.choice("baseline", baseline, names)
    constants = {
        _label(text): _constant(text) for text in names_list(asked["constants"], "constants")
    }
    if None in constants.values() and not asked["gradient_steps"]:
        raise ValueError(f"constants: got {MEAN} with no gradient steps, expected one or more")
    apart = next(seed for seed in count() if seed not in plan.seeds)
    prompts = held_out_prompts(plan.prompts)
    records: list[Record] = []
    mean_weights: list[float] = []
    first = setting.load(setting.training_seed, pairs=pairs)
    for testbed in first.pairs(pairs):
        known = methods_of(base, testbed) | {
            name: base.guided(weight=weight) for name, weight in own.items()
        }
        methods = {name: known[name] for name in names}
        for name, constant in constants.items():
            if constant is None:
                constant = mean_weight(testbed, replace(base, seed=apart), prompts)
                mean_weights.append(constant)
            methods[name] = base.guided(weight=Constant(constant))
        records += compare(testbed, methods, prompts, plan.seeds, baseline=baseline)
        setting.say(f"answered by {testbed.description}")
    found = summarise(records)
    rows: Spread = {
        row.method: {measure: list(row.by_pair[measure]) for measure in REWARD_AND_GOLD}
        for row in found
        if row.method != baseline
    }
    text = (
        f"Difference to {LABELS.get(baseline, baseline)} over {pairs} trained pairs: mean [95% "
        "interval over the pairs], smallest to largest.\n"
        f"{found[0].size}.\n\n{markdown(rows)}\n\n"
        f"{verdict(found)}"
    )
    more: dict[str, Any] = {"baseline": baseline}
    more |= {"mean_weight": mean_weights} if mean_weights else {}
    more |= {"own_weights": {n: w.declaration for n, w in own.items()}} if own else {}
    description = f"{pairs} pairs, the first of them: {first.description}"
    return Finding(text, rows, description, base, plan.prompts, plan.seeds, more)


def _label(constant: str) -> str:
    return "w = EntRGi's mean" if constant == MEAN else f"w = {constant}"


def _constant(text: str) -> float | None:
    """A weight; None for `MEAN`, which is measured on each pair."""
    try:
        return None if text == MEAN else checks.number("", float(text), 0, 1, low_allowed=True)
    except ValueError:
        raise ValueError(f"constants: got {text!r}, expected numbers in [0, 1], or mean") from None


def mean_weight(testbed: Testbed, base: SamplingConfig, prompts: Sequence[str]) -> float:
    """EntRGi's mean weight: over positions, gradient steps and denoising steps, with the seed of
    `base`, which should be none of those that are compared.
    """
    seen: list[tuple[float, int]] = []

    def observe(record: DenoisingRecord) -> None:
        seen.append((float(record.weight.sum()), record.weight.numel()))

    config = base.guided(weight="entrgi")
    generate(testbed.denoiser, testbed.reward, prompts, config, observe=observe)
    return sum(total for total, _ in seen) / sum(count for _, count in seen)


def markdown(spread: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Mean, interval and extremes over the pairs."""
    heads = [f"{MEASURES[name].label} ({MEASURES[name].unit})" for name in REWARD_AND_GOLD]
    lines = [f"| Method | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(heads)}"]
    for method, measures in spread.items():
        cells = []
        for measure in REWARD_AND_GOLD:
            values = np.array(measures[measure])
            extremes = f"{values.min():+.2f} to {values.max():+.2f}".replace("-", "−")
            cells.append(f"{student(values).text(2, sign=True)}, {extremes}")
        lines.append(f"| {LABELS.get(method, method)} | {' | '.join(cells)} |")
    return "\n".join(lines)
