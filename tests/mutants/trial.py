"""Try the tests on a changed copy of the code, in forks of a process that has torch at hand."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

COPIED = ("entrgi_ref", "toy", "tests", "docs", "pyproject.toml", "README.md", "mkdocs.yml")
PASSED, FAILED, INTERRUPTED = 0, 1, 2
TOO_LONG = -signal.SIGKILL
"""What pytest ends with: the second of errors in tests, the third if they cannot be read at all."""


class Copy:
    """A copy of the code and its tests, whose files can be changed one at a time."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            if (root / name).is_dir():
                shutil.copytree(root / name, folder / name)
            elif (root / name).exists():
                shutil.copy(root / name, folder / name)

    def killed(
        self, file: str, code: str, tests: Sequence[str], limit: float, output: Path | None = None
    ) -> bool:
        """Whether one of the tests fails, or takes longer than `limit` seconds, with the file so.

        `RuntimeError` if pytest has no such tests.
        """
        path = self.folder / file
        right = path.read_text()
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
            compiled.unlink()  # it may be as old and as long as what is written now
        path.write_text(code)
        kept = code == right
        try:
            ended = _forked(lambda: self._tested(tests, output, kept), limit)
        finally:
            path.write_text(right)
        if ended not in (PASSED, FAILED, INTERRUPTED, TOO_LONG):
            raise RuntimeError(f"{file}: pytest ended with {ended} on {', '.join(tests)}")
        return ended != PASSED

    def _tested(self, tests: Sequence[str], output: Path | None, kept: bool) -> int:
        """Let pytest run. What it compiles is kept only if nothing is changed."""
        import pytest

        if not kept:
            sys.dont_write_bytecode = True
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        os.environ["PYTHONPATH"] = str(self.folder)
        os.chdir(self.folder)
        sys.path[:0] = [str(self.folder)]
        where = os.open(output or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(where, 1)
        os.dup2(where, 2)
        return int(pytest.main(["-x", "-p", "no:cacheprovider", "-m", "", *tests]))


def prepare() -> None:
    """Import what every test needs, and nothing of ours: a fork then starts in no time."""
    for name in ("beartype", "hypothesis", "jaxtyping", "matplotlib", "pytest", "torch", "typer"):
        __import__(name)
    import pytest
    import torch
    import transformers

    for late in ("Qwen2ForCausalLM", "AutoModelForSequenceClassification"):
        getattr(transformers, late)
    torch.set_num_threads(1)
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        pytest.main(["--version", "--version"])  # its plugins
    if any(name.partition(".")[0] in ("entrgi_ref", "toy") for name in sys.modules):
        raise RuntimeError("what is to be changed has been imported")


def _forked(work: Callable[[], int], limit: float) -> int:
    """What a fork ends with; `TOO_LONG` if it had to be stopped."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setsid()
            status = work()
        finally:
            os._exit(status)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return TOO_LONG
