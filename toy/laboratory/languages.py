"""Languages by seed whose every probability is known, with a gold score and a reward model.

An enumerable language has few enough answers to count them all. A wide one has as many words as a
small tokeniser, of which few can follow each other, so that weights are as small as those of a
large language model. Both have exact conditionals in place of a trained mask predictor: what a
sampler gets wrong is then the sampler's. The reward model is trained on the language's own answers,
and imperfect.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from entrgi_ref import Prompts, prompt_key
from toy.models import plain_attention
from toy.networks import RewardModel, Size

PROMPT = "write"
"""These languages have one prompt, of no tokens."""


class Language(Protocol):
    """What the laboratory asks of a language of V words and answers of N words."""

    @property
    def V(self) -> int:  # noqa: N802
        """Words."""

    @property
    def N(self) -> int:  # noqa: N802
        """Length of an answer."""

    def sample(self, count: int, generator: torch.Generator) -> Int[Tensor, "count N"]:
        """Answers of the language."""

    def conditionals(
        self, tokens: Int[Tensor, "S N"], masked: Bool[Tensor, "S N"]
    ) -> Float[Tensor, "S N V"]:
        """The probability of each word at each masked position, given what is not masked."""

    def log_likelihood(self, answers: Int[Tensor, "S N"]) -> Float[Tensor, "S"]:
        """The log-probability of each answer, in nats."""

    def gold(self, answers: Int[Tensor, "S N"]) -> Float[Tensor, "S"]:
        """The gold score, with mean 0 and standard deviation 1 over the language."""

    def meaning(self, width: int) -> Float[Tensor, "V width"]:
        """What the embeddings of a reward model know of its words before it is trained, beside
        noise of standard deviation 1.
        """


def _generator(seed: int, purpose: int) -> torch.Generator:
    return torch.Generator().manual_seed(1_000 * seed + purpose)


@dataclass(frozen=True, eq=False)
class Enumerable:
    """A language of V^N answers, with preferences for single words and for pairs.

    log p is a sum of normal numbers: of standard deviation 1 for each word at each position, and
    0.8 for each pair of words at each pair of positions. The gold score has other such numbers, and
    one for each triple of neighbours.
    """

    seed: int
    V: int
    N: int

    @cached_property
    def answers(self) -> Int[Tensor, "answers N"]:
        """All of them, the last word varying fastest."""
        return torch.cartesian_prod(*[torch.arange(self.V)] * self.N)

    @cached_property
    def log_p(self) -> Float[Tensor, "answers"]:
        """Of every answer, in nats."""
        return self._table(_generator(self.seed, 0), 0.8, 0.0).log_softmax(0)

    @cached_property
    def _gold(self) -> Float[Tensor, "answers"]:
        raw = self._table(_generator(self.seed, 1), 0.8, 0.8)
        p = self.log_p.exp()
        mean = p @ raw
        return (raw - mean) / (p @ (raw - mean) ** 2).sqrt()

    def _table(self, g: torch.Generator, pairs: float, triples: float) -> Tensor:
        V, N = self.V, self.N
        x, total = self.answers, torch.zeros(V**N, dtype=torch.float64)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=g, dtype=torch.float64)

        for i in range(N):
            total += normal(V)[x[:, i]]
        for i, j in itertools.combinations(range(N), 2):
            total += pairs * normal(V, V)[x[:, i], x[:, j]]
        for i in range(N - 2):
            total += triples * normal(V, V, V)[x[:, i], x[:, i + 1], x[:, i + 2]]
        return total

    @cached_property
    def _totals(self) -> Float[Tensor, "..."]:
        """p, with a further entry along each axis: the sum over it, which is what a mask stands
        for.
        """
        totals = self.log_p.exp().view([self.V] * self.N)
        for axis in range(self.N):
            totals = torch.cat([totals, totals.sum(axis, keepdim=True)], axis)
        return totals.flatten()

    def index(self, answers: Int[Tensor, "S N"], base: int | None = None) -> Int[Tensor, "S"]:
        """The place of each answer among all."""
        powers = (base or self.V) ** torch.arange(self.N - 1, -1, -1)
        return (answers * powers).sum(1)

    def sample(self, count: int, generator: torch.Generator) -> Int[Tensor, "count N"]:
        return self.answers[self.log_p.exp().multinomial(count, True, generator=generator)]

    def conditionals(
        self, tokens: Int[Tensor, "S N"], masked: Bool[Tensor, "S N"]
    ) -> Float[Tensor, "S N V"]:
        board = tokens.masked_fill(masked, self.V)
        powers = (self.V + 1) ** torch.arange(self.N - 1, -1, -1)
        other = self.index(board, self.V + 1)[:, None] - board * powers
        with_word = other[:, :, None] + torch.arange(self.V) * powers[:, None]
        found = self._totals[with_word]
        return found / found.sum(-1, keepdim=True)

    def log_likelihood(self, answers: Int[Tensor, "S N"]) -> Float[Tensor, "S"]:
        return self.log_p[self.index(answers)]

    def gold(self, answers: Int[Tensor, "S N"]) -> Float[Tensor, "S"]:
        return self._gold[self.index(answers)]

    def meaning(self, width: int) -> Float[Tensor, "V width"]:
        return torch.zeros(self.V, width)


@dataclass(frozen=True, eq=False)
class Wide:
    """A Markov chain over V words, each of which may be followed by a few: `BRANCHES`.

    Zipf's law says who is a follower, and how likely. The gold score adds up points of words and of
    pairs of neighbours, by the classes of words.
    """

    seed: int
    V: int = 4096
    N: int = 8
    smoothing: float = 0.0
    """The chance that a word comes from all words, by their popularity, and not from the few."""
    BRANCHES = 16
    CLASSES = 16

    @cached_property
    def _popular(self) -> Float[Tensor, "V"]:
        chance = 1 / torch.arange(1, self.V + 1, dtype=torch.float64)
        shuffled = torch.randperm(self.V, generator=_generator(self.seed, 5))
        return chance[shuffled] / chance.sum()

    @cached_property
    def _followers(self) -> tuple[Tensor, Tensor]:
        g = _generator(self.seed, 0)
        words = torch.stack(
            [self._popular.multinomial(self.BRANCHES, generator=g) for _ in range(self.V)]
        )
        chance = 1 / torch.arange(1, self.BRANCHES + 1, dtype=torch.float64)
        sharpness = 1 + torch.rand(self.V, 1, generator=g, dtype=torch.float64)
        return words, (chance.log() * sharpness).softmax(1)

    @cached_property
    def _step(self) -> Tensor:
        """The chain's matrix, sparse: from word to word."""
        words, chance = self._followers
        rows = torch.arange(self.V).repeat_interleave(self.BRANCHES)
        index = torch.stack([rows, words.flatten()])
        return torch.sparse_coo_tensor(
            index, chance.flatten(), (self.V, self.V), check_invariants=True
        ).coalesce()

    @cached_property
    def _back(self) -> Tensor:
        return self._step.t().coalesce()

    @cached_property
    def _first(self) -> Float[Tensor, "V"]:
        """The first word: any follower of any word."""
        uniform = torch.full((self.V, 1), 1 / self.V, dtype=torch.float64)
        return torch.sparse.mm(self._back, uniform).squeeze(1)

    def sample(self, count: int, generator: torch.Generator) -> Int[Tensor, "count N"]:
        words, chance = self._followers
        answer = [self._first.multinomial(count, True, generator=generator)]
        for _ in range(self.N - 1):
            choice = chance[answer[-1]].multinomial(1, generator=generator)
            follower = words[answer[-1]].gather(1, choice).squeeze(1)
            anyone = self._popular.multinomial(count, True, generator=generator)
            stray = torch.rand(count, generator=generator) < self.smoothing
            answer.append(torch.where(stray, anyone, follower))
        return torch.stack(answer, 1)

    def _onward(self, message: Tensor) -> Tensor:
        """From the distribution of a word to that of the next."""
        few, anyone = torch.sparse.mm(self._back, message), message.sum(0)
        return (1 - self.smoothing) * few + self.smoothing * self._popular[:, None] * anyone

    def _backward(self, message: Tensor) -> Tensor:
        """From the likelihood of what follows a word to that of what follows the one before."""
        few, anyone = torch.sparse.mm(self._step, message), self._popular @ message
        return (1 - self.smoothing) * few + self.smoothing * anyone

    def conditionals(
        self, tokens: Int[Tensor, "S N"], masked: Bool[Tensor, "S N"]
    ) -> Float[Tensor, "S N V"]:
        """By messages from both sides. What cannot follow has probability 0; where what stands
        there already is impossible, every word has the same.
        """
        seen = torch.ones(self.N, self.V, len(tokens), dtype=torch.float64)
        for i in range(self.N):
            one = torch.zeros(self.V, len(tokens), dtype=torch.float64)
            one.scatter_(0, tokens[None, :, i].clamp_max(self.V - 1), 1.0)
            seen[i] = torch.where(masked[:, i], 1.0, one)
        ahead, behind = [self._first[:, None].expand(-1, len(tokens))], [torch.ones_like(seen[0])]
        for i in range(1, self.N):
            ahead.append(self._onward(_scaled(ahead[-1] * seen[i - 1])))
            behind.append(self._backward(_scaled(behind[-1] * seen[self.N - i])))
        both = torch.stack(ahead) * torch.stack(behind[::-1])
        total = both.sum(1, keepdim=True)
        found = torch.where(total > 0, both / total, 1 / self.V)
        return found.permute(2, 0, 1)

    def log_likelihood(self, answers: Int[Tensor, "S N"]) -> Float[Tensor, "S"]:
        """-inf for what cannot be said."""
        words, chance = self._followers
        total = self._first[answers[:, 0]].log()
        for before, after in itertools.pairwise(answers.unbind(1)):
            few = (chance[before] * (words[before] == after[:, None])).sum(1)
            anyone = self._popular[after]
            total = total + ((1 - self.smoothing) * few + self.smoothing * anyone).log()
        return total

    @cached_property
    def _points(self) -> tuple[Tensor, Tensor, Tensor]:
        g = _generator(self.seed, 1)
        of_word = torch.randint(self.CLASSES, (self.V,), generator=g)
        one = torch.randn(self.CLASSES, generator=g, dtype=torch.float64)
        two = torch.randn(self.CLASSES, self.CLASSES, generator=g, dtype=torch.float64)
        return of_word, one, two

    @cached_property
    def _scale(self) -> tuple[float, float]:
        raw = self._raw(self.sample(20_000, _generator(self.seed, 2)))
        return float(raw.mean()), float(raw.std())

    def _raw(self, answers: Tensor) -> Tensor:
        of_word, one, two = self._points
        kind = of_word[answers]
        return one[kind].sum(1) + two[kind[:, :-1], kind[:, 1:]].sum(1)

    def gold(self, answers: Int[Tensor, "S N"]) -> Float[Tensor, "S"]:
        mean, std = self._scale
        return (self._raw(answers) - mean) / std

    def meaning(self, width: int) -> Float[Tensor, "V width"]:
        """The class of a word: a reward model sees too few answers to learn each word's."""
        of_class = torch.randn(self.CLASSES, width, generator=_generator(self.seed, 4))
        return of_class[self._points[0]]


def _scaled(message: Tensor) -> Tensor:
    """Columns sum to 1, or are 0: a product of many small numbers stays within range."""
    return message / message.sum(0, keepdim=True).clamp_min(1e-300)


@dataclass(frozen=True, eq=False)
class ExactDenoiser:
    """The language's own conditionals as a `Denoiser`. The mask is a further id."""

    language: Language

    @property
    def mask_id(self) -> int:
        return self.language.V

    eos_id = None

    @property
    def writable(self) -> Bool[Tensor, "V"]:
        return torch.arange(self.language.V + 1) < self.language.V

    def encode(self, prompts: Sequence[str]) -> Prompts:
        nothing = torch.zeros(len(prompts), 0, dtype=torch.long)
        return Prompts(nothing, nothing > 0, tuple(map(prompt_key, prompts)))

    def __call__(
        self, tokens: Int[Tensor, "S L"], valid: Bool[Tensor, "S L"], masked: Bool[Tensor, "S N"]
    ) -> Float[Tensor, "n V"]:
        log_q = self.language.conditionals(tokens, masked)[masked].log()
        return nn.functional.pad(log_q, (0, 1), value=-torch.inf)

    def decode(self, response: Int[Tensor, "S N"]) -> list[str]:
        return [" ".join(map(str, row)) for row in response.tolist()]


def tokens_of(responses: Sequence[str]) -> Int[Tensor, "S N"]:
    """The ids of decoded answers."""
    return torch.tensor([[int(word) for word in response.split()] for response in responses])


@dataclass(frozen=True)
class RewardKind:
    """How a reward model is made."""

    layers: int = 2
    embedding_std: float = 1.0
    width: int = 16
    steps: int = 300
    batch: int = 128


@dataclass(frozen=True, eq=False)
class NetworkReward:
    """A trained reward model as a `Reward`, and as all that it is narrowed down to. It reads the
    answer alone.
    """

    network: RewardModel
    response: Int[Tensor, "S N"] | None = None
    masked: Bool[Tensor, "S N"] | None = None

    @classmethod
    def trained(cls, language: Language, kind: RewardKind, seed: int) -> NetworkReward:
        """By regression on the gold score of the language's own answers."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            size = Size(kind.width, kind.layers, heads=2)
            network = RewardModel(size, language.V + 1, language.N, kind.embedding_std)
            with torch.no_grad():
                network.embedding.weight[: language.V] += kind.embedding_std * language.meaning(
                    kind.width
                )
        g = _generator(seed, 3)
        answers = language.sample(kind.steps * kind.batch, g)
        gold = language.gold(answers).float()
        optimizer = torch.optim.AdamW(network.parameters(), 4e-3)
        rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, kind.steps, pct_start=0.1)
        with plain_attention():
            for batch, wanted in zip(
                answers.split(kind.batch), gold.split(kind.batch), strict=True
            ):
                optimizer.zero_grad()
                found = network(network.embedding(batch))
                nn.functional.mse_loss(found, wanted).backward()
                optimizer.step()
                rates.step()
        return cls(network.double().eval().requires_grad_(False))

    @property
    def embeddings(self) -> Float[Tensor, "V d"]:
        return self.network.embedding.weight

    def bind(self, prompts: Sequence[str], trajectories: int) -> NetworkReward:
        return self

    def at(self, response: Int[Tensor, "S N"], masked: Bool[Tensor, "S N"]) -> NetworkReward:
        return NetworkReward(self.network, response, masked)

    def __call__(
        self, mixed: Float[Tensor, "n d"], likeliest: Int[Tensor, "n"]
    ) -> Float[Tensor, "S"]:
        assert self.response is not None
        assert self.masked is not None
        embedded = self.network.embedding(self.response)
        with plain_attention():
            return self.network(embedded.masked_scatter(self.masked[..., None], mixed))

    @torch.no_grad()
    def of(self, answers: Int[Tensor, "S N"]) -> Float[Tensor, "S"]:
        """The rewards of finished answers."""
        with plain_attention():
            parts = [self.network(self.network.embedding(part)) for part in answers.split(4096)]
        return torch.cat(parts)

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Float[Tensor, "S"]:
        return self.of(tokens_of(responses))
