"""docs/ledger.md: every row is there, its tests exist, its numbers are those of the record."""

import re

import pytest

from building import records
from building.records import ROOT
from entrgi_ref import EQUATIONS, SamplingConfig

TEXT = (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\*\*(\d+b?)\. (.*?)(?=^\*\*\d|^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))


def test_every_row_is_there():
    assert [int(row) for row in ROWS if row.isdigit() and int(row) <= 16] != []
    assert {int(row) for row in ROWS if row.isdigit()} >= set(range(1, 17))


@pytest.mark.parametrize("row", ROWS)
def test_a_row_says_what_each_does_and_who_holds_it(row):
    content = ROWS[row]
    assert "- Authors: " in content
    assert "- Ours: " in content
    tests = content.partition("- Test: ")[2]
    assert tests, "no test"
    module = None
    for name in re.findall(r"`([\w.:]+)`", tests):
        file, _, function = name.rpartition("::") if "::" in name else (None, None, name)
        if name.endswith(".py"):
            module, function = name, None
        elif file:
            module = file
        source = (ROOT / "tests" / module).read_text(encoding="utf-8")
        assert function is None or f"def {function}(" in source, name
    for identifier in re.findall(r"`((?:eq|alg):[\w-]+)`", content):
        assert identifier in EQUATIONS


def test_authors_switches_the_rows_that_it_says():
    assert "`SamplingConfig.authors()` switches rows 1, 3, 8 and 12" in TEXT
    ours, theirs = SamplingConfig(eos_last=False), SamplingConfig(eos_last=False).authors()
    assert (ours.guidance.epsilon, theirs.guidance.epsilon) == (0, 1e-10)
    assert (ours.guidance.dtype, theirs.guidance.dtype) == ("float32", "denoiser")
    assert (ours.eos_last, theirs.eos_last) == (False, True)
    assert (ours.write_every_id, theirs.write_every_id) == (False, True)


def test_measured_effects_are_the_records():
    assert len(records.BLOCK.findall(TEXT)) == 1
    assert records.filled(TEXT) == TEXT
    effects = records.read("ledger")["rows"]
    for row in ("1: 1e-10 inside the logarithm", "7: empty steps run"):
        assert effects[row]["tokens"]["high"] == 0
