"""docs/preregistered.md: what it asks was written before it was run, and has not changed since."""

import json
import re
import subprocess

import pytest

from building.records import RECORDS, ROOT

PAGE = "docs/preregistered.md"
STUDIES = {
    "exact-distribution": ("a", "b", "c", "d", "e"),
    "claims": ("f", "g"),
    "rivals": ("h",),
    "exact-infilling": ("i",),
}
"""The record of each registered study, and the questions that it answers."""


def questions(text):
    """The text of each question, by its letter."""
    found = re.findall(r"^## \((\w)\) (.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return {letter: body.strip() for letter, body in found}


def asked_before(root, letters, commit):
    """Raise `AssertionError` unless the page of a record's commit asks the questions as the page of
    today does, and an earlier commit asked them.
    """
    now = questions((root / PAGE).read_text(encoding="utf-8"))
    for when in (commit, f"{commit}^"):
        shown = subprocess.run(
            ["git", "-C", str(root), "show", f"{when}:{PAGE}"], capture_output=True, text=True
        )
        then = questions(shown.stdout)
        for letter in letters:
            assert letter in then, f"{when} does not ask ({letter})"
            assert then[letter] == now[letter], f"{when} asks ({letter}) in other words"


def test_every_question_has_its_study_and_its_parts():
    found = questions((ROOT / PAGE).read_text(encoding="utf-8"))
    assert sorted(found) == sorted(q for asked in STUDIES.values() for q in asked)
    for body in found.values():
        for part in ("Hypothesis", "Design", "Success"):
            assert f"*{part}" in body


@pytest.mark.parametrize("name", [n for n in STUDIES if (RECORDS / f"{n}.json").exists()])
def test_a_record_is_of_code_that_came_after_the_question(name):
    commit = json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))["commit"]
    known = subprocess.run(["git", "-C", str(ROOT), "cat-file", "-e", f"{commit}^"])
    if known.returncode:
        pytest.skip("no history at hand")
    asked_before(ROOT, STUDIES[name], commit)


def test_the_order_and_every_change_are_seen(tmp_path):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        run = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()

    def committed(text):
        (tmp_path / PAGE).parent.mkdir(exist_ok=True)
        (tmp_path / PAGE).write_text(text)
        git("add", "-A")
        git("commit", "--allow-empty", "-m", "a")
        return git("rev-parse", "HEAD")

    git("init")
    before = committed("nothing\n")
    asking = committed("## (a) Is it so? { #a }\n\nBy how much.\n")
    after = committed("## (a) Is it so? { #a }\n\nBy how much.\n")
    asked_before(tmp_path, "a", after)
    for commit in (before, asking):
        with pytest.raises(AssertionError, match="does not ask"):
            asked_before(tmp_path, "a", commit)
    committed("## (a) Is it so? { #a }\n\nBy anything at all.\n")
    with pytest.raises(AssertionError, match="in other words"):
        asked_before(tmp_path, "a", after)
