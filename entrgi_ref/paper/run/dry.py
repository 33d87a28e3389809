"""What `plan --dry` says: downloads, memory and time, from configurations alone.

Nothing here is measured. Memory is counted (see `declared/memory.py`), time is operations and bytes
over rates that are assumed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...checks import choice, integer, number
from ...commands.files import write_text
from ...commands.provenance import commit, versions
from ...config import SamplingConfig
from ...models.families import family_of
from ...models.listed import listed
from ..declared.costs import Costs
from ..declared.experiments import LABELS
from ..declared.memory import BYTES, Memory, predicted_memory
from ..declared.methods import SAMPLED, Method
from ..declared.plan import Plan
from ..declared.published import SHAPES
from ..declared.shapes import Sizes
from .batches import AUTO_BATCH

CARDS = (16, 24, 40, 80)
"""GiB."""
LEFT = 0.1
"""Of a card, for the driver, for the kernels' own memory and for fragments. An assumption."""
PROMPTS = (1, 2, 4, 8, 16)
NEW_TOKENS = (64, 128, 256)
TRAFFIC_PER_GRADIENT_STEP, TRAFFIC_PER_STEP = 330, 240
"""Bytes that are read and written for each number of a table, as operations of torch count them;
what a sort reads more than once is not among them."""
GIB = 2**30


@dataclass(frozen=True)
class Assumed:
    """What is not known of the device and of the prompts."""

    tflops: float
    """10^12 floating point operations in a second, in the networks."""
    bandwidth: float
    """10^9 bytes in a second, in the tables."""
    prompt_tokens: int
    """Of the longest prompt of a batch, chat template included."""

    def __post_init__(self) -> None:
        number("tflops", self.tflops, 1e-6, 1e6, low_allowed=True)
        number("bandwidth", self.bandwidth, 1e-6, 1e6, low_allowed=True)
        integer("prompt_tokens", self.prompt_tokens, minimum=1)


@dataclass(frozen=True)
class Known:
    """A network of which the weights are not here."""

    path: str
    config: Mapping[str, Any]
    source: str
    """Where the configuration is from, in words."""
    weights: int | None
    """Bytes of the files of its weights, as listed."""
    on_hub: bool

    @classmethod
    def of(cls, path: str) -> Known:
        """Look at a folder or at the hub. Raises `ValueError` where neither answers and no shape is
        declared here.
        """
        found = listed(path)
        if found is not None:
            source = "config.json of the hub" if found.on_hub else "config.json"
            return cls(path, found.config, source, found.weights, found.on_hub)
        shape = SHAPES.get(path.partition("@")[0])
        if shape is None:
            raise ValueError(
                f"checkpoint: the hub does not answer, and of {path!r} no shape is declared here; "
                "give a folder with its config.json, or connect to the network"
            )
        return cls(path, shape, "a shape declared here, as the hub does not answer", None, True)

    def line(self, parameters: int) -> str:
        """What it is, and what would be fetched."""
        if self.weights:
            size, kind = self.weights, "listed"
        else:
            size, kind = 2 * parameters, "computed, in 16 bits"
        verb = "download" if self.on_hub else "in the folder"
        return (
            f"{self.path}: {parameters / 1e9:.2f} billion parameters, {verb} {size / 1e9:.2f} GB "
            f"({kind}); from {self.source}"
        )


@dataclass(frozen=True)
class Forecast:
    """A mask predictor with a reward model, and the settings of a run."""

    denoiser: Known
    reward: Known
    dtype: str
    guidance_dtype: str
    gradient_steps: int
    assumed: Assumed
    micro_batch: int | None = None
    vocabulary_batch: int | None = None
    quantize: Mapping[str, str] | None = None
    settings: SamplingConfig = field(default_factory=SamplingConfig)

    def memory(self, prompts: int, K: int, N: int, gradient_steps: int | None = None) -> Memory:
        """That of a batch."""
        M = self.gradient_steps if gradient_steps is None else gradient_steps
        return predicted_memory(
            self.denoiser.config,
            self.reward.config,
            [self.assumed.prompt_tokens] * prompts,
            K,
            N,
            self.dtype,
            self.guidance_dtype,
            gradient_steps=M,
            micro_batch=self.micro_batch,
            vocabulary_batch=self.vocabulary_batch,
            quantize=self.quantize,
            pauses=replace(self.settings, trajectories=K).may_pause([N] * prompts),
        )

    def seconds(self, S: int, N: int) -> tuple[float, float]:
        """Of a denoising step at which half of the response is masked, the mean of a run: those of
        the networks, and those of the tables.
        """
        denoiser, reward = Sizes.of(self.denoiser.config), Sizes.of(self.reward.config)
        prompt, M = self.assumed.prompt_tokens, self.gradient_steps
        n = S * (N + 1) / 2
        predict = denoiser.operations(S * (prompt + N), prompt + N)
        predict += 2 * n * denoiser.vocabulary * denoiser.width
        climb = reward.operations(S * N, prompt + N) + 2 * S * N * reward.output
        climb *= 2  # there and back
        # The soft embedding, and what its slope makes of the logits: twice in 16 bits.
        products = 2 if BYTES[self.dtype] == BYTES[self.guidance_dtype] else 3
        climb += products * 2 * n * denoiser.vocabulary * reward.width
        traffic = n * denoiser.vocabulary * BYTES[self.guidance_dtype] / 4
        traffic *= TRAFFIC_PER_STEP + M * TRAFFIC_PER_GRADIENT_STEP
        return (predict + M * climb) / self.assumed.tflops / 1e12, (
            traffic / self.assumed.bandwidth / 1e9
        )

    def rows(self, K: int, lengths: Sequence[int]) -> list[dict[str, Any]]:
        """The table: prompts x K by N."""
        combinations = [(1, 1), *((prompts, K) for prompts in PROMPTS)]
        return [
            {
                "prompts": prompts,
                "trajectories": k,
                "new_tokens": N,
                "peak_gib": self.memory(prompts, k, N).peak / GIB,
                "fits": [card for card in CARDS if self.fits(prompts, k, N, card)],
                "seconds_per_step": sum(self.seconds(prompts * k, N)),
            }
            for prompts, k in dict.fromkeys(combinations)
            for N in lengths
        ]

    def fits(self, prompts: int, K: int, N: int, card: int) -> bool:
        """Whether a batch fits a card of so many GiB."""
        return self.memory(prompts, K, N).peak <= (1 - LEFT) * card * GIB


def say(
    plan: Plan,
    dream: str,
    rewards: Mapping[str, str],
    dtype: str,
    assumed: Assumed,
    file: Path | None = None,
    quantize: Mapping[str, str] | None = None,
    **parts: int | None,
) -> str:
    """What to say; also written to a file as a record, if one is given. `parts` are the options of
    a run that work on a part of a batch at a time, as `dry` has them.
    """
    text, found = dry(plan, dream, rewards, dtype, assumed, quantize, **parts)
    if file is not None:
        found |= {
            "command": f"python -m entrgi_ref.paper plan {plan.experiment.name} --dry",
            "testbed": "no networks: predicted from configurations",
            "networks": {"denoiser": dream, **rewards},
            "machine": "none: nothing is measured",
            "settings": json.loads(plan.base.to_json()),
            "seeds": list(plan.seeds),
            "commit": commit(),
            "versions": versions(),
        }
        write_text(file, json.dumps(found, indent=1) + "\n")
    return text


def dry(
    plan: Plan,
    dream: str,
    rewards: Mapping[str, str],
    dtype: str,
    assumed: Assumed,
    quantize: Mapping[str, str] | None = None,
    micro_batch: int | None = None,
    vocabulary_batch: int | None = None,
) -> tuple[str, dict[str, Any]]:
    """What to say, and the same as a record."""
    dtype = "bfloat16" if dtype == "auto" else dtype
    choice("dtype", dtype, BYTES)
    guidance = plan.base.constant_guidance
    precision = dtype if guidance.dtype == "denoiser" else guidance.dtype
    denoiser = Known.of(dream)
    if denoiser.weights is not None:  # listed: what a run would refuse is refused
        family_of(denoiser.config, dream)
    varied = [M for M in plan.experiment.gradient_steps if M is not None]
    most = max(varied, default=guidance.steps)
    K, N, size = plan.base.trajectories, plan.base.new_tokens, plan.batch_size or AUTO_BATCH
    lengths = sorted({*NEW_TOKENS, N})
    lines = [
        "All of this is predicted, from configurations alone; no weights were loaded.",
        f"Assumed: prompts of {assumed.prompt_tokens} tokens (--prompt-tokens),",
        f"  {assumed.tflops:g} TFLOP/s (--tflops), {assumed.bandwidth:g} GB/s (--bandwidth),",
        f"  {LEFT:.0%} of a card left for the driver, the kernels and fragments.",
        denoiser.line(Sizes.of(denoiser.config).as_denoiser),
    ]
    if micro_batch or vocabulary_batch:
        lines.insert(4, "Times do not count with what is read or worked on in parts.")
    if quantize:
        rounded = ", ".join(f"{name} {bits}" for name, bits in quantize.items())
        lines.insert(4, f"Weights of layers are rounded: {rounded}. Times do not count with it.")
    tables: dict[str, Any] = {}
    for name, path in rewards.items():
        reward = Known.of(path)
        known = denoiser, reward, dtype, precision, most, assumed
        forecast = Forecast(*known, micro_batch, vocabulary_batch, quantize, plan.base)
        rows = forecast.rows(K, lengths)
        tables[name] = {"config": reward.source, "rows": rows}
        lines += ["", reward.line(Sizes.of(reward.config).as_reward)]
        lines += _parts(forecast.memory(size, K, N), f"{size} prompts x K = {K}, N = {N}, {dtype}")
        lines += _equal_compute(plan, forecast, size)
        lines += ["", *_shown(rows, lengths), "", *_times(rows, N, most)]
    return "\n".join(lines), {
        "assumed": {name: getattr(assumed, name) for name in assumed.__dataclass_fields__},
        "dtype": dtype,
        "gradient_steps": most,
        "micro_batch": micro_batch,
        "vocabulary_batch": vocabulary_batch,
        **({"quantize": dict(quantize)} if quantize else {}),
        "left": LEFT,
        "denoiser": denoiser.source,
        "tables": tables,
    }


def _parts(memory: Memory, title: str) -> list[str]:
    parts = {
        "weights of the mask predictor": memory.denoiser,
        "weights of the reward model": memory.reward,
        "its embeddings, in the order of the diffusion vocabulary": memory.embeddings,
        "one table of [n, V]": memory.table,
        "keys and values of the prompts": memory.cache,
        "activations of the reward model, kept for its backward pass": memory.activations,
        "working memory of the mask predictor": memory.reading,
        "all but the weights at the fullest moment": memory.working,
        f"peak, at {memory.fullest}": memory.peak,
    }
    return [f"predicted memory, {title}:"] + [
        f"  {name:66} {held / GIB:8.2f} GiB" for name, held in parts.items()
    ]


def _equal_compute(plan: Plan, forecast: Forecast, size: int) -> Iterator[str]:
    """Best-of-N at equal compute has a K of its own, and so have rivals without gradients."""
    denoiser = Sizes.of(forecast.denoiser.config)
    N = plan.base.new_tokens
    looked_up = 0 if denoiser.tied else denoiser.vocabulary * denoiser.width
    length, reward = forecast.assumed.prompt_tokens + N, Sizes.of(forecast.reward.config)
    judged = reward.in_layers + reward.output
    costs = Costs(
        denoiser=length * (denoiser.as_denoiser - looked_up),
        reward=N * judged,
        text=length * judged,
    )
    base = plan.base.guided(steps=forecast.gradient_steps)
    for name in plan.methods:
        if name == "bon_equal_compute" or name in SAMPLED:
            method = Method.of(name, base, lambda: costs)
            K = method.config.trajectories
            memory = forecast.memory(size, K, N, gradient_steps=0)
            # Rivals hold the tables of a step while texts are scored and the next is predicted.
            held = 2 * memory.table + memory.working if name in SAMPLED else memory.working
            many = ", ".join(f"{n} = {v:g}" for n, v in method.options.items() if n != "beta")
            what = f"  {LABELS[name].replace(', e', ' at e')}, K = {K}{many and f', {many}'}"
            peak = (memory.weights + held) / GIB
            yield f"{f'{what}, without gradients:':69}{peak:8.2f} GiB"


def cell(row: Mapping[str, Any]) -> str:
    """The peak, and the smallest card that it fits."""
    fits = row["fits"]
    return f"{row['peak_gib']:.1f} ({f'{fits[0]} GB' if fits else 'none'})"


def _shown(rows: Sequence[Mapping[str, Any]], lengths: Sequence[int]) -> list[str]:
    cards = ", ".join(map(str, CARDS))
    lines = [
        f"predicted peak in GiB, and the smallest of the cards of {cards} GB that it fits:",
        f"  {'prompts x K':14}" + "".join(f"{f'N = {N}':>18}" for N in lengths),
    ]
    for start in range(0, len(rows), len(lengths)):
        some = rows[start : start + len(lengths)]
        name = f"{some[0]['prompts']} x {some[0]['trajectories']}"
        lines.append(f"  {name:14}" + "".join(f"{cell(row):>18}" for row in some))
    return lines


def _times(rows: Sequence[Mapping[str, Any]], N: int, M: int) -> list[str]:
    return [
        f"predicted time of a denoising step with M = {M}, N = {N}, by the assumed rates:",
        *(
            f"  {row['prompts']} x {row['trajectories']}: {row['seconds_per_step']:.2f} s"
            for row in rows
            if row["new_tokens"] == N
        ),
    ]
