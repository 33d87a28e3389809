"""Batches of prompts, and what computes their records: here, or wherever it has been sent.

Which prompts share a batch follows from the list of prompts and the batch size alone, so a run that
was interrupted computes the same batches again and writes what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...commands.memory import out_of_memory
from ...commands.options import interrupted
from ...commands.provenance import commit, versions
from ...denoising import Generation
from ..declared.experiments import Cell
from ..declared.methods import Method
from ..declared.plan import Plan
from ..declared.testbed import Testbed
from .errors_by_prompt import ErrorsByPrompt
from .records import Key, fingerprint, key_of
from .required import Record
from .written import WrittenAt

AUTO_BATCH = 16
"""Prompts in a batch to begin with under --batch-size auto; halved until it fits."""


@dataclass(frozen=True)
class Batch:
    """Some prompts of a cell, next to each other."""

    cell: Cell
    start: int
    prompts: tuple[str, ...]

    @property
    def keys(self) -> list[Key]:
        """Those of its records."""
        return [key_of(self.identity(i)) for i in range(len(self.prompts))]

    def identity(self, i: int) -> Record:
        """The fields that say which record it is."""
        cell = self.cell
        return {
            "experiment": cell.experiment,
            "benchmark": cell.benchmark,
            "method": cell.method,
            "variant": dict(cell.variant),
            "seed": cell.seed,
            "idx": self.start + i,
        }

    def part(self, start: int, size: int) -> Batch:
        """Some of its prompts."""
        return Batch(self.cell, self.start + start, self.prompts[start : start + size])


def batches(plan: Plan, testbed: Testbed) -> list[Batch]:
    """All batches of a run, in the order in which they are taken."""
    size = plan.batch_size or AUTO_BATCH
    found = []
    for cell in plan.cells(testbed):
        prompts = plan.drawn(testbed, cell)
        for start in range(0, len(prompts), size):
            found.append(Batch(cell, start, tuple(prompts[start : start + size])))
    return found


@dataclass
class Answerer:
    """What computes the records of batches: the networks, and what has been learnt of their memory.

    It writes nothing.
    """

    plan: Plan
    testbed: Testbed
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self._declaration = self.plan.declaration(self.testbed)
        self._methods: dict[str, Method] = {}
        self._fits: dict[str, int] = {}
        """Cell, whatever its seed -> the most prompts that have not yet run out of memory."""

    def records(self, batch: Batch) -> Iterator[Record]:
        """The records of a batch, in order. What fails is a record too."""
        # A network that cannot be loaded ends the run: it is not the fault of the prompts.
        self.testbed.reward(self.plan.reward(self.testbed, batch.cell))
        yield from self._records(batch, self._method(batch.cell))

    def _method(self, cell: Cell) -> Method:
        if repr(cell) not in self._methods:
            self._methods[repr(cell)] = self.plan.method(self.testbed, cell)
        return self._methods[repr(cell)]

    def _records(self, batch: Batch, method: Method) -> Iterator[Record]:
        """The records of a batch; prompt by prompt if it fails, in halves if it does not fit."""
        kind = repr(replace(batch.cell, seed=0))
        size = min(self._fits.get(kind, len(batch.prompts)), len(batch.prompts))
        for start in range(0, len(batch.prompts), size):
            part = batch.part(start, size)
            alone = len(part.prompts) == 1
            try:
                yield from self._generated(part, method)
            except Exception as error:
                if interrupted(error):
                    raise
                full = out_of_memory(error)
                if isinstance(error, torch.AcceleratorError) and not full:
                    raise  # the device is lost, and with it every prompt that would come now
                reason = " ".join(str(error).split()) or type(error).__name__
            else:
                continue
            # Outside of the handler, which would keep the failed batch's tensors alive.
            if full:
                empty_cache()
            if alone:
                self.say(f"failed: {reason}")
                yield self._failed(part, method, reason)
            elif full:
                self._fits[kind] = len(part.prompts) // 2
                self.say(
                    f"out of memory with {len(part.prompts)} prompts, going on with "
                    f"{self._fits[kind]}"
                )
                yield from self._records(part, method)
            else:
                self.say(f"a batch failed, its prompts are tried one by one: {reason}")
                for i in range(len(part.prompts)):
                    yield from self._records(part.part(i, 1), method)

    def _generated(self, batch: Batch, method: Method) -> list[Record]:
        denoiser = self.testbed.denoiser()
        reward = self.testbed.reward(self.plan.reward(self.testbed, batch.cell))
        errors = None
        if self.plan.experiment.observed:
            K = method.config.trajectories
            errors = ErrorsByPrompt(len(batch.prompts), K, reward.embeddings)
        start = time.perf_counter()
        rows = getattr(self.testbed, "vocabulary_batch", None)  # no testbed must know it
        draws = WrittenAt(denoiser, batch.prompts, method.config) if method.takes_draws else None
        generation = method.answer(
            denoiser, reward, batch.prompts, observe=errors, draws=draws, vocabulary_batch=rows
        )
        seconds = time.perf_counter() - start
        written = draws.of(generation.tokens) if draws else [None] * len(batch.prompts)
        return [
            self._record(batch, i, method)
            | {
                "status": "ok",
                "reason": None,
                **self._answers(generation, i),
                "errors": errors.of(i) if errors else None,
                "written": written[i],
                "timing": {"seconds_per_prompt": seconds / len(batch.prompts)},
            }
            for i in range(len(batch.prompts))
        ]

    def _answers(self, generation: Generation, i: int) -> Mapping[str, Any]:
        prompt, responses = generation.prompts[i], generation.responses[i]
        gold = [self.testbed.gold(prompt, response) for response in responses]
        scores = {} if None in gold else {"gold": gold}
        return {"responses": responses, "rewards": generation.rewards[i].tolist(), **scores}

    def _failed(self, batch: Batch, method: Method, reason: str) -> Record:
        failed = {"status": "failed", "reason": reason, "responses": [], "rewards": []}
        return (
            self._record(batch, 0, method)
            | failed
            | {"errors": None, "written": None, "timing": {}}
        )

    def _record(self, batch: Batch, i: int, method: Method) -> Record:
        return {
            **batch.identity(i),
            "prompt": batch.prompts[i],
            "settings": {
                **method.settings,
                "denoiser": self._declaration["denoiser"],
                "reward": self.plan.reward(self.testbed, batch.cell),
            },
            "fingerprint": fingerprint(self._declaration),
            "commit": commit(),
            "versions": versions(),
            "device": self.testbed.device,
        }


def empty_cache() -> None:
    """Give back what the GPU's allocator keeps for later, if one is in use."""
    torch.cuda.empty_cache()
