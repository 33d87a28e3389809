"""The paper's six claims, each judged on languages that the toy was not made for.

A unit is one template language with networks of its own. The gold score stands where the paper has
a judge. The comparisons are paired by prompt, and what is compared over languages are their means:
a claim is about methods, and a language with its networks is one example of where they are used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from entrgi_ref.paper.declared.costs import Costs

from ..language import LENGTH
from ..statistics import MOST, Estimate, Numbers, bootstrap, spearman, student
from .experiment import Json
from .measured import FULL, GUIDED, QUICK, SIZES, Condition, Found, Plan, measure
from .pools import worth


def over_sizes(of: Callable[[str], Numbers]) -> Numbers:
    """The mean over the reward sizes, by prompt."""
    return np.mean([of(size) for size in SIZES], 0)


@dataclass(frozen=True)
class Claim:
    """Something that is said of the method, as a difference that is positive if it is so."""

    text: str
    source: str
    """Where the paper says so, or that it does not."""
    value: Callable[[Found], Numbers]
    """By prompt."""
    unit: str = "points"


ENTRGI = Condition()
CLAIMS = {
    "bon": Claim(
        "EntRGi is better than Best-of-N",
        "the paper's main claim",
        lambda f: f.by_prompt(ENTRGI) - f.drawn(4),
    ),
    "expectation": Claim(
        "EntRGi is better than Expectation",
        "the paper's main claim",
        lambda f: f.by_prompt(ENTRGI) - f.by_prompt(Condition("expectation")),
    ),
    "aps": Claim(
        "EntRGi is better than APS",
        "the paper's main claim",
        lambda f: f.by_prompt(ENTRGI) - f.by_prompt(Condition("aps")),
    ),
    "size": Claim(
        "a larger reward model helps: large less small",
        "the paper's Figure 4",
        lambda f: f.by_prompt(Condition(size="large")) - f.by_prompt(Condition(size="small")),
    ),
    "moderate": Claim(
        "more steps than one help: M = 3 less M = 1",
        "the paper's Figure 5",
        lambda f: over_sizes(
            lambda size: f.by_prompt(Condition(size=size)) - f.by_prompt(Condition(size=size, M=1))
        ),
    ),
    "collapse": Claim(
        "too many harm: M = 4 less M = 8",
        "the paper's Figure 5",
        lambda f: over_sizes(
            lambda size: (
                f.by_prompt(Condition(size=size, M=4)) - f.by_prompt(Condition(size=size, M=8))
            )
        ),
    ),
    "early": Claim(
        "EntRGi's early error is below that of APS, as a share of it",
        "the paper's Figure 2",
        lambda f: 1 - f.early_error("entrgi") / f.early_error("aps"),
        "share",
    ),
    "soft": Claim(
        "from 1 to 4 nats the soft part dominates: (D − E) / (D + E)",
        "the paper's Figure 3",
        Found.soft_part,
        "share",
    ),
    "equal": Claim(
        "EntRGi is better than Best-of-N at equal compute",
        "not in the paper",
        lambda f: f.gain(ENTRGI),
    ),
    "constant": Claim(
        "EntRGi is better than the constant w = 0.5",
        "not in the paper",
        lambda f: f.by_prompt(ENTRGI) - f.by_prompt(Condition("constant")),
    ),
}
ENOUGH = 0.8
"""The share of languages in which a claim has to have its sign."""


def judge(
    by_language: Mapping[str, Numbers], covariates: Mapping[str, Mapping[str, float]]
) -> Json:
    """What is said of a claim: its difference in each language and over languages, and a verdict.

    `holds` if Student's interval over the languages is above 0 and at least `ENOUGH` of them have
    the sign; `does not hold` if the interval is below 0. Else `depends on ...` if the difference
    goes with a covariate (Spearman's correlation, p < 0.05 divided by their number), `depends on
    the language` if at least two languages' own intervals over prompts are on either side of 0,
    and `not told apart` in what is left. Languages without a value are left out; `not measured` if
    that is all of them.
    """
    by_language = {unit: values for unit, values in by_language.items() if len(values)}
    if not by_language:
        return {"verdict": "not measured", "by_language": {}}
    own = {unit: bootstrap(values) for unit, values in by_language.items()}
    means = np.array([estimate.mean for estimate in own.values()])
    mean = student(means)
    share = float((means > 0).mean())
    above = sum(estimate.low > 0 for estimate in own.values())
    below = sum(estimate.high < 0 for estimate in own.values())
    goes_with = {}
    for name in next(iter(covariates.values())):
        rho, p = spearman(np.array([covariates[unit][name] for unit in by_language]), means)
        goes_with[name] = {"rho": rho, "p": p}
    related = [name for name, found in goes_with.items() if found["p"] < 0.05 / len(goes_with)]
    if mean.low > 0 and share >= ENOUGH:
        verdict = "holds"
    elif mean.high < 0:
        verdict = "does not hold"
    elif related:
        verdict = f"depends on {' and '.join(related)}"
    elif above >= 2 and below >= 2:
        verdict = "depends on the language"
    else:
        verdict = "not told apart"
    return {
        "verdict": verdict,
        "mean": vars(mean),
        "share": share,
        "above": above,
        "below": below,
        "by_language": {unit: vars(estimate) for unit, estimate in own.items()},
        "covariates": goes_with,
    }


RATIOS = (0.03, 0.1, 0.25, 0.5, 1.0, 2.0)
"""Assumed costs of reading a sequence by the reward model, over that by the mask predictor."""


def summarise(plan: Plan, found: Mapping[str, Found]) -> Json:
    """The record's rows: languages, claims, methods and the map."""
    covariates = {unit: f.covariates for unit, f in found.items()}
    claims = {}
    for name, claim in CLAIMS.items():
        judged = judge({unit: claim.value(f) for unit, f in found.items()}, covariates)
        claims[name] = {"text": claim.text, "source": claim.source, "unit": claim.unit, **judged}
    return {
        "languages": {unit: language_row(f) for unit, f in found.items()},
        "claims": claims,
        "methods": methods(found.values()),
        "steps": steps(plan, found.values()),
        "errors": errors(found.values()),
        "map": [
            place(condition, found.values())
            for condition in plan.conditions
            if condition.method == "entrgi"
        ],
        "by_quality": by_quality(found.values()),
    }


def estimate(values: Iterable[float]) -> Json:
    """The mean over languages with Student's interval."""
    return vars(student(np.array(list(values))))


def language_row(found: Found) -> Json:
    """What a language and its networks are like."""
    result = found.result
    pool = result["pools"][str(LENGTH)]
    return {
        **result["language"],
        "valid": float(np.mean(pool["valid"])),
        "gold": float(np.mean(pool["gold"])),
        "rewards": {
            size: {**result["rewards"][size], "quality": found.quality(size)} for size in SIZES
        },
        "seconds": result["seconds"],
    }


MEASURES = ("gold_best", "gold_mean", "top1", "average")


def methods(found: Iterable[Found]) -> Json:
    """Each method's measures less those of Best-of-4, for each reward size, at M = 3."""
    found = list(found)

    def value(f: Found, method: str, size: str, measure: str) -> Numbers:
        if method == "bon_equal_compute":
            return f.drawn(f.equal(Condition(size=size))[0], size, measure)
        return f.by_prompt(Condition(method, size), measure)

    return {
        f"{method}, {size}": {
            measure: estimate(
                float((value(f, method, size, measure) - f.drawn(4, size, measure)).mean())
                for f in found
            )
            for measure in MEASURES
        }
        for size in SIZES
        for method in (*GUIDED, "bon_equal_compute")
    }


def steps(plan: Plan, found: Iterable[Found]) -> Json:
    """Over M, mean over the reward sizes: the measures less those of M = 1, the gain over
    Best-of-N at equal compute, and in how many languages this M has the best gold.
    """
    found = list(found)

    def value(f: Found, M: int, measure: str) -> float:
        of = [f.by_prompt(Condition(size=size, M=M), measure) for size in SIZES]
        return float(np.mean(of))

    def gain(f: Found, M: int) -> float:
        return float(np.mean([f.gain(Condition(size=size, M=M)) for size in SIZES]))

    first, *_ = plan.gradient_steps
    golds = [[value(f, M, "gold_best") for M in plan.gradient_steps] for f in found]
    best = [plan.gradient_steps[int(np.argmax(gold))] for gold in golds]
    return {
        str(M): {
            **{
                measure: estimate(value(f, M, measure) - value(f, first, measure) for f in found)
                for measure in MEASURES
            },
            "against_equal_compute": estimate(gain(f, M) for f in found),
            "best_in": best.count(M),
        }
        for M in plan.gradient_steps
    }


def errors(found: Iterable[Found]) -> Json:
    """By method: E and entropy by denoising step, mean over languages; and for EntRGi, by entropy,
    how often D > E.
    """
    found = list(found)
    rows: dict[str, Json] = {}
    for method in ("aps", "entrgi"):
        of = [f.result["errors"][method]["steps"] for f in found]
        rows[method] = [
            {
                "step": steps[0]["step"],
                "E": float(np.mean([np.mean(step["E"]) for step in steps])),
                "entropy": float(np.mean([step["entropy"] for step in steps])),
            }
            for steps in zip(*of, strict=True)
        ]
    bins: dict[str, Numbers] = {}
    for f in found:
        for low, sums in f.result["errors"]["entrgi"]["bins"].items():
            bins[low] = bins.get(low, np.zeros(4)) + np.array(sums)
    rows["by_entropy"] = [
        {"nats": float(low), "count": int(n), "E": E / n, "D": D / n, "soft": soft / n}
        for low, (n, E, D, soft) in sorted(bins.items(), key=lambda item: float(item[0]))
    ]
    return rows


def place(condition: Condition, found: Iterable[Found]) -> Json:
    """A place of the map: what guidance gains there over drawing more, at the toy's costs and at
    assumed ones. `worth` is the number of draws whose best is as good, for each language: none if
    no number in the pool is enough.
    """
    found = list(found)
    T, size = condition.T, condition.size
    at: dict[str, Json] = {}
    for ratio in (None, *RATIOS):
        costs = None if ratio is None else Costs(denoiser=1.0, reward=ratio)
        K = [f.equal(condition, costs) for f in found]
        gains = [float(f.gain(condition, costs).mean()) for f in found]
        at["the toy's" if ratio is None else f"{ratio:g}"] = {
            "K": float(np.mean([k for k, _ in K])),
            "pool_too_small": sum(short for _, short in K),
            "gain": estimate(gains),
            "pays_in": sum(gain > 0 for gain in gains),
        }
    return {
        **condition._asdict(),
        "over_as_many": estimate(
            float((f.by_prompt(condition) - f.drawn(4, size, T=T)).mean()) for f in found
        ),
        "worth": [
            worth(f.curves(size, T=T).mean(0), float(f.by_prompt(condition).mean())) for f in found
        ],
        "at_cost_ratio": at,
    }


def pays(place: Json, ratio: str) -> bool:
    """Whether guidance succeeds at a place of the map, as docs/preregistered.md says it: the
    interval of its gain is above 0, and `ENOUGH` of the languages have the sign. Where a pool is
    too small for what Best-of-N is due, that is open.
    """
    at = place["at_cost_ratio"][ratio]
    ahead = at["gain"]["low"] > 0 and at["pays_in"] >= ENOUGH * len(place["worth"])
    return bool(ahead and not at["pool_too_small"])


def by_quality(found: Iterable[Found]) -> list[Json]:
    """The pairs of a language and a reward size at the paper's settings, in thirds by the reward
    model's quality: what EntRGi gains over as many answers and at equal compute.
    """
    pairs = sorted(
        ((f.quality(size), f, Condition(size=size)) for f in found for size in SIZES),
        key=lambda pair: pair[0],
    )
    rows = []
    for third in range(3):
        some = pairs[len(pairs) * third // 3 : len(pairs) * (third + 1) // 3]
        gains = [(f.by_prompt(c) - f.drawn(4, c.size)).mean() for _, f, c in some]
        equal = [f.gain(c).mean() for _, f, c in some]
        rows.append(
            {
                "quality": [some[0][0], some[-1][0]],
                "pairs": len(some),
                "over_as_many": float(np.mean(gains)),
                "at_equal_compute": float(np.mean(equal)),
                "pays_in": sum(float(gain) > 0 for gain in equal),
            }
        )
    return rows


def markdown(rows: Json) -> str:
    """What the command prints, and what the documentation shows of its record."""
    return "\n\n".join(
        (claims_table(rows), methods_table(rows), steps_table(rows), map_table(rows))
    )


def _text(found: Mapping[str, float], digits: int = 2) -> str:
    return Estimate(**found).text(digits, sign=True)


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *lines))


def claims_table(rows: Json) -> str:
    """Each claim, and what became of it."""
    lines = []
    for claim in rows["claims"].values():
        languages = len(claim["by_language"])
        if not languages:
            lines.append([claim["text"], *["—"] * 4, claim["verdict"]])
            continue
        goes_with = [
            f"{name} {found['rho']:+.2f}".replace("-", "−")
            for name, found in claim["covariates"].items()
            if not math.isnan(found["rho"])
        ]
        lines.append(
            [
                f"{claim['text']} ({claim['source']})",
                f"{_text(claim['mean'])} {claim['unit']}",
                f"{round(claim['share'] * languages)} of {languages}",
                f"{claim['above']}, {claim['below']}",
                ", ".join(goes_with) or "—",
                claim["verdict"],
            ]
        )
    return _table(
        [
            "Claim",
            "Difference",
            "Sign in",
            "Clearly above, below 0",
            "Rank correlation with",
            "Verdict",
        ],
        lines,
    )


NAMES = {
    "expectation": "Expectation",
    "constant": "w = 0.5",
    "aps": "APS",
    "entrgi": "EntRGi",
    "bon_equal_compute": "Best-of-N, equal compute",
}


def methods_table(rows: Json) -> str:
    """Each method against Best-of-4."""
    lines = []
    for name, measures in rows["methods"].items():
        method, size = name.split(", ")
        cells = [_text(measures[measure]) for measure in MEASURES]
        lines.append([f"{NAMES[method]}, {size}", *cells])
    heads = ["Less Best-of-4", "Gold of the best", "Gold, mean", "Top@1", "Avg@K"]
    return _table(heads, lines)


def steps_table(rows: Json) -> str:
    """What becomes of EntRGi as M grows."""
    lines = [
        [
            M,
            *(_text(row[m]) for m in ("gold_best", "gold_mean", "top1", "against_equal_compute")),
            str(row["best_in"]),
        ]
        for M, row in rows["steps"].items()
    ]
    first = next(iter(rows["steps"]))
    heads = ["Gold of the best", "Gold, mean", "Top@1"]
    heads = ["M", *(f"{head}, less M = {first}" for head in heads)]
    return _table([*heads, "Gold, less Best-of-N at equal compute", "Best M in"], lines)


def map_table(rows: Json) -> str:
    """Where guidance pays: its gold less that of Best-of-N at equal compute, over cost ratios."""
    languages = len(rows["languages"])
    ratios = list(rows["map"][0]["at_cost_ratio"])
    lines = []
    for row in rows["map"]:
        cells = []
        for ratio in ratios:
            at = row["at_cost_ratio"][ratio]
            gain = f"{at['gain']['mean']:+.2f}".replace("-", "−")
            bound = "≤ " if at["pool_too_small"] else ""
            cells.append(f"{bound}{gain} ({at['pays_in']} of {languages})")
        where = f"{row['size']}, M = {row['M']}, η = {row['step_size']:g}, T = {row['T']}"
        lines.append([where, _draws(row["worth"]), *cells])
    return _table(["Where", "Worth in draws", *(f"Cost ratio {r}" for r in ratios)], lines)


def _draws(worth: Sequence[int | None]) -> str:
    """The median; more than the pool counts as the largest."""
    ordered = sorted(math.inf if K is None else K for K in worth)
    middle = ordered[(len(ordered) - 1) // 2]
    return "more than the pool" if math.isinf(middle) else str(int(middle))


@dataclass(frozen=True)
class Design:
    """The experiment with its settings fixed."""

    plan: Plan
    first_seed: int
    count: int

    @property
    def seeds(self) -> Sequence[int]:
        return range(self.first_seed, self.first_seed + self.count)

    @property
    def units(self) -> Sequence[str]:
        return [f"language-{seed}" for seed in self.seeds]

    @property
    def settings(self) -> Mapping[str, Json]:
        """Not the seeds: they are the units' names, so two processes can share a folder."""
        return {**asdict(self.plan), "sampling": json.loads(Condition().config.to_json())}

    def measure(self, unit: str) -> Json:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # more of them only wait for each other: networks are too small
        try:
            return measure(self.plan, int(unit.removeprefix("language-")))
        finally:
            torch.set_num_threads(threads)

    def summary(self, results: Mapping[str, Json]) -> tuple[str, Json]:
        rows = summarise(self.plan, {unit: Found(result) for unit, result in results.items()})
        return markdown(rows), rows


def design(quick: bool, first_seed: int, units: int | None) -> Design:
    """The experiment `python -m toy claims`. `units` are languages, at most `MOST`."""
    count = units or (1 if quick else 12)
    if count > MOST:
        raise ValueError(f"units: got {count}, expected at most {MOST} languages")
    return Design(QUICK if quick else FULL, first_seed, count)
