"""What an experiment runs on: Dream with real reward models, or the toy, which hands itself in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ... import checks
from ...commands.memory import memory
from ...commands.pairs import SKYWORK
from ...protocols import Denoiser, Reward
from .benchmarks import Benchmark
from .costs import Costs

if TYPE_CHECKING:
    import torch

    from ...models import DenoiserCheckpoint, DiffusionLM, SequenceReward
    from ...models.loading import How


class Testbed(Protocol):
    """Networks, benchmarks, and what only the testbed can know of an answer."""

    @property
    def rewards(self) -> tuple[str, ...]:
        """The names of its reward models, the smallest first."""

    @property
    def main_reward(self) -> str:
        """The one that guides where nothing else is said."""

    @property
    def benchmarks(self) -> Sequence[Benchmark]:
        """Its benchmarks."""

    @property
    def declaration(self) -> Mapping[str, Any]:
        """What decides its results: part of a run's fingerprint."""

    @property
    def device(self) -> str:
        """What it runs on, in words."""

    def examine(self, new_tokens: int) -> None:
        """Raise `ValueError` for all that can be known to be wrong before weights are loaded, with
        answers of `new_tokens` tokens.
        """

    def denoiser(self) -> Denoiser:
        """The mask predictor."""

    def reward(self, name: str) -> Reward:
        """One of the reward models."""

    def costs(self, reward: str, prompts: Sequence[str], new_tokens: int) -> Costs:
        """What each network costs per sequence, for methods at equal compute."""

    def gold(self, prompt: str, response: str) -> float | None:
        """The score that a program gives an answer, if there is one."""


SHORTEST = ["?"]
"""Prompts that are as short as can be."""
SMALLER = (
    "the networks do not fit; load them by --dtype bfloat16 or --quantize 8bit, or take a smaller "
    "reward model"
)


@dataclass(eq=False)
class DreamTestbed:
    """Dream and sequence-classification rewards, loaded when they are first needed.

    One reward model is held at a time.
    """

    path: str
    reward_paths: Mapping[str, str]
    """Name -> folder or hub id."""
    benchmarks: Sequence[Benchmark]
    dtype: str = "auto"
    requested_device: str = "auto"
    unmatched: str = "eos"
    """What tokens are read as that a reward model lacks."""
    compiled: bool = False
    """This and the next six change how fast a run is and what memory it takes, not what it is."""
    cuda_graphs: bool = False
    micro_batch: int | None = None
    vocabulary_batch: int | None = None
    reward_device: str | None = None
    offload: bool = False
    attention: str = "sdpa"
    quantize: Mapping[str, str] = field(default_factory=dict)
    """`denoiser` or `reward` -> 8bit or 4bit, for networks of which the weights are rounded."""
    _reward: tuple[str, Any] | None = field(default=None, init=False)

    def __getstate__(self) -> dict[str, Any]:
        """For a process elsewhere, which examines and loads what it finds there."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.init}

    @property
    def rewards(self) -> tuple[str, ...]:
        return tuple(self.reward_paths)

    @property
    def main_reward(self) -> str:
        return main_of(self.reward_paths)

    def examine(self, new_tokens: int) -> None:
        """A single prompt that is too long is not looked for: the run records it as failed."""
        from ...models import RewardCheckpoint

        self.require_loadable()
        self._examined.require_room(SHORTEST, new_tokens)
        for path in self.reward_paths.values():
            reward = RewardCheckpoint.examine(path, unmatched=self.unmatched)
            reward.vocabulary(self._examined.tokens)
            reward.require_room(SHORTEST, new_tokens)

    def require_loadable(self) -> None:
        """Raise `ValueError` if this machine cannot load networks so, whatever they are."""
        from ...models.loading import Loading

        denoiser = Loading.of(
            self.dtype, self.requested_device, compiled=self.compiled, **self._how("denoiser")
        )
        Loading.of(
            denoiser.dtype,
            denoiser.device if self.reward_device is None else self.reward_device,
            cuda_graphs=self.cuda_graphs,
            field="device" if self.reward_device is None else "reward_device",
            **self._how("reward"),
        )

    def _how(self, network: str) -> How:
        return {
            "quantize": self.quantize.get(network),
            "offload": self.offload,
            "attention": self.attention,
        }

    @property
    def _dtype(self) -> torch.dtype:
        """Of both networks, wherever the reward model is."""
        from ...models import checkpoints

        return checkpoints.dtype_of(self.dtype, checkpoints.device_of(self.requested_device))

    @cached_property
    def _examined(self) -> DenoiserCheckpoint:
        from ...models import DenoiserCheckpoint

        return DenoiserCheckpoint.examine(self.path)

    @cached_property
    def declaration(self) -> Mapping[str, Any]:
        from ...models import checkpoints

        rounded = {"quantize": dict(self.quantize)} if self.quantize else {}
        return {
            "testbed": "dream",
            "denoiser": checkpoints.identity(self.path),
            "rewards": {
                name: checkpoints.identity(path) for name, path in self.reward_paths.items()
            },
            "main_reward": self.main_reward,
            "dtype": str(self._dtype).removeprefix("torch."),
            **rounded,
            "unmatched": self.unmatched,
            "benchmarks": {benchmark.name: benchmark.source for benchmark in self.benchmarks},
        }

    @property
    def device(self) -> str:
        import torch

        device = self.denoiser().network.device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)

    @cached_property
    def _denoiser(self) -> DiffusionLM:
        with memory(SMALLER):
            return self._examined.load(
                dtype=self.dtype,
                device=self.requested_device,
                compiled=self.compiled,
                **self._how("denoiser"),
            )

    def denoiser(self) -> DiffusionLM:
        return self._denoiser

    def reward(self, name: str) -> SequenceReward:
        if self._reward is None or self._reward[0] != name:
            from ...models import SequenceReward

            checks.choice("reward", name, self.rewards)
            self._reward = None  # the one before leaves the memory first
            denoiser = self.denoiser()
            with memory(SMALLER):
                loaded = SequenceReward.from_pretrained(
                    self.reward_paths[name],
                    denoiser,
                    dtype=self._dtype,
                    device=self.reward_device,
                    unmatched=self.unmatched,
                    cuda_graphs=self.cuda_graphs,
                    micro_batch=self.micro_batch,
                    **self._how("reward"),
                )
            self._reward = (name, loaded)
        found: SequenceReward = self._reward[1]
        return found

    def costs(self, reward: str, prompts: Sequence[str], new_tokens: int) -> Costs:
        """By the mean length of the prompts. With the prefix cache a gradient step reads the
        response alone; a text that is scored is read with its prompt.
        """
        denoiser, judge = self.denoiser(), self.reward(reward)
        tokens = int(denoiser.encode(prompts).valid.sum())
        length = tokens / len(prompts) + new_tokens
        return Costs(
            denoiser=length * _parameters(denoiser.network),
            reward=new_tokens * _parameters(judge.network),
            text=length * _parameters(judge.network),
        )

    def gold(self, prompt: str, response: str) -> float | None:
        return None


def main_of(rewards: Mapping[str, str]) -> str:
    """The name of the reward model that is taken where one is wanted."""
    return "1.7B" if "1.7B" in rewards else next(iter(rewards))


def _parameters(network: Any) -> int:
    """The number of parameters without the table of token embeddings."""
    table = network.get_input_embeddings().weight
    return sum(_size(p) for p in network.parameters() if p is not table)


def _size(weight: Any) -> int:
    """How many numbers a weight has, also where several are packed into one."""
    packed = getattr(weight, "quant_state", None)
    return int(weight.numel()) if packed is None else prod(packed.shape)


def reward_paths(given: Sequence[str]) -> dict[str, str]:
    """The reward models of `--reward`: `NAME=PATH`, or `PATH` alone, which is named by its last
    part; the paper's three without any.
    """
    if not given:
        return dict(SKYWORK)
    paths: dict[str, str] = {}
    for one in given:
        name, equals, path = one.partition("=")
        if Path(one).is_dir():
            name, path = Path(one).resolve().name, one
        elif not equals:
            hub_id = one.partition("@")[0]
            name, path = SIZES.get(hub_id, Path(hub_id).name), one
        if name in paths:
            raise ValueError(f"reward: {name!r} is given twice; name them by NAME=PATH")
        paths[name] = path
    return paths


SIZES = {path: size for size, path in SKYWORK.items()}
