"""Ctrl-C while a command still imports: one line, where Python would show a traceback.

Importing torch takes a second or more, and nothing of a command runs before it. So the package asks
here first, and `run_app` takes over when all is imported.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

STOPPED = 130
"""The exit code after Ctrl-C."""
MODULES = ("entrgi_ref", "entrgi_ref.paper", "toy")
SCRIPTS = ("entrgi", "entrgi-paper")


def is_a_command() -> bool:
    """Whether Python was started with one of our commands: elsewhere Ctrl-C is the caller's."""
    words = sys.orig_argv[1:3]
    if words[:1] == ["-m"]:
        return words[1] in MODULES
    return bool(words) and Path(words[0]).stem in SCRIPTS


def begin() -> None:
    """Let Ctrl-C end the process in one line. Where it is ignored, it stays ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)


def end() -> None:
    """Let Ctrl-C be an exception again, which the commands answer."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _stop(number: int, frame: FrameType | None) -> None:
    # No exception: what is being imported could catch it, and go on.
    os.write(2, b"Stopped.\n")
    os._exit(STOPPED)
