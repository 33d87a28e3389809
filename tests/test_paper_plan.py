"""The command `plan`: what a run would take, beside what it takes."""

import json
import random
import re
import shutil
import time
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
import torch
from paper_runs import TINY_BASE, invoke, tiny_run
from typer.testing import CliRunner

from checkpoints import DREAM, PARITY, REWARD
from entrgi_ref.commands import pairs
from entrgi_ref.models import checkpoints
from entrgi_ref.paper.__main__ import app
from entrgi_ref.paper.declared import benchmarks, published
from entrgi_ref.paper.declared.benchmarks import Benchmark
from entrgi_ref.paper.declared.costs import Costs
from entrgi_ref.paper.declared.plan import Plan
from entrgi_ref.paper.declared.shapes import Sizes
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
    for size, path in published.SKYWORK.items():
        sizes = Sizes.of(published.SHAPES[path])
        assert round(sizes.as_reward / 1e9, 1) == float(size[:-1])
        assert sizes.in_layers / 1e9 == pytest.approx(beside[size], abs=0.05)
    dream = Sizes.of(published.SHAPES[published.DREAM])
    assert dream.as_denoiser / 1e9 == pytest.approx(7.62, abs=0.01)
    assert dream.in_layers / 1e9 == pytest.approx(6.53, abs=0.01)


def test_time_is_operations_and_bytes_over_the_assumed_rates(offline):
    def forecast(tflops, bandwidth, M=3):
        networks = [dry.Known.of(path) for path in (published.DREAM, published.SKYWORK["1.7B"])]
        return dry.Forecast(*networks, "bfloat16", "float32", M, dry.Assumed(tflops, bandwidth, 99))

    networks, tables = forecast(100, 1000).seconds(16, 128)
    assert forecast(50, 500).seconds(16, 128) == pytest.approx((2 * networks, 2 * tables))
    unguided, _ = forecast(100, 1000, M=0).seconds(16, 128)
    by_hand = 2 * 6.53e9 * 16 * 227 + 2 * 16 * 64.5 * 152_064 * 3584
    assert unguided == pytest.approx(by_hand / 1e14, rel=0.02)


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
