"""All answers of a run as one self-contained web page: `browse.html`, `.css` and `.js` beside this
file, and the run's records.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...commands.files import write_text
from ..declared.experiments import in_order, label_of
from ..run.records import key_of
from ..run.required import Record
from .paired import Place
from .summary import Run, place_of


def write(folder: Path, to: Path) -> None:
    """Write the page of a run, finished or not. `ValueError` if it has no records yet, or if `to`
    is no name of a page: it could be a file of the run.
    """
    if to.suffix != ".html":
        raise ValueError(f"to: got {str(to)!r}, expected a name that ends in .html")
    run = Run.read(folder)
    if not run.records and not run.failed:
        raise ValueError(f"out: {folder} has no records yet")
    write_text(to, page(run))


def page(run: Run) -> str:
    """The page's HTML, in one file that needs no network."""
    # Only ASCII, so that a half of a surrogate pair, which UTF-8 cannot hold, is kept too.
    data = json.dumps(contents(run), separators=(",", ":"), allow_nan=False)
    data = data.replace("<", "\\u003c")  # no text may end the script element that holds it
    html, script, style = (
        Path(__file__).with_suffix(kind).read_text(encoding="utf-8")
        for kind in (".html", ".js", ".css")
    )
    html = html.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
    return html.replace('"RUN"', data, 1)


def contents(run: Run) -> dict[str, Any]:
    """What the page is made of, ready for JSON.

    `places` are the prompts, each [benchmark, seed, idx, text]. `records` point into `places`,
    `methods` and `variants`, and the tokens of their answers into `words`, all by index.
    """
    records = sorted([*run.records, *run.failed], key=key_of)
    places: dict[Place, int] = {}
    prompts: list[str] = []
    for record in records:
        if place_of(record) not in places:
            places[place_of(record)] = len(places)
            prompts.append(record["prompt"])
    there = {record["method"] for record in records}
    methods = in_order(there)
    variants = _variants(run, records)
    words: dict[str, int] = {}
    return {
        "run": _about(run),
        "methods": [[name, label_of(name)] for name in methods],
        "variants": variants,
        "places": [[*place, prompts[i]] for place, i in places.items()],
        "records": [
            {
                "place": places[place_of(record)],
                "method": methods.index(record["method"]),
                "variant": variants.index(record["variant"]),
                **_answers(run, record, words),
            }
            for record in records
        ],
        "words": list(words),
    }


def _about(run: Run) -> dict[str, str]:
    """What is said of the run at the head of the page."""
    declared = run.declaration
    denoiser, rewards = declared.get("denoiser"), declared["rewards"]
    main = declared["main_reward"]
    found = {"experiment": declared["experiment"], "testbed": declared["testbed"]}
    if isinstance(denoiser, Mapping):
        found["denoiser"] = str(denoiser.get("name"))
    found["reward model"] = f"{main} ({rewards[main]['name']})"
    found["fingerprint"] = declared["fingerprint"]
    return found


def _variants(run: Run, records: list[Record]) -> list[dict[str, Any]]:
    """In the order of the declaration's reward models, then from the fewest gradient steps."""
    order = list(run.declaration["rewards"])
    found: list[dict[str, Any]] = []
    for record in records:
        if record["variant"] not in found:
            found.append(record["variant"])

    def place(variant: dict[str, Any]) -> tuple[int, int]:
        reward = variant.get("reward")
        known = order.index(reward) if reward in order else len(order)
        return known, variant.get("gradient_steps", 0)

    return sorted(found, key=place)


def _answers(run: Run, record: Record, words: dict[str, int]) -> dict[str, Any]:
    """A record's answers, or why it has none. Words that are new get the next number."""
    if record["status"] == "failed":
        return {"failed": record.get("reason") or "no reason was recorded"}
    found: dict[str, Any] = {"responses": record["responses"], "rewards": record["rewards"]}
    if "gold" in record:
        found["gold"] = record["gold"]
    scores = {
        label: judge.scores[key_of(record)]
        for label, judge in run.judges_by_label.items()
        if key_of(record) in judge.scores
    }
    if scores:
        found["judged"] = scores
    if record.get("written") is not None:
        written = record["written"]
        found["words"] = [
            [words.setdefault(word, len(words)) for word in answer] for answer in written["words"]
        ]
        found["steps"] = written["steps"]
        last = max((step for answer in written["steps"] for step in answer), default=0)
        found["of"] = max(record.get("settings", {}).get("denoising_steps", 0), last + 1)
    return found
