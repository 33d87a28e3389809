"""docs/preregistered.md: what it asks was written before it was run."""

import json
import re
import subprocess

import pytest

from building.records import RECORDS, ROOT

PAGE = "docs/preregistered.md"
STUDIES = {"exact-distribution": ("a", "b", "c", "d", "e")}
"""The record of each registered study, and the questions that it answers."""


def git(*words):
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)


def test_every_question_has_its_study_and_its_parts():
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## \((\w)\) (.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert sorted(sections) == sorted(q for asked in STUDIES.values() for q in asked)
    for body in sections.values():
        for part in ("Hypothesis", "Design", "Success"):
            assert f"*{part}" in body


@pytest.mark.parametrize("name", STUDIES)
def test_a_record_is_of_code_that_came_after_the_question(name):
    path = RECORDS / f"{name}.json"
    if not path.exists():
        pytest.skip("not run yet")
    if git("rev-parse", "--is-inside-work-tree").returncode:
        pytest.skip("no checkout")
    if git("rev-parse", "--is-shallow-repository").stdout.strip() == "true":
        pytest.skip("a shallow clone does not know what came first")
    commit = json.loads(path.read_text(encoding="utf-8"))["commit"]
    for question in STUDIES[name]:
        asked = git("log", "--format=%H", "-S", f"{{ #{question} }}", "--", PAGE).stdout.split()
        assert asked, question
        assert not git("merge-base", "--is-ancestor", asked[-1], commit).returncode, question


def test_the_order_is_seen():
    """A commit before the question is none of its descendants."""
    first = git("rev-list", "--max-parents=0", "HEAD").stdout.split()
    asked = git("log", "--format=%H", "-S", "{ #a }", "--", PAGE).stdout.split()
    if not asked:
        pytest.skip("no history at hand")
    assert git("merge-base", "--is-ancestor", asked[-1], first[0]).returncode
