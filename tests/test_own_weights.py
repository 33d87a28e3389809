"""Weights of one's own by MODULE:FUNCTION, from the command line to the record."""

import json
import pickle
import sys
from dataclasses import replace

import pytest
import torch
from paper_runs import TINY_BASE, tiny_run
from test_answer import FEW, SHORT, config, invoke, pair, read

from entrgi_ref import SamplingConfig, generate
from entrgi_ref.commands.own_weights import OwnWeight, named, settings_of
from entrgi_ref.paper.declared.experiments import LABELS
from entrgi_ref.paper.declared.plan import Plan
from entrgi_ref.paper.run import estimate
from entrgi_ref.paper.run.records import read_records
from entrgi_ref.paper.shown import report
from entrgi_ref.relaxation import entropy_weight
from tiny_testbed import TinyTestbed

HALF = """\
from entrgi_ref import entropy_weight

SHARE = 0.5

def half_of_entrgi(logits):
    return scaled(entropy_weight(logits))

def scaled(weight):
    return SHARE * weight

def other(logits):
    return logits.new_ones(len(logits))
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes my_weights.py into the current folder, as if for a process that begins now."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(code, name="my_weights"):
        (tmp_path / f"{name}.py").write_text(code)
        sys.modules.pop(name, None)

    yield write
    sys.modules.pop("my_weights", None)


def test_what_it_names_is_what_is_called(module):
    module(HALF)
    own = OwnWeight.load("my_weights:half_of_entrgi")
    logits = torch.randn(5, 9)
    assert torch.equal(own(logits), 0.5 * entropy_weight(logits))
    assert pickle.loads(pickle.dumps(own)) == own
    settings = settings_of(SamplingConfig().guided(weight=own))
    assert settings["guidance"]["weight"] == "half_of_entrgi"
    assert settings["own_weight"] == own.declaration
    assert (own.module, own.function) == ("my_weights", "half_of_entrgi")
    with pytest.raises(ValueError, match="JSON cannot hold code"):
        SamplingConfig().guided(weight=own).to_json()


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (("SHARE = 0.5", "SHARE = 0.4"), False),
        (("SHARE * weight", "SHARE * weight**2"), False),
        (("entropy_weight(logits)", "1 - entropy_weight(logits)"), False),
        (("new_ones", "new_zeros"), True),
        (("def scaled", "# a comment\ndef scaled"), True),
    ],
)
def test_the_hash_is_of_what_it_uses(module, change, same):
    module(HALF)
    before = OwnWeight.load("my_weights:half_of_entrgi")
    module(HALF.replace(*change))
    assert (OwnWeight.load("my_weights:half_of_entrgi").source == before.source) == same


def test_the_hash_follows_an_import(module):
    module("from my_weights import half_of_entrgi", "shown")
    module(HALF)
    try:
        assert (
            OwnWeight.load("shown:half_of_entrgi").source
            == OwnWeight.load("my_weights:half_of_entrgi").source
        )
    finally:
        del sys.modules["shown"]


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        ("my_weights:", "", "expected MODULE:FUNCTION"),
        ("my weights:half", "", "expected MODULE:FUNCTION"),
        ("no_weights:half", "", "there is no module no_weights, neither in .* nor installed"),
        (
            "my_weights:half",
            "import no_such",
            r"failed \(ModuleNotFoundError: No module named 'no_",
        ),
        ("my_weights:half", "half = 1 / 0", r"importing my_weights failed \(ZeroDivisionError"),
        ("my_weights:half", "def halve(l): ...", "my_weights has no half; its functions: halve"),
        ("my_weights:half", "half = 0.5", "got 0.5, expected a function"),
        ("my_weights:half", "half = lambda: 1", r"cannot be called with logits \[4, 4096\] \(Type"),
        ("my_weights:half", "half = lambda l: 0.5", "got 0.5, expected a tensor of shape"),
        (
            "my_weights:half",
            "half = lambda l: l",
            r"got shape \[4, 4096\], expected \[n\], one for",
        ),
        (
            "my_weights:half",
            "half = lambda l: l.new_full((4,), 1.5)",
            "gives 1.5, 1.5, 1.5, 1.5, e",
        ),
        ("my_weights:half", "half = lambda l: l.softmax(1).amin(1) - 1e-6", "gives -"),
        ("my_weights:half", "half = lambda l: l.mean(1) * 0", "gives nan, expected finite"),
        ("my_weights:aps", "aps = lambda l: l.new_ones(4)", "aps is the name of another method"),
        ("my_weights:smc", "smc = lambda l: l.new_ones(4)", "smc is the name of another method"),
        ("entrgi", "", "methods: got 'entrgi', expected one of 'bon'"),
    ],
)
def test_what_is_wrong_is_one_line(module, given, code, message):
    module(code)
    with pytest.raises(ValueError, match=message) as error:
        named([given], ["bon"], LABELS)
    assert "\n" not in str(error.value)


def test_two_modules_may_not_have_one_name(module):
    module(HALF)
    module(HALF.replace("0.5", "0.4"), "your_weights")
    names, own = named(["my_weights:half_of_entrgi", "bon", "my_weights:other"], ["bon"])
    assert (names, list(own)) == (["half_of_entrgi", "bon", "other"], ["half_of_entrgi", "other"])
    with pytest.raises(ValueError, match="is the name of another method"):
        named(["my_weights:half_of_entrgi", "your_weights:half_of_entrgi"], [])
    del sys.modules["your_weights"]


def test_a_run_has_it_by_its_name(module, tmp_path):
    """Records, run.json and report; and another function by that name is refused."""
    module(HALF)
    run, own = tmp_path / "run", "my_weights:half_of_entrgi"
    tiny_run(run, methods=["bon"], asked=True, prompts=2)
    tiny_run(run, methods=["bon", own], asked=True, prompts=2)  # may come later
    testbed, source = TinyTestbed(), OwnWeight.load(own).declaration
    for record in read_records(run):
        assert record["method"] in ("bon", "half_of_entrgi")
        if record["method"] != "bon":
            base = TINY_BASE.guided(weight=lambda logits: 0.5 * entropy_weight(logits))
            one = replace(base, seed=1)
            found = generate(testbed.denoise, testbed.judge, [record["prompt"]], one)
            assert record["responses"] == found.responses[0]
            assert record["settings"]["guidance"]["weight"] == "half_of_entrgi"
            assert record["settings"]["own_weight"] == source
    asked = json.loads((run / "run.json").read_text())["asked"]
    assert asked[-1]["own_weights"] == {"half_of_entrgi": source}
    text, files = report.write(run, tmp_path / "report")
    assert "| half_of_entrgi" in text
    assert ">half_of_entrgi<" in next(f for f in files if f.suffix == ".svg").read_text()

    module(HALF.replace("0.5", "0.4"))
    message = "has answers of half_of_entrgi, which has changed since .source [0-9a-f]{16} there"
    with pytest.raises(ValueError, match=message):
        tiny_run(run, methods=["bon", own], asked=True, prompts=2)
    plan = Plan.of("main", TINY_BASE, [1], 3, 2, [own])
    with pytest.raises(ValueError, match=message):
        estimate.estimate(plan, testbed, run)
    tiny_run(run, methods=["bon"], asked=True, prompts=3)  # without it the run goes on


def test_one_prompt_by_it(module, tmp_path):
    module(HALF)
    own = OwnWeight.load("my_weights:half_of_entrgi")
    shown = invoke(
        SHORT, *FEW, "--method", "bon,my_weights:half_of_entrgi", "--out", tmp_path / "o"
    )
    assert "half_of_entrgi" in shown
    _, one = read(tmp_path / "o")["answers"]
    expected = generate(*pair("float64"), [SHORT], config(own))
    assert one["responses"] == expected.responses[0]
    assert (one["method"], one["settings"]["own_weight"]) == ("half_of_entrgi", own.declaration)
