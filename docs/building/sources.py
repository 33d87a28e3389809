"""Source code for the pages: by equation id or name, and tests by name. Read, never copied."""

from __future__ import annotations

import ast
import importlib
import inspect
import operator
import textwrap
from dataclasses import dataclass
from pathlib import Path

import entrgi_ref
from entrgi_ref import EQUATIONS, IMPLEMENTATIONS

ROOT = Path(__file__).parent.parent.parent
assert entrgi_ref.__file__  # importing it fills IMPLEMENTATIONS


@dataclass(frozen=True)
class Source:
    """A function's source."""

    file: str
    """Relative to the repository."""
    line: int
    """Its first, decorators included."""
    text: str
    docstring: str | None

    @property
    def code(self) -> str:
        """The source without the docstring, which the pages say in other words, and without the
        marker of the equation.
        """
        return self._lines()[1]

    @property
    def first_line(self) -> int:
        """Where `code` begins in the file."""
        return self._lines()[0]

    def _lines(self) -> tuple[int, str]:
        lines = self.text.splitlines()
        (node,) = ast.parse(self.text).body
        assert isinstance(node, ast.FunctionDef | ast.ClassDef)
        keep = [True] * len(lines)
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            assert first.end_lineno
            keep[first.lineno - 1 : first.end_lineno] = [False] * (
                first.end_lineno - first.lineno + 1
            )
        start = 0
        for decorator in node.decorator_list:
            if ast.unparse(decorator).startswith("equation("):
                assert decorator.end_lineno
                keep[decorator.lineno - 1 : decorator.end_lineno] = [False]
                start = decorator.end_lineno
        return self.line + start, "\n".join(
            line for line, kept in zip(lines, keep, strict=True) if kept
        )


def of(name: str) -> Source:
    """The source of `module:function` or `module:Class.method`, or of an equation id.

    `KeyError` for an unknown one.
    """
    if name in EQUATIONS:
        name = IMPLEMENTATIONS[name]
    module, _, path = name.partition(":")
    found = inspect.unwrap(operator.attrgetter(path)(importlib.import_module(module)))
    lines, line = inspect.getsourcelines(found)
    file = Path(inspect.getsourcefile(found) or "").resolve().relative_to(ROOT)
    text = textwrap.dedent("".join(lines)).rstrip()
    return Source(file.as_posix(), line, text, inspect.getdoc(found))


def lines_of(name: str, *starts: str) -> list[int]:
    """The lines, in the file, that begin with each of `starts` within the source of `name`.

    `KeyError` if one is not there exactly once: what points at a line must not point beside it.
    """
    source = of(name)
    found = []
    for start in starts:
        numbers = [
            source.line + i
            for i, line in enumerate(source.text.splitlines())
            if line.strip().startswith(start)
        ]
        if len(numbers) != 1:
            raise KeyError(f"{start!r} begins {len(numbers)} lines of {name}, expected one")
        found += numbers
    return found


def test(name: str) -> Source:
    """A test by `file.py::function`. `KeyError` if there is none."""
    file, _, function = name.partition("::")
    text = (ROOT / "tests" / file).read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            start = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            lines = text.splitlines()[start - 1 : node.end_lineno]
            return Source(f"tests/{file}", start, "\n".join(lines), ast.get_docstring(node))
    raise KeyError(f"there is no test {name}")
