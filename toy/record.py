"""The record of a run on the toy: where its numbers come from."""

from __future__ import annotations

import json
import math
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
    """Write a run record. A number that is not finite, such as the interval of a single unit, is
    null: JSON has no nan.
    """
    write_text(path, json.dumps(_finite(record), indent=1) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
