"""Chat templates, in a process of their own that has little memory and little time.

A template is a program that comes with a checkpoint. transformers' sandbox keeps it from Python's
internals, but not from `'a' * 10**10` or from loops in loops. A thread cannot be stopped, and
memory is bounded for whole processes only, so this file runs as a second process too, where the
system enforces both. It is started once, in about a second beside the loading of weights, and ends
with the process that started it.
"""

from __future__ import annotations

import atexit
import functools
import json
import math
import os
import random
import signal
import string
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import datetime
from types import SimpleNamespace
from typing import IO, Any

try:
    import resource
except ImportError:  # Windows: its processes cannot be bounded so
    resource = None  # type: ignore[assignment]

SECONDS = 2
"""Of computing, for one text. Templates of real checkpoints need less than a millisecond."""
MEMORY = 2**29
"""Bytes that a template may take, beside what the process has before."""
LONGEST = 2**22
"""Characters of the text that it makes."""
TODAY = datetime(2024, 7, 26)
"""What a template is told that asks for the time, so that a prompt is the same on every day. It is
the day that the templates of Llama 3 name where there is no clock.
"""
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TZ": "UTC"}
"""Of the process: few threads, and the same time on every machine."""


class Process:
    """The process that runs templates. Several threads may use it; a fork starts its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: subprocess.Popen[str] | None = None
        self._parent = 0

    def start(self) -> None:
        """Have it start, if it does not run: it gets ready while others work."""
        with self._lock:
            self._started()

    def render(self, template: str, turns: list[dict[str, str]], **options: Any) -> str:
        """The text of a conversation. Raises `ValueError` for whatever goes wrong in the template,
        and if it takes more than `SECONDS`, `MEMORY` or `LONGEST`.
        """
        request = json.dumps([template, turns, options], default=str)
        with self._lock:
            running = self._started()
            assert running.stdin is not None
            assert running.stdout is not None
            try:
                running.stdin.write(request + "\n")
                running.stdin.flush()
                answer = running.stdout.readline()
            except BrokenPipeError:
                answer = ""
            except BaseException:  # such as Ctrl-C: what comes is the answer to nobody
                self._end()
                raise
            if not answer.endswith("\n"):
                self._running = None
                code = _ended(running)
                if resource and code == -signal.SIGXCPU:
                    raise ValueError(f"it takes more than {SECONDS} seconds")
                raise ValueError(f"it has ended its process, with the exit code {code}")
        found: dict[str, str] = json.loads(answer)
        if "error" in found:
            raise ValueError(found["error"])
        return found["text"]

    def _started(self) -> subprocess.Popen[str]:
        ended = self._running is not None and self._running.poll() is not None
        if self._running is None or ended or self._parent != os.getpid():
            # Safe path: beside this file lie modules that are called like others' packages.
            self._running = subprocess.Popen(
                [sys.executable, "-P", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="ascii",
                env=os.environ | ENVIRONMENT,
                start_new_session=True,  # Ctrl-C is for those who wait for it
            )
            self._parent = os.getpid()
        return self._running

    def _end(self) -> None:
        if self._running is not None and self._parent == os.getpid():
            self._running.kill()
            _ended(self._running)
        self._running = None

    def close(self) -> None:
        """End it."""
        with self._lock:
            self._end()


def _ended(process: subprocess.Popen[str]) -> int:
    """Its exit code, when it has ended. Its pipes are closed."""
    code = process.wait()
    for pipe in (process.stdin, process.stdout):
        with suppress(BrokenPipeError):  # of what it has not read any more
            assert pipe is not None
            pipe.close()
    return code


process = Process()
"""The one of this process."""
atexit.register(process.close)


# What the second process does


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Answer each line of `requests` by a line."""
    from transformers.utils import chat_template_utils

    chat_template_utils.datetime = SimpleNamespace(now=lambda: TODAY)
    chat_template_utils.ImmutableSandboxedEnvironment = _environment()
    render = chat_template_utils.render_jinja_template
    if resource:
        _bound(resource.RLIMIT_CORE, 0)
    if resource and os.path.exists(TAKEN):  # elsewhere than on Linux the system does not enforce it
        _bound(resource.RLIMIT_AS, _taken() + MEMORY)
    for request in requests:
        answer: dict[str, str]
        try:
            template, turns, options = json.loads(request)
            if resource:
                _bound(resource.RLIMIT_CPU, math.ceil(_computed()) + SECONDS)
            random.seed(0)  # which a template can ask for
            rendered: Any = render([turns], chat_template=template, **options)
            text: str = rendered[0][0]
            if len(text) > LONGEST:
                raise ValueError(f"it makes {len(text)} characters of a conversation")
            text.encode()  # half a character is no text
            answer = {"text": text}
        except MemoryError:
            answer = {"error": f"it takes more than {MEMORY >> 20} MB of memory"}
        except Exception as error:  # a template can raise anything
            reason = " ".join(str(error).split())[:300]
            answer = {"error": f"{type(error).__name__}: {reason}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


TAKEN = "/proc/self/statm"
OF_OBJECTS = {
    *("abs", "attr", "batch", "count", "d", "default", "dictsort", "first", "float", "groupby"),
    *("int", "items", "join", "last", "length", "list", "map", "max", "min", "random", "reject"),
    *("rejectattr", "reverse", "round", "select", "selectattr", "slice", "sort", "sum", "tojson"),
    "unique",
}
"""Filters that make no text of what they are given; `join` looks at the parts itself."""


def _environment() -> type[Any]:
    """Where templates are rendered: transformers' environment, but text is made of plain values
    alone: by output, `~`, `%`, `format`, filters and methods of Markup.

    An object of Python's would show its address, which is another one in each process, so that the
    conversation could not be made again.
    """
    from jinja2 import Undefined, filters, pass_eval_context, runtime, sandbox
    from markupsafe import Markup

    scalars = (str, bytes, int, float, complex, type(None), Undefined)

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            plain([*value, *value.values()])
        elif isinstance(value, list | tuple):
            for one in value:
                plain(one)
        elif not isinstance(value, scalars):
            raise ValueError(f"it shows an object of Python, a {type(value).__name__}")
        return value

    def of_plain(function: Any) -> Any:
        @functools.wraps(function)
        def made(*given: Any, **options: Any) -> Any:
            plain([given[hasattr(function, "jinja_pass_arg") :], options])
            return function(*given, **options)

        return made

    @pass_eval_context
    def join(context: Any, value: Any, d: Any = "", attribute: Any = None) -> Any:
        if attribute is not None:
            value = map(filters.make_attrgetter(context.environment, attribute), value)
        return filters.do_join(context, plain([*value]), plain(d))

    class Environment(sandbox.ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset("%")

        def from_string(self, *source: Any, **options: Any) -> Any:
            self.finalize = plain
            for name in self.filters.keys() - OF_OBJECTS:
                self.filters[name] = of_plain(self.filters[name])
            self.filters["join"] = join
            return super().from_string(*source, **options)

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            return super().call_binop(context, operator, plain(left), plain(right))

        def call(self, context: Any, function: Any, /, *given: Any, **options: Any) -> Any:
            owner = getattr(function, "__self__", None)
            if isinstance(owner, Markup) or owner is Markup:
                plain([given, options])
            return super().call(context, function, *given, **options)

    def converted(self: Any, value: Any, conversion: Any) -> Any:
        return string.Formatter.convert_field(self, plain(value), conversion)

    def of_parts(function: Any) -> Any:
        return lambda parts: function(plain([*parts]))

    sandbox.SandboxedFormatter.convert_field = converted  # type: ignore[method-assign]
    runtime.str_join, runtime.markup_join = (
        of_parts(runtime.str_join),
        of_parts(runtime.markup_join),
    )
    return Environment


def _bound(what: int, soft: int) -> None:
    hard = resource.getrlimit(what)[1]
    allowed = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(what, (allowed, hard))


def _taken() -> int:
    """Bytes of address space that this process has."""
    with open(TAKEN) as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _computed() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
