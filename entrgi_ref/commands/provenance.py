"""Where numbers come from: the code that made them, and what it ran on."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch


@cache
def commit() -> str:
    """The checkout's commit; `unknown` without a checkout.

    If files differ from it, with -dirty and a hash of the code as it is. A package that is
    installed inside of somebody's repository is no checkout of its own.
    """
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        subprocess.run(
            [*git, "ls-files", "--error-unmatch", Path(__file__).name],
            capture_output=True,
            check=True,
        )
        described = subprocess.run(
            [*git, "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    found = described.stdout.strip()
    return f"{found}-{_sources()}" if found.endswith("-dirty") else found


def _sources() -> str:
    """A short hash of the package's code, and of the toy's where it is at hand."""
    digest = hashlib.blake2b(digest_size=4)
    root = Path(__file__).parents[2]
    for file in sorted(
        file for room in ("entrgi_ref", "toy") for file in root.glob(f"{room}/**/*.py")
    ):
        digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


@cache
def versions() -> Mapping[str, str]:
    """Of what computes the records. Looked up once: each record has them."""
    from .. import __version__

    found = {
        "entrgi_ref": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # the toy runs without
        found["transformers"] = importlib.metadata.version("transformers")
    return found


def made_with() -> dict[str, str]:
    """What decides, beside the settings, what a record says: versions and commit.

    Python's version is left out: records do not depend on it.
    """
    return {"commit": commit()} | {k: v for k, v in versions().items() if k != "python"}
