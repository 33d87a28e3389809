"""The demo end to end, on the quick networks; and that its numbers are those of its records."""

import dataclasses
import functools
import importlib
import inspect
import itertools
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from entrgi_ref import (
    GuidanceConfig,
    KeyedDraws,
    SamplingConfig,
    entropy,
    entropy_weight,
    generate,
    nucleus,
    prompt_key,
    token_distribution,
)
from entrgi_ref.orders import ORDERS
from entrgi_ref.paper.declared.costs import Costs
from entrgi_ref.watching import Recorder, TerminalView, trace_page, words
from toy import dial, exact, leading, ledger, options, shift, spread, table, training
from toy.__main__ import app, main
from toy.demo import BASE, Plan, compare, errors_by_step, methods_of, records_of, run_demo
from toy.experiments import ToyTestbed
from toy.language import ID, LENGTH, MASK, VOCABULARY
from toy.models import (
    PROMPT_LENGTH,
    ClosedFormReward,
    ToyDenoiser,
    ToyReward,
    encode_prompts,
    words_of,
)
from toy.networks import MaskPredictor, RewardModel, Size
from toy.statistics import bootstrap, student
from toy.studies import FIRST_TRAINING_SEED, STUDIES, Finding
from toy.testbed import Testbed as Toy
from toy.testbed import gold_score, held_out_prompts, log_likelihood, valid

pytestmark = pytest.mark.xdist_group("quick")  # its networks are trained once

METHODS = ["bon", "bon_equal_compute", "expectation", "aps", "entrgi"]


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """`python -m toy --quick`: its folder and what it printed."""
    out = tmp_path_factory.mktemp("demo")
    run = CliRunner().invoke(app, ["--quick", "--threads", "1", "--out", str(out)])
    assert run.exit_code == 0, run.output
    return out, run.output


@pytest.fixture(scope="session")
def quick(demo):
    """The quick networks, trained once for all tests."""
    return Toy.load(quick=True, seed=FIRST_TRAINING_SEED)


def test_example_of_the_readme(quick, monkeypatch, capsys):
    """A weight function of one's own, on smaller networks than the README's."""
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    (example,) = [
        code for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "toy" in code
    ]
    monkeypatch.setattr(Toy, "load", lambda name, seed: quick)
    exec(example, {})
    for line in capsys.readouterr().out.splitlines():
        reward, answer = re.match(r"(\S+) (.+)", line).groups()
        assert -3 < float(reward) < 3
        assert set(answer.split()) <= set(VOCABULARY)


def rows_of(markdown: str) -> list[list[str]]:
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_demo_names_its_files_and_they_are_all_there(demo):
    out, printed = demo
    names = ["table.md", "records.jsonl", "run.json", "figure.svg", "figure-dark.svg"]
    names += ["trace.json", "trace.html"]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    for name in names:
        assert str(out / name) in printed
        assert (out / name).stat().st_size > 500
    assert (out / "table.md").read_text() in printed


def test_records_hold_every_method_and_prompt(demo):
    out, _ = demo
    records = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    keys = {(r["method"], r["seed"], r["idx"]) for r in records}
    assert keys == {(method, 1, idx) for method in METHODS for idx in range(16)}
    assert len(records) == len(keys)
    for record in records:
        K = len(record["responses"])
        assert (10 if record["method"] == "bon_equal_compute" else 4) == K
        assert all(
            len(record[name]) == K for name in ("rewards", "gold", "log_likelihood", "valid")
        )
        assert record["prompt"] == held_out_prompts(16)[record["idx"]]


def test_the_table_is_computed_from_the_records(demo):
    """Every number of the printed table, recomputed."""
    out, printed = demo
    records = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]

    def values(method, of):
        return np.array([of(r) for r in records if r["method"] == method])

    measures = {
        "Top@1": lambda r: max(r["rewards"]),
        "Avg@K": lambda r: sum(r["rewards"]) / len(r["rewards"]),
        "Gold of the best": lambda r: r["gold"][r["rewards"].index(max(r["rewards"]))],
        "Gold, mean": lambda r: sum(r["gold"]) / len(r["gold"]),
        "Log-likelihood": lambda r: sum(r["log_likelihood"]) / len(r["log_likelihood"]),
        "Valid": lambda r: sum(r["valid"]) / len(r["valid"]),
    }
    body = (out / "table.md").read_text().split("Difference to Best-of-N")
    assert len(body) == 2
    found = 0
    for part, differ in zip(body, (False, True), strict=True):
        heads: list[str] = []
        for row in rows_of(part):
            if row[0] == "Method":
                heads = row
                continue
            method = next((m for m, label in table.LABELS.items() if label == row[0]), None)
            for head, cell in zip(heads, row, strict=True):
                of = next((f for name, f in measures.items() if head.startswith(name)), None)
                if not of or not method:
                    continue
                numbers = [float(x) for x in re.findall(r"[-+]?\d+\.\d+", cell.replace("−", "-"))]
                expected = values(method, of) - (values("bon", of) if differ else 0)
                assert numbers[0] == pytest.approx(expected.mean(), abs=0.0051)
                assert numbers[1] <= numbers[0] <= numbers[2]
                error = 1.96 * expected.std() / math.sqrt(len(expected))
                assert numbers[2] - numbers[1] == pytest.approx(2 * error, rel=0.3, abs=0.02)
                found += 1
    assert found == 5 * 6 + 4 * 6
    for row in rows_of(body[0]):
        if row[0] in table.LABELS.values():
            method = next(m for m, label in table.LABELS.items() if label == row[0])
            assert row[1] == str(10 if method == "bon_equal_compute" else 4)
    assert "conditional on one trained pair" in printed.replace("\n", " ")


def test_the_run_record_says_where_the_numbers_come_from(demo):
    out, _ = demo
    record = json.loads((out / "run.json").read_text())
    assert record["command"].startswith("python -m toy")
    assert record["prompts"] == 16
    assert record["seeds"] == [1]
    assert SamplingConfig.from_json(json.dumps(record["settings"])) == BASE
    assert [row["method"] for row in record["rows"]] == METHODS
    for row in record["rows"]:
        assert set(row["measures"]) == set(table.MEASURES)
        estimate = row["measures"]["top1"]
        assert estimate["low"] <= estimate["mean"] <= estimate["high"]
        assert set(row["differences"]) == set(table.MEASURES)
        less = estimate["mean"] - record["rows"][0]["measures"]["top1"]["mean"]
        assert row["differences"]["top1"]["mean"] == pytest.approx(less)
    for key in ("commit", "testbed", "versions", "machine"):
        assert record[key]


def test_the_demo_can_be_repeated(demo, quick):
    """The same answers from another call, one method and fewer prompts at a time."""
    out, _ = demo
    records = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    prompts = held_out_prompts(5)
    methods = methods_of(BASE, quick)
    assert list(methods) == METHODS
    for again in compare(quick, methods, prompts, [1]):
        first = next(
            r for r in records if (r["method"], r["idx"]) == (again["method"], again["idx"])
        )
        assert again["responses"] == first["responses"]
        assert again["rewards"] == pytest.approx(first["rewards"], abs=1e-5)


def test_figures_are_labelled_and_readable_on_both_pages(demo):
    out, _ = demo
    for name in ("figure.svg", "figure-dark.svg"):
        text = (out / name).read_text()
        for label in (
            *("Best-of-N", "equal compute", "Expectation", "APS", "EntRGi", "Top@1", "Avg@K"),
            *("reward (standard deviations)", "gold score (points)", "denoising step"),
            "distance to the soft embedding",
        ):
            assert label in text, label
    assert "#1b1f24" in (out / "figure.svg").read_text()
    assert "#e8ecf0" in (out / "figure-dark.svg").read_text()


# The trace page


class Page(HTMLParser):
    """The attributes of a page's elements, and the text of its script."""

    def __init__(self, text):
        super().__init__()
        self.attributes, self.script, self._inside = [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        self._inside = tag

    def handle_data(self, data):
        if self._inside == "script":
            self.script += data


def trace_of(text):
    line = next(
        line for line in Page(text).script.split("\n") if line.startswith("const TRACE_DATA")
    )
    return json.loads(line.removeprefix("const TRACE_DATA = ").removesuffix(";"))


def test_the_trace_page_needs_no_network(demo):
    text = (demo[0] / "trace.html").read_text()
    page = Page(text)
    assert not [a for a in page.attributes if a[1] in ("src", "href")]
    urls = set(re.findall(r"https?://[^\s\"'`)]+", text))
    assert urls <= {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert "import(" not in text
    assert "fetch(" not in text


def test_the_trace_shows_an_unguided_run_beside_a_guided_one(demo, quick):
    data = trace_of((demo[0] / "trace.html").read_text())
    prompt = held_out_prompts(1)[0]
    assert data["prompt"] == prompt
    unguided, guided = data["panels"]
    assert unguided["title"] == "Unguided"
    for panel, weight, steps in ((unguided, "entrgi", 0), (guided, "entrgi", 3)):
        config = replace(BASE, guidance=GuidanceConfig(weight, steps=steps))
        generation = generate(quick.denoiser, quick.reward, [prompt], config)
        best = int(generation.rewards[0].argmax())
        frames = panel["frames"]
        assert len(frames) == 16  # 15 steps that commit, and the answer
        words = [word for word in frames[-1]["tokens"] if word != "<eos>"]
        assert " ".join(words) == generation.responses[0][best]
        assert panel["results"]["reward of the answer"] == f"{generation.rewards[0, best]:.2f}"
        for frame, later in itertools.pairwise(frames):
            assert [i for i, t in enumerate(frame["tokens"]) if t is None] == frame["positions"]
            assert len(frame["weight"]) == len(frame["candidates"]) == len(frame["positions"])
            assert all(0 <= w <= 1 for w in frame["weight"])
            assert len(frame["rewards"]) == len(frame["mean_E"]) == len(frame["mean_D"]) == steps
            assert len(frame["E"]) == len(frame["D"]) == (len(frame["positions"]) if steps else 0)
            drawn = dict(zip(frame["positions"], frame["candidates"], strict=True))
            for position in frame["committed"]:
                assert later["tokens"][position] == drawn[position]
            assert len(later["positions"]) == len(frame["positions"]) - len(frame["committed"])


@pytest.mark.parametrize("steps", [0, 3])
def test_frames_are_what_the_observer_saw(quick, steps):
    """Of one trajectory in a batch of four."""
    seen, recorder = [], Recorder(quick.denoiser)
    config = replace(BASE, guidance=GuidanceConfig(steps=steps), trajectories=2)

    def observe(record):
        seen.append(record)
        recorder(record)

    prompts = held_out_prompts(2)
    generation = generate(quick.denoiser, quick.reward, prompts, config, observe=observe)
    close = functools.partial(pytest.approx, abs=1e-4)
    for row in (1, 2):
        *frames, answer = recorder.frames(row)
        for frame, step in zip(frames, seen, strict=True):
            mine = step.masked.nonzero()[:, 0] == row
            assert (frame["step"], frame["t"]) == (step.step, close(step.t))
            assert frame["positions"] == step.masked[row].nonzero().flatten().tolist()
            assert frame["committed"] == step.committed[row].nonzero().flatten().tolist()
            words = [VOCABULARY[index] for index in step.candidates[mine].tolist()]
            assert frame["candidates"] == words
            if steps:
                weight, H = step.weight[-1], step.entropy[-1]
                assert frame["E"] == close(step.E[-1][mine].tolist())
                assert frame["D"] == close(step.D[-1][mine].tolist())
            else:  # what they would be
                weight, H = entropy_weight(step.logits), entropy(step.logits)
                assert frame["E"] == frame["D"] == []
            assert frame["weight"] == close(weight[mine].tolist())
            assert frame["entropy"] == close(H[mine].tolist())
            assert frame["rewards"] == close(step.rewards[:, row].tolist())
            assert frame["mean_E"] == close(step.E[:, mine].mean(1).tolist())
            assert frame["mean_D"] == close(step.D[:, mine].mean(1).tolist())
        final = generation.tokens.flatten(0, 1)[row].tolist()
        assert answer["tokens"] == [VOCABULARY[index] for index in final]


@pytest.mark.parametrize("steps", [0, 2])
def test_the_terminal_shows_the_trajectory_that_is_watched(quick, steps, capsys):
    """Committed words in brackets, weights of the last gradient step where it is masked."""
    seen, view = [], TerminalView(quick.denoiser, trajectory=1, colour=False, separator="|")
    config = replace(BASE, guidance=GuidanceConfig(steps=steps), trajectories=2)

    def observe(record):
        seen.append(record)
        view(record)

    generate(quick.denoiser, quick.reward, held_out_prompts(1), config, observe=observe)
    for line, step in zip(capsys.readouterr().out.splitlines(), seen, strict=True):
        weight = (step.weight[-1] if steps else entropy_weight(step.logits)).tolist()
        at = dict(zip(map(tuple, step.masked.nonzero().tolist()), weight, strict=True))
        slots = []
        for position, index in enumerate(step.tokens[1].tolist()):
            if step.committed[1, position]:
                slots.append(f"[{VOCABULARY[index]}]")
            elif (1, position) in at:
                slots.append(f"{at[1, position]:.1f}".lstrip("0"))
            else:
                slots.append(VOCABULARY[index])
        rewards = " → ".join(f"{r:+.2f}" for r in step.rewards[:, 1].tolist()) or "unguided"
        head = f"{step.step + 1:4d}  t {step.t:.2f}"
        assert line == f"{head}  {'|'.join(slots)}   R {rewards}"


def test_signs_stand_for_what_would_not_be_seen(as_users_run_it):
    """And nothing that a token holds commands the terminal."""
    texts = ["a", "", "", "\x1b[2J", "\n\t", "é"]
    denoiser = SimpleNamespace(decode=lambda tokens: texts, eos_id=1)
    found = words(denoiser, torch.arange(6))
    assert found == ["a", "⟨end⟩", "⟨special⟩", "\N{REPLACEMENT CHARACTER}[2J", "⏎⇥", "é"]


def test_no_text_can_break_out_of_the_trace():
    nasty = '</script><script>alert(1)</script><!-- \u2028 "TRACE" ${x}'
    text = trace_page(nasty, [])
    assert trace_of(text)["prompt"] == nasty
    assert text.count("<script") == 1


# The commands


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reward", "lage"], "did you mean 'large'"),
        (["--top-p", "1.5"], "top_p: got 1.5, expected a number in (0, 1]"),
        (["--order", "entopy"], "did you mean 'entropy'"),
        (["--gradient-steps", "-1"], "steps: got -1"),
        (["watch", "sea castle blue"], "expected two topics"),
        (["watch", "--method", "ebtrgi"], "did you mean 'entrgi'"),
        (["--quick", "--reward", "small"], "reward: got 'small' with --quick, which has one size"),
        (["watch", "--quick", "--reward", "large"], "reward: got 'large' with --quick"),
        (["train", "--quick", "--reward", "large"], "reward: got 'large' with --quick"),
        (["dial", "--embedding-std", "nan"], "embedding_std: got nan, expected a number in"),
        (["--embedding-std", "-1"], "embedding_std: got -1"),
        (["--out", "/proc/nothing"], "out: cannot write to /proc/nothing"),
        (["ledger", "--out", "/proc/nothing"], "out: cannot write to /proc/nothing"),
        (["watch", "--method", "ebtrgi", "--quick"], "did you mean 'entrgi'"),
        (["watch", "--method", "nowhere:half"], "there is no module nowhere, neither in"),
        (["spread", "--methods", "bon,toy.exact:no_half"], "but toy.exact has no no_half"),
        (["spread", "--methods", "bon,entrgi", "--baseline", "aps"], "baseline: got 'aps'"),
        (["spread", "--seeds", "1,1"], "seeds: got [1, 1], expected different integers"),
        (["spread", "--seeds", "-1"], "seeds: got -1, expected an integer of at least 0"),
        (["spread", "--prompts", "97"], "prompts: got 97, expected 1 to 96"),
        (["spread", "--constants", "1.5"], "constants: got '1.5', expected numbers in [0, 1], or"),
        (["run", "main", "--methods", "toy.exact:no_half"], "but toy.exact has no no_half"),
    ],
)
def test_wrong_arguments_are_one_line(
    quick, monkeypatch, capsys, as_users_run_it, arguments, message
):
    monkeypatch.setattr(training, "train", lambda *a, **k: pytest.fail("networks are trained"))
    monkeypatch.setattr("sys.argv", ["toy", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_watch_shows_both_trajectories(quick):
    run = CliRunner().invoke(app, ["watch", "sea castle gloomy", "--quick", "--threads", "1"])
    assert run.exit_code == 0
    first, second = run.output.split("Guided by entrgi")
    for part, mark in ((first, "unguided"), (second, "→")):
        lines = [line for line in part.splitlines() if "  t 0." in line]
        assert len(lines) == 15
        assert all(mark in line for line in lines)
        assert all("[" in line for line in lines)
        assert "gold" in part.strip().splitlines()[-1]
    assert "\x1b" not in run.output


def test_watch_paints_the_weights_in_a_terminal(quick, capsys):
    from entrgi_ref.watching import TerminalView, weight_colour

    view = TerminalView(quick.denoiser, colour=True)
    generate(quick.denoiser, quick.reward, ["sea castle gloomy"], BASE, observe=view)
    assert "\x1b[48;2;" in capsys.readouterr().out
    assert weight_colour(0) == (0, 34, 78)
    assert weight_colour(0.5) == (124, 123, 120)
    assert weight_colour(1) == weight_colour(7) == (254, 232, 56)
    assert weight_colour(0.125) == (29, 56, 92)


@pytest.mark.slow
def test_settings_reach_the_demo(quick, tmp_path):
    run = CliRunner().invoke(
        app,
        [
            *("--quick", "--threads", "1", "--out", str(tmp_path), "--gradient-steps", "1"),
            *("--trajectories", "2", "--order", "anchor", "--reward", "closed_form"),
            *("--step-size", "2", "--optimiser", "sgd"),
        ],
    )
    assert run.exit_code == 0, run.output
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["settings"]["guidance"]["steps"] == 1
    assert record["settings"]["guidance"]["step_size"] == 2
    assert record["settings"]["guidance"]["optimiser"] == "sgd"
    assert "eta = 2 (sgd)" in (tmp_path / "table.md").read_text()
    assert record["settings"]["order"] == "anchor"
    assert record["testbed"].startswith("quick mask predictor of seed ")
    assert record["testbed"].endswith(", closed-form reward")
    assert {row["trajectories"] for row in record["rows"]} == {2}


def test_the_demo_s_records_are_of_what_was_run(untrained, tmp_path, monkeypatch):
    """Its settings, prompts and seeds, and not those of the paper."""
    base = SamplingConfig(
        GuidanceConfig(steps=1, optimiser="sgd"), 2, LENGTH, 1, temperature=0.1, top_p=0.5
    )
    monkeypatch.setattr("toy.demo.draw_demo", lambda *given: None)
    run_demo(untrained, base, Plan(2, (3, 1)), tmp_path, lambda said: None)
    for name in ("run.json", "trace.json"):
        record = json.loads((tmp_path / name).read_text())
        assert SamplingConfig.from_json(json.dumps(record["settings"])) == base
        assert (record["prompts"], record["seeds"]) == (2, [3, 1])
        assert record["testbed"] == "untrained networks"
    assert "T = 1, M = 1, eta = 0.5 (sgd), tau = 0.1" in (tmp_path / "table.md").read_text()


# The numbers behind the table


def test_records_are_of_their_own_prompt(quick):
    prompts, config = held_out_prompts(3), replace(BASE, trajectories=2, seed=5)
    generation = generate(quick.denoiser, quick.reward, prompts, config)
    records = records_of(quick, "entrgi", generation, 12.0)
    for idx, record in enumerate(records):
        own, answers = [prompts[idx]] * 2, generation.responses[idx]
        assert (record["prompt"], record["idx"], record["seed"]) == (prompts[idx], idx, 5)
        assert record["responses"] == answers
        likelihood = log_likelihood(quick.denoiser, own, answers)
        assert record["log_likelihood"] == pytest.approx(likelihood.tolist(), abs=1e-4)
        assert record["gold"] == list(map(gold_score, own, answers))
        assert record["valid"] == list(map(valid, answers))
        assert record["timing"]["seconds_per_prompt"] == 4


def test_errors_by_step_are_the_distances_to_the_soft_embedding(untrained):
    few = replace(BASE, denoising_steps=4)
    prompts, methods = held_out_prompts(2), methods_of(few, untrained)
    curves = errors_by_step(untrained, methods, prompts)
    assert list(curves) == ["expectation", "aps", "entrgi"]
    assert max(E for _, E in curves["expectation"]) < 1e-6
    for method in ("aps", "entrgi"):
        seen = []
        networks = untrained.denoiser, untrained.reward
        generate(*networks, prompts, methods[method], observe=seen.append)
        assert len(seen) > 1
        expected = [(step.step + 1, step.E.mean().item()) for step in seen]
        assert curves[method] == [(step, pytest.approx(E)) for step, E in expected]


def test_the_units_are_prompts_and_not_seeds():
    """A prompt's seeds are no independent draws of prompts: they are averaged first."""

    def record(method, idx, seed, reward, seconds):
        return {
            "method": method, "idx": idx, "seed": seed, "rewards": [reward, reward - 1],
            "gold": [reward, 9.0], "log_likelihood": [-1.0] * 2, "valid": [True, False],
            "timing": {"seconds_per_prompt": seconds},
        }  # fmt: skip

    records = [
        record(method, idx, seed, shift + 10 * idx + seed, seconds * seed)
        for method, shift, seconds in (("bon", 0, 1.0), ("entrgi", 5, 4.0))
        for seed in (1, 3)
        for idx in (0, 1, 2)
    ]
    assert table.by_prompt(records, "bon", "top1").tolist() == [2, 12, 22]
    assert table.by_prompt(records, "entrgi", "gold_best").tolist() == [7, 17, 27]
    unguided, guided = table.summarise(records)
    assert unguided.measures["top1"] == bootstrap(np.array([2.0, 12.0, 22.0]))
    assert guided.differences["top1"] == bootstrap(np.array([5.0] * 3))
    assert (unguided.time_ratio, guided.time_ratio) == (0.25, 1)
    seconds = student(np.array([1.0, 3.0]))
    assert seconds.low < 0
    assert unguided.seconds == dataclasses.replace(seconds, low=0.0)
    single, _ = table.summarise([record for record in records if record["seed"] == 1])
    assert single.seconds.text(3) == "1.000"  # one seed has no interval, and not one from 0
    slow_once = [
        record(method, idx, seed, 0, seconds)
        for method, times in (("bon", (1, 1, 9)), ("entrgi", (4, 4, 9)))
        for seed, seconds in enumerate(times)
        for idx in (0, 1)
    ]
    assert table.summarise(slow_once)[0].time_ratio == 0.25


def compared(golds, *, prompts=64, seeds=3, rewards=None):
    """Records of `bon`, whose numbers are 0, and `mine`, whose mean differences are given."""
    return [
        {
            "method": method, "testbed": f"pair {pair}", "idx": idx, "seed": seed,
            "prompt": str(idx), "rewards": [reward * (method == "mine")],
            "gold": [(gold + idx - (prompts - 1) / 2) * (method == "mine")],
            "log_likelihood": [0.0], "valid": [True], "timing": {"seconds_per_prompt": pair + 1.0},
        }
        for pair, (gold, reward) in enumerate(zip(golds, rewards or golds, strict=True))
        for method in ("bon", "mine")
        for seed in range(seeds)
        for idx in range(prompts)
    ]  # fmt: skip


def test_the_units_of_several_pairs_are_the_pairs():
    golds = [0.1, 0.4, 0.3]
    bon, mine = table.summarise(compared(golds, prompts=4, seeds=2))
    expected = student(np.array(golds))
    assert vars(mine.differences["gold_mean"]) == pytest.approx(vars(expected))
    assert mine.by_pair["gold_mean"] == [pytest.approx(g) for g in golds]
    assert bon.seconds.mean == 2
    other, none = table.summarise(compared(golds, prompts=4, seeds=2), baseline="mine")
    assert other.by_pair["gold_mean"] == [pytest.approx(-g) for g in golds]
    assert set(none.by_pair["gold_mean"]) == {0}
    text = table.markdown([other, none])
    assert "Difference to mine, prompt by prompt:" in text
    assert "4 prompts x 2 seeds on each of 3 pairs of networks. Brackets are 95%" in text
    assert "Student's over the\npairs" in text
    single = table.summarise(compared([0.1], prompts=4, seeds=1))
    assert "4 prompts x 1 seed on one pair of networks. " in table.markdown(single)
    expected = bootstrap(np.arange(4) - 1.5 + 0.1)
    assert vars(single[1].differences["gold_mean"]) == pytest.approx(vars(expected))


def test_records_that_do_not_fit_together_are_refused():
    records = compared([0.1, 0.2], prompts=2, seeds=1)
    with pytest.raises(ValueError, match="not all methods have the same prompts and seeds"):
        table.summarise(records[:-1])
    other = [{**one, "seed": one["seed"] + (one["method"] == "mine")} for one in records]
    with pytest.raises(ValueError, match="not all methods have the same prompts and seeds"):
        table.summarise(other)  # as many
    with pytest.raises(ValueError, match=r"methods: got bon, mine, expected `aps` among them"):
        table.summarise(records, baseline="aps")
    mixed = [{**record, "baseline": record["method"]} for record in records]
    with pytest.raises(ValueError, match="baseline: the records have bon, mine; name one"):
        table.summarise(mixed)


@pytest.mark.parametrize(
    ("golds", "size", "rewards", "decided", "said"),
    [
        ([0.2, 0.3, 0.2, 0.1, 0.2], {}, None, "better", "above 0 on 5 of 5 pairs"),
        ([-0.2, -0.3, -0.2, -0.1, -0.2], {}, None, "worse", "above 0 on 0 of 5 pairs"),
        ([0.2, 0.2, 0.2, 0.2, -0.01], {}, None, "cannot tell", "above 0 on 4 of 5 pairs"),
        ([0.9, 0.1, 0.1, 0.1, 0.1], {}, None, "cannot tell", "+0.26 [−0.18, +0.70] points"),
        ([0.2, 0.3, 0.2, 0.1], {}, None, "cannot tell", "Too few to decide: 4 of 5 pairs."),
        ([0.2, 0.3, 0.2, 0.1, 0.2], {"prompts": 63}, None, "cannot tell", "63 of 64 prompts."),
        ([0.2, 0.3, 0.2, 0.1, 0.2], {"seeds": 2}, None, "cannot tell", "2 of 3 seeds."),
        ([-0.2, -0.3, -0.2, -0.1, -0.2], {}, [0.1] * 5, "worse", "and the gold score falls"),
        ([0.2, -0.3, 0.2, 0.1, 0.2], {}, [0.1] * 5, "cannot tell", "is not shown to follow"),
        ([0.2, -0.3, 0.2, 0.1], {}, [0.1] * 4, "cannot tell", "4 of 5 pairs.\n\nThe rule"),
        ([0.2, 0.3, 0.2, 0.1, 0.2], {}, [-0.1] * 5, "better", "The reward falls"),
    ],
)
def test_the_rule_by_which_methods_are_told_apart(golds, size, rewards, decided, said):
    rows = table.summarise(compared(golds, **size, rewards=rewards or [0] * len(golds)))
    assert table.decision(rows[1]) == decided
    text = table.verdict(rows)
    assert text.startswith(f"mine against Best-of-N: {decided.upper()}.\n")
    assert said in text
    if rewards is None:
        assert "The reward" not in text
    assert text.endswith(table.RULE)


def test_several_pairs_are_compared_in_turn(quick, monkeypatch):
    """The next training seeds; a reward of one's own guides all of them."""
    asked = []

    def again(seed):
        asked.append(seed)
        return dataclasses.replace(quick, description=f"pair {seed}")

    made = dataclasses.replace(quick.made, again=again)
    toy = dataclasses.replace(quick, made=made)
    methods = {"entrgi": BASE.guided(steps=1), "aps": BASE.guided(weight="aps", steps=1)}
    prompts = held_out_prompts(2)
    records = list(compare(toy, methods, prompts, [1], baseline="aps", pairs=3))
    assert asked == [FIRST_TRAINING_SEED + 1, FIRST_TRAINING_SEED + 2]
    assert [len(pair) for pair in table.by_pair(records)] == [4, 4, 4]
    assert all(0 < record["timing"]["seconds_per_prompt"] < 60 for record in records)
    assert {record["testbed"] for record in records[4:]} == {"pair 11", "pair 12"}
    rows = table.summarise(records)
    assert (rows[0].baseline, rows[0].size) == ("aps", table.Size(2, 1, 3))
    assert len(rows[0].by_pair["top1"]) == 3

    for reward in (ClosedFormReward(), ToyReward(quick.reward.network)):
        own = dataclasses.replace(toy, reward=reward)
        assert all(pair.reward is reward for pair in own.pairs(2))
    for denoiser in (None, ToyDenoiser(quick.denoiser.network)):
        own = dataclasses.replace(toy, denoiser=denoiser)
        with pytest.raises(ValueError, match="pairs: got 2 with a mask predictor of your own"):
            compare(own, methods, prompts, [1], pairs=2)
    compare(toy, methods, prompts, [1], pairs=40)  # as many as there may be
    for wrong, message in (
        ({"baseline": "bonn"}, "baseline: got 'bonn', expected one of 'entrgi', 'aps'"),
        ({"pairs": 41}, "pairs: got 41, expected 1 to 40"),
        ({"pairs": 0}, "pairs: got 0"),
        ({"seeds": [1, 1]}, r"seeds: got \[1, 1\], expected different integers"),
    ):
        with pytest.raises(ValueError, match=message):  # at once, before the first record
            compare(toy, methods, prompts, **{"seeds": [1], **wrong})


def test_equal_compute_counts_every_pass():
    """3 denoising steps run; each costs one reading of the denoiser and 2 M of the reward model."""
    guided = SamplingConfig(GuidanceConfig(steps=3), 4, 4, 4)
    unguided = replace(guided, guidance=replace(guided.guidance, steps=0))
    costs = Costs(denoiser=10, reward=7)
    assert costs.per_trajectory(guided) == 3 * (10 + 6 * 7) + 7
    assert costs.per_trajectory(unguided) == 3 * 10 + 7
    assert costs.equal_trajectories(guided, unguided) == math.ceil(4 * 163 / 37) == 18
    every = replace(guided, skip_empty_steps=False)
    assert costs.per_trajectory(every) == 4 * (10 + 6 * 7) + 7
    assert Costs(10, 0).equal_trajectories(guided, unguided) == 4


def test_bootstrap_has_the_width_of_the_standard_error():
    values = np.random.default_rng(3).normal(5, 2, size=400)
    estimate = bootstrap(values)
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.05)
    assert bootstrap(values) == estimate
    both = np.stack([values, 3 * values], 1)
    ratio = bootstrap(both, lambda means: means[..., 1] / means[..., 0])
    assert (ratio.mean, ratio.low, ratio.high) == (pytest.approx(3),) * 3


def test_student_by_hand():
    estimate = student(np.array([1.0, 2.0, 3.0]))
    assert estimate.mean == 2
    assert estimate.high - 2 == pytest.approx(4.303 / math.sqrt(3))
    assert student(np.array([1.0])).text(1) == "1.0"
    assert student(np.array([-1.0, 1.0])).text(1, sign=True) == "+0.0 [−12.7, +12.7]"


# The exact gradient


@pytest.mark.slow
def test_effects_of_the_ledgers_rows(quick):
    base = dataclasses.replace(BASE, trajectories=2, denoising_steps=8)
    variants = ledger.variants(base)
    found = ledger.effects(quick, base, held_out_prompts(4), [1])
    assert list(found) == list(variants)
    for row in ("1: 1e-10 inside the logarithm", "7: empty steps run"):
        assert found[row]["tokens"].high == 0
        assert found[row]["average"].low == found[row]["average"].high == 0
    assert found["3: psi in bfloat16"]["tokens"].mean > 0
    name = "8: ends not last"
    a, b = (
        generate(quick.denoiser, quick.reward, held_out_prompts(4), dataclasses.replace(c, seed=1))
        for c in (base, variants[name])
    )
    share = (a.tokens != b.tokens).double().mean().item()
    assert found[name]["tokens"].mean == pytest.approx(share)
    difference = (b.average - a.average).mean().item()
    assert found[name]["average"].mean == pytest.approx(difference)
    assert f"| {name} | {share:.3f} [" in ledger.markdown(found)


@pytest.mark.slow
def test_leading_runs_are_those_of_the_boards(quick):
    """Counted token by token, before every step; of a prompt the shortest."""
    base, prompts = replace(BASE, trajectories=3, denoising_steps=8), held_out_prompts(2)
    found = leading.lengths(quick, base, prompts, [1, 2])
    assert list(found) == ["entropy", "maskgit_plus", "topk_margin", "anchor", "origin"]
    for order in ("entropy", "origin"):
        rows, shortest = [], []

        def count(record, rows=rows, shortest=shortest):
            runs = []
            for masked in record.masked.tolist():
                runs.append(masked.index(True) if True in masked else len(masked))
            rows.extend(runs)
            shortest.extend([min(runs[:3]), min(runs[3:])])

        for seed in (1, 2):
            config = replace(base, order=order, seed=seed)
            generate(quick.denoiser, quick.reward, prompts, config, observe=count)
        share = [sum(each) / len(each) / base.new_tokens for each in (rows, shortest)]
        assert found[order]["row"].mean == pytest.approx(share[0])
        assert found[order]["prompt"].mean == pytest.approx(share[1])
        assert f"| {order} | {share[0]:.3f} [" in leading.markdown(found)


def test_one_off_takes_the_row_before(quick):
    """Of the same output: at the first position that of the prompt's last word."""
    tokens = torch.cat([encode_prompts(held_out_prompts(2)), torch.full((2, LENGTH), ID[MASK])], 1)
    masked = torch.zeros(2, LENGTH, dtype=torch.bool)
    masked[0, [0, 5, 6]] = masked[1, LENGTH - 1] = True
    network, valid = quick.denoiser.network, torch.ones_like(tokens, dtype=torch.bool)
    every = network(tokens, valid).view(2, PROMPT_LENGTH + LENGTH, -1)
    for read, back in ((quick.denoiser, 0), (shift.OneOff(network), 1)):
        at = PROMPT_LENGTH - back
        rows = [every[0, at], every[0, at + 5], every[0, at + 6], every[1, at + LENGTH - 1]]
        torch.testing.assert_close(read(tokens, valid, masked), torch.stack(rows))


@pytest.mark.slow
def test_what_is_read_one_off_is_not_the_language(quick):
    base = replace(BASE, trajectories=2)
    prompts = held_out_prompts(4)
    found, answers = shift.read_both(quick, base, prompts, [1, 2])
    assert list(found) == list(shift.LABELS)
    assert found["own"]["valid"].mean > 0.9
    assert found["one off"]["valid"].mean < 0.1
    config = replace(base.guided(steps=0), seed=1)
    right = generate(quick.denoiser, quick.reward, prompts, config)
    assert [answer["own"] for answer in answers] == [each[0] for each in right.responses[:3]]
    config = replace(config, seed=2)
    also = generate(quick.denoiser, quick.reward, prompts, config)
    mean = (right.average.mean() + also.average.mean()) / 2
    assert found["own"]["average"].mean == pytest.approx(float(mean))
    step = shift.one_step(quick.denoiser, prompts[0], words_of(answers[0]["own"]))
    allowed = {VOCABULARY[token] for token in quick.denoiser.writable.nonzero().flatten()}
    assert allowed.issuperset(step["own"])
    assert step["one off"][1:] == step["own"][:-1]
    assert [i for i, word in enumerate(step["words"]) if word == MASK] == list(shift.BLANKS)


def test_seeds_of_training_are_as_large_as_those_of_torch():
    option = get_args(options.TrainingSeed)[1]
    assert (option.min, option.max) == (0, 2**63 - 1)


def test_networks_are_those_of_the_demo_if_nothing_is_said():
    assert inspect.signature(Toy.load).parameters["quick"].default is False


def test_words_that_may_not_follow_are_marked():
    answer = {"prompt": "sky desert grand", "own": "a fox guards a oryx", "one off": "fox a <eos>"}
    assert shift.faults(answer["prompt"], answer["own"]) == set()
    line = shift.answers_table([answer]).splitlines()[2]
    assert line == "| sky desert grand | a fox guards a oryx | **fox** **a** **&lt;eos>** |"


@pytest.mark.slow
def test_effects_are_over_all_seeds(quick, monkeypatch):
    base, row = replace(BASE, trajectories=2, denoising_steps=8), "8: ends not last"
    only = {row: ledger.variants(base)[row]}
    monkeypatch.setattr(ledger, "variants", lambda base: only)
    prompts = held_out_prompts(3)
    both, one, two = (
        ledger.effects(quick, base, prompts, seeds)[row] for seeds in ([1, 2], [1], [2])
    )
    assert both["tokens"].mean == pytest.approx((one["tokens"].mean + two["tokens"].mean) / 2)
    assert both["average"].mean == pytest.approx((one["average"].mean + two["average"].mean) / 2)
    assert one["average"].mean != pytest.approx(two["average"].mean)


def test_each_row_of_the_ledger_is_one_difference():
    found = {}
    for row, config in ledger.variants(BASE).items():
        mine, base = map(dataclasses.asdict, (config, BASE))
        mine, base = ({**fields.pop("guidance"), **fields} for fields in (mine, base))
        found[row] = {name: value for name, value in mine.items() if value != base[name]}
    assert found == {
        "1: 1e-10 inside the logarithm": {"epsilon": 1e-10},
        "1: entropy at tau": {"weight": "entrgi_tempered"},
        "3: psi in bfloat16": {"dtype": "bfloat16"},
        **{f"6: order {name}": {"order": name} for name in ORDERS if name != "entropy"},
        "6: order origin": {"order": "origin"},
        "7: empty steps run": {"skip_empty_steps": False},
        "8: ends not last": {"eos_last": False},
        "12: every id may be written": {"write_every_id": True},
        "authors()": {"epsilon": 1e-10, "dtype": "denoiser", "write_every_id": True},
    }


def test_a_linear_reward_gives_every_weight_the_exact_gradient():
    """The control: enumeration, states and estimators all have to be right for this to hold."""
    found = exact.agreements(
        Toy.load("closed_form", quick=True, seed=FIRST_TRAINING_SEED), BASE, states=6, draws=3
    )
    assert list(found) == ["expectation", "aps", "entrgi", "w = 0.5"]
    for agreement in found.values():
        assert agreement.cosine_of_mean.low > 0.9999
        assert agreement.cosine_of_one.low > 0.9999
        assert agreement.bias.high < 1e-3


@pytest.mark.parametrize("tau", [BASE.temperature, 0.4])
def test_the_exact_gradient_is_that_of_the_expected_reward(quick, tau):
    """Against finite differences of the enumerated expectation, for the trained reward."""
    states = exact.sample_states(quick, 2, BASE)
    gradient = exact.exact_gradient(quick, states, tau)
    assert (states.masked.sum(1) == 2).all()
    ids = quick.denoiser.writable.nonzero().flatten()

    def expected(psi):
        q = (psi / tau).softmax(1)
        pairs = torch.cartesian_prod(ids, ids)
        response = states.response[:1].expand(len(pairs), -1).clone()
        response[states.masked[:1].expand_as(response)] = pairs.flatten()
        rewards = quick.reward.score(
            states.prompts[:1] * len(pairs), quick.denoiser.decode(response)
        )
        return (q[0, pairs[:, 0]] * q[1, pairs[:, 1]] * rewards).sum()

    psi = states.logits[:2].double()
    likely = psi.argmax(1)
    for l in range(2):
        bump = torch.zeros_like(psi)
        bump[l, likely[l]] = 1e-4
        slope = (expected(psi + bump) - expected(psi - bump)) / 2e-4
        assert gradient[0, l, likely[l]].item() == pytest.approx(slope.item(), abs=2e-5)


@pytest.mark.slow
def test_draws_are_those_of_guidance_and_one_draw_is_one_draw(quick, monkeypatch):
    """Of the nucleus, each trajectory its own; Expectation's gradient is the same for all."""
    seen, estimated = [], exact.estimated_gradient

    def spied(logits, reward, weight, tokens, temperature):
        seen.append((logits, tokens))
        return estimated(logits, reward, weight, tokens, temperature)

    monkeypatch.setattr(exact, "estimated_gradient", spied)
    base = replace(BASE, top_p=0.3, seed=2)
    found = exact.agreements(quick, base, states=4, draws=16)
    logits, tokens = seen[0]
    assert all(torch.equal(tokens, again) for _, again in seen)
    q = nucleus(token_distribution(logits, base.temperature), base.top_p)
    assert (q.gather(1, tokens[:, None]) > 0).all()
    assert len(set(map(tuple, tokens.view(4, 16, 2).transpose(0, 1).flatten(1).tolist()))) > 1
    for name, agreement in found.items():
        one, mean = agreement.cosine_of_one.mean, agreement.cosine_of_mean.mean
        assert one <= mean + 1e-6 <= 1 + 1e-5
        assert (one == pytest.approx(mean)) == (name == "expectation")


@pytest.fixture(scope="module")
def untrained():
    """Networks of one layer, as they were drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        predictor = MaskPredictor(Size(8, 1, 2), len(VOCABULARY), PROMPT_LENGTH + LENGTH)
        judge = RewardModel(Size(8, 1, 2), len(VOCABULARY), PROMPT_LENGTH + LENGTH + 1, 1.0)
    return Toy(ToyDenoiser(predictor), ToyReward(judge), "untrained networks")


def test_agreement_is_that_of_long_vectors(untrained, monkeypatch):
    """Cosines and the relative bias, by their definitions, with all states side by side."""
    seen, estimated = [], exact.estimated_gradient

    def spied(*given):
        seen.append(estimated(*given))
        return seen[-1]

    monkeypatch.setattr(exact, "estimated_gradient", spied)
    found = exact.agreements(untrained, BASE, 2, 3, {"aps": exact.ESTIMATORS["aps"]})["aps"]
    truth = exact.exact_gradient(untrained, exact.sample_states(untrained, 2, BASE), 0.7).flatten()
    draws = seen[0].double().view(2, 3, -1)
    mean = draws.mean(1).flatten()
    one = draws.square().sum((0, 2)).mean().sqrt()
    along = mean @ truth / truth.norm()
    expected = [along / mean.norm(), along / one, (mean - truth).norm() / truth.norm()]
    measured = [found.cosine_of_mean, found.cosine_of_one, found.bias]
    assert [each.mean for each in measured] == pytest.approx([float(each) for each in expected])


def test_hard_tokens_are_drawn_from_the_nucleus_by_the_keys_of_the_prompts(untrained, monkeypatch):
    """Each draw is a trajectory's at the first step; all estimators get the same ones."""
    seen = []

    def spied(logits, reward, weight, tokens, temperature):
        seen.append((logits, tokens, temperature))
        return torch.ones_like(logits)

    monkeypatch.setattr(exact, "estimated_gradient", spied)
    base = replace(BASE, top_p=0.3, temperature=0.5, seed=2)
    exact.agreements(untrained, base, states=3, draws=4)
    states = exact.sample_states(untrained, 3, base)
    assert len(seen) == len(exact.ESTIMATORS)
    logits, tokens, _ = seen[0]
    assert all(torch.equal(tokens, again) and tau == 0.5 for _, again, tau in seen)
    assert torch.equal(logits.view(3, 4, 2, -1)[:, 3], states.logits.view(3, 2, -1))
    draws = KeyedDraws.of(2, [prompt_key(prompt) for prompt in states.prompts], 4)
    slots = states.masked.repeat_interleave(4, 0).nonzero(as_tuple=True)
    q = nucleus(token_distribution(logits, 0.5), 0.3)
    assert torch.equal(tokens, draws.at(0, *slots).hard(q, 0))


def test_states_are_unguided_answers_with_two_words_masked_anywhere(untrained, monkeypatch):
    prompts = held_out_prompts(16)
    for base in (replace(BASE, seed=3, denoising_steps=4, temperature=1.3), BASE):
        states = exact.sample_states(untrained, 16, base)
        unguided = replace(base.guided(steps=0), trajectories=1)
        answers = generate(untrained.denoiser, untrained.reward, prompts, unguided).tokens[:, 0]
        assert torch.equal(states.response[~states.masked], answers[~states.masked])
    assert states.masked.sum(1).tolist() == [2] * 16
    assert len(set(states.masked.nonzero()[:, 1].tolist())) > 8
    monkeypatch.setattr(exact, "held_out_prompts", lambda count: prompts[::-1])
    again = exact.sample_states(untrained, 16, BASE)  # whatever prompts are beside
    assert torch.equal(again.masked.flip(0), states.masked)
    assert states.logits.isinf().sum(1).tolist() == [8 + 5 + 1] * 32


@pytest.mark.slow
def test_gradients_and_spread_run(tmp_path, monkeypatch):
    for name in ("QUICK_DENOISER", "QUICK_REWARD"):  # hardly trained, but trained
        recipe = dataclasses.replace(getattr(training, name), steps=60, examples=2000)
        monkeypatch.setattr(f"toy.testbed.{name}", recipe)
    for command in (
        ["gradients", "--states", "3", "--draws", "2"],
        [
            *("spread", "--pairs", "2", "--reward", "closed_form", "--baseline", "aps"),
            *("--methods", "aps,entrgi,toy.exact:constant_half", "--constants", "0.6,mean"),
        ],
    ):
        out = tmp_path / command[0]
        arguments = [*command, "--quick", "--threads", "1", "--out", str(out)]
        run = CliRunner().invoke(app, arguments)
        assert run.exit_code == 0, run.output
        record = json.loads((out / "run.json").read_text())
        assert "entrgi" in record["rows"]
        assert "EntRGi" in run.output
    assert list(record["rows"]) == ["entrgi", "constant_half", "w = 0.6", "w = EntRGi's mean"]
    assert all(len(found["gold_mean"]) == 2 for found in record["rows"].values())
    assert record["own_weights"]["constant_half"]["module"] == "toy.exact"
    assert record["baseline"] == "aps"
    assert all(0.1 < w < 0.9 for w in record["mean_weight"])
    assert "constant_half against APS: CANNOT TELL.\n" in run.output
    assert "Too few to decide: 16 of 64 prompts, 1 of 3 seeds, 2 of 5 pairs." in run.output


def test_the_mean_weight_is_over_all_that_is_masked(quick):
    seen, prompts = [], held_out_prompts(2)
    generate(quick.denoiser, quick.reward, prompts, BASE, observe=seen.append)
    weights = torch.cat([record.weight.flatten() for record in seen])
    assert spread.mean_weight(quick, BASE, prompts) == pytest.approx(weights.mean().item())


def test_spread_shows_mean_interval_and_extremes():
    shown = spread.markdown({"entrgi": {measure: [1.5, -0.5] for measure in table.REWARD_AND_GOLD}})
    assert "| EntRGi | +0.50 [−12.21, +13.21], −0.50 to +1.50 |" in shown


def test_experiments_run_on_the_held_out_prompts_with_their_gold_score(quick):
    testbed = ToyTestbed(lambda name: quick, quick=True, training_seed=FIRST_TRAINING_SEED)
    (benchmark,) = testbed.benchmarks
    assert list(benchmark.prompts) == held_out_prompts(96)
    assert testbed.gold("sea castle gloomy", "the whale finds the knight") == 2
    assert testbed.denoiser() is quick.denoiser
    others = [ToyTestbed(lambda name: quick, q, seed) for q, seed in ((True, 11), (False, 10))]
    declared = [json.dumps(one.declaration) for one in (testbed, *others)]
    assert len(set(declared)) == 3


# The dial


def test_the_dial_goes_from_expectation_to_aps(quick):
    """Its ends are the named methods, draw for draw, and M = 0 is Best-of-N."""
    prompts = held_out_prompts(2)
    base = replace(BASE, trajectories=2)
    for place, guidance in (
        ((0.0, 2), GuidanceConfig(weight="expectation", steps=2)),
        ((1.0, 2), GuidanceConfig(weight="aps", steps=2)),
        (("entropy", 2), GuidanceConfig(weight="entrgi", steps=2)),
        (("entropy", 0), GuidanceConfig(steps=0)),
    ):
        mine = generate(quick.denoiser, quick.reward, prompts, dial.settings(base, *place))
        named = generate(quick.denoiser, quick.reward, prompts, replace(base, guidance=guidance))
        assert torch.equal(mine.tokens, named.tokens)
    half = dial.Constant(0.25)(torch.zeros(3, 5))
    assert half.tolist() == [0.25] * 3


@pytest.mark.slow
def test_every_place_of_the_dial_is_measured(quick, monkeypatch):
    monkeypatch.setattr(dial, "GRADIENT_STEPS", (1, 2))
    monkeypatch.setattr(dial, "WEIGHTS", (0.5, "entropy"))
    prompts = held_out_prompts(3)
    rows = dial.turn(quick, replace(BASE, trajectories=2), prompts, seeds=[4])
    assert [(r["w"], r["M"]) for r in rows] == [
        *(("entropy", 0), (0.5, 1), ("entropy", 1), (0.5, 2), ("entropy", 2))
    ]
    config = replace(dial.settings(BASE, "entropy", 2), trajectories=2, seed=4)
    answers = generate(quick.denoiser, quick.reward, prompts, config)
    assert rows[-1]["measures"]["average"]["mean"] == pytest.approx(answers.average.mean().item())
    assert "| w = H / log K |" in dial.markdown(rows)


def test_the_same_settings_are_at_equal_compute():
    """Whatever the costs: rounding must not add a trajectory."""
    rng = np.random.default_rng(0)
    for _ in range(500):
        costs = Costs(*rng.uniform(0.1, 1e3, 2).tolist())
        K = int(rng.integers(1, 13))
        same = replace(BASE, trajectories=K)
        assert costs.equal_trajectories(same, same) == K


# Commands as data


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_its_options_and_writes_its_record(name, tmp_path, monkeypatch, quick):
    """One mechanism: options reach the study, and what it finds is printed and recorded."""
    seen = []

    def study(setting):
        seen.append(setting)
        return Finding("| found |", {"a": 1}, "networks", BASE, 3, [1, 2], {"more": True})

    module = importlib.import_module(STUDIES[name].module)
    monkeypatch.setattr(module, "study", study)
    own = {option: default for option, (_, default) in STUDIES[name].options.items()}
    words = [name, "--quick", "--training-seed", "11", "--threads", "1", "--out", str(tmp_path)]
    run = CliRunner().invoke(app, words)
    assert run.exit_code == 0, run.output
    (setting,) = seen
    assert (setting.quick, setting.training_seed, setting.options) == (True, 11, own)
    assert setting.plan.prompts == 16
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["rows"] == {"a": 1}
    assert (record["testbed"], record["prompts"], record["seeds"]) == ("networks", 3, [1, 2])
    assert record["more"] is True
    assert "| found |" in run.output


@pytest.mark.parametrize("command", ["run", "watch", "dial"])
def test_an_option_before_a_command_is_refused(command, monkeypatch, capsys):
    """It would be the demo's, and the command would not know of it."""
    monkeypatch.setattr("sys.argv", ["toy", "--quick", command, "main"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    expected = f"--quick: got it before the command, expected python -m toy {command} --quick"
    assert capsys.readouterr().err == f"error: {expected}\n"


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def stops(setting):
        raise KeyboardInterrupt

    monkeypatch.setattr(dial, "study", stops)
    monkeypatch.setattr("sys.argv", ["toy", "dial", "--quick"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130
    said = capsys.readouterr().err.strip()
    kept = "trained networks are kept, and units of the laboratory that are done"
    assert said == f"stopped: {kept}"


# Infilling


def test_a_template_is_words_and_blanks(quick):
    ids = quick.denoiser.template("a _ __ the")
    mask, eos = quick.denoiser.mask_id, quick.denoiser.eos_id
    assert ids.tolist() == [ID["a"], mask, mask, mask, ID["the"], *[eos] * 11]
    full = quick.denoiser.template("_" * 16)
    assert full.tolist() == [mask] * 16


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a whale", "template: got 'a whale', expected at most 16 words, some of them blanks"),
        ("", "template: got ''"),
        ("_" * 17, "expected at most 16 words"),
        ("a wale _", "template: word: got 'wale'.*did you mean 'whale'"),
        ("_ sea", "template: word: got 'sea'"),
        ("_ <mask>", "template: word: got '<mask>'"),
    ],
)
def test_a_template_that_does_not_fit_is_refused(quick, template, message):
    with pytest.raises(ValueError, match=message):
        quick.denoiser.template(template)


def test_watch_fills_in_a_template(quick):
    words = ["watch", "sea castle gloomy", "--quick", "--threads", "1"]
    run = CliRunner().invoke(app, [*words, "--template", "a _ _ finds the _"])
    assert run.exit_code == 0, run.output
    lines = [line for line in run.output.splitlines() if "  t 0." in line]
    levels = [re.search(r"t (0\.\d+)", line)[1] for line in lines]
    assert levels == ["0.67", "0.33"] * 2  # of three steps the first commits nothing
    for line in (lines[1], lines[3]):
        shown = re.sub(r"[\[\]]", "", line).split()[3:]
        assert (shown[0], shown[3:5], shown[6]) == ("a", ["finds", "the"], "<eos>")
        assert not any(word.startswith(".") for word in shown[:16])
