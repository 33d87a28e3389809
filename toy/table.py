"""The demo's table: measures per method, their intervals, their paired differences to a baseline,
and what follows from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entrgi_ref.paper.declared.experiments import LABELS

from .statistics import Estimate, bootstrap, student

Record = dict[str, Any]
"""What one method did with one prompt and seed, ready for JSON:

    method, seed, idx, prompt    what was answered; `idx` counts the prompts from 0
    testbed                      the pair of networks, in words
    baseline                     the method to which differences are taken
    responses                    the K answers
    rewards, gold                of each answer, in standard deviations of the gold score over the
                                 sentences of the reward model's training, and in points
    log_likelihood, valid        of each, in nats per token, and whether it obeys the grammar
    timing                       the seconds that the prompt took, as its share of the batch
"""
BASELINE = "bon"
"""The method to which differences are taken where no other is named."""


@dataclass(frozen=True)
class Measure:
    """A column of the table."""

    label: str
    unit: str
    digits: int


MEASURES = {
    "top1": Measure("Top@1", "reward", 2),
    "average": Measure("Avg@K", "reward", 2),
    "gold_best": Measure("Gold of the best", "points", 2),
    "gold_mean": Measure("Gold, mean", "points", 2),
    "log_likelihood": Measure("Log-likelihood", "nats/token", 2),
    "valid": Measure("Valid", "share", 3),
}
"""The measures of a prompt's K answers, by name: the reward of the best and of the mean answer, the
gold score of the one with the largest reward and of the mean answer, the mean log-likelihood, and
the share that obeys the grammar."""


def measures_of(record: Record) -> dict[str, float]:
    """The `MEASURES` of one record: name -> number."""
    rewards = record["rewards"]
    return {
        "top1": max(rewards),
        "average": float(np.mean(rewards)),
        "gold_best": record["gold"][int(np.argmax(rewards))],
        "gold_mean": float(np.mean(record["gold"])),
        "log_likelihood": float(np.mean(record["log_likelihood"])),
        "valid": float(np.mean(record["valid"])),
    }


def by_prompt(records: Sequence[Record], method: str, measure: str) -> NDArray[np.float64]:
    """A measure of a method for each prompt, averaged over the seeds: [prompts], of one pair of
    networks.
    """
    return _by_prompt(records, method)[measure]


def _by_prompt(records: Sequence[Record], method: str) -> dict[str, NDArray[np.float64]]:
    """The same for each of `MEASURES`."""
    values: dict[int, list[dict[str, float]]] = {}
    for record in records:
        if record["method"] == method:
            values.setdefault(record["idx"], []).append(measures_of(record))
    return {
        measure: np.array([np.mean([v[measure] for v in values[idx]]) for idx in sorted(values)])
        for measure in MEASURES
    }


def seconds_by_seed(records: Sequence[Record], method: str) -> NDArray[np.float64]:
    """The seconds that a method took per prompt, one number per seed: each seed is one batch."""
    seconds = {
        r["seed"]: r["timing"]["seconds_per_prompt"] for r in records if r["method"] == method
    }
    return np.array([seconds[seed] for seed in sorted(seconds)])


@dataclass(frozen=True)
class Size:
    """On how much a comparison rests."""

    prompts: int
    seeds: int
    """Of sampling."""
    pairs: int = 1
    """Of networks."""

    def __str__(self) -> str:
        of = "on one pair" if self.pairs == 1 else f"on each of {self.pairs} pairs"
        return f"{_count(self.prompts, 'prompt')} x {_count(self.seeds, 'seed')} {of} of networks"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


@dataclass(frozen=True)
class Row:
    """A row of the table: a method's measures, and their paired differences to the baseline."""

    method: str
    trajectories: int
    """K."""
    measures: Mapping[str, Estimate]
    """Each of `MEASURES`: over the prompts of one pair of networks, or over several pairs."""
    differences: Mapping[str, Estimate]
    """The same of the differences to the baseline, taken prompt by prompt."""
    by_pair: Mapping[str, Sequence[float]]
    """Measure -> its mean difference on each pair of networks."""
    seconds: Estimate
    """Per prompt: over the seeds, or over several pairs."""
    time_ratio: float
    """The median of this method's time over EntRGi's; nan if that is not among the methods."""
    size: Size
    baseline: str = BASELINE

    @property
    def label(self) -> str:
        """The method's name in the table."""
        return LABELS.get(self.method, self.method)


def summarise(records: Sequence[Record], baseline: str | None = None) -> list[Row]:
    """The table's rows, one per method, in the order of the records.

    Of one pair of networks, the units are prompts: each counts with its mean over the seeds, and
    intervals are by the bootstrap. Of several, the units are the pairs: each counts with its mean
    over prompts and seeds, and intervals are Student's. All are 95% intervals.

    Args:
        records: of `toy.demo.compare`, all of them.
        baseline: the method to which differences are taken. By default that of the records, which
            is `bon` where `compare` was given no other.

    Raises:
        ValueError: if the baseline is not among the methods, or if not all methods have answered
            the same prompts with the same seeds on every pair.
    """
    methods = dict.fromkeys(record["method"] for record in records)
    named = dict.fromkeys(record.get("baseline", BASELINE) for record in records)
    if baseline is None and len(named) > 1:
        raise ValueError(f"baseline: the records have {', '.join(named)}; name one of them")
    against = next(iter(named), BASELINE) if baseline is None else baseline
    if against not in methods:
        raise ValueError(f"methods: got {', '.join(methods)}, expected `{against}` among them")
    pairs = by_pair(records)
    size = _size(pairs, methods)
    timed = {method: _seconds(pairs, method) for method in methods}
    rows = []
    other = [_by_prompt(pair, against) for pair in pairs]
    for method in methods:
        values = [_by_prompt(pair, method) for pair in pairs]
        less = [{m: a[m] - b[m] for m in MEASURES} for a, b in zip(values, other, strict=True)]
        ratio = np.median(timed[method] / timed["entrgi"]) if "entrgi" in methods else np.nan
        rows.append(
            Row(
                method=method,
                trajectories=len(next(r for r in records if r["method"] == method)["rewards"]),
                measures={m: _over([pair[m] for pair in values]) for m in MEASURES},
                differences={m: _over([pair[m] for pair in less]) for m in MEASURES},
                by_pair={m: [float(pair[m].mean()) for pair in less] for m in MEASURES},
                seconds=_not_negative(student(timed[method])),
                time_ratio=float(ratio),
                size=size,
                baseline=against,
            )
        )
    return rows


def by_pair(records: Sequence[Record]) -> list[list[Record]]:
    """The records of each pair of networks."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.get("testbed", ""), []).append(record)
    return list(found.values())


def _size(pairs: Sequence[Sequence[Record]], methods: Mapping[str, None]) -> Size:
    """`ValueError` unless all methods have the same prompts and seeds on each pair."""
    places = [
        {(record["seed"], record["idx"]) for record in pair if record["method"] == method}
        for pair in pairs
        for method in methods
    ]
    if any(place != places[0] for place in places):
        raise ValueError(
            "records: not all methods have the same prompts and seeds on every pair of networks, "
            "expected all records of `compare`"
        )
    seeds, idx = zip(*places[0], strict=True)
    return Size(len(set(idx)), len(set(seeds)), len(pairs))


def _over(pairs: Sequence[NDArray[np.float64]]) -> Estimate:
    """Over the prompts of the only pair, or over the means of several."""
    if len(pairs) == 1:
        return bootstrap(pairs[0])
    return student(np.array([values.mean() for values in pairs]))


def _seconds(pairs: Sequence[Sequence[Record]], method: str) -> NDArray[np.float64]:
    """The seconds that a prompt took: for each seed on the only pair, or for each of several."""
    found = [seconds_by_seed(pair, method) for pair in pairs]
    return found[0] if len(found) == 1 else np.array([seconds.mean() for seconds in found])


def _not_negative(seconds: Estimate) -> Estimate:
    return replace(seconds, low=float(np.maximum(seconds.low, 0)))  # nan, of one seed, stays nan


REWARD_AND_GOLD = ("top1", "average", "gold_best", "gold_mean")
FLUENCY = ("log_likelihood", "valid")


def markdown(rows: Sequence[Row]) -> str:
    """The measures and their differences to the baseline, as four narrow tables, and on how much
    they rest.
    """
    baseline = next(row for row in rows if row.method == row.baseline)
    cost = {
        "Seconds per prompt": [row.seconds.text(3) for row in rows],
        "Time / EntRGi's": [f"{row.time_ratio:.2f}" for row in rows],
    }
    others = [row for row in rows if row is not baseline]
    return f"""\
Reward and gold:

{means(rows, REWARD_AND_GOLD)}

Fluency and cost:

{_table(rows, _means(rows, FLUENCY) | cost)}

Difference to {baseline.label}, prompt by prompt:

{_table(others, _differences(others, REWARD_AND_GOLD))}

{_table(others, _differences(others, FLUENCY))}

{baseline.size}. {ON_PAIRS if baseline.size.pairs > 1 else ON_PROMPTS}
"""


ON_PROMPTS = """\
Brackets are 95% intervals: a percentile bootstrap over
the prompts, of each prompt's mean over the seeds; for the seconds Student's, over the seeds. They
are conditional on one trained pair of networks: another can change the order of the methods."""
ON_PAIRS = """\
Brackets are 95% intervals: Student's over the
pairs, of each pair's mean over prompts and seeds."""

DECIDES = "gold_mean"
"""The measure that decides between two methods. The reward does not: guidance climbs it."""
CLIMBED = "average"
"""The reward that stands against it."""
LEAST = Size(prompts=64, seeds=3, pairs=5)
"""On how much a decision must rest."""


def decision(row: Row) -> str:
    """Whether a method is `better` or `worse` than the baseline, or `cannot tell`.

    Better: there are at least as many prompts, seeds and pairs of networks as `LEAST` says, the
    interval of the difference in mean gold is above 0, and it is above 0 on every pair. Worse: the
    same below 0.
    """
    return decided(row.differences[DECIDES], row.by_pair[DECIDES], row.size)


def decided(found: Estimate, each: Sequence[float], size: Size) -> str:
    """The same, of a difference over the pairs and that of each."""
    if not _too_few(size):
        if found.low > 0 and min(each) > 0:
            return "better"
        if found.high < 0 and max(each) < 0:
            return "worse"
    return "cannot tell"


def verdict(rows: Sequence[Row]) -> str:
    """What follows from a comparison, in words: a paragraph for each method but the baseline, and
    the rule by which it is decided (see `decision`).
    """
    said = ["\n".join(_said(row)) for row in rows if row.method != row.baseline]
    return "\n\n".join([*said, RULE])


RULE = f"""\
The rule: the difference in mean gold decides. Better: its interval is above 0, and so is every
pair. Worse: both are below. All else cannot be told apart. At least {LEAST.prompts} prompts, \
{LEAST.seeds} seeds and
{LEAST.pairs} pairs of networks."""


def _said(row: Row) -> Iterator[str]:
    said = decision(row)
    gold, reward = row.differences[DECIDES], row.differences[CLIMBED]
    above = sum(value > 0 for value in row.by_pair[DECIDES])
    yield f"{row.label} against {LABELS.get(row.baseline, row.baseline)}: {said.upper()}."
    yield (
        f"  Mean gold {gold.text(2, sign=True)} points, above 0 on {above} of "
        f"{_count(row.size.pairs, 'pair')}; mean reward {reward.text(2, sign=True)}."
    )
    if few := _too_few(row.size):
        yield f"  Too few to decide: {', '.join(few)}."
    elif reward.low > 0 and said == "worse":
        yield "  The reward rises and the gold score falls: it climbs what the reward overrates."
    elif reward.low > 0 and said == "cannot tell":
        yield "  The reward rises, the gold score is not shown to follow: that is no improvement."
    elif reward.high < 0 and said == "better":
        yield "  The reward falls: what is wanted rises without it."


def _too_few(size: Size) -> list[str]:
    """What is missing for a decision."""
    return [
        f"{there} of {needed} {noun}"
        for noun, there, needed in (
            ("prompts", size.prompts, LEAST.prompts),
            ("seeds", size.seeds, LEAST.seeds),
            ("pairs", size.pairs, LEAST.pairs),
        )
        if there < needed
    ]


def means(rows: Sequence[Row], names: Sequence[str]) -> str:
    """A table of some of the measures."""
    return _table(rows, _means(rows, names))


def _means(rows: Sequence[Row], names: Sequence[str]) -> dict[str, list[str]]:
    return {
        _head(name): [row.measures[name].text(MEASURES[name].digits) for row in rows]
        for name in names
    }


def _differences(rows: Sequence[Row], names: Sequence[str]) -> dict[str, list[str]]:
    return {
        _head(name): [row.differences[name].text(MEASURES[name].digits, sign=True) for row in rows]
        for name in names
    }


def _head(name: str) -> str:
    return f"{MEASURES[name].label} ({MEASURES[name].unit})"


def _table(rows: Sequence[Row], columns: Mapping[str, Sequence[str]]) -> str:
    """A Markdown table, padded so that it can be read as plain text too."""
    columns = {
        "Method": [row.label for row in rows],
        "K": [str(row.trajectories) for row in rows],
        **columns,
    }
    widths = {head: max(2, len(head), *map(len, cells)) for head, cells in columns.items()}
    lines = [
        [head.ljust(widths[head]) for head in columns],
        [_rule(head, width) for head, width in widths.items()],
    ]
    for i in range(len(rows)):
        lines.append(
            [
                c[i].ljust(widths[h]) if h == "Method" else c[i].rjust(widths[h])
                for h, c in columns.items()
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rule(head: str, width: int) -> str:
    return "-" * width if head == "Method" else "-" * (width - 1) + ":"
