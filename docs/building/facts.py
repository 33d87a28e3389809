"""Every number that stands in the text of a page, and where it comes from.

Numbers of run records come into a page by a macro and cannot be wrong. The others are written by
hand: each is listed in `facts.json`, page by page and in order, with its source. A source that
begins with `=` is an expression, and is computed. So no number can be edited unseen.

    python docs/building/facts.py     lists what is new, with the source `?`
"""

from __future__ import annotations

import json
import re
import sys
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent
LISTED = Path(__file__).with_suffix(".json")

IGNORED = re.compile(
    r"^``` ?.*?^```$"  # code is run
    r"|<!-- record: .*?<!-- end -->"  # a table that is made from a record
    r"|<!--.*?-->|<[^>]*>"
    r"|\{\{.*?\}\}|\{[ :#.][^{}]*\}"  # macros and attributes
    r"|\]\([^)]*\)"  # the target of a link
    r"|arXiv \d+\.\d+"
    r"|\b(?:Eqs?|Figures?|Alg|Algorithm|[Rr]ows?)\.? \d+(?:(?:,| and| to) \d+)*"
    r"|^### \d+b?\. ",  # a row of the ledger
    re.MULTILINE | re.DOTALL,
)
NUMBER = re.compile(r"(?<![\w.])[-−+]?\d+(?:[.,]\d+)*(?:e-?\d+)?")


def of(page: Path) -> list[str]:
    """The numbers of a page's text, in order."""
    text = IGNORED.sub(" ", page.read_text(encoding="utf-8")).replace("{,}", ",")
    found = [n.lstrip("+−-") for n in NUMBER.findall(text)]
    return [n for n in found if n not in ("0", "1")]  # ends of intervals, and counts


def pages() -> dict[str, list[str]]:
    """Page -> its numbers, for all pages that have some."""
    found = {p.relative_to(DOCS).as_posix(): of(p) for p in sorted(DOCS.glob("**/*.md"))}
    return {name: numbers for name, numbers in found.items() if numbers}


def listed() -> dict[str, list[tuple[str, str]]]:
    """Page -> its numbers, with their sources."""
    written = json.loads(LISTED.read_text(encoding="utf-8")) if LISTED.is_file() else {}
    return {page: [(n, source) for n, source in numbers] for page, numbers in written.items()}


def computed(source: str) -> float:
    """The value of a source `= expression`."""
    import math

    import torch

    import entrgi_ref
    from building import records
    from entrgi_ref.paper.declared import benchmarks, published
    from entrgi_ref.paper.run import dry
    from toy import language, models, training

    names: dict[str, Any] = {
        "benchmarks": benchmarks,
        "config": entrgi_ref.SamplingConfig(),
        "cost_of_guidance": cost_of_guidance(),
        "dry": dry,
        "entrgi_ref": entrgi_ref,
        "language": language,
        "log": math.log,
        "models": models,
        "published": published,
        "record": records.value,
        "torch": torch,
        "training": training,
    }
    return float(eval(source.removeprefix("="), names))


def cost_of_guidance() -> float:
    """What an answer of the demo costs with guidance, over what it costs without."""

    from toy.demo import BASE
    from toy.models import ToyDenoiser, ToyReward
    from toy.testbed import Testbed
    from toy.training import DENOISER, REWARDS

    networks: list[Any] = [DENOISER.build(), REWARDS["medium"].build()]  # sizes count, not weights
    costs = Testbed(ToyDenoiser(networks[0]), ToyReward(networks[1]), "").costs
    unguided = BASE.guided(steps=0)
    return costs.per_trajectory(BASE) / costs.per_trajectory(unguided)


def as_number(text: str) -> float:
    """`152,064` as a number."""
    return float(text.replace(",", ""))


def brought_up_to_date() -> dict[str, list[tuple[str, str]]]:
    """The list for the pages as they are: known sources stay, new numbers have the source `?`."""
    before, found = listed(), {}
    for page, numbers in pages().items():
        old = before.get(page, [])
        matcher = SequenceMatcher(None, [n for n, _ in old], numbers, autojunk=False)
        sources = ["?"] * len(numbers)
        for a, b, size in matcher.get_matching_blocks():
            sources[b : b + size] = [source for _, source in old[a : a + size]]
        found[page] = list(zip(numbers, sources, strict=True))
    return found


if __name__ == "__main__":
    sys.path.insert(0, str(DOCS.parent))
    rows = {
        page: [f"  {json.dumps(list(row), ensure_ascii=False)}" for row in numbers]
        for page, numbers in brought_up_to_date().items()
    }
    text = ",\n".join(f'"{page}": [\n' + ",\n".join(lines) + "\n]" for page, lines in rows.items())
    LISTED.write_text("{\n" + text + "\n}\n", encoding="utf-8")
