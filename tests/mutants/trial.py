"""Try the tests on changed code.

Most changes are of functions. Their tests are collected once, by a process that has imported all
of the code; a fork of it puts the changed functions in the place of the right ones and runs the
tests, within a fraction of a second. What cannot be put so (constants, defaults, decorators) is
tried by a fork that has imported nothing of ours yet.
"""

from __future__ import annotations

import contextlib
import gc
import io
import multiprocessing
import os
import shutil
import signal
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType

NOT_COPIED = (".venv*", ".*_cache", ".hypothesis", "__pycache__", "dist", "results", "site")
PASSED, FAILED = 0, 1
UNREADABLE = (2, 3, 4)
TOO_LONG = -signal.SIGKILL
"""What pytest ends with: `UNREADABLE` if files of tests or of code cannot be imported."""
NOT_PUT, CRASHED = 70, 71
"""What a fork ends with if it cannot put the change where it belongs, or if we made a mistake."""


class Copy:
    """A copy of the code and its tests, whose files can be changed one at a time.

    `tests` are the files, folders or ids that may be asked for.
    """

    def __init__(self, root: Path, folder: Path, tests: Sequence[str]) -> None:
        self.folder = folder
        shutil.copytree(root, folder, ignore=shutil.ignore_patterns(*NOT_COPIED))
        self._failed: dict[str, Counter[str]] = defaultdict(Counter)
        self._sound: set[str] = set()
        """Tests that are known to pass without a change."""
        self._unsound: set[str] = set()
        self._noted = folder / "first-failed.txt"
        os.environ["HYPOTHESIS_PROFILE"] = "mutants"
        _prepare()
        forked = multiprocessing.get_context("fork")
        self._collected, theirs = forked.Pipe()
        forked.Process(target=self._collect, args=(theirs, tests), daemon=True).start()
        self.collected: frozenset[str] = self._collected.recv()
        """Names of the tests, with and without their values."""
        if not self.collected:
            raise RuntimeError(f"the tests cannot be collected: {', '.join(tests)}")

    def killed(
        self, file: str, code: str, tests: Sequence[str], limit: float, *, imported: bool = True
    ) -> bool:
        """Whether one of the tests fails, or takes longer than `limit` seconds, with the file so.

        `imported` says that the change may show when modules are imported or tests collected: what
        no test notices is then tried again from there.

        A test that fails in any case is left out, and named on stderr. `RuntimeError` if there are
        no such tests.
        """
        unknown = {*tests} - self.collected
        if unknown or not tests:
            raise RuntimeError(f"no such tests: {', '.join(sorted(unknown))[:200]}")
        tests = [test for test in tests if test not in self._unsound]
        if not tests:
            return False
        path = self.folder / file
        right = path.read_text()
        often = self._failed[file]
        tests = sorted(tests, key=lambda test: -often[test])  # what noticed others notices most
        _forget_compiled(path)
        path.write_text(code)
        try:
            self._collected.send((path, right, code, tests, limit))
            ended = self._collected.recv()
            if ended == NOT_PUT or (ended == PASSED and imported):
                ended = self.fresh(tests, limit, kept=code == right)
        finally:
            path.write_text(right)
        if ended == FAILED and code != right:
            test = self._noted.read_text()
            often[test] += 1
            whose = {test, test.partition("[")[0]}  # a test may be asked for without its values
            if self._sound.isdisjoint(whose):
                self._collected.send((path, right, right, [test], limit))
                if self._collected.recv() != PASSED:
                    print(f"{test[:200]} fails without any change", file=sys.stderr, flush=True)
                    if not whose & {*tests}:
                        raise RuntimeError(f"{test} was not asked for")
                    self._unsound |= whose
                    return self.killed(file, code, tests, limit, imported=imported)
                self._sound.add(test)
        if ended == PASSED:
            if code == right:
                self._sound.update(tests)
            return False
        if ended in (FAILED, TOO_LONG) or (ended in UNREADABLE and code != right):
            return True
        raise RuntimeError(f"{file}: pytest ended with {ended} on {', '.join(tests)}")

    def fresh(self, tests: Sequence[str], limit: float, *, kept: bool = False) -> int:
        """What pytest ends with in a process that has imported none of the code."""
        return _forked(lambda: self._run([*tests], [Noting(self._noted)], kept=kept), limit)

    def _collect(self, asked, tests: Sequence[str]) -> None:
        """Collect tests, and answer what becomes of them with changes."""
        self._run(["--collect-only", *tests], [Answers(asked), Noting(self._noted)], kept=True)
        asked.send(frozenset())  # unless it has answered

    def _run(self, arguments: Sequence[str], plugins: Sequence[object], *, kept: bool) -> int:
        """Let pytest run. What it compiles is kept only if nothing is changed."""
        import pytest

        if not kept:
            _keep_nothing_compiled()
        os.environ["PYTHONPATH"] = str(self.folder)
        os.chdir(self.folder)
        sys.path[:0] = [str(self.folder)]
        nowhere = os.open(os.environ.get("MUTANTS_OUTPUT", os.devnull), os.O_WRONLY | os.O_CREAT)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        options = ["-x", "-p", "no:cacheprovider", "-m", ""]
        return int(pytest.main([*options, *arguments], plugins=[*plugins]))


class Noting:
    """A plugin of pytest: it writes down which test fails. With -x it is one."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def pytest_runtest_logreport(self, report) -> None:
        """Called by pytest after each part of a test."""
        if report.failed:
            self.file.write_text(report.nodeid)


class Answers:
    """A plugin of pytest: in place of running what it has collected, it answers what is asked."""

    def __init__(self, asked) -> None:
        self.asked = asked

    def pytest_runtestloop(self, session) -> bool:
        """Answer until nobody asks."""
        from _pytest import main

        if session.testsfailed:
            return True
        items = defaultdict(list)
        for item in session.items:
            for name in (item.nodeid, item.nodeid.partition("[")[0]):
                items[name].append(item)
        functions = defaultdict(list)
        for found in gc.get_objects():
            if type(found) is FunctionType:  # isinstance would wake what imports lazily
                functions[_place(found.__code__)].append(found)

        def run(path: Path, right: str, code: str, tests: Sequence[str]) -> int:
            _keep_nothing_compiled()
            if not _put(path, right, code, functions):
                return NOT_PUT
            session.config.option.collectonly = False
            session.items = [item for test in tests for item in dict.fromkeys(items[test])]
            with contextlib.suppress(session.Failed):  # the first failure ends it
                main.pytest_runtestloop(session)
            return FAILED if session.testsfailed else PASSED

        self.asked.send(frozenset(items))
        with contextlib.suppress(EOFError):
            while True:
                *change, limit = self.asked.recv()
                self.asked.send(_forked(lambda change=change: run(*change), limit))
        return True


def _place(code: CodeType) -> tuple[str, str, int]:
    return code.co_filename, code.co_qualname, code.co_firstlineno


def _put(path: Path, right: str, code: str, functions: dict) -> bool:
    """Give a module's functions the code that they have in the changed file.

    False if more is changed than bodies of functions that are known.
    """
    module = next((m for m in [*sys.modules.values()] if _file(m) == str(path)), None)
    if module is None:
        return True  # it will be imported as it now is
    compiled = module.__spec__.loader.source_to_code
    before = {
        _place(one): (one, known) for one, known in _codes(compiled(right.encode(), str(path)))
    }
    after = {_place(one): one for one, _ in _codes(compiled(code.encode(), str(path)))}
    if before.keys() != after.keys():
        return False
    for place, (one, outermost) in before.items():
        other = after[place]
        if _own(one) != _own(other) and (outermost is None or outermost not in functions):
            return False
        for function in functions.get(place, ()):
            if one != other:
                function.__code__ = other
    return True


def _file(module: object) -> str | None:
    return getattr(module, "__file__", None)


def _codes(
    code: CodeType, outermost: tuple | None = None
) -> Iterator[tuple[CodeType, tuple | None]]:
    """A module's code and all inside of it, each with the place of the function it belongs to."""
    yield code, outermost
    is_function = 0x2  # CO_NEWLOCALS: of functions, not of modules and classes
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            belongs = outermost or (_place(inner) if inner.co_flags & is_function else None)
            yield from _codes(inner, belongs)


def _own(code: CodeType) -> CodeType:
    """Code without that of the functions in it, and without where it stands."""
    consts = tuple(None if isinstance(c, CodeType) else c for c in code.co_consts)
    return code.replace(co_consts=consts, co_linetable=b"")


def _keep_nothing_compiled() -> None:
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def _forget_compiled(path: Path) -> None:
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
        compiled.unlink()  # it may be as old and as long as what is written now


def _prepare() -> None:
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
        status = CRASHED
        try:
            os.setsid()
            status = work()
        except (KeyboardInterrupt, SystemExit):  # of a test, or of what is imported
            status = UNREADABLE[0]  # as pytest says it
        except Exception:  # the parent raises, for this status
            traceback.print_exc()
        finally:
            sys.stderr.flush()
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
