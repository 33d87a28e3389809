"""The record of a run on the toy: where its numbers come from."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from entrgi_ref import SamplingConfig
from entrgi_ref.commands.files import write_text
from entrgi_ref.commands.provenance import commit


def provenance(
    base: SamplingConfig, testbed: str, prompts: int, seeds: Sequence[int]
) -> dict[str, Any]:
    """All that is needed to find where numbers come from, and to make them again."""
    return {
        "command": " ".join(["python -m toy", *sys.argv[1:]]),
        "commit": commit(),
        "testbed": testbed,
        "prompts": prompts,
        "seeds": list(seeds),
        "settings": json.loads(base.to_json()),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads of a CPU",
    }


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a run record."""
    write_text(path, json.dumps(record, indent=1) + "\n")
