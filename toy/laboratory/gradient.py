"""`exact gradient`: what one gradient step has to work with, against the gradient that it is meant
to follow.

At each state, a board with some positions masked, the gradient of the expected reward is known by
enumeration, and so is what an estimator gives for each possible draw of hard tokens. So its mean
and its variance over draws are exact too: nothing here is sampled but the states.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from entrgi_ref import (
    entropy,
    entropy_weight,
    hard_embedding,
    interpolate,
    nucleus,
    soft_embedding,
    token_distribution,
)
from entrgi_ref.fast.gradient import logit_gradient
from entrgi_ref.relaxation import WeightFunction
from toy.statistics import bootstrap, over

from . import truth
from .languages import Enumerable, Language, NetworkReward, RewardKind, Wide
from .truth import Array

GRID = tuple(i / 8 for i in range(9))
"""Constant weights: 0 is Expectation, 1 is APS."""
BINS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Of a state's mean H / log V."""
KINDS = {
    "base": RewardKind(),
    "deep": RewardKind(layers=4),
    "small embeddings": RewardKind(embedding_std=0.14),
}
T = TypeVar("T")
SIZES = ((4, 4), (3, 5), (5, 4), (3, 6), (6, 3), (4, 5))
"""V and N of enumerable languages, which take turns."""
KIND: dict[str, Callable[[int, int, int], Language]] = {"enumerable": Enumerable, "wide": Wide}
WIDE = (4096, 8192)
"""V of wide ones."""
FIRST = 101
"""The seed whose turn is the first."""


def in_turn(kinds: Sequence[T], seed: int, first: int) -> T:
    """The kind of the language of this seed: the same in every run, so that runs with other first
    seeds may share a folder.
    """
    return kinds[(seed - first) % len(kinds)]


def entropy_over_nucleus(logits: Float[Tensor, "n V"], top_p: float) -> Float[Tensor, "n"]:
    """w = H / log of the number of words that can be drawn, at most 1; 0 where there is one."""
    words = (nucleus(logits.softmax(-1), top_p) > 0).sum(-1)
    return torch.where(words > 1, entropy(logits) / words.clamp_min(2).log(), 0).clamp(0, 1)


def power(logits: Float[Tensor, "n V"], exponent: float) -> Float[Tensor, "n"]:
    """A power of EntRGi's weight."""
    return entropy_weight(logits) ** exponent


@dataclass(frozen=True, eq=False)
class State:
    """A board, the logits at its masked positions, and the words that are possible there."""

    tokens: Int[Tensor, "N"]
    masked: Bool[Tensor, "N"]
    logits: Float[Tensor, "n V"]
    words: list[Int[Tensor, "words"]]

    @property
    def draws(self) -> Int[Tensor, "draws n"]:
        """Every combination of possible words."""
        return torch.cartesian_prod(*self.words).view(-1, len(self.words))

    def boards(self, draws: Int[Tensor, "draws n"]) -> Int[Tensor, "draws N"]:
        """The board with each combination written into it."""
        board = self.tokens.expand(len(draws), -1)
        return board.masked_scatter(self.masked.expand_as(board), draws)


@dataclass(frozen=True)
class Sizes:
    """How much is measured of a language, and at which settings."""

    states: int
    kinds: tuple[str, ...] = tuple(KINDS)
    most_draws: int = 729
    temperature: float = 0.7
    top_p: float = 0.95


def states(language: Language, sizes: Sizes, seed: int) -> Iterator[State]:
    """Boards whose draws can be counted: answers of the language with a random set of masks."""
    g = torch.Generator().manual_seed(seed)
    found = 0
    while found < sizes.states:
        tokens = language.sample(1, g)[0]
        most = int(torch.randint(1, language.N + 1, (), generator=g))
        masked = torch.rand(language.N, generator=g).argsort() < most
        q = language.conditionals(tokens[None], masked[None])[0, masked]
        words = [row.nonzero().flatten() for row in q]
        if math.prod(map(len, words)) <= sizes.most_draws:
            found += 1
            yield State(tokens, masked, q.log(), words)


def exact(state: State, reward: NetworkReward, sizes: Sizes) -> tuple[list[Array], Array]:
    """The gradient at the possible words of each position, and the reward of every answer."""
    rewards = reward.of(state.boards(state.draws)).numpy().reshape([len(w) for w in state.words])
    logits = [row[words].numpy() for row, words in zip(state.logits, state.words, strict=True)]
    return truth.gradient(logits, rewards, sizes.temperature), rewards


Moments = dict[str, float]
"""`bias`, `variance`: squares summed over logits; `along` the exact gradient; `mean`: the square of
the mean estimate.
"""


def _moments(each: Array, chance: Array, wanted: Array) -> Moments:
    """Of estimates [draws, logits] that are made with these chances."""
    mean = chance @ each
    return {
        "bias": float(((mean - wanted) ** 2).sum()),
        "variance": float(chance @ ((each - mean) ** 2).sum(1)),
        "along": float(mean @ wanted),
        "mean": float(mean @ mean),
    }


def relaxed(
    state: State, reward: NetworkReward, weight: WeightFunction, sizes: Sizes, wanted: Array
) -> Moments:
    """A weight function's gradient before Adam, over all draws from the nuclei."""
    n, E = len(state.words), reward.embeddings[: state.logits.shape[1]]
    q = token_distribution(state.logits, sizes.temperature)
    drawn = nucleus(q, sizes.top_p)
    draws = state.draws
    chance = drawn[torch.arange(n), draws].prod(1)
    draws, chance = draws[chance > 0], chance[chance > 0]
    D = len(draws)
    w, one = weight(state.logits).repeat(D), soft_embedding(q, E)
    soft = one.repeat(D, 1).requires_grad_()
    mixed = interpolate(soft, hard_embedding(draws.flatten(), E), w)
    step = reward.at(state.tokens.expand(D, -1), state.masked.expand(D, -1))
    slope = torch.autograd.grad(step(mixed, draws.flatten()).sum(), soft)[0].view(D, n, -1)
    each = [
        logit_gradient(
            q[i, words].repeat(D, 1),
            slope[:, i],
            one[i].expand(D, -1),
            E[words],
            sizes.temperature,
        )
        for i, words in enumerate(state.words)
    ]
    return _moments(torch.cat(each, 1).numpy(), chance.numpy(), wanted)


def score_function(state: State, rewards: Array, sizes: Sizes, wanted: Array) -> dict[str, Moments]:
    """REINFORCE: R times the gradient of the log-probability of the draw, from all of q, and the
    same with the mean of the others' rewards taken off (leave one out), for two draws.

    Both are unbiased. Two forward passes cost what one forward and one backward pass do.
    """
    q = token_distribution(state.logits, sizes.temperature)
    draws, R = state.draws, rewards.ravel()
    chance = q[torch.arange(len(state.words)), draws].prod(1).numpy()
    scores = []
    for i, words in enumerate(state.words):
        one_hot = (draws[:, i, None] == words).double()
        scores.append((one_hot - q[i, words]) / sizes.temperature)
    s = torch.cat(scores, 1).numpy()
    lengths = (s**2).sum(1)
    # Of (R_1 - R_2)(s_1 - s_2) / 2, with E[s] = 0; the square of its length, term by term.
    square = (
        (chance @ (R**2 * lengths) + (chance @ R**2) * (chance @ lengths)) / 2
        - (chance @ R) * (chance @ (R * lengths))
        + wanted @ wanted
    )
    exact_length = float(wanted @ wanted)
    two = {"bias": 0.0, "variance": float(square) - exact_length}
    return {
        "reinforce": _moments(R[:, None] * s, chance, wanted),
        "loo": {**two, "along": exact_length, "mean": exact_length},
    }


def words_asked(state: State, rewards: Array, sizes: Sizes, wanted: Array) -> Moments:
    """The reward of every word at a position is asked, with the other positions drawn from q."""
    q = token_distribution(state.logits, sizes.temperature)
    chance = np.ones(())
    for i, words in enumerate(state.words):
        chance = np.multiply.outer(chance, q[i, words].numpy())
    each = []
    for i, words in enumerate(state.words):
        p = q[i, words].numpy()
        given = np.moveaxis(rewards, i, -1)
        slope = p * (given - (given @ p)[..., None]) / sizes.temperature
        again = np.expand_dims(slope, i)  # the same, whatever is drawn here
        each.append(np.broadcast_to(again, (*rewards.shape, len(words))).reshape(-1, len(words)))
    return _moments(np.concatenate(each, 1), chance.ravel(), wanted)


def estimates(
    state: State, reward: NetworkReward, sizes: Sizes, matched: float
) -> dict[str, Moments]:
    """Every estimator's moments at a state."""
    gradient, rewards = exact(state, reward, sizes)
    wanted = np.concatenate(gradient)

    def constant(w: float) -> WeightFunction:
        return lambda logits: logits.new_full((len(logits),), w)

    weights: dict[str, WeightFunction] = {
        **{f"w = {w:g}": constant(w) for w in GRID},
        "entrgi": entropy_weight,
        "matched": constant(matched),
        "nucleus": partial(entropy_over_nucleus, top_p=sizes.top_p),
        "sqrt": partial(power, exponent=0.5),
        "square": partial(power, exponent=2.0),
    }
    found = {
        name: relaxed(state, reward, weight, sizes, wanted) for name, weight in weights.items()
    }
    for S in (4, 16):
        one = found["entrgi"]
        found[f"entrgi x {S}"] = {**one, "variance": one["variance"] / S}
    found |= score_function(state, rewards, sizes, wanted)
    found["words asked"] = words_asked(state, rewards, sizes, wanted)
    for moments in found.values():
        moments["exact"] = float(wanted @ wanted)
    return found


@dataclass(frozen=True)
class GradientDesign:
    """States of languages with up to three reward models each."""

    languages: tuple[tuple[str, int, int, int], ...]
    """Kind, seed, V, N."""
    sizes: Sizes
    settings: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        kinds = {name: asdict(KINDS[name]) for name in self.sizes.kinds}
        object.__setattr__(self, "settings", asdict(self.sizes) | {"rewards": kinds})

    @property
    def units(self) -> list[str]:
        return [f"{kind}-{seed}" for kind, seed, _, _ in self.languages]

    @property
    def seeds(self) -> list[int]:
        return [seed for _, seed, _, _ in self.languages]

    def measure(self, unit: str) -> Any:
        kind, seed, V, N = self.languages[self.units.index(unit)]
        language: Language = KIND[kind](seed, V, N)
        at = list(states(language, self.sizes, seed))
        weights = torch.cat([entropy_weight(state.logits) for state in at])
        matched = float(weights.mean())
        found: dict[str, Any] = {}
        for name in self.sizes.kinds:
            reward = NetworkReward.trained(language, KINDS[name], seed)
            sample = language.sample(4000, torch.Generator().manual_seed(seed + 1))
            both = torch.stack([reward.of(sample), language.gold(sample)])
            found[name] = {
                "correlation": float(torch.corrcoef(both)[0, 1]),
                "states": [estimates(state, reward, self.sizes, matched) for state in at],
            }
        means = [float(entropy_weight(state.logits).mean()) for state in at]
        return {"kind": kind, "V": V, "N": N, "matched": matched, "w": means, "rewards": found}

    def summary(self, results: Mapping[str, Any]) -> tuple[str, Any]:
        rows = summarise(list(results.values()), self.sizes.kinds)
        return markdown(rows), rows


def design(quick: bool, first_seed: int, units: int | None) -> GradientDesign:
    """The command's."""
    enumerable, wide = (3, 1) if quick else (12, 6)
    sizes = Sizes(8, kinds=("base",), most_draws=256) if quick else Sizes(24)
    enumerable, wide = (units or enumerable), (units or wide)
    seeds, more = range(first_seed, first_seed + enumerable), range(first_seed, first_seed + wide)
    languages = [
        *(("enumerable", seed, *in_turn(SIZES, seed, FIRST)) for seed in seeds),
        *(("wide", seed, in_turn(WIDE, seed, FIRST), 8) for seed in more),
    ]
    return GradientDesign(tuple(languages), sizes)


def pooled(moments: Sequence[Moments]) -> dict[str, float]:
    """Of many states together, as if their gradients were one long vector: in lengths of the exact
    gradient, and cosines to it of the mean of all draws and of one draw.
    """
    total = {name: math.fsum(m[name] for m in moments) for name in moments[0]}
    exact, error = total["exact"], total["bias"] + total["variance"]
    return {
        "bias": math.sqrt(total["bias"] / exact),
        "deviation": math.sqrt(total["variance"] / exact),
        "error": math.sqrt(error / exact),
        "cosine_of_mean": total["along"] / math.sqrt(total["mean"] * exact),
        "cosine_of_one": total["along"] / math.sqrt((total["mean"] + total["variance"]) * exact),
    }


def _interval(values: Sequence[float]) -> dict[str, float]:
    """For the record, which has no nan: see `over`."""
    found = vars(bootstrap(np.array(values)))
    ends = found if len(values) > 1 else dict.fromkeys(found, found["mean"])
    return {k: round(v, 6) for k, v in ends.items()}


def summarise(results: Sequence[Mapping[str, Any]], kinds: Sequence[str]) -> dict[str, Any]:
    """Per kind of language and reward: every estimator's measures with intervals over languages,
    the share of languages in which one draw of EntRGi has the larger cosine, and, over all states,
    the same by entropy.
    """
    found: dict[str, Any] = {}
    for family in dict.fromkeys(result["kind"] for result in results):
        some = [result for result in results if result["kind"] == family]
        found[family] = {
            "languages": len(some),
            "states": sum(len(result["w"]) for result in some),
            "w": _interval([result["matched"] for result in some]),
            "rewards": {kind: _of_kind(some, kind) for kind in kinds},
            "by_V": {
                str(V): _estimators([r for r in some if r["V"] == V], kinds[0])
                for V in sorted({result["V"] for result in some})
            },
            "by_entropy": _by_entropy(some, kinds[0]),
        }
    return found


def _of_kind(results: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Any]:
    return {
        "correlation": _interval([result["rewards"][kind]["correlation"] for result in results]),
        "estimators": _estimators(results, kind),
    }


def _estimators(results: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Any]:
    each: dict[str, list[dict[str, float]]] = {}
    for result in results:
        at = result["rewards"][kind]["states"]
        for name in at[0]:
            each.setdefault(name, []).append(pooled([state[name] for state in at]))
    ours = each["entrgi"]
    return {
        name: {
            **{measure: _interval([one[measure] for one in of]) for measure in of[0]},
            **{
                f"entrgi_ahead_{short}": sum(
                    mine[measure] > one[measure] for mine, one in zip(ours, of, strict=True)
                )
                for short, measure in (("mean", "cosine_of_mean"), ("one", "cosine_of_one"))
            },
        }
        for name, of in each.items()
    }


def _by_entropy(results: Sequence[Mapping[str, Any]], kind: str) -> list[dict[str, Any]]:
    found = []
    for low, high in itertools.pairwise(BINS):
        at = [
            (w, state)
            for result in results
            for w, state in zip(result["w"], result["rewards"][kind]["states"], strict=True)
            if low <= w < high or (w == high == 1)
        ]
        if not at or not sum(state["entrgi"]["exact"] for _, state in at):
            continue
        measures = {name: pooled([state[name] for _, state in at]) for name in at[0][1]}
        constants = {w: measures[f"w = {w:g}"] for w in GRID}
        found.append(
            {
                "from": low,
                "to": high,
                "states": len(at),
                "w": float(np.mean([w for w, _ in at])),
                "least_bias": min(GRID, key=lambda w: constants[w]["bias"]),
                "best_mean": max(GRID, key=lambda w: constants[w]["cosine_of_mean"]),
                "least_error": min(GRID, key=lambda w: constants[w]["error"]),
                "best_one": max(GRID, key=lambda w: constants[w]["cosine_of_one"]),
                "measures": measures,
            }
        )
    return found


LABELS = {
    "w = 0": "Expectation (w = 0)",
    "w = 1": "APS (w = 1)",
    "entrgi": "EntRGi (w = H / log V)",
    "matched": "constant: EntRGi's mean",
    "nucleus": "H / log of the nucleus",
    "sqrt": "square root of H / log V",
    "square": "square of H / log V",
    "entrgi x 4": "EntRGi, 4 draws averaged",
    "entrgi x 16": "EntRGi, 16 draws averaged",
    "reinforce": "REINFORCE",
    "loo": "REINFORCE, leave one out, 2 draws",
    "words asked": "every word asked",
}


def markdown(rows: Mapping[str, Any]) -> str:
    """A table for each kind of language, with the first kind of reward."""
    parts = []
    for family, found in rows.items():
        kind = next(iter(found["rewards"].values()))
        languages = found["languages"]
        size = f"{languages} languages, {found['states']} states"
        heads = ["Cosine, mean of draws", "Cosine, one draw", "Bias", "Deviation"]
        lines = [
            f"{family}: {size}, mean w {over(languages, found['w']).text(2)}",
            "",
            f"| Estimator | {' | '.join(heads)} | EntRGi ahead: mean, one |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        for name, of in kind["estimators"].items():
            measured = ("cosine_of_mean", "cosine_of_one", "bias", "deviation")
            cells = [over(languages, of[measure]).text(2) for measure in measured]
            ahead = f"{of['entrgi_ahead_mean']}, {of['entrgi_ahead_one']}"
            lines.append(f"| {LABELS.get(name, name)} | {' | '.join(cells)} | {ahead} |")
        lines += [
            "",
            "| H / log V | states | mean w | w of least bias | w of best cosine, mean | one draw |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        lines += [
            f"| {row['from']:g} to {row['to']:g} | {row['states']} | {row['w']:.2f} | "
            f"{row['least_bias']:g} | {row['best_mean']:g} | {row['best_one']:g} |"
            for row in found["by_entropy"]
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
