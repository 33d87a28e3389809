"""Where numbers come from: the code that made them, and what it ran on."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import torch


def commit() -> str:
    """The checkout's commit, with -dirty if files differ from it; `unknown` without a checkout."""
    here = str(Path(__file__).parent)
    git = ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def versions() -> dict[str, str]:
    """Of what computes the records."""
    from .. import __version__

    found = {
        "entrgi_ref": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if "transformers" in sys.modules:
        found["transformers"] = sys.modules["transformers"].__version__
    return found
