"""What the command is asked: prompts, from words, a file or standard input, and templates."""

from __future__ import annotations

import codecs
import difflib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from .. import checks
from .files import LONGEST_LINE, read_lines
from .shown import counted

STDIN = "-"
NO_LINES = (".json", ".csv", ".tsv", ".parquet")
"""Endings of files whose lines are no prompts."""
OPEN = "fd"
"""The folder of what the shell has opened, as for `--from <(...)`: such a pipe has its writer."""
MOST_LINES = 2**16
"""Of prompts: all are looked at before the first is answered."""
MOST_BYTES = 4 * LONGEST_LINE
"""Of `LONGEST_LINE` characters."""
BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"
"""With which some programs begin a file."""


@dataclass(frozen=True)
class Asked:
    """A prompt, and the text with blanks that its answer is to fill in, if there is one."""

    prompt: str
    template: str | None = None


def asked(words: Sequence[str], file: str | None, templates: Sequence[str]) -> list[Asked]:
    """The prompts of the command line, then those of a file; `-` is standard input.

    A file has a prompt in each line, or if its name ends in .jsonl an object with the field
    `prompt`, and perhaps `template`. One template is for all prompts, or there is one for each.
    Raises `ValueError` if there is no prompt, or if one is no text.
    """
    sources = [*words, *([] if file is None else [file])]
    if sources.count(STDIN) > 1:
        raise ValueError("prompt: got - twice, expected standard input once")
    found: list[Asked] = []
    for word in words:
        found += _standard_input() if word == STDIN else [Asked(word)]
    if file is not None:
        found += _of_file(file)
    if not found:
        raise ValueError("prompt: got none, expected some text, a file by --from, or - to read")
    for one in found:
        if not one.prompt.strip():
            raise ValueError(f"prompt: got {one.prompt!r}, expected some text")
        checks.text("prompt", one.prompt)
    return _with_templates(found, templates)


def _with_templates(found: list[Asked], templates: Sequence[str]) -> list[Asked]:
    if not templates:
        return found
    if any(one.template is not None for one in found):
        raise ValueError("template: got one beside those of the file, expected one or the other")
    if len(templates) not in (1, len(found)):
        raise ValueError(
            f"template: got {len(templates)} for {counted(len(found), 'prompt')}, "
            "expected one for all, or one for each"
        )
    each = [*templates] * (len(found) if len(templates) == 1 else 1)
    return [Asked(one.prompt, text) for one, text in zip(found, each, strict=True)]


def _of_file(file: str) -> list[Asked]:
    if file == STDIN:
        return _standard_input()
    kind = Path(file).suffix.lower()
    if kind in NO_LINES:
        raise ValueError(
            f"from: got {file!r}, expected a text with a prompt in each line, or a .jsonl file "
            "with an object in each line"
        )
    try:
        if Path(file).is_fifo() and Path(file).parent.name != OPEN:
            raise ValueError("it is a pipe to which nobody may write; give --from - <PIPE")
        lines = list(islice(read_lines(Path(file)), MOST_LINES + 1))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"from: cannot read {file!r}: {reason}") from error
    _require_few(lines, repr(file))
    return _objects(lines, file) if kind == ".jsonl" else _lines(lines, repr(file))


def _standard_input() -> list[Asked]:
    if sys.stdin is None:  # as under some daemons
        raise ValueError("prompt: standard input is closed, expected a prompt in each line of it")
    buffer = getattr(sys.stdin, "buffer", None)
    if buffer is None:  # something else has been put in its place
        text = sys.stdin.read(LONGEST_LINE + 1)
    else:
        text = _decoded(buffer.read(MOST_BYTES + 1), sys.stdin.encoding)
    if len(text) > LONGEST_LINE:
        raise ValueError(f"prompt: standard input has more than {LONGEST_LINE} characters")
    lines = text.lstrip(BOM).removesuffix("\n").replace("\r\n", "\n").split("\n")
    _require_few(lines, "standard input")
    return _lines(lines, "standard input")


def _decoded(data: bytes, encoding: str) -> str:
    """The text of standard input, without half a character where it has been cut."""
    whole = len(data) <= MOST_BYTES
    try:
        return codecs.getincrementaldecoder(encoding)().decode(data, whole)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        name = encoding.upper()
        raise ValueError(f"prompt: standard input is not {name}, in line {line}") from error


def _require_few(lines: Sequence[object], source: str) -> None:
    if len(lines) > MOST_LINES:
        raise ValueError(f"prompt: {source} has more than {MOST_LINES} lines, expected fewer")


def _lines(lines: Sequence[str], source: str) -> list[Asked]:
    # CR alone ends a line, too: of standard input Python itself may make LF of it.
    parts = [part.strip() for line in lines for part in line.split("\r")]
    found = [Asked(part) for part in parts if part]
    _require_few(found, source)
    if not found:
        raise ValueError(f"prompt: {source} is empty, expected a prompt in each line")
    return found


def _objects(lines: Sequence[str], file: str) -> list[Asked]:
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            one = json.loads(line, object_pairs_hook=checks.without_doubles)
        except checks.DoubleKeyError as error:
            raise ValueError(f"from: line {number} of {file!r}: {error}") from error
        except (ValueError, RecursionError) as error:
            raise ValueError(f"from: line {number} of {file!r} is no JSON") from error
        prompt, template = (
            (one.get("prompt"), one.get("template")) if isinstance(one, dict) else (None, None)
        )
        if not isinstance(prompt, str) or not isinstance(template, str | None):
            raise ValueError(
                f"from: line {number} of {file!r} is {line.strip():.40}, expected an object with a "
                "text `prompt`, and perhaps a text `template`"
            )
        others = [name for name in one if name not in ("prompt", "template")]
        if template is None and (near := difflib.get_close_matches("template", others)):
            raise ValueError(
                f"from: line {number} of {file!r} has a field {near[0]!r}; did you mean 'template'?"
            )
        found.append(Asked(prompt, template))
    if not found:
        raise ValueError(f"prompt: {file!r} is empty, expected an object in each line")
    return found
