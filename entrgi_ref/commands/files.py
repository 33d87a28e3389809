"""Files that are there as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a file, or leave what was there; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, contents: bytes) -> None:
    """Write a file, or leave what was there.

    Raises `ValueError` that names the file if it cannot be written, as on a full disk.
    """
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
        with contextlib.suppress(OSError):  # some file systems cannot, and do it unasked
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def require_writable(folder: Path) -> None:
    """Make the folder if it is not there. `ValueError` if files cannot be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".writable.", dir=folder)
        os.close(descriptor)
        os.unlink(name)
    except OSError as error:
        raise ValueError(f"out: cannot write to {folder}: {error.strerror}") from error
