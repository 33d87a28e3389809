"""The demo: every method on the same held-out prompts, with intervals, a figure, and a trajectory
to step through.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from entrgi_ref import DenoisingRecord, Generation, SamplingConfig, checks, generate
from entrgi_ref.commands.files import require_writable, write_text
from entrgi_ref.paper.declared.experiments import LABELS
from entrgi_ref.watching import Recorder, trace_page

from .figures import Curves, draw_demo
from .language import LENGTH
from .record import provenance, write_record
from .statistics import MOST
from .table import BASELINE, Record, Row, markdown, summarise
from .testbed import Testbed, gold_score, held_out_prompts, log_likelihood, valid

BASE = SamplingConfig(new_tokens=LENGTH, denoising_steps=LENGTH)
"""The paper's settings; only the length is the toy's."""


def methods_of(base: SamplingConfig, testbed: Testbed) -> dict[str, SamplingConfig]:
    """The settings of the demo's methods: `base`, with a weight function or with no gradient steps.

    They are `bon`, `bon_equal_compute` (with as many answers as EntRGi's cost buys), `expectation`,
    `aps` and `entrgi`.
    """
    unguided = base.guided(steps=0)
    equal = testbed.costs.equal_trajectories(base, unguided)
    guided = {name: base.guided(weight=name) for name in ("expectation", "aps", "entrgi")}
    return {"bon": unguided, "bon_equal_compute": replace(unguided, trajectories=equal), **guided}


def compare(
    testbed: Testbed,
    methods: Mapping[str, SamplingConfig],
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    baseline: str = "bon",
    pairs: int = 1,
) -> Iterator[Record]:
    """Answer every prompt by every method with every seed, on every pair of networks.

    A batch is one method and seed, with all prompts and trajectories. The methods take turns within
    a seed, so that a change in the machine's speed meets them all.

    Args:
        testbed: the networks; the first of them, if there are several `pairs`.
        methods: name -> settings. The names are those of the table; the seed of the settings does
            not count.
        prompts: what is answered, for example `held_out_prompts(64)`.
        seeds: of sampling, different integers from 0.
        baseline: the method to which `toy.table.summarise` takes differences.
        pairs: pairs of networks, 1 to 40: see `Testbed.pairs`.

    Yields:
        one record per prompt, as each batch is done: see `toy.table.Record`.

    Raises:
        ValueError: before anything is answered, for a `baseline` that is none of the methods, for
            seeds that are not different, and for pairs that cannot be had.
    """
    if baseline != BASELINE:
        checks.choice("baseline", baseline, methods)
    checks.seeds(seeds)
    if pairs > MOST:
        raise ValueError(f"pairs: got {pairs}, expected 1 to {MOST}")
    networks = testbed.pairs(pairs)
    return (
        {**record, "baseline": baseline}
        for pair in networks
        for record in _compared(pair, methods, prompts, seeds)
    )


def _compared(
    testbed: Testbed,
    methods: Mapping[str, SamplingConfig],
    prompts: Sequence[str],
    seeds: Sequence[int],
) -> Iterator[Record]:
    for seed in seeds:
        for method, config in methods.items():
            start = time.perf_counter()
            generation = generate(
                testbed.denoiser, testbed.reward, prompts, replace(config, seed=seed)
            )
            yield from records_of(testbed, method, generation, time.perf_counter() - start)


def records_of(
    testbed: Testbed, method: str, generation: Generation, seconds: float
) -> list[Record]:
    """One record per prompt, with everything that the table is made of.

    `seconds` are those of the whole batch.
    """
    repeated = [
        prompt for prompt in generation.prompts for _ in range(generation.config.trajectories)
    ]
    flat = [response for responses in generation.responses for response in responses]
    likelihoods = log_likelihood(testbed.denoiser, repeated, flat).view_as(generation.rewards)
    return [
        {
            "experiment": "demo",
            "testbed": testbed.description,
            "method": method,
            "seed": generation.config.seed,
            "idx": idx,
            "prompt": prompt,
            "responses": responses,
            "rewards": generation.rewards[idx].tolist(),
            "gold": [gold_score(prompt, response) for response in responses],
            "log_likelihood": likelihoods[idx].tolist(),
            "valid": [valid(response) for response in responses],
            "timing": {"seconds_per_prompt": seconds / len(generation.prompts)},
        }
        for idx, (prompt, responses) in enumerate(
            zip(generation.prompts, generation.responses, strict=True)
        )
    ]


@dataclass(frozen=True)
class Plan:
    """How much the demo runs."""

    prompts: int
    seeds: tuple[int, ...]


FULL = Plan(prompts=64, seeds=(1, 2, 3))
QUICK = Plan(prompts=16, seeds=(1,))


def run_demo(
    testbed: Testbed, base: SamplingConfig, plan: Plan, out: Path, say: Callable[[str], None]
) -> tuple[str, list[Path]]:
    """Run every method and write the results folder. Returns the table and the files."""
    require_writable(out)
    methods, prompts = methods_of(base, testbed), held_out_prompts(plan.prompts)
    generate(
        testbed.denoiser, testbed.reward, prompts[:1], base
    )  # first calls are slow: keep them out of the times
    records: list[Record] = []
    for record in compare(testbed, methods, prompts, plan.seeds):
        records.append(record)
        if record["idx"] == len(prompts) - 1:
            done = record["timing"]["seconds_per_prompt"] * len(prompts)
            say(
                f"seed {record['seed']}, {LABELS[record['method']]}: "
                f"{len(prompts)} prompts in {done:.1f} s"
            )

    rows = summarise(records)
    table = f"{markdown(rows)}\n{_notes(plan, base, testbed)}"
    files = [
        out / name
        for name in (
            "table.md",
            "records.jsonl",
            "run.json",
            "figure.svg",
            "figure-dark.svg",
            "trace.json",
            "trace.html",
        )
    ]
    write_text(files[0], table)
    write_text(files[1], "".join(json.dumps(record) + "\n" for record in records))
    record = provenance(base, testbed.description, plan.prompts, plan.seeds)
    curves = errors_by_step(testbed, methods, prompts[:16])
    found = {"rows": [row_record(row) for row in rows], "errors_by_step": curves}
    write_record(files[2], record | found)
    draw_demo(rows, curves, files[3], files[4])
    panels = trajectories(testbed, methods, prompts[0])
    write_record(files[5], record | {"prompt": prompts[0], "panels": panels})
    write_text(files[6], trace_page(prompts[0], panels))
    return table, files


def _notes(plan: Plan, base: SamplingConfig, testbed: Testbed) -> str:
    guidance = base.constant_guidance
    optimiser = "" if guidance.optimiser == "adam" else f" ({guidance.optimiser})"
    return f"""\
Held-out prompts; T = {base.denoising_steps}, M = {guidance.steps}, \
eta = {guidance.step_size:g}{optimiser}, tau = {base.temperature:g}, top_p = {base.top_p:g}, \
order {base.order}. The pair of networks: {testbed.description}.

Top@1, Avg@K and the choice of the best answer are by the guiding reward model, in standard
deviations of its training scores. Gold is the score that a program gives. Log-likelihood is the
mask predictor's own. Best-of-N at equal compute gets as many trajectories as EntRGi's cost buys,
counted as positions x parameters without embeddings, a backward pass as one forward pass.
"""


def errors_by_step(
    testbed: Testbed, methods: Mapping[str, SamplingConfig], prompts: Sequence[str]
) -> Curves:
    """For each guided method: denoising steps and their mean approximation error E, over positions
    and gradient steps.
    """
    curves: dict[str, list[tuple[int, float]]] = {}
    for method, config in methods.items():
        points: list[tuple[int, float]] = []

        def observe(record: DenoisingRecord, points: list[tuple[int, float]] = points) -> None:
            points.append((record.step + 1, float(record.E.mean())))

        if config.constant_guidance.steps:
            generate(testbed.denoiser, testbed.reward, prompts, config, observe=observe)
            curves[method] = points
    return curves


def trajectories(
    testbed: Testbed, methods: Mapping[str, SamplingConfig], prompt: str
) -> list[dict[str, Any]]:
    """The panels of the trace page of one prompt: the best trajectory of Best-of-N beside that of
    EntRGi.
    """
    panels = []
    for method, title in (("bon", "Unguided"), ("entrgi", "Guided by EntRGi")):
        recorder = Recorder(testbed.denoiser)
        config = methods[method]
        generation = generate(testbed.denoiser, testbed.reward, [prompt], config, observe=recorder)
        best = int(generation.rewards[0].argmax())
        answer = generation.responses[0][best]
        panels.append(
            {
                "title": title,
                "subtitle": f"{LABELS[method]}: the best of {config.trajectories} trajectories, "
                f"{config.constant_guidance.steps} gradient steps per denoising step",
                "frames": recorder.frames(best),
                "results": {
                    "reward of the answer": f"{generation.rewards[0, best]:.2f}",
                    "gold score": f"{gold_score(prompt, answer):.2f} points",
                    "grammatical": "yes" if valid(answer) else "no",
                },
            }
        )
    return panels


def row_record(row: Row) -> Record:
    """A row of the table, as it stands in the run record."""
    return {
        "method": row.method,
        "trajectories": row.trajectories,
        "measures": {name: vars(estimate) for name, estimate in row.measures.items()},
        "differences": {name: vars(estimate) for name, estimate in row.differences.items()},
        "timing": {"seconds_per_prompt": vars(row.seconds), "ratio_to_entrgi": row.time_ratio},
    }
