"""What an experiment runs on: Dream with real reward models, or the toy (`toy/`)."""

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
from .experiments import LONGEST_NAME

if TYPE_CHECKING:
    import torch

    from ...models import DenoiserCheckpoint, DiffusionLM
    from ...models.causal import CausalReward
    from ...models.loading import Together


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


SUM = "sum"
"""The name of a weighted sum of rewards."""
SHORTEST = ["?"]
"""Prompts that are as short as can be."""
SMALLER = (
    "the networks do not fit; load them by --dtype bfloat16 or --quantize 8bit, or take a smaller "
    "reward model"
)


@dataclass(eq=False)
class DreamTestbed:
    """A mask predictor and rewards, loaded when they are first needed.

    One reward is held at a time: a reward model, a causal model asked for likelihoods, or the sum
    of several.
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
    reward_weights: Sequence[float] = ()
    """One for each reward, if their sum is the reward of the run."""
    _reward: tuple[str, Any, list[Any]] | None = field(default=None, init=False)
    """The name of the one that is held, the reward, and its networks."""

    def __getstate__(self) -> dict[str, Any]:
        """For a process elsewhere, which examines and loads what it finds there."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.init}

    @property
    def rewards(self) -> tuple[str, ...]:
        return (SUM,) if self.reward_weights else tuple(self.reward_paths)

    @property
    def main_reward(self) -> str:
        return SUM if self.reward_weights else main_of(self.reward_paths)

    def examine(self, new_tokens: int) -> None:
        """A single prompt that is too long is not looked for: the run records it as failed."""
        from ...models import examine_reward

        self.require_loadable()
        self._examined.require_room(SHORTEST, new_tokens)
        for path in self.reward_paths.values():
            reward = examine_reward(path, unmatched=self.unmatched)
            reward.vocabulary(self._examined.tokens)
            reward.require_room(SHORTEST, new_tokens)

    def require_loadable(self) -> None:
        """Raise `ValueError` if this machine cannot load networks so, whatever they are."""
        self._loading.reward.require_steps(self.cuda_graphs, self.micro_batch)

    @cached_property
    def _loading(self) -> Together:
        from ...models.loading import Together

        return Together.of(
            self.dtype,
            self.requested_device,
            self.reward_device,
            quantize=self.quantize,
            offload=self.offload,
            attention=self.attention,
            compiled=self.compiled,
            cuda_graphs=self.cuda_graphs,
        )

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
            "rewards": self._declared_rewards(),
            "main_reward": self.main_reward,
            "dtype": str(self._dtype).removeprefix("torch."),
            **rounded,
            "unmatched": self.unmatched,
            "benchmarks": {benchmark.name: benchmark.source for benchmark in self.benchmarks},
        }

    def _declared_rewards(self) -> dict[str, Any]:
        from ...models import checkpoints

        found = {name: checkpoints.identity(path) for name, path in self.reward_paths.items()}
        if not self.reward_weights:
            return dict(found)
        terms = list(zip(self.reward_weights, found.items(), strict=True))
        said = " + ".join(f"{weight:g} {name}" for weight, (name, _) in terms)
        return {SUM: {"name": said, "parts": [{**one, "weight": a} for a, (_, one) in terms]}}

    @property
    def device(self) -> str:
        import torch

        device = self.denoiser().network.device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)

    @cached_property
    def _denoiser(self) -> DiffusionLM:
        with memory(SMALLER):
            return self._examined.load(compiled=self.compiled, **self._loading.denoiser.options)

    def denoiser(self) -> DiffusionLM:
        return self._denoiser

    def reward(self, name: str) -> Reward:
        if self._reward is None or self._reward[0] != name:
            from ...models import SumOfRewards

            checks.choice("reward", name, self.rewards)
            self._reward = None  # the one before leaves the memory first
            names = self.reward_paths if self.reward_weights else (name,)
            self.denoiser()
            with memory(SMALLER):
                parts = [self._loaded(one) for one in names]
            whole = SumOfRewards.of(parts, self.reward_weights) if self.reward_weights else parts[0]
            self._reward = (name, whole, [part.network for part in parts])
        found: Reward = self._reward[1]
        return found

    def _loaded(self, name: str) -> CausalReward:
        from ...models import examine_reward

        return examine_reward(self.reward_paths[name], unmatched=self.unmatched).load(
            self.denoiser(),
            cuda_graphs=self.cuda_graphs,
            micro_batch=self.micro_batch,
            **self._loading.reward.options,
        )

    def costs(self, reward: str, prompts: Sequence[str], new_tokens: int) -> Costs:
        """By the mean length of the prompts. With the prefix cache a gradient step reads the
        response alone; a text that is scored is read with its prompt.
        """
        denoiser = self.denoiser()
        self.reward(reward)
        assert self._reward is not None
        judged = sum(map(_parameters, self._reward[2]))
        tokens = int(denoiser.encode(prompts).valid.sum())
        length = tokens / len(prompts) + new_tokens
        return Costs(
            denoiser=length * _parameters(denoiser.network),
            reward=new_tokens * judged,
            text=length * judged,
        )

    def gold(self, prompt: str, response: str) -> float | None:
        return None


def main_of(rewards: Mapping[str, str]) -> str:
    """The name of the reward model that is taken where one is wanted."""
    return "1.7B" if "1.7B" in rewards else next(iter(rewards))


def _parameters(network: Any) -> int:
    """The number of parameters without the table of token embeddings, unless that is the output
    layer too.
    """
    table, head = network.get_input_embeddings().weight, network.get_output_embeddings()
    looked_up = head is None or head.weight is not table
    return sum(_size(p) for p in network.parameters() if not (p is table and looked_up))


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
        if not checks.is_name(name):  # files and tables of the results are named by it
            raise ValueError(
                f"reward: got the name {name!r:.60} in {one!r:.60}, expected one without /"
            )
        if len(name.encode()) > LONGEST_NAME:
            raise ValueError(
                f"reward: got the name {name!r:.60}, expected one of at most {LONGEST_NAME} bytes"
            )
        if name in paths:
            raise ValueError(f"reward: {name!r} is given twice; name them by NAME=PATH")
        paths[name] = path
    return paths


SIZES = {path: size for size, path in SKYWORK.items()}
