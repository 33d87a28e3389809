"""The toy's language: what its corpus is like, and its gold score by hand."""

import hashlib
import itertools
import json
import random
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from building import records
from toy import testbed
from toy.language import (
    ADJECTIVES,
    CATEGORIES,
    CATEGORY,
    EOS,
    FOLLOWERS,
    LENGTH,
    NOUNS,
    PROMPTS,
    STYLE,
    TOPIC,
    VERBS,
    VOCABULARY,
    Prompt,
    explain_gold,
    gold,
    indefinite_article,
    is_valid,
    parse_prompt,
    roles,
    sample_answer,
    split_prompts,
)
from toy.models import encode_words

PROMPT = Prompt("sea", "castle", "gloomy")


def words(text: str) -> list[str]:
    found = text.split()
    return found + [EOS] * (LENGTH - len(found))


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("", -1),  # an answer may not start with an end
        ("the whale finds the knight", 2),  # both nouns on topic
        ("the knight finds the whale", 0),  # topics in the wrong roles
        ("the bleak whale finds the knight", 2.5),  # an adjective in style
        ("the merry whale finds the knight", 1.5),  # and one out of style
        ("a whale finds an emperor", 2.5),  # both articles right
        ("an whale finds a emperor", 1),  # and both wrong
        ("an ashen whale finds the knight", 2.75),  # the adjective decides
        ("the whale finds the knight and the sailor guards the tower", 4),
        ("the whale finds the knight and the whale finds the tower", 1),  # noun and verb again
        ("the whale finds finds the knight", 2 - 1.5 - 1),  # a repeat that may not follow
        ("whale finds the knight", 1),  # no determiner
        ("the whale finds the knight while and the sailor", 2 - 1 + 1 - 1),  # ends on a subject
        ("the knight finds the whale today", 0),  # adverbs and the rest do not count
        ("the whale finds the knight today and the sailor loses the tower today", 4),  # nor again
    ],
)
def test_gold_by_hand(text, points):
    assert gold(PROMPT, words(text)) == pytest.approx(points)


def test_a_plain_style_has_no_opinion_on_adjectives():
    plain = Prompt("sea", "castle", "plain")
    assert gold(plain, words("the merry whale finds the bleak knight")) == 2


def test_explanations_name_the_place():
    parts = explain_gold(PROMPT, words("an whale finds the merry knight"))
    assert parts == [
        (0, -0.5, "wrong article"),
        (1, 1.0, "subject on topic"),
        (4, -0.5, "out of style"),
        (5, 1.0, "object on topic"),
    ]


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("the whale finds the knight", True),
        ("an bleak whale finds the knight today while the oak loses a tram again", True),
        ("the whale finds the knight finds the oak", False),
        ("the whale the knight finds", False),
        ("the whale finds the", False),
        ("finds the whale", False),
        ("", False),
    ],
)
def test_grammar_by_hand(text, valid):
    assert is_valid(words(text)) == valid


def test_the_grammar_is_that_of_an_expression():
    """Of two sentences, each with one word taken away, put in or put in the place of another."""
    phrase = "DET (ADJ )?NOUN "
    clause = f"{phrase}VERB {phrase}(ADV )?"
    grammar = re.compile(f"{clause}(CONJ {clause})*(EOS )+")
    first = {category: [some[0]] for category, some in CATEGORIES.items()}
    several = 0
    for text in (
        "the whale finds the knight",
        "an bleak whale finds the merry knight today while the oak loses a tram",
    ):
        answer = [*text.split(), EOS]
        for at in range(len(answer) + 1):
            before, after = answer[:at], answer[at:]
            changes = [before + after[1:]]
            changes += [
                before + word + rest for word in first.values() for rest in (after, after[1:])
            ]
            for changed in filter(None, changes):
                told = "".join(f"{CATEGORY[word]} " for word in changed)
                assert is_valid(changed) == (grammar.fullmatch(told) is not None), changed
                several += is_valid(changed)
    assert several > 30


def test_no_other_pairs_may_follow_each_other():
    """Than those that stand in some sentence of one or two clauses."""
    pairs = {("EOS", "EOS")}
    for first, second, adverb in itertools.product((["ADJ"], []), (["ADJ"], []), (["ADV"], [])):
        clause = ["DET", *first, "SUBJECT", "VERB", "DET", *second, "OBJECT", *adverb]
        pairs |= {*itertools.pairwise(["START", *clause, "CONJ", *clause, "EOS"])}
    categories = {"SUBJECT": "NOUN", "OBJECT": "NOUN"}
    assert {(before, after) for before, some in FOLLOWERS.items() for after in some} == {
        (before, categories.get(after, after)) for before, after in pairs
    }


def test_an_answer_must_end_within_its_length():
    endless = (
        "the whale finds the bleak knight and the sailor loses the tower and the oak hides".split()
    )
    assert len(endless) == LENGTH
    assert not is_valid(endless)
    assert not is_valid(words(f"the whale finds the knight {EOS} the"))


def test_one_end_of_sequence_is_enough():
    full = "the royal whale finds the knight and the bleak sailor loses the tiny tower again"
    full = full.replace("tiny", "little").split()
    assert len(full) == LENGTH - 1
    assert is_valid([*full, EOS])


def test_an_article_is_judged_by_the_word_after_it():
    """Also by the last word of the answer; where no noun or adjective follows, it is not."""
    ending = "the whale finds an knight".split()
    assert explain_gold(PROMPT, ending)[1:] == [
        (3, -0.5, "wrong article"),
        (4, 1.0, "object on topic"),
    ]
    cut = explain_gold(PROMPT, "the whale finds a".split())
    assert cut == [(1, 1.0, "subject on topic")]
    assert explain_gold(PROMPT, ["a", "finds"]) == [(1, -1.0, "VERB may not follow DET")]


def test_a_word_that_comes_too_early_or_again_costs_points():
    again = "fox finds the merry fox and the fox finds the merry and the".split()
    assert explain_gold(PROMPT, again) == [
        (0, -1.0, "NOUN may not follow START"),
        (3, -0.5, "out of style"),
        (4, -1.5, "used before"),
        (7, -1.5, "used before"),
        (8, -1.5, "used before"),
        (10, -0.5, "out of style"),
        (10, -1.5, "used before"),
        (11, -1.0, "CONJ may not follow ADJ"),
    ]  # articles, conjunctions and adverbs may be used again


@given(st.integers(0, 10**9), st.sampled_from(PROMPTS))
def test_the_corpus_is_grammatical_and_of_one_length(seed, prompt):
    answer = sample_answer(random.Random(seed), prompt)
    assert len(answer) == LENGTH
    assert is_valid(answer)
    assert answer == sample_answer(random.Random(seed), prompt)


def test_the_corpus_is_careless_and_the_gold_score_sees_it():
    rng = random.Random(0)
    prompts = [rng.choice(PROMPTS) for _ in range(800)]
    answers = [sample_answer(rng, prompt) for prompt in prompts]
    parts = [part for p, a in zip(prompts, answers, strict=True) for part in explain_gold(p, a)]
    own = sum(points for _, points, _ in parts) / len(prompts)
    shuffled = rng.sample(prompts, len(prompts))
    foreign = sum(gold(p, a) for p, a in zip(shuffled, answers, strict=True)) / len(prompts)
    assert 1.2 < own < 2.2
    assert own - foreign > 0.8
    reasons = {reason for *_, reason in parts}
    assert {"wrong article", "right article", "used before", "in style", "out of style"} <= reasons


def test_the_corpus_has_its_words_by_their_chances():
    """Half of the nouns are on topic, and of the others one in eight; likewise half of the
    adjectives are in style, and a quarter of the others.
    """
    rng, prompt = random.Random(1), Prompt("sea", "castle", "gloomy")
    answers = [sample_answer(rng, prompt) for _ in range(1500)]
    text = [word for answer in answers for word in answer]
    roles_of = [role for answer in answers for role in roles(answer)]
    kinds = Counter(CATEGORY[word] for word in text)
    topics = [
        TOPIC[word] == {"SUBJECT": "sea", "OBJECT": "castle"}[role]
        for word, role in zip(text, roles_of, strict=True)
        if word in TOPIC
    ]
    wrong = [
        word != indefinite_article(after)
        for word, after in itertools.pairwise(text)
        if word in ("a", "an")
    ]
    clauses = Counter(len([*filter(VERBS.__contains__, answer)]) for answer in answers)
    found = {
        "on topic": sum(topics) / len(topics),
        "an adjective": kinds["ADJ"] / kinds["NOUN"],
        "in style": sum(STYLE.get(word) == "gloomy" for word in text) / kinds["ADJ"],
        "the": text.count("the") / kinds["DET"],
        "wrong": sum(wrong) / len(wrong),
        "an adverb": kinds["ADV"] / kinds["VERB"],
        "one clause": clauses[1] / len(answers),
        "two clauses": clauses[2] / len(answers),
    }
    assert found == pytest.approx(
        {
            "on topic": 1 / 2 + 1 / 2 / 8,
            "an adjective": 1 / 2,
            "in style": 1 / 2 + 1 / 2 / 4,
            "the": 0.4,
            "wrong": 0.15,
            "an adverb": 0.3,
            "one clause": 1 / 3,
            "two clauses": 2 / 3,
        },
        abs=0.04,
    )


def test_prompts_are_split_once_and_for_all():
    train, held_out = split_prompts()
    assert len(train) == 224
    assert len(held_out) == 96
    assert not set(train) & set(held_out)
    assert set(train) | set(held_out) == set(PROMPTS)
    assert split_prompts() == split_prompts(0, 96) == (train, held_out)
    others = split_prompts(1, 10)
    assert (len(others[0]), len(others[1])) == (310, 10)
    assert others[1] != split_prompts(0, 10)[1] == held_out[:10]
    recorded = [answer["prompt"] for answer in records.read("shift")["answers"]]
    assert [str(prompt) for prompt in held_out[:3]] == recorded


def test_the_words_are_those_of_the_records():
    """Other words, or the same under another topic or style, are another language."""
    found = json.dumps([NOUNS, ADJECTIVES, list(CATEGORIES.items())])
    assert hashlib.sha256(found.encode()).hexdigest()[:16] == "0ebed737db533f4f"


def test_words_are_of_one_kind():
    assert len(VOCABULARY) == len(set(VOCABULARY)) == 75
    assert set(CATEGORY) == set(VOCABULARY)
    for topic in (*NOUNS, *ADJECTIVES):
        assert CATEGORY[topic] == "PROMPT"


@pytest.mark.parametrize(("word", "article"), [("owl", "an"), ("oasis", "an"), ("whale", "a")])
def test_articles(word, article):
    assert indefinite_article(word) == article
    assert indefinite_article(word, wrong=True) == {"a": "an", "an": "a"}[article]


@pytest.mark.parametrize(
    "text",
    [
        *("", "sea", "sea castle", "sea castle blue", "a b c", "sea castle gloomy x"),
        *("blue castle gloomy", "sea blue gloomy", "gloomy castle sea"),
    ],
)
def test_prompts_that_mean_nothing_are_refused(text):
    with pytest.raises(ValueError, match=r"expected two topics out of sea, .* 'sea castle gloomy'"):
        parse_prompt(text)
    assert parse_prompt(" sea  castle gloomy ") == PROMPT


def test_words_that_the_language_lacks_are_named():
    for call in (
        lambda: testbed.gold_score("sea castle gloomy", "the xyz sleeps"),
        lambda: testbed.valid("the xyz"),
        lambda: encode_words([["the", "xyz"]]),
    ):
        with pytest.raises(
            ValueError, match=r"word: got 'xyz', expected one of the toy's language"
        ):
            call()


@pytest.mark.parametrize("held_out", [-1, 10**6, 1.5, None])
def test_prompts_that_there_are_not_cannot_be_held_out(held_out):
    with pytest.raises(ValueError, match=r"held_out: got .*, expected at most 320 prompts"):
        split_prompts(0, held_out)


def test_all_prompts_may_be_held_out_or_none():
    assert [len(some) for some in split_prompts(0, 0)] == [320, 0]
    assert [len(some) for some in split_prompts(0, 320)] == [0, 320]
