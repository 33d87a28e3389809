"""Files that are there as a whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a file, or leave what was there; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, contents: bytes) -> None:
    """Write a file, or leave what was there.

    Raises `ValueError` that names the file if it cannot be written, as on a full disk, and if it is
    a folder, a pipe or a device, whose place it would take.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"out: cannot write {path}: it is no file")
    aside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        aside = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        aside.chmod(0o666 & ~_umask())
        os.replace(aside, path)
        sync_folder(path.parent)
    except BaseException as error:  # also Ctrl-C
        if aside is not None:
            with contextlib.suppress(OSError):  # of a broken disk
                aside.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise ValueError(f"out: cannot write {path}: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """Have the names of the files in a folder on the disk: a file's own sync is of its contents."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of file systems that do it unasked
            raise
    finally:
        os.close(descriptor)


LONGEST_LINE = 2**24
"""Bytes of a line of a text file. A prompt is shorter."""


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a text in UTF-8, with or without a byte order mark, one after another: no more
    than `LONGEST_LINE` is in memory at a time. They end where those of JSON do and nowhere else, so
    other separators may stand in a text.

    Raises `ValueError` if it is no such text, without the name of the file.
    """
    with path.open("rb") as file:
        for number in itertools.count(1):
            line = file.readline(LONGEST_LINE + 1)
            if not line:
                return
            if len(line) > LONGEST_LINE:
                raise ValueError(f"its line {number} has more than {LONGEST_LINE} bytes")
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\n")
            except UnicodeDecodeError as error:
                raise ValueError(f"it is not UTF-8, in line {number}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def require_readable(name: str, file: Path) -> None:
    """Raise `ValueError` unless there is a file, which a folder, a pipe or a device is not."""
    if file.is_dir():
        raise ValueError(f"{name}: {file} is a folder, expected a file")
    if not file.exists():
        raise ValueError(f"{name}: there is no file {file}")
    if not file.is_file():
        raise ValueError(f"{name}: {file} is no file that can be read")


def require_file(name: str, file: Path) -> None:
    """Raise `ValueError` unless a file can be put there, as far as its name says."""
    if len(os.fsencode(file.name)) > LONGEST_NAME:
        raise ValueError(f"{name}: got {str(file)!r:.60}, expected a shorter name")
    if file.is_dir():
        raise ValueError(f"{name}: got {str(file)!r}, which is a folder")
    if file.exists() and not file.is_file():
        raise ValueError(f"{name}: got {str(file)!r}, which is no file")


LONGEST_NAME = 240
"""Bytes, of 255 that systems allow: while it is written a file has a longer name."""


@contextlib.contextmanager
def written_to(folder: Path) -> Iterator[None]:
    """`require_writable`; where nothing is written, as all is refused, no new folder stays."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    require_writable(folder)
    try:
        yield
    except BaseException:
        for path in new:
            with contextlib.suppress(OSError):  # there is something in it
                path.rmdir()
        raise


def require_writable(folder: Path) -> None:
    """Make the folder if it is not there. `ValueError` if files cannot be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".writable.", dir=folder)
        os.close(descriptor)
        os.unlink(name)
    except OSError as error:
        raise ValueError(f"out: cannot write to {folder}: {error.strerror}") from error
