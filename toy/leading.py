"""How long the committed run is with which an answer begins, under each order.

A reward model need not read again what no longer changes: the prompt, and after it the tokens up to
the first mask. How much a cache of these would save is the length of this run, and in a batch, all
of whose rows are read together, the length of the shortest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from entrgi_ref import DenoisingRecord, SamplingConfig, generate
from entrgi_ref.orders import ORDERS, ORIGIN

from .demo import BASE
from .statistics import Estimate, bootstrap
from .studies import Finding, Setting
from .testbed import Testbed, held_out_prompts

Lengths = dict[str, dict[str, Estimate]]
"""Order -> `row`, the mean over trajectories, and `prompt`, over the shortest of each prompt's;
as shares of the answer, averaged over the denoising steps.
"""


def study(setting: Setting) -> Finding:
    """The command `leading`."""
    testbed, plan = setting.testbed, setting.plan
    found = lengths(testbed, BASE, held_out_prompts(plan.prompts), plan.seeds)
    rows = {order: {name: vars(e) for name, e in each.items()} for order, each in found.items()}
    return Finding(markdown(found), rows, testbed.description, BASE, plan.prompts, plan.seeds)


def lengths(
    testbed: Testbed, base: SamplingConfig, prompts: Sequence[str], seeds: Sequence[int]
) -> Lengths:
    """The run before each step that is run, for every order, with intervals over prompts."""
    found: Lengths = {}
    for order in (*ORDERS, ORIGIN):
        runs: list[Any] = []

        def note(record: DenoisingRecord, runs: list[Any] = runs) -> None:
            committed = ~record.masked.unflatten(0, (len(prompts), base.trajectories))
            runs.append(committed.long().cumprod(-1).sum(-1).numpy() / base.new_tokens)

        for seed in seeds:
            config = replace(base, order=order, seed=seed)
            generate(testbed.denoiser, testbed.reward, prompts, config, observe=note)
        shares = np.stack(runs)  # steps, prompts, trajectories
        found[order] = {
            "row": bootstrap(shares.mean((0, 2))),
            "prompt": bootstrap(shares.min(2).mean(0)),
        }
    return found


def markdown(found: Mapping[str, Mapping[str, Estimate]]) -> str:
    """A table of the shares."""
    lines = [
        "| order | leading committed run, share of the answer | shortest of a prompt's |",
        "| --- | ---: | ---: |",
    ]
    lines += [
        f"| {order} | {each['row'].text(3)} | {each['prompt'].text(3)} |"
        for order, each in found.items()
    ]
    return "\n".join(lines)
