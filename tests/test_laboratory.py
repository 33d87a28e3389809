"""What the laboratory's commands share: units of work that are kept, and the record."""

import json
import sys
from dataclasses import dataclass, field
from types import ModuleType

import pytest
import typer
from typer.testing import CliRunner

from toy.laboratory import experiment


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
    whole = experiment.results(Squares(), tmp_path / "whole", MADE, lambda _: None)
    stopped = Squares(units=("2", "3"))
    experiment.results(stopped, tmp_path / "parts", MADE, lambda _: None)
    said = []
    rest = Squares()
    assert experiment.results(rest, tmp_path / "parts", MADE, said.append) == whole
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


def test_the_command_prints_and_records(tmp_path, monkeypatch):
    given = []

    def design(quick, first_seed, units):
        given.append((quick, first_seed, units))
        return Squares()

    module = ModuleType("of_squares")
    module.design = design
    monkeypatch.setitem(sys.modules, "of_squares", module)
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
