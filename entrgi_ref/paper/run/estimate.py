"""What the command `plan` does: how long a run would take, and what memory."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...commands.memory import out_of_memory
from ...commands.progress import duration
from ...commands.shown import counted
from ...config import SamplingConfig
from ...denoising import generate
from ..declared.costs import gradient_steps_of
from ..declared.plan import Plan, prompts_of
from ..declared.testbed import Testbed
from .batches import batches, empty_cache
from .folder import require_same_weights
from .records import key_of, of_run, read_declaration, read_records, require_same


def estimate(plan: Plan, testbed: Testbed, out: Path, *, retry_failed: bool = False) -> str:
    """What is left of a run takes how long, from a calibration of a few denoising steps of some
    batches, with and without guidance: the largest, the shortest, the longest, and one of the
    fewest trajectories.

    Time is taken to be affine in trajectories and in positions, which a batch has by its longest
    prompt. The calibration has the reward model that is used where nothing else is said, and the
    settings of the run. With `retry_failed`, what has failed is left too.
    """
    testbed.examine(plan.base.new_tokens)
    done = set()
    if (out / "run.json").is_file():
        require_same(out, plan.declaration(testbed))
        asked = read_declaration(out).get("asked", [])
        require_same_weights(out, asked, plan.asked(testbed))
        there = read_records(out, of_run(out, prompts_of(testbed)))
        done = {key_of(r) for r in there if not (retry_failed and r["status"] == "failed")}
    todo = [batch for batch in batches(plan, testbed) if not done.issuperset(batch.keys)]
    if not todo:
        return f"nothing is left to do in {out}"
    cells = {repr(batch.cell): batch.cell for batch in todo}
    methods = {name: plan.method(testbed, cell) for name, cell in cells.items()}
    steps = {name: tuple(gradient_steps_of(method.config)) for name, method in methods.items()}
    work = []
    for batch in todo:
        name = repr(batch.cell)
        method = methods[name]
        work.append(Job(batch.prompts, method.config, steps[name], texts=method.texts))
    jobs, seconds = Calibration(testbed, _lengths(testbed, work)).seconds(work)
    prompts = sum(len(batch.prompts) for batch in todo)
    largest = max(jobs, key=lambda job: job.positions)
    return (
        f"{counted(len(methods), 'cell')}, {counted(prompts, 'prompt')} in "
        f"{counted(len(todo), 'batch')}\n"
        f"{sum(len(job.gradient_steps) for job in work)} forward passes of the mask predictor, "
        f"{sum(sum(job.gradient_steps) for job in work)} forward and as many backward passes of "
        f"the reward model, of one batch each{_scored(work)}\n"
        f"about {duration(seconds)} on one {testbed.device}\n"
        f"the largest batch has {largest.rows} trajectories of {largest.length} tokens; peak "
        f"memory with it: {_peak_memory()}"
    )


def _scored(work: Sequence[Job]) -> str:
    """How often rivals have their texts scored."""
    times = sum(job.texts for job in work)
    return f", and {times} scores of a text for each trajectory of a batch" if times else ""


def _lengths(testbed: Testbed, work: Sequence[Job]) -> dict[str, int]:
    """The tokens of each prompt, without those that cannot be encoded: a run records them."""
    denoiser, found = testbed.denoiser(), {}
    for prompt in dict.fromkeys(prompt for job in work for prompt in job.prompts):
        try:
            found[prompt] = int(denoiser.encode([prompt]).valid.sum())
        except ValueError:
            continue
    return found


@dataclass(frozen=True)
class Job:
    """A batch."""

    prompts: tuple[str, ...]
    config: SamplingConfig
    gradient_steps: tuple[int, ...]
    """M at each denoising step."""
    length: int = 0
    """Tokens of a trajectory: of the longest prompt, to which others are padded, and an answer."""
    texts: int = 0
    """How many are scored on the way to each answer."""

    @property
    def rows(self) -> int:
        """Trajectories."""
        return len(self.prompts) * self.config.trajectories

    @property
    def positions(self) -> int:
        """Tokens that the mask predictor reads at each step."""
        return self.rows * self.length

    @property
    def kind(self) -> tuple[int, bool]:
        """Batches of one kind fit with as many prompts."""
        return self.config.trajectories, any(self.gradient_steps)


@dataclass(frozen=True)
class Cost:
    """Seconds that are affine in trajectories and in positions."""

    call: float
    row: float
    position: float

    def of(self, rows: int, positions: int) -> float:
        """The seconds of a batch."""
        return self.call + self.row * rows + self.position * positions

    @classmethod
    def through(cls, points: Sequence[tuple[int, int, float]]) -> Cost:
        """The cost that fits (trajectories, positions, seconds) best, relative to the seconds. None
        of its numbers is negative, however the clock was disturbed.
        """
        import numpy as np

        if not points:
            return cls(0.0, 0.0, 0.0)
        table = np.array([[1, rows, positions] for rows, positions, _ in points], dtype=float)
        seconds = np.array([time for *_, time in points])
        scale = 1 / np.maximum(seconds, max(seconds.max() * 1e-3, 1e-12))
        best, least = np.zeros(3), np.inf
        # Of those that fit as well the first: what grows with the batch before what does not.
        for used in ([1, 2], [0, 2], [2], [1], [0], [0, 1], [0, 1, 2]):
            some = table[:, used] * scale[:, None]
            found = np.linalg.lstsq(some, seconds * scale, rcond=None)[0]
            miss = float(((some @ found - seconds * scale) ** 2).sum())
            if (found >= 0).all() and miss < 0.99 * least - 1e-12:
                best, least = np.zeros(3), miss
                best[used] = found
        return cls(*map(float, best))


@dataclass
class Calibration:
    """Measures some batches, and by them knows of others."""

    testbed: Testbed
    lengths: dict[str, int]
    """Of the prompts that can be answered, as far as is known."""
    fits: dict[tuple[int, bool], int] = field(default_factory=dict)
    """Kind of batch -> the most prompts, once more have run out of memory."""
    measured: dict[tuple[tuple[str, ...], int, int], tuple[float, float]] = field(
        default_factory=dict
    )
    """Prompts, K and M -> the seconds of a call without its steps, and those of a step."""
    scored: dict[tuple[tuple[str, ...], int], float] = field(default_factory=dict)
    """Prompts and K -> the seconds in which a finished text of each trajectory is scored."""

    def seconds(self, work: Sequence[Job]) -> tuple[list[Job], float]:
        """The batches as they would be computed, and the seconds of all of them.

        Raises `ValueError` if no prompt can be answered.
        """
        reason: Exception | None = None
        while True:
            jobs = [part for job in work for part in self.parts(job)]
            if not jobs:
                raise ValueError(
                    f"prompts: none can be answered, the last because of {reason}"
                ) from reason
            guided = [job for job in jobs if any(job.gradient_steps)]
            # The largest first: if it is refused, all that has been measured may be another.
            corners, climbing = _corners(jobs), _corners(guided)
            scoring = _corners([job for job in jobs if job.texts])
            some = corners + climbing + scoring
            failed = next((job for job in some if not self._measure(job)), None)
            if failed is None:
                break
            reason = self._reason
        plain = self._cost(corners, lambda job: self._of(job, 0)[1])
        alone = self._cost(corners, lambda job: self._of(job, 0)[0])
        first = self._cost(climbing, lambda job: self._of(job, _tried(job))[0])
        climb = self._cost(climbing, self._per_gradient_step)
        score = self._cost(scoring, self._score)
        total = 0.0
        for job in jobs:
            size, steps = (job.rows, job.positions), job.gradient_steps
            begun = first if any(steps) else alone
            total += begun.of(*size) + len(steps) * plain.of(*size) + sum(steps) * climb.of(*size)
            total += job.texts * score.of(*size)
        return jobs, total

    def parts(self, job: Job) -> list[Job]:
        """A batch as a run would compute it: one by one if a prompt in it cannot be answered, in
        parts if it does not fit.
        """
        known = [prompt for prompt in job.prompts if prompt in self.lengths]
        whole = len(job.prompts)
        most = self.fits.get(job.kind, whole) if len(known) == whole else 1
        found = []
        for start in range(0, len(known), most):
            prompts = tuple(known[start : start + most])
            length = max(self.lengths[prompt] for prompt in prompts) + job.config.new_tokens
            found.append(replace(job, prompts=prompts, length=length))
        return found

    def _measure(self, job: Job) -> bool:
        """Time a batch; False if it cannot be computed, and then it is another one from now on."""
        try:
            for M in {0, _tried(job)}:
                self._of(job, M)
            if job.texts:
                self._score(job)
            return True
        except (ValueError, RuntimeError) as error:
            full = out_of_memory(error)
            if not full and not isinstance(error, ValueError):
                raise
            # Without its traceback, which would keep the batch's tensors alive.
            self._reason: Exception = error.with_traceback(None)
        if full:
            empty_cache()
        if full and len(job.prompts) > 1:
            self.fits[job.kind] = len(job.prompts) // 2
        else:  # such as a prompt that is too long: a run records it
            for prompt in job.prompts:
                if self.lengths[prompt] + job.config.new_tokens == job.length:
                    del self.lengths[prompt]
        return False

    def _of(self, job: Job, M: int) -> tuple[float, float]:
        """The seconds of a call without its steps, and those of one of its denoising steps: of four
        more of them, after a run to warm up.

        However few there are, the first has everything masked and the last a little, as in a real
        run.
        """
        key = job.prompts, job.config.trajectories, M
        if key not in self.measured:
            reward = self.testbed.reward(self.testbed.main_reward)
            base = replace(job.config.guided(steps=M), skip_empty_steps=False)
            rows, seconds = getattr(self.testbed, "vocabulary_batch", None), {}
            for steps in (2, 2, 6):  # the first of them warms up
                start = time.perf_counter()
                config = replace(base, denoising_steps=steps)
                networks = self.testbed.denoiser(), reward
                generate(*networks, job.prompts, config, vocabulary_batch=rows)
                seconds[steps] = time.perf_counter() - start
            step = max(0.0, seconds[6] - seconds[2]) / 4
            self.measured[key] = max(0.0, seconds[2] - 2 * step), step
        return self.measured[key]

    def _per_gradient_step(self, job: Job) -> float:
        M = _tried(job)
        return max(0.0, self._of(job, M)[1] - self._of(job, 0)[1]) / M

    def _score(self, job: Job) -> float:
        """The seconds in which finished texts are scored, one of each trajectory."""
        key = job.prompts, job.config.trajectories
        if key not in self.scored:
            denoiser = self.testbed.denoiser()
            reward = self.testbed.reward(self.testbed.main_reward)
            once = replace(job.config, denoising_steps=1)  # this warms up, too
            found = generate(denoiser, reward, job.prompts, once)
            texts = [text for answers in found.responses for text in answers]
            prompts = [prompt for prompt in job.prompts for _ in range(job.config.trajectories)]
            start = time.perf_counter()
            reward.score(prompts, texts)
            self.scored[key] = time.perf_counter() - start
        return self.scored[key]

    @staticmethod
    def _cost(jobs: Sequence[Job], seconds: Callable[[Job], float]) -> Cost:
        return Cost.through([(job.rows, job.positions, seconds(job)) for job in jobs])


def _tried(job: Job) -> int:
    """The gradient steps with which a batch is timed.

    Two, if there are so many: the memory that a run takes is that of the second one, when the
    optimiser's state is there from the first.
    """
    return min(2, max(job.gradient_steps, default=0))


def _corners(jobs: Sequence[Job]) -> list[Job]:
    """Batches by which the others are known: the largest, the shortest and the longest of the size
    that most have, and the longest of the smallest.
    """
    if not jobs:
        return []
    sizes = Counter(job.rows for job in jobs)
    usual = sizes.most_common(1)[0][0]

    def longest(rows: int) -> Job:
        return max((job for job in jobs if job.rows == rows), key=lambda job: job.length)

    found = [
        max(jobs, key=lambda job: job.positions),
        longest(usual),
        longest(min(sizes)),
        min((job for job in jobs if job.rows == usual), key=lambda job: job.length),
    ]
    return list({(job.prompts, job.config.trajectories): job for job in found}.values())


def _peak_memory() -> str:
    import resource

    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of the GPU"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB on Linux, bytes on a Mac
    return f"{peak / (2**30 if sys.platform == 'darwin' else 2**20):.1f} GiB of the whole process"
