"""Tables of the page on testing: the twenty mistakes, and the record of `make mutants`."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator

from . import records

CONCEPTUAL = records.ROOT / "tests" / "mutants" / "conceptual.py"
HARMLESS = records.ROOT / "tests" / "mutants" / "harmless.json"
"""Why a survivor is harmless: file -> change -> reason."""


def mistakes() -> str:
    """The mistakes that `make test` tries: what is wrong, and a test that notices it."""
    lines = ["| Mistake | In place of | stands | A test that fails |", "|---|---|---|---|"]
    for name, file, right, wrong, test in _mistakes():
        cells = [name, f"`{file}`: {_code(right)}", _code(wrong), _code(test)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mistakes() -> Iterator[tuple[str, str, str, str, str]]:
    """Read from the source: a page does not need what the tests need."""
    tree = ast.parse(CONCEPTUAL.read_text(encoding="utf-8"))
    known = {"CORE": "entrgi_ref/"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(value, ast.Call):
                    file, right, wrong, tests = value.args
                    assert isinstance(tests, ast.Call)
                    where, name = (ast.literal_eval(part) for part in tests.args[:2])
                    path = eval(compile(ast.Expression(file), "", "eval"), {}, known)
                    yield (
                        str(key.value),
                        path,
                        *(ast.literal_eval(part) for part in (right, wrong)),
                        f"test_{where}.py::test_{name}",
                    )


def score() -> str:
    """Caught and surviving mutants, by room."""
    record = records.read("mutants")
    lines = ["| Room | Mutants tried | Caught | Share |", "|---|---:|---:|---:|"]
    for room, found in record["rooms"].items():
        share = found["killed"] / found["tried"]
        tried = (
            f"{found['tried']} of {found['of']}" if found["tried"] < found["of"] else found["of"]
        )
        lines.append(f"| {room} | {tried} | {found['killed']} | {share:.1%} |")
    return "\n".join(lines)


def survivors() -> str:
    """Every mutant that no test notices, and why that is harmless, as far as it is known."""
    reasons = json.loads(HARMLESS.read_text(encoding="utf-8"))
    lines = ["| Where | Change | Why it is harmless |", "|---|---|---|"]
    for found in records.read("mutants")["rooms"].values():
        for mutant in found["survivors"]:
            reason = reasons.get(mutant["file"], {}).get(mutant["change"], "**not looked into**")
            lines.append(f"| `{mutant['file']}` | {_code(mutant['change'])} | {reason} |")
    return "\n".join(lines)


def _code(text: str) -> str:
    """Code in a cell of a table."""
    tick = "``" if "`" in text else "`"
    return f"{tick}{text.strip().replace('|', chr(92) + '|')}{tick}"
