"""A run as the authors' result files: one file per benchmark, method, variant and seed.

Layout and names are those of their run script, so that their evaluation reads them. Their
aggregation script looks for `_MNT<n>_` in the names, which their run script does not write; an
option puts it there.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...commands.files import write_bytes
from ..run.records import best
from ..run.required import Record
from .summary import Run


def write(folder: Path, to: Path, aggregation_names: bool = False) -> list[Path]:
    """Write the files into `to`. Prompts that failed are left out."""
    run = Run.read(folder)
    cells: dict[str, list[Record]] = {}
    for record in run.records:
        if "settings" not in record:
            raise ValueError(f"out: {folder} has records without settings, which an export names")
        cells.setdefault(_name(record, run.declaration, aggregation_names), []).append(record)
    if not cells:
        raise ValueError(f"out: {folder} has no records yet")
    for name, records in cells.items():
        text = json.dumps(_contents(records, run.declaration), indent=2, ensure_ascii=False)
        # Half a character cannot be written; its escape is JSON's.
        write_bytes(to / name, f"{text}\n".encode(errors="backslashreplace"))
    return [to / name for name in sorted(cells)]


def _name(record: Record, declaration: Mapping[str, Any], aggregation_names: bool) -> str:
    settings = record["settings"]
    steps = settings["guidance"]["steps"]
    parts = [
        record["benchmark"],
        _reward(record, declaration),
        f"k{settings['trajectories']}",
        f"temp{settings['temperature']}",
        f"T{settings['denoising_steps']}",
        *([f"MNT{settings['new_tokens']}"] if aggregation_names else []),
        *([f"M{steps}"] if steps else []),
        record["method"],
        f"seed{record['seed']}",
    ]
    return "_".join(parts) + ".json"


def _reward(record: Record, declaration: Mapping[str, Any]) -> str:
    name = str(record["settings"]["reward"])
    known = {key: str(of["name"]).rsplit("/", 1)[-1] for key, of in declaration["rewards"].items()}
    # Two folders of one name would be one file: then they go by what the run calls them.
    return known[name] if list(known.values()).count(known[name]) == 1 else name


def _contents(records: list[Record], declaration: Mapping[str, Any]) -> dict[str, Any]:
    first = records[0]
    top1 = [max(record["rewards"]) for record in records]
    average = [statistics.fmean(record["rewards"]) for record in records]
    settings = first["settings"]
    return {
        "config": {
            "benchmark": first["benchmark"],
            "reward_model": _reward(first, declaration),
            "K": settings["trajectories"],
            "T": settings["denoising_steps"],
            "M": settings["guidance"]["steps"],
            "eta": settings["guidance"]["step_size"],
            "temperature": settings["temperature"],
            "top_p": settings["top_p"],
            "max_new_tokens": settings["new_tokens"],
            "alg": settings["order"],
            "seed": first["seed"],
            "entrgi_ref": {"settings": settings, "fingerprint": first["fingerprint"]},
        },
        "method": first["method"],
        "metrics": {
            "mean_top1_reward": statistics.fmean(top1),
            "mean_avgN_reward": statistics.fmean(average),
            "all_top1_rewards": top1,
            "all_avgN_rewards": average,
        },
        "results": [
            {
                "idx": record["idx"],
                "prompt": record["prompt"],
                "best_response": record["responses"][best(record)],
                "top1_reward": top1[i],
                "all_responses": record["responses"],
                "all_rewards": record["rewards"],
                "avgN_reward": average[i],
            }
            for i, record in enumerate(records)
        ],
    }
