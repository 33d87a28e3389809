"""What `list`, `plan` and `run` do, for any testbed. The command lines of Dream and of the toy call
these.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..commands.progress import Progress, duration, quiet
from ..config import SamplingConfig
from ..denoising import generate, schedule
from .benchmarks import HUB
from .experiments import EXPERIMENTS
from .records import (
    RunFolder,
    key_of,
    read_declaration,
    read_experiment,
    read_records,
    require_same,
)
from .runner import Plan, Runner, batches
from .testbed import Testbed


def rank() -> int:
    """This process's number under torchrun, 0 without."""
    return int(os.environ.get("RANK", "0"))


def local_device(device: str) -> str:
    """Under torchrun `auto` is the GPU of this process's own number, if there are GPUs."""
    if device == "auto" and "LOCAL_RANK" in os.environ:
        import torch

        if torch.cuda.is_available():
            return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    return device


def pinned(folder: Path) -> dict[str, str]:
    """The commits of the hub's benchmarks that a run in `folder` began with: it goes on with these,
    whatever the hub has by now.
    """
    if not (folder / "run.json").is_file():
        return {}
    sources = read_declaration(folder).get("benchmarks", {})
    return {name: source.partition("@")[2] for name, source in sources.items() if name in HUB}


def run(
    plan: Plan,
    testbed: Testbed,
    out: Path,
    say: Callable[[str], None],
    *,
    retry_failed: bool = False,
) -> int:
    """Run an experiment into a folder, or go on with it. Returns how many prompts have failed."""
    if not (out / "run.json").is_file():
        testbed.reward(testbed.main_reward)  # what cannot be loaded is not declared
    folder = RunFolder(
        out, plan.declaration(testbed), asked=plan.asked(testbed), retry_failed=retry_failed
    )
    expected = [key for batch in batches(plan, testbed) for key in batch.keys]
    loud = rank() == 0

    def done() -> int:
        return sum(key in folder.done for key in expected)

    with Progress(len(expected), done, loud) as progress:
        runner = Runner(plan, testbed, folder, progress.say if loud else quiet, progress)
        try:
            runner.run()
        finally:
            folder.close()
    wanted = set(expected)
    records = [record for record in read_records(out) if key_of(record) in wanted]
    failed = [record for record in records if record["status"] == "failed"]
    if loud:
        say(f"{len(records)} prompts in {out}, {len(failed)} of them failed")
        for record in failed[:5]:
            say(
                f"  {record['benchmark']}, {record['method']}, seed {record['seed']}, prompt "
                f"{record['idx']}: {record['reason']}"
            )
        if len(failed) > 5:
            say(f"  and {len(failed) - 5} more")
    return len(failed)


def listing(folders: Sequence[Path]) -> str:
    """The experiments, what they regenerate, and how far the runs in `folders` are."""
    width = max(map(len, EXPERIMENTS))
    lines = [f"{name:{width}}  {e.regenerates}" for name, e in EXPERIMENTS.items()]
    for folder in folders:
        try:
            declared, records = read_experiment(folder), read_records(folder)
        except ValueError as error:
            lines.append(f"\n{folder}: cannot be read: {error}")
            continue
        failed = sum(record["status"] == "failed" for record in records)
        lines.append(
            f"\n{folder}: {declared['experiment']}, {len(records) - failed} prompts done, "
            f"{failed} failed"
        )
        wanted = {
            name: n for asked in declared.get("asked", []) for name, n in asked["prompts"].items()
        }
        cells = Counter(
            (
                record["benchmark"],
                record["method"],
                " ".join(f"{k}={v}" for k, v in record["variant"].items()),
                record["seed"],
            )
            for record in records
        )
        for (benchmark, method, variant, seed), count in cells.items():
            what = " ".join(part for part in (benchmark, method, variant) if part)
            of = wanted.get(benchmark, declared["prompts"])
            lines.append(f"  {what}, seed {seed}: {count} of {of}")
    if not folders:
        lines.append("\nNo runs yet below results/.")
    return "\n".join(lines)


def estimate(plan: Plan, testbed: Testbed, out: Path) -> str:
    """What is left of a run takes how long, from a calibration of a few denoising steps of one
    batch, with and without guidance.

    Trajectories are taken to cost the same in every batch. The calibration has the reward model
    that is used where nothing else is said, and the settings of the run.
    """
    done = set()
    if (out / "run.json").is_file():
        require_same(out, plan.declaration(testbed))
        done = {key_of(record) for record in read_records(out)}
    todo = [batch for batch in batches(plan, testbed) if not done.issuperset(batch.keys)]
    if not todo:
        return f"nothing is left to do in {out}"
    cells = {repr(batch.cell): batch.cell for batch in todo}
    settings = {name: plan.settings(testbed, cell) for name, cell in cells.items()}
    work = []
    for batch in todo:
        config = settings[repr(batch.cell)]
        trajectories = len(batch.prompts) * config.trajectories
        work.append((steps_run(config), config.guidance.steps, trajectories))

    prompts, unguided, guided = _calibration(plan, testbed, [batch.prompts for batch in todo])
    gradient, rows = max(0.0, guided - unguided), prompts * plan.base.trajectories
    seconds = sum(steps * (unguided + M * gradient) * n / rows for steps, M, n in work)
    return (
        f"{len(settings)} cells, {sum(len(batch.prompts) for batch in todo)} prompts in "
        f"{len(todo)} batches\n"
        f"{sum(steps for steps, _, _ in work)} forward passes of the mask predictor, "
        f"{sum(steps * M for steps, M, _ in work)} forward and as many backward passes of the "
        "reward model, of one batch each\n"
        f"about {duration(seconds)} on one {testbed.device}\n"
        f"peak memory of a batch of {rows} trajectories: {_peak_memory()}"
    )


def _calibration(
    plan: Plan, testbed: Testbed, samples: Sequence[Sequence[str]]
) -> tuple[int, float, float]:
    """How many prompts the first of `samples` has that can be answered, and the seconds of a
    denoising step without and with a gradient step.
    """
    for sample in samples:
        try:
            unguided = _seconds_per_step(plan, testbed, sample, gradient_steps=0)
            return len(sample), unguided, _seconds_per_step(plan, testbed, sample, gradient_steps=1)
        except ValueError as error:  # such as a prompt that is too long: a run records it
            reason = error
    raise ValueError(f"prompts: none can be answered, the last because of {reason}")


def steps_run(config: SamplingConfig) -> int:
    """How many denoising steps really run."""
    steps = schedule(config.denoising_steps, config.new_tokens)
    return sum(step.count > 0 for step in steps) if config.skip_empty_steps else len(steps)


def _seconds_per_step(
    plan: Plan, testbed: Testbed, prompts: Sequence[str], gradient_steps: int
) -> float:
    """The time of one denoising step: of four more of them, after a run to warm up.

    However few there are, the first has everything masked and the last a little, as in a real run.
    """
    reward = testbed.reward(testbed.main_reward)
    guidance = replace(plan.base.guidance, steps=gradient_steps)
    base = replace(plan.base, guidance=guidance, skip_empty_steps=False)
    seconds = {}
    for steps in (2, 2, 6):  # the first of them warms up
        start = time.perf_counter()
        generate(testbed.denoiser(), reward, prompts, replace(base, denoising_steps=steps))
        seconds[steps] = time.perf_counter() - start
    return max(0.0, seconds[6] - seconds[2]) / 4


def _peak_memory() -> str:
    import resource

    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of the GPU"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB on Linux, bytes on a Mac
    return f"{peak / (2**30 if sys.platform == 'darwin' else 2**20):.1f} GiB of the whole process"
