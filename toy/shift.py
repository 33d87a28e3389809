"""A mask predictor read one off: what a wrong shift looks like in words.

The toy's mask predictor answers at each position for that position. A model that was made from a
causal one may answer at each position for the next. Here the first is read as if it were the
second: all that changes is which row of its output is taken, and nothing fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from entrgi_ref import SamplingConfig, generate

from .demo import BASE, records_of
from .language import VOCABULARY, explain_gold, parse_prompt
from .models import PROMPT_LENGTH, ToyDenoiser, plain_attention, words_of
from .statistics import Estimate, bootstrap
from .studies import Finding, Setting
from .table import MEASURES, Record, by_prompt
from .testbed import Testbed, held_out_prompts

SHOWN = ("valid", "gold_mean", "average", "log_likelihood")
EXAMPLES = 3
"""The first prompts, of whose answers the first ones are shown."""
BLANKS = (2, 3)
"""Positions of the first answer that are masked again, to look at one step."""

Found = dict[str, dict[str, Estimate]]
"""How it was read -> the measures in `SHOWN`; the likelihood is that of the right reading."""


class OneOff(ToyDenoiser):
    """The toy's mask predictor, read as if its output at a position predicted the next one."""

    def __call__(
        self, tokens: Int[Tensor, "S L"], valid: Bool[Tensor, "S L"], masked: Bool[Tensor, "S N"]
    ) -> Float[Tensor, "n V"]:
        before = F.pad(masked, (PROMPT_LENGTH - 1, 1), value=False)
        with plain_attention():
            return self.network(tokens, before)


def study(setting: Setting) -> Finding:
    """The command `shift`."""
    testbed, plan = setting.testbed, setting.plan
    prompts = held_out_prompts(plan.prompts)
    found, answers = read_both(testbed, BASE, prompts, plan.seeds)
    text = f"{markdown(found)}\n\n{answers_table(answers)}"
    rows = {name: {m: vars(e) for m, e in each.items()} for name, each in found.items()}
    first = words_of(answers[0]["own"])
    more = {"answers": answers, "step": one_step(testbed.denoiser, prompts[0], first)}
    return Finding(text, rows, testbed.description, BASE, plan.prompts, plan.seeds, more)


def read_both(
    testbed: Testbed, base: SamplingConfig, prompts: Sequence[str], seeds: Sequence[int]
) -> tuple[Found, list[dict[str, str]]]:
    """The measures of both readings, unguided and guided, and the first unguided answers."""
    readings = {"own": testbed.denoiser, "one off": OneOff(testbed.denoiser.network)}
    records: list[Record] = []
    answers: list[dict[str, str]] = [{"prompt": prompt} for prompt in prompts[:EXAMPLES]]
    for seed in seeds:
        for name, denoiser in readings.items():
            for suffix, config in (("", base.guided(steps=0)), (", guided", base)):
                config = replace(config, seed=seed)
                generation = generate(denoiser, testbed.reward, prompts, config)
                records += records_of(testbed, name + suffix, generation, 0.0)
                if seed == seeds[0] and not suffix:
                    for answer, responses in zip(answers, generation.responses, strict=False):
                        answer[name] = responses[0]
    names = dict.fromkeys(record["method"] for record in records)
    found = {name: {m: bootstrap(by_prompt(records, name, m)) for m in SHOWN} for name in names}
    return found, answers


def one_step(denoiser: ToyDenoiser, prompt: str, answer: Sequence[str]) -> dict[str, list[str]]:
    """What the network makes of an answer with two blanks: at each position of the answer the
    likeliest word, as the output is read rightly (`own`) and one off.
    """
    words = [*prompt.split(), *answer]
    for blank in BLANKS:
        words[PROMPT_LENGTH + blank] = VOCABULARY[denoiser.mask_id]
    tokens = torch.tensor([[VOCABULARY.index(word) for word in words]])
    everywhere = torch.ones(1, len(answer), dtype=torch.bool)
    step = {"words": words[PROMPT_LENGTH:]}
    for name, read in (("own", denoiser), ("one off", OneOff(denoiser.network))):
        logits = read(tokens, torch.ones_like(tokens, dtype=torch.bool), everywhere)
        likeliest = logits.masked_fill(~denoiser.writable, -torch.inf).argmax(-1)
        step[name] = [VOCABULARY[token] for token in likeliest.tolist()]
    return step


LABELS = {
    "own": "as it was trained",
    "own, guided": "the same, guided",
    "one off": "one off",
    "one off, guided": "the same, guided",
}


def markdown(found: Mapping[str, Mapping[str, Estimate]]) -> str:
    """A row per reading."""
    heads = [f"{MEASURES[measure].label} ({MEASURES[measure].unit})" for measure in SHOWN]
    lines = [f"| read | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(heads)}"]
    for name, each in found.items():
        cells = [each[measure].text(MEASURES[measure].digits) for measure in SHOWN]
        lines.append(f"| {LABELS[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def answers_table(answers: Sequence[Mapping[str, str]]) -> str:
    """The first answers side by side; words that may not follow the one before them are bold."""
    lines = ["| prompt | read as it was trained | read one off |", "| --- | --- | --- |"]
    for answer in answers:
        cells = [_with_faults(answer["prompt"], answer[name]) for name in ("own", "one off")]
        lines.append(f"| {' | '.join([answer['prompt'], *cells])} |")
    return "\n".join(lines)


def faults(prompt: str, response: str) -> set[int]:
    """Positions of the words that may not follow the one before them."""
    parts: list[tuple[int, float, Any]] = explain_gold(parse_prompt(prompt), words_of(response))
    return {position for position, _, reason in parts if "may not follow" in reason}


def _with_faults(prompt: str, response: str) -> str:
    wrong, words = faults(prompt, response), response.replace("<", "&lt;").split()
    return " ".join(f"**{word}**" if i in wrong else word for i, word in enumerate(words))
