"""`python -m entrgi_ref`: one prompt, on the tiny checkpoints; and what the paper's commands hand
on.
"""

import errno
import json
import os
import re
import resource
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import typer
from typer.testing import CliRunner

from checkpoints import DREAM, REWARD, changed, of_words, pair
from entrgi_ref import GuidanceConfig, SamplingConfig, __main__, denoising, generate
from entrgi_ref.__main__ import app
from entrgi_ref.commands import pairs
from entrgi_ref.commands.files import write_text
from entrgi_ref.models import causal, checkpoints
from entrgi_ref.paper import __main__ as paper
from entrgi_ref.paper.declared import benchmarks
from entrgi_ref.paper.declared.plan import Plan
from entrgi_ref.paper.declared.testbed import DreamTestbed
from entrgi_ref.paper.judged import backends, judging
from entrgi_ref.paper.judged.judge import UNIT_TESTS
from entrgi_ref.paper.measured import command
from entrgi_ref.paper.run import dry, estimate, folder, records, start
from entrgi_ref.paper.run.cluster import Cluster
from entrgi_ref.paper.shown import browse, export, listing, report
from entrgi_ref.watching import printable

PROMPT = "explain how entropy sets the weight"
TINY = ["--dream", str(DREAM), "--reward", str(REWARD), "--new-tokens", "6", "--device", "cpu"]


def invoke(*arguments):
    done = CliRunner().invoke(app, [PROMPT, *TINY, *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_every_option_reaches_the_settings(tmp_path):
    invoke(
        *("--method aps --denoising-steps 12 --gradient-steps 2 --step-size 0.25".split()),
        *("--temperature 0.9 --top-p 0.8 --trajectories 3 --order maskgit_plus --seed 7".split()),
        *("--dtype float64 --unmatched zero --authors --optimiser sgd".split()),
        *("--vocabulary-batch", "4"),
        *("--out", str(tmp_path / "new" / "out")),
    )
    written = json.loads((tmp_path / "new" / "out" / "answers.json").read_text(encoding="utf-8"))
    config = SamplingConfig(
        guidance=GuidanceConfig(weight="aps", steps=2, step_size=0.25, optimiser="sgd"),
        trajectories=3,
        new_tokens=6,
        denoising_steps=12,
        temperature=0.9,
        top_p=0.8,
        order="maskgit_plus",
        seed=7,
    ).authors()
    assert written["settings"] == json.loads(config.to_json())
    denoiser, reward = pair("float64", unmatched="zero")
    expected = generate(denoiser, reward, [PROMPT], config)
    assert written["responses"] == expected.responses[0]
    assert written["rewards"] == pytest.approx(expected.rewards[0].tolist())


def test_the_reward_model_may_read_some_trajectories_at_a_time(monkeypatch):
    read = []

    def counted(function, some, *given, **options):
        read.append(len(some.embedded))
        return function(some, *given)

    monkeypatch.setattr(causal, "checkpoint", counted)
    few = ("--trajectories", "3", "--new-tokens", "4")
    whole = invoke(*few)
    assert read == []
    assert invoke(*few, "--reward-micro-batch", "2") == whole
    assert set(read) == {2, 1}


def test_prints_every_reward_and_the_best_answer(tmp_path):
    output = invoke("--out", str(tmp_path))
    written = json.loads((tmp_path / "answers.json").read_text(encoding="utf-8"))
    assert written["settings"]["denoising_steps"] == 6
    printed = re.findall(r"^ *([+-]\d+\.\d\d)(\*?) ", output, re.MULTILINE)
    assert [float(value) for value, _ in printed] == [round(r, 2) for r in written["rewards"]]
    best = max(range(4), key=written["rewards"].__getitem__)
    assert [bool(star) for _, star in printed] == [k == best for k in range(4)]
    assert f"Top@1 {max(written['rewards']):+.2f}" in output


def test_the_best_answer_is_printed_and_shown_wherever_it_stands(tmp_path):
    for seed in range(9):
        output = invoke("--out", str(tmp_path), "--seed", str(seed))
        written = json.loads((tmp_path / "answers.json").read_text(encoding="utf-8"))
        best = max(range(4), key=written["rewards"].__getitem__)
        if best > 0:
            break
    assert best > 0
    expected = "".join(f"{printable(s)}\n" for s in written["responses"][best].splitlines())
    assert output.partition("(entrgi)\n\n")[2].partition("\nWritten:")[0] == expected
    page = (tmp_path / "trace.html").read_text(encoding="utf-8")
    panels = json.loads(re.search(r"= (\{\"prompt\".*\});", page)[1])["panels"]
    shown = panels[1]["results"]["reward of the answer"]
    assert shown == f"{max(written['rewards']):.2f}"


def test_trace_page_is_unguided_beside_guided(tmp_path):
    invoke("--out", str(tmp_path))
    page = (tmp_path / "trace.html").read_text(encoding="utf-8")
    panels = json.loads(re.search(r"= (\{\"prompt\".*\});", page)[1])["panels"]
    assert [panel["title"] for panel in panels] == ["Unguided", "Guided: entrgi"]
    for panel, steps in zip(panels, (0, 3), strict=True):
        assert len(panel["frames"]) == 6  # the first of six steps commits nothing; the answer
        assert all(len(f["rewards"]) == steps for f in panel["frames"][:-1])
        assert None not in panel["frames"][-1]["tokens"]
    assert "http" not in re.sub(r'"http://www\.w3\.org/[^"]*"', "", page)


def test_watch_shows_each_step():
    output = invoke("--watch", "--method", "bon")
    lines = re.findall(r"^ +(\d+)  t [\d.]+  (.*)   R unguided$", output, re.MULTILINE)
    assert [int(step) for step, _ in lines] == [2, 3, 4, 5, 6]
    assert all(character.isprintable() for _, line in lines for character in line)


# What is known before the weights are loaded


def main(monkeypatch, *arguments, prompt=PROMPT):
    """The command as a process runs it: its exit code."""
    monkeypatch.setattr(sys, "argv", ["entrgi_ref", prompt, *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        __main__.main()
    return stop.value.code


NETWORKS = ("--dream", DREAM, "--device", "cpu", "--reward")


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ([*NETWORKS, "/nonexistent"], "no folder '/nonexistent'"),
        ([*NETWORKS, "{no_weights}"], "has no weights"),
        ([*NETWORKS, "{cut}"], "weights of .* do not load"),
        ([*NETWORKS, "{lacking}"], r"lacks the shards model-2\.safetensors"),
        ([*NETWORKS, "{foreign}"], "vocabulary: .* must match"),
        ([*NETWORKS, REWARD, "--unmatched", "foo"], "unmatched: got 'foo'"),
        ([*NETWORKS, REWARD, "--reward-adapter", "{no_weights}"], "adapter_model.safetensors"),
        ([*NETWORKS, REWARD, "--out", DREAM / "config.json" / "x"], "out: cannot write to"),
        ([*NETWORKS, REWARD, "--out", "/proc/nothing"], "out: cannot write to /proc/nothing"),
        ([*NETWORKS, REWARD, "--dtype", "float8"], "dtype: got 'float8'"),
        (
            [*NETWORKS, REWARD, "--dtype", "float16", "--authors"],
            "dtype: got 'float16' with",
        ),
        ([*NETWORKS, REWARD, "--new-tokens", "600"], "the reward model has 512|Dream has 512"),
        (
            [*NETWORKS, REWARD, "--template", "no blank"],
            "template: got 'no blank'",
        ),
        (
            [*NETWORKS, REWARD, "--template", "_", "--new-tokens", "5"],
            "new_tokens: got 5 beside",
        ),
        (
            [*NETWORKS, REWARD, "--template", "_", "--new-tokens", "128"],
            "new_tokens: got 128 beside",
        ),
        ([*NETWORKS, REWARD, "--optimiser", "adma"], "optimiser: got 'adma'.*'adam'"),
        (
            [*NETWORKS, REWARD, "--method", "bon", "--gradient-steps", "-5"],
            "gradient_steps: got -5",
        ),
        ([*NETWORKS, REWARD, "--template", "a __ <|im_end|>"], "special token '<|im_end|>'"),
    ],
)
def test_what_can_be_known_is_checked_before_weights_are_loaded(
    arguments, pattern, monkeypatch, capfd, tmp_path
):
    foreign = {f"x{i}": i for i in range(380)}
    folders = {
        "no_weights": changed(REWARD, tmp_path / "a", without=["model.safetensors"]),
        "cut": changed(REWARD, tmp_path / "b"),
        "lacking": changed(REWARD, tmp_path / "c"),
        "foreign": changed(REWARD, tmp_path / "d"),
    }
    weights = (folders["cut"] / "model.safetensors").read_bytes()
    (folders["cut"] / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    index = {"metadata": {}, "weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folders["lacking"] / "model.safetensors.index.json").write_text(json.dumps(index))
    of_words(folders["foreign"], foreign)
    monkeypatch.setattr(checkpoints, "load", lambda *a, **k: pytest.fail("weights are loaded"))
    arguments = [str(argument).format(**folders) for argument in arguments]
    assert main(monkeypatch, *arguments) == 2
    said = capfd.readouterr()
    assert re.fullmatch(r"error: .*\n", said.err), said.err
    assert re.search(pattern.replace("<|", r"<\|").replace("|>", r"\|>"), said.err), said.err
    assert said.out == ""


def test_no_folder_is_made_for_what_is_refused(monkeypatch, tmp_path):
    assert main(monkeypatch, *NETWORKS, "/nonexistent", "--out", tmp_path / "new") == 2
    assert not (tmp_path / "new").exists()


def test_float16_networks_may_be_guided_in_float32_or_not_at_all(monkeypatch, capfd):
    """Not by Adam in float16: that would end with nan, and with answers of mask tokens."""
    small = [*NETWORKS, REWARD, "--new-tokens", "4", "--trajectories", "1", "--dtype", "float16"]
    assert main(monkeypatch, *small) == 0
    assert main(monkeypatch, *small, "--authors", "--gradient-steps", "0") == 0
    assert main(monkeypatch, *small, "--authors", "--method", "bon") == 0
    assert main(monkeypatch, *small, "--authors", "--gradient-steps", "1") == 2


def test_psi_in_the_dtype_of_a_float16_denoiser_is_refused():
    denoiser, reward = pair("float16")
    config = replace(SamplingConfig(new_tokens=4, denoising_steps=4, trajectories=1).authors())
    with pytest.raises(ValueError, match=r"logits: got torch.float16, expected float32"):
        generate(denoiser, reward, [PROMPT], config)


# Infilling


def test_a_template_is_filled_in(tmp_path):
    output = CliRunner().invoke(
        app,
        [PROMPT, *map(str, NETWORKS), str(REWARD), "--template", "the ____ sat, on __.",
         "--out", str(tmp_path)],
        catch_exceptions=False,
    )  # fmt: skip
    assert output.exit_code == 0, output.output
    written = json.loads((tmp_path / "answers.json").read_text(encoding="utf-8"))
    denoiser, _ = pair("float32")
    assert written["template"] == "the ____ sat, on __."
    start = denoiser.template("the ____ sat, on __.")
    assert int((start == denoiser.mask_id).sum()) == 6
    assert written["settings"]["new_tokens"] == len(start)
    assert written["settings"]["denoising_steps"] == 6
    assert len(written["responses"]) == 4
    for response in written["responses"]:
        assert re.fullmatch(r"the.* sat, on.*\.", response, re.DOTALL), response


def test_blanks_are_underscores_that_touch_no_letter():
    denoiser, _ = pair("float32")

    def pieces(text):
        ids = denoiser.template(text).tolist()
        return "".join("_" if i == denoiser.mask_id else denoiser.decode(torch.tensor([[i]]))[0]
                       for i in ids)  # fmt: skip

    assert pieces("_") == "_"
    assert pieces("I am ____ because __") == "I am____ because__"
    assert pieces("my_name is ___, (__)") == "my_name is___, (__)"
    assert pieces("____ and\n__") == "____ and\n__"
    assert int((denoiser.template("é__ñ") == denoiser.mask_id).sum()) == 2
    for text in ("", "none", "my_name", "__init__", "_1", "a_"):
        with pytest.raises(ValueError, match=r"template: got .*expected at least one blank"):
            denoiser.template(text)


# Files, and what is kept


def test_answers_are_seen_and_written_before_the_page(tmp_path, monkeypatch, capsys):
    """With room for one of the files, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))  # python ignores the signal
    try:
        code = main(monkeypatch, *NETWORKS, REWARD, "--new-tokens", "4", "--out", tmp_path / "o")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capsys.readouterr()
    assert code == 2
    assert re.search(r"^Top@1 ", said.out, re.MULTILINE)
    assert re.search(r"error: out: cannot write .*trace\.html: File too large", said.err)
    assert [file.name for file in (tmp_path / "o").iterdir()] == ["answers.json"]
    assert len(json.loads((tmp_path / "o" / "answers.json").read_text())["responses"]) == 4


def test_a_file_that_cannot_be_written_whole_leaves_nothing(tmp_path, monkeypatch):
    write_text(tmp_path / "file", "before")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=r"cannot write .*file: No space left on device"):
        write_text(tmp_path / "file", "after")
    with pytest.raises(ValueError, match="cannot write"):
        write_text(tmp_path / "other", "after")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "before"


@pytest.mark.parametrize("late", [False, True])
def test_ctrl_c_says_what_is_kept(late, tmp_path, monkeypatch, capfd):
    predict, asked = denoising.predict, []

    def interrupted(*arguments, **options):
        asked.append(1)
        if len(asked) > (5 if late else 2):  # late: while the unguided answers are made
            raise KeyboardInterrupt
        return predict(*arguments, **options)

    monkeypatch.setattr(denoising, "predict", interrupted)
    code = main(monkeypatch, *NETWORKS, REWARD, "--new-tokens", "6", "--out", tmp_path / "o")
    said = capfd.readouterr()
    assert code == 130
    kept = r".*answers\.json is written, the page is not" if late else "nothing new .* written"
    assert re.fullmatch(rf"\nstopped: {kept}\n", said.err), said.err
    assert ("Top@1" in said.out) == late


def test_a_trajectory_that_is_done_early_has_no_nan_on_the_page(tmp_path):
    """Under `origin` some are, while others go on."""
    options = "--order origin --new-tokens 2 --denoising-steps 8 --seed 2".split()
    done = CliRunner().invoke(
        app,
        [PROMPT, *map(str, NETWORKS), str(REWARD), *options, "--out", str(tmp_path)],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    page = (tmp_path / "trace.html").read_text(encoding="utf-8")
    data = re.search(r"= (\{\"prompt\".*\});", page)[1]

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    panels = json.loads(data, parse_constant=refuse)["panels"]
    done_early = [f for panel in panels for f in panel["frames"][:-1] if not f["positions"]]
    assert done_early, "no trajectory was done early: another seed is needed"
    assert all(frame["mean_E"] == frame["mean_D"] == [] for frame in done_early)


def test_without_networks_it_is_the_small_pair_and_says_how_large(monkeypatch):
    """What is named instead of one of them is not announced, and nothing is if both are."""
    asked = []

    def fetch(path, revision=None):
        asked.append(str(path))
        return {pairs.SMALL: DREAM}.get(path) or {pairs.SKYWORK["0.6B"]: REWARD}.get(path) or path

    monkeypatch.setattr(checkpoints, "locate", fetch)
    words = "--new-tokens 2 --device cpu --trajectories 1 --method bon".split()
    done = CliRunner().invoke(app, [PROMPT, *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert asked[:2] == [pairs.SMALL, pairs.SKYWORK["0.6B"]]
    assert f"{pairs.SMALL} (about 1.5 GB) and {pairs.SKYWORK['0.6B']} (about 1.2 GB)" in done.stderr
    done = CliRunner().invoke(app, [PROMPT, *words, "--denoiser", str(DREAM)])
    assert pairs.SMALL not in done.stderr
    assert "0.6B (about 1.2 GB)" in done.stderr
    done = CliRunner().invoke(app, [PROMPT, *TINY, *words])
    assert done.stderr == ""


def test_sizes_are_those_that_there_are(monkeypatch, capfd):
    for arguments in (["entrgi_ref", PROMPT, "--size", "huge"],):
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit):
            __main__.main()
    assert "size: got 'huge', expected one of" in capfd.readouterr().err
    assert pairs.PAIRS["paper"].denoiser == "Dream-org/Dream-v0-Instruct-7B"


# The paper's commands


PAPERS = "Skywork/Skywork-Reward-V2-Qwen3-1.7B"
MODELS = {size: f"Skywork/Skywork-Reward-V2-Qwen3-{size}" for size in ("0.6B", "1.7B", "4B")}


def said(*words, code=0):
    """What a command of the paper's says."""
    done = CliRunner().invoke(paper.app, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.stdout


@pytest.fixture
def declared(monkeypatch):
    """What a command that declares an experiment hands on: the plan, the testbed, the folder and
    the options.
    """
    monkeypatch.setattr(start, "at_commit", lambda path, *rest: path)
    monkeypatch.setattr(benchmarks, "named", lambda names, pinned: [*names, pinned])
    monkeypatch.setattr(DreamTestbed, "require_loadable", lambda self: None)

    def declared(*words):
        found = []

        def act(*given):
            found.extend(given)

        app = typer.Typer()
        app.command()(paper._declared(act))
        done = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        plan, testbed, out, options = found
        return plan, vars(testbed), out, options

    return declared


def test_what_is_run_where_nothing_is_said(declared):
    plan, testbed, out, options = declared("main")
    settings = SamplingConfig(
        GuidanceConfig(steps=3, step_size=0.5, dtype="float32", optimiser="adam"),
        trajectories=4,
        new_tokens=128,
        denoising_steps=128,
        temperature=0.7,
        top_p=0.95,
        order="entropy",
    )
    assert plan == Plan.of("main", settings, [1, 2, 3], 64, 4)
    benchmarks_ = ["reward-bench-2", "judge-bench", "rm-bench", {}]
    dream = "Dream-org/Dream-v0-Instruct-7B"
    assert testbed == vars(DreamTestbed(dream, {"1.7B": PAPERS}, benchmarks_))
    assert out == Path("results/main")
    assert options == {
        "retry_failed": False,
        "other_version": False,
        "give_up_after": 16,
        "cluster": None,
    }


def test_every_option_reaches_what_is_run(declared, tmp_path):
    plan, testbed, out, options = declared(
        *("reward-size", "--denoiser", "a/d", "--reward", "x=a/r", "--reward", "y=a/s"),
        *("--reward-weight", 0.5, "--reward-weight", 2, "--benchmark", "b", "--benchmark", "c"),
        *("--methods", "bon, aps", "--seeds", "7,5", "--prompts", 3, "--batch-size", "auto"),
        *("--device", "cpu", "--dtype", "float64", "--new-tokens", 6, "--gradient-steps", 2),
        *("--step-size", 0.25, "--optimiser", "sgd", "--temperature", 0.9, "--top-p", 0.8),
        *("--trajectories", 5, "--order", "anchor", "--unmatched", "zero", "--compile"),
        *("--cuda-graphs", "--reward-micro-batch", 2, "--vocabulary-batch", 9),
        *("--quantize", "reward=8bit", "--reward-device", "cuda:1", "--offload"),
        *("--attention", "eager", "--retry-failed", "--other-version", "--give-up-after", 4),
        *("--engine", "ray", "--ray-address", "auto", "--ray-actors", 3, "--out", tmp_path),
    )
    guidance = GuidanceConfig(steps=2, step_size=0.25, dtype="float64", optimiser="sgd")
    settings = SamplingConfig(
        guidance,
        trajectories=5,
        new_tokens=6,
        denoising_steps=6,
        temperature=0.9,
        top_p=0.8,
        order="anchor",
    )
    assert plan == Plan.of("reward-size", settings, [7, 5], 3, "auto", ["bon", "aps"])
    assert testbed == {
        "path": "a/d",
        "reward_paths": {"x": "a/r", "y": "a/s"},
        "benchmarks": ["b", "c", {}],
        "dtype": "float64",
        "requested_device": "cpu",
        "unmatched": "zero",
        "compiled": True,
        "cuda_graphs": True,
        "micro_batch": 2,
        "vocabulary_batch": 9,
        "reward_device": "cuda:1",
        "offload": True,
        "attention": "eager",
        "quantize": {"reward": "8bit"},
        "reward_weights": [0.5, 2.0],
    }
    assert out == tmp_path
    assert options == {
        "retry_failed": True,
        "other_version": True,
        "give_up_after": 4,
        "cluster": Cluster("auto", 3, gpus=False),
    }


@pytest.mark.parametrize(
    ("option", "changed"),
    [
        ("--compile", "compiled"),
        ("--cuda-graphs", "cuda_graphs"),
        ("--offload", "offload"),
        ("--retry-failed", "retry_failed"),
        ("--other-version", "other_version"),
    ],
)
def test_a_switch_of_a_run_turns_on_what_it_says_and_nothing_else(declared, option, changed):
    _, testbed, _, options = declared("main", option)
    _, plain, _, as_always = declared("main")
    differing = [name for name in testbed if testbed[name] != plain[name]]
    differing += [name for name in options if options[name] != as_always[name]]
    assert differing == [changed]
    assert (testbed | options)[changed] is True


def test_the_benchmarks_of_a_run_are_at_the_commits_that_its_folder_names(
    declared, monkeypatch, tmp_path
):
    monkeypatch.setattr(start, "pinned", lambda folder: {"rm-bench": f"as in {folder}"})
    _, testbed, _, _ = declared("main", "--out", tmp_path, "--benchmark", "rm-bench")
    assert testbed["benchmarks"] == ["rm-bench", {"rm-bench": f"as in {tmp_path}"}]


def test_which_networks_and_settings_a_run_takes(declared):
    """All sizes only where they are varied; of the small pair its own; T of its own if one is
    given, and the authors' settings.
    """
    assert declared("gradient-steps")[1]["reward_paths"] == MODELS
    two = ["--reward", "a=o/a", "--reward", "b=o/b"]
    assert declared("main", *two)[1]["reward_paths"] == {"a": "o/a"}
    assert declared("reward-size", *two)[1]["reward_paths"] == {"a": "o/a", "b": "o/b"}
    assert declared("main", *two)[1]["path"] == "Dream-org/Dream-v0-Instruct-7B"
    small = declared("reward-size", "--size", "small")[1]
    assert (small["path"], small["reward_paths"]) == (pairs.SMALL, {"0.6B": MODELS["0.6B"]})
    own = declared("main", "--size", "small", "--denoiser", "o/d")[1]
    assert (own["path"], own["reward_paths"]) == ("o/d", {"0.6B": MODELS["0.6B"]})
    own = declared("main", "--size", "small", "--reward", "r=o/r")[1]
    assert (own["path"], own["reward_paths"]) == (pairs.SMALL, {"r": "o/r"})
    plan = declared("main", "--denoising-steps", 9, "--new-tokens", 5, "--authors")[0]
    assert plan.base == SamplingConfig(new_tokens=5, denoising_steps=9).authors()
    assert declared("main", "--engine", "ray")[3]["cluster"] == Cluster(gpus=True)


@pytest.mark.parametrize(
    ("words", "fine"),
    [
        ([], False),
        (["--methods", "bon,entrgi"], False),
        (["--methods", "damped"], False),
        (["--methods", "math:sqrt"], False),
        (["--gradient-steps", "1"], False),
        (["--methods", "bon,bon_equal_compute"], True),
        (["--methods", "smc", "--gradient-steps", "2"], True),
        (["--gradient-steps", "0"], True),
    ],
)
def test_the_authors_float16_is_refused_where_something_is_guided(declared, words, fine):
    words = ["main", "--dtype", "float16", "--authors", *words]
    if fine:
        assert declared(*words)[1]["dtype"] == "float16"
    else:
        with pytest.raises(ValueError, match="dtype: got 'float16' with --authors"):
            declared(*words)


def test_what_a_dry_plan_assumes(monkeypatch, tmp_path):
    """And what it says that it does not count."""
    asked = []

    def say(*given, **parts):
        asked.append((given[1:], parts))
        return "predicted"

    monkeypatch.setattr(dry, "say", say)
    plan = ("plan", "main", "--dry", "--device", "cpu")
    assert said(*plan) == "predicted\n"
    networks = ("Dream-org/Dream-v0-Instruct-7B", {"1.7B": PAPERS}, "auto")
    parts = {"micro_batch": None, "vocabulary_batch": None}
    assert asked.pop() == ((*networks, dry.Assumed(100.0, 1000.0, 256), None, {}), parts)
    words = ("--prompt-tokens", 9, "--tflops", 5, "--bandwidth", 7, "--json", tmp_path / "x")
    words += ("--quantize", "4bit", "--reward-micro-batch", 1, "--vocabulary-batch", 2)
    words += ("--offload", "--reward-device", "cpu")
    assert said(*plan, *words) == "predicted\n\nNot counted with: --reward-device, --offload.\n"
    both = {"denoiser": "4bit", "reward": "4bit"}
    parts = {"micro_batch": 1, "vocabulary_batch": 2}
    assert asked.pop() == ((*networks, dry.Assumed(5.0, 7.0, 9), tmp_path / "x", both), parts)
    weighted = said(*plan, "--reward", "o/r", "--reward-weight", 2)
    assert weighted == "predicted\n\nNot counted with: --reward-weight.\n"


@pytest.mark.parametrize(
    ("failed", "rank", "code"), [(0, "0", 0), (2, "0", 1), (2, "1", 0), (0, "1", 0), (1, None, 1)]
)
def test_a_run_ends_with_one_if_a_prompt_has_failed(monkeypatch, declared, failed, rank, code):
    """Of several processes the first says so."""
    if rank is None:
        monkeypatch.delenv("RANK", raising=False)
    else:
        monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(start, "run", lambda *given, **options: failed)
    said("run", "main", "--device", "cpu", "--denoiser", DREAM, "--reward", REWARD, code=code)


@pytest.mark.parametrize("rank", ["abc", "", "-1", "1.0"])
def test_a_rank_that_is_no_number_is_named(monkeypatch, rank):
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(ValueError, match=f"^RANK: got '{rank}' in the environment, expected a num"):
        start.rank()


def test_only_a_plan_has_the_options_of_a_dry_one(monkeypatch, declared):
    """And it says what it has estimated."""

    def estimated(plan, testbed, out, *, retry_failed):
        return f"{plan.prompts} {out} {retry_failed}"

    monkeypatch.setattr(estimate, "estimate", estimated)
    words = ("plan", "main", "--device", "cpu", "--prompts", 2)
    assert said(*words) == "2 results/main False\n"
    assert said(*words, "--retry-failed") == "2 results/main True\n"
    commands = typer.main.get_command(paper.app).commands
    options = {name: {p.name for p in commands[name].params} for name in ("plan", "run")}
    assert options["plan"] - options["run"] == {*paper.DRY}
    assert options["run"] < options["plan"]


def test_what_a_judge_is_where_nothing_is_said(monkeypatch, tmp_path):
    """All that can be known is asked before it is loaded; 1 says that an answer was not judged."""
    asked, failed = [], [0]
    examined = SimpleNamespace(declaration="declared", load=lambda: "loaded")

    def noted(name, answer):
        def note(*given, **options):
            asked.append((name, *given, *options.values()))
            return answer() if callable(answer) else answer

        return note

    monkeypatch.setattr(records, "read_experiment", noted("experiment", {}))
    monkeypatch.setattr(records, "read_records", noted("records", []))
    monkeypatch.setattr(judging, "pinned_judge", noted("pinned", {}))
    monkeypatch.setattr(backends, "examine_judge", noted("examined", examined))
    monkeypatch.setattr(judging, "require_judgeable", noted("judgeable", None))
    monkeypatch.setattr(judging, "run", noted("run", lambda: failed[0]))
    model = "ContextualAI/LMUnit-qwen2.5-72b"
    said("judge", tmp_path)
    assert asked == [
        ("experiment", tmp_path),
        ("records", tmp_path),
        ("pinned", tmp_path, "lmunit", model, UNIT_TESTS),
        ("examined", "lmunit", model, "auto", "auto", 16, 4),
        ("judgeable", tmp_path, "declared", UNIT_TESTS, False),
        ("run", tmp_path, "loaded", UNIT_TESTS, typer.echo, False),
    ]
    assert (tmp_path / "judges").is_dir()
    asked.clear()
    monkeypatch.setattr(start, "local_device", lambda device: f"mine of {device}")
    said("judge", tmp_path)  # of several processes each has a GPU
    assert asked[3] == ("examined", "lmunit", model, "mine of auto", "auto", 16, 4)
    asked.clear()
    failed[0] = 3
    (tmp_path / "tests").write_text("Is it?\n")
    said(
        *("judge", tmp_path, "--backend", "transformers", "--model", "m", "--device", "cpu"),
        *("--unit-tests", tmp_path / "tests", "--batch-size", 2, "--dtype", "float32"),
        *("--gpus", 1, "--other-version"),
        code=1,
    )
    assert asked[2:] == [
        ("pinned", tmp_path, "transformers", "m", ("Is it?",)),
        ("examined", "transformers", "m", "mine of cpu", "float32", 2, 1),
        ("judgeable", tmp_path, "declared", ("Is it?",), True),
        ("run", tmp_path, "loaded", ("Is it?",), typer.echo, True),
    ]


def test_what_is_timed_where_nothing_is_said(monkeypatch, tmp_path):
    threads, asked = [], []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 128)
    monkeypatch.setattr(command, "run", lambda *given: asked.append(given) or "timed")
    cpu = torch.device("cpu")
    assert said("bench", "--device", "cpu") == "timed\n"
    words = ("--shape", "toy", "--json", tmp_path, "--rounds", 1, "--threads", 256, "--faster")
    said("bench", "--device", "cpu", *words, "--scaling", "--switches", "--vocabulary-batch", 3)
    assert threads == [2, 256]
    assert asked == [
        ("wide", None, 5, cpu, False, False, False, None),
        ("toy", tmp_path, 1, cpu, True, True, True, 3),
    ]
    switches = ("--faster", "--scaling", "--switches")
    for switch in switches:
        said("bench", "--device", "cpu", switch)
        assert asked.pop()[4:7] == tuple(switch == each for each in switches)
    for wrong in (("--rounds", 0), ("--threads", 0), ("--threads", 257)):
        said("bench", "--device", "cpu", *wrong, code=2)
    with pytest.raises(ValueError, match="shape: got 'huge'"):
        said("bench", "--shape", "huge")
    assert len(asked) == 2


def test_commands_on_a_run_say_what_they_have_written(monkeypatch, tmp_path):
    """Into the run's folder, or where they are told."""
    own, other, asked = tmp_path / "run", tmp_path / "to", []

    def report_(out, to, say):
        say("the tables")
        asked.append((out, to))
        return "", [to / "a", to / "b"]

    monkeypatch.setattr(report, "write", report_)
    monkeypatch.setattr(browse, "write", lambda *given: asked.append(given))
    monkeypatch.setattr(export, "write", lambda *given: asked.append(given) or [*given[:2]])
    text = "the tables\nWritten:\n  {0}/a\n  {0}/b\n"
    assert said("report", own) == text.format(own / "report")
    assert said("report", own, "--to", other) == text.format(other)
    assert said("browse", own) == f"{own / 'browse.html'}\n"
    assert said("browse", own, "--to", other) == f"{other}\n"
    assert said("export", own) == f"{own}\n{own / 'export'}\n"
    assert said("export", own, "--to", other, "--aggregation-names") == f"{own}\n{other}\n"
    assert asked == [
        (own, own / "report"),
        (own, other),
        (own, own / "browse.html"),
        (own, other),
        (own, own / "export", False),
        (own, other, True),
    ]
    found = ["one", "two"]
    monkeypatch.setattr(folder, "repair", lambda out: found)
    assert said("repair", own) == (
        f"one\ntwo\n2 lines taken out; they are kept in {own / 'dropped'}\n"
    )
    found.clear()
    assert said("repair", own) == "ok\n"


def test_runs_below_results_are_listed(monkeypatch, tmp_path):
    """Not what judges say of them, and not the folders of other programs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(listing, "listing", lambda runs: "\n".join(map(str, runs)))
    for name in ("b", "toy/a", "b/judges/j"):
        (tmp_path / "results" / name / "records").mkdir(parents=True)
        (tmp_path / "results" / name / "run.json").touch()
    (tmp_path / "results" / "other").mkdir()
    (tmp_path / "results" / "other" / "run.json").touch()
    assert said("list") == "results/b\nresults/toy/a\n"
    assert said("list", "x", "results/b") == "x\nresults/b\n"


def test_the_commands_of_the_paper():
    """Without any, they are listed; no options but their own, and no frames around errors."""
    assert [*typer.main.get_command(paper.app).commands] == [
        *("list", "plan", "run", "judge", "bench", "repair", "report", "browse", "export"),
    ]
    shown = CliRunner().invoke(paper.app, []).output
    assert "Usage: " in shown
    assert "The paper's experiments: list, plan, run, judge," in shown
    assert "completion" not in CliRunner().invoke(paper.app, ["--help"]).output
    assert paper.app.pretty_exceptions_enable is False
