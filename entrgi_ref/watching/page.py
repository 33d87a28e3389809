"""A recorded trajectory as one self-contained web page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import checks


@checks.explained
def trace_page(prompt: str, panels: list[dict[str, Any]]) -> str:
    """The page's HTML: one panel per trajectory, side by side, in one file that needs no network.

    A panel has `title`, `subtitle`, `results` (label -> text, shown with the finished answer) and
    `frames`, from `Recorder.frames`. `ValueError` for numbers that are not finite.
    """
    return _page({"prompt": prompt, "panels": panels})


@checks.explained
def trace_pages(traces: Sequence[tuple[str, list[dict[str, Any]]]]) -> str:
    """The same for prompts of which each has panels of its own: one of them is shown at a time."""
    parts = [{"prompt": prompt, "panels": panels} for prompt, panels in traces]
    return _page(parts[0] if len(parts) == 1 else {"traces": parts})


def _page(shown: dict[str, Any]) -> str:
    data = json.dumps(
        shown,
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
