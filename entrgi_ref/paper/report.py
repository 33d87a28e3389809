"""The report of a run: tables in Markdown and LaTeX beside the published numbers, and figures.

Every number says what it is: *measured* (mean ± standard error over the seeds), *published* (on the
authors' page), *not measured*, or *not available* (in the paper, but not to us).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import figures
from .benchmarks import HUB
from .published import DREAM, GUIDANCE, PROMPTS, SEEDS, SETTINGS, SKYWORK, published
from .summary import MEASURES, Run

LABELS = {
    "bon": "Best-of-N",
    "bon_equal_compute": "Best-of-N, equal compute",
    "expectation": "Expectation",
    "aps": "APS",
    "entrgi": "EntRGi",
}
OURS = ("bon_equal_compute",)
"""Methods that are not in the paper."""


@dataclass(frozen=True)
class Table:
    """A table of text: its title, its heads, its rows. The first `words` columns are words."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 2

    def markdown(self) -> str:
        """As a pipe table, padded so that it can be read as plain text too."""
        columns = list(zip(self.heads, *self.rows, strict=True))
        widths = [max(3, *map(len, column)) for column in columns]
        rule = [
            "-" * width if i < self.words else "-" * (width - 1) + ":"
            for i, width in enumerate(widths)
        ]
        lines = [
            " | ".join(
                cell.ljust(width) if i < self.words else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in (self.heads, rule, *self.rows)
        ]
        return f"**{self.title}**\n\n" + "\n".join(f"| {line} |" for line in lines)

    def latex(self) -> str:
        """As a `table` for the package booktabs."""
        align = "l" * self.words + "r" * (len(self.heads) - self.words)
        rows = [" & ".join(map(_tex, row)) + r" \\" for row in (self.heads, *self.rows)]
        return "\n".join(
            [
                r"\begin{table}",
                rf"\caption{{{_tex(self.title)}}}",
                rf"\begin{{tabular}}{{{align}}}",
                r"\toprule",
                rows[0],
                r"\midrule",
                *rows[1:],
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
            ]
        )


def _tex(text: str) -> str:
    for sign, command in (("&", r"\&"), ("%", r"\%"), ("_", r"\_"), ("#", r"\#")):
        text = text.replace(sign, command)
    return text.replace("±", r"$\pm$").replace("−", "$-$")


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
    tex = [f"% {note}" for note in notes] + [table.latex() for table in found]
    (to / "report.tex").write_text("\n\n".join(tex) + "\n", encoding="utf-8")
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
                row.append(_published(benchmark, method, name))
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


def _published(benchmark: str, method: str, measure: str) -> str:
    found = published(benchmark, method, measure)
    if found is not None:
        return f"{found:.2f}"
    ours = method in OURS or benchmark not in HUB
    return "not in the paper" if ours else "not available"


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
    several = len(seeds) > 1
    yield (
        f"Measured: {'mean ± standard error over' if several else 'one seed,'} "
        f"{len(seeds) if several else ''} {'seeds' if several else ''} "
        f"({', '.join(map(str, seeds))}), {run.declaration['prompts']} prompts per benchmark and "
        "seed at most."
    ).replace("  ", " ")
    if run.failed:
        yield f"{len(run.failed)} prompts failed and are left out."
    missing = _unfinished(run)
    if missing:
        yield f"The run is not finished: {missing}."
    if run.unjudged:
        yield f"{run.unjudged} answers are not judged and are left out of LMUnit."
    if run.toy:
        yield "Nothing is published for the toy; its gold score takes the place of LMUnit."
        return
    yield (
        "Published: Top@1 of the authors' page; the paper's other numbers were not available "
        "(`not available`)."
    )
    different = list(_different(run))
    if different:
        yield f"NOT COMPARABLE to the published numbers: {'; '.join(different)}."


def _unfinished(run: Run) -> str:
    counts: dict[tuple[object, ...], int] = {}
    for record in [*run.records, *run.failed]:
        cell = (record["benchmark"], record["method"], str(record["variant"]), record["seed"])
        counts[cell] = counts.get(cell, 0) + 1
    most = {b: max((n for c, n in counts.items() if c[0] == b), default=0) for b in run.benchmarks}
    short = [cell for cell, n in counts.items() if n < most[str(cell[0])]]
    return f"{len(short)} of {len(counts)} cells have fewer prompts than others" if short else ""


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
    seeds = {record["seed"] for record in run.records}
    if len(seeds) != SEEDS:
        yield f"{len(seeds)} seeds instead of {SEEDS}"
