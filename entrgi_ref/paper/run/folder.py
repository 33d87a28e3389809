"""A run folder that is written to: safe to stop and resume, and shared by several processes.

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

from ...commands.files import write_text
from ...commands.provenance import made_with
from .records import (
    Key,
    Record,
    Require,
    bad_line,
    declared,
    fingerprint,
    judges_of,
    key_of,
    lines_of,
    parsed,
    read_declaration,
    require_answers,
    require_judgement,
    require_same,
)


class RunFolder:
    """A run folder that is open for writing."""

    def __init__(
        self,
        path: Path,
        declaration: Mapping[str, Any],
        *,
        asked: Mapping[str, Any] | None = None,
        retry_failed: bool = False,
        other_version: bool = False,
        require: Require = require_answers,
    ):
        """Open `path`, or make it.

        `declaration` is what the run is, `asked` what is to be computed now, of which a folder may
        be given more later. With `retry_failed`, what has failed counts as missing. Raises
        `ValueError` if the folder holds another run, with the fields that differ; if it was made
        with other versions, unless `other_version` is allowed; if a line of it is no record that
        passes `require`; or if it cannot be written to.
        """
        self.path = path
        self.fingerprint = fingerprint(declaration)
        self._require = require
        try:
            (path / "records").mkdir(parents=True, exist_ok=True)
            with self.lock("declaration", wait=True):
                _declare(path / "run.json", declaration, asked, other_version)
                for file in sorted((path / "records").glob("*.jsonl")):
                    self._mend(file)
            name = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
            self._own = path / "records" / f"{re.sub(r'[^A-Za-z0-9-]', '-', name)}.jsonl"
        except OSError as error:
            raise ValueError(f"out: cannot write to {path}: {error}") from error
        self._file: int | None = None
        self._read: dict[Path, tuple[int, int]] = {}
        """File -> bytes and lines that have been read of it."""
        self.done: set[Key] = set()
        self.refresh(forget_failed=retry_failed)

    @contextmanager
    def lock(self, name: str, *, wait: bool = False) -> Iterator[bool]:
        """Hold a lock of this folder, if no other process does. Yields whether it is held."""
        with _lock(self.path, name, wait=wait) as held:
            yield held

    def refresh(self, *, forget_failed: bool = False) -> None:
        """Take note of what all processes have written since the last time."""
        for file in sorted((self.path / "records").glob("*.jsonl")):
            size, count = self._read.get(file, (0, 0))
            with file.open("rb") as lines:
                lines.seek(size)
                data = lines.read()
            complete = data[: data.rfind(b"\n") + 1]
            for number, line, _ in lines_of(complete):
                try:
                    key, record = parsed(line, self.fingerprint, self._require)
                except ValueError as error:
                    raise bad_line(file, count + number, error) from error
                if not (forget_failed and record["status"] == "failed"):
                    self.done.add(key)
            self._read[file] = (size + len(complete), count + complete.count(b"\n"))

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

    def _mend(self, file: Path) -> None:
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
            try:
                parsed(rest, None, self._require)
                lines.write(b"\n")
            except ValueError:
                warnings.warn(f"{file}: dropped a half-written last line", stacklevel=4)
                lines.truncate(end)
            lines.flush()
            os.fsync(lines.fileno())


@contextmanager
def _lock(path: Path, name: str, *, wait: bool = False) -> Iterator[bool]:
    digest = hashlib.blake2b(name.encode(), digest_size=12).hexdigest()
    (path / "claims").mkdir(exist_ok=True)
    descriptor = os.open(path / "claims" / digest, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _declare(
    file: Path,
    declaration: Mapping[str, Any],
    asked: Mapping[str, Any] | None,
    other_version: bool,
) -> None:
    before: dict[str, Any] = {}
    if file.is_file():
        require_same(file.parent, declaration)
        before = declared(file)
    requests, makers, here = before.get("asked", []), before.get("made_with", []), made_with()
    if makers and here not in makers and not other_version:
        there = makers[-1]
        differing = "; ".join(
            f"{name} {there.get(name)} there, {here.get(name)} here"
            for name in {**there, **here}
            if there.get(name) != here.get(name)
        )
        raise ValueError(
            f"out: {file.parent} was made with other code ({differing}); go on with that, or allow "
            "records of both by --other-version"
        )
    requests = requests if asked is None or asked in requests else [*requests, asked]
    makers = makers if here in makers else [*makers, here]
    if before and (requests, makers) == (before.get("asked", []), before.get("made_with", [])):
        return
    written = {"fingerprint": fingerprint(declaration), **declaration}
    written |= {"asked": requests, "made_with": makers}
    write_text(file, json.dumps(written, indent=1, ensure_ascii=False) + "\n")


def repair(path: Path) -> list[str]:
    """Take the lines out of a run, and of its judgements, that are no records of it.

    They are kept in OUT/dropped. Returns what was wrong with each. Raises `ValueError` if a process
    is still writing.
    """
    said: list[str] = []
    folders: list[tuple[Path, Require]] = [(path, require_answers)]
    folders += [(judge, require_judgement) for judge in judges_of(path)]
    for folder, require in folders:
        expected = read_declaration(folder)["fingerprint"]
        with _lock(folder, "declaration", wait=True):
            for file in sorted((folder / "records").glob("*.jsonl")):
                said += _repaired(file, path, expected, require)
    return said


def _repaired(file: Path, run: Path, expected: str, require: Require) -> Iterator[str]:
    with file.open("rb") as lines:
        try:
            fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"out: a process is still writing to {file}; repair the run when it has ended"
            ) from error
        kept, dropped = [], []
        for number, line, _ in lines_of(lines.read()):
            try:
                parsed(line, expected, require)
                kept.append(line)
            except ValueError as error:
                dropped.append(line)
                yield f"{file.relative_to(run)}, line {number}: {error}"
        if dropped:
            aside = run / "dropped" / file.relative_to(run)
            aside.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("ab") as rest:
                rest.write(b"".join(line + b"\n" for line in dropped))
                os.fsync(rest.fileno())
            whole = file.with_suffix(".repaired")
            with whole.open("wb") as good:
                good.write(b"".join(line + b"\n" for line in kept))
                good.flush()
                os.fsync(good.fileno())
            os.replace(whole, file)
