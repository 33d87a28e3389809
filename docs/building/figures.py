"""The pictures of the site, drawn at every build: from the package's functions, from the quick toy,
or from run records. Each is drawn twice, for light and for dark pages.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from building import recordings, records
from building.recordings import TOLERANCE
from entrgi_ref import (
    DenoisingRecord,
    GuidanceConfig,
    approximation_error,
    discreteness_error,
    entropy_weight,
    generate,
    hard_embedding,
    interpolate,
    schedule,
    soft_embedding,
    token_distribution,
)
from entrgi_ref.paper.declared.experiments import LABELS
from toy import figures as toy_figures
from toy.demo import BASE
from toy.laboratory import distribution
from toy.laboratory.claims import pays
from toy.laboratory.gradient import GRID
from toy.laboratory.rivals import AGAINST
from toy.language import MASK
from toy.models import WRITABLE
from toy.statistics import Estimate
from toy.testbed import Testbed, held_out_prompts


@dataclass(frozen=True)
class Palette:
    """The colours of a page."""

    ink: str
    quiet: str
    method: dict[str, str]

    @property
    def soft(self) -> str:
        return self.method["expectation"]

    @property
    def hard(self) -> str:
        return self.method["aps"]

    @property
    def mixed(self) -> str:
        return self.method["entrgi"]


PALETTES = {
    "light": Palette(toy_figures.INK, "#59636e", toy_figures.COLOURS),
    "dark": Palette(toy_figures.DARK_INK, "#a3adb8", toy_figures.DARK_COLOURS),
}


Paint = Callable[[Palette], Figure]


@dataclass(frozen=True)
class Drawing:
    """A picture, and what it shows in words."""

    alt: str
    """For a reader who cannot see it."""
    caption: str
    """In Markdown, for all readers: what is drawn, and what the error bars are. May hold macros."""
    recorded: tuple[str, ...]
    """The run records that it is drawn from."""
    paint: Paint

    def draw(self) -> dict[str, str]:
        """`light` and `dark` -> SVG."""
        return {mode: self._svg(palette) for mode, palette in PALETTES.items()}

    def _svg(self, palette: Palette) -> str:
        with _style(palette):
            figure = self.paint(palette)
            written = io.StringIO()
            figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
        return written.getvalue()


DRAWN: dict[str, Drawing] = {}
"""Name -> picture."""


def drawing(caption: str, *recorded: str) -> Callable[[Paint], Paint]:
    """Register a picture. What the docstring says is what a reader is told who cannot see it."""

    def register(paint: Paint) -> Paint:
        alt = " ".join((paint.__doc__ or "").split())
        DRAWN[paint.__name__] = Drawing(alt, caption, recorded, paint)
        return paint

    return register


@contextmanager
def _style(palette: Palette) -> Iterator[None]:
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    settings: Any = {
        **dict.fromkeys(inked, palette.ink),
        "svg.fonttype": "none",
        "svg.hashsalt": "entrgi_ref",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "grid.alpha": 0.25,
    }
    with matplotlib.rc_context(settings):
        yield


def _counted(*axes: Axis) -> None:
    """No half steps on an axis of counts."""
    for axis in axes:
        axis.set_major_locator(MaxNLocator(integer=True))


def _panels(*widths: float, height: float = 2.9) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(sum(widths), height), layout="constrained")
    axes = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)
    return figure, list(axes[0])


@cache
def quick_toy() -> Testbed:
    """The toy's small networks, trained at the first use."""
    from toy.studies import FIRST_TRAINING_SEED

    return Testbed.load(quick=True, seed=FIRST_TRAINING_SEED)


# The example that the page of the algorithm follows by hand.

WORDS = ("the", "cat", "dog", "sat", "ran")
LOGITS = torch.tensor([[2.0, 1.0, 0.5, 0.0, -1.0]], dtype=torch.float64)
PLANE = torch.tensor(
    [[0.0, 2.0], [2.0, 1.0], [1.5, -1.0], [-1.0, -1.5], [-2.0, 0.5]], dtype=torch.float64
)
SAMPLED = 2


@drawing(
    "The probabilities q of the example's five tokens at three temperatures τ. Computed "
    "when the site is built: there is no chance in it, and so no error bars.",
)
def temperature(palette: Palette) -> Figure:
    """Three bar charts of the same five tokens' probabilities: nearly all on one token at
    temperature 0.3, spread out at 1.5.
    """
    figure, axes = _panels(2.6, 2.6, 2.6, height=2.3)
    for axis, tau in zip(axes, (0.3, 0.7, 1.5), strict=True):
        q = token_distribution(LOGITS, tau)[0]
        axis.bar(WORDS, q.tolist(), color=palette.soft)
        axis.set(title=f"τ = {tau}", ylim=(0, 1))
        axis.grid(axis="y")
    axes[0].set_ylabel("probability q")
    return figure


@drawing(
    "The example in the plane of its embeddings. Grey dots are the five tokens. The shaded "
    "area is their hull, in which every soft embedding lies. The mixed embedding lies on "
    "the line from soft to hard, at the share w of the way. Computed when the site is "
    "built, without chance or error bars.",
)
def plane(palette: Palette) -> Figure:
    """Five token embeddings in a plane. The soft embedding lies inside their hull, the hard one on
    a token, and the mixed one on the line between, nearer to the hard one.
    """
    figure, (axis,) = _panels(5.4, height=3.9)
    q = token_distribution(LOGITS, 0.7)
    soft = soft_embedding(q, PLANE)
    hard = hard_embedding(torch.tensor([SAMPLED]), PLANE)
    hull = [*PLANE.tolist(), PLANE[0].tolist()]
    axis.fill(*zip(*hull, strict=True), color=palette.quiet, alpha=0.12)
    for word, (x, y) in zip(WORDS, PLANE.tolist(), strict=True):
        axis.plot(x, y, "o", color=palette.quiet, markersize=5)
        axis.annotate(word, (x, y), xytext=(6, 5), textcoords="offset points")
    axis.plot(*zip(soft[0].tolist(), hard[0].tolist(), strict=True), color=palette.quiet, lw=1)
    w = entropy_weight(LOGITS)
    mixed = interpolate(soft, hard, w)
    for point, colour, marker, label in (
        (soft, palette.soft, "s", "soft ē (Expectation, w = 0)"),
        (mixed, palette.mixed, "o", f"mixed ê (EntRGi, w = {float(w):.2f})"),
        (hard, palette.hard, "^", "hard ẽ (APS, w = 1)"),
    ):
        axis.plot(*point[0].tolist(), marker, color=colour, markersize=10, label=label, ls="none")
    axis.set(xlabel="first dimension of the embedding", ylabel="second dimension", aspect="equal")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@drawing(
    "The weight w where so many tokens are equally likely and all others impossible. The "
    "toy's line ends below 1: some of its tokens may never be written, but all of them "
    "count in V. Computed when the site is built, without chance or error bars.",
)
def weight(palette: Palette) -> Figure:
    """The weight w rises with the logarithm of the number of equally likely tokens; at ten tokens
    it is about a half for a vocabulary of 75, about a fifth for one of 152,064. The toy's line ends
    below 1, at the 61 tokens that may be written.
    """
    figure, (axis,) = _panels(6.2)
    for V, writable, colour, style, label in (
        (75, int(WRITABLE.sum()), palette.mixed, "-", "V = 75, the toy"),
        (152064, 152064, palette.soft, "--", "V = 152,064, Dream"),
    ):
        count = np.unique(np.logspace(0, math.log10(writable), 60).round().astype(int))
        w = [
            float(entropy_weight(torch.where(torch.arange(V) < n, 0.0, -torch.inf)[None]))
            for n in count.tolist()
        ]
        axis.plot(count, w, color=colour, linestyle=style, label=label)
    axis.set(
        xscale="log",
        xlabel="number of equally likely tokens",
        ylabel="weight w of the hard embedding",
        ylim=(0, 1.02),
    )
    axis.grid()
    axis.legend()
    return figure


@cache
def rewards_by_step(method: str, M: int) -> list[float]:
    """The mean reward at each gradient step of the first denoising step that runs."""
    seen: list[DenoisingRecord] = []
    config = replace(BASE, guidance=GuidanceConfig(weight=method, steps=M))
    toy, prompts = quick_toy(), held_out_prompts(16)
    generate(toy.denoiser, toy.reward, prompts, config, observe=seen.append)
    means: list[float] = seen[0].rewards.mean(1).tolist()
    return means


@drawing(
    "The reward that guidance sees at each of its gradient steps, in the first denoising "
    "step that runs. Means over prompts and answers of one run of the quick toy, at one "
    "seed and without error bars. Run when the site is built, so it has no record.",
)
def climb(palette: Palette) -> Figure:
    """The reward that the gradient step sees, against the gradient step, for Expectation, APS and
    EntRGi on the quick toy. For Expectation it rises at every step, for EntRGi at most of them; for
    APS it goes up and down with the tokens that are drawn.
    """
    figure, (axis,) = _panels(5.6)
    for method in ("expectation", "aps", "entrgi"):
        axis.plot(
            range(8),
            rewards_by_step(method, 8),
            color=palette.method[method],
            marker=toy_figures.MARKERS[method],
            label=LABELS[method],
        )
    axis.set(
        xlabel="gradient step m",
        ylabel="mean reward R(ê) that the step sees",
        title="The first denoising step, on the quick toy",
    )
    _counted(axis.xaxis)
    axis.grid()
    axis.legend()
    return figure


@drawing(
    "How many tokens each denoising step commits, with as many steps as tokens and with "
    "twice as many. Computed when the site is built, without chance or error bars.",
)
def commit(palette: Palette) -> Figure:
    """Tokens committed at each denoising step. With 16 steps for 16 tokens: none, then one at a
    time, then two. With 32 steps about half of them commit nothing.
    """
    figure, axes = _panels(3.6, 3.6)
    N = 16
    for axis, T in zip(axes, (16, 32), strict=True):
        steps = schedule(T, N)
        axis.bar(
            [step.index + 1 for step in steps],
            [step.count for step in steps],
            color=palette.mixed,
        )
        axis.set(title=f"T = {T}, N = {N}", xlabel="denoising step", ylim=(0, 2.2))
        _counted(axis.xaxis, axis.yaxis)
    axes[0].set_ylabel("tokens committed")
    return figure


@drawing(
    "Left: both errors at one position of the example, for every weight; computed when the "
    "site is built. Right: the mean E over the positions and gradient steps of each "
    "denoising step, for the first prompts of the demo. Neither has error bars.",
    "demo",
)
def errors(palette: Palette) -> Figure:
    """Left: E rises and D falls with the weight, their sum is constant. Right: E at each denoising
    step of the toy, largest for APS, smaller for EntRGi, zero for Expectation.
    """
    figure, (left, right) = _panels(3.6, 4.2)
    soft = soft_embedding(token_distribution(LOGITS, 0.7), PLANE)
    hard = hard_embedding(torch.tensor([SAMPLED]), PLANE)
    w = torch.linspace(0, 1, 21, dtype=torch.float64)
    soft, hard = soft.expand(len(w), -1), hard.expand(len(w), -1)
    mixed = interpolate(soft, hard, w)
    E, D = approximation_error(mixed, soft), discreteness_error(mixed, hard)
    left.plot(w, E, color=palette.hard, label="E, to soft")
    left.plot(w, D, color=palette.soft, linestyle="--", label="D, to hard")
    left.plot(w, E + D, color=palette.quiet, linestyle=":", label="E + D")
    left.set(xlabel="weight w", ylabel="distance", ylim=(0, None), title="One position")
    left.legend()
    for method, curve in records.read("demo")["errors_by_step"].items():
        right.plot(
            *zip(*curve, strict=True),
            color=palette.method[method],
            marker=toy_figures.MARKERS[method],
            markersize=4,
            label=LABELS[method],
        )
    right.set(
        xlabel="denoising step", ylabel="mean E (embedding units)", ylim=(0, None), title="The toy"
    )
    _counted(right.xaxis)
    right.legend()
    for axis in (left, right):
        axis.grid()
    return figure


@drawing(
    "The demo on the toy, {{ value demo prompts }} held-out prompts and 3 seeds. Left: the "
    "reward. Right: the gold score. Filled: the best of a prompt's answers by the reward; "
    "hollow: their mean; bars: 95% intervals over the prompts, for one trained pair of "
    "networks. Below: how far what the reward model reads is from the [average of all "
    "embeddings](idea.md), at each denoising step, as a mean without error bars. It is "
    "nothing for Expectation, which reads the average itself.",
    "demo",
)
def demo(palette: Palette) -> Figure:
    """Reward and gold score of five methods with 95% intervals, and the distance between the
    reward model's input and the soft embedding at each denoising step.
    """
    return toy_figures.demo_figure(
        records.rows("demo"), records.read("demo")["errors_by_step"], palette.ink, palette.method
    )


@drawing(
    "One blank of a sentence. Expectation reads the soft embedding alone, APS the hard one "
    "alone. EntRGi reads a mix of the two, and its share w of the hard one grows with how "
    "undecided the distribution is. A drawing, not data.",
)
def idea(palette: Palette) -> Figure:
    """A masked slot of a sentence has a distribution over tokens. From it come the average of all
    embeddings, and the embedding of one sampled token. Arrows from both lead to a mix of the two,
    1 - w of the average and w of the sample, where w says how undecided the distribution is. The
    reward model reads the mix, and the reward's gradient moves the distribution.
    """
    figure = Figure(figsize=(7.8, 3.5), layout="constrained")
    axis = figure.subplots()
    axis.set(xlim=(0, 10.9), ylim=(-0.45, 4.2))
    axis.axis("off")

    def box(x: float, y: float, text: str, edge: str) -> None:
        axis.text(
            x,
            y,
            text,
            ha="center",
            va="center",
            bbox={"boxstyle": "round,pad=0.45", "fc": "none", "ec": edge, "lw": 1.6},
        )

    def arrow(
        start: tuple[float, float], end: tuple[float, float], colour: str, **more: Any
    ) -> None:
        axis.annotate(
            "",
            end,
            start,
            arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.6, **more},
        )

    for i, (word, colour) in enumerate(
        (("the", palette.quiet), ("cat", palette.quiet), ("?", palette.ink), ("?", palette.quiet))
    ):
        box(0.45 + 0.68 * i, 3.85, word, colour)
    arrow((1.8, 3.5), (1.8, 3.05), palette.quiet)
    q = token_distribution(LOGITS, 0.7)[0].tolist()
    for i, p in enumerate(sorted(q, reverse=True)):
        axis.bar(1.15 + 0.32 * i, 1.5 * p, width=0.24, bottom=1.5, color=palette.quiet)
    axis.text(1.8, 1.3, "a distribution\nover tokens", ha="center", va="top")
    for y, share, colour, text in (
        (3.2, "1 − w", palette.soft, "soft: the average\nof all embeddings"),
        (0.8, "w", palette.hard, "hard: the embedding\nof one sampled token"),
    ):
        inward = 0.55 if y < 2 else -0.55
        arrow((2.9, 2.0 - inward / 2), (3.35, y + inward / 2), colour)
        box(4.4, y, text, colour)
        arrow((5.4, y + inward), (6.05, 2.0 - 0.75 * inward), colour)
        axis.text(6.0, y + inward, share, color=colour, ha="left", va="center", fontweight="bold")
    box(6.9, 2.0, "EntRGi:\na mix of both", palette.mixed)
    axis.text(4.4, 2.0, "w: how undecided\nthe distribution is", ha="center", va="center")
    arrow((7.75, 2.0), (8.2, 2.0), palette.mixed)
    box(8.8, 2.0, "reward\nmodel", palette.ink)
    arrow((9.4, 2.0), (9.85, 2.0), palette.ink)
    axis.text(9.95, 2.0, "reward", va="center")
    axis.plot((10.3, 10.3, 1.8), (1.75, 0, 0), color=palette.ink, lw=1.6, ls="--")
    arrow((1.8, -0.05), (1.8, 0.75), palette.ink)
    axis.text(6.0, -0.25, "its gradient moves the distribution", ha="center", va="center")
    return figure


@drawing(
    "How well each method's gradient points along the exact one: the cosine between them, "
    "which is 1 if they agree. Filled: the mean of {{ value gradients draws }} draws of the "
    "hard token; hollow: one draw, as the algorithm takes it. Bars: 95% bootstrap intervals "
    "over {{ value gradients prompts }} states with two masked positions.",
    "gradients",
)
def gradients(palette: Palette) -> Figure:
    """Cosine between each weight's gradient and the exact gradient, with 95% intervals."""
    figure, (axis,) = _panels(6.0, height=2.5)
    found = records.read("gradients")["rows"]
    for i, (method, agreement) in enumerate(found.items()):
        for key, offset, face in (("cosine_of_mean", 0.14, None), ("cosine_of_one", -0.14, "none")):
            estimate = Estimate(**agreement[key])
            axis.errorbar(
                estimate.mean,
                -i + offset,
                xerr=[[estimate.mean - estimate.low], [estimate.high - estimate.mean]],
                fmt="o",
                color=palette.method.get(method, palette.quiet),
                markerfacecolor=face or palette.method.get(method, palette.quiet),
                capsize=2,
            )
    axis.set_yticks([-i for i in range(len(found))], [LABELS.get(m, m) for m in found])
    axis.set(xlabel="cosine to the exact gradient\nfilled: mean of many draws; hollow: one draw")
    axis.grid(axis="x")
    return figure


@drawing(
    "The cosine between a gradient and the exact one, for each constant weight. The points "
    "are EntRGi's, drawn at its mean weight. Filled, with a full line: the mean over draws "
    "of the hard token; hollow, dashed: one draw. Bands and bars: 95% bootstrap intervals "
    "over the languages.",
    "exact-gradient",
)
def directions(palette: Palette) -> Figure:
    """Cosine to the exact gradient against a constant weight, of the mean over draws and of one
    draw, with EntRGi at its mean weight: on enumerable and on wide languages.
    """
    figure, axes = _panels(3.6, 3.6, height=3.0)
    found = records.read("exact-gradient")["rows"]
    for axis, (family, of) in zip(axes, found.items(), strict=True):
        estimators = next(iter(of["rewards"].values()))["estimators"]
        for measure, style, face, label in (
            ("cosine_of_mean", "-", None, "mean of draws"),
            ("cosine_of_one", "--", "none", "one draw"),
        ):
            at = [Estimate(**estimators[f"w = {w:g}"][measure]) for w in GRID]
            axis.plot(GRID, [e.mean for e in at], style, color=palette.ink, lw=1.2, label=label)
            low, high = [e.low for e in at], [e.high for e in at]
            axis.fill_between(GRID, low, high, color=palette.quiet, alpha=0.18, lw=0)
            ours, colour = Estimate(**estimators["entrgi"][measure]), palette.method["entrgi"]
            axis.errorbar(
                of["w"]["mean"],
                ours.mean,
                yerr=[[ours.mean - ours.low], [ours.high - ours.mean]],
                fmt="o",
                color=colour,
                markerfacecolor=face or colour,
                capsize=2,
                label="EntRGi, at its mean weight" if face is None else None,
            )
        axis.set(title=f"{family}: {of['languages']} languages", xlabel="constant weight w")
        axis.grid(axis="y")
    axes[0].set(ylabel="cosine to the exact gradient")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


SHOWN = {
    "expectation": "expectation",
    "w = 0.5": "constant",
    "aps": "aps",
    "entrgi": "entrgi",
    "loo": "loo",
    "smc": "smc",
    "lookahead": "lookahead",
}
"""The methods of `frontier`, and whose colour each has."""


@drawing(
    "What a method reaches against what it gives up for it. Each line is one method, each "
    "point a setting of its dial, from the unguided sampler on. Left: up and to the left is "
    "better, and nothing can pass the curve of the least KL. Means over the languages, "
    "without error bars; the table below has the intervals.",
    "exact-distribution",
)
def frontier(palette: Palette) -> Figure:
    """Mean reward of each method against what it pays for it, a point for each place of its dial:
    on enumerable languages KL, beside the least KL and the curve of Best-of-K; on wide languages
    log-likelihood.
    """
    figure, axes = _panels(4.2, 3.4, height=3.6)
    found = records.read("exact-distribution")["rows"]
    for axis, (family, of) in zip(axes, found.items(), strict=True):
        for name, kind, colour, style in (
            ("tilted", "least KL for the reward", palette.ink, "-"),
            ("best_of", "Best-of-K, exact", palette.method["bon"], ":"),
        ):
            if name in of:
                line = [(p["kl"]["mean"], p["reward"]["mean"]) for p in of[name].values()]
                axis.plot(*zip(*line, strict=True), style, color=colour, lw=1.4, label=kind)
        for name, method in SHOWN.items():
            curve = of["curves"].get(name, {})
            points = [of["unguided"]] + [
                point for place, point in curve.items() if place.startswith(("M = 3,", "beta"))
            ]
            if curve:
                axis.plot(
                    [point["kl"]["mean"] for point in points],
                    [point["reward"]["mean"] for point in points],
                    color=palette.method.get(method, palette.quiet),
                    marker=toy_figures.MARKERS.get(method, "."),
                    markersize=4,
                    lw=1,
                    label=distribution.LABELS.get(name, name),
                )
        axis.set(title=f"{family}: {of['languages']} languages")
        axis.grid()
    axes[0].set(ylabel="mean reward (deviations of gold)", xlabel="KL from the language (nats)")
    axes[1].set(xlabel="log-likelihood given up (nats)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


@drawing(
    "Each method's reward less EntRGi's where both have given up one nat. Right of the "
    "dashed line a method is ahead of EntRGi. Bars: 95% bootstrap intervals over the "
    "languages in which both get that far.",
    "exact-distribution",
    "exact-infilling",
)
def ahead(palette: Palette) -> Figure:
    """Each method's reward less EntRGi's for the same price of 1 nat, with 95% intervals over the
    languages: enumerable ones, and wide ones between given words.
    """
    figure, axes = _panels(4.4, 3.0, height=3.0)
    found = {
        family: records.read(record)["rows"][family]
        for family, record in (
            ("enumerable", "exact-distribution"),
            ("infilling", "exact-infilling"),
        )
    }
    names = list(found["enumerable"]["at_matched_kl"]["1"]["reward"])
    for axis, (family, of) in zip(axes, found.items(), strict=True):
        for i, name in enumerate(names):
            row = of["at_matched_kl"]["1"]["reward"].get(name)
            if row is None:
                continue
            estimate = Estimate(**row["difference"])
            method = SHOWN.get(name, "constant" if name == "matched" else name)
            axis.errorbar(
                estimate.mean,
                -i,
                xerr=[[estimate.mean - estimate.low], [estimate.high - estimate.mean]],
                fmt=toy_figures.MARKERS.get(method, "."),
                color=palette.method.get(method, palette.quiet),
                capsize=2,
            )
        axis.axvline(0, color=palette.quiet, lw=1, ls="--")
        axis.set(title=f"{family}: {of['languages']} languages", xlabel="reward, less EntRGi's")
        axis.set(ylim=(0.5 - len(names), 0.5))
        axis.grid(axis="x")
        axis.set_yticks([-i for i in range(len(names))], [])
    axes[0].set_yticklabels([distribution.LABELS.get(name, name) for name in names])
    return figure


@drawing(
    "Each method's reward and gold score, less those of Best-of-N at equal compute. Right "
    "of the dashed line a method is ahead. Filled: the answer with the largest reward; "
    "hollow: the mean of all answers. Bars: Student's 95% intervals over the pairs of "
    "networks.",
    "rivals",
)
def rivals(palette: Palette) -> Figure:
    """Each method's reward and gold score less those of Best-of-N at equal compute, of the best
    answer and as a mean over all answers, with 95% intervals over the pairs of networks.
    """
    figure, axes = _panels(4.4, 3.2, height=3.2)
    found = records.read("rivals")["rows"]
    names = [name for name in found if name != AGAINST]
    for axis, title, measures in (
        (axes[0], "Reward (standard deviations)", ("top1", "average")),
        (axes[1], "Gold score (points)", ("gold_best", "gold_mean")),
    ):
        for i, name in enumerate(names):
            for measure, offset, hollow in zip(measures, (0.15, -0.15), (False, True), strict=True):
                estimate = Estimate(**found[name]["differences"][measure])
                axis.errorbar(
                    estimate.mean,
                    -i + offset,
                    xerr=[[estimate.mean - estimate.low], [estimate.high - estimate.mean]],
                    fmt=toy_figures.MARKERS[name],
                    color=palette.method[name],
                    markerfacecolor="none" if hollow else palette.method[name],
                    capsize=2,
                )
        axis.axvline(0, color=palette.quiet, lw=1, ls="--")
        axis.set(title=title, xlabel="less Best-of-N, equal compute")
        axis.set_yticks([-i for i in range(len(names))], [])
        axis.grid(axis="x")
    axes[0].set_yticklabels([LABELS[name] for name in names])
    figure.supxlabel("filled: the answer with the largest reward; hollow: mean of all", fontsize=9)
    return figure


@drawing(
    "Each claim as a difference that is positive if the claim is true. A dot is one "
    "language, a diamond the mean over the languages; it is green where the claim holds. "
    "Bars: Student's 95% intervals over the languages.",
    "claims",
)
def verdicts(palette: Palette) -> Figure:
    """Each claim as a difference that is positive if it is so: a dot for each language, and the
    mean over the languages with its 95% interval.
    """
    found = records.read("claims")["rows"]["claims"].values()
    figure = Figure(figsize=(8.0, 5.6), layout="constrained")
    units = list(dict.fromkeys(claim["unit"] for claim in found))
    of = {unit: [claim for claim in found if claim["unit"] == unit] for unit in units}
    axes = list(figure.subplots(len(units), 1, height_ratios=[len(of[unit]) for unit in units]))
    for axis, (unit, claims) in zip(axes, of.items(), strict=True):
        for i, claim in enumerate(claims):
            dots = [language["mean"] for language in claim["by_language"].values()]
            axis.plot(dots, [-i] * len(dots), "o", color=palette.quiet, alpha=0.8, markersize=4)
            mean = Estimate(**claim["mean"])
            axis.errorbar(
                mean.mean,
                -i,
                xerr=[[mean.mean - mean.low], [mean.high - mean.mean]],
                fmt="D",
                color=palette.mixed if claim["verdict"] == "holds" else palette.ink,
                capsize=3,
            )
        axis.axvline(0, color=palette.quiet, lw=1, ls="--")
        labels = [f"{textwrap.fill(claim['text'], 44)}\n({claim['verdict']})" for claim in claims]
        axis.set_yticks([-i for i in range(len(claims))], labels, fontsize=8)
        label = {"points": "gold score (points)"}.get(unit, unit)
        axis.set(xlabel=label, ylim=(0.6 - len(claims), 0.6))
        axis.grid(axis="x")
    return figure


@drawing(
    "The gold score of the best of EntRGi's answers, less that of Best-of-N at equal "
    "compute. A row is a setting, a column a ratio of costs. In brackets: in how many "
    "languages guidance is ahead. Bold: guidance succeeds by the rule written down "
    "beforehand. Means over the languages, without error bars; ≤: more plain answers were "
    "affordable than there were.",
    "claims",
)
def guidance_map(palette: Palette) -> Figure:
    """Gold of EntRGi less that of Best-of-N at equal compute: a row for each setting, a column for
    each cost of reading an answer by the reward model over a pass of the mask predictor. Bold where
    guidance is clearly ahead.
    """
    rows = records.read("claims")["rows"]
    places = rows["map"]
    ratios = sorted(
        places[0]["at_cost_ratio"], key=lambda r: float("inf") if r == "the toy's" else float(r)
    )
    gains = np.array([[p["at_cost_ratio"][r]["gain"]["mean"] for r in ratios] for p in places])
    most = float(np.abs(gains).max())
    figure, (axis,) = _panels(7.5, height=0.32 * len(places) + 1.1)
    axis.imshow(gains, cmap="PuOr_r", vmin=-most, vmax=most, aspect="auto")
    for i, place in enumerate(places):
        for j, ratio in enumerate(ratios):
            at = place["at_cost_ratio"][ratio]
            bound = "≤ " if at["pool_too_small"] else ""
            text = f"{bound}{gains[i, j]:+.2f} ({at['pays_in']})".replace("-", "−")
            dark = abs(gains[i, j]) > 0.6 * most
            axis.text(
                *(j, i, text),
                ha="center",
                va="center",
                fontsize=7,
                fontweight="bold" if pays(place, ratio) else "normal",
                color="#ffffff" if dark else toy_figures.INK,
            )
    names = [f"{p['size']}, M = {p['M']}, η = {p['step_size']:g}, T = {p['T']}" for p in places]
    axis.set_yticks(range(len(places)), names, fontsize=8)
    axis.set_xticks(range(len(ratios)), ratios)
    axis.set(xlabel="cost of the reward model over the mask predictor's, per sequence")
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    return figure


@drawing(
    "Three measures against the number of gradient steps M, for the best of each prompt's "
    "answers and for the share of valid answers. Dashed: no guidance. Means over {{ value "
    "dial prompts }} prompts and 3 seeds, for one trained pair of networks, without error "
    "bars; the [page of the dial](dial.md) has the intervals.",
    "dial",
)
def overoptimisation(palette: Palette) -> Figure:
    """Reward, gold score and share of valid answers against the number of gradient steps: the
    reward of EntRGi and APS keeps rising, that of Expectation falls in the end, and gold and
    validity fall for all.
    """
    figure, axes = _panels(3.1, 3.1, 3.1, height=3.1)
    rows = records.read("dial")["rows"]
    named = {0.0: "expectation", 1.0: "aps", "entropy": "entrgi"}
    for axis, measure, title in zip(
        axes,
        ("top1", "gold_best", "valid"),
        ("Reward of the best", "Gold of the best", "Valid answers"),
        strict=True,
    ):
        (none,) = [row for row in rows if row["M"] == 0]
        axis.axhline(
            none["measures"][measure]["mean"], color=palette.quiet, ls="--", lw=1, label="Best-of-N"
        )
        for w, method in named.items():
            line = [row for row in rows if row["w"] == w and row["M"]]
            axis.plot(
                [row["M"] for row in line],
                [row["measures"][measure]["mean"] for row in line],
                color=palette.method[method],
                marker=toy_figures.MARKERS[method],
                markersize=4,
                label=LABELS[method],
            )
        axis.set(title=title, xlabel="gradient steps M")
        _counted(axis.xaxis)
        axis.grid()
    axes[2].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


@drawing(
    "How time grows with one size at a time, both in multiples of the smallest. Red: "
    "measured. Dashed: a line of the expected slope. The times are of one machine and have "
    "no error bars.",
    "bench-wide",
)
def scaling(palette: Palette) -> Figure:
    """Six small plots of time against a size, both in multiples of the smallest. Measured points
    follow a line of the expected slope: steep for trajectories, vocabulary and steps, flat for the
    prompt.
    """
    lines = records.read("bench-wide")["scaling"]
    figure, axes = _panels(*[1.5] * len(lines), height=2.2)
    for axis, line in zip(axes, lines, strict=True):
        times = [value / line["values"][0] for value in line["values"]]
        axis.loglog(
            times, [factor ** line["expected"] for factor in times], color=palette.quiet, ls="--"
        )
        ratios = [seconds / line["seconds"][0] for seconds in line["seconds"]]
        axis.loglog(times, ratios, "o-", color=palette.hard)
        name = line["size"] if len(line["size"]) == 1 else "prompt"
        axis.set(title=name, ylim=(0.7, 6), xticks=times, yticks=[1, 2, 4])
        axis.set_xticklabels([f"×{round(factor)}" for factor in times])
        axis.set_yticklabels(["×1", "×2", "×4"] if axis is axes[0] else [])
        axis.minorticks_off()
        axis.grid()
    axes[0].set_ylabel("time")
    return figure


@drawing(
    "Which position sees which, for nine positions in three blocks. Filled: it is seen. A "
    "drawing, not data.",
)
def blocks(palette: Palette) -> Figure:
    """Two squares of which position sees which. With blocks of attention a position sees its own
    block and those before it, and later blocks stay empty. With blocks of sampling every position
    sees every other, and the blocks only say which blanks are filled first.
    """
    figure, axes = _panels(3.8, 3.8, height=3.9)
    size, blocks = 3, 3
    block = np.arange(size * blocks) // size
    places = [size * (i + 0.5) for i in range(blocks)]
    for axis, seen, colour, title, filled in (
        (
            axes[0],
            block[:, None] >= block[None, :],
            palette.hard,
            "Blocks of attention: refused",
            ("written first", "second", "third"),
        ),
        (
            axes[1],
            np.ones((size * blocks, size * blocks), dtype=bool),
            palette.mixed,
            "Blocks of sampling: an order",
            ("filled first", "second", "third"),
        ),
    ):
        for (row, column), yes in np.ndenumerate(seen):
            look: dict[str, Any] = {"fc": colour, "alpha": 0.65} if yes else {"ec": palette.quiet}
            look = {"fc": "none", "lw": 0 if yes else 0.6, **look}
            axis.add_patch(Rectangle((column + 0.08, row + 0.08), 0.84, 0.84, **look))
        for edge in range(size, size * blocks, size):
            axis.axvline(edge, color=palette.ink, lw=1)
            axis.axhline(edge, color=palette.ink, lw=1)
        axis.set(xlim=(0, size * blocks), ylim=(size * blocks, 0), aspect="equal", title=title)
        axis.set_xticks(places, [f"block {i + 1}\n{when}" for i, when in enumerate(filled)])
        axis.set_yticks(places, [f"block {i + 1}" for i in range(blocks)], rotation=90, va="center")
        axis.tick_params(length=0, labelsize=9)
        axis.spines[:].set_visible(False)
        axis.set_xlabel("what is seen", color=palette.quiet)
        axis.set_ylabel("who looks", color=palette.quiet)
    return figure


@drawing(
    "The toy's mask predictor at an answer with two blanks. Above: the words that are "
    "given. In the middle: the likeliest word that comes out at each position; grey ones "
    "are not read. Below: the answer as it is filled. One answer, so there are no error "
    "bars.",
    "shift",
)
def shift(palette: Palette) -> Figure:
    """A sentence of the toy's language with two blanks, the likeliest word that the network puts
    out at each position, and the sentence filled from it: from the output at the blanks themselves,
    and from the outputs one position before them, where each blank gets its neighbour's word.
    """
    step = records.read("shift")["step"]
    shown = 6
    figure, axes = _panels(4.9, 3.9, height=2.9)
    words, outputs = step["words"][:shown], step["own"][:shown]
    blank = [i for i, word in enumerate(words) if word == MASK]
    for axis, name, title, colour in (
        (axes[0], "own", "Read at its own position", palette.mixed),
        (axes[1], "one off", "Read one off", palette.hard),
    ):
        left = -2.1 if axis is axes[0] else -0.6  # room for what the rows are
        axis.set(xlim=(left, shown - 0.45), ylim=(-0.35, 3.3))
        axis.set_title(title, color=colour, fontweight="bold")
        axis.axis("off")
        back = 0 if name == "own" else 1
        taken = [i - back for i in blank]
        filled = [step[name][i] if i in blank else word for i, word in enumerate(words)]
        for i in range(shown):
            _word(axis, i, 3.0, "?" if i in blank else words[i], palette.ink)
            _word(axis, i, 1.5, outputs[i], palette.ink if i in taken else palette.quiet)
            _word(axis, i, 0, filled[i], colour if i in blank else palette.ink, bold=i in blank)
            for ends in ((2.5, 2.78), (1.72, 2.0)):
                axis.plot([i, i], ends, color=palette.quiet, lw=0.8)
        axis.fill_between([-0.5, shown - 0.5], 2.0, 2.5, color=palette.quiet, alpha=0.25, lw=0)
        axis.text(shown / 2 - 0.5, 2.25, "mask predictor", ha="center", va="center", fontsize=9)
        for i, source in zip(blank, taken, strict=True):
            axis.annotate(
                "",
                (i, 0.25),
                (source, 1.25),
                arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.8},
            )
    for y, text in ((3.0, "two blanks"), (1.5, "comes out"), (0, "is read")):
        axes[0].text(-0.65, y, text, ha="right", va="center", fontsize=9, color=palette.quiet)
    return figure


def _word(axis: Axes, x: float, y: float, word: str, colour: str, bold: bool = False) -> None:
    weight = "bold" if bold else "normal"
    axis.text(x, y, word, color=colour, ha="center", va="center", fontsize=9, fontweight=weight)


@drawing(
    "Above: the largest difference between our logits and recorded ones; the smaller, the "
    "better. In brackets: what an output predicts. Below: recorded answers and ours, token "
    "by token (Ġ is a space, single signs are bytes); the first wrong token is framed. "
    "Recordings of the families' own code, with random weights, from the tests' data; no "
    "error bars.",
)
def misread(palette: Palette) -> Figure:
    """Above: the largest difference of our logits to recorded ones, for six tiny checkpoints: some
    millionths as their family is declared, 5 to 7 with the other shift. Below: two recorded decodes
    and ours in both readings, token by token: the same, and another from the first token on.
    """
    found, decodes = recordings.readings(), recordings.decodes()
    figure = Figure(figsize=(8.2, 5.2), layout="constrained")
    top, *strips = figure.subplots(3, 1, height_ratios=(2.3, 1, 1))
    names = list(found)
    for measure, label, colour, marker in (
        ("right", "read as declared", palette.mixed, "o"),
        ("wrong", "read with the other shift", palette.hard, "X"),
    ):
        off = [getattr(found[name], measure) for name in names]
        at = range(0, -len(names), -1)
        top.plot(off, at, marker, color=colour, markersize=8, label=label)
    top.axvline(TOLERANCE, color=palette.quiet, ls="--", lw=1)
    top.text(TOLERANCE, 0.75, " what the tests allow", color=palette.quiet, fontsize=8)
    kind = {True: "the next position", False: "its own"}
    labels = [f"{name.removesuffix('-tiny')} ({kind[found[name].shifted]})" for name in names]
    top.set_yticks(range(0, -len(names), -1), labels)
    top.set(xscale="log", xlim=(1e-6, 30), ylim=(0.6 - len(names), 1.4))
    top.set_xlabel("largest difference to the recorded logits")
    top.grid(axis="x")
    top.legend(loc="center", bbox_to_anchor=(0.62, 0.45))
    for axis, (name, decode) in zip(strips, decodes.items(), strict=True):
        rows = {
            "recorded": decode.recorded,
            "ours, as declared": decode.right,
            "ours, other shift": decode.wrong,
        }
        for y, tokens in enumerate(rows.values()):
            for x, (token, expected) in enumerate(zip(tokens, decode.recorded, strict=True)):
                same = token == expected
                colour = palette.quiet if y == 0 else palette.mixed if same else palette.hard
                axis.add_patch(
                    Rectangle((x + 0.04, y + 0.08), 0.92, 0.84, fc=colour, alpha=0.22, lw=0)
                )
                axis.text(
                    *(x + 0.5, y + 0.5, token),
                    ha="center",
                    va="center",
                    fontsize=8,
                    parse_math=False,
                )
            wrong = [x for x, token in enumerate(tokens) if token != decode.recorded[x]]
            if wrong:
                axis.add_patch(
                    Rectangle((wrong[0] + 0.04, y + 0.08), 0.92, 0.84, fc="none", ec=palette.hard)
                )
        axis.set(xlim=(0, len(decode.recorded)), ylim=(3, 0), xticks=[])
        axis.set_yticks([0.5, 1.5, 2.5], list(rows), fontsize=8)
        axis.set_title(name.removesuffix("-tiny"), fontsize=9, loc="left")
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    return figure
