"""A run folder that is written to: safe to stop and resume, and shared by several processes.

A process writes to a file of its own, so none can spoil another's. A batch is computed by whoever
holds its lock. The system drops a lock when its holder dies, so that nothing has to be cleaned up.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import json
import os
import re
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...commands.files import sync_folder, write_bytes, write_text
from ...commands.provenance import made_with
from .agreement import Agreement
from .records import (
    JUDGES,
    Key,
    PromptOf,
    bad_line,
    declared,
    differing,
    disagreeing,
    files_of,
    fingerprint,
    key_of,
    line_of,
    lines_of,
    of_best,
    of_run,
    parsed,
    read_declaration,
    read_judge,
    read_records,
    require_agreement,
    require_any,
    require_equal,
    require_no_link,
    require_same,
    run_of,
)
from .required import Record, Require, require_said


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
        require: Require | None = None,
        prompt: PromptOf | None = None,
    ):
        """Open `path`, or make it.

        `declaration` is what the run is, `asked` what is to be computed now, of which a folder may
        be given more later. With `retry_failed`, what has failed counts as missing. Raises
        `ValueError` if the folder holds another run, with the fields that differ, or answers of
        another weight function of yours by the name of one that is asked for; if it was made
        with other versions, unless `other_version` is allowed; if a line of it is no record that
        passes `require`, by default `of_run` with `prompt`; or if it cannot be written to.
        """
        self.path = path
        self.fingerprint = fingerprint(declaration)
        with _writing(path):
            (path / "records").mkdir(parents=True, exist_ok=True)
            with self.lock("declaration", wait=True):
                files = files_of(path)  # first: nothing is declared where records cannot be read
                _declare(path / "run.json", declaration, asked or {}, other_version)
                self._require = require or of_run(path, prompt)
                for file in files:
                    self._mend(file)
            name = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
            self._own = path / "records" / f"{re.sub(r'[^A-Za-z0-9-]', '-', name)}.jsonl"
        self._file: int | None = None
        self._read: dict[Path, tuple[int, int]] = {}
        """File -> bytes and lines that have been read of it."""
        self.done: set[Key] = set()
        self._agreement = Agreement()
        twice = self.refresh(forget_failed=retry_failed)
        require_equal(path, self.fingerprint, self._require, twice)
        require_agreement(path, self.fingerprint, self._require, self._agreement)

    @contextmanager
    def lock(self, name: str, *, wait: bool = False) -> Iterator[bool]:
        """Hold a lock of this folder, if no other process does. Yields whether it is held."""
        with _lock(self.path, name, wait=wait) as held:
            yield held

    def refresh(self, *, forget_failed: bool = False) -> set[Key]:
        """Take note of what all processes have written since the last time. Returns what of it was
        done already.
        """
        twice: set[Key] = set()
        for file in files_of(self.path):
            size, count = self._read.get(file, (0, 0))
            for _, line, whole in lines_of(file, size):
                if not whole:
                    break
                size, count = size + len(line) + 1, count + 1
                try:
                    key, record = parsed(line, self.fingerprint, self._require)
                except ValueError as error:
                    require_any(self.path, self.fingerprint, self._require)
                    raise bad_line(file, count, error) from error
                self._agreement.add(record)
                if key in self.done and record["status"] == "ok":
                    twice.add(key)
                if not (forget_failed and record["status"] == "failed"):
                    self.done.add(key)
            self._read[file] = (size, count)
        return twice

    def write(self, record: Record) -> None:
        """Append a record, and have it on the disk before this returns. Once per key."""
        key = key_of(record)
        if key in self.done:
            return
        line = line_of(record)
        with _writing(self.path):
            if self._file is None:
                self._file = _opened(self._own)
            while line:
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        self.done.add(key)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _mend(self, file: Path) -> None:
        """Move a half-written last line to OUT/dropped, if the process that wrote it is gone."""
        with file.open("r+b") as lines:
            try:
                fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            end, rest = 0, b""
            for _, line, whole in lines_of(file):
                end, rest = (end + len(line) + 1, b"") if whole else (end, line)
            if not rest:
                return
            try:
                parsed(rest, None, self._require)
                lines.seek(0, os.SEEK_END)
                lines.write(b"\n")
            except ValueError:
                aside = _keep(run_of(self.path), file, [rest])
                warnings.warn(
                    f"{file}: dropped a half-written last line; it is kept in {aside}", stacklevel=4
                )
                lines.truncate(end)
            lines.flush()
            os.fsync(lines.fileno())


IN_THE_WAY = (errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENOTDIR)
"""Errors of a name where there is something else than a file or folder of the run."""


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Make what the system says of a full or broken disk an error for people."""
    try:
        yield
    except OSError as error:
        if error.errno in IN_THE_WAY and error.filename is not None:
            raise ValueError(
                f"out: cannot write to {path}: {error.filename} is in the way ({error.strerror}); "
                "move it elsewhere"
            ) from error
        raise ValueError(
            f"out: cannot write to {path}: {error}; what was written before is complete, and the "
            "same command goes on from there"
        ) from error


def _opened(file: Path) -> int:
    """A file of one's own to append to, locked, and its name on the disk."""
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        sync_folder(file.parent)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _lock(path: Path, name: str, *, wait: bool) -> Iterator[bool]:
    digest = hashlib.blake2b(name.encode(), digest_size=12).hexdigest()
    require_no_link(path, "claims")
    with _writing(path):
        (path / "claims").mkdir(exist_ok=True)
        flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW
        descriptor = os.open(path / "claims" / digest, flags, 0o666)
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
    asked: Mapping[str, Any],
    other_version: bool,
) -> None:
    before: dict[str, Any] = {}
    if file.is_file():
        _require_ours(file.parent, declaration, other_version)
        before = declared(file)
    requests, makers, here = before.get("asked", []), _makers(file.parent, before), made_with()
    require_same_weights(file.parent, requests, asked)
    requests = requests if not asked or asked in requests else [*requests, asked]
    makers = makers if here in makers else [*makers, here]
    if before and (requests, makers) == (before.get("asked", []), before.get("made_with")):
        return
    written = {"fingerprint": fingerprint(declaration), **declaration}
    written |= {"asked": requests, "made_with": makers}
    write_text(file, json.dumps(written, indent=1, ensure_ascii=False) + "\n")


def require_resumable(
    path: Path, declaration: Mapping[str, Any], *, other_version: bool, require: Require
) -> None:
    """Raise the `ValueError` that opening a folder would, before there is any need to open it.

    Writes nothing; a folder that is not there can be made.
    """
    if (path / "run.json").is_file():
        _require_ours(path, declaration, other_version)
        read_records(path, require)


def _require_ours(path: Path, declaration: Mapping[str, Any], other_version: bool) -> None:
    """Raise `ValueError` unless a folder holds this run, made with this code."""
    require_same(path, declaration)
    there = declared(path / "run.json")
    try:
        require_said(there)
    except ValueError as error:
        raise ValueError(f"out: {path / 'run.json'}: {error}") from error
    makers, here = _makers(path, there), made_with()
    if not makers or here in makers or other_version:
        return
    last = makers[-1]
    differing = "; ".join(
        f"{name} {last.get(name)} there, {here.get(name)} here"
        for name in {**last, **here}
        if last.get(name) != here.get(name)
    )
    raise ValueError(
        f"out: {path} was made with other code ({differing}); go on with that, or allow records of "
        "both by --other-version"
    )


def require_same_weights(
    path: Path, requests: Sequence[Mapping[str, Any]], asked: Mapping[str, Any]
) -> None:
    """Raise `ValueError` if a method is by now another weight function than in earlier requests."""
    there = {name: own for one in requests for name, own in one.get("own_weights", {}).items()}
    for name, own in asked.get("own_weights", {}).items():
        before = there.get(name, own)
        if before != own:
            where = f"{before['module']}:{before['function']}"
            how = "has changed" if before["module"] == own["module"] else f"was {where}"
            raise ValueError(
                f"out: {path} has answers of {name}, which {how} since (source {before['source']} "
                f"there, {own['source']} here); rename the function, or give another folder"
            )


def _makers(path: Path, declaration: Mapping[str, Any]) -> list[dict[str, str]]:
    """What the records of a folder were made with: as its run.json says, or else they themselves.

    A run.json may come from a version that did not write it down.
    """
    if not declaration or "made_with" in declaration:
        return list(declaration.get("made_with", []))
    found: list[dict[str, str]] = []
    for file in files_of(path):
        for _, line, _ in lines_of(file):
            try:
                record = json.loads(line)
                versions = {k: v for k, v in record["versions"].items() if k != "python"}
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                continue  # reading the records says what is wrong with it
            maker = {"commit": record.get("commit", "unknown")} | versions
            found += [maker] if maker not in found else []
    return found


def repair(path: Path) -> list[str]:
    """Take the lines out of a run, and of its judgements, that are no records of it; and the
    folders of judges that have not judged it.

    They are kept in OUT/dropped. Returns what was wrong with each. Raises `ValueError` if a process
    is still writing.
    """
    declaration = read_declaration(path)
    if "unit_tests" in declaration:  # its lines are no answers, and would all be taken out
        raise ValueError(f"out: {path} holds judgements of a run; repair {run_of(path)}")
    with _writing(path):
        return _repaired_run(path, declaration["fingerprint"])


def _repaired_run(path: Path, run: str) -> list[str]:
    said = _repaired_folder(path, path, run, of_run(path))
    require = of_best(read_records(path))
    require_no_link(path, JUDGES)
    for judge in sorted(folder for folder in (path / JUDGES).glob("*") if folder.is_dir()):
        if not any([*judge.glob("run.json"), *judge.glob("records/*.jsonl")]):
            continue  # it has only just begun, or was stopped there
        require_no_link(path, judge.relative_to(path))
        try:
            expected = read_judge(judge, run)["fingerprint"]
        except ValueError as error:
            aside = _unused(_dropped(path, judge))
            os.replace(judge, aside)
            said.append(f"{judge.relative_to(path)}: {error.__cause__}")
        else:
            said += _repaired_folder(judge, path, expected, require)
    return said


def _dropped(run: Path, path: Path) -> Path:
    """Where a file or folder of a run is kept once it is taken out, and nowhere else."""
    aside = Path("dropped") / path.relative_to(run)
    require_no_link(run, aside.parent)
    if (run / aside).is_symlink():
        raise ValueError(f"out: {run / aside} is a link, expected a file of the run")
    (run / aside).parent.mkdir(parents=True, exist_ok=True)
    return run / aside


def _keep(run: Path, file: Path, lines: Sequence[bytes]) -> Path:
    """Have lines on the disk in OUT/dropped, before they are taken out of a file. Returns where."""
    aside = _dropped(run, file)
    if aside.exists() and not aside.is_file():  # a pipe would be waited for without end
        raise ValueError(f"out: {aside} is no file; move it elsewhere")
    with aside.open("ab") as rest:
        rest.write(b"".join(line + b"\n" for line in lines))
        rest.flush()
        os.fsync(rest.fileno())
    sync_folder(aside.parent)
    return aside


def _unused(path: Path) -> Path:
    """A path where nothing is yet."""
    names = (path if n == 0 else path.with_name(f"{path.name}-{n}") for n in itertools.count())
    return next(name for name in names if not name.exists())


def _repaired_folder(folder: Path, run: Path, expected: str, require: Require) -> list[str]:
    with _lock(folder, "declaration", wait=True):
        require_any(folder, expected, require)
        found = (f(folder, expected, require) for f in (disagreeing, differing))
        odd = {(file, n): why for file, n, why in itertools.chain(*found)}
        return [
            said
            for file in files_of(folder)
            for said in _repaired(file, run, expected, require, odd)
        ]


def _repaired(
    file: Path,
    run: Path,
    expected: str,
    require: Require,
    odd: Mapping[tuple[Path, int], str],
) -> Iterator[str]:
    with file.open("rb") as lines:
        try:
            fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"out: a process is still writing to {file}; repair the run when it has ended"
            ) from error
        kept, dropped = [], []
        for number, line, _ in lines_of(file):
            try:
                parsed(line, expected, require)
                if (file, number) in odd:
                    raise ValueError(odd[file, number])
                kept.append(line)
            except ValueError as error:
                dropped.append(line)
                yield f"{file.relative_to(run)}, line {number}: {error}"
        if dropped:
            _keep(run, file, dropped)
            write_bytes(file, b"".join(line + b"\n" for line in kept))
