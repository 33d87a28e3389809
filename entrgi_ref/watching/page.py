"""A recorded trajectory as one self-contained web page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def trace_page(prompt: str, panels: list[dict[str, Any]]) -> str:
    """The page's HTML: one panel per trajectory, side by side, in one file that needs no network.

    A panel has `title`, `subtitle`, `results` (label -> text, shown with the finished answer) and
    `frames`, from `Recorder.frames`. `ValueError` for numbers that are not finite.
    """
    data = json.dumps(
        {"prompt": prompt, "panels": panels},
        ensure_ascii=False,
        separators=(",", ":"),
        allow_nan=False,
    )
    data = data.replace("<", "\\u003c")  # no text may end the script element that holds it
    page, script, style = (
        (Path(__file__).parent / f"page.{kind}").read_text(encoding="utf-8")
        for kind in ("html", "js", "css")
    )
    page = page.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
    return page.replace('"TRACE"', data, 1)
