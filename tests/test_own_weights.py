"""Weights of one's own by MODULE:FUNCTION, from the command line to the record."""

import json
import pickle
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import ModuleType

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


def test_what_its_trial_did_not_show_is_one_line_too(module):
    module(
        "def half(l):\n"
        "    if l.shape[1] == 9: raise KeyError('only\\nlarge')\n"
        '    if l.shape[1] == 8: raise RuntimeError("can\'t allocate memory")\n'
        "    return l.new_ones(len(l))\n"
    )
    own = OwnWeight.load("my_weights:half")
    message = r"^method: my_weights:half cannot be called with logits \[5, 9\] \(KeyError: .*\)$"
    with pytest.raises(ValueError, match=message):
        own(torch.randn(5, 9))
    with pytest.raises(RuntimeError, match=r"^can't allocate"):  # the run tries smaller batches
        own(torch.randn(5, 8))


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("exit(0)", r"\(SystemExit: 0\)"),
        ("raise GeneratorExit", r"\(GeneratorExit:\)"),
        ("return l.new_ones(len(l)).to_sparse()", "gives torch.float32 that is sparse"),
        ("return l.new_ones(len(l), device='meta')", "gives torch.float32 that is on meta"),
        ("return l.new_ones(len(l)).to(torch.float8_e5m2)", "gives torch.float8_e5m2, expected"),
    ],
)
def test_what_would_end_a_run_without_a_word_is_one_line_too(module, does, said):
    """Whether it comes in the trial or later."""
    code = f"import torch\ndef half(l):\n    if len(l) in TURN: {does}\n    return l.new_ones(4)\n"
    module(f"TURN = [4, 5]\n{code}")
    with pytest.raises(ValueError, match=rf"^method: my_weights:half .*{said}"):
        OwnWeight.load("my_weights:half")
    module(f"TURN = [5]\n{code}")
    with pytest.raises(ValueError, match=rf"^method: my_weights:half .*{said}"):
        OwnWeight.load("my_weights:half")(torch.randn(5, 9))


def test_a_module_that_puts_all_tensors_elsewhere_is_one_line(module):
    """In a thread of its own, which alone has that default device."""
    module("import torch\ntorch.set_default_device('meta')\ndef half(l): return l.new_ones(4)")
    said = r"gives torch.float32 that is on meta, expected plain"
    with ThreadPoolExecutor(1) as thread, pytest.raises(ValueError, match=said):
        thread.submit(OwnWeight.load, "my_weights:half").result()
    assert torch.zeros(1).device.type == "cpu"


def test_ctrl_c_in_a_function_is_no_error_of_its(module):
    module(
        "TURN = []\ndef half(l):\n    if len(l) in TURN: raise KeyboardInterrupt\n"
        "    return l.new_ones(4)"
    )
    own = OwnWeight.load("my_weights:half")
    sys.modules["my_weights"].TURN += [4, 5]
    with pytest.raises(KeyboardInterrupt):
        own(torch.randn(5, 9))
    with pytest.raises(KeyboardInterrupt):
        OwnWeight.load("my_weights:half")
    module("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        OwnWeight.load("my_weights:half")


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
        (
            "my_weights:half",
            "half = lambda l: l.div_(2).mean(1).sigmoid()",
            "it wrote into what it",
        ),
        ("my_weights:half", "half = lambda l: exit(3)", r"cannot be called .* \(SystemExit: 3\)"),
        ("my_weights:half", "exit()", r"importing my_weights failed \(SystemExit"),
        ("my_weights:half", "raise GeneratorExit", r"importing my_weights failed \(GeneratorExit"),
        (
            "my_weights:half",
            "class E(Exception):\n    def __str__(self): raise OSError\nraise E",
            r"failed \(E: it cannot be shown\)",
        ),
        (
            "my_weights:half",
            "def __getattr__(name): raise KeyError(name)",
            r"importing my_weights failed \(KeyError: 'half'\)",
        ),
        (
            "my_weights:half",
            "import sys\nsys.modules[__name__] = None",
            "my_weights is None, expected a module",
        ),
        (
            "my_weights:half",
            "def half(l): return l.new_ones(4)\nhalf.__module__ = 'no_such'",
            "the source of my_weights:half cannot be read",
        ),
        (
            "my_weights:half",
            "__file__ = 5\ndef half(l): return l.new_ones(4)",
            "the source of my_weights:half cannot be read",
        ),
        (
            "my_weights:half",
            "def half(l):\n    l.data.zero_()\n    return l.new_ones(4)",
            "my_weights:half: it wrote into what it was given",
        ),
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


def test_numbers_outside_are_named_and_the_borders_are_inside(module):
    module("half = lambda l: l.new_tensor([0.0, 1.0, -0.5, 1.25])")
    with pytest.raises(ValueError, match=r"my_weights:half gives -0.5, 1.25, expected finite"):
        OwnWeight.load("my_weights:half")
    module("half = lambda l: l.new_tensor([0.0, 1.0, 0.0, 1.0])")
    assert OwnWeight.load("my_weights:half").function == "half"


def test_a_function_is_tried_out_on_logits_of_each_kind(module):
    """Middling ones, nearly certain ones, even ones, and some of which half are banned."""
    module("seen = []\ndef half(l):\n    seen.append(l)\n    return l.softmax(1).amax(1)")
    OwnWeight.load("my_weights:half")
    (logits,) = sys.modules["my_weights"].seen
    middling, certain, even, half = logits
    assert 0.9 < middling.std() < 1.1
    assert certain.softmax(0).max() > 0.95
    assert not even.any()
    assert half.isinf().sum() == 2048
    assert (half[half.isinf()] < 0).all()
    assert 0.9 < half[half.isfinite()].std() < 1.1
    assert middling.isfinite().all()
    assert certain.isfinite().all()


@pytest.mark.parametrize(
    ("code", "functions"),
    [
        ("from entrgi_ref import entropy_weight\nSHARE = 1", "none"),
        ("from entrgi_ref import entropy_weight\ndef a(l): ...\ndef b(l): ...", "a, b"),
    ],
)
def test_a_modules_own_functions_are_named(module, code, functions):
    module(code)
    with pytest.raises(ValueError, match=f"my_weights has no half; its functions: {functions}$"):
        OwnWeight.load("my_weights:half")


def test_the_current_folder_comes_first_unless_somebody_has_put_it_elsewhere(
    module, tmp_path, monkeypatch
):
    module(HALF)
    here, other = str(tmp_path), tmp_path / "other"
    other.mkdir()
    (other / "my_weights.py").write_text(HALF.replace("0.5", "0.25"))
    base = [str(other), *filter(None, sys.path)]
    for path, share, times in ((base, 0.5, 1), (["", *base], 0.5, 0), ([*base, here], 0.25, 1)):
        monkeypatch.setattr(sys, "path", list(path))
        sys.modules.pop("my_weights", None)
        OwnWeight.load("my_weights:half_of_entrgi")
        assert share == sys.modules["my_weights"].SHARE
        assert sys.path.count(here) == times


@pytest.mark.parametrize(
    ("given", "missing"),
    [("my_weights.part:half", "my_weights"), ("my_package.part:half", "my_package.part")],
)
def test_what_is_not_there_of_a_package_is_named(given, missing, module):
    module("", "my_package")
    with pytest.raises(ValueError, match=f"but there is no module {missing}, neither in"):
        OwnWeight.load(given)
    sys.modules.pop("my_package", None)


def test_a_function_without_a_source_is_refused(module, monkeypatch):
    """As of a module that is made while it runs, or whose file is gone."""
    made = ModuleType("my_weights")
    exec("half = lambda l: l.new_ones(4)", vars(made))
    for file in (None, "/nowhere/my_weights.py"):
        if file:
            made.__file__ = file
        monkeypatch.setitem(sys.modules, "my_weights", made)
        with pytest.raises(
            ValueError, match=r"^method: the source of my_weights:half cannot be read"
        ):
            OwnWeight.load("my_weights:half")
    module("globals()['half'] = lambda l: l.new_ones(4)")
    with pytest.raises(ValueError, match="my_weights:half is not defined in the source of my_w"):
        OwnWeight.load("my_weights:half")


KINDS = """\
import math as m
import os.path
from entrgi_ref import entropy_weight as entrgi

if True:
    def scaled(weight):
        return weight * RATE

RATE: float = 0.5
for factor in (1.0,):
    FACTOR = factor
UNUSED = 2

class Kind:
    value = 1.0

class Other:
    value = 0.9

def other():
    RATE = 3.0

TWICE = 1.0
TWICE = 2.0 * TWICE

def half(logits):
    assert os.path.sep and TWICE
    return scaled(entrgi(logits)) * m.sqrt(FACTOR) * Kind.value
"""


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (("math as m", "numpy as m"), False),
        (("os.path", "os.path, sys"), False),
        (("as entrgi", "as entrgi, entropy"), False),
        (("weight * RATE", "weight * RATE**2"), False),
        (("RATE: float = 0.5", "RATE: float = 0.25"), False),
        (("(1.0,)", "(0.5,)"), False),
        (("value = 1.0", "value = 0.5"), False),
        (("value = 0.9", "value = 0.5"), True),
        (("UNUSED = 2", "UNUSED = 3"), True),
        (("RATE = 3.0", "RATE = 4.0"), True),
        (("TWICE = 1.0", "TWICE = 1.5"), False),
        (("TWICE = 2.0", "TWICE = 2.5"), False),
        (("logits)) *", "logits)) * 1 *"), False),
        (("scaled(entrgi(logits))", "scaled( entrgi( logits ) )"), True),
    ],
)
def test_the_hash_is_of_all_that_gives_its_names_a_value(module, change, same):
    module(KINDS)
    before = OwnWeight.load("my_weights:half")
    assert re.fullmatch("[0-9a-f]{16}", before.source)
    assert repr(before) == (
        f"OwnWeight(module='my_weights', function='half', source='{before.source}')"
    )
    assert change[0] in KINDS
    module(KINDS.replace(*change))
    after = OwnWeight.load("my_weights:half")
    assert (after.source == before.source) == same
    assert (after == before) == same  # of another function object


def test_a_function_may_be_named_twice_and_settings_of_others_are_refused(module):
    module(HALF)
    own = "my_weights:half_of_entrgi"
    assert named([own, own], [])[0] == ["half_of_entrgi"] * 2
    assert settings_of(SamplingConfig()) == json.loads(SamplingConfig().to_json())
    for one in (SamplingConfig(lambda step: None), SamplingConfig().guided(weight=lambda l: l)):
        with pytest.raises(ValueError, match="JSON cannot hold code"):
            settings_of(one)


def test_two_modules_may_not_have_one_name(module):
    module(HALF)
    module(HALF.replace("0.5", "0.4"), "your_weights")
    names, own = named(["my_weights:half_of_entrgi", "bon", "my_weights:other"], ["bon"])
    assert (names, list(own)) == (["half_of_entrgi", "bon", "other"], ["half_of_entrgi", "other"])
    alone = Plan.of("main", TINY_BASE, [1], 1, 1, ["my_weights:half_of_entrgi"])
    assert alone.methods == ("half_of_entrgi",)
    with pytest.raises(ValueError, match="is the name of another method"):
        named(["my_weights:half_of_entrgi", "your_weights:half_of_entrgi"], [])
    del sys.modules["your_weights"]


@pytest.mark.draws
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
