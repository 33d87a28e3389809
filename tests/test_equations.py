"""Every equation of the method has its code, and the code says what it computes."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import entrgi_ref
from entrgi_ref import EQUATIONS, IMPLEMENTATIONS
from entrgi_ref.equations import equation

ROOT = Path(__file__).parent.parent
METHOD = [f"Eq. {number}" for number in range(1, 9)] + ["Alg. 1"]
"""The eight equations of the method, and its algorithm."""


def code_of(id):
    module, name = IMPLEMENTATIONS[id].split(":")
    return getattr(importlib.import_module(module), name)


def test_every_number_of_the_method_has_an_equation():
    assert sorted({e.number for e in EQUATIONS.values()}) == sorted(METHOD)


def test_every_equation_has_code_and_all_marked_code_an_equation():
    assert set(IMPLEMENTATIONS) == set(EQUATIONS)


def test_markers_in_the_source_are_the_registry():
    found = []
    for path in sorted((ROOT / "entrgi_ref").rglob("*.py")):
        found += re.findall(r'^@equation\("([a-z:-]+)"\)', path.read_text(), re.MULTILINE)
    assert sorted(found) == sorted(EQUATIONS)


@pytest.mark.parametrize("id", sorted(EQUATIONS))
def test_the_first_line_names_the_equation_and_the_source_is_given(id):
    doc = inspect.getdoc(code_of(id))
    if EQUATIONS[id].number.startswith("Eq."):
        assert doc.startswith(EQUATIONS[id].number)
    assert re.search(r"Source:|Source: ", doc), "a docstring says where its statement comes from"
    assert re.fullmatch(r"(seed|page|code|ours)(, (seed|page|code|ours))*", EQUATIONS[id].source)


def test_ids_are_known():
    with pytest.raises(KeyError, match="eq:nothing"):
        equation("eq:nothing")


def test_ids_in_the_documents_exist():
    for path in (ROOT / "docs").rglob("*.md"):
        for id in re.findall(r"\b((?:eq|alg):[a-z-]+)", path.read_text()):
            assert id in EQUATIONS, f"{path.name} names {id}"


def test_public_names():
    """Checks outside of this repository import these."""
    for name in (
        "token_distribution soft_embedding hard_embedding entropy entropy_weight interpolate "
        "WEIGHTS guide generate GuidanceConfig SamplingConfig predict draw_candidates rank commit "
        "schedule Step how_many"
    ).split():
        assert name in entrgi_ref.__all__
        assert hasattr(entrgi_ref, name)
    assert list(inspect.signature(entrgi_ref.guide).parameters) == [
        *("logits", "reward", "weight", "steps", "step_size", "temperature", "top_p", "draw"),
        *("optimiser", "observe", "trajectories"),
    ]
    assert list(inspect.signature(entrgi_ref.generate).parameters) == [
        *("denoiser", "reward", "prompts", "config", "start", "keys", "observe", "draws"),
        "vocabulary_batch",
    ]
