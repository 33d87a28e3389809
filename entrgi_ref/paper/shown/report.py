"""The report of a run: tables in Markdown and LaTeX beside the published numbers, and figures.

Every number says what it is: *measured* (mean ± standard error over the seeds), *published* (on the
authors' page), *not measured*, or *not available* (in the paper, but not to us).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from ...checks import choice
from ...commands.files import require_writable, write_text
from ...commands.shown import as_csv, counted
from ...watching import printable
from ..declared.experiments import EXPERIMENTS, RIVALS, label_of
from ..declared.published import published
from ..judged.judge import UNIT_TESTS
from ..run.records import earlier_layout, key_of
from ..run.required import asked_of, require_captioned
from . import figures
from .captions import caption
from .comparable import differences
from .numbers import (
    OF_THE_PAPER,
    answers_of,
    as_json,
    beside_the_published,
    cells,
    in_the_paper,
    rows,
    varied,
)
from .summary import JudgedBy, Run, compared_of, place_of
from .tables import Table, in_markdown, latex_figure


def _require_variants(run: Run) -> None:
    """Raise `ValueError` unless the records vary in what the experiment varies."""
    declared = run.declaration
    rewards = tuple(declared["rewards"])
    experiment = EXPERIMENTS[declared["experiment"]]
    (wanted, *_) = experiment.variants(rewards, declared["main_reward"])
    for record in run.records:
        if record["variant"].keys() != wanted.keys():
            raise ValueError(
                f"it has records of the variant {record['variant']!r:.60}, expected one with "
                f"{', '.join(wanted) or 'nothing'}"
            )


def write(
    folder: Path, to: Path, say: Callable[[str], None] = lambda text: None
) -> tuple[str, list[Path]]:
    """Say the tables and what must be known to read them, then write report.md, report.tex, the
    numbers as table.csv and table.json, and the figures into `to`. Returns the text and the files.
    """
    run = Run.read(folder, whole=False)
    try:
        choice("experiment", run.declaration["experiment"], EXPERIMENTS)
        _require_variants(run)
        require_captioned(run.declaration)
    except ValueError as error:
        raise ValueError(f"out: {folder} cannot be reported on: {error}") from error
    if not run.records:
        raise ValueError(f"out: {folder} has no records yet, or all have failed")
    found, notes = tables(run), [*_notes(run), *earlier_layout(folder)]
    text = "\n\n".join([table.markdown() for table in found] + [" ".join(map(in_markdown, notes))])
    say(f"{text}\n")  # what cannot be written has at least been seen
    require_writable(to)
    drawn = [path for name in figures.of(run) for path in figures.draw(run, name, to)]
    captions = {name: caption(run, name) for name in figures.of(run)}
    pictures = "\n\n".join(map(_figure, captions, captions.values()))
    title = in_markdown(f"# {run.declaration['experiment']}: {run.declaration['testbed']}")
    write_text(to / "report.md", f"{title}\n\n{text}\n\n{pictures}\n")
    tables_and_figures = [table.latex(" ".join(notes)) for table in found]
    tables_and_figures += map(latex_figure, captions, captions.values())
    tex = "\n\n".join(tables_and_figures)
    write_text(to / "report.tex", tex + "\n")
    numbers = rows(run)
    write_text(to / "table.csv", as_csv(numbers))
    write_text(to / "table.json", as_json(run, numbers, notes))
    words = ("report.md", "report.tex", "table.csv", "table.json")
    return text + "\n", [*(to / name for name in words), *drawn]


def _figure(name: str, text: str) -> str:
    """In Markdown: the figure, what it is, and where it is in the form for a paper."""
    regenerates = EXPERIMENTS[name].regenerates
    head = f"**{regenerates[0].upper()}{regenerates[1:]}.**"
    picture, said = f"![{name}]({name}.svg)", f"{head} {in_markdown(text)}"
    return f"{picture}\n\n{said} [PDF]({name}.pdf), [PNG]({name}.png)"


def tables(run: Run) -> list[Table]:
    """A table per benchmark, then one of the differences to the baseline for each that has some."""
    table = _with_variants if varied(run) else _main
    found = [_differences(run, benchmark) for benchmark in run.benchmarks]
    return [*(table(run, benchmark) for benchmark in run.benchmarks), *(t for t in found if t.rows)]


def _main(run: Run, benchmark: str) -> Table:
    """Methods down, measures across; in the main table each measured beside published."""
    beside = beside_the_published(run)
    labels = {name: f"{m.label} ({m.unit})" for name, m in run.measures.items()}
    if beside and not any(judge.is_the_papers for judge in run.judges):
        labels["lmunit"] = "LMUnit (1 to 5)"
    heads = ["Method", "K answers"]
    for name, label in labels.items():
        heads.append(f"{label}, measured")
        if beside and name in OF_THE_PAPER:
            heads.append(f"{label.partition(' (')[0]}, published")
    rows = []
    for method, _ in cells(run, benchmark):
        K = answers_of(run, benchmark, method)
        row = [label_of(method), "–".join(map(str, K)) if K else "–"]
        for name in labels:
            row.append(_measured(run, name, benchmark=benchmark, method=method))
            if beside and name in OF_THE_PAPER:
                row.append(_published(run, benchmark, method, name))
        rows.append(tuple(row))
    return Table(
        f"{benchmark}, rewards by {run.declaration['main_reward']}", tuple(heads), tuple(rows)
    )


def _measured(run: Run, measure: str, **fields: object) -> str:
    found = run.value(measure, **fields) if measure in run.measures else None
    return "not measured" if found is None else found.text()


def _published(run: Run, benchmark: str, method: str, measure: str) -> str:
    if not in_the_paper(run, benchmark, method):
        return "not in the paper"
    found = published(benchmark, method, measure)
    if found is None:
        return "not available"
    return f"{found:.2f} (not comparable)" if any(differences(run)) else f"{found:.2f}"


def _with_variants(run: Run, benchmark: str) -> Table:
    """Methods and their variants down, measures across."""
    heads = ["Method", *(TITLES[field] for field in varied(run))]
    heads += [f"{m.label} ({m.unit}), measured" for m in run.measures.values()]
    rows = []
    for method, values in cells(run, benchmark):
        numbers = [
            _measured(run, name, benchmark=benchmark, method=method, **values)
            for name in run.measures
        ]
        rows.append((label_of(method), *map(str, values.values()), *numbers))
    return Table(benchmark, tuple(heads), tuple(rows), words=1 + len(varied(run)))


TITLES = {"reward": "Reward model", "gradient_steps": "M"}
"""The heads of what is varied."""


def _differences(run: Run, benchmark: str) -> Table:
    """Methods and their variants down, their differences to the baseline across."""
    found = run.paired(benchmark)
    heads = ["Method", *(TITLES[field] for field in varied(run))]
    for name, measure in run.measures.items():
        n = {difference.prompts for (of, *_), difference in found.items() if of == name}
        heads.append(f"{measure.label} ({measure.unit}){''.join(f', n = {each}' for each in n)}")
    rows = []
    for method, values in cells(run, benchmark):
        numbers = [found.get(compared_of(name, method, values)) for name in run.measures]
        if any(numbers):
            texts = [d.estimate.text(2, sign=True) if d else "not measured" for d in numbers]
            rows.append((label_of(method), *map(str, values.values()), *texts))
    title = f"{benchmark}, less {label_of(run.baseline)}"
    return Table(title, tuple(heads), tuple(rows), words=1 + len(varied(run)))


def _notes(run: Run) -> Iterator[str]:
    """What a reader must know to read the numbers."""
    seeds = sorted({seed for _, seed, _ in run.common("top1")})
    listed = ", ".join(map(str, seeds))
    how = (
        f"{'one seed' if len(seeds) == 1 else 'no seed'} ({listed or 'none'})"
        if len(seeds) < 2
        else f"mean ± standard error over {len(seeds)} seeds ({listed})"
    )
    yield f"Measured: {how}, {counted(run.prompts, 'prompt')} per benchmark and seed at most."
    if any(map(run.paired, run.benchmarks)):
        yield (
            f"Less {label_of(run.baseline)}: the mean difference over prompts and seeds, prompt by "
            "prompt, with its 95% interval by a percentile bootstrap over the n different prompts, "
            "each with all seeds that have drawn it."
        )
    if run.failed:
        yield (
            "1 prompt failed and is left out."
            if len(run.failed) == 1
            else f"{len(run.failed)} prompts failed and are left out."
        )
    if run.left_out:
        places = {place_of(record) for record in run.records}
        yield (
            "Methods are compared on the prompts that all of them have answered, "
            f"{len(run.common('top1'))} of {len(places)}: {len(run.left_out)} answers to the "
            "others do not count."
        )
    for name in run.benchmarks:
        if run.select(benchmark=name) and not run.compared(benchmark=name):
            yield f"NOTHING IS COMPARED on {name}: all methods have answered none of its prompts."
    missing = _unfinished(run)
    if missing:
        yield f"The run is not finished: {missing}."
    yield from _fewer_seeds(run)
    yield from _makers(run)
    yield from _judges(run)
    if any(method in RIVALS for method in run.methods):
        names = ", ".join(label_of(method) for method in run.methods if method in RIVALS)
        yield f"Rivals ({names}) have the compute of EntRGi, counted as positions x parameters."
    if run.toy:
        yield "Nothing is published for the toy; its gold score takes the place of LMUnit."
        return
    if run.declaration["experiment"] != "main":
        return  # nothing published stands beside it
    yield (
        "Published: Top@1 of the authors' page; the paper's other numbers were not available "
        "(`not available`)."
    )
    different = list(differences(run))
    if different:
        yield f"NOT COMPARABLE to the published numbers: {'; '.join(different)}."


def _makers(run: Run) -> Iterator[str]:
    """By which code the records were made."""
    makers = Counter(
        f"{record.get('versions', {}).get('entrgi_ref', 'unknown')} at commit "
        f"{record.get('commit', 'unknown')}"
        for record in [*run.records, *run.failed]
    )
    if len(makers) > 1:
        listed = ", ".join(f"{maker} ({n} records)" for maker, n in sorted(makers.items()))
        yield f"MADE BY SEVERAL VERSIONS of entrgi_ref: {listed}."
    else:
        yield f"Made by entrgi_ref {next(iter(makers))}."


def _judges(run: Run) -> Iterator[str]:
    """Who has judged, by what, and how far that can be trusted."""
    for name, judge in run.judges_by_label.items():
        yield f"{name}: {judge.model} by {judge.backend}, asked {_unit_tests(judge)}."
        unjudged = sum(key_of(record) not in judge.scores for record in run.records)
        if unjudged:
            yield (
                f"{unjudged} answers are not judged and are left out of {name}: by it methods are "
                f"compared on {counted(len(run.common(run.measure_of(name))), 'prompt')}."
            )
        if judge.without_digit == judge.replies > 0:
            yield (
                f"NONE of the {judge.replies} replies of {name} has a digit from 1 to 5: it does "
                "not judge."
            )
        elif judge.without_digit:
            yield (
                f"{judge.without_digit} of the {judge.replies} replies of {name} have no digit "
                "from 1 to 5: their score is what these were given instead of what was said."
            )


def _unit_tests(judge: JudgedBy) -> str:
    if judge.unit_tests == UNIT_TESTS:
        return f"the package's {len(UNIT_TESTS)} unit tests"
    listed = "; ".join(f"“{printable(test)}”" for test in judge.unit_tests)
    return f"{len(judge.unit_tests)} unit tests of its own: {listed}"


def _unfinished(run: Run) -> str:
    """Which of the prompts that were asked for have no record."""
    there = Counter(key_of(record)[1:5] for record in [*run.records, *run.failed])
    wanted = asked_of(run.declaration)
    short = {cell: n - there[cell] for cell, n in wanted.items() if there[cell] < n}
    if not short:
        return ""
    missing = sum(short.values())
    verb = "is" if missing == 1 else "are"
    return f"{counted(missing, 'prompt')} of {counted(len(short), 'cell')} {verb} missing"


def _fewer_seeds(run: Run) -> Iterator[str]:
    """The methods that were not run with all seeds."""
    seeds = sorted({record["seed"] for record in run.records})
    for method in run.methods:
        of = sorted({record["seed"] for record in run.select(method=method)})
        if of != seeds:
            which = f"seed{'s' if len(of) > 1 else ''} {', '.join(map(str, of))}"
            yield f"{label_of(method)} has {which} only."
