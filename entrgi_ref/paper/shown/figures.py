"""The paper's figures, drawn from the records of a run for a column of a paper: PDF, SVG, PNG."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ...commands.files import write_bytes
from ..declared.published import published
from .comparable import differences
from .numbers import beside_the_published, in_the_paper
from .summary import Run, value

STYLES = {
    "bon": ("Best-of-N", "#56606b", "D"),
    "bon_equal_compute": ("Best-of-N,\nequal compute", "#87919c", "d"),
    "expectation": ("Expectation", "#0072B2", "s"),
    "aps": ("APS", "#D55E00", "^"),
    "entrgi": ("EntRGi", "#009E73", "o"),
    "damped": ("EntRGi, damped", "#000000", "*"),
    "smc": ("SMC", "#CC79A7", "v"),
    "self_smc": ("Self-rewarding SMC", "#BD7F00", "P"),
    "lookahead": ("Lookahead", "#2F97D3", "X"),
}
"""Label, colour and marker of each method: Okabe and Ito's colours, which people with any kind of
colour vision can tell apart, but for their yellow, which hardly shows on white, and with a darker
orange and sky blue; and two greys. All stand out from white by 3:1."""
DASHES: Mapping[str, Any] = {
    "bon": "-.",
    "bon_equal_compute": (0, (1, 3)),
    "expectation": ":",
    "aps": "--",
    "entrgi": "-",
    "damped": (0, (8, 2)),
    "smc": (0, (4, 1, 1, 1, 1, 1)),
    "self_smc": (0, (2, 1)),
    "lookahead": (0, (6, 1, 1, 1, 1, 1, 1, 1)),
}
"""The line of each method: with its marker it is told apart without colour too."""

OWN_STYLES = (
    ("#8b5e3c", "p", (0, (5, 1))),
    ("#5e3c99", "h", (0, (3, 1, 1, 1))),
    ("#b2182b", "<", (0, (1, 1))),
    ("#4d9221", ">", (0, (7, 3, 1, 3))),
)
"""Colour, marker and line of weights of your own, in turn."""


def style_of(run: Run, method: str) -> tuple[str, str, str, Any]:
    """Label, colour, marker and line of a method of a run."""
    if method in STYLES:
        return *STYLES[method], DASHES[method]
    own = [name for name in run.methods if name not in STYLES]
    return _filled(method, 18), *OWN_STYLES[own.index(method) % len(OWN_STYLES)]


def _filled(text: str, width: int) -> str:
    """Lines of a text with names in it: a dollar sign in one begins no formula."""
    return _plain(textwrap.fill(text, width))


def _plain(text: str) -> str:
    return text.replace("$", r"\$")


def of(run: Run) -> list[str]:
    """The figures that can be drawn of a run."""
    name = run.declaration["experiment"]
    if any(record.get("errors") for record in run.records):
        both = ["error-by-step", "error-vs-entropy"]  # both are in the records of either
        return both if _guided(run) else both[:1]
    return [name]


def _guided(run: Run) -> list[str]:
    """The methods of a run whose errors are counted."""
    return [method for method in run.methods if method not in ("bon", "bon_equal_compute")]


def draw(run: Run, name: str, to: Path) -> list[Path]:
    """Draw a figure of a run into the folder `to`, in each format."""
    with _style():
        figure = DRAWN[name](run)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # found once, and the same in all formats
        paths = []
        for kind, options in KINDS.items():
            contents = BytesIO()
            figure.savefig(contents, format=kind, dpi=300, **options)
            paths.append(to / f"{name}.{kind}")
            write_bytes(paths[-1], contents.getvalue())
    return paths


KINDS: dict[str, dict[str, Any]] = {
    "svg": {"metadata": {"Date": None}},
    "png": {},
    "pdf": {"metadata": {"CreationDate": None}},
}
"""The formats, and what makes a figure the same bytes each time."""


@contextmanager
def _style() -> Iterator[None]:
    """How figures look: letters of 7 and 8 points at the width of a column, embedded in the PDF.

    Whatever a matplotlibrc says: it may ask for LaTeX, which names break. A sign that the font
    lacks is drawn as a box.
    """
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "entrgi_ref",
        "pdf.fonttype": 42,
        "font.family": "sans-serif",
        "font.size": 8,
        "axes.titlesize": 8,
        "axes.labelsize": 7,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
        "legend.title_fontsize": 7,
        "legend.frameon": False,
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "lines.linewidth": 1,
        "lines.markersize": 4,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "grid.linewidth": 0.5,
    }
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
        yield


COLUMN = 3.4
"""The width of a column, in inches."""
ACROSS = 3
"""Panels that fit a column side by side. More make the figure wider."""
CHARACTERS = 58
"""Of the smallest letters, on a line as wide as a column."""
GREY = "#56606b"

Panels = Mapping[tuple[str, str], Axes]


def _grid(rows: int, columns: int, height: float, below: float = 0.8) -> tuple[Figure, Any]:
    """Panels of a height in inches, with room below for what they have in common."""
    width = COLUMN * max(1, columns / ACROSS)
    figure = Figure(figsize=(width, height * rows + below), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _place(axis: Axes) -> SubplotSpec:
    """Where a panel of `_grid` stands."""
    found = axis.get_subplotspec()
    assert found is not None
    return found


def _panels(run: Run, height: float, below: float = 0.8) -> tuple[Figure, Panels]:
    """A panel for each measure and benchmark: what there are fewer of is side by side."""
    across = len(run.measures) <= len(run.benchmarks)
    shape = (run.benchmarks, run.measures) if across else (run.measures, run.benchmarks)
    figure, axes = _grid(len(shape[0]), len(shape[1]), height, below)
    panels = {}
    for row, down in zip(axes, shape[0], strict=True):
        for axis, right in zip(row, shape[1], strict=True):
            measure, benchmark = (right, down) if across else (down, right)
            axis.set_title(_title(benchmark, len(row)))
            panels[measure, benchmark] = axis
    return figure, panels


def _legend_below(figure: Figure, handles: Sequence[Artist], text: str, columns: int = 3) -> None:
    """What the signs mean, and what is drawn."""
    title = _filled(text, round(CHARACTERS * figure.get_figwidth() / COLUMN))
    legend = figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=max(1, min(len(handles), columns)),
        title=title,
        columnspacing=1.2,
    )
    legend.get_title().set_multialignment("center")


def _handles(axes: Iterator[Axes] | Sequence[Axes]) -> list[Artist]:
    """What a legend has to explain, each once."""
    found: dict[str, Artist] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        for handle, label in zip(handles, labels, strict=True):
            found.setdefault(label, handle)
    return list(found.values())


def bars(run: Run) -> str:
    """What the bars are."""
    seeds = {seed for _, seed, _ in run.common("top1")}
    if len(seeds) > 1:
        return f"Bars: one standard error over {len(seeds)} seeds."
    return "One seed: no standard errors."


def _title(text: str, across: int) -> str:
    return _filled(text, 45 // across)


def _label(method: str) -> str:
    return STYLES[method][0] if method in STYLES else method


def _named(run: Run, measure: str) -> str:
    return f"{run.measures[measure].label} ({run.measures[measure].unit})"


def main(run: Run) -> Figure:
    """A dot per method with its standard error, for each benchmark and measure, and the published
    numbers beside them.
    """
    figure, panels = _panels(run, 0.55 + 0.2 * max(4, len(run.methods)), below=0.4)
    different = any(differences(run))
    names = run.methods[::-1]
    for (measure, benchmark), axis in panels.items():
        for y, method in enumerate(names):
            found = run.value(measure, benchmark=benchmark, method=method)
            if found:
                _, colour, marker, _ = style_of(run, method)
                axis.errorbar(
                    found.mean, y, xerr=found.error or 0, fmt=marker, color=colour, capsize=2
                )
            known = _published(run, measure, benchmark, method)
            if known is not None:
                axis.plot(
                    known,
                    y,
                    "|",
                    color="black",
                    markersize=11,
                    markeredgewidth=1.6,
                    label="published" + (", other settings" if different else ""),
                )
        across = _place(axis).get_gridspec().ncols
        first = _place(axis).is_first_col()
        labels = [style_of(run, name)[0] if first else "" for name in names]
        axis.set_yticks(range(len(names)), labels)
        axis.set_xlabel(_filled(_named(run, measure), 45 // across))
        axis.set_ylim(-0.6, len(names) - 0.4)
        axis.margins(x=0.15)
        axis.xaxis.set_major_locator(MaxNLocator(6 // across + 1, steps=[1, 2, 5, 10]))
        axis.grid(visible=False, axis="y")
    _legend_below(figure, _handles(list(panels.values())), bars(run))
    return figure


def _published(run: Run, measure: str, benchmark: str, method: str) -> float | None:
    if not beside_the_published(run) or not in_the_paper(run, benchmark, method):
        return None
    return published(benchmark, method, measure)


def error_by_step(run: Run) -> Figure:
    """Figure 2: E and the entropy at each denoising step, with the largest possible entropy; a row
    per benchmark. Bands show how far prompts differ.
    """
    figure, axes = _grid(len(run.benchmarks), 2, 1.35)
    for (left, right), benchmark in zip(axes, run.benchmarks, strict=True):
        for method in run.methods:
            records = run.compared(method=method, benchmark=benchmark)
            if records:
                _curve(left, style_of(run, method), records, "E")
                _curve(right, style_of(run, method), records, "entropy")
        for record in run.compared(benchmark=benchmark)[:1]:
            largest = record["errors"]["log_vocabulary"]
            right.axhline(largest, color=GREY, linestyle=(0, (1, 1)), label=LOG_V)
        left.set(title=_title(benchmark, 2), ylabel="E (embedding units)")
        right.set(title=_title(benchmark, 2), ylabel="entropy (nats)")
        for axis in (left, right):
            if axis.has_data():
                axis.set_ylim(0, 1.08 * axis.dataLim.ymax)
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    for axis in axes[-1]:
        axis.set_xlabel("denoising step")
    band = Patch(facecolor=GREY, alpha=ALPHA, label="10% to 90% of the prompts")
    _legend_below(figure, [*_handles(axes.flat), band], AVERAGED_BY_STEP, 2)
    return figure


LOG_V = "log V, V: vocabulary size"
ALPHA = 0.2
AVERAGED_BY_STEP = (
    "Lines: mean over prompts, seeds, K answers, gradient steps and masked positions."
)
SPREAD = (10, 90)
"""Percentiles over the prompts."""


def _curve(
    axis: Axes,
    style: tuple[str, str, str, Any],
    records: Sequence[Mapping[str, Any]],
    field: str,
) -> None:
    """The mean over all positions at each step, and the spread of the prompts' means."""
    found: dict[int, list[tuple[float, float]]] = {}
    for record in records:
        for step in record["errors"]["steps"]:
            found.setdefault(step["step"], []).append((step[field], step["n"]))
    if not found:
        return  # no method without a gradient has anything to see
    label, colour, marker, dashes = style
    steps = sorted(found)
    columns = [np.array(found[step]).T for step in steps]
    x = [step + 1 for step in steps]
    low, high = np.array([np.percentile(v, SPREAD) for v, _ in columns]).reshape(-1, 2).T
    axis.fill_between(x, low, high, color=colour, alpha=ALPHA, linewidth=0)
    axis.plot(
        x,
        [np.average(values, weights=n) for values, n in columns],
        color=colour,
        linestyle=dashes,
        marker=marker,
        markersize=3,
        markevery=max(1, len(steps) // 8),
        label=label,
    )


def error_vs_entropy(run: Run) -> Figure:
    """Figure 3: how often each pair of entropy and E occurs, a row per benchmark, a column per
    method.
    """
    methods = _guided(run)
    figure, axes = _grid(len(run.benchmarks), len(methods), 1.35)
    counts = {}
    for method in methods:
        for benchmark in run.benchmarks:
            records = run.compared(method=method, benchmark=benchmark)
            counts[method, benchmark] = sum(
                np.array(record["errors"]["histogram"]["counts"]) for record in records
            )
    most = max(1, *(int(np.max(c)) for c in counts.values()))
    image = None
    edges = next(r["errors"] for r in run.records if r.get("errors"))["histogram"]
    highest = max(
        (np.nonzero(np.sum(c, 0))[0].max() for c in counts.values() if np.sum(c)), default=0
    )
    for row, benchmark in zip(axes, run.benchmarks, strict=True):
        for axis, method in zip(row, methods, strict=True):
            shown = np.ma.masked_equal(counts[method, benchmark], 0)
            if np.ndim(shown) == 2:
                image = axis.pcolormesh(
                    edges["entropy_edges"],
                    edges["error_edges"],
                    shown.T,
                    norm=LogNorm(1, most),
                    cmap="cividis",
                    rasterized=True,
                )
            axis.set_ylim(0, edges["error_edges"][highest + 1])
            axis.set_title(_title(f"{_label(method)}, {benchmark}", len(methods)))
        row[0].set_ylabel("E (embedding units)")
    for axis in axes[-1]:
        axis.set_xlabel("entropy (nats)")
    if image is not None:
        figure.colorbar(
            image,
            ax=axes,
            location="bottom",
            aspect=40,
            label="count: masked positions × gradient steps × denoising steps,\n"
            "over all answers, prompts and seeds",
        )
    return figure


def reward_size(run: Run) -> Figure:
    """Figure 4: each measure against the size of the reward model, for each benchmark."""
    sizes = run.variants("reward")

    def points(measure: str, benchmark: str, method: str) -> Iterator[tuple[Any, ...]]:
        for x, size in enumerate(sizes):
            found = run.value(measure, benchmark=benchmark, method=method, reward=size)
            if found:
                yield x, found.mean, found.error or 0

    figure, axes = _lines(run, points, "reward model", bars(run))
    for axis in axes:
        axis.set_xticks(range(len(sizes)), [_plain(size) for size in sizes])
        axis.set_xlim(-0.5, len(sizes) - 0.5)
    return figure


def gradient_steps(run: Run) -> Figure:
    """Figure 5: the change of each measure against M = 1, as M grows, averaged over the reward
    models, for each benchmark. Changes and their standard errors are those of each seed.
    """
    steps = run.variants("gradient_steps")
    sizes = run.variants("reward") or [None]

    def points(measure: str, benchmark: str, method: str) -> Iterator[tuple[Any, ...]]:
        means = {
            (M, size): run.per_seed(
                measure,
                run.select(
                    benchmark=benchmark,
                    method=method,
                    gradient_steps=M,
                    **({} if size is None else {"reward": size}),
                ),
            )
            for M in steps
            for size in sizes
        }
        for M in steps:
            seeds = set.intersection(
                *(set(means[M, size]) & set(means[steps[0], size]) for size in sizes)
            )
            changes = [
                float(np.mean([means[M, s][seed] - means[steps[0], s][seed] for s in sizes]))
                for seed in sorted(seeds)
            ]
            if changes:
                found = value(changes, 0)
                yield M, found.mean, found.error or 0

    figure, axes = _lines(
        run, points, "M, gradient steps", f"{averaged_over_sizes(run)} {bars(run)}", "change of "
    )
    for axis in axes:
        axis.axhline(0, color=GREY, linewidth=0.8, linestyle=(0, (1, 1)))
        axis.set_xticks(steps)
    return figure


def averaged_over_sizes(run: Run) -> str:
    """What a point of Figure 5 is a mean of."""
    first = run.variants("gradient_steps")[0]
    sizes = run.variants("reward")
    rewards = f", then over the reward models {', '.join(sizes)}" if len(sizes) > 1 else ""
    return (
        f"Points: change against M = {first}, mean over the prompts of a seed{rewards}, then over "
        "seeds."
    )


DODGE = 0.2
"""How far the bars of two methods are apart, as a share of the least distance of two points..."""
DODGED = 0.6
"""...and those of all methods at most."""


def _lines(
    run: Run,
    points: Callable[[str, str, str], Iterator[tuple[Any, ...]]],
    x_label: str,
    text: str,
    of: str = "",
) -> tuple[Figure, list[Axes]]:
    """A panel for each measure and benchmark, a line per method, moved aside so that no bar hides
    another.
    """
    figure, panels = _panels(run, 1.35)
    last = len(run.methods) - 1
    for (measure, benchmark), axis in panels.items():
        lines = {method: list(points(measure, benchmark, method)) for method in run.methods}
        places = sorted({x for found in lines.values() for x, *_ in found})
        gap = min(np.diff(places), default=1)
        for i, (method, found) in enumerate(lines.items()):
            if found:
                label, colour, marker, dashes = style_of(run, method)
                x, y, error = zip(*found, strict=True)
                axis.errorbar(
                    np.array(x) + (i - last / 2) * gap * min(DODGE, DODGED / max(1, last)),
                    y,
                    yerr=error,
                    color=colour,
                    marker=marker,
                    linestyle=dashes,
                    elinewidth=0.8,
                    capsize=1.5,
                    label=label,
                )
        place = _place(axis)
        across = place.get_gridspec().ncols
        if place.is_last_row():
            axis.set_xlabel(x_label)
        if place.is_first_col() or across == len(run.measures):
            axis.set_ylabel(_filled(f"{of}{_named(run, measure)}", 18))
    _legend_below(figure, _handles(list(panels.values())), text)
    return figure, list(panels.values())


DRAWN: dict[str, Callable[[Run], Figure]] = {
    "main": main,
    "error-by-step": error_by_step,
    "error-vs-entropy": error_vs_entropy,
    "reward-size": reward_size,
    "gradient-steps": gradient_steps,
}
