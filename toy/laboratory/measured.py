"""What is measured of one template language with its networks: answers' scores, and errors."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import typer

from entrgi_ref import DenoisingRecord, SamplingConfig, generate
from entrgi_ref.paper.declared.costs import Costs

from ..dial import Constant
from ..language import LENGTH
from ..networks import Size
from ..statistics import Numbers
from .experiment import Json
from .pools import curve
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
