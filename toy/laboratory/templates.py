"""The template languages: a family of which each seed draws one, with networks of its own.

What a finding on the toy's one language is worth can only be seen on others. A language of the
family has 75 to 1,000 made-up words and the toy's kind of sentences: clauses of a determiner, a
noun, perhaps an adjective, a verb, another such phrase and perhaps an adverb. By seed are drawn the
lexicon and its size, the topics and styles, the order of the words, the rule by which determiners
agree, the careless habits of the corpus, and the points of the gold score.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from entrgi_ref import Prompts, checks, prompt_key
from entrgi_ref.paper.declared.costs import Costs

from ..language import EOS, LENGTH, MASK, Prompt
from ..models import PROMPT_LENGTH, _AtStep, plain_attention
from ..networks import MaskPredictor, RewardModel, Size
from ..testbed import count_parameters
from ..training import DenoiserRecipe, RewardRecipe, Track, cached, no_progress

WORDS = (75, 1000)
"""The smallest and the largest lexicon; sizes are drawn evenly in their logarithm."""
HELD_OUT = 48
"""Prompts that no network is trained on."""
VOWELS, CONSONANTS = "aeiou", "bdfgklmnprstvz"
PLAIN = "plain"
"""The style without adjectives of its own."""
ORDERS = ("SVO", "SOV", "VSO", "OVS")
ADVERB_PLACES = ("first", "after the verb", "last")
AGREEMENTS = {
    "first letter": lambda word: word[0] in VOWELS,
    "last letter": lambda word: word[-1] in VOWELS,
    "length": lambda word: len(word) % 2 == 1,
}
"""Whether a word asks for the second determiner, by what it looks like."""


class Points(NamedTuple):
    """What the gold score gives, in points; the first is the unit."""

    on_topic: float
    in_style: float
    out_of_style: float
    right_determiner: float
    wrong_determiner: float
    used_before: float
    may_not_follow: float


class Habits(NamedTuple):
    """How often the corpus does what, in [0, 1]."""

    on_topic: float
    adjective: float
    in_style: float
    neutral_determiner: float
    wrong_determiner: float
    adverb: float


@dataclass(frozen=True)
class Language:
    """A language of the family: its words, its grammar and its gold score."""

    seed: int
    nouns: Mapping[str, tuple[str, ...]]
    """By topic."""
    adjectives: Mapping[str, tuple[str, ...]]
    """By style; the last style is plain and has none."""
    verbs: tuple[str, ...]
    determiners: tuple[str, str, str]
    """Before a word that does not ask for the second, before one that does, before any."""
    adverbs: tuple[str, ...]
    conjunctions: tuple[str, ...]
    order: str
    """Of subject, verb and object."""
    adjective_first: bool
    adverb_place: str
    agreement: str
    habits: Habits
    points: Points

    @cached_property
    def categories(self) -> dict[str, tuple[str, ...]]:
        """The words of each category."""
        return {
            "DET": self.determiners,
            "ADJ": tuple(itertools.chain(*self.adjectives.values())),
            "NOUN": tuple(itertools.chain(*self.nouns.values())),
            "VERB": self.verbs,
            "ADV": self.adverbs,
            "CONJ": self.conjunctions,
            "EOS": (EOS,),
            "PROMPT": (*self.nouns, *self.adjectives),
            "MASK": (MASK,),
        }

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """All words, by id."""
        return tuple(itertools.chain(*self.categories.values()))

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each word."""
        return {word: id for id, word in enumerate(self.vocabulary)}

    @cached_property
    def category(self) -> dict[str, str]:
        """The category of each word."""
        return {word: name for name, words in self.categories.items() for word in words}

    @cached_property
    def kind(self) -> dict[str, str]:
        """The topic of each noun and the style of each adjective."""
        groups = [*self.nouns.items(), *self.adjectives.items()]
        return {word: name for name, words in groups for word in words}

    @cached_property
    def writable(self) -> Bool[Tensor, "V"]:
        """The ids that an answer may hold."""
        return torch.tensor([self.category[w] not in ("PROMPT", "MASK") for w in self.vocabulary])

    @cached_property
    def prompts(self) -> tuple[Prompt, ...]:
        """All prompts."""
        return tuple(Prompt(*c) for c in itertools.product(self.nouns, self.nouns, self.adjectives))

    @cached_property
    def split(self) -> tuple[list[Prompt], list[Prompt]]:
        """The prompts of the corpus, and those that no network is trained on."""
        shuffled = random.Random(f"prompts {self.seed}").sample(self.prompts, len(self.prompts))
        return shuffled[HELD_OUT:], shuffled[:HELD_OUT]

    def parse_prompt(self, text: str) -> Prompt:
        """The prompt that `text` names; `ValueError` if it names none."""
        words = text.split()
        if len(words) != 3 or tuple(words) not in set(self.prompts):
            raise ValueError(
                f"prompt: got {text!r}, expected two topics out of {', '.join(self.nouns)} and a "
                f"style out of {', '.join(self.adjectives)}"
            )
        return Prompt(*words)

    def clause(self, adjectives: Sequence[bool], adverb: bool) -> list[str]:
        """The categories of a clause, by whether it has either adjective and an adverb."""
        words, described = [], iter(adjectives)
        for part in self.order:
            if part == "V":
                words.append("VERB")
                if adverb and self.adverb_place == "after the verb":
                    words.append("ADV")
            elif not next(described):
                words += ["DET", "NOUN"]
            else:
                words += ["DET", "ADJ", "NOUN"] if self.adjective_first else ["DET", "NOUN", "ADJ"]
        if adverb and self.adverb_place != "after the verb":
            words.insert(0 if self.adverb_place == "first" else len(words), "ADV")
        return words

    @cached_property
    def followers(self) -> dict[str, set[str]]:
        """What may follow what, in terms of `tags`: the pairs that stand in some clause.

        As a tag counts the nouns of its clause, no more than the grammar is let through.
        """
        found: dict[str, set[str]] = {"EOS": {"EOS"}}
        for *adjectives, adverb in itertools.product((False, True), repeat=3):
            clause = tagged(self.clause(adjectives, adverb))
            for before, after in itertools.pairwise(["START", *clause, "CONJ", clause[0]]):
                found.setdefault(before, set()).add(after)
            found[clause[-1]].add("EOS")
        return found

    def tags(self, answer: Sequence[str]) -> list[str]:
        """The category of each word with the number of nouns that its clause has so far."""
        return tagged([self.category[word] for word in answer])

    def sample_answer(self, rng: random.Random, prompt: Prompt) -> list[str]:
        """An answer of the corpus: grammatical, careless, and `LENGTH` words long."""
        answer: list[str] = []
        for clause in range(rng.randint(1, 3)):
            described = [rng.random() < self.habits.adjective for _ in range(2)]
            categories = self.clause(described, rng.random() < self.habits.adverb)
            words = self._fill(rng, prompt, categories)
            if clause:
                words.insert(0, rng.choice(self.conjunctions))
            if len(answer) + len(words) < LENGTH:  # the last place is for an end of sequence
                answer += words
        return answer + [EOS] * (LENGTH - len(answer))

    def _fill(self, rng: random.Random, prompt: Prompt, categories: Sequence[str]) -> list[str]:
        topics = iter(self._topics(prompt))
        words = []
        for category in categories:
            some: Sequence[str] = self.categories[category]
            if category == "NOUN":
                topic = next(topics)
                some = self.nouns[topic] if rng.random() < self.habits.on_topic else some
            elif category == "ADJ" and rng.random() < self.habits.in_style:
                some = self.adjectives[prompt.style] or some
            words.append(rng.choice(some))
        for i, category in enumerate(categories):  # now that it is known what comes next
            if category == "DET":
                neutral = rng.random() < self.habits.neutral_determiner
                wrong = rng.random() < self.habits.wrong_determiner
                asks = self.asks_for_second(words[i + 1]) != wrong
                words[i] = self.determiners[2 if neutral else int(asks)]
        return words

    def _topics(self, prompt: Prompt) -> tuple[str, str]:
        """The topics of a clause's first and second noun."""
        subject_first = self.order.index("S") < self.order.index("O")
        return prompt[:2] if subject_first else (prompt.objects, prompt.subjects)

    def asks_for_second(self, word: str) -> bool:
        """Whether the second determiner, not the first, is right before a word."""
        return AGREEMENTS[self.agreement](word)

    def is_valid(self, answer: Sequence[str]) -> bool:
        """Whether the answer obeys the grammar and ends. Determiners may be wrong."""
        found = self.tags(answer)
        pairs = itertools.pairwise(["START", *found])
        return all(b in self.followers.get(a, ()) for a, b in pairs) and answer[-1] == EOS

    def explain_gold(self, prompt: Prompt, answer: Sequence[str]) -> list[tuple[int, float, str]]:
        """The gold score's parts: (position, points, reason), as `Points` names them."""
        parts: list[tuple[int, float, str]] = []
        found = self.tags(answer)
        topics = self._topics(prompt)
        used: set[str] = set()

        def give(reason: str) -> None:
            parts.append((position, getattr(self.points, reason), reason))

        for position, (word, tag) in enumerate(zip(answer, found, strict=True)):
            category = self.category[word]
            if tag not in self.followers.get(found[position - 1] if position else "START", ()):
                give("may_not_follow")
            if category == "NOUN" and self.kind[word] == topics[tag != "NOUN1"]:
                give("on_topic")
            if category == "ADJ" and prompt.style != PLAIN:
                give("in_style" if self.kind[word] == prompt.style else "out_of_style")
            if word in self.determiners[:2] and position + 1 < len(answer):
                after = answer[position + 1]
                if self.category[after] in ("ADJ", "NOUN"):
                    right = word == self.determiners[self.asks_for_second(after)]
                    give("right_determiner" if right else "wrong_determiner")
            if category in ("NOUN", "ADJ", "VERB"):
                if word in used:
                    give("used_before")
                used.add(word)
        return parts

    def gold(self, prompt: Prompt, answer: Sequence[str]) -> float:
        """The gold score of an answer, in points: the sum of `explain_gold`."""
        return sum(points for _, points, _ in self.explain_gold(prompt, answer))

    def words_of(self, response: str) -> list[str]:
        """The words of a decoded response, with the ends of sequence that `decode` left out."""
        words = response.split()
        return words + [EOS] * (LENGTH - len(words))

    def encode(self, sentences: Sequence[Sequence[str]]) -> Int[Tensor, "S N"]:
        """The ids of sentences of one length."""
        return torch.tensor([[self.ids[word] for word in sentence] for sentence in sentences])

    def encode_prompts(self, prompts: Sequence[str]) -> Int[Tensor, "P 3"]:
        """The ids of prompts, each three words."""
        return self.encode([self.parse_prompt(prompt) for prompt in prompts])

    def corpus(
        self, rng: random.Random, prompts: Sequence[Prompt], examples: int
    ) -> tuple[list[Prompt], list[list[str]]]:
        """Prompts out of `prompts`, and answers to them."""
        chosen = [rng.choice(prompts) for _ in range(examples)]
        return chosen, [self.sample_answer(rng, prompt) for prompt in chosen]

    def mixture(
        self, rng: random.Random, prompts: Sequence[Prompt], examples: int
    ) -> tuple[list[Prompt], list[list[str]]]:
        """What reward models are trained on: half corpus, a quarter answers to another prompt, a
        quarter answers with up to 30% random words.
        """
        words = [w for w, may in zip(self.vocabulary, self.writable.tolist(), strict=True) if may]
        chosen, answers = self.corpus(rng, prompts, examples)
        for i in range(examples):
            kind = rng.random()
            if kind < 0.25:
                chosen[i] = rng.choice(prompts)
            elif kind < 0.5:
                rate = rng.uniform(0, 0.3)
                answers[i] = [rng.choice(words) if rng.random() < rate else w for w in answers[i]]
        return chosen, answers


def tagged(categories: Sequence[str]) -> list[str]:
    """Each category with the number of nouns so far in its clause; see `Language.tags`."""
    found, nouns = [], 0
    for category in categories:
        nouns = 0 if category == "CONJ" else nouns + (category == "NOUN")
        found.append(category if category in ("CONJ", "EOS") else f"{category}{min(nouns, 3)}")
    return found


def draw_language(seed: int, words: tuple[int, int] = WORDS) -> Language:
    """The language of a seed. `words` are the bounds of its lexicon, ends and masks included."""
    rng = random.Random(f"template language {seed}")
    size = round(between(words, evenly(seed, 0)))
    topics, styles = rng.randint(6, 9), rng.randint(3, 5)
    small = {"DET": 3, "ADV": 3, "CONJ": 2}
    content = size - sum(small.values()) - topics - styles - len((PLAIN, EOS, MASK))
    adjectives, verbs = round(0.22 * content), round(0.18 * content)
    spell = _speller(rng)
    names = [spell() for _ in range(topics + styles)]
    return Language(
        seed=seed,
        nouns=_grouped(names[:topics], [spell() for _ in range(content - adjectives - verbs)]),
        adjectives=_grouped(names[topics:], [spell() for _ in range(adjectives)]) | {PLAIN: ()},
        verbs=tuple(spell() for _ in range(verbs)),
        determiners=(spell(), spell(), spell()),
        adverbs=tuple(spell() for _ in range(small["ADV"])),
        conjunctions=tuple(spell() for _ in range(small["CONJ"])),
        order=rng.choice(ORDERS),
        adjective_first=rng.random() < 0.5,
        adverb_place=rng.choice(ADVERB_PLACES),
        agreement=rng.choice(list(AGREEMENTS)),
        habits=Habits(
            on_topic=rng.uniform(0.4, 0.6),
            adjective=rng.uniform(0.4, 0.6),
            in_style=rng.uniform(0.4, 0.6),
            neutral_determiner=rng.uniform(0.3, 0.5),
            wrong_determiner=rng.uniform(0.1, 0.2),
            adverb=rng.uniform(0.2, 0.4),
        ),
        points=Points(
            on_topic=1.0,
            in_style=rng.uniform(0.25, 0.75),
            out_of_style=-rng.uniform(0.25, 0.75),
            right_determiner=rng.uniform(0.1, 0.4),
            wrong_determiner=-rng.uniform(0.25, 0.75),
            used_before=-rng.uniform(1.0, 2.0),
            may_not_follow=-rng.uniform(0.75, 1.25),
        ),
    )


def evenly(seed: int, dimension: int) -> float:
    """A number in [0, 1), evenly spread over consecutive seeds: few languages have to show what
    depends on them. The two dimensions hardly go together. Source: Weyl's sequences of the golden
    and the bronze mean.
    """
    step = (math.sqrt(5) - 1, math.sqrt(13) - 3)[dimension] / 2
    return (0.5 + seed * step) % 1


def between(bounds: tuple[float, float], share: float) -> float:
    """The number that lies at a share of the way between two, in the logarithm."""
    return float(bounds[0] * (bounds[1] / bounds[0]) ** share)


def _speller(rng: random.Random) -> Callable[[], str]:
    """A function that makes a new word up at each call: one to three syllables."""
    known = {PLAIN}

    def spell() -> str:
        while True:
            word = rng.choice(("", rng.choice(VOWELS)))
            for _ in range(rng.randint(1, 3)):
                word += rng.choice(CONSONANTS) + rng.choice(VOWELS)
            word += rng.choice(("", rng.choice(CONSONANTS)))
            if word not in known:
                known.add(word)
                return word

    return spell


def _grouped(names: Sequence[str], words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The words shared out among the names, as evenly as can be."""
    return {name: tuple(words[i :: len(names)]) for i, name in enumerate(names)}


CODE = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
"""Of this file: networks in the cache are of the code that made them."""


@dataclass(frozen=True)
class FamilyDenoiserRecipe(DenoiserRecipe):
    """A `MaskPredictor` of a template language."""

    words: tuple[int, int] = WORDS
    code: str = CODE

    def build(self) -> nn.Module:
        language = draw_language(self.seed, self.words)
        return MaskPredictor(self.size, len(language.vocabulary), PROMPT_LENGTH + LENGTH)

    def data(self, rng: random.Random) -> tuple[Tensor, Tensor]:
        language = draw_language(self.seed, self.words)
        prompts, answers = language.corpus(rng, language.split[0], self.examples)
        tokens = torch.cat([language.encode(prompts), language.encode(answers)], 1)
        # the mask's id, which `loss` needs, is the last one of every language
        return tokens, torch.full((self.examples,), len(language.vocabulary) - 1)

    def loss(
        self, network: nn.Module, tokens: Tensor, mask: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Cross-entropy at the masked positions of the answer, in nats per token."""
        rate = torch.rand(len(tokens), 1, generator=generator).clamp(min=1 / LENGTH)
        masked = torch.rand(len(tokens), LENGTH, generator=generator) < rate
        masked = F.pad(masked, (PROMPT_LENGTH, 0), value=False)
        visible = torch.where(masked, mask[:, None], tokens)
        return F.cross_entropy(network(visible, masked), tokens[masked])


def word_vectors(
    seed: int, words: tuple[int, int], width: int, examples: int
) -> Float[Tensor, "V d"]:
    """Vectors of a language's words, alike if the words keep the same company. Of standard
    deviation 1; what is left of the width is 0.

    The leading singular vectors of the positive mutual information with the words of the prompt, by
    place, and with the commonest words on the left and on the right, counted in `examples`
    sentences of the corpus: what a pretrained model's embeddings know of a language, cheaply.
    """
    U, S = _company(seed, words, examples)
    vectors = F.pad(U[:, :width] * S[:width].sqrt(), (0, max(0, width - U.shape[1])))
    return vectors / vectors.std()


@lru_cache(maxsize=1)
def _company(seed: int, words: tuple[int, int], examples: int) -> tuple[Tensor, Tensor]:
    language = draw_language(seed, words)
    rng = random.Random(f"vectors {seed}")
    prompts, answers = language.corpus(rng, language.split[0], examples)
    tokens = torch.cat([language.encode(prompts), language.encode(answers)], 1)
    V = len(language.vocabulary)
    places = tokens[:, :PROMPT_LENGTH] + V * torch.arange(PROMPT_LENGTH)
    common = tokens[:, PROMPT_LENGTH:].flatten().bincount(minlength=V).topk(COMMON_WORDS).indices
    before, after = tokens[:, PROMPT_LENGTH:-1], tokens[:, PROMPT_LENGTH + 1 :]
    table = torch.cat(
        [
            _information(tokens[:, :, None], places[:, None, :], (V, V * PROMPT_LENGTH)),
            _information(after, before, (V, V))[:, common],
            _information(before, after, (V, V))[:, common],
        ],
        1,
    )
    table = table[:, table.any(0)]
    U, S, _ = torch.linalg.svd(table - table.mean(0), full_matrices=False)
    return U, S


def _information(
    words: Int[Tensor, "..."], company: Int[Tensor, "..."], shape: tuple[int, int]
) -> Float[Tensor, "V C"]:
    """The positive part of log p(word, company) / (p(word) p(company)), counted."""
    pairs = (words * shape[1] + company).flatten()
    counts = pairs.bincount(minlength=shape[0] * shape[1]).view(shape).float()
    chance = counts.sum(1, keepdim=True) * counts.sum(0) / counts.sum()
    return (counts / chance.clamp(min=1e-9)).clamp(min=1).log()


VECTOR_EXAMPLES = 20_000
"""Sentences from which `word_vectors` are counted, if a recipe has as many."""
COMMON_WORDS = 20
VECTOR_NOISE = 0.3
"""The standard deviation of what tells words of the same company apart, over that of the rest."""


class TaughtRewardModel(RewardModel):
    """A reward model that is easier to teach: without help, models of this size do not learn within
    minutes to compare a noun with the prompt's topics.

    Queries begin as the keys, so that words first look at words like them. A second head, which
    only training uses, says how many points each position gives.
    """

    def __init__(self, size: Size, vocabulary: int, length: int, embedding_std: float):
        super().__init__(size, vocabulary, length, embedding_std)
        self.parts = nn.Linear(size.width, 1)
        with torch.no_grad():
            for layer in self.transformer.layers.layers:
                projection = layer.self_attn.in_proj_weight  # queries, keys, values
                projection[: 2 * size.width] *= 1.5
                projection[: size.width] = projection[size.width : 2 * size.width]


@dataclass(frozen=True)
class FamilyRewardRecipe(RewardRecipe):
    """A `TaughtRewardModel` of a template language: trained on the gold score of finished answers
    and on its parts, from `word_vectors` in a random basis.
    """

    words: tuple[int, int] = WORDS
    code: str = CODE

    def build(self) -> nn.Module:
        language = draw_language(self.seed, self.words)
        network = TaughtRewardModel(
            self.size, len(language.vocabulary), PROMPT_LENGTH + LENGTH + 1, self.embedding_std
        )
        basis = torch.linalg.qr(torch.randn(self.size.width, self.size.width))[0]
        examples = min(VECTOR_EXAMPLES, self.examples)
        vectors = word_vectors(self.seed, self.words, self.size.width, examples) @ basis
        vectors += VECTOR_NOISE * torch.randn(vectors.shape)
        network.embedding.weight.data.copy_(vectors / vectors.std() * self.embedding_std)
        return network

    def data(self, rng: random.Random) -> tuple[Tensor, Tensor]:
        """Tokens; and for each its points and, last, the gold score less its mean, both over the
        gold score's standard deviation.
        """
        language = draw_language(self.seed, self.words)
        prompts, answers = language.mixture(rng, language.split[0], self.examples)
        tokens = reward_tokens(language, language.encode(prompts), language.encode(answers))
        points = torch.zeros(tokens.shape)
        for row, example in enumerate(zip(prompts, answers, strict=True)):
            for position, given, reason in language.explain_gold(*example):
                seen = position + reason.endswith("determiner")  # by the word after it
                points[row, PROMPT_LENGTH + seen] += given
        gold = points.sum(1, keepdim=True)
        return tokens, torch.cat([points, gold - gold.mean()], 1) / gold.std()

    def loss(
        self, network: nn.Module, tokens: Tensor, targets: Tensor, _: torch.Generator
    ) -> Tensor:
        """Mean squared error of the gold score, and of each position's points `PARTS` times."""
        assert isinstance(network, TaughtRewardModel)
        read = network.transformer(network.embedding(tokens))
        parts = network.parts(read).squeeze(-1)[:, PROMPT_LENGTH:]
        gold = network.head(read[:, -1]).squeeze(-1)
        return F.mse_loss(gold, targets[:, -1]) + PARTS * F.mse_loss(
            parts, targets[:, PROMPT_LENGTH:-1]
        )


PARTS = 5.0
"""The weight of the points by position in a reward model's loss."""


def reward_tokens(
    language: Language, prompts: Int[Tensor, "S 3"], responses: Int[Tensor, "S N"]
) -> Int[Tensor, "S read"]:
    """What a reward model reads: prompt, response, and the end at which it is read off."""
    return F.pad(torch.cat([prompts, responses], 1), (0, 1), value=language.ids[EOS])


@dataclass(frozen=True, eq=False)
class FamilyDenoiser:
    """A trained `MaskPredictor` of a language as a `Denoiser`."""

    language: Language
    network: MaskPredictor

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(False)

    @property
    def mask_id(self) -> int:
        return self.language.ids[MASK]

    @property
    def eos_id(self) -> int | None:
        return self.language.ids[EOS]

    @property
    def writable(self) -> Bool[Tensor, "V"]:
        return self.language.writable

    def encode(self, prompts: Sequence[str]) -> Prompts:
        tokens = self.language.encode_prompts(prompts)
        return Prompts(
            tokens, torch.ones_like(tokens, dtype=torch.bool), tuple(map(prompt_key, prompts))
        )

    def __call__(
        self, tokens: Int[Tensor, "S L"], valid: Bool[Tensor, "S L"], masked: Bool[Tensor, "S N"]
    ) -> Float[Tensor, "n V"]:
        checks.shape("new_tokens", masked, (None, LENGTH), "[S, N] in the toy")
        with plain_attention():
            return self.network(tokens, F.pad(masked, (PROMPT_LENGTH, 0), value=False))

    def decode(self, response: Int[Tensor, "S N"]) -> list[str]:
        """The words; ends of sequence at the end are left out (and `words_of` adds them)."""
        texts = []
        for row in response.tolist():
            words = [self.language.vocabulary[id] for id in row]
            while len(words) > 1 and words[-1] == EOS:
                words.pop()
            texts.append(" ".join(words))
        return texts


@dataclass(frozen=True, eq=False)
class FamilyReward:
    """A trained `RewardModel` of a language as a `Reward`."""

    language: Language
    network: RewardModel

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(False)

    @property
    def embeddings(self) -> Float[Tensor, "V d"]:
        return self.network.embedding.weight

    def bind(self, prompts: Sequence[str], trajectories: int) -> _Bound:
        tokens = self.language.encode_prompts(prompts).repeat_interleave(trajectories, 0)
        return _Bound(self.language, self.network, tokens)

    @torch.no_grad()
    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Float[Tensor, "S"]:
        answers = self.language.encode([self.language.words_of(r) for r in responses])
        tokens = reward_tokens(self.language, self.language.encode_prompts(prompts), answers)
        with plain_attention():
            return self.network(self.network.embedding(tokens))


@dataclass(frozen=True, eq=False)
class _Bound:
    language: Language
    network: RewardModel
    prompt: Int[Tensor, "S 3"]

    def at(self, response: Int[Tensor, "S N"], masked: Bool[Tensor, "S N"]) -> _AtStep:
        tokens = reward_tokens(self.language, self.prompt, response)
        return _AtStep(self.network, tokens, F.pad(masked, (PROMPT_LENGTH, 1), value=False))


@dataclass(frozen=True, eq=False)
class Testbed:
    """A language with its mask predictor and its reward models, by size."""

    language: Language
    denoiser: FamilyDenoiser
    rewards: Mapping[str, FamilyReward]

    @classmethod
    def load(
        cls,
        denoiser: FamilyDenoiserRecipe,
        rewards: Mapping[str, FamilyRewardRecipe],
        track: Track = no_progress,
    ) -> Testbed:
        """The networks of a language, from the cache or trained now.

        `ValueError` if the recipes are not all of one language.
        """
        languages = {(recipe.seed, recipe.words) for recipe in rewards.values()}
        if languages != {(denoiser.seed, denoiser.words)}:
            raise ValueError("rewards: got recipes of several languages, expected the denoiser's")
        language = draw_language(denoiser.seed, denoiser.words)
        predictor = cached(denoiser, track)
        assert isinstance(predictor, MaskPredictor)
        models = {}
        for name, recipe in rewards.items():
            model = cached(recipe, track)
            assert isinstance(model, RewardModel)
            models[name] = FamilyReward(language, model)
        return cls(language, FamilyDenoiser(language, predictor), models)

    def costs(self, reward: str) -> Costs:
        """What each network costs per sequence, as in `toy.testbed`."""
        positions = PROMPT_LENGTH + LENGTH
        return Costs(
            denoiser=positions * count_parameters(self.denoiser.network),
            reward=(positions + 1) * count_parameters(self.rewards[reward].network),
        )

    def gold_score(self, prompt: str, response: str) -> float:
        """The gold score of a decoded response, in points."""
        language = self.language
        return language.gold(language.parse_prompt(prompt), language.words_of(response))

    def valid(self, response: str) -> bool:
        """Whether a decoded response obeys the grammar."""
        return self.language.is_valid(self.language.words_of(response))

    def held_out_prompts(self, count: int) -> list[str]:
        """The first `count` prompts, at most `HELD_OUT`, that no network was trained on."""
        checks.integer("prompts", count, 1)
        if count > HELD_OUT:
            raise ValueError(f"prompts: got {count}, expected at most {HELD_OUT}")
        return list(held_out_prompts(self.language)[:count])


def held_out_prompts(language: Language) -> tuple[str, ...]:
    """The `HELD_OUT` prompts of a language that no network is trained on."""
    return tuple(map(str, language.split[1]))
