"""docs/ledger.md: every row is there, its tests exist, its numbers are those of the record."""

import re

import pytest

from building import hooks, records
from building.records import ROOT
from entrgi_ref import EQUATIONS, SamplingConfig

TEXT = (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")
ROWS = {found["row"]: found["text"] for found in hooks.LEDGER_ROW.finditer(TEXT)}


def test_every_row_is_there():
    assert [int(row) for row in ROWS if row.isdigit() and int(row) <= 16] != []
    assert {int(row) for row in ROWS if row.isdigit()} >= set(range(1, 17))
    assert len(ROWS) == len(re.findall("^### ", TEXT, re.MULTILINE)), "a row without its anchor"


def test_rows_rise():
    places = [(int(row.rstrip("b")), row.endswith("b")) for row in ROWS]
    assert places == sorted(places)


def test_the_list_at_the_top_has_a_link_to_every_row_and_says_how_the_text_stands():
    lines = [line.split(" | ") for line in hooks.ledger().splitlines()[2:]]
    assert [first for first, *_ in lines] == [f"| [{row}](#row-{row})" for row in ROWS]
    stands = {row: text for row, (_, _, text, _) in zip(ROWS, lines, strict=True)}
    assert [row for row in ROWS if stands[row] == "differs"] == ["1", "4", "17", "26"]
    assert {stands[row] for row in ("3", "8", "12")} == {"silent"}
    here = {row: words for row, (*_, words) in zip(ROWS, lines, strict=True)}
    assert here["2"] == "as the authors' code |"
    assert here["15"] == "otherwise |"
    assert here["12"] == "otherwise, with an option |"


def test_links_to_rows_lead_to_one():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    links = [row for page in pages for row in re.findall(r"#row-(\w+)\)", page.read_text("utf-8"))]
    assert len(links) > 5
    assert set(links) <= set(ROWS)


def test_what_the_algorithm_page_says_of_the_authors_code_names_its_row():
    _, *paragraphs = (ROOT / "docs" / "algorithm.md").read_text("utf-8").split("\n\n")
    remarks = [text for text in paragraphs[2:] if re.search("authors' (page and )?code", text)]
    assert len(remarks) > 5
    for remark in remarks:
        assert re.search(r"\brows? \d|ledger\.md#row-", remark), remark


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<p>see row 3.</p>", '<p>see <a href="../ledger.html#row-3">row 3</a>.</p>'),
        (
            "<p>Rows 1,\n12b and 14</p>",
            (
                '<p>Rows <a href="../ledger.html#row-1">1</a>,\n'
                '<a href="../ledger.html#row-12b">12b</a> and '
                '<a href="../ledger.html#row-14">14</a></p>'
            ),
        ),
        ("<td>3: bfloat16</td>", '<td><a href="../ledger.html#row-3">3</a>: bfloat16</td>'),
        *(
            (same, same)
            for same in (
                '<a href="x"><b>row</b> row 3</a>',
                '<pre id="p">row 3</pre> <code>row 3</code>',
                '<p title="row 3">a row of 3, three rows, arrow 3</p>',
            )
        ),
    ],
)
def test_a_row_that_a_page_speaks_of_becomes_a_link(page, expected):
    assert hooks.with_links_to_rows(page, "../") == expected


def test_a_row_that_is_not_there_fails_the_build():
    for page in ("<p>row 99</p>", "<p>rows 1 to 99</p>"):
        with pytest.raises(KeyError, match="no row 99"):
            hooks.with_links_to_rows(page, "")


@pytest.mark.parametrize("row", ROWS)
def test_a_row_says_what_each_does_and_who_holds_it(row):
    content = ROWS[row]
    assert re.search(r"^- Text(: silent| differs: | says less: | agrees: )", content, re.MULTILINE)
    assert "- Authors: " in content
    assert "- Ours: " in content
    tests = content.partition("- Test: ")[2]
    assert tests, "no test"
    module = None
    for name in re.findall(r"`([\w.:/]+)`", tests):
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
