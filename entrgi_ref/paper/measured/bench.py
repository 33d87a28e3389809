"""What the command `bench` does: our time beside that of the networks alone, and beside the work
on the vocabulary that no implementation can avoid.

All are timed in one process, in turns, so that what else the machine does strikes them alike.

    networks      the same calls of the same networks, on the same tokens, and nothing else
    reference     the slow implementation of the tests, where the vocabulary is small
    unavoidable   M times, at each step's masked positions: softmax, soft embedding, the backward
                  of both by autograd, and a step of Adam
    floor         the two together
"""

from __future__ import annotations

import copy
import ctypes
import json
import resource
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ...commands.provenance import commit, versions
from ...config import GuidanceConfig, SamplingConfig
from ...denoising import generate
from ...draws import KeyedDraws, inverse_cdf, nucleus
from ...errors import DenoisingRecord
from ...fast.adam import adam
from ...fast.gradient import logit_gradient
from ...models import Dream, SequenceReward
from ...models.causal import BoundCausalReward
from ...models.denoiser import compile_layers
from ...relaxation import entropy_weight, soft_embedding, token_distribution
from ..declared.memory import predicted_memory
from .networks import SUFFIX, Shape, networks, prompts_of

SLOW = 512
"""A vocabulary that is larger takes the slow implementation of the tests too long."""


@dataclass
class Steps:
    """An observer that keeps the board before each step: what the networks are asked about."""

    boards: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    last: Tensor | None = None
    logits: Tensor | None = None

    def __call__(self, record: DenoisingRecord) -> None:
        """Observe a denoising step."""
        before = torch.zeros_like(record.tokens) if self.last is None else self.last
        self.boards.append((before, record.masked))
        self.last = record.tokens
        if self.logits is None:
            self.logits = record.logits.clone()


@dataclass
class Bench:
    """A shape, its networks, and what is timed on them."""

    shape: Shape
    denoiser: Dream
    reward: SequenceReward
    prompts: list[str]
    config: SamplingConfig
    steps: Steps
    vocabulary_batch: int | None = None
    """As that of `generate`, for what is ours."""

    @classmethod
    def of(cls, shape: Shape, device: torch.device) -> Bench:
        """Make random networks and look at one run of them."""
        denoiser, reward = networks(shape, device)
        config = SamplingConfig(
            GuidanceConfig(steps=shape.gradient_steps),
            trajectories=shape.trajectories,
            new_tokens=shape.new_tokens,
            denoising_steps=shape.denoising_steps,
        )
        bench = cls(shape, denoiser, reward, prompts_of(shape), config, Steps())
        generate(denoiser, reward, bench.prompts, config, observe=bench.steps)
        return bench

    def make_faster(self) -> None:
        """Have the denoiser's layers compiled and the reward model replayed."""
        compile_layers(self.denoiser.network)
        self.reward = replace(self.reward, cuda_graphs=True)

    def ours(self) -> None:
        """Answer the prompts."""
        networks, rows = (self.denoiser, self.reward), self.vocabulary_batch
        generate(*networks, self.prompts, self.config, vocabulary_batch=rows)

    def bare(self) -> None:
        """The networks alone: what `ours` asks of them."""
        prompt, valid, bound = self._read()
        for board, masked in self.steps.boards:
            with torch.no_grad():
                self.denoiser(torch.cat([prompt, board], 1), valid, masked)
            mixed, likeliest = self._mixed(int(masked.sum()))
            fixed = bound.at(board, masked)
            for _ in range(self.shape.gradient_steps):
                leaf = mixed.detach().requires_grad_()
                torch.autograd.grad(fixed(leaf, likeliest).sum(), leaf)
        assert self.steps.last is not None
        texts = self.denoiser.decode(self.steps.last)
        self.reward.score([p for p in self.prompts for _ in range(self.shape.trajectories)], texts)

    @torch.no_grad()
    def _read(self) -> tuple[Tensor, Tensor, BoundCausalReward]:
        """The prompts' tokens and which of them are real, and the reward model bound to them."""
        K = self.shape.trajectories
        encoded = self.denoiser.encode(self.prompts)
        valid = encoded.valid.repeat_interleave(K, 0)
        valid = torch.nn.functional.pad(valid, (0, self.shape.new_tokens), value=True)
        bound = self.reward.bind(self.prompts, K)
        return encoded.tokens.repeat_interleave(K, 0), valid, bound

    def _mixed(self, n: int) -> tuple[Tensor, Tensor]:
        """What a reward model is asked about n masked positions."""
        mixed = self.reward.embeddings[:1].expand(n, -1).clone()
        return mixed, torch.full((n,), 5, device=mixed.device)

    def unavoidable(self) -> None:
        """The work on the vocabulary."""
        assert self.steps.logits is not None
        embeddings = self.reward.embeddings
        for _, masked in self.steps.boards:
            psi = self.steps.logits[: int(masked.sum())].clone().requires_grad_()
            optimiser = torch.optim.Adam([psi], lr=0.5)
            for _ in range(self.shape.gradient_steps):
                soft = (psi / 0.7).softmax(-1).to(embeddings.dtype) @ embeddings
                psi.grad = torch.autograd.grad(soft.sum(), psi)[0]
                optimiser.step()

    def parts(self, clock: Callable[[Callable[[], object]], float]) -> dict[str, float]:
        """Seconds of each kind of work in one answering of the prompts, each timed by itself."""
        return self._network_parts(clock) | self._vocabulary_parts(clock)

    def _network_parts(self, clock: Callable[[Callable[[], object]], float]) -> dict[str, float]:
        M = self.shape.gradient_steps
        found = dict.fromkeys(("denoiser", "reward_forward", "reward_backward"), 0.0)
        prompt, valid, bound = self._read()
        for board, masked in self.steps.boards:
            tokens = torch.cat([prompt, board], 1)
            with torch.no_grad():
                found["denoiser"] += clock(partial(self.denoiser, tokens, valid, masked))
            mixed, likeliest = self._mixed(int(masked.sum()))
            read = partial(bound.at(board, masked), mixed.requires_grad_(), likeliest)
            read()  # the first call may record
            found["reward_forward"] += M * clock(read)
            found["reward_backward"] += M * clock(partial(_gradient, read().sum(), mixed))
        return found

    def _vocabulary_parts(self, clock: Callable[[Callable[[], object]], float]) -> dict[str, float]:
        embeddings, M = self.reward.embeddings, self.shape.gradient_steps
        found = dict.fromkeys(("softmax", "nucleus", "draw", "entropy", "gradient", "adam"), 0.0)
        assert self.steps.logits is not None
        for _, masked in self.steps.boards:
            psi = self.steps.logits[: int(masked.sum())].clone()
            if not len(psi):
                continue
            row = torch.zeros(len(psi), dtype=torch.long)
            u = KeyedDraws.of(0, [1], 1).at(0, row, row).order().to(psi.device)
            q = token_distribution(psi, 0.7)
            cut, soft = nucleus(q, 0.95), soft_embedding(q, embeddings)
            slope, spare = torch.ones_like(soft), q.clone()
            climb = adam([psi.clone()], 0.5)
            climb.param_groups[0]["params"][0].grad = q
            work: dict[str, Callable[[], object]] = {
                "softmax": partial(token_distribution, psi, 0.7),
                "nucleus": partial(nucleus, q, 0.95),
                "draw": partial(inverse_cdf, cut, u),
                "entropy": partial(entropy_weight, psi),
                "gradient": partial(logit_gradient, spare, slope, soft, embeddings, 0.7),
                "adam": climb.step,
            }
            for name, call in work.items():
                times = M + 1 if name in ("softmax", "nucleus", "draw") else M
                found[name] += times * clock(call)
        return found

    def reference(self) -> float | None:
        """Seconds of the slow implementation of the tests, from one of the trajectories, each of
        which it computes by itself. None for a vocabulary that is too large for it, and where the
        tests are not at hand.
        """
        file = Path(__file__).parents[3] / "tests" / "reference.py"
        if self.shape.vocabulary > SLOW or not file.is_file() or self.reward.device.type != "cpu":
            return None
        spec = spec_from_file_location("reference", file)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        double = copy.deepcopy(self.reward.network).double()  # it knows no other precision
        reward = replace(self.reward, network=double, embeddings=self.reward.embeddings.double())
        asked = self.denoiser, reward, self.prompts[0], 0, self.config
        with torch.no_grad():
            one = seconds_of(partial(module.answer, *asked), self.reward.device)
        return one * len(self.prompts) * self.shape.trajectories

    def operations(self) -> int:
        """Floating-point operations in the networks' matrix products, while `bare` runs."""
        with FlopCounterMode(display=False) as counter:
            self.bare()
        return int(counter.get_total_flops())

    def matrix_rate(self) -> float:
        """Floating-point operations per second of a large product of matrices, on this device."""
        device, size = self.reward.device, 8192 if self.reward.device.type == "cuda" else 1024
        matrix = torch.randn(size, size, device=device, dtype=self.reward.embeddings.dtype)
        times = [seconds_of(partial(torch.mm, matrix, matrix), device) for _ in range(10)]
        return 2 * size**3 / statistics.median(times[3:])

    def waits(self) -> dict[str, float] | None:
        """How often the host waits for a GPU in a denoising step, and how often more for each of
        its gradient steps; counted by torch. The first includes what is once for each answer.
        """
        if self.reward.device.type != "cuda":
            return None
        counts = []
        for more in (0, 1):
            config = self.config.guided(steps=self.shape.gradient_steps + more)
            torch.cuda.set_sync_debug_mode("warn")
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    generate(self.denoiser, self.reward, self.prompts, config)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            counts.append(sum("called a synchronizing" in str(w.message) for w in caught))
        steps = len(self.steps.boards)
        return {"step": counts[0] / steps, "gradient_step": (counts[1] - counts[0]) / steps}

    def predicted_memory(self) -> int:
        """What `plan --dry` says of this run, beside the weights."""
        shape = self.shape
        return predicted_memory(
            self.denoiser.network.config.to_dict(),
            self.reward.network.config.to_dict(),
            self.denoiser.encode(self.prompts).valid.sum(1).tolist(),
            shape.trajectories,
            shape.new_tokens,
            shape.dtype,
            gradient_steps=shape.gradient_steps,
            device=self.reward.device.type,
            suffix=SUFFIX,
            vocabulary_batch=self.vocabulary_batch,
        ).working

    @property
    def table_bytes(self) -> int:
        """A table of a float32 per masked position and token, with everything masked."""
        shape = self.shape
        return 4 * shape.prompts * shape.trajectories * shape.new_tokens * shape.vocabulary


def bench(
    shape: Shape,
    device: torch.device,
    rounds: int = 5,
    faster: bool = False,
    vocabulary_batch: int | None = None,
) -> dict[str, Any]:
    """Measure a shape."""
    made = replace(Bench.of(shape, device), vocabulary_batch=vocabulary_batch)
    operations = made.operations()
    if faster:
        made.make_faster()
    kinds: dict[str, Callable[[], None]] = {
        "ours": made.ours,
        "networks": made.bare,
        "unavoidable": made.unavoidable,
    }
    for warm in kinds.values():
        warm()
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, call in kinds.items():
            seconds[name].append(seconds_of(call, device))
    held = torch.cuda.memory_allocated(device) if device.type == "cuda" else _resident()
    with _peak(device) as peak:
        made.ours()
    median = {name: statistics.median(found) for name, found in seconds.items()}
    floor = median["networks"] + median["unavoidable"]
    steps = len(made.steps.boards)
    parts = made.parts(lambda call: seconds_of(call, device))
    parts = {name: found / steps for name, found in parts.items()}
    parts["rest"] = max(0.0, median["ours"] / steps - sum(parts.values()))
    reference = made.reference()
    return {
        "overhead_over_networks": median["ours"] / median["networks"],
        "overhead_over_floor": median["ours"] / floor,
        "reference_over_ours": None if reference is None else reference / median["ours"],
        "vocabulary_over_unavoidable": (median["ours"] - median["networks"])
        / median["unavoidable"],
        "tables": peak[0] / made.table_bytes,
        "peak_memory_bytes": peak[0],
        "held_before_bytes": held,
        "predicted_memory_bytes": made.predicted_memory(),
        "matrix_rate": made.matrix_rate(),
        "network_operations": operations,
        "host_waits": made.waits(),
        "seconds_per_step": median["ours"] / steps,
        "steps": steps,
        "parts": parts,
        "seconds": seconds,
        "shape": asdict(shape),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "vocabulary_batch": vocabulary_batch,
        "settings": json.loads(made.config.to_json()),
        "seeds": [made.config.seed],
        "commit": commit(),
        "versions": versions(),
    }


def _gradient(rewards: Tensor, mixed: Tensor) -> Tensor:
    return torch.autograd.grad(rewards, mixed)[0]


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """How long a call takes, with all that it has left to a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


@contextmanager
def _peak(device: torch.device) -> Iterator[list[int]]:
    """How many bytes more than before were held at the most. On a CPU by looking each millisecond
    at what the process has in memory.
    """
    found = [0]
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield found
        found[0] = torch.cuda.max_memory_allocated(device) - before
        return
    _give_back()
    before, done = _resident(), threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            found[0] = max(found[0], _resident() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


def _give_back() -> None:
    """Have the C library return what has been freed: else it would count as held before."""
    with suppress(OSError, AttributeError):  # where it is not that of GNU
        ctypes.CDLL(None).malloc_trim(0)


def _resident() -> int:
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


SHOWN = {
    "overhead_over_networks": "ours / networks",
    "overhead_over_floor": "ours / (networks + unavoidable)",
    "reference_over_ours": "the slow reference of the tests / ours",
    "vocabulary_over_unavoidable": "(ours - networks) / unavoidable",
    "tables": "peak memory, in tables of [n, V]",
}


def report(found: dict[str, Any]) -> str:
    """What was measured, in lines."""
    shown = {key: label for key, label in SHOWN.items() if found[key] is not None}
    lines = [f"{label:38} {found[key]:8.2f}" for key, label in shown.items()]
    lines.append(f"{'peak memory':38} {found['peak_memory_bytes'] / 2**30:8.2f} GiB")
    least = found["network_operations"] / found["matrix_rate"]
    for name in ("networks", "ours"):
        share = least / statistics.median(found["seconds"][name])
        lines.append(f"{name + ', of the matrix rate':38} {share:8.2f}")
    if found["host_waits"]:
        waits = found["host_waits"]
        lines.append(f"{'host waits, a step':38} {waits['step']:8.1f}")
        lines.append(f"{'host waits, a gradient step':38} {waits['gradient_step']:8.1f}")
    lines.append(f"{'a step that commits':38} {1000 * found['seconds_per_step']:8.1f} ms, of it")
    lines += [
        f"  {name:36} {1000 * value:8.1f} ms (by itself)" for name, value in found["parts"].items()
    ]
    low_high = {name: (min(times), max(times)) for name, times in found["seconds"].items()}
    lines += [
        f"{name:38} {statistics.median(found['seconds'][name]):8.3f} s ({low:.3f} to {high:.3f})"
        for name, (low, high) in low_high.items()
    ]
    return "\n".join(lines)
