"""What the laboratory's commands share: units of work that are kept, and the record."""

import importlib
import itertools
import json
import math
import os
import platform
import re
import sys
from dataclasses import dataclass, field, replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from building import records
from entrgi_ref import generate
from entrgi_ref.paper.declared.costs import Costs
from entrgi_ref.paper.declared.experiments import LABELS
from toy.demo import BASE
from toy.laboratory import experiment, rivals
from toy.models import ToyDenoiser, ToyReward
from toy.statistics import student
from toy.table import REWARD_AND_GOLD
from toy.testbed import gold_score, held_out_prompts
from toy.training import QUICK_DENOISER, QUICK_REWARD


@dataclass
class Squares:
    """A design that counts its measurements."""

    units: tuple[str, ...] = ("2", "3", "4")
    seeds: tuple[int, ...] = (2, 3, 4)
    settings: dict = field(default_factory=lambda: {"power": 2})
    measured: list = field(default_factory=list)

    def measure(self, unit):
        self.measured.append(unit)
        return {"square": int(unit) ** self.settings["power"]}

    def summary(self, results):
        return "| squares |", {unit: found["square"] for unit, found in results.items()}


MADE = {"commit": "abc", "torch": "2"}


def test_a_run_that_was_stopped_goes_on(tmp_path):
    whole, _ = experiment.results(Squares(), tmp_path / "whole", MADE, lambda _: None)
    stopped = Squares(units=("2", "3"))
    experiment.results(stopped, tmp_path / "parts", MADE, lambda _: None)
    said = []
    rest = Squares()
    found, seconds = experiment.results(rest, tmp_path / "parts", MADE, said.append)
    assert found == whole
    assert seconds < 5
    for path in (tmp_path / "parts" / "units").iterdir():
        path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": 7.5}))
    _, seconds = experiment.results(rest, tmp_path / "parts", MADE, said.append)
    assert seconds == 3 * 7.5
    assert (stopped.measured, rest.measured) == (["2", "3"], ["4"])
    assert len(said) == 1
    assert said[0].startswith("4: done in ")
    assert said[0].endswith(", 3 of 3")


@pytest.mark.parametrize(
    ("design", "made", "name"),
    [
        (Squares(settings={"power": 3}), MADE, "settings"),
        (Squares(), {**MADE, "commit": "abd"}, "commit"),
        (Squares(), {**MADE, "torch": "3"}, "torch"),
    ],
)
def test_results_of_other_settings_or_code_are_not_mixed(tmp_path, design, made, name):
    experiment.results(Squares(units=("2",)), tmp_path, MADE, lambda _: None)
    with pytest.raises(ValueError, match=f"out: .* has results of another {name}"):
        experiment.results(design, tmp_path, made, lambda _: None)
    assert [path.name for path in (tmp_path / "units").iterdir()] == ["2.json"]


@pytest.mark.parametrize("name", ["commit", "torch", "settings"])
def test_results_that_do_not_say_how_they_were_made_are_of_another(tmp_path, name):
    experiment.results(Squares(units=("2",)), tmp_path, MADE, lambda _: None)
    about = json.loads((tmp_path / "settings.json").read_text())
    (tmp_path / "settings.json").write_text(json.dumps({**about, "more": 1}))  # harmless
    experiment.results(Squares(units=("2",)), tmp_path, MADE, lambda _: None)
    del about[name]
    (tmp_path / "settings.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=rf"has results of another {name} \(None, now "):
        experiment.results(Squares(units=("2",)), tmp_path, MADE, lambda _: None)


NO_FILES = {
    "a pipe": os.mkfifo,
    "a device": lambda file: file.symlink_to("/dev/zero"),
    "a folder": lambda file: file.mkdir(),
    "a hole": lambda file: (file.touch(), os.truncate(file, 2**36)),
}


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("name", ["settings.json", "units/3.json"])
def test_what_is_no_file_of_results_is_not_read(name, kind, tmp_path):
    """A pipe or a device has no end, and what takes no disk may not fit the memory."""
    experiment.results(Squares(), tmp_path, MADE, lambda _: None)
    (tmp_path / name).unlink()
    NO_FILES[kind](tmp_path / name)
    with pytest.raises(ValueError, match=f"{name} is damaged .it is no file of at most 67108864"):
        experiment.results(Squares(), tmp_path, MADE, lambda _: None)


@pytest.mark.parametrize("value", [10**400, None, "x"])
def test_a_number_that_cannot_be_added_up_is_named(tmp_path, value):
    class Roots(Squares):
        def summary(self, results):
            return "", {unit: math.sqrt(found["square"]) for unit, found in results.items()}

    with pytest.raises(ValueError, match=r"units/2\.json is damaged"):
        experiment._summary(Roots(), {"2": {"square": value}}, tmp_path)


def test_results_are_not_written_through_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "units").symlink_to("elsewhere")
    with pytest.raises(ValueError, match="units is a link"):
        experiment.results(Squares(), tmp_path, MADE, lambda _: None)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("name", ["settings.json", "units/3.json"])
def test_a_damaged_file_is_named(tmp_path, name):
    experiment.results(Squares(), tmp_path, MADE, lambda _: None)
    (tmp_path / name).write_bytes(b'{"seconds": \xff')
    with pytest.raises(ValueError, match=rf"out: .*{name} is damaged .*: remove it"):
        experiment.results(Squares(), tmp_path, MADE, lambda _: None)
    (tmp_path / name).write_text("{")
    with pytest.raises(ValueError, match=rf"out: .*{name} is damaged .*: remove it"):
        experiment.results(Squares(), tmp_path, MADE, lambda _: None)


@pytest.mark.parametrize("name", ["settings.json", "units/3.json"])
@pytest.mark.parametrize("text", ["[]", "null", "3"])
def test_a_file_of_another_form_is_named(tmp_path, name, text):
    experiment.results(Squares(), tmp_path, MADE, lambda _: None)
    (tmp_path / name).write_text(text)
    message = f"out: {tmp_path / name} is damaged (it holds {json.loads(text)!r}, expected an o"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}[^\n]*: remove it$"):
        experiment.results(Squares(), tmp_path, MADE, lambda _: None)


@pytest.mark.parametrize(
    "unit",
    [
        *({}, {"seconds": 1}, {"seconds": "1", "result": {}}, {"seconds": -1, "result": {}}),
        *({"seconds": True, "result": {}}, {"seconds": 1e400, "result": {}}),
    ],
    ids=str,
)
def test_a_unit_says_how_long_it_took(tmp_path, unit):
    experiment.results(Squares(), tmp_path, MADE, lambda _: None)
    (tmp_path / "units" / "3.json").write_text(json.dumps(unit))
    with pytest.raises(ValueError, match=r"3\.json is damaged \(it holds .*: remove it$"):
        experiment.results(Squares(), tmp_path, MADE, lambda _: None)


@pytest.mark.parametrize("result", [None, [], {}, "x", {"square": None}], ids=str)
def test_a_result_that_cannot_be_summed_up_is_named(tmp_path, given, monkeypatch, result):
    def summary(self, results):
        return "", sum(found["square"] for found in results.values())

    monkeypatch.setattr(Squares, "summary", summary)
    run = experiment.command("squares", experiment.Experiment("of_squares", "Squares."))
    run(out=tmp_path)
    (tmp_path / "units" / "3.json").write_text(json.dumps({"seconds": 1, "result": result}))
    with pytest.raises(ValueError, match=r"^out: .*3\.json is damaged \(.*Error: .*: remove it$"):
        run(out=tmp_path)


@pytest.mark.parametrize(
    ("option", "value"), [("units", 10_001), ("threads", 257), ("first-seed", 2**62 + 1)]
)
def test_what_would_never_end_is_refused(tmp_path, given, option, value):
    app = typer.Typer()
    one = experiment.Experiment("of_squares", "Squares numbers.")
    app.command("squares")(experiment.command("squares", one))
    words = [f"--{option}", str(value), "--out", str(tmp_path)]
    run = CliRunner().invoke(app, words)
    assert (run.exit_code, given) == (2, [])
    assert f"{value - 1}" in run.output


@pytest.fixture
def given(monkeypatch):
    """What the design of the module `of_squares` is asked for."""
    asked = []

    def design(quick, first_seed, units):
        asked.append((quick, first_seed, units))
        return Squares()

    module = ModuleType("of_squares")
    module.design = design
    monkeypatch.setitem(sys.modules, "of_squares", module)
    return asked


def test_the_command_prints_and_records(tmp_path, given):
    app = typer.Typer()
    one = experiment.Experiment("of_squares", "Squares numbers.")
    app.command("squares")(experiment.command("squares", one))
    words = ["--quick", "--first-seed", "5", "--units", "2", "--threads", "1", "--out", tmp_path]
    run = CliRunner().invoke(app, [str(word) for word in words])
    assert run.exit_code == 0, run.output
    assert given == [(True, 5, 2)]
    assert "| squares |" in run.output
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["rows"] == {"2": 4, "3": 9, "4": 16}
    assert (record["seeds"], record["settings"]) == ([2, 3, 4], {"power": 2})
    assert {"command", "commit", "versions", "machine", "seconds"} <= record.keys()


def test_quick_looks_at_no_language_of_the_full_set(tmp_path, given):
    one = experiment.Experiment("of_squares", "Squares numbers.", first_seed=7)
    app = typer.Typer()
    app.command("squares")(experiment.command("squares", one))
    for words in (["--quick"], []):
        run = CliRunner().invoke(app, [*words, "--out", str(tmp_path / f"out{len(words)}")])
        assert run.exit_code == 0, run.output
    assert given == [(True, 1, None), (False, 7, None)]


def test_the_record_says_how_it_was_made(tmp_path, given, monkeypatch):
    """And the units' files and the settings can be read by eye: a key to a line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/toy", "exact", "squares", "--quick"])
    monkeypatch.setattr(torch, "set_num_threads", threads := [].append)
    monkeypatch.setattr("entrgi_ref.commands.provenance.commit", lambda: "abc")
    one = experiment.Experiment("of_squares", "Squares numbers.", "exact", first_seed=7)
    run = experiment.command("squares", one)
    assert run.__doc__ == "Squares numbers."
    folder = tmp_path / "results" / "exact-squares-quick"
    run(quick=True)
    for path in (folder / "units").iterdir():
        path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": 0.25}))
    run(quick=True)
    assert threads.__self__ == [2, 2]
    expected = {
        "command": "python -m toy exact squares --quick",
        "commit": "abc",
        "settings": {"power": 2},
        "seeds": [2, 3, 4],
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "machine": f"{platform.machine()}, 2 threads of a CPU",
        "seconds": 0.8,
        "rows": {"2": 4, "3": 9, "4": 16},
    }
    text = (folder / "run.json").read_text()
    assert text == json.dumps(expected, indent=1) + "\n"
    about = {"commit": "abc", "torch": torch.__version__, "settings": {"power": 2}}
    assert (folder / "settings.json").read_text() == json.dumps(about, indent=1) + "\n"
    run(first_seed=0)
    assert given == [(True, 1, None), (True, 1, None), (False, 0, None)]
    assert (tmp_path / "results" / "exact-squares" / "run.json").exists()


def test_what_a_unit_took_is_kept_with_it(tmp_path, monkeypatch):
    """To a tenth of a second, and said in whole ones."""
    clock = iter([1000.0, 1002.26, 1002.26, 1004.0, 1004.0, 1015.5])
    monkeypatch.setattr(experiment.time, "perf_counter", lambda: next(clock))
    said = []
    _, seconds = experiment.results(Squares(), tmp_path, MADE, said.append)
    assert seconds == pytest.approx(2.3 + 1.7 + 11.5)
    assert said == ["2: done in 2 s, 1 of 3", "3: done in 2 s, 2 of 3", "4: done in 12 s, 3 of 3"]
    kept = {path.name: path.read_text() for path in (tmp_path / "units").iterdir()}
    assert kept["3.json"] == '{"seconds": 1.7, "result": {"square": 9}}\n'
    assert set(kept) == {"2.json", "3.json", "4.json"}


def test_a_file_nested_too_deep_to_be_read_is_damaged(tmp_path):
    experiment.results(Squares(), tmp_path, MADE, lambda _: None)
    (tmp_path / "units" / "3.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"out: .*3\.json is damaged .*: remove it"):
        experiment.results(Squares(), tmp_path, MADE, lambda _: None)


def test_where_results_cannot_be_kept_nothing_is_measured(tmp_path, monkeypatch):
    (tmp_path / "units").write_text("")
    monkeypatch.setattr(Squares, "measure", lambda *_: pytest.fail("measures a unit"))
    with pytest.raises(ValueError, match=f"^out: cannot write to {tmp_path}/units: File exists$"):
        experiment.results(Squares(), tmp_path, MADE, lambda _: None)


@pytest.mark.parametrize("name", experiment.EXPERIMENTS)
def test_the_records_are_of_the_settings_and_seeds_that_the_commands_have(name):
    one = experiment.EXPERIMENTS[name]
    record = records.read(f"{one.group}-{name}" if one.group else name)
    design = importlib.import_module(one.module).design(False, one.first_seed, None)
    assert json.loads(json.dumps(design.settings)) == record["settings"]
    assert list(design.seeds) == record["seeds"]
    assert len(design.units) == len(design.seeds)
    few = importlib.import_module(one.module).design(False, 5, 2)
    assert set(few.seeds) == {5, 6}
    assert few.settings == design.settings


def test_commands_stand_under_the_toy_or_in_its_group():
    app = typer.Typer()
    experiment.add_to(app)
    assert [one.name for one in app.registered_commands] == ["rivals", "claims"]
    (group,) = app.registered_groups
    assert group.name == "exact"
    inside = [one.name for one in group.typer_instance.registered_commands]
    assert inside == ["gradient", "distribution", "infilling"]
    assert experiment.Experiment("module", "help").first_seed == 1


# Rivals


@pytest.fixture
def untrained(monkeypatch):
    def load(quick, seed):
        torch.manual_seed(seed)
        networks = QUICK_DENOISER.build(), QUICK_REWARD.build()
        return rivals.Testbed(ToyDenoiser(networks[0]), ToyReward(networks[1]), "")

    monkeypatch.setattr(rivals.Testbed, "load", load)
    return load


@pytest.mark.slow
def test_rivals_answer_the_same_prompts_at_equal_compute(untrained, monkeypatch):
    clock = itertools.count(0, 12)
    monkeypatch.setattr(rivals, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    base = replace(BASE, denoising_steps=4)
    monkeypatch.setattr(rivals, "BASE", base)
    found = rivals.Rivals((31,), True, 2, (1, 2)).measure("31")
    assert {row["seconds_per_prompt"] for row in found.values()} == {12 / 2 / 2}
    assert tuple(found) == tuple(LABELS)
    testbed, prompts = untrained(True, 31), held_out_prompts(2)
    answered = [
        generate(testbed.denoiser, testbed.reward, prompts, replace(base, seed=seed))
        for seed in (1, 2)
    ]
    rewards = torch.cat([one.rewards for one in answered])
    gold = torch.tensor(
        [
            [gold_score(prompt, answer) for answer in answers]
            for one in answered
            for prompt, answers in zip(one.prompts, one.responses, strict=True)
        ]
    )
    measures = found["entrgi"]["measures"]
    assert measures["top1"] == pytest.approx(float(rewards.max(1).values.mean()))
    assert measures["average"] == pytest.approx(float(rewards.mean()))
    best = gold.gather(1, rewards.argmax(1, keepdim=True))
    assert measures["gold_best"] == pytest.approx(float(best.mean()))
    assert measures["gold_mean"] == pytest.approx(float(gold.mean()))
    assert found["entrgi"]["cost_ratio"] == 1
    for name, row in found.items():
        assert row["trajectories"] >= BASE.trajectories
        one = row["cost_ratio"] / row["trajectories"]  # K is rounded up
        assert (row["cost_ratio"] < 0.9) == (name == "bon")
        assert row["cost_ratio"] < 1 + one
    assert found["lookahead"]["options"] == {"beta": 1.0, "candidates": 2}


def test_a_pair_of_rivals_is_measured_by_each_method_with_each_seed(monkeypatch):
    """On networks that are pretended, whose answers and rewards say how they were made."""
    asked, loaded = [], []

    def load(quick, seed):
        loaded.append((quick, seed))
        return SimpleNamespace(denoiser="denoiser", reward="reward", costs=Costs(19.0, 20.0))

    def answer(method, denoiser, reward, prompts):
        assert (denoiser, reward, prompts) == ("denoiser", "reward", held_out_prompts(2))
        asked.append((method.name, method.config.seed))
        K, seed = method.config.trajectories, method.config.seed
        words = ["the whale finds the knight", "the fox"]
        return SimpleNamespace(
            rewards=torch.tensor([[seed, *[2.5] * (K - 1)], [*[0.5] * (K - 1), 0.25 * seed]]),
            prompts=prompts,
            responses=[[words[seed - 1], *["the owl"] * (K - 1)]] * 2,
        )

    monkeypatch.setattr(rivals.Testbed, "load", load)
    monkeypatch.setattr(rivals, "generate", lambda *given: None)
    monkeypatch.setattr(rivals.Method, "answer", answer)
    found = rivals.Rivals((31, 32), False, 2, (1, 2)).measure("32")
    assert loaded == [(False, 32)]
    assert asked == [(name, seed) for name in LABELS for seed in (1, 2)]
    gold = {
        (prompt, text): gold_score(prompt, text)
        for prompt in held_out_prompts(2)
        for text in ("the whale finds the knight", "the fox", "the owl")
    }
    first, second = held_out_prompts(2)
    picked = [
        gold[first, "the owl"], gold[second, "the whale finds the knight"],
        gold[first, "the owl"], gold[second, "the fox"],
    ]  # fmt: skip
    for name, row in found.items():
        K = row["trajectories"]
        assert row["measures"]["top1"] == pytest.approx((2.5 + 0.5 + 2.5 + 0.5) / 4)
        mean = (3 + 2 * 2.5 * (K - 1) + 2 * 0.5 * (K - 1) + 0.75) / 4 / K
        assert row["measures"]["average"] == pytest.approx(mean)
        assert row["measures"]["gold_best"] == pytest.approx(sum(picked) / 4)
        assert (row["cost_ratio"] < 0.9) == (name == "bon")  # K is rounded up
        assert row["cost_ratio"] < 1 + row["cost_ratio"] / K
    assert found["entrgi"]["cost_ratio"] == 1
    assert found["lookahead"]["options"] == {"beta": 1.0, "candidates": 5}


def test_the_seconds_of_rivals_are_those_of_a_prompt_with_one_sampling_seed(monkeypatch):
    """On a clock that goes on while prompts are answered; the first call does not count."""
    clock = [0.0]

    def answer(*_, took=6.0):
        clock[0] += took

    pair = SimpleNamespace(denoiser=None, reward=None, costs=Costs(19.0, 20.0))
    monkeypatch.setattr(rivals, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(rivals.Testbed, "load", lambda quick, seed: pair)
    monkeypatch.setattr(rivals, "generate", lambda *given: answer(took=100.0))
    monkeypatch.setattr(rivals.Method, "answer", answer)
    monkeypatch.setattr(rivals, "means", lambda answered: {})
    found = rivals.Rivals((31,), True, 2, (1, 2, 3)).measure("31")
    assert {name: row["seconds_per_prompt"] for name, row in found.items()} == dict.fromkeys(
        LABELS, 6 / 2
    )


def made_up(top1):
    row = {"trajectories": 4, "options": {}, "cost_ratio": 1.0, "seconds_per_prompt": 0.5}
    return {
        name: {**row, "measures": dict.fromkeys(REWARD_AND_GOLD, top1 if name == "smc" else 1.0)}
        for name in LABELS
    }


def test_rivals_are_summed_up_over_pairs():
    design = rivals.design(False, 31, None)
    assert design.seeds == (31, 32, 33, 34, 35)
    text, rows = design.summary({"31": made_up(1.5), "32": made_up(2.5), "33": made_up(0.8)})
    assert rows["smc"]["measures"]["top1"]["mean"] == pytest.approx(1.6)
    difference = rows["smc"]["differences"]["top1"]
    expected = student(np.array([0.5, 1.5, -0.2]))
    assert difference == pytest.approx(vars(expected))
    assert rows["smc"]["same_sign"]["top1"] == pytest.approx(2 / 3)
    assert f"| {expected.text(2, sign=True)}, 67% |" in text
    assert rivals.same_sign(np.array([-1.0, -2.0, 0.5])) == pytest.approx(2 / 3)
    assert rivals.winners(rows, "top1") == []  # one of three pairs has another sign
    assert len(rivals.design(False, 31, 40).seeds) == 40
    one, rows = rivals.design(True, 40, None).summary({"40": made_up(1.5)})
    assert rivals.winners(rows, "top1") == []  # one pair has no interval
    assert rows["smc"]["measures"]["top1"] == {"mean": 1.5, "low": None, "high": None}
    slow = {name: {**row, "seconds_per_prompt": 9.0} for name, row in made_up(1.0).items()}
    _, uneven = design.summary({"31": slow, "32": made_up(1.0)})
    assert uneven["smc"]["timing"]["seconds_per_prompt"]["low"] == 0
    _, clear = design.summary({"31": made_up(1.5), "32": made_up(1.6), "33": made_up(1.4)})
    assert rivals.winners(clear, "top1") == ["smc"]
    _, below = design.summary({"31": made_up(0.5), "32": made_up(0.4), "33": made_up(0.6)})
    assert rivals.winners(below, "top1") == []
    assert "1 pair of quick networks, of the training seeds 40" in one
    with pytest.raises(ValueError, match="units: got 41, expected at most 40"):
        rivals.design(False, 31, 41)


def row_of(mean, **changes):
    """A row of the experiment's record."""
    row = {"trajectories": 4, "options": {}, "cost_ratio": 1.2345, "same_sign": {}}
    row |= {"measures": {}, "differences": {}, "timing": {"seconds_per_prompt": interval(0.1234)}}
    for i, measure in enumerate(REWARD_AND_GOLD):
        row["measures"][measure] = interval(mean + i)
        row["differences"][measure] = interval(mean - i)
        row["same_sign"][measure] = 1.0
    return row | changes


def interval(mean):
    if mean >= 9:  # of one pair
        return {"mean": mean, "low": None, "high": None}
    return {"mean": mean, "low": mean - 0.125, "high": mean + 0.25}


def test_the_tables_of_the_rivals():
    options = {"beta": 0.5, "candidates": 5}
    rows = {
        "bon": row_of(0.456, same_sign=dict.fromkeys(REWARD_AND_GOLD, 0.75)),
        "bon_equal_compute": row_of(1.0, trajectories=13),
        "smc": row_of(-1.0, options=options),
        "lookahead": row_of(12, options={"beta": 2.0}),
    }
    heads = "| Top@1 (reward) | Avg@K (reward) | Gold of the best (points) | Gold, mean (points) |"
    rule = "| --- | ---: | ---: | ---: | ---: | ---: |"
    seconds = "1.23 | 0.123 [−0.002, 0.373] |"
    text = rivals.Rivals((41, 42), False, 64, (1, 2, 3))._text(rows, 2)
    assert text.replace(", 100%", ", all").split("\n\n") == [
        (
            f"| Method | K {heads}\n{rule}\n"
            "| Best-of-N | 4 | 0.46 [0.33, 0.71] | 1.46 [1.33, 1.71] | 2.46 [2.33, 2.71] | "
            "3.46 [3.33, 3.71] |\n"
            "| Best-of-N, equal compute | 13 | 1.00 [0.88, 1.25] | 2.00 [1.88, 2.25] | "
            "3.00 [2.88, 3.25] | 4.00 [3.88, 4.25] |\n"
            "| SMC | 4 | −1.00 [−1.12, −0.75] | 0.00 [−0.12, 0.25] | 1.00 [0.88, 1.25] | "
            "2.00 [1.88, 2.25] |\n"
            "| Lookahead | 4 | 12.00 | 13.00 | 14.00 | 15.00 |"
        ),
        (
            "Difference to Best-of-N, equal compute, pair by pair; share of the pairs that have "
            "its sign:"
        ),
        (
            f"| Method | K {heads}\n{rule}\n"
            "| Best-of-N | 4 | +0.46 [+0.33, +0.71], 75% | −0.54 [−0.67, −0.29], 75% | "
            "−1.54 [−1.67, −1.29], 75% | −2.54 [−2.67, −2.29], 75% |\n"
            "| SMC | 4 | −1.00 [−1.12, −0.75], all | −2.00 [−2.12, −1.75], all | "
            "−3.00 [−3.12, −2.75], all | −4.00 [−4.12, −3.75], all |\n"
            "| Lookahead | 4 | +12.00, all | +11.00, all | +10.00, all | +9.00, all |"
        ),
        (
            "| Method | K | Compute / EntRGi's | Seconds per prompt |\n"
            "| --- | ---: | ---: | ---: |\n"
            f"| Best-of-N | 4 | {seconds}\n| Best-of-N, equal compute | 13 | {seconds}\n"
            f"| SMC | 4 | {seconds}\n| Lookahead | 4 | {seconds}"
        ),
        (
            "2 pairs of full networks, of the training seeds 41, 42; 64 held-out prompts x 3 seeds "
            "each; brackets are Student's 95% intervals over the pairs.\n"
            "Settings: SMC: beta = 0.5, candidates = 5; Lookahead: beta = 2.\n"
            "Compute is counted: positions x parameters, a backward pass as one forward pass, K "
            "rounded up."
        ),
    ]
    alone = rivals.Rivals((41,), True, 8, (1,))._text(rows, 1)
    said = "1 pair of quick networks, of the training seeds 41; 8 held-out prompts x 1 seed each; "
    assert said in alone


def winning(low, same_sign, mean=1.0):
    """What decides at the measure `top1`."""
    return {
        "measures": {"top1": {"mean": mean}},
        "differences": {"top1": {"low": low}},
        "same_sign": {"top1": same_sign},
    }


def test_who_wins_is_above_zero_on_every_pair_the_highest_mean_first():
    rows = {
        "bon_equal_compute": winning(1.0, 1.0, 9.0),
        "aps": winning(0.0, 1.0),
        "bon": winning(None, 1.0),
        "damped": winning(0.1, 1.0, 1.0),
        "entrgi": winning(0.1, 0.8, 5.0),
        "smc": winning(0.001, 1.0, 2.0),
    }
    assert rivals.winners(rows, "top1") == ["smc", "damped"]


def test_the_designs_of_the_rivals():
    quick, full = rivals.design(True, 1, None), rivals.design(False, 41, None)
    assert quick == rivals.Rivals((1,), True, 8, (1,))
    assert full == rivals.Rivals((41, 42, 43, 44, 45), False, 64, (1, 2, 3))
    assert full.units == ("41", "42", "43", "44", "45")
    assert rivals.same_sign(np.array([0.0, 1.0])) == 0.5
    assert rivals.recorded(student(np.array([2.0]))) == {"mean": 2.0, "low": None, "high": None}
