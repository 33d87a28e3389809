"""Where the code is broken, and how: the operators of cosmic-ray, one of a kind at each place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import parso
from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes
from cosmic_ray.mutating import mutate_code

ROOMS = {
    "algorithm": ("entrgi_ref/*.py", "entrgi_ref/fast/*.py", "entrgi_ref/rivals/*.py"),
    "models": ("entrgi_ref/models/*.py",),
    "experiments": (
        *("entrgi_ref/commands/*.py", "entrgi_ref/watching/*.py", "entrgi_ref/paper/*.py"),
        *(f"entrgi_ref/paper/{room}/*.py" for room in ("declared", "judged", "measured", "run")),
        "entrgi_ref/paper/shown/*.py",
    ),
    "toy": ("toy/*.py", "toy/laboratory/*.py"),
}
"""The files of each room."""
LEFT_OUT = (
    "entrgi_ref/fast/nucleus_kernel.py",  # runs on a GPU, or slowly: make test-kernel
    "entrgi_ref/paper/shown/figures.py",
    "toy/figures.py",
)
"""Figures are looked at."""

OTHER = {
    "Add": "Sub",
    "Sub": "Add",
    "Mul": "Div",
    "Div": "Mul",
    "FloorDiv": "Mul",
    "Mod": "FloorDiv",
    "Pow": "Mul",
    "BitAnd": "BitOr",
    "BitOr": "BitAnd",
    "BitXor": "BitAnd",
    "LShift": "RShift",
    "RShift": "LShift",
}
"""One wrong operator for each: the others of cosmic-ray's eleven are caught as this one is."""
BESIDE = {
    "Eq": "NotEq",
    "NotEq": "Eq",
    "Lt": "LtE",
    "LtE": "Lt",
    "Gt": "GtE",
    "GtE": "Gt",
    "Is": "IsNot",
    "IsNot": "Is",
}
"""The nearest wrong comparison: its value differs at the border alone, where there is one."""
OPERATORS = (
    *(f"core/ReplaceBinaryOperator_{right}_{wrong}" for right, wrong in OTHER.items()),
    *(f"core/ReplaceComparisonOperator_{right}_{wrong}" for right, wrong in BESIDE.items()),
    *(f"core/ReplaceUnaryOperator_{name}" for name in ("Delete_Invert", "Delete_USub")),
    *("core/AddNot", "core/ReplaceAndWithOr", "core/ReplaceOrWithAnd"),
    *("core/ReplaceTrueWithFalse", "core/ReplaceFalseWithTrue", "core/NumberReplacer"),
    *("core/ReplaceBreakWithContinue", "core/ReplaceContinueWithBreak"),
    *("core/ExceptionReplacer", "core/RemoveDecorator", "core/ZeroIterationForLoop"),
)


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    file: str
    lines: tuple[int, int]
    """First and last of its statement; (0, 0) for code that runs when the module is imported."""
    operator: str
    occurrence: int
    """Which of the operator's places in the file."""

    def code(self, root: Path) -> str:
        """The file with the change."""
        operator = plugins.get_operator(self.operator)()
        changed = mutate_code((root / self.file).read_text(), operator, self.occurrence)
        if changed is None:
            raise ValueError(f"{self} is no place of {self.file}: the file has changed")
        return changed


def files(root: Path, room: str) -> list[str]:
    """The files of a room."""
    found = (str(path.relative_to(root)) for glob in ROOMS[room] for path in root.glob(glob))
    return sorted(file for file in found if file not in LEFT_OUT)


def mutants(root: Path, file: str) -> Iterator[Mutant]:
    """Every change of a file, but for those that change nothing: see `_left_out`."""
    source = (root / file).read_text()
    tree = parso.parse(source)
    nodes = list(ast_nodes(tree))
    left_out, whole = _left_out(tree), statements(source)
    named = {(n.start_pos, n.end_pos) for n in nodes if n.type == "namedexpr_test"}
    for name in OPERATORS:
        operator = plugins.get_operator(name)()
        found = [place for node in nodes for place in operator.mutation_positions(node)]
        for occurrence, (start, end) in enumerate(found):
            if any(first <= start and end <= last for first, last in left_out):
                continue
            if name == "core/AddNot" and (start, end) in named:
                continue  # `if not found := ...` is no Python
            yield Mutant(file, whole.get(start[0], (0, 0)), name, occurrence)


def _left_out(tree: parso.tree.NodeOrLeaf) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """From where to where nothing is changed.

    Types and protocols, which nothing reads when the code runs; stars that multiply nothing; what
    says how a dataclass is made; `strict=` of zip, which is an assertion; the sign of a number, as
    the number itself is changed too; and of several exceptions one with a dot in its name, which
    cosmic-ray cannot change.
    """
    found = []
    for node in ast_nodes(tree):
        one = None
        if node.type in ("param", "funcdef"):
            one = node.annotation
        elif node.type == "annassign":
            one = node.children[1]
        elif _changes_nothing(node):
            one = node
        elif node.type == "factor" and node.children[1].type == "number":
            one = node.children[0]
        if one is not None:
            found.append((one.start_pos, one.end_pos))
    return found


def _changes_nothing(node: parso.tree.NodeOrLeaf) -> bool:
    if node.type == "operator":
        return node.value in ("*", "**") and node.parent.type not in ("term", "power")
    if node.type == "decorator":
        return "dataclass" in node.get_code()
    if node.type == "classdef":
        bases = node.get_super_arglist()
        return bases is not None and "Protocol" in bases.get_code()
    if node.type in ("power", "atom_expr") and node.parent.type == "testlist_comp":
        return "." in node.get_code() and node.search_ancestor("except_clause") is not None
    return node.type == "argument" and node.get_code().strip().startswith("strict=")


def statements(source: str) -> dict[int, tuple[int, int]]:
    """From where to where the statement of each line in a function goes; of one with a body, its
    head.
    """
    found = {}
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in (inner for part in function.body for inner in ast.walk(part)):
                if isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case):
                    body = getattr(node, "body", None)
                    first = getattr(node, "lineno", None) or node.pattern.lineno
                    last = max(first, body[0].lineno - 1) if body else node.end_lineno
                    found |= dict.fromkeys(range(first, last + 1), (first, last))
    return found
