"""A judge scores the best answer to every prompt by unit tests, as the paper does by LMUnit.

Each test is a question of its own. The judge answers with a digit, and what counts is not the digit
alone but the probability that it gave to each: sum of k p(k) over sum of p(k), k from 1 to 5. A
prompt's score is the mean over the tests.
"""

from __future__ import annotations

import math
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .. import checks
from .benchmarks import read_text
from .records import (
    JUDGED,
    Record,
    RunFolder,
    best,
    fingerprint,
    key_of,
    read_experiment,
    read_records,
)
from .runner import POLL_SECONDS, versions

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


def score(generated: Generated) -> float:
    """The probability-weighted digit, in [1, 5], at the place where the digit stands.

    LMUnit answers by `{"score": "4"}`: the place is the first digit after `score`. Another judge
    may answer otherwise: then it is the first digit, or, if it generates none, the first place of
    all. Digits count as whole tokens, with or without spaces around them. Raises `ValueError` if
    none from 1 to 5 has a probability there.
    """
    tokens = [token.strip() for token, _ in generated]
    after = tokens.index("score") if "score" in tokens else 0
    places = [i for i, token in enumerate(tokens) if i >= after and re.fullmatch("[0-9]", token)]
    weights = dict.fromkeys(DIGITS, 0.0)
    for token, log_probability in generated[places[0] if places else 0][1].items():
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
    if not file.is_file():
        raise ValueError(f"unit_tests: there is no file {file}")
    tests = tuple(line.strip() for line in read_text("unit_tests", file).splitlines())
    tests = tuple(test for test in tests if test)
    if not tests:
        raise ValueError(f"unit_tests: {file} is empty")
    return tests


BACKENDS = ("lmunit", "transformers")


def load_judge(
    backend: str, model: str, device: str, dtype: str, batch_size: int, gpus: int
) -> Judge:
    """A judge by the name of its backend."""
    checks.choice("backend", backend, BACKENDS)
    checks.integer("batch_size", batch_size, minimum=1)
    if backend == "lmunit":
        return LMUnitJudge.load(model, gpus)
    return TransformersJudge.load(model, device, dtype, batch_size)


@dataclass(frozen=True, eq=False)
class TransformersJudge:
    """Any causal checkpoint with a chat template, through transformers."""

    declaration: dict[str, Any]
    network: Any
    tokenizer: Any
    batch_size: int

    @classmethod
    def load(cls, model: str, device: str, dtype: str, batch_size: int) -> TransformersJudge:
        """Load a folder or a hub id."""
        from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

        from ..models import checkpoints
        from ..models.tokenizers import load_tokenizer

        where = checkpoints.device_of(device)
        precision = checkpoints.dtype_of(dtype, where)
        folder = checkpoints.locate(model)
        config = checkpoints.known_config(folder, MODEL_FOR_CAUSAL_LM_MAPPING, "causal models")
        tokenizer = load_tokenizer(folder)
        network = checkpoints.load(
            AutoModelForCausalLM, folder, dtype=precision, device=where, config=config
        )
        declaration = {
            "backend": "transformers",
            "model": checkpoints.identity(model),
            "dtype": str(precision).removeprefix("torch."),
        }
        return cls(declaration, network, tokenizer, batch_size)

    def answer(self, questions: Sequence[str]) -> list[Generated]:
        """Greedy, with the log-probabilities of all tokens that are digits.

        Raises `ValueError` if a question is longer than the model's positions, or has tokens that
        it lacks.
        """
        return [
            generated
            for start in range(0, len(questions), self.batch_size)
            for generated in self._answer(questions[start : start + self.batch_size])
        ]

    def _answer(self, questions: Sequence[str]) -> list[Generated]:
        import torch

        from ..models.checkpoints import require_positions
        from ..models.tokenizers import conversation, padded

        texts = [conversation(self.tokenizer, text) for text in questions]
        end = self.tokenizer.eos_token_id
        tokens, valid = padded(self.tokenizer, texts, 0, self.network.device)
        require_positions("the judge", tokens.shape[1] + NEW_TOKENS, self.network)
        width = len(self.network.get_input_embeddings().weight)
        if int(tokens.max()) >= width:
            raise ValueError(f"the judge has {width} tokens, its tokenizer more")
        with torch.no_grad():
            found = self.network.generate(
                tokens,
                attention_mask=valid.long(),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                pad_token_id=0 if end is None else end,
                return_dict_in_generate=True,
                output_logits=True,
            )
        new = found.sequences[:, tokens.shape[1] :]
        logits = torch.stack(found.logits, 1).double()
        digits = self._digits()
        log_p = logits.log_softmax(-1)[..., list(digits)].tolist()
        answers: list[Generated] = []
        for row, places in zip(new.tolist(), log_p, strict=True):
            stop = row.index(end) + 1 if end in row else len(row)
            words = [self.tokenizer.decode([index]) for index in row[:stop]]
            choices = [dict(zip(digits.values(), p, strict=True)) for p in places[:stop]]
            answers.append(list(zip(words, choices, strict=True)))
        return answers

    def _digits(self) -> dict[int, str]:
        """The tokens that are a digit, by their ids."""
        width = len(self.network.get_input_embeddings().weight)
        ids = [index for index in self.tokenizer.get_vocab().values() if index < width]
        return {i: text for i in ids if (text := self.tokenizer.decode([i])).strip() in DIGITS}


@dataclass(frozen=True, eq=False)
class LMUnitJudge:
    """LMUnit's own package, on vllm.

    It generates; its own weighing, which counts digits from 0 to 6, is not used.
    """

    declaration: dict[str, Any]
    model: Any
    parameters: Any

    @classmethod
    def load(cls, model: str, gpus: int) -> LMUnitJudge:
        """Load LMUnit over a number of GPUs."""
        try:
            from lmunit import LMUnit
            from vllm import SamplingParams
        except ImportError as error:
            raise ValueError(
                "backend: lmunit needs the extra `judge` (in a clone: pip install '.[judge]') and "
                "GPUs; transformers runs any causal model"
            ) from error
        from ..models import checkpoints

        checks.integer("gpus", gpus, minimum=1)
        parameters = SamplingParams(temperature=0.0, max_tokens=NEW_TOKENS, logprobs=20)
        declaration = {"backend": "lmunit", "model": checkpoints.identity(model)}
        return cls(declaration, LMUnit(str(checkpoints.locate(model)), gpus), parameters)

    def answer(self, questions: Sequence[str]) -> list[Generated]:
        """Greedy, with the log-probabilities of the 20 likeliest tokens."""
        texts = [
            self.model.tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
            )
            for text in questions
        ]
        answers: list[Generated] = []
        for output in self.model.llm.generate(texts, self.parameters):
            first = output.outputs[0]
            words = [self.model.tokenizer.decode([index]) for index in first.token_ids]
            choices = [
                {choice.decoded_token: choice.logprob for choice in place.values()}
                for place in first.logprobs
            ]
            answers.append(list(zip(words, choices, strict=True)))
        return answers


AT_A_TIME = 8
"""Prompts between two writings."""


def run(folder: Path, judge: Judge, tests: Sequence[str], say: Callable[[str], None]) -> int:
    """Judge what is not judged yet. Returns how many answers could not be judged.

    Several processes may do it together: each takes the next prompts that nobody holds.
    """
    run_of = read_experiment(folder)["fingerprint"]
    declaration = {"run": run_of, "unit_tests": list(tests), **judge.declaration}
    wanted = [record for record in read_records(folder) if record["status"] == "ok"]
    judged = RunFolder(folder / JUDGED, declaration)
    left = [wanted[start : start + AT_A_TIME] for start in range(0, len(wanted), AT_A_TIME)]
    try:
        while True:
            judged.refresh()
            left = [part for part in left if not judged.done.issuperset(map(key_of, part))]
            if not left:
                break
            before = len(judged.done)
            for part in left:
                with judged.lock(repr([key_of(record) for record in part])) as ours:
                    judged.refresh()
                    if not ours or judged.done.issuperset(map(key_of, part)):
                        continue
                    for record, answers in _judged(judge, part, tests):
                        judged.write(_judgement(record, best(record), answers, declaration))
                    there = sum(key_of(record) in judged.done for record in wanted)
                    say(f"{there} of {len(wanted)} answers judged")
            if len(judged.done) == before:
                time.sleep(POLL_SECONDS)  # others hold all that is left; one of them may die
    finally:
        judged.close()
    found = read_records(folder / JUDGED)
    failed = [record for record in found if record["status"] == "failed"]
    scores = [record["score"] for record in found if record["status"] == "ok"]
    mean = f", mean score {statistics.fmean(scores):.3f}" if scores else ""
    say(f"{len(found)} answers judged in {folder / JUDGED}, {len(failed)} failed{mean}")
    if failed:
        say(f"  the first: {failed[0]['reason']}")
    return len(failed)


def _judged(
    judge: Judge, part: Sequence[Record], tests: Sequence[str]
) -> Iterator[tuple[Record, Sequence[Generated] | str]]:
    """The answers to the questions about each record, or the reason why there are none.

    Of all records of a part, also if some are judged already: the same batches, the same rounding.
    """
    questions = [
        question(record["prompt"], record["responses"][best(record)], test)
        for record in part
        for test in tests
    ]
    try:
        answers = judge.answer(questions)
    except ValueError as error:
        if len(part) == 1:
            yield part[0], " ".join(str(error).split())
        else:
            for record in part:
                yield from _judged(judge, [record], tests)
        return
    for i, record in enumerate(part):
        yield record, answers[i * len(tests) : (i + 1) * len(tests)]


def _judgement(
    record: Record,
    chosen: int,
    answers: Sequence[Generated] | str,
    declaration: Mapping[str, Any],
) -> Record:
    identity = ("experiment", "benchmark", "method", "variant", "seed", "idx", "prompt")
    scores: list[float] = []
    reason = answers if isinstance(answers, str) else None
    generated: Sequence[Generated] = [] if isinstance(answers, str) else answers
    try:
        scores = [score(one) for one in generated]
    except ValueError as error:
        reason = str(error)
    return {
        **{name: record[name] for name in identity},
        "response": record["responses"][chosen],
        "scores": scores,
        "score": None if reason else statistics.fmean(scores),
        "answers": ["".join(token for token, _ in one) for one in generated],
        "status": "failed" if reason else "ok",
        "reason": reason,
        "fingerprint": fingerprint(declaration),
        "versions": versions(),
        "timing": {},
    }
