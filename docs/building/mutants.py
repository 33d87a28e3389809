"""Tables of the page on testing: twenty mistakes, and what `make mutants` found."""

from __future__ import annotations

import importlib
import json
import sys

from . import records

TESTS = records.ROOT / "tests"
HARMLESS = TESTS / "mutants" / "harmless.json"
"""Why a survivor is harmless: file -> change -> reason."""


def mistakes() -> str:
    """The mistakes that `make test` tries: what is wrong, and a test that notices it."""
    lines = ["| Mistake | In place of | stands | A test that fails |", "|---|---|---|---|"]
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    for name, mistake in importlib.import_module("mutants.conceptual").MISTAKES.items():
        test = mistake.tests[0].removeprefix("tests/")
        cells = [f"`{mistake.file}`: {_code(mistake.right)}", _code(mistake.wrong), _code(test)]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def score() -> str:
    """How many mutants were caught, by room."""
    lines = ["| Room | Mutants | Caught | Share |", "|---|---:|---:|---:|"]
    for room, found in records.read("mutants")["rooms"].items():
        of = f"{found['tried']}" + (f" of {found['of']}" if found["tried"] < found["of"] else "")
        share = found["killed"] / found["tried"]
        lines.append(f"| {room} | {of} | {found['killed']} | {share:.1%} |")
    return "\n".join(lines)


def survivors(room: str) -> str:
    """Every mutant of a room that no test notices, and why that is harmless; folded."""
    reasons = json.loads(HARMLESS.read_text(encoding="utf-8"))
    lines = ["| Where | In place of | stands | Why it is harmless |", "|---|---|---|---|"]
    found = records.read("mutants")["rooms"][room]["survivors"]
    for mutant in found:
        right, _, wrong = mutant["change"].partition(" -> ")
        reason = reasons[mutant["file"]][mutant["change"]]
        lines.append(f"| `{mutant['file']}` | {_code(right)} | {_code(wrong)} | {reason} |")
    body = "\n".join(f"    {line}" for line in lines)
    return f'??? note "{room}: {len(found)} survivors"\n\n{body}'


def _code(text: str) -> str:
    """Code in a cell of a table."""
    return f"`{text.strip().replace('|', chr(92) + '|')}`" if text else "nothing"
