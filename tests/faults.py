"""A disk that fails, and processes that die, in one Python process.

A `Process` is a thread that runs only when it is told to, so many changes of the disk, locks and
waits at a time. All that it does to files below the root of its `Disk` goes through here, where the
k-th of these operations may fail, or be the last one of the process: whatever its `finally` clauses
try after that does not happen.

What is on the disk when the power fails is the least that POSIX promises: the contents of a file as
of its last fsync, and its name as of the last fsync of its folder. Made folders stay.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import os
import sys
import threading
import time
import traceback
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

REAL_OPEN, REAL_CLOSE, REAL_WRITE = os.open, os.close, os.write
REAL_FLOCK, REAL_FSYNC, REAL_SLEEP = fcntl.flock, os.fsync, time.sleep
REAL_REPLACE, REAL_UNLINK, REAL_MKDIR = os.replace, os.unlink, os.mkdir
REAL_FILE, REAL_RANDOM, REAL_CLOCK = io.open, os.urandom, time.perf_counter

CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Killed(BaseException):
    """The process is no more."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong at the operation number `at` of a process, or at the first after it that can
    go wrong so."""

    kind: str
    """`kill`, `stop` for Ctrl-C, `full` for a full disk, `broken` for a broken one."""
    at: int
    part: float = 0.0
    """How much of what is being written gets onto the disk: 0, 0.5 or 1."""
    lasting: bool = True
    """Whether the disk stays so until the process ends."""


class Process(threading.Thread):
    """Something that may be paused at each of its operations, and die there."""

    def __init__(self, name, act, fault=None):
        super().__init__(name=name, daemon=True)
        self.act, self.fault = act, fault
        self.ended = self.dead = self.waiting = self.inside = False
        self.said: list[str] = []
        self.result = self.error = None
        self.operations = 0
        self._left: int | None = 0
        self._turn, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self.descriptors: set[int] = set()
        self.start()

    def run(self):
        self._turn.acquire()
        try:
            if not self.dead:
                self.result = self.act()
        except Killed:
            pass
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # they would hold locks
            self.error = error
        for descriptor in self.descriptors:  # as the system does it
            REAL_CLOSE(descriptor)
        self.ended = True
        self._back.release()

    def go_on(self, operations=None):
        """Let it do so many operations, or all that it has to do; or all until it has to wait."""
        self._left, self.waiting = operations, False
        self._turn.release()
        self._back.acquire()
        if self.ended:
            self.join()

    def kill(self):
        if not self.ended:
            self.dead = True
            self.go_on()

    def wait(self):
        """Until it is told to go on."""
        self.waiting = True
        self._pause()

    def _pause(self):
        self._back.release()
        self._turn.acquire()
        self.require_life()

    def require_life(self):
        if self.dead:
            raise Killed

    def operation(self, *kinds):
        """Count one, after which there may be a fault of one of these kinds: that is returned."""
        self.require_life()
        if self._left == 0:
            self._pause()
        if self._left is not None:
            self._left -= 1
        self.operations += 1
        fault = self.fault
        if fault is None or self.operations < fault.at or fault.kind not in (*kinds, "stop"):
            return None
        if fault.kind == "stop" or (fault.kind != "kill" and not fault.lasting):
            self.fault = None
        return fault

    def fail(self, fault, path=None):
        if fault.kind == "kill":
            self.dead = True
            raise Killed
        if fault.kind == "stop":
            raise KeyboardInterrupt
        number = errno.ENOSPC if fault.kind == "full" else errno.EIO
        raise OSError(number, os.strerror(number), *([os.fspath(path)] if path else []))


def current():
    """The process that this is a part of, if any."""
    thread = threading.current_thread()
    return thread if isinstance(thread, Process) else None


class Disk:
    """What is below a folder, `root`."""

    def __init__(self, root: Path):
        self.root = os.path.realpath(root)
        self.paths: dict[int, str] = {}
        """Descriptor -> path, of what was opened by os.open."""
        self.synced: dict[int, bytes] = {}
        """Inode -> its contents at its last fsync."""
        self.names: dict[str, bytes | None] = {}
        """Path -> what would be there again if the last change of the name were undone; None for
        nothing."""
        self.drawn = 0
        self.outside: list[str] = []
        """What was changed elsewhere, or here by other means than those that may fail."""

    def has(self, path):
        return isinstance(path, str | os.PathLike) and (
            os.path.abspath(os.fspath(path)) + "/"
        ).startswith(self.root + "/")

    @contextmanager
    def mounted(self):
        """Processes use it by all means that Python's own libraries use."""
        with ExitStack() as stack:
            for where, name, ours in (
                (os, "open", self._open),
                (os, "close", self._close),
                (os, "write", self._write),
                (os, "fsync", self._fsync),
                (os, "replace", self._replace),
                (os, "rename", self._replace),
                (os, "unlink", self._unlink),
                (os, "remove", self._unlink),
                (os, "mkdir", self._mkdir),
                (fcntl, "flock", self._flock),
                (time, "sleep", self._sleep),
                (time, "perf_counter", self._clock),
                (os, "urandom", self._random),
                (io, "open", self._file),
                (builtins, "open", self._file),
            ):
                stack.enter_context(mock.patch.object(where, name, ours))
            MOUNTED.append(self)
            stack.callback(MOUNTED.remove, self)
            yield

    # What processes do

    def _open(self, path, flags, mode=0o777, *, dir_fd=None):
        process = current()
        if process is None or not self.has(path):
            return REAL_OPEN(path, flags, mode, dir_fd=dir_fd)
        new = flags & os.O_CREAT and not os.path.exists(path)
        if new and (fault := process.operation("kill", "full", "broken")):
            process.fail(fault, path)
        with inside(process):
            descriptor = REAL_OPEN(path, flags, mode, dir_fd=dir_fd)
        if new:
            self._made(path)
        self.paths[descriptor] = os.path.abspath(path)
        process.descriptors.add(descriptor)
        return descriptor

    def _made(self, path):
        self.names.setdefault(os.path.abspath(path), None)
        self.synced.pop(os.stat(path).st_ino, None)  # of a file that is no more

    def _close(self, descriptor):
        REAL_CLOSE(descriptor)
        self.paths.pop(descriptor, None)
        if process := current():
            process.descriptors.discard(descriptor)

    def _write(self, descriptor, data):
        process = current()
        if process is None or descriptor not in self.paths:
            return REAL_WRITE(descriptor, data)
        return self.some_written(process, data, lambda part: REAL_WRITE(descriptor, part))

    def some_written(self, process, data, write):
        """Write it, or the part of it that a fault lets through."""
        fault = process.operation("kill", "full", "broken")
        if fault is None:
            return write(data)
        part = memoryview(data)[: int(len(data) * fault.part)]
        if fault.part and (fault.kind == "kill" or fault.part < 1):
            written = write(part)
            if fault.kind == "full" and written:
                # The system says how much it took; it is the next call that fails.
                process.fault = Fault("full", 0, 0.0, fault.lasting)
                return written
        process.fail(fault)

    def _fsync(self, descriptor):
        process = current()
        if process is None:
            return REAL_FSYNC(descriptor)
        if fault := process.operation("kill", "broken"):
            process.fail(fault)
        found = os.readlink(f"/proc/self/fd/{descriptor}")
        if os.path.isdir(found):
            self.names = {n: v for n, v in self.names.items() if os.path.dirname(n) != found}
        elif self.has(found):
            self.synced[os.fstat(descriptor).st_ino] = Path(
                f"/proc/self/fd/{descriptor}"
            ).read_bytes()
        return None

    def _replace(self, a, b, **options):
        process = current()
        if process is None or not (self.has(a) and self.has(b)):
            return REAL_REPLACE(a, b, **options)
        if fault := process.operation("kill", "full", "broken"):
            process.fail(fault, a)
        source, target = os.path.abspath(a), os.path.abspath(b)
        if os.path.isfile(source):
            self.names.setdefault(target, self._kept(target))
            self.names.pop(source, None)
        else:  # what is in a folder goes with it
            moved = {n: v for n, v in self.names.items() if n.startswith(f"{source}/")}
            self.names = {n: v for n, v in self.names.items() if n not in moved}
            self.names |= {target + n.removeprefix(source): v for n, v in moved.items()}
        with inside(process):
            return REAL_REPLACE(a, b, **options)

    def _kept(self, path):
        """What would be left of a file."""
        if not os.path.isfile(path):
            return None
        return self.synced.get(os.stat(path).st_ino, b"")

    def _unlink(self, path, **options):
        process = current()
        if process is None or not self.has(path):
            return REAL_UNLINK(path, **options)
        if fault := process.operation("kill", "broken"):
            process.fail(fault, path)
        self.names.pop(os.path.abspath(path), None)
        with inside(process):
            return REAL_UNLINK(path, **options)

    def _mkdir(self, path, mode=0o777, **options):
        process = current()
        if process is None or not self.has(path) or os.path.exists(path):
            return REAL_MKDIR(path, mode, **options)
        if fault := process.operation("kill", "full", "broken"):
            process.fail(fault, path)
        with inside(process):
            return REAL_MKDIR(path, mode, **options)

    def _flock(self, file, how):
        process = current()
        if process is None:
            return REAL_FLOCK(file, how)
        if fault := process.operation("kill"):
            process.fail(fault)
        while True:
            try:
                return REAL_FLOCK(file, how | fcntl.LOCK_NB)
            except BlockingIOError:
                if how & fcntl.LOCK_NB:
                    raise
                process.wait()

    def _sleep(self, seconds):
        process = current()
        if process is None:
            return REAL_SLEEP(seconds)
        process.require_life()
        process.wait()
        return None

    # The same files in the same order, and lines of the same length, each time it is done.

    def _clock(self):
        return REAL_CLOCK() if current() is None else 0.0

    def _random(self, size):
        if current() is None:
            return REAL_RANDOM(size)
        self.drawn += 1
        return self.drawn.to_bytes(size, "big")

    def _file(self, file, mode="r", buffering=-1, *args, **options):
        process = current()
        known = self.paths.get(file) if isinstance(file, int) else file
        writes = set(mode) & set("wax+")
        if process is None or not writes or not self.has(known):
            return REAL_FILE(file, mode, buffering, *args, **options)
        assert "b" in mode, "only files of bytes are written so"
        new = not os.path.exists(known)
        if new and (fault := process.operation("kill", "full", "broken")):
            process.fail(fault, known)
        with inside(process):
            raw = File(self, file, mode)
        if isinstance(file, int):  # it is closed with the file
            process.descriptors.discard(file)
            self.paths.pop(file)
        elif new:
            self._made(known)
        kind = io.BufferedRandom if "+" in mode else io.BufferedWriter
        return kind(raw)

    # What happens to it

    def settle(self):
        """All that is there stays, whatever happens to the power."""
        self.names.clear()
        for path in self.files():
            self.synced[path.stat().st_ino] = path.read_bytes()

    def files(self):
        return [path for path in Path(self.root).rglob("*") if path.is_file()]

    def lose_power(self, part, undone, zeros):
        """When nothing runs any more. `part`: how much stays of what was not synced; `undone`:
        bits that say which changes of names are undone; `zeros`: whether what is lost of a file
        reads as zeros.
        """
        for i, (name, before) in enumerate(sorted(self.names.items(), key=lambda each: each[0])):
            if undone >> i % 3 & 1:
                Path(name).unlink(missing_ok=True)
                if before is not None:
                    Path(name).write_bytes(before)
                    self.synced[os.stat(name).st_ino] = before
        for path in self.files():
            there, kept = path.read_bytes(), self.synced.get(path.stat().st_ino, b"")
            if there != kept:
                fresh = there[len(kept) :] if there.startswith(kept) else b""
                stays = fresh[: int(len(fresh) * part)]
                lost = b"\0" * (len(fresh) - len(stays)) if zeros else b""
                path.write_bytes(kept + stays + lost)
        self.settle()


class File(io.FileIO):
    """The unbuffered file below what `open` returns."""

    def __init__(self, disk, file, mode):
        super().__init__(file, mode.replace("b", ""))
        self.disk = disk

    def write(self, data):
        process = current()
        if process is None:
            return super().write(data)
        return self.disk.some_written(process, data, super().write)

    def truncate(self, size=None):
        process = current()
        if process is not None and (fault := process.operation("kill", "broken")):
            process.fail(fault)
        return super().truncate(size)


@contextmanager
def inside(process):
    """While a process does what may fail."""
    process.inside = True
    try:
        yield
    finally:
        process.inside = False


MOUNTED: list[Disk] = []


def _hook(event, arguments):
    """Python says of all that opens, moves or removes a file, by whatever means."""
    if not MOUNTED or event not in AUDITED:
        return
    process = current()
    if process is None or process.inside:
        return
    if event == "open":
        path, _, flags = arguments
        if not flags & CHANGES or path == os.devnull:
            return
    elif event == "os.chmod":
        path = arguments[0]
        if MOUNTED[-1].has(path):
            return
    elif event == "os.mkdir" and os.path.exists(arguments[0]):
        return
    else:
        path = arguments[0]
    MOUNTED[-1].outside.append(f"{event} {path!r}")


AUDITED = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod"}
AUDITED |= {"os.link", "os.symlink", "shutil.move", "shutil.rmtree", "shutil.copyfile"}
sys.addaudithook(_hook)
