"""`python -m entrgi_ref.paper run`: every record once, the same whatever happens on the way."""

import inspect
import itertools
import json
import random
import re
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paper_runs
import pytest
import torch
from paper_runs import (
    PROMPTS,
    TINY_BASE,
    arguments,
    by_key,
    invoke,
    lines,
    tiny_run,
)
from safetensors.torch import save_file

from checkpoints import DREAM, REWARD, changed, pair, weights_in
from entrgi_ref import GuidanceConfig, SamplingConfig, generate
from entrgi_ref.commands import progress
from entrgi_ref.errors import GradientRecord
from entrgi_ref.models import checkpoints
from entrgi_ref.paper import __main__ as paper
from entrgi_ref.paper.declared import methods, published
from entrgi_ref.paper.declared.benchmarks import Benchmark, load
from entrgi_ref.paper.declared.costs import Costs, gradient_steps_of
from entrgi_ref.paper.declared.experiments import Cell
from entrgi_ref.paper.declared.plan import Plan
from entrgi_ref.paper.declared.testbed import DreamTestbed, reward_paths
from entrgi_ref.paper.run import batches, estimate, runner, start
from entrgi_ref.paper.run import folder as run_folder
from entrgi_ref.paper.run.batches import Answerer, Batch
from entrgi_ref.paper.run.errors_by_prompt import ErrorsByPrompt
from entrgi_ref.paper.run.folder import RunFolder
from entrgi_ref.paper.run.records import fingerprint, key_of, read_declaration, read_records
from entrgi_ref.paper.run.runner import Runner
from entrgi_ref.paper.shown import comparable
from entrgi_ref.paper.shown.listing import listing
from tiny_testbed import FailingDenoiser, FailingReward, TinyTestbed

pytestmark = pytest.mark.xdist_group("paper_run")  # its runs are made once

KEYS = (
    "experiment benchmark method seed idx prompt responses rewards settings fingerprint commit "
    "versions device timing"
).split()


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    return paper_runs.benchmark_file(tmp_path_factory.mktemp("benchmark"))


@pytest.fixture(scope="module")
def run(tmp_path_factory, benchmark):
    """The whole of `main` on the tiny checkpoints."""
    folder = tmp_path_factory.mktemp("run") / "new" / "main"
    invoke(*arguments(benchmark, folder))
    return folder


def test_a_record_per_prompt_and_cell(run):
    records = read_records(run)
    assert all(set(KEYS) <= set(record) for record in records)
    cells = {(r["benchmark"], r["method"], r["seed"], r["idx"]) for r in records}
    methods = ("bon", "bon_equal_compute", "expectation", "aps", "entrgi")
    assert cells == {("questions", m, s, i) for m in methods for s in (1, 2) for i in range(6)}
    assert len(records) == len(cells)
    assert {r["fingerprint"] for r in records} == {read_declaration(run)["fingerprint"]}
    assert {r["device"] for r in records} == {"cpu"}
    assert {r["status"] for r in records} == {"ok"}


@pytest.mark.parametrize(
    ("method", "guidance"),
    [
        ("bon", GuidanceConfig(steps=0)),
        ("expectation", GuidanceConfig(weight="expectation")),
        ("aps", GuidanceConfig(weight="aps")),
        ("entrgi", GuidanceConfig()),
    ],
)
def test_records_are_what_generate_gives(run, benchmark, method, guidance):
    drawn = load(str(benchmark)).drawn(seed=2, count=6)
    config = SamplingConfig(guidance, 2, 8, 8, seed=2)
    expected = generate(*pair("float32"), drawn[2:4], config)
    records = [r for r in read_records(run) if r["method"] == method and r["seed"] == 2][2:4]
    assert [r["prompt"] for r in records] == drawn[2:4]
    assert [r["responses"] for r in records] == expected.responses
    assert [r["rewards"] for r in records] == expected.rewards.tolist()
    settings = records[0]["settings"]
    for name, value in json.loads(config.to_json()).items():
        if name != "guidance" or guidance.steps:
            assert settings[name] == value
    assert settings["guidance"]["steps"] == guidance.steps


def test_equal_compute_has_as_many_trajectories_as_guidance_costs(run):
    """Counted here from the networks' sizes: a backward counts as a forward, K is rounded up."""
    dream, reward = pair("float32")

    def size(network):
        return sum(p.numel() for n, p in network.named_parameters() if "embed_tokens" not in n)

    for seed in (1, 2):
        records = [r for r in read_records(run) if r["seed"] == seed]
        equal = [r for r in records if r["method"] == "bon_equal_compute"]
        tokens = [dream.encode([prompt]).tokens.shape[1] for prompt in PROMPTS]  # of all prompts
        predict = (sum(tokens) / len(tokens) + 8) * size(dream.network)
        read = 8 * size(reward.network)
        steps = 7  # of eight, as the first commits nothing
        ratio = (steps * (predict + 6 * read) + read) / (steps * predict + read)
        assert {len(r["rewards"]) for r in equal} == {-int(-2 * ratio // 1)}
        assert {r["settings"]["guidance"]["steps"] for r in equal} == {0}


def test_a_finished_run_is_left_as_it_is(run, benchmark):
    before = lines(run)
    output = invoke(*arguments(benchmark, run))
    assert "60 of 60 prompts are done already" in output
    assert "60 prompts in" in output
    assert lines(run) == before


def test_another_setting_is_refused_in_the_same_folder(run, benchmark):
    with pytest.raises(ValueError, match="another run") as error:
        invoke(*arguments(benchmark, run, "--top-p", "0.9", "--dtype", "float64"))
    for part in ("settings.top_p: 0.95 there, 0.9 here", "dtype: 'float32' there, 'float64' here"):
        assert part in str(error.value)


def test_more_seeds_and_methods_may_be_added(tmp_path):
    tiny_run(tmp_path, methods=["bon"])
    tiny_run(tmp_path, methods=["entrgi"], seeds=[1, 2])
    assert len(by_key(tmp_path)) == 15


def test_every_option_reaches_the_settings(tmp_path, benchmark):
    options = (
        "--step-size 0.25 --gradient-steps 1 --temperature 0.9 --top-p 0.8 --order anchor "
        "--trajectories 3 --new-tokens 5 --denoising-steps 7 --prompts 1 --seeds 4 "
        "--methods aps --authors --unmatched zero --dtype float64 --optimiser sgd"
    ).split()
    invoke(*arguments(benchmark, tmp_path, *options))
    (record,) = read_records(tmp_path)
    guidance = GuidanceConfig("aps", 1, 0.25, dtype="float64", optimiser="sgd")
    config = SamplingConfig(guidance, 3, 5, 7, temperature=0.9, top_p=0.8, order="anchor", seed=4)
    for name, value in json.loads(SamplingConfig.authors(config).to_json()).items():
        assert record["settings"][name] == value
    declared = read_declaration(tmp_path)
    assert (declared["dtype"], declared["unmatched"]) == ("float64", "zero")
    assert declared["settings"]["write_every_id"] is True


FAST = ("--methods", "bon,entrgi", "--dtype", "float64")


@pytest.fixture(scope="module")
def exact(tmp_path_factory, benchmark):
    folder = tmp_path_factory.mktemp("exact")
    invoke(*arguments(benchmark, folder, *FAST))
    return folder


@pytest.mark.slow
def test_killed_three_times_and_started_again(tmp_path, benchmark, exact):
    moments, kills = random.Random(0), 0
    words = arguments(benchmark, tmp_path, *FAST)
    while kills < 3:
        process = paper_runs.fork(words)
        before = len(lines(tmp_path)) if tmp_path.joinpath("records").exists() else 0
        wanted = before + moments.randint(1, 5)
        while process.is_alive():  # until some more records are there, then some time more
            time.sleep(0.02)
            done = [f.read_bytes() for f in (tmp_path / "records").glob("*.jsonl")]
            if sum(data.count(b"\n") for data in done) >= wanted:
                time.sleep(moments.uniform(0, 0.3))
                process.kill()
                break
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        assert process.exitcode in (-signal.SIGKILL, 0)
        if process.exitcode == 0:
            break
    assert kills == 3
    invoke(*words)
    assert by_key(tmp_path) == by_key(exact)


def answers(folder):
    return {
        (r["method"], r["seed"], r["idx"]): (r["prompt"], r["responses"], r["settings"])
        for r in by_key(folder).values()
    }


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3, "auto"])
def test_answers_do_not_depend_on_the_batch_size(tmp_path, benchmark, exact, size):
    invoke(*arguments(benchmark, tmp_path, *FAST, "--batch-size", size))
    assert answers(tmp_path) == answers(exact)
    rewards = {key: r["rewards"] for key, r in by_key(tmp_path).items()}
    for key, record in by_key(exact).items():
        assert rewards[key] == pytest.approx(record["rewards"], abs=1e-9)


@pytest.mark.parametrize("size", [1, "auto"])
def test_answers_of_tiny_networks_do_not_depend_on_the_batch_size(tmp_path, size):
    tiny_run(tmp_path / "one")
    tiny_run(tmp_path / "other", batch_size=size)
    assert answers(tmp_path / "one") == answers(tmp_path / "other")


@pytest.mark.slow
def test_two_processes_of_torchrun_share_the_work(tmp_path, benchmark, exact):
    launcher = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
    process = paper_runs.start(arguments(benchmark, tmp_path, *FAST), launcher)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert output.count("24 prompts in") == 1  # one of them speaks
    assert answers(tmp_path) == answers(exact)
    assert len(list((tmp_path / "records").glob("*.jsonl"))) == 2


@pytest.mark.slow
def test_a_process_that_dies_costs_only_its_batch(tmp_path, benchmark, exact):
    """Two processes, each started by itself; one is killed with a batch in hand."""
    words = arguments(benchmark, tmp_path, *FAST)
    victim = paper_runs.fork(words)
    while not any((tmp_path / "records").glob("*.jsonl")) and victim.is_alive():
        time.sleep(0.02)
    survivor = paper_runs.fork(words)
    victim.kill()
    victim.join()
    survivor.join(timeout=240)
    assert (victim.exitcode, survivor.exitcode) == (-signal.SIGKILL, 0)
    assert by_key(tmp_path) == by_key(exact)


def test_a_prompt_that_fails_is_recorded_and_the_run_goes_on(tmp_path):
    testbed = TinyTestbed(judge=FailingReward(2, dislikes=("333",)))
    said = tiny_run(tmp_path / "run", testbed)
    good = TinyTestbed()
    tiny_run(tmp_path / "good", good)
    found, expected = by_key(tmp_path / "run"), by_key(tmp_path / "good")
    assert set(found) == set(expected)
    for key, record in found.items():
        if record["prompt"] == "333":
            assert record["status"] == "failed"
            assert "reward of the finished answer is not finite" in record["reason"]
            assert (record["responses"], record["rewards"]) == ([], [])
        else:  # also those that shared a batch with it
            assert record["responses"] == expected[key]["responses"]
    assert sum("tried one by one" in message for message in said) == 2


def test_an_over_long_prompt_fails_alone_and_the_exit_code_says_so(tmp_path):
    path = tmp_path / "long.jsonl"
    rows = ["explain entropy", "why " * 3000, "hello"]
    path.write_text("".join(json.dumps({"prompt": row}) + "\n" for row in rows))
    words = arguments(path, tmp_path / "run", "--methods", "bon", "--seeds", "1")
    output = invoke(*words, code=1)
    records = read_records(tmp_path / "run")
    failed = [record for record in records if record["status"] == "failed"]
    assert [record["prompt"] for record in failed] == ["why " * 3000]
    assert "positions" in failed[0]["reason"]
    assert "3 prompts in" in output
    assert "1 of them failed" in output
    report = invoke("report", tmp_path / "run")
    assert "1 prompt failed and is left out" in report
    words[0] = "plan"  # the calibration takes prompts that can be answered
    words[words.index("--out") + 1] = str(tmp_path / "new")
    assert "forward passes" in invoke(*words)
    path.write_text(json.dumps({"prompt": rows[1]}))
    with pytest.raises(ValueError, match=r"none can be answered, .*positions"):
        invoke(*words)
    path.write_text("".join(json.dumps({"prompt": row}) + "\n" for row in rows))
    words[0], words[words.index("--out") + 1] = "run", str(tmp_path / "run")
    assert invoke(*words, code=1).count("1 of them failed") == 1  # still so, but not tried again


def test_a_network_that_does_not_load_is_nobodys_fault(tmp_path, benchmark):
    """It ends the run at once instead of failing prompt by prompt."""
    words = arguments(benchmark, tmp_path / "run")
    words[words.index(str(REWARD))] = f"broken={tmp_path}"
    with pytest.raises(ValueError, match=r"config\.json"):
        invoke(*words)
    assert not (tmp_path / "run" / "run.json").exists()
    words[words.index(f"broken={tmp_path}")] = str(REWARD)
    with pytest.raises(ValueError, match=r"unmatched: got 'none'"):
        invoke(*words, "--unmatched", "none")
    assert not (tmp_path / "run" / "run.json").exists()  # the next try is not another run
    testbed = TinyTestbed()
    testbed.reward = lambda name: (_ for _ in ()).throw(ValueError("no weights"))
    with pytest.raises(ValueError, match="no weights"):
        tiny_run(tmp_path / "tiny", testbed)
    assert lines(tmp_path / "tiny") == []


def test_nor_is_one_of_another_size(tmp_path):
    class Lacking(TinyTestbed):
        def reward(self, name):
            if name == "small":
                raise ValueError("no weights of this size")
            return super().reward(name)

    plan = Plan.of("reward-size", TINY_BASE, [1], 2, 2, ["bon"])
    with pytest.raises(ValueError, match="no weights of this size"):
        start.run(plan, Lacking(), tmp_path, print)
    assert {record["status"] for record in lines(tmp_path)} <= {"ok"}


def test_networks_that_do_not_fit_are_one_clear_line(tmp_path, benchmark, monkeypatch):
    def full(*words, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    for network in ("DenoiserCheckpoint", "RewardCheckpoint"):
        with monkeypatch.context() as patch:
            patch.setattr(f"entrgi_ref.models.{network}.load", full)
            with pytest.raises(ValueError, match="out of memory: the networks do not fit"):
                invoke(*arguments(benchmark, tmp_path / "run"))
    assert list((tmp_path / "run").iterdir()) == []


def test_a_lost_device_ends_the_run(tmp_path):
    """At once: its prompts are not tried one by one."""
    asked = []

    class Lost(FailingDenoiser):
        def __call__(self, *inputs):
            asked.append(inputs)
            raise torch.AcceleratorError("CUDA error: an illegal memory access")

    with pytest.raises(torch.AcceleratorError):
        tiny_run(tmp_path, TinyTestbed(denoise=Lost(1)))
    assert lines(tmp_path) == []
    assert len(asked) == 1


def test_out_of_memory_halves_the_batch_and_goes_on(tmp_path):
    denoiser = FailingDenoiser(1)
    denoiser.most_rows = 4  # two prompts of two trajectories
    said = tiny_run(tmp_path / "auto", TinyTestbed(denoise=denoiser), batch_size="auto")
    tiny_run(tmp_path / "plain")
    assert [m for m in said if "out of memory" in m] == [
        "out of memory with 5 prompts, going on with 2",  # of bon, and then of entrgi
        "out of memory with 5 prompts, going on with 2",
    ]
    assert {k: r["responses"] for k, r in by_key(tmp_path / "auto").items()} == {
        k: r["responses"] for k, r in by_key(tmp_path / "plain").items()
    }
    denoiser.most_rows = 1
    tiny_run(tmp_path / "none", TinyTestbed(denoise=denoiser), batch_size="auto", methods=["bon"])
    assert {r["status"] for r in lines(tmp_path / "none")} == {"failed"}
    assert all("out of memory" in r["reason"] for r in lines(tmp_path / "none"))


def test_all_sizes_and_all_numbers_of_steps(tmp_path):
    testbed = TinyTestbed()
    tiny_run(tmp_path / "a", testbed, experiment="reward-size", prompts=1)
    variants = {(r["method"], r["settings"]["reward"]) for r in lines(tmp_path / "a")}
    assert variants == {(m, s) for m in ("bon", "entrgi") for s in ("small", "large")}
    tiny_run(
        tmp_path / "b", testbed, experiment="gradient-steps", prompts=1, methods=["entrgi", "aps"]
    )
    steps = {
        (r["settings"]["guidance"]["steps"], r["variant"]["reward"]) for r in lines(tmp_path / "b")
    }
    assert steps == {(M, s) for M in (1, 2, 3, 4, 6, 8) for s in ("small", "large")}


def test_a_run_in_the_middle_of_a_batch_writes_what_is_missing(tmp_path):
    tiny_run(tmp_path / "whole", batch_size=5)
    tiny_run(tmp_path / "cut", batch_size=5)
    (file,) = (tmp_path / "cut" / "records").glob("*.jsonl")
    kept = file.read_text().splitlines(keepends=True)
    file.write_text("".join(kept[:3]))
    tiny_run(tmp_path / "cut", batch_size=5)
    assert by_key(tmp_path / "cut") == by_key(tmp_path / "whole")


def test_failed_prompts_can_be_tried_again(tmp_path):
    tiny_run(tmp_path, TinyTestbed(judge=FailingReward(2, dislikes=("22",))))
    tiny_run(tmp_path)
    assert sum(r["status"] == "failed" for r in read_records(tmp_path)) == 2
    tiny_run(tmp_path, retry_failed=True)
    assert {r["status"] for r in read_records(tmp_path)} == {"ok"}
    assert len(read_records(tmp_path)) == 10


def test_what_a_record_says_of_errors_is_what_the_observer_saw(tmp_path):
    """Figures 2 and 3 are drawn from these: computed here from the observer's own records."""
    testbed = TinyTestbed()
    tiny_run(tmp_path, testbed, experiment="error-by-step", methods=["entrgi"], batch_size=3)
    record = read_records(tmp_path)[1]
    seen = []
    config = SamplingConfig(GuidanceConfig(steps=1, dtype="float64"), 2, 4, 4, seed=1)
    generate(testbed.denoise, testbed.judge, [record["prompt"]], config, observe=seen.append)
    steps = record["errors"]["steps"]
    assert [step["step"] for step in steps] == [s.step for s in seen]
    for written, step in zip(steps, seen, strict=True):
        assert written["E"] == pytest.approx(step.E.mean().item(), abs=1e-12)
        assert written["entropy"] == pytest.approx(step.entropy.mean().item(), abs=1e-12)
        assert written["n"] == step.E.numel()
    histogram = record["errors"]["histogram"]
    E, H = (torch.cat([getattr(s, n).flatten() for s in seen]).numpy() for n in ("E", "entropy"))
    edges = [np.array(histogram[name]) for name in ("entropy_edges", "error_edges")]
    expected, *_ = np.histogram2d(H, E, bins=edges)
    assert np.array_equal(np.array(histogram["counts"]), expected)


@pytest.mark.parametrize(
    ("names", "base", "rows"),
    [
        (["bon", "entrgi", "damped"], {}, None),
        (["entrgi"], {"new_tokens": 6, "denoising_steps": 3}, 2),
        (["bon"], {"new_tokens": 3, "denoising_steps": 9}, None),  # some steps commit nothing
        (["entrgi"], {"order": "origin"}, None),
    ],
)
def test_what_a_record_says_of_its_tokens_is_what_an_observer_sees(tmp_path, names, base, rows):
    testbed = TinyTestbed(vocabulary_batch=rows)
    base = replace(TINY_BASE, **base)
    tiny_run(tmp_path, testbed, base=base, methods=names, prompts=3, batch_size=2)
    records = read_records(tmp_path)
    assert len(records) == 3 * len(names)
    for record in records:
        method, seen = methods.Method.recorded(record), []
        method.answer(testbed.denoise, testbed.judge, [record["prompt"]], observe=seen.append)
        steps = torch.full_like(seen[-1].tokens, -1)
        for step in seen:
            steps[step.committed] = step.step
        assert record["written"]["steps"] == steps.tolist()
        assert record["written"]["words"] == [
            list(map(str, answer)) for answer in seen[-1].tokens.tolist()
        ]


def test_answers_without_a_schedule_to_see_say_nothing_of_their_tokens(tmp_path):
    tiny_run(
        tmp_path,
        TinyTestbed(judge=FailingReward(2, dislikes=("22",))),
        methods=["bon", "smc", "self_smc", "lookahead"],
    )
    for record in read_records(tmp_path):
        seen = record["method"] == "bon" and record["prompt"] != "22"
        assert (record["written"] is not None) == seen
        assert (record["status"] == "failed") == (record["prompt"] == "22")


def test_noting_steps_has_no_errors_computed(tmp_path, monkeypatch):
    """They are distances at every gradient step, which an observer of `generate` would cost."""
    monkeypatch.setattr(GradientRecord, "of", None)
    tiny_run(tmp_path, methods=["entrgi"])
    assert all(record["written"] for record in read_records(tmp_path))


def test_plan_counts_the_work(run, benchmark, tmp_path):
    words = arguments(benchmark, tmp_path / "none")
    words[0] = "plan"
    output = invoke(*words)
    assert "10 cells, 60 prompts in 30 batches" in output
    assert "210 forward passes of the mask predictor" in output  # 30 batches x 7 steps
    assert "378 forward and as many backward passes" in output  # 18 batches x 7 steps x 3
    assert "on one cpu" in output
    assert not (tmp_path / "none").exists()
    words[words.index("--out") + 1] = str(run)
    assert "nothing is left to do" in invoke(*words)
    with pytest.raises(ValueError, match="another run"):
        invoke(*words, "--top-p", "0.9")


def test_list_says_what_there_is_and_how_far_it_is(run, tmp_path):
    output = invoke("list", run)
    for name in ("main", "error-by-step", "error-vs-entropy", "reward-size", "gradient-steps"):
        assert f"\n{name} " in f"\n{output}"
    assert "60 prompts done, 0 failed" in output
    assert "questions bon_equal_compute, seed 2: 6 of 6" in output
    (tmp_path / "run.json").write_text("{")
    output = invoke("list", tmp_path, run)
    assert "cannot be read: " in output
    assert "60 prompts done, 0 failed" in output


def test_list_knows_how_many_prompts_there_are(tmp_path):
    tiny_run(tmp_path, prompts=64, asked=True)
    assert "digits bon, seed 1: 5 of 5" in listing([tmp_path])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "mian"], "experiment: got 'mian'.*did you mean 'main'"),
        (["run", "main", "--methods", "ep"], "methods: got 'ep'"),
        (["run", "main", "--seeds", "1,x"], "seeds: got '1,x'"),
        (["run", "main", "--seeds", "1,1"], "seeds: got"),
        (["run", "main", "--seeds", "1,-1"], "seeds: got -1"),
        (["run", "main", "--seeds", str(2**63)], f"seeds: got {2**63}"),
        (["run", "main", "--gradient-steps", "-1"], "gradient_steps: got -1"),
        (["run", "error-by-step", "--gradient-steps", "0"], "gradient_steps: got 0"),
        (["run", "main", "--prompts", "0"], "prompts: got 0"),
        (
            ["run", "main", "--vocabulary-batch", str(2**63)],
            f"vocabulary_batch: got {2**63}, expect",
        ),
        (["run", "main", "--batch-size", "many"], "batch_size: got 'many'"),
        (["run", "main", "--temperature", "0"], "temperature: got 0"),
        (["run", "main", "--benchmark", "rmbench"], "benchmark.*did you mean 'rm-bench'"),
        (["run", "main", "--benchmark", "nowhere.jsonl"], "no file nowhere.jsonl"),
        (["report", "nowhere"], "nowhere is no run folder"),
        (["export", "nowhere"], "nowhere is no run folder"),
        (["judge", "nowhere", "--backend", "x"], "nowhere is no run folder"),
    ],
)
def test_bad_input_is_one_clear_line(words, message):
    with pytest.raises(ValueError, match=message):
        invoke(*words)


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(run, benchmark, tmp_path, monkeypatch):
    output = invoke(*arguments(benchmark, tmp_path, "--methods", "bon", "--seeds", "1"))
    assert "6 of 6 prompts: questions bon seed 1, Top@1 " in output
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    done = iter([1, 3])  # another process has written one
    with progress.Progress(4, lambda: next(done), loud=True) as bar:
        bar(read_records(run)[0])
        assert bar.bar.n == 3
        assert "Top@1" in bar.bar.postfix


def test_what_others_have_done_counts_in_the_time_left(run, monkeypatch, capsys):
    clock = iter([0.0, 30.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    done = iter([10, 16])
    with progress.Progress(20, lambda: next(done), loud=True) as bar:
        bar(read_records(run)[0])
    said = capsys.readouterr().err
    assert "10 of 20 prompts are done already" in said
    assert "16 of 20 prompts: " in said
    assert ", 20 s left" in said


def test_gradient_steps_may_be_chosen(tmp_path):
    for experiment, expected in (("main", {2}), ("gradient-steps", {2})):
        plan = Plan.of(experiment, TINY_BASE, [1], 1, 1, ["entrgi"], gradient_steps=2)
        testbed = TinyTestbed()
        found = {plan.settings(testbed, cell).guidance.steps for cell in plan.cells(testbed)}
        assert found == expected
    plain = Plan.of("gradient-steps", TINY_BASE, [1], 1, 1, ["entrgi"])
    assert plan.declaration(TinyTestbed()) == plain.declaration(TinyTestbed())
    assert len(plain.asked(TinyTestbed())["variants"]) == 2 * 6


def test_each_process_of_torchrun_has_its_own_gpu(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "7")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert start.local_device("auto") == "cuda:3"
    assert start.local_device("cuda:2") == "cuda:2"
    monkeypatch.delenv("LOCAL_RANK")
    assert start.local_device("auto") == "auto"
    monkeypatch.setenv("LOCAL_RANK", "7")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert start.local_device("auto") == "auto"


def test_the_main_reward_is_the_one_called_so_or_the_first():
    assert DreamTestbed("dream", reward_paths([]), []).main_reward == "1.7B"
    assert DreamTestbed("dream", reward_paths(["z=1", "a=2"]), []).main_reward == "z"


def test_each_cell_gets_the_reward_model_that_it_asks_for(tmp_path):
    """One is held at a time, with the settings of the run."""
    other = changed(REWARD, tmp_path)
    weights = weights_in(other / "model.safetensors")
    weights["score.weight"] = -weights["score.weight"]
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    paths = {"one": str(REWARD), "other": str(other)}
    testbed = DreamTestbed(str(DREAM), paths, [], "float64", "cpu", "zero")
    one = testbed.reward("one")
    assert testbed.reward("one") is one
    found, opposite = (testbed.reward(name).score(["why"], ["so"]) for name in ("one", "other"))
    assert found == -opposite != 0
    assert testbed.reward("one") is not one
    assert found.dtype == torch.float64
    assert one.embeddings[383:].abs().max() == 0  # unmatched
    declared = testbed.declaration
    assert (declared["dtype"], declared["unmatched"]) == ("float64", "zero")
    automatic = DreamTestbed(str(DREAM), paths, [], requested_device="cpu").declaration
    assert automatic["dtype"] == "float32"  # what it means here, not what was said


def test_paths_do_not_count_but_contents_do(tmp_path, monkeypatch):
    copy = Path(shutil.copytree(DREAM, tmp_path / DREAM.name))
    assert checkpoints.identity(copy) == checkpoints.identity(DREAM)
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert checkpoints.identity(copy) != checkpoints.identity(DREAM)
    monkeypatch.setattr(checkpoints, "SAMPLED", 64)  # its size, beginning and end, if it is large
    known = checkpoints.identity(DREAM)
    for place in (0, -1):
        changed_there = bytearray((DREAM / "model.safetensors").read_bytes())
        changed_there[place] ^= 1
        weights.write_bytes(changed_there)
        assert checkpoints.identity(copy) != known
    weights.write_bytes((DREAM / "model.safetensors").read_bytes())
    assert checkpoints.identity(copy) == known
    assert checkpoints.identity(REWARD)["name"] == "reward-tiny"
    cached = tmp_path / "models--Dream-org--Dream-v0" / "snapshots" / "abc123"
    cached.mkdir(parents=True)
    assert checkpoints.identity(cached) == {"name": "Dream-org/Dream-v0", "commit": "abc123"}


def test_prompts_are_those_of_the_benchmark(benchmark):
    assert sorted(load(str(benchmark)).prompts) == sorted(PROMPTS)


def plan_of(name="main", base=TINY_BASE, seeds=(1,), prompts=4, methods=("bon", "entrgi")):
    return Plan.of(name, base, list(seeds), prompts, 2, methods)


def test_cells_come_seed_by_seed_and_one_reward_model_after_another():
    """A run that is stopped early has something of each; loading a model takes long."""
    plan = plan_of("gradient-steps", seeds=(5, 2), methods=())
    cells = list(plan.cells(TinyTestbed()))
    assert len(cells) == 2 * 2 * 6 * 3
    order = [(cell.seed, cell.variant["reward"]) for cell in cells]
    expected = [(5, "small"), (5, "large"), (2, "small"), (2, "large")]
    assert [key for key, _ in itertools.groupby(order)] == expected


def test_a_benchmark_is_done_by_all_methods_before_the_next():
    """Methods are compared on the same prompts: of a run that is stopped early, on what is done."""
    testbed = TinyTestbed(rewards=("only",), main_reward="only")
    two = SimpleNamespace(
        rewards=testbed.rewards,
        main_reward=testbed.main_reward,
        benchmarks=[Benchmark("one", ("1",), ""), Benchmark("two", ("2",), "")],
    )
    cells = plan_of(seeds=(1, 2)).cells(two)
    assert [(cell.seed, cell.benchmark, cell.method) for cell in cells] == list(
        itertools.product((1, 2), ("one", "two"), ("bon", "entrgi"))
    )


def test_another_batch_size_is_another_run(tmp_path):
    """Which prompts share a batch decides the rounding of their rewards."""
    tiny_run(tmp_path, batch_size=2)
    with pytest.raises(ValueError, match="batch_size: 2 there, 3 here"):
        tiny_run(tmp_path, batch_size=3)


def test_a_batch_that_is_taken_is_held_until_its_lock_is_closed(tmp_path):
    plan, testbed = plan_of(methods=["bon"]), TinyTestbed()
    ours, theirs = (RunFolder(tmp_path, plan.declaration(testbed)) for _ in range(2))
    taken = Runner(plan, testbed, ours, print).take()

    def free(batch):
        with theirs.lock(repr(batch.keys[0])) as held:
            return held

    first, lock = next(taken)
    second, other = next(taken)
    assert [free(first), free(second)] == [False, False]
    lock.close()
    assert [free(first), free(second)] == [True, False]
    other.close()
    assert free(second)
    ours.close()
    theirs.close()


def test_what_another_process_has_just_done_is_not_done_again(tmp_path):
    plan, testbed = plan_of(), TinyTestbed()
    folders = [RunFolder(tmp_path, plan.declaration(testbed)) for _ in range(2)]
    first, second = (Runner(plan, testbed, folder, print) for folder in folders)
    taken = second.take()
    _, lock = next(taken)
    lock.close()
    first.run()  # all of them, also those that the second one believes to be missing
    testbed.denoise.calls = 0
    assert list(taken) == []
    assert testbed.denoise.calls == 0
    assert len(by_key(tmp_path)) == 8
    for folder in folders:
        folder.close()


def test_out_of_memory_on_a_cpu_is_known_too(tmp_path):
    class Full(FailingDenoiser):
        def __call__(self, tokens, valid, masked):
            if len(tokens) > 4:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return super().__call__(tokens, valid, masked)

    options = {"batch_size": "auto", "methods": ["bon"], "seeds": [1, 2]}
    said = tiny_run(tmp_path, TinyTestbed(denoise=Full(1)), **options)
    assert said == ["out of memory with 5 prompts, going on with 2"]  # and not at each seed
    assert {r["status"] for r in lines(tmp_path)} == {"ok"}


def test_only_what_was_asked_for_is_counted(tmp_path):
    bad = TinyTestbed(judge=FailingReward(2, dislikes=("22",)), prompts=("1", "22"))
    said = []
    assert start.run(plan_of(seeds=[1]), bad, tmp_path, said.append) == 2
    assert start.run(plan_of(seeds=[2]), bad, tmp_path, said.append) == 2
    good = TinyTestbed(prompts=("1", "22"))
    assert start.run(plan_of(seeds=[3]), good, tmp_path, said.append) == 0
    assert f"4 prompts in {tmp_path}, 0 of them failed" in said


def test_the_time_left_is_by_what_has_been_done_since_the_start(monkeypatch, capsys):
    clock, done = iter([100.0, 110.0]), [7]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    record = {"benchmark": "b", "method": "bon", "variant": {}, "seed": 1, "rewards": [1.0, 3.0]}
    with progress.Progress(10, lambda: done[0], loud=True) as bar:
        done[0] += 1
        bar(record)
    assert "8 of 10 prompts: b bon seed 1, Top@1 3.00, 20 s left" in capsys.readouterr().err


def test_the_plans_time_is_that_of_its_steps(tmp_path, monkeypatch):
    base = replace(TINY_BASE, guidance=replace(TINY_BASE.guidance, steps=3))
    now, steps = [0.0], len(gradient_steps_of(base))

    def takes_its_time(denoiser, reward, prompts, config, **options):
        now[0] += 40 + config.denoising_steps * (10 + 20 * config.guidance.steps)

    monkeypatch.setattr(estimate, "generate", takes_its_time)
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: now[0])
    text = estimate.estimate(plan_of(base=base), TinyTestbed(), tmp_path)
    seconds = 4 * 40 + 2 * steps * 10 + 2 * steps * (10 + 3 * 20)  # two batches of each method
    assert f"about {progress.duration(seconds)} on one cpu" in text
    assert progress.duration(45) == "45 s"
    assert progress.duration(720) == "12 min"
    assert progress.duration(3.5 * 3600) == "3.5 h"


def test_one_process_of_all_nodes_speaks(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("RANK", "8")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert start.rank() == 8
    tiny_run(tmp_path, methods=["bon"])
    start.run(plan_of(prompts=5, methods=["bon"]), TinyTestbed(), tmp_path, print)
    assert capfd.readouterr() == ("", "")
    monkeypatch.delenv("RANK")
    assert start.rank() == 0


def test_what_is_off_the_scale_is_in_the_last_bin(as_users_run_it):
    errors = ErrorsByPrompt(2, 2, torch.eye(4))
    masked = torch.tensor([[True], [False], [False], [True]])
    step = {"E": torch.tensor([[100.0, 0.0]]), "entropy": torch.tensor([[9.0, 0.0]])}
    errors(SimpleNamespace(step=0, masked=masked, **step))
    first, second = (np.array(errors.of(i)["histogram"]["counts"]) for i in range(2))
    assert first.shape == (40, 40)
    assert (first.sum(), first[-1, -1]) == (1, 1)
    assert (second.sum(), second[0, 0]) == (1, 1)
    below = {"E": torch.tensor([[0.0, -9.0]]), "entropy": torch.tensor([[0.0, -9.0]])}
    errors(SimpleNamespace(step=1, masked=masked, **below))  # by rounding, say
    second = np.array(errors.of(1)["histogram"]["counts"])
    assert (second.sum(), second[0, 0]) == (2, 2)


def test_what_was_seen_of_each_prompt_is_counted_in_its_bins(as_users_run_it):
    """By NumPy, of random numbers at steps at which prompts have as many positions as they like."""
    numbers = np.random.default_rng(0)
    embeddings = numbers.normal(size=(7, 3)).astype(np.float32)
    largest, P, K = 2 * np.sort(np.linalg.norm(embeddings, axis=1))[3], 3, 2
    errors, seen = ErrorsByPrompt(P, K, torch.tensor(embeddings)), {p: [] for p in range(P)}
    for step, positions in enumerate(((2, 0, 1), (0, 1, 3), (4, 4, 4))):
        masked = np.zeros((P * K, 4), dtype=bool)
        for p, n in enumerate(positions):
            masked[p * K : (p + 1) * K].flat[:n] = True
        E, H = numbers.uniform(0, [[[largest]], [[np.log(7)]]], size=(2, 5, masked.sum()))
        seen_step = {"E": torch.tensor(E), "entropy": torch.tensor(H)}
        errors(SimpleNamespace(step=step, masked=torch.tensor(masked), **seen_step))
        prompt = np.repeat(range(P), positions)
        for p in range(P):
            seen[p].append((E[:, prompt == p].flatten(), H[:, prompt == p].flatten()))
    for p in range(P):
        found = errors.of(p)
        assert found["log_vocabulary"] == pytest.approx(np.log(7))
        assert [(step["step"], step["n"]) for step in found["steps"]] == [
            (i, len(E)) for i, (E, _) in enumerate(seen[p]) if len(E)
        ]
        for step in found["steps"]:
            E, H = seen[p][step["step"]]
            assert (step["E"], step["entropy"]) == pytest.approx((E.mean(), H.mean()))
        edges = [np.linspace(0, top, 41) for top in (np.log(7), largest)]
        histogram = found["histogram"]
        for name, expected in zip(("entropy_edges", "error_edges"), edges, strict=True):
            assert histogram[name] == pytest.approx(expected)
        E, H = map(np.concatenate, zip(*seen[p], strict=True))
        expected, *_ = np.histogram2d(H, E, bins=edges)
        assert np.array_equal(histogram["counts"], expected)


@pytest.mark.parametrize("known", [2, 0])
def test_the_scale_of_errors_is_that_of_the_tokens_that_a_reward_model_has(as_users_run_it, known):
    """`--unmatched zero` may leave most rows without an embedding."""
    embeddings = torch.zeros(9, 3)
    embeddings[:known] = torch.tensor([[0.0, 3.0, 4.0], [6.0, 0.0, 8.0]])[:known]
    errors, largest = ErrorsByPrompt(1, 1, embeddings), 10.0 if known else 1.0
    step = {"E": torch.tensor([[0.0, 0.51 * largest]]), "entropy": torch.zeros(1, 2)}
    errors(SimpleNamespace(step=0, masked=torch.ones(1, 2, dtype=torch.bool), **step))
    histogram = errors.of(0)["histogram"]
    assert histogram["error_edges"] == pytest.approx(np.linspace(0, largest, 41).tolist())
    assert np.transpose(np.nonzero(histogram["counts"])).tolist() == [[0, 0], [0, 20]]


def test_one_pair_of_numbers_is_enough_for_a_mean(as_users_run_it):
    errors = ErrorsByPrompt(2, 1, torch.eye(4))
    one = {"E": torch.tensor([[0.5]]), "entropy": torch.tensor([[0.25]])}
    errors(SimpleNamespace(step=3, masked=torch.tensor([[False], [True]]), **one))
    assert errors.of(0)["steps"] == []
    assert errors.of(1)["steps"] == [{"step": 3, "E": 0.5, "entropy": 0.25, "n": 1}]


def test_the_defaults_of_the_command_line_are_the_papers():
    """And those of the package, which the report compares a run's settings with."""
    from entrgi_ref.commands import answer as single

    config = SamplingConfig()
    guidance = {"gradient_steps": config.guidance.steps, "step_size": config.guidance.step_size}
    guidance |= {"optimiser": config.guidance.optimiser}
    names = ("trajectories", "new_tokens", "temperature", "top_p", "order")
    expected = guidance | {name: getattr(config, name) for name in names}
    expected |= {"denoising_steps": None, "unmatched": "eos", "authors": False, "dtype": "auto"}
    own = {"seeds": "1,2,3", "prompts": 64, "batch_size": "4", "size": "paper"}
    own |= {"gradient_steps": None}  # the experiment's
    commands_of = {c.name or c.callback.__name__: c.callback for c in paper.app.registered_commands}
    for command, more in (
        (single.answer, {"method": config.guidance.weight}),
        (commands_of["run"], own),
        (commands_of["plan"], own),
    ):
        found = {n: p.default for n, p in inspect.signature(command).parameters.items()}
        for name, value in (expected | more | {"device": "auto"}).items():
            assert found[name] == value, name
    theirs = asdict(config.authors())
    assert theirs == comparable.AUTHORS
    assert {name: theirs[name] for name in names} == {n: getattr(config, n) for n in names}
    assert (published.PROMPTS, published.SEEDS) == (64, (1, 2, 3))
    assert published.DREAM == "Dream-org/Dream-v0-Instruct-7B"
    assert published.SKYWORK["1.7B"] == "Skywork/Skywork-Reward-V2-Qwen3-1.7B"


def test_polling_is_patient():
    assert runner.POLL_SECONDS >= 1


# A folder that grows


def test_more_prompts_may_be_added(tmp_path):
    """The shuffle is nested: the prompts of a small run are the first of a large one's."""
    tiny_run(tmp_path / "grown", prompts=3, asked=True)
    tiny_run(tmp_path / "grown", prompts=5, asked=True)
    tiny_run(tmp_path / "whole", prompts=5, asked=True)
    grown, whole = by_key(tmp_path / "grown"), by_key(tmp_path / "whole")
    assert {k: r["responses"] for k, r in grown.items()} == {
        k: r["responses"] for k, r in whole.items()
    }
    for key, record in whole.items():
        assert grown[key]["rewards"] == pytest.approx(record["rewards"], abs=1e-9)
    tiny_run(tmp_path / "grown", prompts=2, asked=True)  # nothing is lost by asking for less
    assert len(by_key(tmp_path / "grown")) == 10
    assert "digits bon, seed 1: 5 of 5" in listing([tmp_path / "grown"])


def test_equal_compute_does_not_depend_on_how_many_prompts_are_asked_for():
    class ByLength(TinyTestbed):
        def costs(self, reward, prompts, new_tokens):
            return Costs(denoiser=sum(map(len, prompts)) / len(prompts), reward=1.0)

    testbed = ByLength()
    for n in (1, 5):
        plan = plan_of(prompts=n, methods=["bon_equal_compute"])
        (cell,) = plan.cells(testbed)
        assert plan.settings(testbed, cell).trajectories == 4


# Failing early


def test_a_run_in_which_nothing_works_ends_soon(tmp_path):
    prompts = tuple("1" * n for n in range(1, 31))
    testbed = TinyTestbed(prompts=prompts, judge=FailingReward(2, dislikes=prompts))
    with pytest.raises(ValueError, match=r"the last 16 all failed, .*not finite.*-after 0"):
        start.run(plan_of(prompts=30), testbed, tmp_path / "a", print)
    assert len(lines(tmp_path / "a")) == 16
    with pytest.raises(ValueError, match="the last 3 all failed"):
        start.run(plan_of(prompts=30), testbed, tmp_path / "b", print, give_up_after=3)
    few = plan_of(prompts=18, methods=["bon"])
    assert start.run(few, testbed, tmp_path / "c", print, give_up_after=0) == 18
    with pytest.raises(ValueError, match="give_up_after: got -1"):
        start.run(plan_of(prompts=30), testbed, tmp_path / "d", print, give_up_after=-1)


def test_one_success_in_between_is_enough(tmp_path):
    prompts = tuple("1" * n for n in range(1, 31))
    drawn = Benchmark("digits", prompts, "").drawn(1, 30)
    bad = tuple(prompt for i, prompt in enumerate(drawn) if i % 5)
    testbed = TinyTestbed(prompts=prompts, judge=FailingReward(2, dislikes=bad))
    plan = plan_of(prompts=30, methods=["bon"])
    assert start.run(plan, testbed, tmp_path, print, give_up_after=5) == 24


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--reward": "/nonexistent"}, "no folder '/nonexistent'"),
        ({"--unmatched": "foo"}, "unmatched: got 'foo'"),
        ({"--out": "{file}"}, "out: cannot write to .*file"),
        ({"--out": "/proc/nothing"}, "out: cannot write to /proc/nothing"),
        ({"--dtype": "float8"}, "dtype: got 'float8'"),
        ({"--device": "mps"}, "device: got 'mps'"),
        ({"--dtype": "float16", "--authors": None}, "dtype: got 'float16' with --authors"),
    ],
)
def test_what_can_be_known_is_checked_before_weights_are_loaded(
    tmp_path, benchmark, monkeypatch, change, message
):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(checkpoints, "load", lambda *a, **k: pytest.fail("weights are loaded"))
    words = arguments(benchmark, tmp_path / "run")
    for name, value in change.items():
        value = [] if value is None else [value.format(file=tmp_path / "file")]
        if name in words:
            words[words.index(name) + 1] = value[0]
        else:
            words += [name, *value]
    with pytest.raises(ValueError, match=message):
        invoke(*words)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize("name", ["--dream", "--reward"])
def test_an_answer_that_never_fits_is_known_before_weights_are_loaded(
    tmp_path, benchmark, monkeypatch, command, name
):
    monkeypatch.setattr(checkpoints, "load", lambda *a, **k: pytest.fail("weights are loaded"))
    source = DREAM if name == "--dream" else REWARD
    folder = changed(source, tmp_path, config={"max_position_embeddings": 40})
    words = arguments(benchmark, tmp_path / "run", "--new-tokens", "40")
    words[words.index(name) + 1] = str(folder)
    with pytest.raises(ValueError, match="has 40; shorten the prompt or lower new_tokens"):
        invoke(command, *words[1:])
    assert not (tmp_path / "run" / "run.json").exists()


def test_plan_looks_at_all_reward_models_before_weights_are_loaded(
    tmp_path, benchmark, monkeypatch
):
    monkeypatch.setattr(checkpoints, "load", lambda *a, **k: pytest.fail("weights are loaded"))
    words = arguments(benchmark, tmp_path, "--reward", "/nonexistent", experiment="reward-size")
    with pytest.raises(ValueError, match="no folder '/nonexistent'"):
        invoke("plan", *words[1:])


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_ctrl_c_while_weights_are_loaded_is_one_line(tmp_path, benchmark, monkeypatch, capfd, kind):
    """Of whatever kind the error is that a library makes of it."""

    def stops(*arguments, **options):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            if kind is KeyboardInterrupt:
                raise
            raise kind("thread interrupted") from error

    monkeypatch.setattr(checkpoints, "load", stops)
    words = arguments(benchmark, tmp_path / "run")
    monkeypatch.setattr(sys, "argv", ["entrgi_ref.paper", *words])
    with pytest.raises(SystemExit) as stop:
        paper.main()
    assert stop.value.code == 130
    last = capfd.readouterr().err.splitlines()[-1]
    assert last == f"stopped: nothing new has been written to {tmp_path / 'run'}"


def test_ctrl_c_inside_of_a_library_is_no_failed_prompt(tmp_path, monkeypatch):
    def stops(*arguments, **options):
        raise ValueError("closed") from KeyboardInterrupt()

    monkeypatch.setattr(methods, "generate", stops)
    with pytest.raises(ValueError, match="closed"):
        tiny_run(tmp_path)
    assert read_records(tmp_path) == []


def test_a_reward_model_is_called_by_its_name_without_the_revision():
    paths = ["o/reward@main", f"{published.SKYWORK['4B']}@main", "b=o/other@v1"]
    assert reward_paths(paths) == {"reward": paths[0], "4B": paths[1], "b": "o/other@v1"}


def test_float16_may_not_be_guided_but_may_be_drawn_from(tmp_path, benchmark):
    words = arguments(benchmark, tmp_path / "run", "--dtype", "float16", "--authors")
    words += ["--seeds", "1"]
    invoke(*words, "--methods", "bon", "--prompts", "2")
    assert len(read_records(tmp_path / "run")) == 2
    with pytest.raises(ValueError, match="dtype: got 'float16' with --authors"):
        invoke(*words, "--methods", "bon,entrgi")


def test_only_the_reward_models_that_are_used_are_fetched(tmp_path, benchmark, monkeypatch):
    """`main` uses one of the paper's three."""
    asked = []

    def fetch(hub_id, revision, allow_patterns):
        asked.append(hub_id)
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    for experiment, sizes in (("main", {"1.7B"}), ("reward-size", {"0.6B", "1.7B", "4B"})):
        words = arguments(benchmark, tmp_path / "run", experiment=experiment)
        where = words.index("--reward")
        del words[where : where + 2]
        asked.clear()
        with pytest.raises(ValueError, match="could not be fetched"):
            invoke(*words)
        assert set(asked) <= {published.SKYWORK[size] for size in sizes}
        assert asked


def test_models_are_pinned_to_the_commits_that_a_run_began_with(tmp_path, benchmark, monkeypatch):
    """A new commit on the hub, such as an edit of a README, must not end a run."""
    hub, newest, asked = tmp_path / "hub", ["a" * 40], []

    def fetch(hub_id, revision, allow_patterns):
        asked.append((hub_id, revision))
        commit = revision if revision and len(revision) == 40 else newest[0]
        source = DREAM if "dream" in hub_id else REWARD
        folder = hub / f"models--{hub_id.replace('/', '--')}" / "snapshots" / commit
        if not folder.exists():
            shutil.copytree(source, folder)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    words = arguments(benchmark, tmp_path / "run", "--methods", "bon", "--seeds", "1")
    words[words.index(str(DREAM))], words[words.index(str(REWARD))] = "o/dream", "o/reward"
    invoke(*words)
    declared = read_declaration(tmp_path / "run")
    assert declared["denoiser"] == {"name": "o/dream", "commit": "a" * 40}
    newest[0] = "b" * 40
    asked.clear()
    invoke(*words, "--seeds", "1,2")
    assert {revision for _, revision in asked} == {"a" * 40}
    assert len(read_records(tmp_path / "run")) == 12
    branches = [f"{word}@main" if word in ("o/dream", "o/reward") else word for word in words]
    asked.clear()
    said = invoke(*branches)
    assert {revision for _, revision in asked} == {"a" * 40}
    for hub_id in ("o/dream", "o/reward"):
        assert f"{hub_id}: going on with the commit {'a' * 40}, as begun" in said
    words[words.index("o/dream")] = f"o/dream@{'b' * 40}"  # another one on purpose
    with pytest.raises(ValueError, match=r"another run.*denoiser\.commit"):
        invoke(*words)


# What is said on the way


def test_lines_count_what_their_cell_has_reached(tmp_path, capsys):
    """The first record of a cell is written before the line of the cell before it."""
    start.run(plan_of(seeds=[1, 2]), TinyTestbed(), tmp_path, print)
    said = capsys.readouterr().err
    found = [line.partition(",")[0] for line in said.splitlines() if " prompts: " in line]
    assert found == [
        "4 of 16 prompts: digits bon seed 1",
        "8 of 16 prompts: digits entrgi seed 1",
        "12 of 16 prompts: digits bon seed 2",
        "16 of 16 prompts: digits entrgi seed 2",
    ]
    start.run(plan_of(seeds=[3]), TinyTestbed(), tmp_path, print)  # others do not count
    said = capsys.readouterr().err
    found = [line.partition(",")[0] for line in said.splitlines() if " prompts: " in line]
    assert found == ["4 of 8 prompts: digits bon seed 3", "8 of 8 prompts: digits entrgi seed 3"]


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(tmp_path, monkeypatch, capfd, benchmark):
    words = arguments(benchmark, tmp_path, "--methods", "bon", "--seeds", "1")
    original, calls = methods.generate, []

    def stops(*arguments, **options):
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(methods, "generate", stops)
    monkeypatch.setattr(sys, "argv", ["entrgi_ref.paper", *words])
    with pytest.raises(SystemExit) as stop:
        paper.main()
    assert stop.value.code == 130
    said = capfd.readouterr().err
    expected = f"stopped: 4 of 6 prompts are kept in {tmp_path}; the same command goes on"
    assert said.splitlines()[-1] == expected
    monkeypatch.setattr(methods, "generate", original)
    invoke(*words)
    assert len(by_key(tmp_path)) == 6


def test_a_repaired_run_computes_again_what_was_taken_out(tmp_path):
    tiny_run(tmp_path / "run")
    whole = by_key(tmp_path / "run")
    (file,) = (tmp_path / "run" / "records").glob("*.jsonl")
    rows = file.read_bytes().splitlines(keepends=True)
    rows[3] = b"\0" * 40 + b"\n"
    other = json.loads(rows[5]) | {"fingerprint": "another run's", "rewards": [99.0, 99.0]}
    rows[5] = json.dumps(other).encode() + b"\n"
    file.write_bytes(b"".join(rows))
    for command in ("report", "list"):
        if command == "report":
            with pytest.raises(ValueError, match=r"line 4: it is not JSON"):
                invoke("report", tmp_path / "run")
        else:
            assert "line 4: it is not JSON" in invoke("list", tmp_path / "run")
    output = invoke("repair", tmp_path / "run")
    assert re.search(r"line 4: it is not JSON.*\n.*line 6: it is of another run", output)
    assert "2 lines taken out" in output
    assert invoke("repair", tmp_path / "run") == "ok\n"
    tiny_run(tmp_path / "run")
    assert by_key(tmp_path / "run") == whole


@pytest.mark.slow
def test_options_of_speed_reach_the_networks_and_change_no_record(
    benchmark, tmp_path, exact, monkeypatch
):
    """In float64: the same answers and rewards with the reward model and with the vocabulary in
    parts, of the first batch; the layers compiled are all of them. And `run.json` is the same, so
    that a run can go on with other options.
    """
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    parts = ("--reward-micro-batch", "3", "--vocabulary-batch", "10")
    first = ("--prompts", "2", "--seeds", "1")
    invoke(*arguments(benchmark, tmp_path, *FAST), *parts, *first, "--compile")
    assert len(compiled) == 2  # layers
    found, expected = (
        {key_of(r): (r["responses"], r["rewards"]) for r in read_records(folder)}
        for folder in (tmp_path, exact)
    )
    assert len(found) == 2 * 2
    for key, (texts, rewards) in found.items():
        assert texts == expected[key][0]
        assert rewards == pytest.approx(expected[key][1], rel=1e-9)
    one, other = ((folder / "run.json").read_text() for folder in (tmp_path, exact))
    assert json.loads(one)["settings"] == json.loads(other)["settings"]
    with pytest.raises(ValueError, match="cuda_graphs: got True on cpu"):
        invoke(*arguments(benchmark, tmp_path / "graphs", *FAST), "--cuda-graphs")
    words = arguments(benchmark, tmp_path / "none", *FAST)
    assert "--vocabulary-batch" in invoke(*words, "--vocabulary-batch", "0", code=2)


# Piece by piece, without a run


CELL = Cell("main", "digits", "bon", {"reward": "large"}, 1)


def test_a_batch_knows_its_records():
    part = Batch(CELL, 4, ("a", "b", "c", "d")).part(1, 2)
    assert part == Batch(CELL, 5, ("b", "c"))
    assert part.identity(1) == {
        "experiment": "main",
        "benchmark": "digits",
        "method": "bon",
        "variant": {"reward": "large"},
        "seed": 1,
        "idx": 6,
    }
    assert part.keys == [("main", "digits", "bon", '{"reward": "large"}', 1, i) for i in (5, 6)]


@pytest.mark.parametrize(
    ("size", "sizes"), [("auto", [16, 16, 1]), (20, [20, 13]), (33, [33]), (40, [33])]
)
def test_batches_are_of_prompts_next_to_each_other(size, sizes):
    prompts = tuple(map(str, range(1, 34)))
    testbed, plan = TinyTestbed(prompts=prompts), Plan.of("main", TINY_BASE, [1], 64, size, ["bon"])
    found = batches.batches(plan, testbed)
    assert [len(batch.prompts) for batch in found] == sizes
    assert [batch.start for batch in found] == [sum(sizes[:i]) for i in range(len(sizes))]
    drawn = Benchmark("digits", prompts, "").drawn(1, 33)
    assert [prompt for batch in found for prompt in batch.prompts] == drawn


def answering(testbed, batch_size=5):
    """What computes records, the first batch, and what it says."""
    plan, said = Plan.of("main", TINY_BASE, [1], 5, batch_size, ["bon"]), []
    return Answerer(plan, testbed, said.append), batches.batches(plan, testbed)[0], said


def test_records_come_in_order_whatever_fails_or_does_not_fit(monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    denoiser = FailingDenoiser(1)
    denoiser.most_rows = 4  # two prompts of two trajectories
    testbed = TinyTestbed(denoise=denoiser, judge=FailingReward(2, dislikes=("4444",)))
    answerer, batch, said = answering(testbed)
    records = list(answerer.records(batch))
    assert [record["idx"] for record in records] == [0, 1, 2, 3, 4]
    assert [record["prompt"] for record in records] == list(batch.prompts)
    failed = [record["prompt"] for record in records if record["status"] == "failed"]
    assert failed == ["4444"]
    assert said[0] == "out of memory with 5 prompts, going on with 2"
    assert [line.partition(":")[0] for line in said[1:]] == (
        ["a batch failed, its prompts are tried one by one", "failed"]
        if batch.prompts.index("4444") < 4
        else ["failed"]
    )
    assert emptied == [1]  # not for what merely failed


def test_what_fits_is_known_of_a_cell_whatever_its_seed():
    """Another benchmark may have shorter prompts."""
    denoiser = FailingDenoiser(1)
    denoiser.most_rows = 4  # two prompts of two trajectories
    answerer, batch, said = answering(TinyTestbed(denoise=denoiser))
    heard = {}
    for name, other in (("first", {}), ("seed", {"seed": 2}), ("benchmark", {"benchmark": "b"})):
        list(answerer.records(replace(batch, cell=replace(batch.cell, **other))))
        heard[name] = [*said]
        said.clear()
    halved = ["out of memory with 5 prompts, going on with 2"]
    assert heard == {"first": halved, "seed": [], "benchmark": halved}


def test_the_rest_of_a_batch_is_halved_by_its_own_size():
    """Its prompts may be longer than those before."""
    denoiser = FailingDenoiser(1)
    denoiser.most_rows = 8  # four prompts of two trajectories
    testbed, said = TinyTestbed(prompts=tuple(map(str, range(10, 24))), denoise=denoiser), []
    plan = Plan.of("main", TINY_BASE, [1], 14, 8, ["bon"])
    answerer = Answerer(plan, testbed, said.append)
    first, rest = batches.batches(plan, testbed)
    assert len(list(answerer.records(first))) == 8
    records = answerer.records(rest)
    whole = [next(records) for _ in range(4)]
    denoiser.most_rows = 2
    whole += records
    assert [record["status"] for record in whole] == ["ok"] * 6
    assert said == [
        "out of memory with 8 prompts, going on with 4",
        "out of memory with 2 prompts, going on with 1",
    ]


@pytest.mark.parametrize("rows", [None, 3])
def test_a_testbed_says_how_many_positions_are_guided_at_a_time(tmp_path, monkeypatch, rows):
    asked, generate_ = [], methods.generate

    def noted(*given, **options):
        asked.append(options["vocabulary_batch"])
        return generate_(*given, **options)

    monkeypatch.setattr(methods, "generate", noted)
    tiny_run(tmp_path, TinyTestbed(vocabulary_batch=rows, device=f"a GPU, {rows}"), prompts=1)
    assert asked == [rows, rows]
    assert [record["device"] for record in lines(tmp_path)] == [f"a GPU, {rows}"] * 2


def test_a_failure_without_words_is_called_by_its_kind():
    class Mute(FailingDenoiser):
        def __call__(self, *inputs):
            raise ZeroDivisionError

    class Wordy(FailingDenoiser):
        def __call__(self, *inputs):
            raise ZeroDivisionError("of\n  two lines")

    for denoiser, reason in ((Mute(1), "ZeroDivisionError"), (Wordy(1), "of two lines")):
        answerer, batch, said = answering(TinyTestbed(denoise=denoiser), batch_size=2)
        first, second = answerer.records(batch)
        assert (first["idx"], first["prompt"]) == (0, batch.prompts[0])
        assert (second["idx"], second["prompt"]) == (1, batch.prompts[1])
        empty = {"responses": [], "rewards": [], "errors": None, "written": None, "timing": {}}
        expected = {"status": "failed", "reason": reason, **empty}
        assert {name: second[name] for name in expected} == expected
        assert "gold" not in second
        assert said == [
            f"a batch failed, its prompts are tried one by one: {reason}",
            *[f"failed: {reason}"] * 2,
        ]


def test_an_answer_has_its_share_of_the_time_and_its_gold_score(monkeypatch):
    class Golden(TinyTestbed):
        def gold(self, prompt, response):
            return float(len(prompt))

    clock = iter([10.0, 13.0, 20.0, 26.0])
    monkeypatch.setattr(batches, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    for testbed, seconds in ((Golden(), 1.5), (TinyTestbed(), 3.0)):
        answerer, batch, _ = answering(testbed, batch_size=2)
        for record in answerer.records(batch):
            assert record["timing"] == {"seconds_per_prompt": seconds}
            gold = [float(len(record["prompt"]))] * 2 if isinstance(testbed, Golden) else None
            assert record.get("gold") == gold
            assert (record["errors"], record["reason"]) == (None, None)


def test_a_run_takes_over_the_batch_of_a_process_that_has_died(tmp_path, monkeypatch):
    """It looks again and again, and does all others before."""
    plan, testbed = plan_of(methods=["bon"]), TinyTestbed()
    ours, theirs = (RunFolder(tmp_path, plan.declaration(testbed)) for _ in range(2))
    first, _ = batches.batches(plan, testbed)
    slept = []
    with ExitStack() as lock:
        assert lock.enter_context(theirs.lock(repr(first.keys[0])))

        def sleep(seconds):
            slept.append((seconds, len(ours.done)))
            if len(slept) == 2:
                lock.close()

        monkeypatch.setattr(runner, "time", SimpleNamespace(sleep=sleep))
        Runner(plan, testbed, ours, print).run()
    assert slept == [(runner.POLL_SECONDS, 2)] * 2
    assert len(by_key(tmp_path)) == 4


@pytest.mark.parametrize(
    ("give_up_after", "statuses", "ends"),
    [
        (2, "F.F.F.", None),
        (2, ".FF", 2),
        (2, "FF..", 1),
        (1, "..F.", 2),
        (3, "FF.FF.FFF", 8),
        (0, ".FFFF.", None),
    ],
)
def test_so_many_failures_in_a_row_end_a_run(give_up_after, statuses, ends):
    """Of records that are new: what others have written is none of it, and is not shown again."""
    identity = {"experiment": "e", "benchmark": "b", "method": "m", "variant": {}, "seed": 1}
    records = [
        {**identity, "idx": i, "status": {"F": "failed"}.get(one, "ok"), "reason": f"of {i}"}
        for i, one in enumerate(statuses)
    ]
    known = [record | {"idx": -1 - record["idx"], "status": "failed"} for record in records]
    folder, seen = SimpleNamespace(done={key_of(record) for record in known}), []
    folder.write = lambda record: folder.done.add(key_of(record))
    run = Runner(None, None, folder, print, seen.append, give_up_after)
    if ends is None:
        run.write([*known, *records])
        assert seen == records
        return
    message = (
        f"prompts: the last {give_up_after} all failed, so the run ends here; the last because "
        f"of: of {ends} (--give-up-after 0 would go on)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        run.write([*known, *records])
    assert seen == records[: ends + 1]


@pytest.mark.parametrize("n", [0, 5, 6])
def test_the_first_five_failures_are_named_and_the_others_counted(tmp_path, n):
    prompts = tuple(map(str, range(1, 9)))
    drawn = Benchmark("digits", prompts, "").drawn(1, 8)
    testbed, said = TinyTestbed(prompts=prompts), []
    testbed.judge = FailingReward(2, dislikes=tuple(drawn[:n]))
    assert start.run(plan_of(prompts=8, methods=["bon"]), testbed, tmp_path, said.append) == n
    reasons = [record["reason"] for record in read_records(tmp_path)]
    assert said == [
        f"8 prompts in {tmp_path}, {n} of them failed",
        *(f"  digits, bon, seed 1, prompt {i}: {reasons[i]}" for i in range(min(n, 5))),
        *([f"  and {n - 5} more"] if n > 5 else []),
    ]


def test_failures_are_tried_again_and_other_code_goes_on_only_where_it_is_said(
    tmp_path, monkeypatch
):
    """Neither allows the other."""
    plan, prompts = plan_of(methods=["bon"]), ("1", "22")
    bad = TinyTestbed(judge=FailingReward(2, dislikes=("22",)), prompts=prompts)
    good = TinyTestbed(prompts=prompts)
    assert start.run(plan, bad, tmp_path, print) == 1
    assert start.run(plan, good, tmp_path, print, other_version=True) == 1
    monkeypatch.setattr(run_folder, "made_with", lambda: {"commit": "another"})
    with pytest.raises(ValueError, match="was made with other code"):
        start.run(plan, good, tmp_path, print, retry_failed=True)
    assert start.run(plan, good, tmp_path, print, other_version=True, retry_failed=True) == 0


def test_a_finished_run_loads_no_reward_model(tmp_path):
    testbed = TinyTestbed()
    for loads in (1, 0):
        testbed.loads = 0
        start.run(plan_of(methods=["bon"]), testbed, tmp_path, print)
        assert (testbed.loads > 0) == loads


def test_with_a_cluster_its_actors_load_and_compute(tmp_path, monkeypatch):
    """A process that only writes loads nothing. Actors load at the start of a new run only."""
    calls = []

    class Actors:
        def __init__(self, *given):
            calls.append(given)

        def __enter__(self):
            calls.append("enter")

        def __exit__(self, *error):
            calls.append("exit")

        def load(self):
            assert not (tmp_path / "run.json").exists()
            calls.append("load")

        def run(self, runner):
            calls.append("run")

    monkeypatch.setattr(start, "Actors", Actors)
    plan, testbed, cluster = plan_of(methods=["bon"]), TinyTestbed(), object()
    for expected in (["enter", "load", "run", "exit"], ["enter", "run", "exit"]):
        calls.clear()
        assert start.run(plan, testbed, tmp_path, print, cluster=cluster) == 0
        assert calls == [(cluster, plan, testbed), *expected]
    assert testbed.loads == 0


@pytest.mark.parametrize(("rank", "heard"), [(None, "so\n"), ("0", "so\n"), ("1", "")])
def test_one_process_announces(monkeypatch, capsys, rank, heard):
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    start.announce("so")
    assert capsys.readouterr() == ("", heard)


@pytest.mark.parametrize("found", ["", "x", "-1", "²", "1" * 5000])
def test_the_number_of_a_process_is_one(monkeypatch, found):
    monkeypatch.setenv("RANK", found)
    with pytest.raises(ValueError, match=r"^RANK: got '[^ ]{0,40} in the environment, expected a"):
        start.rank()


def test_a_run_remembers_the_commits_of_all_its_models(tmp_path):
    assert start.pinned_models(tmp_path) == {}
    parts = [{"name": "o/part", "commit": "c", "weight": 1.0}, {"name": "p", "weight": 2.0}]
    parts += [{"name": "o/other", "commit": "d", "weight": 1.0}]
    declared = {
        "experiment": "main",
        "testbed": "toy",
        "denoiser": {"name": "o/dream", "commit": "a"},
        "settings": {"guidance": {}},
        "rewards": {"one": {"name": "o/one", "commit": "b"}, "sum": {"name": "s", "parts": parts}},
        "main_reward": "one",
        "benchmarks": {},
    }
    for denoiser, more in ((declared["denoiser"], {"o/dream": "a"}), ("the commit's", {})):
        contents = declared | {"denoiser": denoiser}
        written = {"fingerprint": fingerprint(contents), **contents}
        (tmp_path / "run.json").write_text(json.dumps(written))
        known = {"o/one": "b", "o/part": "c", "o/other": "d"}
        assert start.pinned_models(tmp_path) == {**more, **known}


@pytest.mark.parametrize(
    ("path", "at"),
    [
        ("o/one", "o/one@new"),
        ("o/one@main", "o/one@new"),
        (f"o/one@{'a' * 39}", "o/one@new"),
        (f"o/one@{'a' * 40}", None),
        (f"o/one@{'a' * 41}", "o/one@new"),
        ("o/other", None),
        ("o/here", None),
        (f"o/here@{'a' * 40}", None),
    ],
)
def test_a_model_is_taken_at_the_commit_that_a_run_began_with(tmp_path, monkeypatch, path, at):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "o" / "here").mkdir(parents=True)
    said = []
    found = start.at_commit(path, {"o/one": "new", "o/here": "new"}, said.append)
    assert found == (at or path)
    assert said == ["o/one: going on with the commit new, as begun"] * (at is not None)
