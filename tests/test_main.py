"""`python -m entrgi_ref`: one prompt, on the tiny checkpoints."""

import json
import re

import pytest
from typer.testing import CliRunner

from checkpoints import DREAM, REWARD, pair
from entrgi_ref import GuidanceConfig, SamplingConfig, generate
from entrgi_ref.__main__ import app
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
        *("--dtype float64 --unmatched zero --authors".split()),
        *("--out", str(tmp_path / "new" / "out")),
    )
    written = json.loads((tmp_path / "new" / "out" / "answers.json").read_text(encoding="utf-8"))
    config = SamplingConfig(
        guidance=GuidanceConfig(weight="aps", steps=2, step_size=0.25),
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
