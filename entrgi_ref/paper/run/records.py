"""The records of a run: a line of JSON per prompt.

    OUT/run.json          what the run is: its settings, whose hash is the fingerprint, what has
                          been asked of it so far, and what it was made with
    OUT/records/*.jsonl   the records, one file per process that ever wrote here
    OUT/claims/           locks of batches; empty files, safe to delete when no process runs
    OUT/judges/NAME/      the same for the judgements of each judge
    OUT/dropped/          lines that `repair` took out, and half-written ones
    OUT/report/           what `report` writes
    OUT/browse.html       what `browse` writes
    OUT/export/           what `export` writes

`folder.py` writes them, `required.py` says what must be in them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...checks import DoubleKeyError, without_doubles
from .agreement import Agreement
from .required import (
    AskedFor,
    OtherPromptError,
    OtherRunError,
    Record,
    Require,
    dumped,
    require_answers,
    require_asked_for,
    require_experiment,
    require_judge,
    require_judgement,
    require_own,
    require_prompt,
)

JUDGES = "judges"
"""The folder of the judgements, in that of a run."""

Key = tuple[str, str, str, str, int, int]
"""Experiment, benchmark, method, variant, seed, index of the prompt."""

PromptOf = Callable[[Record], str | None]
"""The question which prompt a record must be of; None where nobody knows."""


def key_of(record: Mapping[str, Any]) -> Key:
    """What a record is of. There is at most one record for each."""
    variant = dumped(record["variant"])
    return (
        record["experiment"],
        record["benchmark"],
        record["method"],
        variant,
        record["seed"],
        record["idx"],
    )


def best(record: Record) -> int:
    """Which of a prompt's answers has the largest reward."""
    rewards: list[float] = record["rewards"]
    return max(range(len(rewards)), key=rewards.__getitem__)


def fingerprint(declaration: Mapping[str, Any]) -> str:
    """A short hash of everything that decides what the records will say."""
    text = json.dumps(declaration, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


# One line


def parsed(line: bytes, expected: str | None, require: Require) -> tuple[Key, Record]:
    """A line's record and its key; `ValueError` that says what is wrong with it.

    `expected` is the fingerprint of the run that it must be of.
    """
    try:
        text = line.decode(json.detect_encoding(line), "surrogatepass")  # as `json.loads` does
        record = _object(_DECODER.decode(text))
    except DoubleKeyError:
        raise
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({type(error).__name__})") from error
    own = record.get("fingerprint")
    if expected is not None and isinstance(own, str) and own != expected:
        raise OtherRunError(
            f"it is of another run, with the fingerprint {own!r:.40} instead of {expected!r}"
        )
    require(record)
    return key_of(record), record


_DECODER = json.JSONDecoder(object_pairs_hook=without_doubles)
"""One for all lines: to make it takes as long as to read a short one."""


def _object(found: Any) -> dict[str, Any]:
    """What JSON holds. `ValueError` unless it is an object: pairs in a list are none."""
    if not isinstance(found, dict):
        raise ValueError(f"it is {found!r:.40}, expected an object")
    return found


def line_of(record: Record) -> bytes:
    """The line that a record is written as."""
    return json.dumps(record).encode() + b"\n"


def bad_line(file: Path, number: int, reason: object) -> ValueError:
    """The error of a line that is no record of the run."""
    if isinstance(reason, OtherPromptError):  # `repair` would find nothing
        return ValueError(
            f"out: {file}, line {number}: {reason}; delete the line or move the file elsewhere, "
            "and run it again"
        )
    folder = file.parent.parent
    run = run_of(folder)
    return ValueError(
        f"out: {file}, line {number}: {reason}; python -m entrgi_ref.paper repair {run} takes such "
        f"lines out, and the command {'of the run' if run == folder else '`judge`'} computes them "
        "again"
    )


def run_of(folder: Path) -> Path:
    """The folder of the run that one with records is, or that the judgements in it are of."""
    return folder.parent.parent if folder.parent.name == JUDGES else folder


# Reading


def of_run(path: Path, prompt: PromptOf | None = None) -> Require:
    """What a line with answers must pass to be of the run in a folder, whoever reads it. Who has
    its benchmarks says by `prompt` which one a record is of.
    """
    declaration = read_declaration(path)
    asked = _asked_for(path, declaration)
    experiment = _is_experiment(declaration)

    def require(record: Record) -> None:
        require_answers(record)
        try:
            require_asked_for(asked, record)
        except OtherRunError:
            # Another process may have been asked for more since.
            require_asked_for(_asked_for(path, read_declaration(path)), record)
        if experiment:
            require_own(declaration, record)
        if prompt is not None:
            require_prompt(prompt(record), record)

    return require


def _asked_for(path: Path, declaration: Mapping[str, Any]) -> AskedFor:
    try:
        return AskedFor.of(declaration)
    except ValueError as error:
        raise ValueError(f"out: {path / 'run.json'}: {error}") from error


def _is_experiment(declaration: Mapping[str, Any]) -> bool:
    """Who reads one that is none as that of an experiment says what is wrong with it."""
    try:
        require_experiment(declaration)
    except ValueError:
        return False
    return True


def require_any(path: Path, expected: str, require: Require) -> None:
    """Raise `ValueError` if all records in a folder are of another run than its run.json: then that
    is the odd one, and the records are none to be taken out.
    """
    other: str | None = None
    for file in files_of(path):
        for number, line, _ in lines_of(file):
            try:
                parsed(line, expected, require)
                return
            except OtherRunError as error:
                other = other or f"{file}, line {number}: {error}"
            except ValueError:
                continue
    if other is not None:
        raise ValueError(
            f"out: {path / 'run.json'} is that of another run: no record fits it; the first: "
            f"{other}; put back the run.json of these records, or move them elsewhere"
        )


def read_records(path: Path, require: Require | None = None) -> list[Record]:
    """All records of a run folder, in the order of their keys; each has to pass `require`, by
    default `of_run`.

    A prompt that failed at first and was tried again has one record, the last. Raises `ValueError`
    if there is no run in `path`, or a line of it is no record of that run.
    """
    found = read_by_key(path, require)
    return [found[key] for key in sorted(found)]


def read_by_key(
    path: Path,
    require: Require | None = None,
    keep: Callable[[Record], Record] = lambda record: record,
) -> dict[Key, Record]:
    """As `read_records`, by key and in any order; `keep` says what of a record is kept."""
    expected = read_declaration(path)["fingerprint"]
    require, agreement = require or of_run(path), Agreement()
    found: dict[Key, Record] = {}
    twice: set[Key] = set()
    for file in files_of(path):
        for number, line, whole in lines_of(file):
            try:
                key, record = parsed(line, expected, require)
            except ValueError as error:
                if not whole:
                    warnings.warn(f"{file}: left out a half-written last line", stacklevel=2)
                    continue
                require_any(path, expected, require)
                raise bad_line(file, number, error) from error
            agreement.add(record)
            if key not in found or found[key]["status"] == "failed":
                found[key] = keep(record)
            elif record["status"] == "ok":
                twice.add(key)
    require_equal(path, expected, require, twice)
    require_agreement(path, expected, require, agreement)
    return found


MAY_DIFFER = ("timing", "device", "commit", "versions")
"""Fields that say how a record was made. Two processes that cannot see each other's locks may
compute one batch; all else that they write of it is the same.
"""


def require_equal(path: Path, expected: str, require: Require, keys: Collection[Key]) -> None:
    """Raise `ValueError` if records with one of these keys differ: which of them is right?"""
    for file, number, reason in differing(path, expected, require, keys) if keys else ():
        raise bad_line(file, number, reason)


def differing(
    path: Path, expected: str, require: Require, keys: Collection[Key] | None = None
) -> Iterator[tuple[Path, int, str]]:
    """The lines with answers to one prompt that are not the same, of all or of these `keys`: file,
    number, and what is wrong. Lines that are no records are left out.
    """
    first: dict[Key, tuple[Path, int, str]] = {}
    for file, number, record in _records_of(path, expected, require):
        key = key_of(record)
        if record["status"] != "ok" or (keys is not None and key not in keys):
            continue
        says = {name: value for name, value in record.items() if name not in MAY_DIFFER}
        text = json.dumps(says, sort_keys=True)
        before, at, there = first.setdefault(key, (file, number, text))
        if text != there:
            names = {name.partition(".")[0] for name, *_ in differences(json.loads(there), says)}
            how = f"with another {', '.join(sorted(names))}"
            for one, n, other, m in ((before, at, file, number), (file, number, before, at)):
                place = f"{other.relative_to(path)}, line {m}"
                yield one, n, f"it is of the prompt of {place}, {how}"


def require_agreement(path: Path, expected: str, require: Require, agreement: Agreement) -> None:
    """Raise `ValueError` if records say unlike things of what is the same for all."""
    for file, number, reason in () if agreement.whole else disagreeing(path, expected, require):
        raise bad_line(file, number, reason)


def disagreeing(path: Path, expected: str, require: Require) -> Iterator[tuple[Path, int, str]]:
    """The lines that say another thing than most of what is the same for all: file, number, and
    what is wrong. Lines that are no records are left out.
    """
    agreement = Agreement()
    for _, _, record in _records_of(path, expected, require):
        agreement.add(record)
    if agreement.whole:
        return
    for file, number, record in _records_of(path, expected, require):
        reason = agreement.against(record)
        if reason is not None:
            yield file, number, reason


def _records_of(path: Path, expected: str, require: Require) -> Iterator[tuple[Path, int, Record]]:
    """The lines of a run that are its records: file, number, record."""
    for file in files_of(path):
        for number, line, _ in lines_of(file):
            try:
                _, record = parsed(line, expected, require)
            except ValueError:
                continue
            yield file, number, record


def files_of(path: Path) -> list[Path]:
    """The files with the records of a run, in order.

    `ValueError` for one that is no file: a folder cannot be read, and a pipe has no end; nor may it
    be a link: what it leads to would be written to.
    """
    require_no_link(path, "records")
    if (path / "records").exists() and not (path / "records").is_dir():
        raise ValueError(f"out: {path / 'records'} is no folder")
    found = sorted((path / "records").glob("*.jsonl"))
    for file in found:
        if not file.is_file():
            raise ValueError(f"out: {file} is no file that can be read; move it elsewhere")
        if file.is_symlink():
            raise ValueError(f"out: {file} is a link, expected a file; move it elsewhere")
    return found


def require_no_link(run: Path, below: str | Path) -> None:
    """Raise `ValueError` if a folder below that of a run is a link, or one on the way to it is."""
    folder = run
    for name in Path(below).parts:
        folder /= name
        if folder.is_symlink():
            raise ValueError(f"out: {folder} is a link, expected a folder of the run itself")


LONGEST_RECORD = 2**27
"""Bytes of a line: many times as many as the longest answers take."""


def own_folder(run: Path, name: str) -> Path:
    """The folder of that name in that of a run. `ValueError` if it is a link: what is made of a run
    is written elsewhere only where somebody says so.
    """
    require_no_link(run, name)
    return run / name


def lines_of(file: Path, start: int = 0) -> Iterator[tuple[int, bytes, bool]]:
    """The lines of a file from a byte on, one after another: number, contents, and whether it ends
    with a newline.

    They end where JSON's do and nowhere else, so that a stray byte spoils one line only.
    `ValueError` for one that is longer than a record: it may have no end; and for several that end
    with CR, which would all count as one that is half-written.
    """
    with file.open("rb") as lines:
        lines.seek(start)
        for number in itertools.count(1):
            line = lines.readline(LONGEST_RECORD + 1)
            if not line:
                return
            if len(line) > LONGEST_RECORD:
                raise ValueError(
                    f"out: {file} has a line of more than {LONGEST_RECORD} bytes, which is no "
                    "record; move the file elsewhere"
                )
            if b"}\r{" in line and not line.endswith(b"\n"):
                raise ValueError(
                    f"out: {file} has lines that end with CR, expected LF; convert it, or move the "
                    "file elsewhere"
                )
            yield number, line.removesuffix(b"\n"), line.endswith(b"\n")


def read_declaration(path: Path) -> dict[str, Any]:
    """What the run, or the judging of one, in a folder is."""
    if not (path / "run.json").is_file():
        raise ValueError(f"out: {path} is no run folder, it has no run.json")
    return declared(path / "run.json")


def read_experiment(path: Path) -> dict[str, Any]:
    """What the run of an experiment in a folder is."""
    found = read_declaration(path)
    try:
        require_experiment(found)
    except ValueError as error:
        raise ValueError(
            f"out: {path} is not the run of an experiment: of its run.json, {error}"
        ) from error
    return found


LARGEST = 2**24
"""Bytes of a run.json. It says what the run is, and holds no record."""


def declared(file: Path) -> dict[str, Any]:
    """The contents of a run.json."""
    if file.stat().st_size > LARGEST:
        raise ValueError(f"out: {file} is damaged (it has more than {LARGEST} bytes)")
    try:
        text = file.read_text(encoding="utf-8")
        found = _object(json.loads(text, object_pairs_hook=without_doubles))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"out: {file} is damaged ({error})") from error
    contents = {name: value for name, value in found.items() if name not in BESIDE}
    if not isinstance(found.get("fingerprint"), str):
        raise ValueError(f"out: {file} is damaged (it has no fingerprint)")
    if fingerprint(contents) != found["fingerprint"]:
        raise ValueError(
            f"out: {file} is damaged: its fingerprint is {found['fingerprint']!r:.40}, but that of "
            f"its contents is {fingerprint(contents)!r}"
        )
    return found


BESIDE = ("fingerprint", "asked", "made_with")
"""Fields of a run.json that are not part of what the fingerprint is of."""


# Judgements


def judges_of(path: Path) -> list[Path]:
    """The folders of the judges that have judged a run. `ValueError` for a link: what it leads to
    would count twice, or be another run's.
    """
    require_no_link(path, JUDGES)
    if (path / JUDGES).exists() and not (path / JUDGES).is_dir():
        raise ValueError(f"out: {path / JUDGES} is no folder; move it elsewhere")
    files = [*(path / JUDGES).glob("*/run.json"), *(path / JUDGES).glob("*/records/*.jsonl")]
    found = {path / JUDGES / file.relative_to(path / JUDGES).parts[0] for file in files}
    for folder in found:
        require_no_link(path, folder.relative_to(path))
    return sorted(found)


def earlier_layout(path: Path) -> Iterator[str]:
    """A sentence if a run has judgements where earlier code put them: they are not read."""
    if (path / "judge").is_dir():
        yield f"{path / 'judge'} holds judgements in an earlier layout, which are not read."


def read_judge(path: Path, run: str) -> dict[str, Any]:
    """What a judge is. `run` is the fingerprint of the run that it must have judged."""
    try:
        found = read_declaration(path)
        require_judge(found)
        if found["run"] != run:
            raise ValueError(f"it has judged another run, {found['run']!r:.40} instead of {run!r}")
    except ValueError as error:
        reason = str(error).removeprefix("out: ")
        raise ValueError(
            f"out: {path} holds no judgements of this run ({reason}); python -m entrgi_ref.paper "
            f"repair {path.parent.parent} takes it out"
        ) from error
    return found


def of_best(answers: Iterable[Record]) -> Require:
    """What a judgement must pass: it is about the best of the answers of the same key, if there are
    any.
    """
    judged = {
        key_of(record): record["responses"][best(record)]
        for record in answers
        if record["status"] == "ok"
    }

    def require(record: Record) -> None:
        require_judgement(record)
        if judged.get(key_of(record), record["response"]) != record["response"]:
            raise ValueError("it judges another answer than the best of the run")

    return require


# Two runs


def require_same(path: Path, declaration: Mapping[str, Any]) -> None:
    """Raise `ValueError` if the folder holds a run that is another one, with what differs."""
    there = declared(path / "run.json")
    here = {"fingerprint": fingerprint(declaration), **declaration}
    if there["fingerprint"] != here["fingerprint"]:
        differing = "; ".join(
            f"{name}: {before!r} there, {now!r} here"
            for name, before, now in differences(there, here)
            if name not in BESIDE
        )
        raise ValueError(
            f"out: {path} holds another run ({differing}); give another folder, or the settings "
            "of that run"
        )


def differences(a: Any, b: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The fields in which two declarations differ: name, value in `a`, value in `b`."""
    if isinstance(a, dict) and isinstance(b, dict):
        for field in {**a, **b}:
            inner = f"{name}.{field}" if name else field
            yield from differences(a.get(field), b.get(field), inner)
    elif a != b:
        yield name, a, b
