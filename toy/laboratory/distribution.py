"""`exact distribution`: what every sampler really draws, against what it should.

The least that a sampler can pay for a mean reward, in KL from the language, is known, and paid by
the tilted distribution p(x) exp(R(x) / beta) / Z alone. On an enumerable language what a sampler
pays is estimated from counts. On a wide one it cannot be; there the mean log-likelihood that it
gives up for its reward is compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from entrgi_ref import hard_embedding, nucleus, soft_embedding, token_distribution
from toy.statistics import Estimate, bootstrap, over, spearman

from . import gradient, truth
from .languages import Enumerable, NetworkReward, RewardKind, Wide
from .sampling import BETAS, OTHER_STEPS, PARTICLES, STEP_SIZES, Samplers
from .truth import Array

SIZES = ((4, 4), (3, 5), (5, 3), (6, 3), (3, 4), (4, 3))
"""V and N, which take turns: small enough for counts to say what a sampler's distribution is."""
FIRST = 201
"""The seed whose turn is the first."""
WIDE = (4096, 6)
SMOOTHING = 0.02
"""Two words that are written together may be an impossible pair: here such pairs are unlikely."""
GUIDED = ("expectation", "aps", "entrgi", "w = 0.5", "matched")
ALL = (*GUIDED, "damped", "fading", "loo", "lookahead", "smc")
WIDE_METHODS = (*GUIDED, "lookahead", "smc")
LEVELS = (0.5, 1.0, 1.5)
"""KL from the language at which methods are compared, in nats."""
BEST_OF = (2, 4, 8, 16, 32)
SEGMENT = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Sizes:
    """How much is drawn."""

    draws: int
    wide_draws: int
    methods: tuple[str, ...] = ALL
    wide_methods: tuple[str, ...] = WIDE_METHODS
    reward: RewardKind = field(default_factory=RewardKind)


@dataclass(frozen=True)
class DistributionDesign:
    """Samplers on languages with a reward model each."""

    enumerable: tuple[tuple[int, int, int], ...]
    """Seed, V, N."""
    wide: tuple[int, ...]
    """Seeds."""
    sizes: Sizes

    @property
    def settings(self) -> dict[str, Any]:
        dials = {
            "step_sizes": STEP_SIZES,
            "other_steps": OTHER_STEPS,
            "betas": BETAS,
            "particles": PARTICLES,
            "levels": LEVELS,
            "best_of": BEST_OF,
        }
        return asdict(self.sizes) | dials

    @property
    def units(self) -> list[str]:
        return [f"enumerable-{seed}" for seed, _, _ in self.enumerable] + [
            f"wide-{seed}" for seed in self.wide
        ]

    @property
    def seeds(self) -> list[int]:
        return [seed for seed, _, _ in self.enumerable] + list(self.wide)

    def measure(self, unit: str) -> Any:
        i = self.units.index(unit)
        if i < len(self.enumerable):
            return enumerable(Enumerable(*self.enumerable[i]), self.sizes)
        seed = self.wide[i - len(self.enumerable)]
        return wide(Wide(seed, *WIDE, SMOOTHING), self.sizes)

    def summary(self, results: Mapping[str, Any]) -> tuple[str, Any]:
        rows = summarise(list(results.values()))
        return markdown(rows), rows


def design(quick: bool, first_seed: int, units: int | None) -> DistributionDesign:
    """The command's."""
    number = units or (2 if quick else 30)
    seeds = range(first_seed, first_seed + number)
    wide = units or (1 if quick else 8)
    few = ("expectation", "aps", "entrgi", "w = 0.5", "lookahead", "smc")
    sizes = Sizes(512, 32, few, ("expectation", "aps", "entrgi")) if quick else Sizes(1024, 64)
    return DistributionDesign(
        tuple((seed, *gradient.in_turn(SIZES, seed, FIRST)) for seed in seeds),
        tuple(range(first_seed, first_seed + wide)),
        sizes,
    )


def enumerable(language: Enumerable, sizes: Sizes) -> dict[str, Any]:
    """One language: every sampler's answers counted."""
    reward = NetworkReward.trained(language, sizes.reward, language.seed)
    log_p, R = language.log_p.numpy(), reward.of(language.answers).numpy()
    gold = language.gold(language.answers).numpy()

    def point(drawn: Array) -> dict[str, float]:
        share = drawn / drawn.sum()
        mean, paid = float(share @ R), truth.estimated_divergence(drawn, log_p)
        closest = truth.of_mean(log_p, R, mean)
        fresh = np.random.default_rng(0).multinomial(int(drawn.sum()), closest)
        return {
            "kl": paid,
            "reward": mean,
            "gold": float(share @ gold),
            "excess": paid - truth.divergence(closest, log_p),
            "tv": truth.total_variation(share, closest),
            "tv_of_perfect": truth.total_variation(fresh / fresh.sum(), closest),
        }

    def counted(answers: Tensor) -> dict[str, float]:
        return point(truth.counts(language.index(answers).numpy(), len(R)))

    def law(q: Array) -> dict[str, float]:
        mean, paid = float(q @ R), truth.divergence(q, log_p)
        best = truth.divergence(truth.of_mean(log_p, R, mean), log_p)
        return {"kl": paid, "reward": mean, "gold": float(q @ gold), "excess": paid - best}

    samplers = Samplers(language, reward, sizes.draws, language.seed)
    return {
        "kind": "enumerable",
        "V": language.V,
        "N": language.N,
        "correlation": _correlation(language, reward),
        "unguided": counted(samplers.guided("expectation", 0, 0.5)),
        "floor": floor(language),
        "matched": samplers.mean_weight(),
        "curves": {
            name: {place: counted(draw()) for place, draw in curve.items()}
            for name, curve in samplers.curves(sizes.methods).items()
        },
        "best_of": {str(K): law(truth.best_of(log_p, R, K)) for K in BEST_OF},
        "tilted": {f"{beta:g}": law(truth.tilted(log_p, R, beta)) for beta in BETAS},
        "segment": segment(language, reward),
    }


def wide(language: Wide, sizes: Sizes) -> dict[str, Any]:
    """One wide language: reward against log-likelihood."""
    reward = NetworkReward.trained(language, sizes.reward, language.seed)
    sample = language.sample(20_000, torch.Generator().manual_seed(language.seed))
    typical = float(language.log_likelihood(sample).mean())

    def point(answers: Tensor) -> dict[str, float]:
        lost = typical - language.log_likelihood(answers)
        return {
            "kl": float(lost.mean()),
            "reward": float(reward.of(answers).mean()),
            "gold": float(language.gold(answers).mean()),
        }

    samplers = Samplers(language, reward, sizes.wide_draws, language.seed)
    return {
        "kind": "wide",
        "V": language.V,
        "N": language.N,
        "correlation": _correlation(language, reward),
        "unguided": point(samplers.guided("expectation", 0, 0.5)),
        "matched": samplers.mean_weight(),
        "curves": {
            name: {
                place: point(draw())
                for place, draw in curve.items()
                if place.startswith(("M = 3,", "beta"))
            }
            for name, curve in samplers.curves(sizes.wide_methods).items()
        },
        "segment": segment(replace(language, smoothing=0.0), reward),
    }


def _correlation(language: Enumerable | Wide, reward: NetworkReward) -> float:
    sample = language.sample(4000, torch.Generator().manual_seed(language.seed + 1))
    both = torch.stack([reward.of(sample), language.gold(sample)])
    return float(torch.corrcoef(both)[0, 1])


def floor(language: Enumerable) -> dict[str, float]:
    """KL from the language that schedule and order alone cost, unguided, by T / N: exact."""

    def conditionals(board: tuple[int, ...]) -> Array:
        tokens = torch.tensor([board])
        masked = tokens < 0
        return language.conditionals(tokens, masked)[masked].numpy()

    found = {}
    for factor in (0.5, 1, 2, 8):
        T = max(1, int(factor * language.N))
        law = truth.unguided_law(conditionals, language.V, language.N, truth.quotas(language.N, T))
        found[f"{factor:g}"] = truth.divergence(law, language.log_p.numpy())
    return found


def segment(language: Enumerable | Wide, reward: NetworkReward) -> dict[str, list[float]]:
    """The reward on the way from the soft point to hard ones, at the states of the gradient study.

    In standard deviations of the reward over q, its distance to the mean reward over q (0 if the
    reward model understands a soft point as the mixture that it stands for): its mean and the root
    of its mean square, at shares of the way.
    """
    sizes = gradient.Sizes(12, most_draws=256)
    off: list[Tensor] = []
    for state in gradient.states(language, sizes, language.seed):
        q = token_distribution(state.logits, sizes.temperature)
        draws, n = state.draws, len(state.words)
        chance = nucleus(q, sizes.top_p)[torch.arange(n), draws].prod(1)
        all_chance = q[torch.arange(n), draws].prod(1)
        rewards = reward.of(state.boards(draws))
        mean = all_chance @ rewards
        deviation = (all_chance @ (rewards - mean) ** 2).sqrt()
        if deviation < 1e-6:
            continue
        E = reward.embeddings[: language.V]
        soft = soft_embedding(q, E).repeat(len(draws), 1)
        hard = hard_embedding(draws.flatten(), E)
        step = reward.at(state.tokens.expand(len(draws), -1), state.masked.expand(len(draws), -1))
        at = [
            (step(soft + share * (hard - soft), draws.flatten()) - mean) / deviation
            for share in SEGMENT
        ]
        off.append(torch.stack([torch.stack([chance @ x, chance @ x**2]) for x in at]))
    moments = torch.stack(off).mean(0)
    return {"mean": moments[:, 0].tolist(), "rms": moments[:, 1].sqrt().tolist()}


def at_level(result: Mapping[str, Any], method: str, level: float, what: str) -> float | None:
    """What a method reaches at a KL from the language: between the places of its dial, M = 3.

    None if its dial does not reach so far.
    """
    curve = result["curves"][method]
    points = [result["unguided"]] + [
        point for place, point in curve.items() if place.startswith(("M = 3,", "beta"))
    ]
    points = sorted(points, key=lambda point: point["kl"])
    kl = [point["kl"] for point in points]
    if not kl[0] <= level <= kl[-1]:
        return None
    return float(np.interp(level, kl, [point[what] for point in points]))


def _interval(values: Sequence[float]) -> dict[str, float]:
    """For the record, which has no nan: see `over`."""
    found = vars(bootstrap(np.array(values)))
    ends = found if len(values) > 1 else dict.fromkeys(found, found["mean"])
    return {k: round(v, 6) for k, v in ends.items()}


def matched_kl(
    results: Sequence[Mapping[str, Any]], level: float, what: str, against: str = "entrgi"
) -> dict[str, Any]:
    """Each method's difference to another at a KL from the language, over the languages in which
    both dials reach it.
    """
    found = {}
    for method in results[0]["curves"]:
        if method == against:
            continue
        pairs = [
            (at_level(result, method, level, what), at_level(result, against, level, what))
            for result in results
        ]
        differences = [a - b for a, b in pairs if a is not None and b is not None]
        if differences:
            found[method] = {
                "difference": _interval(differences),
                "languages": len(differences),
                "ahead": sum(d > 0 for d in differences),
            }
    return found


def summarise(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Per kind of language, over its languages."""
    found: dict[str, Any] = {}
    for kind in dict.fromkeys(result["kind"] for result in results):
        some = [result for result in results if result["kind"] == kind]
        measured = [m for m in some[0]["unguided"] if m != "tv_of_perfect"]
        found[kind] = {
            "languages": len(some),
            "correlation": _interval([r["correlation"] for r in some]),
            "w": _interval([r["matched"] for r in some]),
            "unguided": {m: _interval([r["unguided"][m] for r in some]) for m in measured},
            "curves": {
                name: {
                    place: {m: _interval([r["curves"][name][place][m] for r in some]) for m in of}
                    for place, of in curve.items()
                }
                for name, curve in some[0]["curves"].items()
            },
            "at_matched_kl": {
                f"{level:g}": {what: matched_kl(some, level, what) for what in ("reward", "gold")}
                for level in LEVELS
            },
            "segment": {
                name: [_interval([r["segment"][name][i] for r in some]) for i in range(5)]
                for name in ("mean", "rms")
            },
            "by_language": [by_language(r) for r in some],
        }
        for name in ("floor", "best_of", "tilted"):
            if name in some[0]:
                found[kind][name] = {
                    key: _interval([r[name][key] for r in some])
                    if name == "floor"
                    else {m: _interval([r[name][key][m] for r in some]) for m in of}
                    for key, of in some[0][name].items()
                }
    return found


def by_language(result: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared from language to language: the reward at KL 1, and the segment."""
    at = {name: at_level(result, name, 1.0, "reward") for name in result["curves"]}
    rounded = {name: None if v is None else round(v, 6) for name, v in at.items()}
    return {
        "V": result["V"],
        "N": result["N"],
        "correlation": round(result["correlation"], 6),
        "matched": round(result["matched"], 6),
        "reward_at_1": rounded,
        "rms": [round(v, 6) for v in result["segment"]["rms"]],
    }


@dataclass(frozen=True)
class Answer:
    """Of a registered comparison: at 1 nat, is the first method ahead of the other?"""

    question: str
    family: str
    first: str
    other: str
    difference: Estimate
    """The first's reward less the other's."""
    ahead: int
    languages: int

    @property
    def is_ahead(self) -> bool:
        """The interval is above 0, and two thirds of the languages have the sign."""
        return self.difference.low > 0 and self.ahead >= 2 / 3 * self.languages


ENOUGH_RHO = 0.31
"""The one-sided 5% point of Spearman's correlation for 30 pairs."""
COMPARED = (
    ("a", "enumerable", "entrgi", "matched"),
    ("a", "wide", "entrgi", "matched"),
    ("b", "enumerable", "lookahead", "entrgi"),
    ("b", "enumerable", "loo", "entrgi"),
    ("b", "wide", "lookahead", "entrgi"),
    ("c", "enumerable", "fading", "entrgi"),
    ("c", "enumerable", "damped", "entrgi"),
    ("e", "wide", "entrgi", "expectation"),
    ("e", "wide", "entrgi", "aps"),
)
"""What docs/preregistered.md asks: question, languages, and two methods."""


def answers(
    rows: Mapping[str, Any], compared: Sequence[tuple[str, str, str, str]] = COMPARED
) -> list[Answer]:
    """The registered comparisons of methods that were run, from a record's rows."""
    found = []
    for question, family, first, other in compared:
        if family not in rows or not {first, other} <= set(rows[family]["curves"]):
            continue
        pairs = [language["reward_at_1"] for language in rows[family]["by_language"]]
        reached = [at for at in pairs if at[first] is not None and at[other] is not None]
        differences = np.array([at[first] - at[other] for at in reached])
        mean = bootstrap(differences) if reached else Estimate(*[float("nan")] * 3)
        ahead = int((differences > 0).sum())
        found.append(Answer(question, family, first, other, mean, ahead, len(reached)))
    return found


def unreliability(rows: Mapping[str, Any]) -> tuple[float, float, int]:
    """Question (d): over the enumerable languages the rank correlation of how far the reward is off
    at soft points with what EntRGi gains over Expectation at 1 nat; its p; how many languages.
    """
    misread, gain = [], []
    for language in rows["enumerable"]["by_language"]:
        at = language["reward_at_1"]
        if at.get("entrgi") is not None and at.get("expectation") is not None:
            misread.append(language["rms"][0])
            gain.append(at["entrgi"] - at["expectation"])
    rho, p = spearman(np.array(misread), np.array(gain))
    return rho, p, len(gain)


def answers_table(rows: Mapping[str, Any]) -> str:
    """The registered questions with their answers."""
    rho, p, languages = unreliability(rows)
    said = f"rank correlation {rho:+.2f}, p = {p:.2f}".replace("-", "−")
    last = (
        "| (d) | enumerable | EntRGi's gain over Expectation | larger if soft points are misread "
        f"| {said} | {languages} languages | {'yes' if rho > ENOUGH_RHO else 'no'} |"
    )
    return f"{comparisons_table(answers(rows))}\n{last}"


def comparisons_table(found: Sequence[Answer]) -> str:
    """Registered comparisons. Where no language reached 1 nat with both methods, none is made."""
    lines = ["| | Languages | Is | Ahead of | Reward at 1 nat, difference | Ahead in | Answer |"]
    lines += ["| --- | --- | --- | --- | ---: | ---: | --- |"]
    for of in found:
        difference = of.difference.text(3, sign=True) if of.languages else "none reached"
        answer = ("yes" if of.is_ahead else "no") if of.languages else "open"
        lines.append(
            f"| ({of.question}) | {of.family} | {LABELS[of.first]} | {LABELS[of.other]} | "
            f"{difference} | {of.ahead} of {of.languages} | {answer} |"
        )
    return "\n".join(lines)


LABELS = {
    "matched": "constant: EntRGi's mean",
    "loo": "REINFORCE, leave one out",
    "damped": "EntRGi, damped",
    "fading": "EntRGi, fading",
    "entrgi": "EntRGi",
    "aps": "APS",
    "expectation": "Expectation",
    "smc": f"SMC, {PARTICLES} particles",
    "lookahead": "Lookahead",
}


def matched_table(rows: Mapping[str, Any]) -> str:
    """The reward at matched KL, less EntRGi's."""
    parts = []
    for kind, found in rows.items():
        levels = list(found["at_matched_kl"])
        heads = " | ".join(f"at {level} nats (ahead in)" for level in levels)
        lines = [f"| {kind}, {found['languages']} languages | {heads} |"]
        lines += [f"| --- |{' ---: |' * len(levels)}"]
        for name in found["curves"]:
            if name == "entrgi":
                continue
            cells = []
            for level in levels:
                of = found["at_matched_kl"][level]["reward"].get(name)
                cells.append(
                    f"{over(of['languages'], of['difference']).text(2, sign=True)} "
                    f"({of['ahead']} of {of['languages']})"
                    if of
                    else "not reached"
                )
            lines.append(f"| {LABELS.get(name, name)} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def places_table(rows: Mapping[str, Any]) -> str:
    """What each method reaches and pays at each place of its dial."""
    parts = []
    for kind, found in rows.items():
        lines = [f"| {kind} | at | nats paid | reward | gold | KL above the least |"]
        lines += ["| --- | --- | ---: | ---: | ---: | ---: |"]
        for name, curve in found["curves"].items():
            for place, of in curve.items():
                cells = [
                    over(found["languages"], of[m]).text(2) if m in of else ""
                    for m in ("kl", "reward", "gold", "excess")
                ]
                lines.append(f"| {LABELS.get(name, name)} | {place} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def markdown(rows: Mapping[str, Any]) -> str:
    """What the command prints."""
    return "\n\n".join((answers_table(rows), matched_table(rows), places_table(rows)))
