"""The toy's language: short sentences about two topics, in a style, with a gold score that a
program computes.

A prompt names the topic of the subjects, the topic of the objects, and a style: "sea castle
gloomy". An answer is one or two clauses (a third would not fit) of the form

    DETERMINER (ADJECTIVE) NOUN VERB DETERMINER (ADJECTIVE) NOUN (ADVERB)

joined by conjunctions, and then ends of sequence up to `LENGTH` tokens. The corpus obeys the
grammar but is careless: about half of its nouns and adjectives miss the topic or the style, words
are repeated and some articles are wrong. The gold score counts just that. It plays the part of the
judge in the paper's experiments; the reward models learn to predict it from examples, imperfectly.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

LENGTH = 16
"""Tokens in an answer, ends of sequence included (N)."""

NOUNS = {
    "sea": ("whale", "anchor", "sailor", "island"),
    "forest": ("fox", "owl", "hunter", "oak"),
    "castle": ("knight", "emperor", "tower", "armor"),
    "kitchen": ("cook", "oven", "kettle", "onion"),
    "sky": ("cloud", "eagle", "pilot", "airship"),
    "city": ("tram", "office", "mayor", "alley"),
    "farm": ("goat", "orchard", "plough", "apple"),
    "desert": ("camel", "oasis", "nomad", "oryx"),
}
ADJECTIVES = {
    "cheerful": ("merry", "amused", "sunny"),
    "gloomy": ("bleak", "ashen", "weary"),
    "grand": ("royal", "immense", "mighty"),
    "tiny": ("little", "elfin", "slight"),
    "plain": (),
}
VERBS = ("finds", "follows", "hides", "guards", "loses", "paints", "visits", "wakes")
DETERMINERS = ("a", "an", "the")
ADVERBS = ("quietly", "again", "today")
CONJUNCTIONS = ("and", "while")
EOS, MASK = "<eos>", "<mask>"

CATEGORIES = {
    "DET": DETERMINERS,
    "ADJ": tuple(itertools.chain(*ADJECTIVES.values())),
    "NOUN": tuple(itertools.chain(*NOUNS.values())),
    "VERB": VERBS,
    "ADV": ADVERBS,
    "CONJ": CONJUNCTIONS,
    "EOS": (EOS,),
    "PROMPT": (*NOUNS, *ADJECTIVES),
    "MASK": (MASK,),
}
VOCABULARY = tuple(itertools.chain(*CATEGORIES.values()))
"""The words, in the order of their ids: V of them."""
ID = {word: id for id, word in enumerate(VOCABULARY)}
CATEGORY = {word: category for category, words in CATEGORIES.items() for word in words}
TOPIC = {noun: topic for topic, nouns in NOUNS.items() for noun in nouns}
STYLE = {adjective: style for style, adjectives in ADJECTIVES.items() for adjective in adjectives}

Value = TypeVar("Value")


def of_word(table: Mapping[str, Value], word: str) -> Value:
    """What a table says of a word; `ValueError` for one that the language lacks."""
    if word not in table:
        raise ValueError(f"word: got {word!r:.40}, expected one of the toy's language")
    return table[word]


FOLLOWERS = {
    "START": {"DET"},
    "DET": {"ADJ", "NOUN"},
    "ADJ": {"NOUN"},
    "SUBJECT": {"VERB"},
    "VERB": {"DET"},
    "OBJECT": {"ADV", "CONJ", "EOS"},
    "ADV": {"CONJ", "EOS"},
    "CONJ": {"DET"},
    "EOS": {"EOS"},
    "PROMPT": set(),
    "MASK": set(),
}
"""The grammar: what may follow what.

A noun is an object if a verb stands before it in its clause, else a subject.
"""


class Prompt(NamedTuple):
    """What an answer should be about."""

    subjects: str
    objects: str
    style: str

    def __str__(self) -> str:
        return " ".join(self)


PROMPTS = tuple(Prompt(*choice) for choice in itertools.product(NOUNS, NOUNS, ADJECTIVES))
"""All 320 prompts."""


def split_prompts(seed: int = 0, held_out: int = 96) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts of the corpus, and the `held_out` ones that no model is trained on; `ValueError`
    for a number of them that there are not.
    """
    if held_out not in range(len(PROMPTS) + 1):
        raise ValueError(f"held_out: got {held_out!r}, expected at most {len(PROMPTS)} prompts")
    shuffled = random.Random(seed).sample(PROMPTS, len(PROMPTS))
    return shuffled[held_out:], shuffled[:held_out]


def parse_prompt(text: str) -> Prompt:
    """The prompt that `text` names; raises `ValueError` with the words that would do."""
    words = text.split()
    if (
        len(words) != 3
        or words[0] not in NOUNS
        or words[1] not in NOUNS
        or words[2] not in ADJECTIVES
    ):
        raise ValueError(
            f"prompt: got {text!r}, expected two topics out of {', '.join(NOUNS)} and a style "
            f"out of {', '.join(ADJECTIVES)}, for example 'sea castle gloomy'"
        )
    return Prompt(*words)


def sample_answer(rng: random.Random, prompt: Prompt) -> list[str]:
    """An answer of the corpus: grammatical, `LENGTH` words long, and about half on topic and in
    style.
    """

    def phrase(topic: str) -> list[str]:
        words = [rng.choice(NOUNS[topic] if rng.random() < 0.5 else CATEGORIES["NOUN"])]
        if rng.random() < 0.5:
            in_style = ADJECTIVES[prompt.style] if rng.random() < 0.5 else ()
            words.insert(0, rng.choice(in_style or CATEGORIES["ADJ"]))
        article = (
            "the" if rng.random() < 0.4 else indefinite_article(words[0], wrong=rng.random() < 0.15)
        )
        return [article, *words]

    answer: list[str] = []
    for clause in range(rng.randint(1, 3)):
        words = [*phrase(prompt.subjects), rng.choice(VERBS), *phrase(prompt.objects)]
        if rng.random() < 0.3:
            words.append(rng.choice(ADVERBS))
        if clause:
            words.insert(0, rng.choice(CONJUNCTIONS))
        if len(answer) + len(words) < LENGTH:  # the last place is for an end of sequence
            answer += words
    return answer + [EOS] * (LENGTH - len(answer))


def indefinite_article(word: str, wrong: bool = False) -> str:
    """ "an" before a vowel, else "a"; the other one if `wrong`."""
    return "an" if (word[0] in "aeiou") != wrong else "a"


def roles(answer: Sequence[str]) -> list[str]:
    """The category of each word, with nouns told apart as SUBJECT and OBJECT. `ValueError` for a
    word that the language lacks.
    """
    found, noun = [], "SUBJECT"
    for word in answer:
        category = of_word(CATEGORY, word)
        noun = {"VERB": "OBJECT", "CONJ": "SUBJECT"}.get(category, noun)
        found.append(noun if category == "NOUN" else category)
    return found


def is_valid(answer: Sequence[str]) -> bool:
    """Whether the answer, its words with the ends of sequence, obeys the grammar and ends within
    its length. Articles may be wrong.
    """
    found = roles(answer)
    follows = all(
        CATEGORY[word] in FOLLOWERS[before]
        for before, word in zip(["START", *found], answer, strict=False)
    )
    return follows and answer[-1] == EOS


def explain_gold(prompt: Prompt, answer: Sequence[str]) -> list[tuple[int, float, str]]:
    """The gold score's parts: (position, points, reason).

    +1 for a noun on its role's topic; +0.5 or -0.5 for an adjective in or out of style (none if the
    style is plain); +0.25 or -0.5 for a right or wrong a/an; -1.5 for a noun, verb or adjective
    used before; -1 for a word that may not follow the one before it.
    """
    parts: list[tuple[int, float, str]] = []
    found = roles(answer)
    for position, (word, role) in enumerate(zip(answer, found, strict=True)):
        before = found[position - 1] if position else "START"
        if CATEGORY[word] not in FOLLOWERS[before]:
            parts.append((position, -1.0, f"{CATEGORY[word]} may not follow {before}"))
        if role in ("SUBJECT", "OBJECT") and TOPIC[word] == (
            prompt.subjects if role == "SUBJECT" else prompt.objects
        ):
            parts.append((position, 1.0, f"{role.lower()} on topic"))
        if role == "ADJ" and prompt.style != "plain":
            fits = STYLE[word] == prompt.style
            parts.append((position, 0.5 if fits else -0.5, "in style" if fits else "out of style"))
        if (
            word in ("a", "an")
            and position + 1 < len(answer)
            and found[position + 1] in ("ADJ", "SUBJECT", "OBJECT")
        ):
            fits = word == indefinite_article(answer[position + 1])
            parts.append(
                (position, 0.25 if fits else -0.5, "right article" if fits else "wrong article")
            )
        if role in ("SUBJECT", "OBJECT", "ADJ", "VERB") and word in answer[:position]:
            parts.append((position, -1.5, "used before"))
    return parts


def gold(prompt: Prompt, answer: Sequence[str]) -> float:
    """The gold score of an answer, its words, in points: the sum of `explain_gold`.

    The corpus has about 1.7 points on average, nine sentences in ten from -0.5 to 4; words at
    random have about -15.
    """
    return sum(points for _, points, _ in explain_gold(prompt, answer))
