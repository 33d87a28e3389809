"""What the command `bench` writes."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import torch

from ...checks import rows_at_a_time
from ...commands.files import require_file, require_writable, write_text
from .bench import Bench, bench, report
from .networks import SHAPES
from .scaling import scaling
from .switches import switched


def run(
    name: str,
    file: Path | None,
    rounds: int,
    device: torch.device,
    faster: bool = False,
    scaled: bool = False,
    switches: bool = False,
    vocabulary_batch: int | None = None,
) -> str:
    """Measure one of `SHAPES`; write what was found to a file, if one is given.

    With `scaled`, how the time grows with each size; with `switches`, what each trick gives.
    """
    if faster and device.type != "cuda":
        raise ValueError(f"faster: got True on {device}, expected a GPU of NVIDIA")
    rows_at_a_time("vocabulary_batch", vocabulary_batch)
    if file is not None:
        require_file("json", file)
        require_writable(file.parent)
    found = bench(SHAPES[name], device, rounds, faster, vocabulary_batch)
    option = " --faster" if faster else ""
    option += f" --vocabulary-batch {vocabulary_batch}" if vocabulary_batch else ""
    found |= {
        "command": f"python -m entrgi_ref.paper bench --shape {name} --rounds {rounds}{option}",
        "testbed": f"random networks of the shape {name}",
        "machine": f"{platform.machine()}, {found['threads']} threads of a CPU, {found['device']}",
    }
    text = f"{name}, {found['device']}, {found['threads']} threads\n{report(found)}"
    if scaled:
        found["command"] += " --scaling"
        found["scaling"] = scaling(SHAPES[name], device, rounds)
        text += f"\n{scaling_report(found['scaling'])}"
    if switches:
        found["command"] += " --switches"
        found["without"] = switched(Bench.of(SHAPES[name], device), device, rounds)
        text += "".join(
            f"\n{'without fast/' + part + '.py, over with':38} {ratio:8.2f}"
            for part, ratio in found["without"].items()
        )
    if file is not None:
        write_text(file, json.dumps(found, indent=1) + "\n")
    return text


def scaling_report(found: list[dict[str, Any]]) -> str:
    """Seconds at each multiple of each size, and the slopes, in lines."""
    lines = [
        "size     values                    seconds                  slope: expected, measured"
    ]
    for line in found:
        values = ", ".join(map(str, line["values"]))
        seconds = ", ".join(f"{each:.3f}" for each in line["seconds"])
        slopes = f"{line['expected']:.2f}, {line['measured']:.2f}"
        lines.append(f"{line['size']:8} {values:25} {seconds:24} {slopes}")
    return "\n".join(lines)
