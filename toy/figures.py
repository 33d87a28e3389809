"""The demo's figure, for light and for dark pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from entrgi_ref.paper.declared.experiments import LABELS
from entrgi_ref.paper.shown.figures import STYLES

from .table import Row

COLOURS = {method: colour for method, (_, colour, _) in STYLES.items()} | {"constant": "#8b5e3c"}
"""As in the figures of a run: Okabe and Ito's colours, which people with any kind of colour vision
can tell apart."""
DARK_COLOURS = {
    "constant": "#c9a27e",
    "bon": "#a3adb8",
    "bon_equal_compute": "#7d8791",
    "expectation": "#5aa2f0",
    "aps": "#ff8a3c",
    "entrgi": "#2cc89b",
    "damped": "#ffffff",
    "smc": "#e6a0c8",
    "self_smc": "#f0e442",
    "lookahead": "#a8e0ff",
}
"""The same hues, lighter."""
INK, DARK_INK = "#1b1f24", "#e8ecf0"
MARKERS = {method: marker for method, (_, _, marker) in STYLES.items()} | {"constant": "p"}


Curves = Mapping[str, Sequence[Sequence[float]]]
"""(Denoising step, E) for each step of each method."""


def draw_demo(rows: Sequence[Row], curves: Curves, light: Path, dark: Path) -> None:
    """Write the figure as SVG, once for light and once for dark pages."""
    for path, ink, colours in ((light, INK, COLOURS), (dark, DARK_INK, DARK_COLOURS)):
        style = dict.fromkeys(
            ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink
        )
        settings: Any = {
            **style,
            "svg.fonttype": "none",
            "svg.hashsalt": "entrgi_ref",
            "font.family": "sans-serif",
            "font.size": 10,
        }
        with matplotlib.rc_context(settings):
            figure = demo_figure(rows, curves, ink, colours)
            figure.savefig(path, transparent=True, metadata={"Date": None})


def demo_figure(
    rows: Sequence[Row], curves: Curves, ink: str, colours: Mapping[str, str]
) -> Figure:
    """Reward, gold score and approximation error."""
    figure = Figure(figsize=(7.4, 6.4), layout="constrained")
    above, below = np.asarray(figure.subfigures(2, 1, height_ratios=(3.3, 3.1)))
    reward, gold = above.subplots(1, 2)
    _dots(reward, rows, "top1", "average", ("Top@1", "Avg@K"), ink)
    reward.set(title="Reward: what guidance climbs", xlabel="reward (standard deviations)")
    _dots(gold, rows, "gold_best", "gold_mean", ("of the best answer", "mean of all"), ink)
    gold.set(title="Gold score: what is wanted", xlabel="gold score (points)", yticklabels=[])
    _curves(below.subplots(), curves, colours)
    return figure


def _dots(
    axes: Axes, rows: Sequence[Row], filled: str, hollow: str, labels: tuple[str, str], ink: str
) -> None:
    """One line per method: two measures with their 95% intervals."""
    for measure, offset, face, label in (
        (filled, 0.13, ink, labels[0]),
        (hollow, -0.13, "none", labels[1]),
    ):
        estimates = [row.measures[measure] for row in rows]
        x = np.array([e.mean for e in estimates])
        spread = np.array(
            [[e.mean - e.low for e in estimates], [e.high - e.mean for e in estimates]]
        )
        y = -np.arange(len(rows)) + offset
        axes.errorbar(
            x,
            y,
            xerr=spread,
            fmt="o",
            color=ink,
            markerfacecolor=face,
            markersize=5,
            capsize=2,
            label=label,
        )
    axes.set_yticks(-np.arange(len(rows)), [row.label.replace(", ", ",\n") for row in rows])
    axes.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _curves(axes: Axes, curves: Curves, colours: Mapping[str, str]) -> None:
    for method, curve in curves.items():
        axes.plot(
            *zip(*curve, strict=True),
            color=colours[method],
            marker=MARKERS[method],
            markersize=4,
            label=LABELS[method],
        )
    axes.set(
        title="E: how far the reward's input is off",
        xlabel="denoising step",
        ylabel="distance to the soft embedding",
        ylim=(0, None),
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
