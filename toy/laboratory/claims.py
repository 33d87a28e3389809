"""The paper's six claims, each judged on languages that the toy was not made for.

A unit is one template language with networks of its own. The gold score stands where the paper has
a judge. The comparisons are paired by prompt, and what is compared over languages are their means:
a claim is about methods, and a language with its networks is one example of where they are used.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
import typer

from entrgi_ref import DenoisingRecord, SamplingConfig, generate
from entrgi_ref.paper.declared.costs import Costs

from ..dial import Constant
from ..language import LENGTH
from ..networks import Size
from ..statistics import MOST, Estimate, Numbers, bootstrap, student
from .experiment import Json
from .pools import curve, worth
from .templates import (
    WORDS,
    FamilyDenoiserRecipe,
    FamilyRewardRecipe,
    Testbed,
    between,
    draw_language,
    evenly,
)

SIZES = ("small", "medium", "large")
MAIN = "medium"
GUIDED = ("expectation", "constant", "aps", "entrgi")
EMBEDDING_STD = (0.14, 1.0)
"""The bounds of the standard deviation that a language's reward models' embeddings start with."""
BAND = (1.0, 4.0)
"""Nats: the entropies of the paper's Figure 3."""
BIN = 0.5
"""Nats: the width of the bins over which the errors are counted."""


class Condition(NamedTuple):
    """A guided method with its settings."""

    method: str = "entrgi"
    size: str = MAIN
    M: int = 3
    step_size: float = 0.5
    T: int = LENGTH

    @property
    def key(self) -> str:
        """Its name in the results."""
        return f"{self.method}, {self.size}, M {self.M}, eta {self.step_size:g}, T {self.T}"

    @property
    def config(self) -> SamplingConfig:
        """The paper's settings but for these."""
        weight = Constant(0.5) if self.method == "constant" else self.method
        base = SamplingConfig(new_tokens=LENGTH, denoising_steps=self.T)
        return base.guided(weight=weight, steps=self.M, step_size=self.step_size)


@dataclass(frozen=True)
class Plan:
    """How much is measured of each language."""

    words: tuple[int, int] = WORDS
    prompts: int = 32
    pool: int = 128
    """Unguided answers to each prompt, at T = N."""
    short_pool: int = 64
    """Those at each smaller T."""
    gradient_steps: tuple[int, ...] = (1, 2, 3, 4, 6, 8)
    step_sizes: tuple[float, ...] = (0.2, 1.0)
    """Beside the paper's 0.5."""
    denoising_steps: tuple[int, ...] = (4, 8)
    """Beside T = N."""
    judged: int = 1000
    """Answers on which a reward model is compared with the gold score."""
    denoiser: tuple[Size, int] = (Size(64, 2), 1400)
    """Of the mask predictor: its size, and the training steps that `denoiser_steps` stretches."""
    rewards: Mapping[str, tuple[Size, int]] = field(
        default_factory=lambda: {
            "small": (Size(24, 2), 1200),
            "medium": (Size(40, 2), 1200),
            "large": (Size(64, 2), 1600),
        }
    )
    examples: int = 40_000

    def denoiser_steps(self, steps: int, words: int) -> int:
        """The mask predictor's training steps: it has to learn where each word may stand."""
        return round(steps * (1 + words / WORDS[1]))

    @property
    def conditions(self) -> list[Condition]:
        """What is run, each once."""
        found = [Condition(m, size) for size in SIZES for m in GUIDED]
        found += [Condition(size=size, M=M) for size in SIZES for M in self.gradient_steps]
        found += [Condition(step_size=step_size) for step_size in self.step_sizes]
        found += [Condition(T=T) for T in self.denoising_steps]
        return list(dict.fromkeys(found))


FULL = Plan()
QUICK = Plan(
    words=(75, 120),
    prompts=8,
    pool=24,
    short_pool=24,
    gradient_steps=(1, 3, 4, 8),
    step_sizes=(1.0,),
    denoising_steps=(8,),
    judged=200,
    denoiser=(Size(48, 2), 550),
    rewards={
        "small": (Size(12, 2), 200),
        "medium": (Size(24, 2), 200),
        "large": (Size(32, 2), 200),
    },
    examples=6_000,
)


def recipes_of(plan: Plan, seed: int) -> tuple[FamilyDenoiserRecipe, dict[str, FamilyRewardRecipe]]:
    """How the networks of a language are trained: by rule, nothing is tuned for a language."""
    words = len(draw_language(seed, plan.words).vocabulary)
    std = between(EMBEDDING_STD, evenly(seed, 1))
    size, steps = plan.denoiser
    denoiser = FamilyDenoiserRecipe(
        size,
        plan.denoiser_steps(steps, words),
        seed,
        learning_rate=6e-3,
        examples=plan.examples,
        words=plan.words,
    )
    rewards = {
        name: FamilyRewardRecipe(
            size,
            steps,
            seed,
            learning_rate=3e-3,
            examples=plan.examples,
            embedding_std=std,
            words=plan.words,
        )
        for name, (size, steps) in plan.rewards.items()
    }
    return denoiser, rewards


def measure(plan: Plan, seed: int) -> Json:
    """All that is kept of one language: scores of answers, prompt by prompt, and errors."""
    denoiser, rewards = recipes_of(plan, seed)
    start = time.perf_counter()
    testbed = Testbed.load(denoiser, rewards, _bar)
    trained = time.perf_counter()
    prompts = testbed.held_out_prompts(plan.prompts)
    result = {
        "language": facts(testbed, rewards[MAIN].embedding_std),
        "rewards": {size: quality(testbed, size, plan.judged) for size in SIZES},
        "costs": {size: asdict(testbed.costs(size)) for size in SIZES},
        "pools": {},
        "runs": {},
        "errors": {},
    }
    for T in (LENGTH, *plan.denoising_steps):
        K = plan.pool if T == LENGTH else plan.short_pool
        result["pools"][str(T)] = pool(testbed, prompts, K, T)
    for condition in _bar(plan.conditions, "guiding"):
        errors = ErrorsByPrompt(plan.prompts) if is_traced(condition) else None
        result["runs"][condition.key] = run(testbed, condition, prompts, errors)
        if errors is not None:
            result["errors"][condition.method] = errors.found()
    took = time.perf_counter()
    result["seconds"] = {"training": trained - start, "answers": took - trained}
    return result


def _bar(items: Iterable[Any], label: str) -> Iterator[Any]:
    with typer.progressbar(list(items), label=label) as bar:
        yield from bar


def is_traced(condition: Condition) -> bool:
    """Whether the errors of a run are kept: of the paper's two methods at its settings."""
    return condition in (Condition("aps"), Condition("entrgi"))


def facts(testbed: Testbed, embedding_std: float) -> Json:
    """What was drawn for a language, and the mean gold of its corpus at held-out prompts."""
    language = testbed.language
    corpus = language.corpus(random.Random(f"gold {language.seed}"), language.split[1], 500)
    return {
        "words": len(language.vocabulary),
        "topics": len(language.nouns),
        "order": language.order,
        "adjective_first": language.adjective_first,
        "adverb_place": language.adverb_place,
        "agreement": language.agreement,
        "points": language.points._asdict(),
        "habits": language.habits._asdict(),
        "embedding_std": embedding_std,
        "corpus_gold": float(np.mean([language.gold(p, a) for p, a in zip(*corpus, strict=True)])),
    }


def quality(testbed: Testbed, size: str, count: int) -> Json:
    """How well a reward model learnt: its correlation with gold at prompts that it never saw, on
    the corpus and on its training's mixture.
    """
    language, reward = testbed.language, testbed.rewards[size]
    found = {"embedding_norm": float(reward.embeddings.norm(dim=1).mean())}
    for name, draw in (("corpus", language.corpus), ("mixture", language.mixture)):
        prompts, answers = draw(random.Random(f"judged {language.seed}"), language.split[1], count)
        gold = [language.gold(p, a) for p, a in zip(prompts, answers, strict=True)]
        scores = reward.score(list(map(str, prompts)), [" ".join(answer) for answer in answers])
        found[name] = correlation(np.array(scores.tolist()), np.array(gold))
    return found


def correlation(x: Numbers, y: Numbers) -> float:
    """Pearson's correlation; nan if either does not vary."""
    if not x.std() or not y.std():
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def pool(testbed: Testbed, prompts: Sequence[str], K: int, T: int) -> Json:
    """K unguided answers to each prompt: their gold scores, and each reward model's scores."""
    found: dict[str, list[Any]] = {"gold": [], "valid": [], **{size: [] for size in SIZES}}
    config = replace(Condition(M=0, T=T).config, trajectories=K)
    for first in _bar(range(0, len(prompts), 4), f"{K} answers to each prompt"):
        some = prompts[first : first + 4]
        answers = generate(testbed.denoiser, testbed.rewards[MAIN], some, config).responses
        for prompt, responses in zip(some, answers, strict=True):
            found["gold"].append([testbed.gold_score(prompt, r) for r in responses])
            found["valid"].append(float(np.mean([testbed.valid(r) for r in responses])))
            for size in SIZES:
                scores = testbed.rewards[size].score([prompt] * K, responses)
                found[size].append([round(score, 5) for score in scores.tolist()])
    return found


def run(
    testbed: Testbed,
    condition: Condition,
    prompts: Sequence[str],
    observe: Callable[[DenoisingRecord], None] | None,
) -> Json:
    """The rewards and gold scores of K guided answers to each prompt."""
    start = time.perf_counter()
    reward = testbed.rewards[condition.size]
    generation = generate(testbed.denoiser, reward, prompts, condition.config, observe=observe)
    answers = list(zip(prompts, generation.responses, strict=True))
    return {
        "rewards": [[round(score, 5) for score in row] for row in generation.rewards.tolist()],
        "gold": [
            [testbed.gold_score(prompt, r) for r in responses] for prompt, responses in answers
        ],
        "valid": [
            float(np.mean([testbed.valid(r) for r in responses])) for _, responses in answers
        ],
        "seconds": round(time.perf_counter() - start, 2),
    }


class ErrorsByPrompt:
    """An observer that keeps the errors by denoising step, by entropy, and in `BAND`.

    E and D are in units of the reward model's embeddings; means are over masked positions,
    trajectories and gradient steps.
    """

    def __init__(self, prompts: int):
        self.prompts = prompts
        self.steps: list[Json] = []
        self.bins: dict[int, Numbers] = {}
        self.band = np.zeros((prompts, 4))

    def __call__(self, record: DenoisingRecord) -> None:
        trajectories = len(record.masked) // self.prompts
        prompt = record.masked.nonzero()[:, 0] // trajectories
        of = prompt.expand_as(record.E).flatten().numpy()
        H, E, D = (x.flatten().double().numpy() for x in (record.entropy, record.E, record.D))
        count = np.bincount(of, minlength=self.prompts)
        self.steps.append(
            {
                "step": record.step + 1,
                "E": (np.bincount(of, E, self.prompts) / count).round(5).tolist(),
                "entropy": round(float(H.mean()), 5),
            }
        )
        sums = np.stack([np.ones_like(E), E, D, D > E], 1)
        for i in np.unique(H // BIN).astype(int):
            here = sums[i == H // BIN].sum(0)
            self.bins[i] = self.bins.get(i, np.zeros(4)) + here
        inside = (BAND[0] <= H) & (BAND[1] >= H)
        np.add.at(self.band, of[inside], sums[inside])

    def found(self) -> Json:
        """For each step E by prompt and the mean entropy; by bin and by prompt within the band the
        number of observations, the sums of E and D, and how often D > E.
        """
        bins = {f"{i * BIN:g}": self.bins[i].round(4).tolist() for i in sorted(self.bins)}
        return {"steps": self.steps, "bins": bins, "band": self.band.round(4).tolist()}


class Found:
    """One language's result, as arrays: what the claims are made of."""

    def __init__(self, result: Json):
        self.result = result
        self.prompts = len(result["pools"][str(LENGTH)]["gold"])
        self._curves: dict[Any, Numbers] = {}

    def by_prompt(self, condition: Condition, measure: str = "gold_best") -> Numbers:
        """A measure of a guided run for each prompt: `gold_best` (of the answer with the largest
        reward), `gold_mean`, `top1` or `average`.
        """
        run = self.result["runs"][condition.key]
        rewards, gold = np.array(run["rewards"]), np.array(run["gold"])
        best = gold[np.arange(len(gold)), rewards.argmax(1)]
        return {
            "gold_best": best,
            "gold_mean": gold.mean(1),
            "top1": rewards.max(1),
            "average": rewards.mean(1),
        }[measure]

    def drawn(
        self, K: int, size: str = MAIN, measure: str = "gold_best", T: int = LENGTH
    ) -> Numbers:
        """The same measure of Best-of-K, expected over the pool's subsets of K answers."""
        pool = self.result["pools"][str(T)]
        values = pool["gold"] if measure.startswith("gold") else pool[size]
        if measure in ("gold_mean", "average"):
            return np.array(values).mean(1)
        return self.curves(size, measure, T)[:, K - 1]

    def curves(self, size: str, measure: str = "gold_best", T: int = LENGTH) -> Numbers:
        """`gold_best` or `top1` of Best-of-K: a row for each prompt, a column for each K."""
        if (size, measure, T) not in self._curves:
            pool = self.result["pools"][str(T)]
            values = pool["gold"] if measure == "gold_best" else pool[size]
            pairs = zip(pool[size], values, strict=True)
            self._curves[size, measure, T] = np.array(
                [curve(np.array(r), np.array(v)) for r, v in pairs]
            )
        return self._curves[size, measure, T]

    def costs(self, size: str) -> Costs:
        """What the networks cost per sequence."""
        return Costs(**self.result["costs"][size])

    def equal(self, condition: Condition, costs: Costs | None = None) -> tuple[int, bool]:
        """K of Best-of-K at a condition's compute, and whether the pool is too small for it: then K
        is the pool's, and Best-of-K has less compute than it is due.
        """
        K = at_equal_compute(condition, costs or self.costs(condition.size))
        answers = len(self.result["pools"][str(condition.T)]["gold"][0])
        return min(K, answers), answers < K

    def gain(self, condition: Condition, costs: Costs | None = None) -> Numbers:
        """The gold of a guided run's pick less that of Best-of-K at equal compute, by prompt."""
        K, _ = self.equal(condition, costs)
        return self.by_prompt(condition) - self.drawn(K, condition.size, T=condition.T)

    def quality(self, size: str) -> float:
        """The mean correlation of reward and gold among the answers to one prompt."""
        pool = self.result["pools"][str(LENGTH)]
        pairs = zip(pool[size], pool["gold"], strict=True)
        return float(np.nanmean([correlation(np.array(r), np.array(g)) for r, g in pairs]))

    def early_error(self, method: str) -> Numbers:
        """E over the first quarter of the denoising steps, by prompt."""
        steps = self.result["errors"][method]["steps"]
        return np.mean([step["E"] for step in steps if step["step"] <= LENGTH // 4], 0)

    def soft_part(self) -> Numbers:
        """(D - E) / (D + E) of EntRGi within `BAND`, by prompt: 1 for a soft embedding, -1 for a
        hard one. Prompts without such entropies are left out.
        """
        _, E, D, _ = np.array(self.result["errors"]["entrgi"]["band"]).T
        there = D + E > 0
        return (D - E)[there] / (D + E)[there]

    @property
    def covariates(self) -> dict[str, float]:
        """What a claim may depend on."""
        language = self.result["language"]
        return {
            "reward's quality": self.quality(MAIN),
            "words": float(language["words"]),
            "embedding norm": self.result["rewards"][MAIN]["embedding_norm"],
        }


@cache
def at_equal_compute(condition: Condition, costs: Costs) -> int:
    """The number of unguided answers that cost as much as K guided ones."""
    unguided = condition._replace(M=0).config
    return costs.equal_trajectories(condition.config, unguided)


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


def spearman(x: Numbers, y: Numbers, seed: int = 0) -> tuple[float, float]:
    """The rank correlation, and the share of 10,000 shufflings in which it is as far from 0.

    Nan and 1 if there are fewer than 4 pairs, or if either does not vary.
    """
    if len(x) < 4 or not np.ptp(x) or not np.ptp(y):
        return float("nan"), 1.0
    a, b = (_standardised(_ranks(values)) for values in (x, y))
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(np.tile(b, (10_000, 1)), axis=1) @ a
    rho = float(a @ b)
    return rho, float((1 + (np.abs(shuffled) >= abs(rho) - 1e-12).sum()) / 10_001)


def _ranks(values: Numbers) -> Numbers:
    """Ranks from 0; equal values share their mean rank."""
    below = (values[:, None] > values).sum(1)
    return below + ((values[:, None] == values).sum(1) - 1) / 2


def _standardised(values: Numbers) -> Numbers:
    centred = values - values.mean()
    return centred / np.linalg.norm(centred)


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
