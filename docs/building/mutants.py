"""Tables of the page on testing: twenty mistakes, and what `make mutants` found."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

from . import records

TESTS = records.ROOT / "tests"
HARMLESS = TESTS / "mutants" / "harmless.json"
"""Why a survivor is harmless: file -> change -> reason."""


RECORDS = ("mutants", "mutants-toy-experiments", "mutants-models", "mutants-models-toy")
"""All of the algorithm's mutants, and shares of those of the other rooms."""


def rooms() -> dict[str, Any]:
    """What was found in each room: of two draws the larger."""
    found: dict[str, Any] = {}
    for name in RECORDS:
        for room, drawn in records.read(name)["rooms"].items():
            if room not in found or drawn["tried"] > found[room]["tried"]:
                found[room] = drawn
    return found


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
    """How many mutants were caught, by room; of a share with what it says of all of them."""
    lines = ["| Room | Mutants | Tried | Caught | Share |", "|---|---:|---:|---:|---:|"]
    for room, found in rooms().items():
        tried, caught = found["tried"], found["killed"]
        share = f"{caught / tried:.1%}"
        if tried < found["of"]:
            low, high = wilson(caught, tried)
            share += f" [{low:.1%}, {high:.1%}]"
        lines.append(f"| {room} | {found['of']} | {tried} | {caught} | {share} |")
    return "\n".join(lines)


def written() -> str:
    """How many mutants that somebody wrote were caught, by room."""
    lines = ["| Room | Tried | Caught |", "|---|---:|---:|"]
    found = records.read("mutants-by-hand")["rooms"]
    lines += [f"| {room} | {tried} | {caught} |" for room, (caught, tried) in found.items()]
    return "\n".join(lines)


def wilson(caught: int, tried: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share."""
    z = 1.96
    middle = (caught + z**2 / 2) / (tried + z**2)
    half = z / (tried + z**2) * (caught * (tried - caught) / tried + z**2 / 4) ** 0.5
    return middle - half, middle + half


def survivors(room: str) -> str:
    """Every mutant of a room that no test notices, and why that is harmless; folded."""
    reasons = json.loads(HARMLESS.read_text(encoding="utf-8"))
    lines = ["| Where | In place of | stands | Why it is harmless |", "|---|---|---|---|"]
    found = rooms()[room]["survivors"]
    for mutant in found:
        right, _, wrong = mutant["change"].partition(" -> ")
        reason = reasons[mutant["file"]][mutant["change"]]
        lines.append(f"| `{mutant['file']}` | {_code(right)} | {_code(wrong)} | {reason} |")
    body = "\n".join(f"    {line}" for line in lines)
    return f'??? note "{room}: {len(found)} survivors"\n\n{body}'


def _code(text: str) -> str:
    """Code in a cell of a table."""
    return f"`{text.strip().replace('|', chr(92) + '|')}`" if text else "nothing"
