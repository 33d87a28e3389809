"""What the command shows of answers: lines for a terminal, and tables as CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import realpath
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from .files import require_file, write_text

if TYPE_CHECKING:
    from ..denoising import Generation

WIDTH = 90
"""Letters of an answer in a line."""


def is_terminal(stream: TextIO | None) -> bool:
    """Whether what is written there is seen on a terminal; None is one that has been closed."""
    return stream is not None and stream.isatty()


def counted(number: int, noun: str, most: int | None = None) -> str:
    """`1 prompt`, `2 batches`; `1 to 2 prompts` where `most` is another number."""
    if most not in (None, number):
        return f"{number} to {counted(most, noun)}"
    several = f"{noun}es" if noun.endswith("ch") else f"{noun}s"
    return f"{number} {noun if number == 1 else several}"


@dataclass(frozen=True)
class Answered:
    """A prompt's answers by one method."""

    prompt: str
    template: str | None
    method: str
    generation: Generation
    by_model: Mapping[str, Sequence[float]]
    """Of a sum of rewards, what each of them gives the answers."""

    @property
    def rewards(self) -> list[float]:
        """One for each answer."""
        found: list[float] = self.generation.rewards[0].tolist()
        return found

    @property
    def responses(self) -> list[str]:
        """The answers."""
        return self.generation.responses[0]

    @property
    def best(self) -> int:
        """Which answer has the largest reward."""
        return int(self.generation.rewards[0].argmax())

    @property
    def top1(self) -> float:
        """Its reward."""
        return self.generation.top1.item()

    @property
    def average(self) -> float:
        """The mean reward."""
        return self.generation.average.item()

    def rows(self) -> list[dict[str, Any]]:
        """A row of a table for each answer."""
        return [
            {
                "prompt": self.prompt,
                "template": self.template,
                "method": self.method,
                "trajectory": k,
                "reward": reward,
                **{f"reward of {name}": values[k] for name, values in self.by_model.items()},
                "best": k == self.best,
                "answer": response,
            }
            for k, (reward, response) in enumerate(zip(self.rewards, self.responses, strict=True))
        ]


def alone(one: Answered) -> list[str]:
    """The lines of a prompt answered by one method: every answer, and the best in full."""
    lines = ["reward  answer"]
    for k, (value, text) in enumerate(zip(one.rewards, one.responses, strict=True)):
        lines.append(f"{value:+6.2f}{'*' if k == one.best else ' '} {_short(text)}")
    shown = one.method if one.generation.config.constant_guidance.steps else "no guidance"
    top = f"Top@1 {one.top1:+.2f}, Avg@K {one.average:+.2f} over {len(one.rewards)} trajectories"
    return [*lines, "", f"{top} ({shown})", *_by_model(one), "", *_whole(one)]


def side_by_side(some: Sequence[Answered]) -> list[str]:
    """The lines of a prompt answered by several methods: a row for each, and the best in full."""
    wide = max(len("method"), *(len(one.method) for one in some))
    best = max(some, key=lambda one: one.top1)
    lines = [f"{'method':{wide}}   Top@1   Avg@K  best answer"]
    for one in some:
        star = "*" if one is best else " "
        lines.append(
            f"{one.method:{wide}}  {one.top1:+6.2f}{star} {one.average:+6.2f}  "
            f"{_short(one.responses[one.best])}"
        )
    lines += ["", f"the best of {best.method}:", *_by_model(best), "", *_whole(best)]
    return lines


def means(answered: Sequence[Answered]) -> list[str]:
    """The lines of several prompts together: a row for each method."""
    methods = list(dict.fromkeys(one.method for one in answered))
    wide = max(len("method"), *map(len, methods))
    distinct = len({(one.prompt, one.template) for one in answered})
    # A prompt may have been given twice.
    prompts = max(distinct, *(sum(one.method == method for one in answered) for method in methods))
    lines = [f"mean of {counted(prompts, 'prompt')}", f"{'method':{wide}}   Top@1   Avg@K"]
    for method in methods:
        mine = [one for one in answered if one.method == method]
        top1, average = (sum(values) / len(mine) for values in _columns(mine))
        lines.append(f"{method:{wide}}  {top1:+6.2f}  {average:+6.2f}")
    return lines


def _columns(some: Sequence[Answered]) -> tuple[list[float], list[float]]:
    return [one.top1 for one in some], [one.average for one in some]


def _by_model(one: Answered) -> list[str]:
    parts = [f"{name} {values[one.best]:+.2f}" for name, values in one.by_model.items()]
    return [f"its reward, before weighting: {', '.join(parts)}"] if parts else []


def _short(text: str) -> str:
    from ..watching import printable

    line = printable(text)
    return f"{line[:WIDTH]}{'...' if len(line) > WIDTH else ''}"


def _whole(one: Answered) -> list[str]:
    from ..watching import printable

    return [printable(line) for line in one.responses[one.best].splitlines()]


TABLES = (".csv", ".json")


def require_table(file: Path, out: Path | None) -> None:
    """Raise `ValueError` unless its name says which kind of table it is to be, and is not that of
    what the command writes into `out`.
    """
    if file.suffix.lower() not in TABLES:
        raise ValueError(f"table: got {str(file)!r}, expected a name that ends in .csv or .json")
    require_file("table", file)
    if out is not None and realpath(file) == realpath(out / "answers.json"):
        raise ValueError(f"table: got {str(file)!r}, which --out writes, expected another name")


def write_table(file: Path, answered: Sequence[Answered]) -> None:
    """A row for each answer: prompt, method, trajectory, reward, whether it is the best, text."""
    rows = [row for one in answered for row in one.rows()]
    if file.suffix.lower() == ".json":
        write_text(file, json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        return
    write_text(file, as_csv(rows))


FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""With which a text begins that a spreadsheet would compute."""


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as comma-separated values under their names; empty where there is None. A text that a
    spreadsheet would compute has an apostrophe before it.
    """
    text = io.StringIO()
    writer = csv.writer(text)  # its line ends are quoted in texts
    writer.writerow([_as_text(name) for name in rows[0]])
    writer.writerows([_as_text(row[name]) for name in rows[0]] for row in rows)
    return text.getvalue()


def _as_text(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULAS) else value
