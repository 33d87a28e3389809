"""The networks that judge: any causal model by transformers, or LMUnit on vllm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import checks
from .judge import DIGITS, NEW_TOKENS, Generated, Judge

BACKENDS = ("lmunit", "transformers")


@dataclass(frozen=True)
class JudgeCheckpoint:
    """All of a judge but its weights."""

    declaration: dict[str, Any]
    """Which one it is: part of the fingerprint of the judgements."""
    load: Callable[[], Judge]


def examine_judge(
    backend: str, model: str, device: str, dtype: str, batch_size: int, gpus: int
) -> JudgeCheckpoint:
    """Look at a judge, by the name of its backend, without loading its weights."""
    checks.choice("backend", backend, BACKENDS)
    checks.integer("batch_size", batch_size, minimum=1)
    checks.integer("gpus", gpus, minimum=1)
    if backend == "lmunit":
        return LMUnitJudge.examine(model, gpus)
    return TransformersJudge.examine(model, device, dtype, batch_size)


@dataclass(frozen=True, eq=False)
class TransformersJudge:
    """Any causal checkpoint with a chat template, through transformers."""

    declaration: dict[str, Any]
    network: Any
    tokenizer: Any
    batch_size: int

    @classmethod
    def examine(cls, model: str, device: str, dtype: str, batch_size: int) -> JudgeCheckpoint:
        """Look at a folder or a hub id."""
        from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

        from ...models import checkpoints
        from ...models.tokenizers import load_tokenizer

        where = checkpoints.device_of(device)
        precision = checkpoints.dtype_of(dtype, where)
        folder = checkpoints.locate(model)
        config = checkpoints.known_config(folder, MODEL_FOR_CAUSAL_LM_MAPPING, "causal models")
        tokenizer = load_tokenizer(folder)
        checkpoints.require_weights(folder)
        declaration = {
            "backend": "transformers",
            "model": checkpoints.identity(model),
            "dtype": str(precision).removeprefix("torch."),
        }

        def load() -> TransformersJudge:
            network = checkpoints.load(
                AutoModelForCausalLM, folder, dtype=precision, device=where, config=config
            )
            return cls(declaration, network, tokenizer, batch_size)

        return JudgeCheckpoint(declaration, load)

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

        from ...models.checkpoints import require_positions
        from ...models.tokenizers import conversation, padded, working

        texts = [conversation(self.tokenizer, text) for text in questions]
        end = self.tokenizer.eos_token_id
        width = len(self.network.get_input_embeddings().weight)
        tokens, valid = padded(self.tokenizer, texts, 0, self.network.device, "the judge", width)
        require_positions("the judge", tokens.shape[1] + NEW_TOKENS, self.network.config)
        with torch.no_grad():
            found = self.network.generate(
                tokens,
                attention_mask=valid.long(),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                eos_token_id=end,
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
            with working("checkpoint: the tokenizer of the judge does not work"):
                words = [self.tokenizer.decode([index]) for index in row[:stop]]
            choices = [by_text(zip(digits.values(), p, strict=True)) for p in places[:stop]]
            answers.append(list(zip(words, choices, strict=True)))
        return answers

    def _digits(self) -> dict[int, str]:
        """The tokens that are a digit, by their ids."""
        width = len(self.network.get_input_embeddings().weight)
        ids = sorted(index for index in self.tokenizer.get_vocab().values() if index < width)
        return {i: text for i in ids if (text := self.tokenizer.decode([i])).strip() in DIGITS}


def by_text(tokens: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The log-probability of each text, of those of tokens: several may be written alike, such as a
    letter and the byte that it is.
    """
    found: dict[str, float] = {}
    for text, log_p in tokens:
        found[text] = float(np.logaddexp(found[text], log_p)) if text in found else log_p
    return found


@dataclass(frozen=True, eq=False)
class LMUnitJudge:
    """LMUnit's own package, on vllm.

    It generates; its own weighing, which counts digits from 0 to 6, is not used.
    """

    declaration: dict[str, Any]
    model: Any
    parameters: Any

    @classmethod
    def examine(cls, model: str, gpus: int) -> JudgeCheckpoint:
        """Look at LMUnit, which will be loaded over a number of GPUs."""
        try:
            from lmunit import LMUnit
            from vllm import SamplingParams
        except ImportError as error:
            raise ValueError(
                "backend: lmunit needs the extra `judge` (in a clone: pip install '.[judge]') and "
                "GPUs; transformers runs any causal model"
            ) from error
        from ...models import checkpoints

        parameters = SamplingParams(temperature=0.0, max_tokens=NEW_TOKENS, logprobs=20)
        declaration = {"backend": "lmunit", "model": checkpoints.identity(model)}
        folder = checkpoints.locate(model)
        return JudgeCheckpoint(
            declaration, lambda: cls(declaration, LMUnit(str(folder), gpus), parameters)
        )

    def answer(self, questions: Sequence[str]) -> list[Generated]:
        """Greedy, with the log-probabilities of the 20 likeliest tokens."""
        from ...models.tokenizers import conversation

        texts = [conversation(self.model.tokenizer, text) for text in questions]
        answers: list[Generated] = []
        for output in self.model.llm.generate(texts, self.parameters):
            first = output.outputs[0]
            words = [self.model.tokenizer.decode([index]) for index in first.token_ids]
            choices = [
                by_text((choice.decoded_token, choice.logprob) for choice in place.values())
                for place in first.logprobs
            ]
            answers.append(list(zip(words, choices, strict=True)))
        return answers
