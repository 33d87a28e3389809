"""Every method at EntRGi's compute, on several trained pairs of networks.

A unit is a training seed. Its pair answers the same held-out prompts by each method, and the means
of a unit are one number each: what is said of a method is said over pairs. Best-of-N with as many
answers as EntRGi stands by as a reference; its compute is less.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from entrgi_ref import Generation, generate
from entrgi_ref.paper.declared.experiments import LABELS
from entrgi_ref.paper.declared.methods import BETA, Method

from ..demo import BASE
from ..statistics import MOST, Estimate, Numbers, student
from ..table import MEASURES, REWARD_AND_GOLD
from ..testbed import Testbed, gold_score, held_out_prompts
from .experiment import Json

AGAINST = "bon_equal_compute"
UNITS = 5


@dataclass(frozen=True)
class Rivals:
    """The experiment with its settings fixed."""

    seeds: tuple[int, ...]
    """Of training."""
    quick: bool
    prompts: int
    sampling_seeds: tuple[int, ...]

    @property
    def units(self) -> tuple[str, ...]:
        return tuple(map(str, self.seeds))

    @property
    def settings(self) -> Mapping[str, Json]:
        return {
            "networks": "quick" if self.quick else "full",
            "prompts": self.prompts,
            "sampling_seeds": self.sampling_seeds,
            "methods": list(LABELS),
            "beta": BETA,
            "base": json.loads(BASE.to_json()),
        }

    def measure(self, unit: str) -> Json:
        """Method -> its measures on one pair, its K and options, its counted cost over EntRGi's and
        the seconds that a prompt took.
        """
        testbed = Testbed.load(quick=self.quick, seed=int(unit))
        prompts = held_out_prompts(self.prompts)
        whole = BASE.trajectories * testbed.costs.per_trajectory(BASE)
        generate(testbed.denoiser, testbed.reward, prompts[:1], BASE)  # first calls are slow
        found = {}
        for name in LABELS:
            start, answered = time.perf_counter(), []
            for seed in self.sampling_seeds:
                method = Method.of(name, replace(BASE, seed=seed), lambda: testbed.costs)
                answered.append(method.answer(testbed.denoiser, testbed.reward, prompts))
            seconds = time.perf_counter() - start
            K = method.config.trajectories
            found[name] = {
                "trajectories": K,
                "options": dict(method.options),
                "measures": means(answered),
                "cost_ratio": K * testbed.costs.per_trajectory(method.config, method.texts) / whole,
                "seconds_per_prompt": seconds / len(prompts) / len(self.sampling_seeds),
            }
        return found

    def summary(self, results: Mapping[str, Json]) -> tuple[str, Json]:
        """Means over the units; differences to Best-of-N at equal compute, unit by unit, and in how
        many units they have the sign of their mean.
        """
        rows: dict[str, Any] = {}
        units = list(results.values())
        for name in LABELS:
            first = units[0][name]
            rows[name] = {key: first[key] for key in ("trajectories", "options", "cost_ratio")}
            rows[name] |= {"measures": {}, "differences": {}, "same_sign": {}}
            seconds = np.array([unit[name]["seconds_per_prompt"] for unit in units])
            took = student(seconds)
            took = replace(took, low=float(np.maximum(took.low, 0)))  # nan, of one unit, stays nan
            rows[name]["timing"] = {"seconds_per_prompt": recorded(took)}
            for measure in REWARD_AND_GOLD:
                mine, other = (
                    np.array([unit[method]["measures"][measure] for unit in units])
                    for method in (name, AGAINST)
                )
                difference = mine - other
                rows[name]["measures"][measure] = recorded(student(mine))
                rows[name]["differences"][measure] = recorded(student(difference))
                rows[name]["same_sign"][measure] = same_sign(difference)
        return self._text(rows, len(units)), rows

    def _text(self, rows: Mapping[str, Any], units: int) -> str:
        said = "; ".join(
            f"{LABELS[name]}: {', '.join(f'{n} = {v:g}' for n, v in row['options'].items())}"
            for name, row in rows.items()
            if row["options"]
        )
        kind = "quick" if self.quick else "full"
        pairs = f"{units} pair{'s' * (units > 1)} of {kind} networks"
        seeds = f"{len(self.sampling_seeds)} seed{'s' * (len(self.sampling_seeds) > 1)}"
        return f"""\
{means_table(rows)}

Difference to {LABELS[AGAINST]}, pair by pair; share of the pairs that have its sign:

{differences_table(rows)}

{costs_table(rows)}

{pairs}, of the training seeds {", ".join(self.units)}; {self.prompts} held-out prompts x \
{seeds} each; brackets are Student's 95% intervals over the pairs.
Settings: {said}.
Compute is counted: positions x parameters, a backward pass as one forward pass, K rounded up."""


HEADS = [f"{MEASURES[name].label} ({MEASURES[name].unit})" for name in REWARD_AND_GOLD]


def means_table(rows: Mapping[str, Any]) -> str:
    """Mean over the pairs of each measure."""
    cells = {
        name: [shown(row["measures"][measure]) for measure in REWARD_AND_GOLD]
        for name, row in rows.items()
    }
    return table(rows, HEADS, cells)


def differences_table(rows: Mapping[str, Any]) -> str:
    """Differences to Best-of-N at equal compute."""
    cells = {
        name: [
            f"{shown(row['differences'][measure], sign=True)}, {row['same_sign'][measure]:.0%}"
            for measure in REWARD_AND_GOLD
        ]
        for name, row in rows.items()
        if name != AGAINST
    }
    return table(rows, HEADS, cells)


def costs_table(rows: Mapping[str, Any]) -> str:
    """Counted compute, and time."""
    cells = {
        name: [f"{row['cost_ratio']:.2f}", shown(row["timing"]["seconds_per_prompt"], 3)]
        for name, row in rows.items()
    }
    return table(rows, ["Compute / EntRGi's", "Seconds per prompt"], cells)


def winners(rows: Mapping[str, Any], measure: str) -> list[str]:
    """What docs/preregistered.md calls a success at a measure: the interval of the difference is
    above 0 and all pairs have the sign. The method with the highest mean first.
    """
    found = [
        name
        for name, row in rows.items()
        if name != AGAINST
        and (row["differences"][measure]["low"] or 0) > 0
        and row["same_sign"][measure] == 1
    ]
    return sorted(found, key=lambda name: -rows[name]["measures"][measure]["mean"])


def means(answered: Sequence[Generation]) -> dict[str, float]:
    """The measures of the demo's table, over all prompts and seeds."""
    rewards = np.concatenate([found.rewards.double().numpy() for found in answered])
    gold = np.array(
        [
            [gold_score(prompt, answer) for answer in answers]
            for found in answered
            for prompt, answers in zip(found.prompts, found.responses, strict=True)
        ]
    )
    best = gold[np.arange(len(gold)), rewards.argmax(1)]
    kinds = (rewards.max(1), rewards.mean(1), best, gold.mean(1))
    return {name: float(values.mean()) for name, values in zip(REWARD_AND_GOLD, kinds, strict=True)}


def same_sign(differences: Numbers) -> float:
    """The share that have the sign of their mean."""
    return float(np.mean(np.sign(differences) == np.sign(differences.mean())))


def recorded(estimate: Estimate) -> dict[str, float | None]:
    """An estimate for JSON, which has no nan."""
    return {name: None if np.isnan(value) else value for name, value in vars(estimate).items()}


def shown(found: Mapping[str, float | None], digits: int = 2, sign: bool = False) -> str:
    """The text of what `recorded` gave."""
    values = {name: float("nan") if value is None else value for name, value in found.items()}
    return Estimate(**values).text(digits, sign=sign)


def table(rows: Mapping[str, Any], heads: Sequence[str], cells: Mapping[str, Sequence[str]]) -> str:
    """Methods down, with their K."""
    lines = [["Method", "K", *heads], ["---", *["---:"] * (1 + len(heads))]]
    lines += [[LABELS[name], str(rows[name]["trajectories"]), *of] for name, of in cells.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def design(quick: bool, first_seed: int, units: int | None) -> Rivals:
    """The command `rivals`. `units` are pairs, at most `MOST`."""
    count = units or (1 if quick else UNITS)
    if count > MOST:
        raise ValueError(f"units: got {units}, expected at most {MOST} trained pairs")
    seeds = tuple(range(first_seed, first_seed + count))
    return Rivals(seeds, True, 8, (1,)) if quick else Rivals(seeds, False, 64, (1, 2, 3))
