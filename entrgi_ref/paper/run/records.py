"""A run folder: a line of JSON per prompt, written as soon as it is known, safe to stop and resume.

    OUT/run.json          what the run is: its settings, whose hash is the fingerprint, and what
                          has been asked of it so far
    OUT/records/*.jsonl   the records, one file per process that ever wrote here
    OUT/claims/           locks of batches; empty files, safe to delete when no process runs

A process writes to a file of its own, so none can spoil another's. A batch is computed by whoever
holds its lock. The system drops a lock when its holder dies, so that nothing has to be cleaned up.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

JUDGED = "judge"
"""The folder of the judgements, in that of a run."""

Record = dict[str, Any]
Key = tuple[str, str, str, str, int, int]
"""Experiment, benchmark, method, variant, seed, index of the prompt."""


def key_of(record: Mapping[str, Any]) -> Key:
    """What a record is of. There is at most one record for each."""
    variant = json.dumps(record["variant"], sort_keys=True)
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


class RunFolder:
    """A run folder that is open for writing."""

    def __init__(
        self,
        path: Path,
        declaration: Mapping[str, Any],
        *,
        asked: Mapping[str, Any] | None = None,
        retry_failed: bool = False,
    ):
        """Open `path`, or make it.

        `declaration` is what the run is, `asked` what is to be computed now, of which a folder may
        be given more later. With `retry_failed`, what has failed counts as missing. Raises
        `ValueError` if the folder holds another run, with the fields that differ, or cannot be
        written to.
        """
        self.path = path
        try:
            (path / "records").mkdir(parents=True, exist_ok=True)
            with self.lock("declaration", wait=True):
                _declare(path / "run.json", declaration, asked)
                for file in sorted((path / "records").glob("*.jsonl")):
                    _mend(file)
            name = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
            self._own = path / "records" / f"{re.sub(r'[^A-Za-z0-9-]', '-', name)}.jsonl"
        except OSError as error:
            raise ValueError(f"out: cannot write to {path}: {error}") from error
        self._file: int | None = None
        self._read: dict[Path, int] = {}
        self.done: set[Key] = set()
        self.refresh(forget_failed=retry_failed)

    @contextmanager
    def lock(self, name: str, *, wait: bool = False) -> Iterator[bool]:
        """Hold a lock of this folder, if no other process does. Yields whether it is held."""
        digest = hashlib.blake2b(name.encode(), digest_size=12).hexdigest()
        (self.path / "claims").mkdir(exist_ok=True)
        descriptor = os.open(self.path / "claims" / digest, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

    def refresh(self, *, forget_failed: bool = False) -> None:
        """Take note of what all processes have written since the last time."""
        for file in sorted((self.path / "records").glob("*.jsonl")):
            with file.open("rb") as lines:
                lines.seek(self._read.get(file, 0))
                data = lines.read()
            complete = data[: data.rfind(b"\n") + 1]
            self._read[file] = self._read.get(file, 0) + len(complete)
            for line in complete.splitlines():
                key, record = _parsed(file, line)
                if not (forget_failed and record["status"] == "failed"):
                    self.done.add(key)

    def write(self, record: Record) -> None:
        """Append a record, and have it on the disk before this returns. Once per key."""
        key = key_of(record)
        if key in self.done:
            return
        line = (json.dumps(record) + "\n").encode()
        try:
            if self._file is None:
                self._file = os.open(self._own, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o666)
                fcntl.flock(self._file, fcntl.LOCK_EX)
            while line:
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        except OSError as error:
            raise ValueError(
                f"out: cannot write to {self.path}: {error}; what was written before is complete, "
                "and the same command goes on from there"
            ) from error
        self.done.add(key)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def read_records(path: Path) -> list[Record]:
    """All records of a run folder, in the order of their keys.

    A prompt that failed at first and was tried again has one record, the last. Raises `ValueError`
    if there is no run in `path`, or a line of it is not a record.
    """
    read_declaration(path)
    found: dict[Key, Record] = {}
    for file in sorted((path / "records").glob("*.jsonl")):
        for line in file.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n") and not _is_record(line):
                warnings.warn(f"{file}: left out a half-written last line", stacklevel=2)
                continue
            key, record = _parsed(file, line)
            if key not in found or found[key]["status"] == "failed":
                found[key] = record
    return [found[key] for key in sorted(found)]


def read_declaration(path: Path) -> dict[str, Any]:
    """What the run, or the judging of one, in a folder is."""
    if not (path / "run.json").is_file():
        raise ValueError(f"out: {path} is no run folder, it has no run.json")
    return _declared(path / "run.json")


def read_experiment(path: Path) -> dict[str, Any]:
    """What the run of an experiment in a folder is."""
    declared = read_declaration(path)
    missing = {"experiment", "testbed", "settings", "prompts", "benchmarks"} - set(declared)
    if missing:
        raise ValueError(
            f"out: {path} is not the run of an experiment, its run.json has no "
            f"{', '.join(sorted(missing))}"
        )
    return declared


def _declared(file: Path) -> dict[str, Any]:
    try:
        declared = dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"out: {file} is damaged ({error})") from error
    if "fingerprint" not in declared:
        raise ValueError(f"out: {file} is damaged (it has no fingerprint)")
    return declared


def _declare(
    file: Path, declaration: Mapping[str, Any], asked: Mapping[str, Any] | None = None
) -> None:
    before = []
    if file.is_file():
        require_same(file.parent, declaration)
        before = list(_declared(file).get("asked", []))
        if asked is None or asked in before:
            return
    declared = {"fingerprint": fingerprint(declaration), **declaration}
    declared["asked"] = [*before, *([] if asked is None else [asked])]
    # Written aside and moved into place, so that it is there as a whole or not at all.
    aside = file.with_suffix(f".{os.getpid()}")
    aside.write_text(json.dumps(declared, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(aside, file)


def require_same(path: Path, declaration: Mapping[str, Any]) -> None:
    """Raise `ValueError` if the folder holds a run that is another one, with what differs."""
    there = _declared(path / "run.json")
    here = {"fingerprint": fingerprint(declaration), **declaration}
    if there["fingerprint"] != here["fingerprint"]:
        differing = "; ".join(
            f"{name}: {before!r} there, {now!r} here"
            for name, before, now in _differences(there, here)
            if name not in ("fingerprint", "asked")
        )
        raise ValueError(
            f"out: {path} holds another run ({differing}); give another folder, or the settings "
            "of that run"
        )


def _differences(a: Any, b: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for field in {**a, **b}:
            inner = f"{name}.{field}" if name else field
            yield from _differences(a.get(field), b.get(field), inner)
    elif a != b:
        yield name, a, b


def _mend(file: Path) -> None:
    """Drop a half-written last line, if the process that wrote it is gone."""
    with file.open("r+b") as lines:
        try:
            fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        data = lines.read()
        end = data.rfind(b"\n") + 1
        rest = data[end:]
        if not rest:
            return
        if _is_record(rest):
            lines.write(b"\n")
        else:
            warnings.warn(f"{file}: dropped a half-written last line", stacklevel=4)
            lines.truncate(end)
        lines.flush()
        os.fsync(lines.fileno())


def _is_record(line: bytes) -> bool:
    try:
        _parsed(Path(), line)
    except ValueError:
        return False
    return True


def _parsed(file: Path, line: bytes) -> tuple[Key, Record]:
    """A line's record and its key; `ValueError` if it is none."""
    try:
        record = dict(json.loads(line))
        return key_of(record), record
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"out: a line of {file} is not a record ({error!r})") from error
