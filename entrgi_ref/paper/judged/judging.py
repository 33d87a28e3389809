"""What the command `judge` does: the best answers of a run, judged and recorded."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...commands.options import stopping
from ...commands.provenance import commit, versions
from ...watching import printable
from ..run.folder import RunFolder, require_resumable
from ..run.records import (
    JUDGES,
    best,
    fingerprint,
    judges_of,
    key_of,
    of_best,
    read_experiment,
    read_judge,
    read_records,
    require_no_link,
)
from ..run.required import Record
from ..run.runner import POLL_SECONDS
from .judge import Generated, Judge, has_digit, question, score

AT_A_TIME = 8
"""Prompts between two writings."""


def folder_of(run: Path, declaration: Mapping[str, Any]) -> Path:
    """Where a judge's judgements of a run are: each judge, with its unit tests, has a folder.

    Raises `ValueError` if it is a link: they would be written elsewhere.
    """
    name = str(declaration["model"]["name"]).rsplit("/", 1)[-1]
    name = re.sub(r"[^A-Za-z0-9._-]", "-", name)
    own = Path(JUDGES) / f"{name}-{fingerprint(declaration)[:8]}"
    require_no_link(run, own)
    return run / own


def declare(run: Path, judge: Mapping[str, Any], tests: Sequence[str]) -> dict[str, Any]:
    """What decides the judgements of a run: the run, the unit tests, and what the judge is."""
    return {"run": read_experiment(run)["fingerprint"], "unit_tests": list(tests), **judge}


def pinned_judge(run: Path, backend: str, model: str, tests: Sequence[str]) -> dict[str, str]:
    """Hub id -> commit of the judge by which the judging of a run began, with the same unit tests.

    Nothing if there is no such judge, or if there are several.
    """
    hub_id, found = model.partition("@")[0], set()
    for folder in judges_of(run):
        judge = read_judge(folder, read_experiment(run)["fingerprint"])
        same = (judge["backend"], judge["unit_tests"]) == (backend, list(tests))
        if same and judge["model"]["name"] == hub_id and "commit" in judge["model"]:
            found.add(judge["model"]["commit"])
    return {hub_id: found.pop()} if len(found) == 1 else {}


def require_judgeable(
    run: Path, judge: Mapping[str, Any], tests: Sequence[str], *, other_version: bool
) -> None:
    """Raise `ValueError` for all that can be known to be wrong before the judge is loaded."""
    declaration, answers = declare(run, judge, tests), read_records(run)
    require_resumable(
        folder_of(run, declaration),
        declaration,
        other_version=other_version,
        require=of_best(answers),
    )


def run(
    folder: Path,
    judge: Judge,
    tests: Sequence[str],
    say: Callable[[str], None],
    *,
    other_version: bool = False,
) -> int:
    """Judge what is not judged yet. Returns how many answers could not be judged.

    Several processes may do it together: each takes the next prompts that nobody holds.
    """
    declaration = declare(folder, judge.declaration, tests)
    wanted = [record for record in read_records(folder) if record["status"] == "ok"]
    own, require = folder_of(folder, declaration), of_best(wanted)
    judged = RunFolder(own, declaration, other_version=other_version, require=require)

    def done() -> int:
        return sum(key_of(record) in judged.done for record in wanted)

    def kept() -> str:
        return f"{done()} of {len(wanted)} judgements are kept in {own}; the same command goes on"

    left = [wanted[start : start + AT_A_TIME] for start in range(0, len(wanted), AT_A_TIME)]
    try:
        with stopping(kept):
            while True:
                judged.refresh()
                left = [part for part in left if not judged.done.issuperset(map(key_of, part))]
                if not left:
                    break
                before = len(judged.done)
                for part in left:
                    with judged.lock(repr([key_of(record) for record in part])) as ours:
                        judged.refresh()
                        if not ours or judged.done.issuperset(map(key_of, part)):
                            continue
                        for record, answers in _judged(judge, part, tests):
                            judged.write(_judgement(record, best(record), answers, declaration))
                        say(f"{done()} of {len(wanted)} answers judged")
                if len(judged.done) == before:
                    time.sleep(POLL_SECONDS)  # others hold all that is left; one may die
    finally:
        judged.close()
    there = set(map(key_of, wanted))
    return _summed_up([r for r in read_records(own, require) if key_of(r) in there], own, say)


def _summed_up(found: Sequence[Record], own: Path, say: Callable[[str], None]) -> int:
    failed = [record for record in found if record["status"] == "failed"]
    scores = [record["score"] for record in found if record["status"] == "ok"]
    mean = f", mean score {statistics.fmean(scores):.3f}" if scores else ""
    say(f"{len(found)} answers judged in {own}, {len(failed)} failed{mean}")
    if failed:
        say(f"  the first: {printable(str(failed[0]['reason']))}")
    without, asked = without_digit(found)
    if without:
        say(
            f"  {without} of its {asked} replies have no digit from 1 to 5: their score is what "
            "these were given instead of what was said"
            f"{', so it does not judge at all' if without == asked else ''}"
        )
    return len(failed)


def without_digit(judgements: Sequence[Record]) -> tuple[int, int]:
    """How many of a judge's replies have no digit from 1 to 5, and how many there are."""
    fine = [record for record in judgements if record["status"] == "ok"]
    return sum(record["without_digit"] for record in fine), sum(len(r["scores"]) for r in fine)


def _judged(
    judge: Judge, part: Sequence[Record], tests: Sequence[str]
) -> Iterator[tuple[Record, Sequence[Generated] | str]]:
    """What is generated for the questions about each record, or the reason why there is nothing.

    Of all records of a part, also if some are judged already: the same batches, the same rounding.
    """
    questions = [
        question(record["prompt"], record["responses"][best(record)], test)
        for record in part
        for test in tests
    ]
    try:
        answers = judge.answer(questions)
    except ValueError as error:
        if len(part) == 1:
            yield part[0], " ".join(str(error).split())
        else:
            for record in part:
                yield from _judged(judge, [record], tests)
        return
    for i, record in enumerate(part):
        yield record, answers[i * len(tests) : (i + 1) * len(tests)]


def _judgement(
    record: Record,
    chosen: int,
    answers: Sequence[Generated] | str,
    declaration: Mapping[str, Any],
) -> Record:
    identity = ("experiment", "benchmark", "method", "variant", "seed", "idx", "prompt")
    scores: list[float] = []
    reason = answers if isinstance(answers, str) else None
    generated: Sequence[Generated] = [] if isinstance(answers, str) else answers
    try:
        scores = [score(one) for one in generated]
    except ValueError as error:
        reason = str(error)
    return {
        **{name: record[name] for name in identity},
        "response": record["responses"][chosen],
        "scores": scores,
        "score": None if reason else statistics.fmean(scores),
        "answers": ["".join(token for token, _ in one) for one in generated],
        "without_digit": sum(not has_digit(one) for one in generated),
        "status": "failed" if reason else "ok",
        "reason": reason,
        "fingerprint": fingerprint(declaration),
        "commit": commit(),
        "versions": versions(),
        "timing": {},
    }
