"""The command `plan`: what a run would take, beside what it takes."""

import random
import re
import time
from dataclasses import dataclass, field, replace

import pytest
import torch
from paper_runs import TINY_BASE, FailingDenoiser, FailingReward, TinyTestbed, tiny_run

from entrgi_ref.paper.declared.benchmarks import Benchmark
from entrgi_ref.paper.declared.costs import Costs
from entrgi_ref.paper.declared.plan import Plan
from entrgi_ref.paper.run import estimate
from tiny import _Bound

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

    def __getattr__(self, name):
        return getattr(self.network, name)

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


@pytest.mark.parametrize("prompts", [UNEVEN, MIXED])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_the_time_is_that_of_a_run_with_prompts_of_all_lengths(
    tmp_path, monkeypatch, batch_size, prompts
):
    _, seconds = planned(monkeypatch, Timed(prompts), tmp_path, batch_size=batch_size)
    real = taken(Timed(prompts), tmp_path, batch_size=batch_size)
    assert seconds == pytest.approx(real, rel=0.05)


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

    def seen(denoiser, reward, prompts, config):
        steps.append(config.constant_guidance.steps)
        return real(denoiser, reward, prompts, config)

    monkeypatch.setattr(estimate, "generate", seen)
    planned(monkeypatch, Timed(("1", "2")), tmp_path)
    assert set(steps) == {0, 2}
    steps.clear()
    planned(monkeypatch, Timed(("1", "2")), tmp_path, base=BASE.guided(steps=1))
    assert set(steps) == {0, 1}


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
