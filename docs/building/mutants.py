"""The table of the page on testing: twenty mistakes, as the tests have them."""

from __future__ import annotations

import importlib
import sys

from . import records


def mistakes() -> str:
    """The mistakes that `make test` tries: what is wrong, and a test that notices it."""
    tests = str(records.ROOT / "tests")
    if tests not in sys.path:
        sys.path.append(tests)
    lines = ["| Mistake | In place of | stands | A test that fails |", "|---|---|---|---|"]
    for name, mistake in importlib.import_module("mutants.conceptual").MISTAKES.items():
        test = mistake.tests[0].removeprefix("tests/")
        cells = [f"`{mistake.file}`: {_code(mistake.right)}", _code(mistake.wrong), _code(test)]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def _code(text: str) -> str:
    """Code in a cell of a table."""
    return f"`{text.strip().replace('|', chr(92) + '|')}`"
