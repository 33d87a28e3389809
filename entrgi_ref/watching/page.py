"""A recorded trajectory as one self-contained web page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_trace(path: Path, prompt: str, panels: list[dict[str, Any]]) -> None:
    """Write the page: one panel per trajectory, side by side, in one file that needs no network.

    A panel has `title`, `subtitle`, `results` (label -> text, shown with the finished answer) and
    `frames`, from `Recorder.frames`.
    """
    data = json.dumps(
        {"prompt": prompt, "panels": panels}, ensure_ascii=False, separators=(",", ":")
    )
    data = data.replace("<", "\\u003c")  # no text may end the script element that holds it
    page, script, style = (
        (Path(__file__).parent / f"page.{kind}").read_text(encoding="utf-8")
        for kind in ("html", "js", "css")
    )
    page = page.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
    path.write_text(page.replace('"TRACE"', data, 1), encoding="utf-8")
