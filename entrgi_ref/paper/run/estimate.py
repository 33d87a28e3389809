"""What the command `plan` does: how long a run would take, and what memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...commands.progress import duration
from ...denoising import generate
from ..declared.costs import gradient_steps_of
from ..declared.plan import Plan
from ..declared.testbed import Testbed
from .batches import batches
from .records import key_of, read_records, require_same


def estimate(plan: Plan, testbed: Testbed, out: Path) -> str:
    """What is left of a run takes how long, from a calibration of a few denoising steps of one
    batch, with and without guidance.

    Trajectories are taken to cost the same in every batch. The calibration has the reward model
    that is used where nothing else is said, and the settings of the run.
    """
    testbed.examine(plan.base.new_tokens)
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
        gradient_steps = gradient_steps_of(config)
        work.append((len(gradient_steps), sum(gradient_steps), trajectories))

    prompts, unguided, guided = _calibration(plan, testbed, [batch.prompts for batch in todo])
    gradient, rows = max(0.0, guided - unguided), prompts * plan.base.trajectories
    seconds = sum((steps * unguided + M * gradient) * n / rows for steps, M, n in work)
    return (
        f"{len(settings)} cells, {sum(len(batch.prompts) for batch in todo)} prompts in "
        f"{len(todo)} batches\n"
        f"{sum(steps for steps, _, _ in work)} forward passes of the mask predictor, "
        f"{sum(M for _, M, _ in work)} forward and as many backward passes of the "
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


def _seconds_per_step(
    plan: Plan, testbed: Testbed, prompts: Sequence[str], gradient_steps: int
) -> float:
    """The time of one denoising step: of four more of them, after a run to warm up.

    However few there are, the first has everything masked and the last a little, as in a real run.
    """
    reward = testbed.reward(testbed.main_reward)
    base = replace(plan.base.guided(steps=gradient_steps), skip_empty_steps=False)
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
