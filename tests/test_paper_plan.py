"""The command `plan`: what a run would take, beside what it takes."""

import json
import math
import random
import re
import shutil
import sys
import time
from dataclasses import dataclass, field, replace
from itertools import chain, combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from paper_runs import TINY_BASE, invoke, tiny_run
from typer.testing import CliRunner

from checkpoints import DREAM, PARITY, REWARD, causal
from entrgi_ref.commands import pairs
from entrgi_ref.commands.provenance import commit, versions
from entrgi_ref.models import checkpoints
from entrgi_ref.paper.__main__ import app
from entrgi_ref.paper.declared import benchmarks, published
from entrgi_ref.paper.declared.benchmarks import Benchmark
from entrgi_ref.paper.declared.costs import Costs
from entrgi_ref.paper.declared.plan import Plan
from entrgi_ref.paper.declared.shapes import Sizes
from entrgi_ref.paper.declared.testbed import DreamTestbed
from entrgi_ref.paper.run import dry, estimate, start
from tiny import _Bound, stand_in
from tiny_testbed import FailingDenoiser, FailingReward, TinyTestbed

BASE = replace(
    TINY_BASE,
    guidance=replace(TINY_BASE.guidance, steps=3),
    new_tokens=12,
    denoising_steps=12,
)


class Clock:
    """Goes on by what is read, and not by itself."""

    now = 0.0

    def reads(self, *, call, positions, each):
        self.now += call + each * positions


@dataclass
class TimedDenoiser:
    """Its time is affine in the positions that it reads and in those that it is asked about."""

    clock: Clock
    network: FailingDenoiser = field(default_factory=lambda: FailingDenoiser(1))
    largest: int = 0
    rows: int = 0

    def __post_init__(self):
        stand_in(self, self.network)

    def __call__(self, tokens, valid, masked):
        found = self.network(tokens, valid, masked)
        self.largest, self.rows = max(self.largest, tokens.numel()), max(self.rows, len(tokens))
        self.clock.reads(call=3, positions=tokens.numel(), each=0.1)
        self.clock.reads(call=0, positions=int(masked.sum()), each=0.02)
        return found


@dataclass
class TimedReward(FailingReward):
    clock: Clock = field(default_factory=Clock)

    def bind(self, prompts, trajectories):
        bound = super().bind(prompts, trajectories)
        self.clock.reads(call=1, positions=bound.prompt.numel(), each=0.2)
        return TimedBound(bound.reward, bound.prompt, bound.valid)

    def score(self, prompts, responses):
        self.clock.reads(call=2, positions=len(responses), each=0.5)
        return super().score(prompts, responses)


class TimedBound(_Bound):
    def at(self, response, masked):
        step, clock = super().at(response, masked), self.reward.clock

        def timed(mixed, likeliest):
            clock.reads(call=1, positions=self.prompt.numel() + response.numel(), each=0.06)
            return step(mixed, likeliest)

        timed.embeddings = step.embeddings
        return timed


class Timed(TinyTestbed):
    """Networks on a clock of their own."""

    def __init__(self, prompts):
        self.clock = Clock()
        super().__init__(
            prompts=prompts,
            denoise=TimedDenoiser(self.clock),
            judge=TimedReward(2, clock=self.clock),
        )

    def costs(self, reward, prompts, new_tokens):
        return Costs(denoiser=5.0, reward=1.0)


def with_first(first, others):
    """Prompts that are drawn in this order by seed 1."""
    places = Benchmark("", tuple(map(str, range(1 + len(others)))), "").drawn(1, 99)
    in_order = dict(zip(map(int, places), [first, *others], strict=True))
    return tuple(in_order[i] for i in sorted(in_order))


UNEVEN = with_first("12", [str(10**20 + i) + "7" * (i % 9) for i in range(8)])
"""The first is a tenth as long as the others."""
MIXED = tuple("1" * length for length in (1, 2, 30, 3, 31, 4, 5, 32, 6))


def planned(monkeypatch, testbed, folder, base=BASE, batch_size=1, methods=()):
    """What `plan` says, and the seconds in it."""
    monkeypatch.setattr(time, "perf_counter", lambda: testbed.clock.now)
    monkeypatch.setattr(estimate, "duration", lambda seconds: f"{seconds:.3f} s")
    plan = Plan.of("main", base, [1], len(testbed.prompts), batch_size, methods)
    text = estimate.estimate(plan, testbed, folder)
    return text, float(re.search(r"about ([\d.]+) s on", text)[1])


def taken(testbed, folder, base=BASE, batch_size=1, methods=()):
    """The seconds of a run."""
    before = testbed.clock.now
    options = {"base": base, "prompts": len(testbed.prompts), "batch_size": batch_size}
    tiny_run(folder, testbed, methods=list(methods), **options)
    return testbed.clock.now - before


SLOWLY = [(1, UNEVEN), (1, MIXED), (2, UNEVEN), (2, MIXED), (4, UNEVEN)]


@pytest.mark.parametrize(
    ("batch_size", "prompts"),
    [
        (4, MIXED),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOWLY),
    ],
)
def test_the_time_is_that_of_a_run_with_prompts_of_all_lengths(
    tmp_path, monkeypatch, batch_size, prompts
):
    _, seconds = planned(monkeypatch, Timed(prompts), tmp_path, batch_size=batch_size)
    real = taken(Timed(prompts), tmp_path, batch_size=batch_size)
    assert seconds == pytest.approx(real, rel=0.05)


@pytest.mark.slow
def test_the_memory_is_that_of_the_largest_batch_of_a_run(tmp_path, monkeypatch):
    """Of the longest prompts, and of the most trajectories: Best-of-N at equal compute has more."""
    asked, ran = Timed(UNEVEN), Timed(UNEVEN)
    text, _ = planned(monkeypatch, asked, tmp_path, batch_size=2)
    taken(ran, tmp_path, batch_size=2)
    assert asked.denoise.largest == ran.denoise.largest
    assert asked.denoise.rows == ran.denoise.rows > 2 * BASE.trajectories
    length = ran.denoise.largest // ran.denoise.rows
    assert f"{ran.denoise.rows} trajectories of {length} tokens" in text


def test_memory_is_that_of_a_second_gradient_step(tmp_path, monkeypatch):
    """From then on the optimiser's state is there while a nucleus is made."""
    steps = []
    real = estimate.generate

    def seen(denoiser, reward, prompts, config, **options):
        steps.append(config.constant_guidance.steps)
        return real(denoiser, reward, prompts, config, **options)

    monkeypatch.setattr(estimate, "generate", seen)
    planned(monkeypatch, Timed(("1", "2")), tmp_path)
    assert set(steps) == {0, 2}
    steps.clear()
    planned(monkeypatch, Timed(("1", "2")), tmp_path, base=BASE.guided(steps=1))
    assert set(steps) == {0, 1}


@pytest.mark.slow
def test_a_prompt_that_is_too_long_counts_nothing_and_leaves_its_batch_alone(tmp_path, monkeypatch):
    """The rest of its batch is answered one by one, as in a run."""

    class Short(FailingDenoiser):
        def __call__(self, tokens, valid, masked):
            if tokens.shape[1] > 40:
                raise ValueError("positions")
            return super().__call__(tokens, valid, masked)

    prompts = (*UNEVEN, "1" * 35)
    made = [Timed(prompts), Timed(prompts)]
    for testbed in made:
        testbed.denoise.network = Short(1)
    _, seconds = planned(monkeypatch, made[0], tmp_path, batch_size=4)
    assert seconds == pytest.approx(taken(made[1], tmp_path, batch_size=4), rel=0.05)


def test_batches_that_do_not_fit_are_halved_as_in_a_run(tmp_path, monkeypatch):
    made = [Timed(UNEVEN), Timed(UNEVEN)]
    for testbed in made:
        testbed.denoise.network.most_rows = 6
    text, seconds = planned(monkeypatch, made[0], tmp_path, batch_size=4, methods=["bon", "entrgi"])
    real = taken(made[1], tmp_path, batch_size=4, methods=["bon", "entrgi"])
    assert seconds == pytest.approx(real, rel=0.05)
    assert "4 trajectories of" in text


def test_costs_are_never_negative():
    """A clock that others disturb may say that long prompts take less."""
    random.seed(0)
    for _ in range(50):
        sizes = [(random.randint(1, 9), random.randint(10, 99)) for _ in range(3)]
        points = [(rows, rows * length, random.random()) for rows, length in sizes]
        cost = estimate.Cost.through(points)
        assert min(cost.call, cost.row, cost.position) >= 0
    exact = estimate.Cost.through([(1, 10, 15.0), (2, 20, 27.0), (2, 50, 57.0)])
    assert (exact.call, exact.row, exact.position) == pytest.approx((3, 2, 1))
    assert estimate.Cost.through([]).of(3, 4) == 0


def test_the_tiny_networks_are_those_of_a_run():
    assert torch.equal(Timed(UNEVEN).denoise.embedding, FailingDenoiser(1).embedding)


# The parts of an estimate, on numbers that are made up


def batch(prompts, steps=(0, 0), K=2, length=10, **more):
    config = replace(BASE, trajectories=K)
    return estimate.Job(tuple(prompts), config, tuple(steps), length, **more)


def costing(cost):
    return cost.call, cost.row, cost.position


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(2, 8, 6.0)], (0, 6 * 2 / 68, 6 * 8 / 68)),  # nothing is said of what does not grow
        ([(2, 20, 4.0), (3, 30, 6.0)], (0, 4 * 2 / 404, 4 * 20 / 404)),
        ([(1, 10, 5.0), (2, 20, 5.0), (4, 80, 5.0)], (5, 0, 0)),
        ([(1, 10, 25.0), (1, 20, 45.0), (2, 40, 85.0)], (5, 0, 2)),
        ([(1, 10, 7.0), (2, 20, 9.0), (2, 80, 9.0)], (5, 2, 0)),
        ([(1, 10, 3.0), (1, 90, 3.0), (2, 20, 6.0)], (0, 3, 0)),
        ([(1, 10, 10.0), (9, 20, 20.0), (2, 30, 30.0)], (0, 0, 1)),
        ([(1, 10, 15.0), (2, 20, 27.0), (2, 50, 57.0), (4, 50, 61.0)], (3, 2, 1)),
        ([(1, 10, 0.0), (2, 20, 0.0)], (0, 0, 0)),
    ],
)
def test_of_costs_that_fit_as_well_those_are_taken_that_grow_with_the_batch(points, expected):
    found = estimate.Cost.through(points)
    assert costing(found) == pytest.approx(expected, abs=1e-9)
    for rows, positions, seconds in points:
        assert found.of(rows, positions) == pytest.approx(seconds, abs=1e-9)


def test_a_clock_that_stood_still_once_decides_nothing():
    """As if it had gone on by a thousandth of the longest."""
    call, row, position = costing(estimate.Cost.through([(1, 10, 0.0), (1, 10, 1000.0)]))
    assert call == 0
    # The sum of (x / 1)^2 and ((x - 1000) / 1000)^2 is least at these seconds x of both.
    assert row + 10 * position == pytest.approx(1e-3 / (1 + 1e-6))
    assert position == pytest.approx(10 * row)


def test_no_costs_that_are_not_negative_fit_much_better():
    """Beside all of them that are best with some of the three."""
    chance = random.Random(1)

    def miss(cost, table, seconds):
        return float((((table @ np.array(cost)) / seconds - 1) ** 2).sum())

    for _ in range(60):
        sizes = [(chance.randint(1, 9), chance.randint(10, 99)) for _ in range(4)]
        points = [(rows, rows * length, chance.uniform(0.1, 1)) for rows, length in sizes]
        table = np.array([[1, rows, positions] for rows, positions, _ in points], float)
        seconds = np.array([time for *_, time in points])
        misses = []
        for used in chain.from_iterable(combinations(range(3), n) for n in (1, 2, 3)):
            cost = np.zeros(3)
            cost[list(used)] = np.linalg.pinv(table[:, used] / seconds[:, None]) @ np.ones(4)
            if (cost >= 0).all():
                misses.append(miss(cost, table, seconds))
        found = costing(estimate.Cost.through(points))
        assert miss(found, table, seconds) <= min(misses) / 0.99 + 1e-9


def test_a_batch_counts_its_trajectories_and_tokens():
    job = batch("123", (0, 2, 1), K=4, length=7)
    assert (job.rows, job.positions, job.kind) == (12, 84, (4, True))
    assert batch("1").kind == (2, False)
    assert [estimate._tried(batch("1", steps)) for steps in ((), (0,), (0, 1), (2, 0), (5,))] == [
        *(0, 0, 1, 2, 2)
    ]


def test_four_batches_say_how_long_the_others_take():
    """Of most trajectories and tokens; of the usual size the longest and the shortest; and the
    longest of the smallest.
    """
    usual = [batch(f"{n}{n}", length=length) for n, length in enumerate((20, 30, 25, 10, 15))]
    small = [batch("7", length=length) for length in (12, 13)]
    large = [batch("888", length=18), batch("999", length=19), batch("666", length=14)]
    found = estimate._corners([*usual, *small, *large])
    assert found == [usual[1], small[1], usual[3]]  # 4 x 30 are more than 6 x 19
    found = estimate._corners([*usual, batch("888", length=21), small[0]])
    assert found == [batch("888", length=21), usual[1], small[0], usual[3]]
    assert estimate._corners(usual[:1]) == usual[:1]
    assert estimate._corners([]) == []
    again = replace(usual[0], length=20), batch("00", length=20, K=4)
    assert estimate._corners(again) == [again[1], again[0]]  # with another K another batch


def test_seconds_are_those_of_the_steps_of_each_batch():
    """A call without guidance takes 1 s and 2 s a step; one with it 4 s, and 3 s a gradient step;
    and a text of each trajectory half a second.
    """
    measured = {(("1",), 2, 0): (1.0, 2.0), (("1",), 2, 2): (4.0, 8.0)}
    known = estimate.Calibration(None, {"1": 8}, {}, measured, {(("1",), 2): 0.5})
    length = 8 + BASE.new_tokens
    for job, seconds in (
        (batch("1", (0, 0, 0)), 1 + 3 * 2),
        (batch("1", (2, 0, 1)), 4 + 3 * 2 + 3 * 3),
        (batch("1", (0, 0), texts=5), 1 + 2 * 2 + 5 * 0.5),
    ):
        assert known.seconds([job]) == ([replace(job, length=length)], pytest.approx(seconds))
    jobs = [batch("1", (0, 0, 0)), batch("1", (2, 0, 1)), batch("1", (0, 0), texts=5)]
    assert known.seconds(jobs)[1] == pytest.approx(7 + 19 + 7.5)
    faster = measured | {(("1",), 2, 2): (4.0, 1.5)}  # than without guidance, by a disturbed clock
    known = estimate.Calibration(None, {"1": 8}, {}, faster)
    assert known.seconds([batch("1", (2, 0, 1))])[1] == pytest.approx(4 + 3 * 2)


def test_a_batch_is_answered_as_a_run_would():
    known = estimate.Calibration(None, {"1": 3, "2": 9, "3": 4, "4": 5})
    N = BASE.new_tokens

    def parts(job):
        return [(part.prompts, part.length) for part in known.parts(job)]

    assert parts(batch("1234")) == [(("1", "2", "3", "4"), 9 + N)]
    assert parts(batch("15")) == [(("1",), 3 + N)]
    assert parts(batch("125")) == [(("1",), 3 + N), (("2",), 9 + N)]
    assert parts(batch("5")) == []
    known.fits[2, False] = 3
    assert parts(batch("1324")) == [(("1", "3", "2"), 9 + N), (("4",), 5 + N)]
    assert parts(batch("1324", (1,))) == [(("1", "3", "2", "4"), 9 + N)]  # is of another kind
    assert parts(batch("1324", K=4)) == [(("1", "3", "2", "4"), 9 + N)]


class Refusing(estimate.Calibration):
    """No batch can be computed."""

    error = None

    def _of(self, job, M):
        raise self.error


def test_a_batch_that_cannot_be_computed_is_another_from_then_on(monkeypatch):
    emptied = []
    monkeypatch.setattr(estimate, "empty_cache", lambda: emptied.append(True))
    full = torch.OutOfMemoryError("CUDA out of memory")
    jobs = [batch(prompts, length=9 + BASE.new_tokens) for prompts in ("1234567", "2")]
    for error, job, fits, left in (
        (full, jobs[0], {(2, False): 3}, "123"),
        (full, batch("12", length=9 + BASE.new_tokens), {(2, False): 1}, "123"),
        (full, jobs[1], {}, "13"),
        (ValueError("too long"), jobs[0], {}, "13"),
    ):
        known = Refusing(None, {"1": 3, "2": 9, "3": 4} | dict.fromkeys("4567", 5))
        known.error = error
        assert not known._measure(job)
        assert (known.fits, "".join(known.lengths)) == (fits, left + "4567")
        assert known._reason is error
        assert emptied == [True] * (error is full)
        emptied.clear()
    known.error = RuntimeError("the device is lost")
    with pytest.raises(RuntimeError, match="lost"):
        known._measure(jobs[0])
    known.error = ValueError("no letters")
    with pytest.raises(ValueError, match="prompts: none can be answered, the last because of no "):
        known.seconds([batch("1"), batch("3")])


class Lasting:
    """In the place of `generate`: takes as long as it is told, call by call."""

    def __init__(self, monkeypatch, *seconds):
        self.now, self.left, self.calls = 50.0, list(seconds), []
        monkeypatch.setattr(estimate.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(estimate, "generate", self)

    def __call__(self, denoiser, reward, prompts, config, **options):
        self.now += self.left.pop(0)
        self.calls.append((denoiser, reward, prompts, config, options))
        return SimpleNamespace(responses=[["a", "b"], ["c", "d"]])

    def score(self, prompts, responses):
        self.now += self.left.pop(0)
        self.scored = prompts, responses

    def denoiser(self):
        return "denoiser"

    main_reward = "main"

    def reward(self, name):
        assert name == "main"
        return self


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((100, 11, 19), (7, 2)),  # the first warms up
        ((100, 2, 42), (0, 10)),  # no less than nothing, however the clock was disturbed
        ((100, 3, 2), (3, 0)),
    ],
)
def test_a_step_is_timed_by_four_more_of_them(monkeypatch, seconds, expected):
    testbed = Lasting(monkeypatch, *seconds)
    testbed.vocabulary_batch = 64
    known, job = estimate.Calibration(testbed, {}), batch("12", (3, 3))
    assert [known._of(job, 2) for _ in range(2)] == [pytest.approx(expected)] * 2  # timed once
    config = replace(job.config.guided(steps=2), skip_empty_steps=False)
    assert testbed.calls == [
        ("denoiser", testbed, ("1", "2"), config, {"vocabulary_batch": 64})
        for config in (replace(config, denoising_steps=n) for n in (2, 2, 6))
    ]


def test_texts_are_timed_one_for_each_trajectory(monkeypatch):
    testbed = Lasting(monkeypatch, 100, 3)
    known = estimate.Calibration(testbed, {})
    assert [known._score(batch("12", texts=3)) for _ in range(2)] == [3, 3]
    assert testbed.scored == (["1", "1", "2", "2"], ["a", "b", "c", "d"])
    once = replace(BASE, trajectories=2, denoising_steps=1)
    assert testbed.calls == [("denoiser", testbed, ("1", "2"), once, {})]


def test_the_peak_is_said_in_gib(monkeypatch):
    half = 2**29
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 5 * half)
    assert estimate._peak_memory() == "2.5 GiB of the GPU"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for platform, unit in (("darwin", 1), ("linux", 2**10)):
        used = SimpleNamespace(ru_maxrss=3 * half // unit)
        monkeypatch.setattr("resource.getrusage", lambda whose, used=used: used)
        monkeypatch.setattr(sys, "platform", platform)
        assert estimate._peak_memory() == "1.5 GiB of the whole process"


class Hourly(TinyTestbed):
    """Two minutes for each step of the mask predictor, and half an hour for each gradient."""

    def __init__(self, monkeypatch):
        super().__init__(prompts=("1", "22", "333", "x"))
        monkeypatch.setattr(estimate.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(estimate, "_peak_memory", lambda: "2.0 GiB of everything")
        monkeypatch.setattr(estimate, "generate", self.generate)
        self.now = 0.0

    def generate(self, denoiser, reward, prompts, config, **options):
        self.now += 100 + config.denoising_steps * (120 + 1800 * config.constant_guidance.steps)

    def examine(self, new_tokens):
        assert new_tokens == TINY_BASE.new_tokens


def test_the_whole_estimate(monkeypatch, tmp_path):
    """Of two batches of two, of which one holds a prompt that cannot be read."""
    testbed = Hourly(monkeypatch)
    plan = Plan.of("main", TINY_BASE, [1], 4, 2, ["bon", "entrgi"])
    a_call, steps = 100, 3  # of the four, the first commits nothing
    seconds = 2 * (2 * (a_call + steps * 120) + steps * 1800)
    drawn = testbed.benchmarks[0].drawn(1, 4)
    (alone,) = [pair for pair in (drawn[:2], drawn[2:]) if "x" in pair]
    length = max(len(prompt) for prompt in drawn if prompt not in alone) + 4
    assert estimate.estimate(plan, testbed, tmp_path) == (
        "2 cells, 8 prompts in 4 batches\n"
        "12 forward passes of the mask predictor, 6 forward and as many backward passes of the "
        "reward model, of one batch each\n"
        f"about {seconds / 3600:.1f} h on one cpu\n"
        f"the largest batch has 4 trajectories of {length} tokens; peak memory with it: "
        "2.0 GiB of everything"
    )


def test_the_largest_batch_has_the_most_tokens(monkeypatch, tmp_path):
    """Not the most trajectories."""
    jobs = [batch("ab", length=10), batch("c", length=30), batch("d", length=20)]
    monkeypatch.setattr(estimate.Calibration, "seconds", lambda self, work: (jobs, 1.0))
    plan = Plan.of("main", TINY_BASE, [1], 2, 2, ["bon"])
    text = estimate.estimate(plan, TinyTestbed(), tmp_path)
    assert "\nthe largest batch has 2 trajectories of 30 tokens; peak" in text


def test_what_is_done_is_not_in_an_estimate(monkeypatch, tmp_path):
    """A batch of which a record is missing is there whole."""
    tiny_run(tmp_path, prompts=3, seeds=[1], methods=["bon"])
    testbed = TinyTestbed()
    monkeypatch.setattr(estimate.Calibration, "seconds", lambda self, work: ([*work], 1.0))

    def said(prompts, seeds):
        plan = Plan.of("main", TINY_BASE, seeds, prompts, 2, ["bon"])
        return estimate.estimate(plan, testbed, tmp_path).splitlines()[0]

    assert said(3, [1]) == f"nothing is left to do in {tmp_path}"
    assert said(4, [1]) == "1 cell, 2 prompts in 1 batch"
    assert said(3, [1, 2]) == "1 cell, 3 prompts in 2 batches"
    with pytest.raises(ValueError, match="new_tokens"):
        estimate.estimate(
            Plan.of("main", replace(TINY_BASE, new_tokens=5), [1], 3, 2, ["bon"]), testbed, tmp_path
        )


def test_what_has_failed_is_left_if_it_is_tried_again(monkeypatch, tmp_path):
    """As by a run with the same options."""
    dislikes = TinyTestbed(judge=FailingReward(2, dislikes=("22",)))
    tiny_run(tmp_path, dislikes, prompts=5, batch_size=1, methods=["bon"])
    monkeypatch.setattr(estimate.Calibration, "seconds", lambda self, work: ([*work], 1.0))
    plan = Plan.of("main", TINY_BASE, [1], 5, 1, ["bon"])
    found = [
        estimate.estimate(plan, TinyTestbed(), tmp_path, **options).splitlines()[0]
        for options in ({}, {"retry_failed": False}, {"retry_failed": True})
    ]
    assert found == [*[f"nothing is left to do in {tmp_path}"] * 2, "1 cell, 1 prompt in 1 batch"]


# Without networks


def dry_plan(*words):
    return invoke("plan", "main", "--dry", *words)


@pytest.fixture
def no_weights(monkeypatch):
    monkeypatch.setattr(checkpoints, "load", lambda *a, **k: pytest.fail("weights are loaded"))
    monkeypatch.setattr(checkpoints, "locate", lambda *a, **k: pytest.fail("weights are fetched"))


@pytest.fixture
def offline(monkeypatch):
    def fails(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", fails)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fails)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a, **k: None)


def test_a_dry_plan_reads_folders_without_loading_them(tmp_path, no_weights):
    """Neither networks nor benchmarks."""
    paths = ("--dream", DREAM, "--reward", REWARD, "--benchmark", tmp_path / "none.jsonl")
    text = dry_plan(*paths, "--new-tokens", "32", "--trajectories", "2", "--prompt-tokens", "9")
    weights = sum(file.stat().st_size for file in DREAM.glob("*.safetensors"))
    assert f"in the folder {weights / 1e9:.2f} GB (listed); from config.json" in text
    assert "All of this is predicted" in text
    assert "4 prompts x K = 2, N = 32, bfloat16" in text
    assert re.search(r"N = 32 +N = 64 +N = 128 +N = 256", text)
    assert "prompts of 9 tokens (--prompt-tokens)" in text
    assert "16 x 2" in text


def test_a_dry_plan_asks_the_hub_for_sizes_alone(tmp_path, no_weights, monkeypatch):
    fetched = []

    def config(hub_id, name, revision):
        fetched.append((hub_id, name, revision))
        return str((DREAM if "dream" in hub_id else REWARD) / name)

    def info(self, hub_id, *, revision, files_metadata, timeout):
        assert files_metadata
        files = {"config.json": 700, "model-1.safetensors": 3_000_000_000, "model.py": 9}
        siblings = [SimpleNamespace(rfilename=name, size=size) for name, size in files.items()]
        return SimpleNamespace(sha="c0ffee", siblings=siblings)

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", info)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", config)
    text = dry_plan("--dream", "someone/dream@main", "--reward", "someone/reward")
    assert text.count("download 3.00 GB (listed); from config.json of the hub") == 2
    names = [
        ("someone/dream", "config.json", "c0ffee"),
        ("someone/reward", "config.json", "c0ffee"),
    ]
    assert fetched == names


def test_without_the_hub_the_papers_shapes_are_declared(offline, no_weights, tmp_path):
    text = dry_plan("--json", tmp_path / "memory.json")
    assert (
        text.count("(computed, in 16 bits); from a shape declared here, as the hub does not") == 2
    )
    record = json.loads((tmp_path / "memory.json").read_text())
    (table,) = record["tables"].values()
    rows = {(r["prompts"], r["trajectories"], r["new_tokens"]): r for r in table["rows"]}
    assert set(rows) == {
        (prompts, K, N)
        for prompts, K in ((1, 1), (1, 4), (2, 4), (4, 4), (8, 4), (16, 4))
        for N in (64, 128, 256)
    }
    assert rows[1, 1, 64]["peak_gib"] < 0.9 * min(rows[1, 1, 64]["fits"])
    for row in rows.values():
        assert row["fits"] == [c for c in (16, 24, 40, 80) if row["peak_gib"] <= 0.9 * c]
    K = int(re.search(r"equal compute, K = (\d+)", text)[1])
    assert K > 4
    small = dry_plan("--size", "small")
    assert f"{pairs.SMALL}: 0.75 billion parameters, download 1.50 GB" in small
    assert f"{pairs.SKYWORK['0.6B']}: 0.60 billion parameters, download 1.19 GB" in small
    assert pairs.GIGABYTES[pairs.SMALL] == 1.5
    assert pairs.GIGABYTES[pairs.SKYWORK["0.6B"]] == 1.2
    with pytest.raises(ValueError, match="the hub does not answer, and of 'a/b' no shape"):
        dry_plan("--dream", "a/b")
    with pytest.raises(ValueError, match="there is no folder"):
        dry_plan("--dream", "none/of/these")
    with pytest.raises(ValueError, match=r"json: got .*, which has no effect without --dry"):
        invoke("plan", "main", "--json", tmp_path / "x.json")
    with pytest.raises(ValueError, match="tflops: got 0"):
        dry_plan("--tflops", "0")


def test_declared_shapes_have_as_many_parameters_as_their_names_say():
    """As the public cards of Qwen2.5-7B and Qwen3 have it, without embeddings: in billions."""
    beside = {"0.6B": 0.44, "1.7B": 1.4, "4B": 3.6}
    exact = {"0.6B": 596_049_920, "1.7B": 1_720_574_976, "4B": 4_022_468_096}
    for size, path in published.SKYWORK.items():
        sizes = Sizes.of(published.SHAPES[path])
        assert round(sizes.as_reward / 1e9, 1) == float(size[:-1])
        assert sizes.in_layers / 1e9 == pytest.approx(beside[size], abs=0.05)
        # Of transformers' Qwen3 with tied embeddings, and a score in the place of its output layer.
        assert sizes.as_reward == exact[size] + sizes.width
    dream = Sizes.of(published.SHAPES[published.DREAM])
    assert dream.as_denoiser == 7_615_616_512
    assert dream.in_layers / 1e9 == pytest.approx(6.53, abs=0.01)
    small = Sizes.of(published.SHAPES[pairs.SMALL])
    assert small == replace(Sizes.of(published.SHAPES[published.SKYWORK["0.6B"]]))
    # Weights, biases and norms do not tell how many heads there are.
    heads = {path: Sizes.of(shape).heads for path, shape in published.SHAPES.items()}
    assert heads == {
        published.DREAM: 28,
        pairs.SMALL: 16,
        **{published.SKYWORK[size]: n for size, n in (("0.6B", 16), ("1.7B", 16), ("4B", 32))},
    }


def test_time_is_operations_and_bytes_over_the_assumed_rates(offline):
    def forecast(tflops, bandwidth, M=3):
        networks = [dry.Known.of(path) for path in (published.DREAM, published.SKYWORK["1.7B"])]
        return dry.Forecast(*networks, "bfloat16", "float32", M, dry.Assumed(tflops, bandwidth, 99))

    networks, tables = forecast(100, 1000).seconds(16, 128)
    assert forecast(50, 500).seconds(16, 128) == pytest.approx((2 * networks, 2 * tables))
    unguided, _ = forecast(100, 1000, M=0).seconds(16, 128)
    by_hand = 2 * 6.53e9 * 16 * 227 + 2 * 16 * 64.5 * 152_064 * 3584
    assert unguided == pytest.approx(by_hand / 1e14, rel=0.02)


@pytest.mark.parametrize(
    ("name", "bad", "good", "expected"),
    [
        ("tflops", (0, 1e-320, 1e6 + 1), (1e-6, 1e6), r"a number in \[1e-06, 1e\+06\]"),
        ("bandwidth", (0, 1e-320, 1e6 + 1), (1e-6, 1e6), r"a number in \[1e-06, 1e\+06\]"),
        ("prompt_tokens", (0, 1.5), (1, 2), "an integer of at least 1"),
    ],
)
def test_what_is_assumed_is_a_number_that_can_be(name, bad, good, expected):
    usual = dry.Assumed(tflops=1, bandwidth=1, prompt_tokens=1)
    for value in good:
        assert getattr(replace(usual, **{name: value}), name) == value
    for value in bad:
        with pytest.raises(ValueError, match=f"^{name}: got {value}, expected {expected}$"):
            replace(usual, **{name: value})


def test_a_network_is_said_in_a_line(monkeypatch):
    found = SimpleNamespace(config={"a": 1}, weights=1_234_000_000, on_hub=True)
    monkeypatch.setattr(dry, "listed", lambda path: found)
    known = dry.Known.of("me/mine")
    assert known == dry.Known("me/mine", {"a": 1}, "config.json of the hub", 1_234_000_000, True)
    parameters = 2_345_000_000
    assert known.line(parameters) == (
        "me/mine: 2.35 billion parameters, download 1.23 GB (listed); from config.json of the hub"
    )
    found.on_hub = False
    assert dry.Known.of("here").line(parameters) == (
        "here: 2.35 billion parameters, in the folder 1.23 GB (listed); from config.json"
    )
    found.weights = 0  # a folder with nothing but its config.json
    assert "in the folder 4.69 GB (computed, in 16 bits);" in dry.Known.of("h").line(parameters)
    monkeypatch.setattr(dry, "listed", lambda path: None)
    monkeypatch.setitem(dry.SHAPES, "me/mine", {"b": 2})
    known = dry.Known.of("me/mine@1234")
    assert (known.config, known.weights) == ({"b": 2}, None)
    assert known.line(parameters) == (
        "me/mine@1234: 2.35 billion parameters, download 4.69 GB (computed, in 16 bits); from a "
        "shape declared here, as the hub does not answer"
    )


TWO = {
    "dream": {"model_type": "Dream", "vocab_size": 1000, "hidden_size": 64}
    | {"intermediate_size": 192, "num_hidden_layers": 5}
    | {"num_attention_heads": 4, "num_key_value_heads": 2},
    "judge": {"model_type": "qwen3", "vocab_size": 990, "hidden_size": 48}
    | {"intermediate_size": 96, "num_hidden_layers": 3}
    | {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16},
}


@pytest.fixture
def two(monkeypatch):
    """Networks of which the shape alone is known."""
    monkeypatch.setattr(dry, "listed", lambda path: None)
    for name, shape in TWO.items():
        monkeypatch.setitem(dry.SHAPES, name, shape)


@pytest.mark.parametrize(
    ("dtype", "guidance_dtype", "g", "products"),
    [("bfloat16", "float32", 4, 3), ("bfloat16", "bfloat16", 2, 2), ("float32", "float32", 4, 2)],
)
def test_the_seconds_of_a_step_are_counted_by_hand(two, dtype, guidance_dtype, g, products):
    """Two sequences, of 11 prompt tokens and 5 new ones, three of which are masked on average."""
    networks = [dry.Known.of(name) for name in TWO]
    dream, judge = (Sizes.of(shape) for shape in TWO.values())
    predict = dream.operations(2 * 16, 16) + 2 * (6 * 1000 * 64)  # each product with its sum
    climb = 2 * judge.operations(2 * 5, 16) + products * 2 * (6 * 1000 * 48)
    for M in (0, 1, 3):
        assumed = dry.Assumed(tflops=1e-3, bandwidth=1e-2, prompt_tokens=11)
        forecast = dry.Forecast(*networks, dtype, guidance_dtype, M, assumed)
        assert forecast.seconds(2, 5) == pytest.approx(
            (
                (predict + M * climb) / 1e9,
                6 * 1000 * (g / 4) * (240 + 330 * M) / 1e7,
            )
        )


def test_memory_is_predicted_of_what_is_forecast(monkeypatch):
    asked = []
    monkeypatch.setattr(dry, "predicted_memory", lambda *a, **options: asked.append((a, options)))
    networks = [dry.Known(name, {"name": name}, "", None, True) for name in ("one", "two")]
    assumed = dry.Assumed(1, 1, 9)
    forecast = dry.Forecast(*networks, "float32", "float64", 3, assumed, 4, 5, {"reward": "4bit"})
    held = replace(forecast, settings=replace(forecast.settings, order="origin", trajectories=1))
    forecast.memory(2, 3, 7)
    forecast.memory(2, 3, 7, gradient_steps=0)
    held.memory(1, 1, 7)
    held.memory(1, 3, 7)
    parts = {"micro_batch": 4, "vocabulary_batch": 5, "quantize": {"reward": "4bit"}}

    def expected(prompts, K, M, pauses):
        named = [{"name": "one"}, {"name": "two"}]
        options = {"gradient_steps": M, **parts, "pauses": pauses}
        return (*named, [9] * prompts, K, 7, "float32", "float64"), options

    assert asked == [
        expected(2, 3, 3, False),
        expected(2, 3, 0, False),
        expected(1, 1, 3, False),  # a single trajectory skips the steps at which it pauses
        expected(1, 3, 3, True),
    ]


CAUSAL = {"architectures": ["Qwen3ForCausalLM"]}


def test_the_seconds_of_a_causal_reward_are_those_of_its_output_layer_too(two, monkeypatch):
    dream, judge = (dry.Known.of(name) for name in TWO)
    monkeypatch.setitem(dry.SHAPES, "judge", TWO["judge"] | CAUSAL)
    assumed = dry.Assumed(tflops=1e-3, bandwidth=1e-2, prompt_tokens=11)

    def seconds(reward):
        return dry.Forecast(dream, reward, "float32", "float32", 3, assumed).seconds(2, 5)

    (plain, tables), (more, same) = seconds(judge), seconds(dry.Known.of("judge"))
    there_and_back = 2 * 2 * (2 * 5 * 990 * 48)  # each product with its sum
    assert more - plain == pytest.approx(3 * there_and_back / 1e9)
    assert same == tables


@pytest.mark.parametrize("dream", [DREAM, PARITY.parent / "parity-models" / "a2d-qwen3-tied-tiny"])
def test_a_dry_plan_has_the_answers_of_a_run_that_asks_a_causal_model(tmp_path, dream):
    """Whose output layer is multiplied with, too."""
    base = replace(BASE, new_tokens=16, denoising_steps=16)
    plan = Plan.of("main", base, [1], 1, 4, ["bon_equal_compute", "smc"])
    paths, own = {"own": str(causal(tmp_path))}, [Benchmark("own", ("explain entropy",), "")]
    testbed = DreamTestbed(str(dream), paths, own, "float32", "cpu")
    prompt = testbed.denoiser().encode(["explain entropy"]).tokens.shape[1]
    K = [plan.method(testbed, cell).config.trajectories for cell in plan.cells(testbed)]
    assumed = dry.Assumed(100, 1000, prompt)
    text, _ = dry.dry(plan, str(dream), paths, "float32", assumed)
    assert re.findall(r"K = (\d+), without gradients", text) == list(map(str, K))
    config = testbed.reward("own").network.config.to_dict()
    counted = sum(p.numel() for p in testbed.reward("own").network.parameters())
    assert Sizes.of(config | CAUSAL).as_reward == counted
    assert Sizes.of(config | {"architectures": None}).as_reward == counted + 32  # of a score


@pytest.fixture
def made_up(two, monkeypatch):
    """Forecasts of which each number can be seen: those that were asked."""
    asked = []

    def memory(self, prompts, K, N, gradient_steps=None):
        asked.append(self)
        table = prompts * K * N * 2**23
        moments = {"noon": table if gradient_steps == 0 else 2 * table, "night": table // 2}
        gib = 2**30
        return dry.Memory(
            gib,
            gib,
            gib // 2,
            table,
            cache=3,
            activations=4 * gib,
            reading=5 * gib,
            moments=moments,
        )

    monkeypatch.setattr(dry.Forecast, "memory", memory)
    monkeypatch.setattr(dry.Forecast, "seconds", lambda self, S, N: (S * 0.5, N / 128))
    return asked


def equal_compute(M, K=2, N=32, prompt=96):
    """Trajectories of Best-of-N and of rivals by hand, and the candidates of one."""
    dream, judge = (Sizes.of(shape) for shape in TWO.values())
    steps, length = N - 1, prompt + N  # the first step commits nothing
    read, text = N * judge.in_layers, length * judge.in_layers
    plain = steps * length * (dream.in_layers + 1000 * 64) + read
    guided = plain + 2 * steps * M * read
    candidates = max(2, int((guided - plain) / (N * text)))
    scored = plain + candidates * N * text
    return {
        "bon": math.ceil(K * guided / plain),
        "smc": math.ceil(K * guided / (plain + steps * text)),
        "lookahead": min(K, math.ceil(K * guided / scored)),
        "candidates": candidates,
    }


def test_the_whole_of_a_dry_plan(made_up):
    base = replace(BASE, trajectories=2, new_tokens=32, denoising_steps=32).guided(steps=60)
    methods = ["bon_equal_compute", "entrgi", "damped", "smc", "self_smc", "lookahead"]
    plan = Plan.of("main", base, [1], 5, 4, methods)
    assumed = dry.Assumed(tflops=12.5, bandwidth=1000, prompt_tokens=96)
    text, record = dry.dry(plan, "dream", {"mine": "judge"}, "auto", assumed)
    here = "a shape declared here, as the hub does not answer"
    K = equal_compute(60)
    assert K["candidates"] > 2
    assert K["bon"] > K["smc"] > 2
    what = {  # method -> the tables of its answers that are there at once
        f"Best-of-N at equal compute, K = {K['bon']}": K["bon"],
        f"SMC, K = {K['smc']}": 3 * K["smc"],
        f"Self-rewarding SMC, K = {K['bon']}": 3 * K["bon"],
        f"Lookahead, K = 2, candidates = {K['candidates']}": 3 * 2,
    }
    unguided = "\n".join(
        f"  {f'{name}, without gradients:':67}{2.5 + held:8.2f} GiB" for name, held in what.items()
    )
    assert (
        text
        == f"""\
All of this is predicted, from configurations alone; no weights were loaded.
Assumed: prompts of 96 tokens (--prompt-tokens),
  12.5 TFLOP/s (--tflops), 1000 GB/s (--bandwidth),
  10% of a card left for the driver, the kernels and fragments.
dream: 0.00 billion parameters, download 0.00 GB (computed, in 16 bits); from {here}

judge: 0.00 billion parameters, download 0.00 GB (computed, in 16 bits); from {here}
predicted memory, 4 prompts x K = 2, N = 32, bfloat16:
  weights of the mask predictor                                          1.00 GiB
  weights of the reward model                                            1.00 GiB
  its embeddings, in the order of the diffusion vocabulary               0.50 GiB
  one table of [n, V]                                                    2.00 GiB
  keys and values of the prompts                                         0.00 GiB
  activations of the reward model, kept for its backward pass            4.00 GiB
  working memory of the mask predictor                                   5.00 GiB
  all but the weights at the fullest moment                              4.00 GiB
  peak, at noon                                                          6.50 GiB
{unguided}

predicted peak in GiB, and the smallest of the cards of 16, 24, 40, 80 GB that it fits:
  prompts x K               N = 32            N = 64           N = 128           N = 256
  1 x 1                3.0 (16 GB)       3.5 (16 GB)       4.5 (16 GB)       6.5 (16 GB)
  1 x 2                3.5 (16 GB)       4.5 (16 GB)       6.5 (16 GB)      10.5 (16 GB)
  2 x 2                4.5 (16 GB)       6.5 (16 GB)      10.5 (16 GB)      18.5 (24 GB)
  4 x 2                6.5 (16 GB)      10.5 (16 GB)      18.5 (24 GB)      34.5 (40 GB)
  8 x 2               10.5 (16 GB)      18.5 (24 GB)      34.5 (40 GB)      66.5 (80 GB)
  16 x 2              18.5 (24 GB)      34.5 (40 GB)      66.5 (80 GB)      130.5 (none)

predicted time of a denoising step with M = 60, N = 32, by the assumed rates:
  1 x 1: 0.75 s
  1 x 2: 1.25 s
  2 x 2: 2.25 s
  4 x 2: 4.25 s
  8 x 2: 8.25 s
  16 x 2: 16.25 s"""
    )
    rows = record.pop("tables")["mine"]["rows"]
    assert rows[-1] == {
        "prompts": 16,
        "trajectories": 2,
        "new_tokens": 256,
        "peak_gib": 130.5,
        "fits": [],
        "seconds_per_step": 18.0,
    }
    assert [row["fits"] for row in rows[-4:-1]] == [[24, 40, 80], [40, 80], [80]]
    assert record == {
        "assumed": {"tflops": 12.5, "bandwidth": 1000, "prompt_tokens": 96},
        "dtype": "bfloat16",
        "gradient_steps": 60,
        "micro_batch": None,
        "vocabulary_batch": None,
        "left": 0.1,
        "denoiser": here,
    }
    assert {(asked.dtype, asked.guidance_dtype) for asked in made_up} == {("bfloat16", "float64")}


def test_an_output_layer_costs_the_same_whether_or_not_it_is_the_table_too(made_up, monkeypatch):
    """Of two tables one is looked up in; of one that is both, none is left out."""
    base = replace(BASE, trajectories=2, new_tokens=32, denoising_steps=32).guided(steps=60)
    plan = Plan.of("main", base, [1], 5, 4, ["bon_equal_compute", "smc", "lookahead"])
    assumed = dry.Assumed(tflops=12.5, bandwidth=1000, prompt_tokens=96)
    K = equal_compute(60)
    for tied in (False, True):
        shape = TWO["dream"] | {"tie_word_embeddings": tied}
        monkeypatch.setitem(dry.SHAPES, "dream", shape)
        text, _ = dry.dry(plan, "dream", {"mine": "judge"}, "auto", assumed)
        assert f"  Best-of-N at equal compute, K = {K['bon']}, without" in text
        assert f"  SMC, K = {K['smc']}, without" in text
        assert f"  Lookahead, K = 2, candidates = {K['candidates']}, without" in text


def test_a_dry_plan_says_what_it_does_not_count_with(made_up):
    base = replace(BASE, new_tokens=64, denoising_steps=64)
    base = replace(base, guidance=replace(base.guidance, dtype="denoiser"))
    plan = Plan.of("gradient-steps", base, [1], 5, "auto", ["aps"])
    assumed = dry.Assumed(100, 1000, 96)

    def said(dtype="float16", **options):
        made_up.clear()
        rewards = {"a": "judge", "b": "judge"}
        return dry.dry(plan, "dream", rewards, dtype, assumed, **options)

    parts = "Times do not count with what is read or worked on in parts."
    rounded = (
        "Weights of layers are rounded: denoiser 8bit, reward 4bit. Times do not count with it."
    )
    bits = {"denoiser": "8bit", "reward": "4bit"}
    for options, lines in (
        ({}, []),
        ({"micro_batch": 3}, [parts]),
        ({"vocabulary_batch": 7}, [parts]),
        ({"quantize": bits, "micro_batch": 3, "vocabulary_batch": 7}, [rounded, parts]),
    ):
        text, record = said(**options)
        before, after = text.split("fragments.\n")[1].split("dream: ")
        assert before.splitlines() == lines
        assert "with M = 8, N = 64" in after
        assert after.count("predicted memory, 16 prompts x K = ") == 2
        assert "N = 64, float16" in after
        assert list(record["tables"]) == ["a", "b"]
        assert {row["new_tokens"] for row in record["tables"]["b"]["rows"]} == {64, 128, 256}
        given = {"gradient_steps": 8, "micro_batch": None, "vocabulary_batch": None} | options
        assert record.items() >= given.items()
        assert ("quantize" in record) == ("quantize" in options)
        for asked in made_up:
            assert {key: getattr(asked, key) for key in given} == given
            assert (asked.dtype, asked.guidance_dtype) == ("float16", "float16")
            assert asked.settings == base
    with pytest.raises(ValueError, match="dtype: got 'int4', expected one of 'float64'"):
        said("int4")


def test_a_dry_plan_is_written_with_what_it_is_of(made_up, tmp_path):
    base = replace(BASE, new_tokens=64, denoising_steps=64)
    plan = Plan.of("main", base, [3, 1], 5, 2, ["bon"])
    words = plan, "dream", {"mine": "judge"}, "float32", dry.Assumed(100, 1000, 96)
    text, found = dry.dry(*words, micro_batch=3)
    file = tmp_path / "memory.json"
    assert dry.say(*words, file, micro_batch=3) == text == dry.say(*words, micro_batch=3)
    written = file.read_text(encoding="utf-8")
    record = json.loads(written)
    assert written == json.dumps(record, indent=1) + "\n"
    assert record == found | {
        "command": "python -m entrgi_ref.paper plan main --dry",
        "testbed": "no networks: predicted from configurations",
        "networks": {"denoiser": "dream", "mine": "judge"},
        "machine": "none: nothing is measured",
        "settings": json.loads(base.to_json()),
        "seeds": [3, 1],
        "commit": commit(),
        "versions": versions(),
    }


def test_a_card_is_full_at_nine_tenths(two, monkeypatch):
    networks = [dry.Known.of(name) for name in TWO]
    forecast = dry.Forecast(*networks, "float32", "float32", 1, dry.Assumed(1, 1, 9))
    for card in dry.CARDS:
        for more, fits in ((0, True), (1, False)):
            peak = int(0.9 * card * 2**30) + more
            monkeypatch.setattr(
                dry.Forecast, "memory", lambda self, *case, peak=peak: SimpleNamespace(peak=peak)
            )
            assert forecast.fits(1, 1, 1, card) is fits
    rows = forecast.rows(1, [8, 4])  # one answer each: the first row is not there twice
    cases = [(row["prompts"], row["trajectories"], row["new_tokens"]) for row in rows]
    assert cases == [(prompts, 1, N) for prompts in (1, 2, 4, 8, 16) for N in (8, 4)]


def test_a_dry_plan_counts_with_what_is_done_in_parts(offline, tmp_path):
    def peak(*words):
        text = dry_plan("--batch-size", "4", "--json", tmp_path / "memory.json", *words)
        found = json.loads((tmp_path / "memory.json").read_text(encoding="utf-8"))
        (table,) = found["tables"].values()
        rows = table["rows"]
        assert ("Times do not count" in text) == bool(words)
        assert found["vocabulary_batch"] == (int(words[-1]) if words else None)
        return next(
            row["peak_gib"]
            for row in rows
            if (row["prompts"], row["trajectories"], row["new_tokens"]) == (4, 4, 128)
        )

    whole, table = peak(), 16 * 128 * 152_064 * 4 / 2**30
    parted = peak("--reward-micro-batch", "4", "--vocabulary-batch", "64")
    assert whole - 6 * table < parted < whole - 3 * table


def test_a_dry_plan_counts_the_logits_that_are_held_under_origin(offline, tmp_path):
    def peaks(order):
        dry_plan("--order", order, "--json", tmp_path / "memory.json")
        (table,) = json.loads((tmp_path / "memory.json").read_text(encoding="utf-8"))[
            "tables"
        ].values()
        return {
            (r["prompts"] * r["trajectories"], r["new_tokens"]): r["peak_gib"]
            for r in table["rows"]
        }

    held, plain = peaks("origin"), peaks("entropy")
    assert held[1, 128] == plain[1, 128]  # one trajectory skips its empty steps
    for S in (4, 16):
        assert held[S, 64] - plain[S, 64] == pytest.approx(S * 64 * 152_064 * 2 / 2**30)


def test_a_file_is_of_a_dry_plan_alone(tmp_path):
    with pytest.raises(ValueError, match=r"json: got .* has no effect without --dry"):
        invoke("plan", "main", "--json", tmp_path / "plan.json")


def test_run_has_no_option_of_a_dry_plan():
    assert "--dry" not in invoke("run", "--help")
    assert "--dry" in invoke("plan", "--help")


def test_what_a_run_would_refuse_a_dry_plan_refuses(tmp_path):
    folder = tmp_path / "Qwen3-0.6B-diffusion-bd3lm-v0.1"
    shutil.copytree(PARITY.parent / "parity-models" / "a2d-qwen3-tiny", folder)
    words = ["plan", "main", "--dry", "--denoiser", str(folder), "--reward", str(REWARD)]
    with pytest.raises(ValueError, match="no whole answer"):
        CliRunner().invoke(app, words, catch_exceptions=False)


def test_a_size_that_decides_nothing_is_refused():
    networks = ["--denoiser", str(DREAM), "--reward", str(REWARD)]
    for command in (["run", "main"], ["plan", "main"], ["plan", "main", "--dry"]):
        with pytest.raises(ValueError, match="size: got 'paper' beside --denoiser and --reward"):
            invoke(*command, *networks, "--size", "paper")


def test_what_is_fetched_is_announced_with_its_size(monkeypatch):
    """Before it is; of folders and of models that are not known nothing is said."""
    monkeypatch.setattr(start, "run", lambda *arguments, **options: 0)
    monkeypatch.setattr(benchmarks, "named", lambda *arguments: [])
    monkeypatch.setattr(start, "at_commit", lambda path, *rest: path)
    words = ["run", "main", "--device", "cpu", "--seeds", "1"]
    for more, said in (
        (
            ["--size", "small"],
            "v0.1 (about 1.5 GB) and Skywork/Skywork-Reward-V2-Qwen3-0.6B (about",
        ),
        (
            ["--denoiser", str(DREAM)],
            "Skywork/Skywork-Reward-V2-Qwen3-1.7B (about 3.4 GB): fetched",
        ),
        (["--denoiser", str(DREAM), "--reward", "someone/else"], ""),
    ):
        done = CliRunner().invoke(app, [*words, *more], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert said in done.stderr if said else done.stderr == ""
    words[1] = "reward-size"  # all of them
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    networks = (pairs.DREAM, *pairs.SKYWORK.values())
    sizes = " and ".join(f"{name} (about {pairs.GIGABYTES[name]:g} GB)" for name in networks)
    assert done.stderr.startswith(f"{sizes}: fetched from the hub")
