"""What the differences between the authors' code and this package do, one at a time, on the toy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from entrgi_ref import SamplingConfig, generate

from .demo import BASE, records_of
from .statistics import Estimate, bootstrap
from .studies import Finding, Setting
from .table import MEASURES, Record, by_prompt
from .testbed import Testbed, held_out_prompts

SHOWN = ("average", "gold_mean", "valid")

Effect = dict[str, Estimate]
"""`tokens`, the share that changes, and the differences of the measures in `SHOWN`."""


def study(setting: Setting) -> Finding:
    """The command `ledger`."""
    testbed, plan = setting.testbed, setting.plan
    found = effects(testbed, BASE, held_out_prompts(plan.prompts), plan.seeds)
    rows = {name: {m: vars(e) for m, e in effect.items()} for name, effect in found.items()}
    return Finding(markdown(found), rows, testbed.description, BASE, plan.prompts, plan.seeds)


def variants(base: SamplingConfig) -> dict[str, SamplingConfig]:
    """Row of the ledger and what is done otherwise -> settings."""

    def other(row: str, guidance: Mapping[str, Any] | None = None, **sampling: Any) -> None:
        found[row] = dataclasses.replace(base.guided(**(guidance or {})), **sampling)

    found: dict[str, SamplingConfig] = {}
    other("1: 1e-10 inside the logarithm", {"epsilon": 1e-10})
    other("1: entropy at tau", {"weight": "entrgi_tempered"})
    other("3: psi in bfloat16", {"dtype": "bfloat16"})
    other("6: order maskgit_plus", order="maskgit_plus")
    other("6: order topk_margin", order="topk_margin")
    other("6: order anchor", order="anchor")
    other("6: order origin", order="origin")
    other("7: empty steps run", skip_empty_steps=False)
    other("8: ends not last", eos_last=False)
    other("12: every id may be written", write_every_id=True)
    found["authors()"] = SamplingConfig.authors(base)
    return found


def effects(
    testbed: Testbed, base: SamplingConfig, prompts: Sequence[str], seeds: Sequence[int]
) -> dict[str, Effect]:
    """The effect of each variant against `base`, prompt by prompt, with bootstrap intervals."""
    settings = {"base": base, **variants(base)}
    records: list[Record] = []
    tokens = {}
    for seed in seeds:
        for name, config in settings.items():
            config = dataclasses.replace(config, seed=seed)
            generation = generate(testbed.denoiser, testbed.reward, prompts, config)
            records += records_of(testbed, name, generation, 0.0)
            tokens[name, seed] = generation.tokens

    def difference(name: str, measure: str) -> Estimate:
        return bootstrap(by_prompt(records, name, measure) - by_prompt(records, "base", measure))

    def changed(name: str) -> Estimate:
        shares = [
            (tokens[name, seed] != tokens["base", seed]).double().mean((1, 2)) for seed in seeds
        ]
        return bootstrap(np.mean([share.numpy() for share in shares], 0))

    return {
        name: {"tokens": changed(name), **{m: difference(name, m) for m in SHOWN}}
        for name in settings
        if name != "base"
    }


def markdown(found: Mapping[str, Mapping[str, Estimate]]) -> str:
    """A row per variant."""
    heads = [f"{MEASURES[measure].label} ({MEASURES[measure].unit})" for measure in SHOWN]
    lines = [
        f"| Row, and what is done otherwise | Tokens that change | {' | '.join(heads)} |",
        f"| --- |{' ---: |' * (1 + len(heads))}",
    ]
    for name, effect in found.items():
        cells = [effect["tokens"].text(3)]
        cells += [effect[m].text(MEASURES[m].digits, sign=True) for m in SHOWN]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
