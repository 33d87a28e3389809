"""The report of a run: tables in Markdown and LaTeX beside the published numbers, and figures.

Every number says what it is: *measured* (mean ± standard error over the seeds), *published* (on the
authors' page), *not measured*, or *not available* (in the paper, but not to us).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from ..declared.benchmarks import HUB
from ..declared.published import DREAM, GUIDANCE, PROMPTS, SEEDS, SETTINGS, SKYWORK, published
from . import figures
from .summary import MEASURES, Run
from .tables import Table

LABELS = {
    "bon": "Best-of-N",
    "bon_equal_compute": "Best-of-N, equal compute",
    "expectation": "Expectation",
    "aps": "APS",
    "entrgi": "EntRGi",
}
OURS = ("bon_equal_compute",)
"""Methods that are not in the paper."""


def write(folder: Path, to: Path) -> tuple[str, list[Path]]:
    """Write report.md, report.tex and the figures into `to`. Returns the text and the files."""
    run = Run.read(folder)
    if not run.records:
        raise ValueError(f"out: {folder} has no records yet, or all have failed")
    found, notes = tables(run), list(_notes(run))
    to.mkdir(parents=True, exist_ok=True)
    drawn = [path for name in figures.of(run) for path in figures.draw(run, name, to)]
    pictures = "\n\n".join(f"![{p.stem}]({p.name})" for p in drawn if p.suffix == ".svg")
    text = "\n\n".join([table.markdown() for table in found] + [" ".join(notes)])
    title = f"# {run.declaration['experiment']}: {run.declaration['testbed']}"
    (to / "report.md").write_text(f"{title}\n\n{text}\n\n{pictures}\n", encoding="utf-8")
    tex = "\n\n".join(table.latex(" ".join(notes)) for table in found)
    (to / "report.tex").write_text(tex + "\n", encoding="utf-8")
    return text + "\n", [to / "report.md", to / "report.tex", *drawn]


def tables(run: Run) -> list[Table]:
    """A table per benchmark."""
    by_variant = [f for f in ("reward", "gradient_steps") if run.variants(f)]
    return [
        _with_variants(run, benchmark, by_variant) if by_variant else _main(run, benchmark)
        for benchmark in run.benchmarks
    ]


def _main(run: Run, benchmark: str) -> Table:
    """Methods down, measures across, each measured beside published."""
    names = run.measures if run.toy else ("top1", "average", "lmunit")
    heads = ["Method", "K"]
    for name in names:
        measure = MEASURES[name]
        heads.append(f"{measure.label} ({measure.unit}), measured")
        if not run.toy:
            heads.append(f"{measure.label}, published")
    rows = []
    whole = not run.toy and run.declaration["experiment"] == "main"
    methods = tuple(LABELS) if whole else run.methods  # so that what is not measured is seen
    for method in methods:
        row = [LABELS[method], _trajectories(run, benchmark, method)]
        for name in names:
            row.append(_measured(run, name, benchmark=benchmark, method=method))
            if not run.toy:
                row.append(_published(run, benchmark, method, name))
        rows.append(tuple(row))
    return Table(
        f"{benchmark}, rewards by {run.declaration['main_reward']}", tuple(heads), tuple(rows)
    )


def _trajectories(run: Run, benchmark: str, method: str) -> str:
    found = {len(r["rewards"]) for r in run.select(benchmark=benchmark, method=method)}
    return "–" if not found else "–".join(str(k) for k in sorted({min(found), max(found)}))


def _measured(run: Run, measure: str, **fields: object) -> str:
    found = run.value(measure, **fields) if measure in run.measures else None
    return "not measured" if found is None else found.text()


def _published(run: Run, benchmark: str, method: str, measure: str) -> str:
    if method in OURS or not _is_the_papers(run, benchmark):
        return "not in the paper"
    found = published(benchmark, method, measure)
    return "not available" if found is None else f"{found:.2f}"


def _is_the_papers(run: Run, benchmark: str) -> bool:
    """Whether a benchmark is one of the paper's, and not a file of the same name."""
    source = str(run.declaration["benchmarks"][benchmark])
    return benchmark in HUB and source.startswith(f"{HUB[benchmark].hub_id}@")


def _with_variants(run: Run, benchmark: str, fields: Sequence[str]) -> Table:
    """Methods and their variants down, measures across."""
    titles = {"reward": "Reward model", "gradient_steps": "M"}
    heads = ["Method", *(titles[field] for field in fields)]
    heads += [f"{MEASURES[name].label} ({MEASURES[name].unit}), measured" for name in run.measures]
    rows = []
    for method in run.methods:
        for chosen in _combinations(run, fields):
            values = dict(zip(fields, chosen, strict=True))
            if not run.select(benchmark=benchmark, method=method, **values):
                continue
            cells = [
                _measured(run, name, benchmark=benchmark, method=method, **values)
                for name in run.measures
            ]
            rows.append((LABELS[method], *map(str, chosen), *cells))
    return Table(benchmark, tuple(heads), tuple(rows), words=1 + len(fields))


def _combinations(run: Run, fields: Sequence[str]) -> Iterator[tuple[object, ...]]:
    if not fields:
        yield ()
        return
    for value in run.variants(fields[0]):
        for rest in _combinations(run, fields[1:]):
            yield (value, *rest)


def _notes(run: Run) -> Iterator[str]:
    """What a reader must know to read the numbers."""
    seeds = sorted({record["seed"] for record in run.records})
    listed = ", ".join(map(str, seeds))
    how = (
        f"one seed ({listed})"
        if len(seeds) == 1
        else f"mean ± standard error over {len(seeds)} seeds ({listed})"
    )
    yield (f"Measured: {how}, {run.declaration['prompts']} prompts per benchmark and seed at most.")
    if run.failed:
        yield (
            "1 prompt failed and is left out."
            if len(run.failed) == 1
            else f"{len(run.failed)} prompts failed and are left out."
        )
    missing = _unfinished(run)
    if missing:
        yield f"The run is not finished: {missing}."
    yield from _fewer_seeds(run, seeds)
    if run.unjudged:
        yield f"{run.unjudged} answers are not judged and are left out of LMUnit."
    if run.toy:
        yield "Nothing is published for the toy; its gold score takes the place of LMUnit."
        return
    if run.declaration["experiment"] != "main":
        return  # nothing published stands beside it
    yield (
        "Published: Top@1 of the authors' page; the paper's other numbers were not available "
        "(`not available`)."
    )
    different = list(_different(run))
    if different:
        yield f"NOT COMPARABLE to the published numbers: {'; '.join(different)}."


def _unfinished(run: Run) -> str:
    """Which of the prompts that were asked for have no record."""
    there = Counter(_cell(record) for record in [*run.records, *run.failed])
    wanted: dict[tuple[object, ...], int] = {}
    for asked in run.declaration.get("asked", []):
        for benchmark, count in asked["prompts"].items():
            for method, variant, seed in product(
                asked["methods"], asked["variants"], asked["seeds"]
            ):
                cell = {"benchmark": benchmark, "method": method, "variant": variant, "seed": seed}
                wanted[_cell(cell)] = count
    short = {cell: n - there[cell] for cell, n in wanted.items() if there[cell] < n}
    return f"{sum(short.values())} prompts of {len(short)} cells are missing" if short else ""


def _cell(record: Mapping[str, Any]) -> tuple[object, ...]:
    variant = tuple(sorted(record["variant"].items()))
    return (record["benchmark"], record["method"], variant, record["seed"])


def _fewer_seeds(run: Run, seeds: Sequence[int]) -> Iterator[str]:
    """The methods that were not run with all seeds."""
    for method in run.methods:
        of = sorted({record["seed"] for record in run.select(method=method)})
        if of != list(seeds):
            which = f"seed{'s' if len(of) > 1 else ''} {', '.join(map(str, of))}"
            yield f"{LABELS[method]} has {which} only."


def _different(run: Run) -> Iterator[str]:
    """Where a run is not what the published numbers were made by."""
    declared = run.declaration
    settings, guidance = declared["settings"], declared["settings"]["guidance"]
    for name, paper in SETTINGS.items():
        if settings[name] != paper:
            yield f"{name} {settings[name]} instead of {paper}"
    for name, value in GUIDANCE.items():
        if guidance[name] != value:
            yield f"guidance {name} {guidance[name]} instead of {value}"
    if declared["denoiser"]["name"] != DREAM:
        yield f"denoiser {declared['denoiser']['name']}"
    reward = declared["rewards"][declared["main_reward"]]["name"]
    if reward != SKYWORK["1.7B"]:
        yield f"reward {reward}"
    if declared["dtype"] != "bfloat16":
        yield f"dtype {declared['dtype']} instead of bfloat16"
    if declared["prompts"] != PROMPTS:
        yield f"{declared['prompts']} prompts instead of {PROMPTS}"
    if declared.get("unmatched", "eos") != "eos":
        yield f"unmatched tokens {declared['unmatched']} instead of eos"
    for benchmark in run.benchmarks:
        if not _is_the_papers(run, benchmark):
            yield f"benchmark {benchmark} ({declared['benchmarks'][benchmark]})"
    seeds = {record["seed"] for record in run.records}
    if len(seeds) != SEEDS:
        yield f"{len(seeds)} seeds instead of {SEEDS}"
