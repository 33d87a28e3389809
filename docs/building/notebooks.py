"""Notebooks, made of pages: `python docs/building/notebooks.py` writes them anew.

A page in docs/notebooks is the source. Its blocks of Python become cells, what stands below them
becomes their output, and the text between becomes Markdown without macros and links of the site.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent.parent)]

from building.examples import BLOCK, DOCS

MACRO = re.compile(r"^\{\{.*\}\}\n+", re.MULTILINE)
LINK = re.compile(r"\[([^]]+)\]\((?!https?:)[^)]+\)")


def sources() -> list[Path]:
    """The pages that notebooks are made of."""
    return sorted((DOCS / "notebooks").glob("*.md"))


def notebook(page: Path) -> str:
    """The notebook of a page, as JSON."""
    text = page.read_text(encoding="utf-8")
    cells: list[dict[str, Any]] = []

    def add(kind: str, source: str, **more: Any) -> None:
        if source.strip():
            name, lines = f"{kind}-{len(cells) + 1}", source.strip().splitlines(keepends=True)
            cell = {"cell_type": kind, "id": name, "metadata": {}, "source": lines}
            cells.append(cell | more)

    end = 0
    for block in BLOCK.finditer(text):
        add("markdown", LINK.sub(r"\1", MACRO.sub("", text[end : block.start()])))
        lines = (block["output"] or "").splitlines(keepends=True)
        stream = {"name": "stdout", "output_type": "stream", "text": lines}
        add("code", block["code"], execution_count=None, outputs=[stream] if lines else [])
        end = block.end()
    add("markdown", LINK.sub(r"\1", MACRO.sub("", text[end:])))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    written = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(written, ensure_ascii=False, indent=1) + "\n"


if __name__ == "__main__":
    for source in sources():
        source.with_suffix(".ipynb").write_text(notebook(source), encoding="utf-8")
