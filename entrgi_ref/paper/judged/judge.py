"""A judge scores the best answer to every prompt by unit tests, as the paper does by LMUnit.

Each test is a question of its own. The judge answers with a digit, and what counts is not the digit
alone but the probability that it gave to each: sum of k p(k) over sum of p(k), k from 1 to 5. A
prompt's score is the mean over the tests.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from ...commands.files import require_readable
from ..declared.benchmarks import read_text

UNIT_TESTS = (
    "Does the response deal with what the query asks for?",
    "Are the statements of the response true, and can they be relied on?",
    "Is the response in good order, easy to follow and fluently written?",
    "Does the response deal with every part of the query, and leave out nothing of weight?",
    "Does the response keep clear of anything harmful, unfair or unfit?",
)
"""Our words for the paper's five criteria: does it address the request; is it correct and reliable;
is it well structured, clear and fluent; does it cover the full scope; is it free of harmful, biased
or inappropriate content. The authors' own words are in their script."""

MOST_TESTS = 2**12
"""Lines of a file of them: each is a question about each answer."""
DIGITS = ("1", "2", "3", "4", "5")
NEW_TOKENS = 10
"""At most as many are generated. Source: authors' code."""

Choices = Mapping[str, float]
"""Token -> log-probability of the likeliest tokens at one place."""
Generated = Sequence[tuple[str, Choices]]
"""For each generated token: itself, and what it was chosen from."""


class Judge(Protocol):
    """A causal language model that answers questions greedily."""

    @property
    def declaration(self) -> dict[str, Any]:
        """Which one it is: part of the fingerprint of the judgements."""

    def answer(self, questions: Sequence[str]) -> list[Generated]:
        """What it generates for each user message."""


def question(query: str, response: str, unit_test: str) -> str:
    """The user message. Source: authors' code."""
    return f"Query: {query}\n\nResponse: {response}\n\nUnit Test: {unit_test}"


def digit_place(generated: Generated) -> int | None:
    """Where the digit stands: the first one after `score`, as in LMUnit's `{"score": "4"}`, or the
    first of all if there is no such word; None if no digit is generated.

    Digits count as whole tokens, with or without spaces around them.
    """
    tokens = [token.strip() for token, _ in generated]
    after = tokens.index("score") if "score" in tokens else 0
    places = [i for i, token in enumerate(tokens) if i >= after and re.fullmatch("[0-9]", token)]
    return places[0] if places else None


def has_digit(generated: Generated) -> bool:
    """Whether one from 1 to 5 stands where the digit stands."""
    place = digit_place(generated)
    return place is not None and generated[place][0].strip() in DIGITS


def score(generated: Generated) -> float:
    """The probability-weighted digit, in [1, 5], at the place where the digit stands.

    Without a digit it is read at the first place of all, and where 0 or 6 to 9 stands it is what
    the others were given there: the reports say how often. Raises
    `ValueError` if none from 1 to 5 has a probability there.
    """
    if not generated:
        raise ValueError("the judge generated nothing")
    weights = dict.fromkeys(DIGITS, 0.0)
    for token, log_probability in generated[digit_place(generated) or 0][1].items():
        if token.strip() in weights:
            weights[token.strip()] += math.exp(log_probability)
    total = sum(weights.values())
    if not total > 0:
        answer = "".join(token for token, _ in generated)
        raise ValueError(f"the judge gave no digit from 1 to 5 a probability: {answer!r}")
    return sum(int(digit) * p for digit, p in weights.items()) / total


def read_unit_tests(file: Path | None) -> tuple[str, ...]:
    """The tests of a file, one per line; ours without one."""
    if file is None:
        return UNIT_TESTS
    require_readable("unit_tests", file)
    lines = islice(read_text("unit_tests", file), MOST_TESTS + 1)
    tests = tuple(line.strip() for line in lines)
    if len(tests) > MOST_TESTS:
        raise ValueError(f"unit_tests: {file} has more than {MOST_TESTS} lines, expected fewer")
    tests = tuple(test for test in tests if test)
    if not tests:
        raise ValueError(f"unit_tests: {file} is empty")
    return tests
