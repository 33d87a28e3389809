"""The paper's figures, drawn from the records of a run, as SVG and PNG."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...commands.files import write_bytes
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


def of(run: Run) -> list[str]:
    """The figures that can be drawn of a run."""
    name = run.declaration["experiment"]
    if any(record.get("errors") for record in run.records):
        return ["error-by-step", "error-vs-entropy"]  # both are in the records of either
    return [name]


def draw(run: Run, name: str, to: Path) -> list[Path]:
    """Draw a figure of a run into the folder `to`, as SVG and as PNG."""
    with _style():
        figure = DRAWN[name](run)
        paths = []
        for kind, options in KINDS.items():
            contents = BytesIO()
            figure.savefig(contents, format=kind, **options)
            paths.append(to / f"{name}.{kind}")
            write_bytes(paths[-1], contents.getvalue())
    return paths


KINDS: dict[str, dict[str, Any]] = {"svg": {"metadata": {"Date": None}}, "png": {"dpi": 150}}
"""The formats, and what makes a figure the same bytes each time."""


@contextmanager
def _style() -> Iterator[None]:
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "entrgi_ref",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
    }
    with matplotlib.rc_context(settings):
        yield


def _grid(rows: int, columns: int, width: float = 3.4, height: float = 2.8) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width * columns + 0.6, height * rows + 0.4), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _legend_below(figure: Figure, axes: Axes, title: str | None = None) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, min(len(labels), int(figure.get_figwidth() / ENTRY)))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, title=title, title_fontsize=8
    )


ENTRY = 1.6
"""The width of an entry of a legend, in inches."""


def _bars(run: Run) -> str:
    """What the bars are."""
    several = len({seed for _, seed, _ in run.common("top1")}) > 1
    return "bars: one standard error over the seeds" if several else "one seed: no standard errors"


def _title(benchmark: str) -> str:
    return textwrap.fill(benchmark, 30)


def main(run: Run) -> Figure:
    """A dot per method with its standard error, for each benchmark and measure."""
    height = 2.2 + 0.25 * max(0, len(run.methods) - 5)
    figure, axes = _grid(len(run.benchmarks), len(run.measures), height=height)
    figure.supxlabel(_bars(run), fontsize=8)
    for row, benchmark in zip(axes, run.benchmarks, strict=True):
        for axis, name in zip(row, run.measures, strict=True):
            for y, method in enumerate(reversed(run.methods)):
                found = run.value(name, benchmark=benchmark, method=method)
                if found:
                    _, colour, marker = STYLES[method]
                    axis.errorbar(
                        found.mean, y, xerr=found.error or 0, fmt=marker, color=colour, capsize=3
                    )
            labels = [STYLES[method][0] for method in reversed(run.methods)]
            first = axis is row[0]
            axis.set_yticks(range(len(labels)), labels if first else [""] * len(labels))
            axis.set(
                title=_title(benchmark),
                xlabel=f"{run.measures[name].label} ({run.measures[name].unit})",
            )
            axis.margins(x=0.15, y=0.15)
            axis.grid(axis="x", alpha=0.25)
    return figure


def error_by_step(run: Run) -> Figure:
    """Figure 2: E and the entropy at each denoising step, with the largest possible entropy."""
    figure, axes = _grid(1, 2, width=4.2)
    largest = 0.0
    for method in run.methods:
        label, colour, marker = STYLES[method]
        sums: dict[int, list[float]] = {}
        for record in run.compared(method=method):
            largest = record["errors"]["log_vocabulary"]
            for step in record["errors"]["steps"]:
                E, H, n = sums.setdefault(step["step"], [0.0, 0.0, 0.0])
                sums[step["step"]] = [
                    E + step["E"] * step["n"],
                    H + step["entropy"] * step["n"],
                    n + step["n"],
                ]
        steps = sorted(sums)
        every = max(1, len(steps) // 12)
        for i, axis in enumerate(axes[0]):
            axis.plot(
                [step + 1 for step in steps],
                [sums[step][i] / sums[step][2] for step in steps],
                color=colour,
                marker=marker,
                markersize=4,
                markevery=every,
                label=label,
            )
    axes[0, 0].set(
        title="Distance of the reward's input",
        xlabel="denoising step",
        ylabel="E (embedding units)",
    )
    axes[0, 1].axhline(largest, color="#56606b", linestyle="--", linewidth=1, label="log K")
    axes[0, 1].set(title="Entropy of masked positions", xlabel="denoising step", ylabel="H (nats)")
    for axis in axes[0]:
        axis.set_ylim(bottom=0)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.25)
    _legend_below(figure, axes[0, 1])
    return figure


def error_vs_entropy(run: Run) -> Figure:
    """Figure 3: how often each pair of entropy and E occurs, a column per benchmark, a row per
    method.
    """
    methods = [method for method in run.methods if method not in ("bon", "bon_equal_compute")]
    figure, axes = _grid(len(methods), len(run.benchmarks))
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
    for i, method in enumerate(methods):
        for j, benchmark in enumerate(run.benchmarks):
            axis, shown = axes[i, j], np.ma.masked_equal(counts[method, benchmark], 0)
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
            axis.set_title(_title(f"{STYLES[method][0]}, {benchmark}"))
            if i == len(methods) - 1:
                axis.set_xlabel("entropy (nats)")
            if j == 0:
                axis.set_ylabel("E (embedding units)")
    if image is not None:
        figure.colorbar(image, ax=axes, label="masked positions x gradient steps")
    return figure


def reward_size(run: Run) -> Figure:
    """Figure 4: each measure against the size of the reward model, a column per benchmark."""
    sizes = run.variants("reward")

    def points(measure: str, benchmark: str, method: str) -> Iterator[tuple[Any, ...]]:
        for x, size in enumerate(sizes):
            found = run.value(measure, benchmark=benchmark, method=method, reward=size)
            if found:
                yield x, found.mean, found.error or 0

    figure, axes = _lines(run, run.methods, points, "reward model")
    for axis in axes.flat:
        axis.set_xticks(range(len(sizes)), sizes)
        axis.margins(x=0.15)
    return figure


def gradient_steps(run: Run) -> Figure:
    """Figure 5: the change of each measure against M = 1, as M grows, averaged over the reward
    models; a column per benchmark. Changes and their standard errors are those of each seed.
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

    figure, axes = _lines(run, run.methods, points, "M, gradient steps", f" against M = {steps[0]}")
    for axis in axes.flat:
        axis.axhline(0, color="#56606b", linewidth=1, linestyle="--")
        axis.set_xticks(steps)
    return figure


def _lines(
    run: Run,
    methods: Sequence[str],
    points: Callable[[str, str, str], Iterator[tuple[Any, ...]]],
    x_label: str,
    against: str = "",
) -> tuple[Figure, Any]:
    """Measures down, benchmarks across, a line per method."""
    figure, axes = _grid(len(run.measures), len(run.benchmarks))
    for i, measure in enumerate(run.measures):
        for j, benchmark in enumerate(run.benchmarks):
            axis = axes[i, j]
            for method in methods:
                found = list(points(measure, benchmark, method))
                if found:
                    label, colour, marker = STYLES[method]
                    x, y, error = zip(*found, strict=True)
                    axis.errorbar(
                        x, y, yerr=error, color=colour, marker=marker, capsize=3, label=label
                    )
            axis.set(title=_title(benchmark), xlabel=x_label)
            if j == 0:
                axis.set_ylabel(
                    f"{run.measures[measure].label}{against}\n({run.measures[measure].unit})"
                )
            axis.grid(alpha=0.25)
    _legend_below(figure, axes[0, 0], _bars(run))
    return figure, axes


DRAWN: dict[str, Callable[[Run], Figure]] = {
    "main": main,
    "error-by-step": error_by_step,
    "error-vs-entropy": error_vs_entropy,
    "reward-size": reward_size,
    "gradient-steps": gradient_steps,
}
