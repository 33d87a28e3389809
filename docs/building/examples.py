"""The Python blocks of the pages: they run, page by page, and what they print stands below them.

A block ``` python is run with those above it on its page; if a block ``` text with the title
`Output` follows, it must be what was printed, else nothing may be. Where trained networks are at
work, whose weights depend on the machine, the title is `Output (yours may differ)`: then numbers
and examples of sentences may. `python docs/building/examples.py` writes the outputs anew.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

DOCS = Path(__file__).parent.parent
BLOCK = re.compile(
    r"^(?P<fence>```) ?python *\n(?P<code>.*?)^```\n"
    r"(?P<rest>\n``` ?text title=\"(?P<title>Output[^\"]*)\"\n(?P<output>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Example:
    """A block of a page."""

    page: Path
    line: int
    code: str
    output: str
    """As it stands on the page."""
    exact: bool = True

    def comparable(self, output: str) -> str:
        """What of an output must be the same everywhere."""
        if self.exact:
            return output
        output = re.sub("for example: .*", "for example: ...", output)
        # In a table the widths may differ too.
        output = re.sub(r"[-+−]?\d+(\.\d+)?", "#", output)
        return re.sub(" +", " ", re.sub("-+", "-", output))


def examples(page: Path) -> Iterator[Example]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        line = text[: match.start()].count("\n") + 2
        exact = "differ" not in (match["title"] or "")
        yield Example(page, line, match["code"], match["output"] or "", exact)


def printed(page: Path) -> list[tuple[Example, str]]:
    """Each block, and what it prints when the page is run from the top."""
    namespace: dict[str, object] = {"__name__": "__docs__"}
    found = []
    with _torch_as_it_was():
        for example in examples(page):
            written = io.StringIO()
            # Lines are counted as on the page, so that a traceback points there.
            code = compile("\n" * (example.line - 1) + example.code, str(page), "exec")
            with contextlib.redirect_stdout(written):
                exec(code, namespace)
            found.append((example, written.getvalue()))
    return found


@contextlib.contextmanager
def _torch_as_it_was() -> Iterator[None]:
    """Undo what a page sets."""
    dtype, state = torch.get_default_dtype(), torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_rng_state(state)
        torch.set_printoptions(profile="default")


def pages() -> list[Path]:
    """The pages that have blocks."""
    return [page for page in sorted(DOCS.glob("**/*.md")) if any(examples(page))]


def rewritten(page: Path) -> str:
    """A page with its outputs as they are."""
    outputs = iter(printed(page))

    def replaced(match: re.Match[str]) -> str:
        _, output = next(outputs)
        block = f"```python\n{match['code']}```\n"
        title = match["title"] or "Output"
        return block + (f'\n```text title="{title}"\n{output}```\n' if output else "")

    return BLOCK.sub(replaced, page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.path.insert(0, str(DOCS.parent))
    for page in pages():
        page.write_text(rewritten(page), encoding="utf-8")
