"""The demo's comparison on several trained pairs: how much of a result is one pair's luck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from entrgi_ref.paper.declared.experiments import LABELS

from .demo import BASE, compare, methods_of
from .statistics import student
from .studies import Finding, Setting
from .table import MEASURES, REWARD_AND_GOLD, Record, by_prompt
from .testbed import held_out_prompts

Spread = dict[str, dict[str, list[float]]]
"""Method -> measure -> its difference to Best-of-N on each pair."""


def study(setting: Setting) -> Finding:
    """The command `spread`."""
    base = BASE.guided(steps=setting.options["gradient_steps"])
    plan, pairs = setting.plan, setting.options["pairs"]
    found, first = [], ""
    for seed in range(setting.training_seed, setting.training_seed + pairs):
        testbed = setting.load(seed)
        prompts = held_out_prompts(plan.prompts)
        found.append(list(compare(testbed, methods_of(base, testbed), prompts, plan.seeds)))
        first = first or testbed.description
        setting.say(f"{testbed.description}: done")
    rows = differences(found)
    text = (
        f"{markdown(rows)}\n\n"
        f"Difference to Best-of-N over {pairs} trained pairs: mean [95% interval over the pairs], "
        f"smallest to largest. {plan.prompts} prompts x {len(plan.seeds)} seeds each."
    )
    description = f"{pairs} pairs, the first of them: {first}"
    return Finding(text, rows, description, base, plan.prompts, plan.seeds)


def differences(pairs: Sequence[Sequence[Record]]) -> Spread:
    """For each method its mean difference to Best-of-N, pair by pair. `pairs` are records."""
    methods = [m for m in dict.fromkeys(r["method"] for r in pairs[0]) if m != "bon"]
    return {
        method: {
            measure: [
                float(np.mean(by_prompt(r, method, measure) - by_prompt(r, "bon", measure)))
                for r in pairs
            ]
            for measure in REWARD_AND_GOLD
        }
        for method in methods
    }


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
