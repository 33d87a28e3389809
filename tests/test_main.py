"""`python -m entrgi_ref`: one prompt, on the tiny checkpoints."""

import errno
import json
import os
import re
import resource
import sys
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from checkpoints import DREAM, REWARD, changed, pair
from entrgi_ref import GuidanceConfig, SamplingConfig, __main__, denoising, generate
from entrgi_ref.__main__ import app
from entrgi_ref.commands import pairs
from entrgi_ref.commands.files import write_text
from entrgi_ref.models import causal, checkpoints
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
    (folders["foreign"] / "vocab.json").write_text(json.dumps(foreign))
    (folders["foreign"] / "merges.txt").write_text("#version: 0.2\n")
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
