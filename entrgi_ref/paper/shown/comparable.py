"""Whether a run is what the published numbers were made by: the one place where that is decided."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ...commands.pairs import DREAM, SKYWORK
from ...commands.shown import counted
from ...config import GuidanceConfig, SamplingConfig
from ..declared.benchmarks import HUB
from ..declared.published import PROMPTS, SEEDS
from .summary import Run

AUTHORS: dict[str, Any] = json.loads(SamplingConfig.authors().to_json())
"""The settings of the authors' code, with which the published numbers were made."""

WITHOUT_EFFECT = ("seed", "skip_empty_steps")
"""Settings that may be anything: the seed is that of a cell, and empty steps leave no trace."""


def differences(run: Run) -> Iterator[str]:
    """Where a run is not what the published numbers were made by; nothing if it is comparable.

    Every setting counts, the precision and the handling of the mask token too: only a run with
    `--authors` has none of them.
    """
    declared = run.declaration
    if declared["experiment"] != "main":
        yield f"experiment {declared['experiment']} instead of main"
    settings = {**asdict(SamplingConfig()), **declared["settings"]}
    guidance = {**asdict(GuidanceConfig()), **settings["guidance"]}
    for name, paper in AUTHORS.items():
        if name not in ("guidance", *WITHOUT_EFFECT) and settings[name] != paper:
            yield f"{name} {settings[name]} instead of {paper}"
    for name, paper in AUTHORS["guidance"].items():
        if name != "weight" and guidance[name] != paper:  # the weight is that of a method
            yield f"guidance {name} {guidance[name]} instead of {paper}"
    if declared["denoiser"]["name"] != DREAM:
        yield f"denoiser {declared['denoiser']['name']}"
    reward = declared["rewards"][declared["main_reward"]]["name"]
    if reward != SKYWORK["1.7B"]:
        yield f"reward {reward}"
    if declared["dtype"] != "bfloat16":
        yield f"dtype {declared['dtype']} instead of bfloat16"
    yield from rounded(run)
    if declared.get("unmatched", "eos") != "eos":
        yield f"unmatched tokens {declared['unmatched']} instead of eos"
    compared = Counter((benchmark, seed) for benchmark, seed, _ in run.common("top1"))
    seeds = sorted({seed for _, seed in compared})
    measured = {record["benchmark"] for record in run.records}
    counts = {compared[benchmark, seed] for benchmark in measured for seed in seeds}
    if counts - {PROMPTS}:
        yield f"{counted(min(counts), 'prompt', max(counts))} instead of {PROMPTS}"
    if len(seeds) != len(SEEDS):
        yield f"{counted(len(seeds), 'seed')} instead of {len(SEEDS)}"
    elif tuple(seeds) != SEEDS:
        yield f"seeds {', '.join(map(str, seeds))} instead of {', '.join(map(str, SEEDS))}"
    for benchmark in run.benchmarks:
        if not is_the_papers(run, benchmark):
            yield f"benchmark {benchmark} ({declared['benchmarks'][benchmark]})"
    if run.failed:
        yield f"{counted(len(run.failed), 'prompt')} failed"


def rounded(run: Run) -> Iterator[str]:
    """Whose weights are rounded, and to what; nothing if none are."""
    networks = run.declaration.get("quantize", {}).items()
    if networks:
        yield f"weights rounded ({', '.join(f'{name} {bits}' for name, bits in networks)})"


def is_the_papers(run: Run, benchmark: str) -> bool:
    """Whether a benchmark is one of the paper's, and not a file of the same name."""
    source = str(run.declaration["benchmarks"][benchmark])
    return benchmark in HUB and source.startswith(f"{HUB[benchmark].hub_id}@")
