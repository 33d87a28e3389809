"""Several rewards as one, and which kind of reward a checkpoint is."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from .. import checks
from ..protocols import BoundReward, Reward, StepReward, infilled
from . import checkpoints
from .likelihood import LikelihoodCheckpoint
from .sequence import RewardCheckpoint


def examine_reward(
    path: str | Path,
    *,
    revision: str | None = None,
    unmatched: str = "eos",
    adapter: str | Path | None = None,
) -> RewardCheckpoint:
    """Look at a checkpoint of either kind, without loading its weights: a sequence classifier is a
    reward model, and a causal model is asked how likely it finds an answer.

    Its config.json says which it is. Arguments and errors are those of `RewardCheckpoint.examine`.
    """
    folder = checkpoints.locate(path, revision)
    written = checkpoints.read_config(folder).get("architectures")
    names = written if isinstance(written, list) else []
    causal = any(
        isinstance(name, str) and (name.endswith("ForCausalLM") or name in CAUSAL) for name in names
    )
    kind = LikelihoodCheckpoint if causal else RewardCheckpoint
    return kind.examine(folder, unmatched=unmatched, adapter=adapter)


CAUSAL = frozenset(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
"""Transformers' causal models, of which some have other names, such as `GPT2LMHeadModel`."""


@dataclass(frozen=True, eq=False)
class SumOfRewards:
    r"""$\sum_i a_i R_i$, a `Reward` of several.

    Soft and hard embeddings are linear in the table of embeddings, so the tables of all rewards
    stand side by side as one, and each reward reads its own columns of what is mixed. The errors E
    and D of the records are those of all columns together. Source: ours.
    """

    parts: tuple[Reward, ...]
    weights: tuple[float, ...]
    embeddings: Float[Tensor, "V d"]
    """All tables, [V, d_1 + d_2 + ...]."""

    @classmethod
    def of(cls, rewards: Sequence[Reward], weights: Sequence[float]) -> SumOfRewards:
        """Raises `ValueError` unless there is one finite weight, not 0, for each of one or more
        rewards whose tables have the same number of rows.
        """
        if not isinstance(rewards, Sequence):
            raise ValueError(f"rewards: got {checks.shown(rewards, 60)}, expected a list of them")
        for reward in rewards:
            checks.has("rewards", reward, "a Reward", "embeddings", "bind", "score")
            checks.shape("rewards, embeddings", reward.embeddings, (None, None), "[V, d]")
            checks.floating(**{"rewards, embeddings": reward.embeddings})
        require_weights(len(rewards), weights)
        rows = sorted({len(reward.embeddings) for reward in rewards})
        if len(rows) > 1:
            raise ValueError(
                f"rewards: got tables of {checks.some(rows)} rows, expected the same vocabulary"
            )
        table = torch.cat([reward.embeddings for reward in rewards], 1)
        return cls(tuple(rewards), tuple(map(float, weights)), table)

    def bind(self, prompts: Sequence[str], trajectories: int) -> BoundSum:
        """Read each prompt once by each reward."""
        bound = tuple(part.bind(prompts, trajectories) for part in self.parts)
        for one in bound:
            checks.has("reward.bind", one, "a BoundReward", "at")
        return BoundSum(self, bound)

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Float[Tensor, "S"]:
        """The weighted sum of the scores of finished texts."""
        found = [part.score(prompts, responses) for part in self.parts]
        return self.weighted(found, len(responses))

    def weighted(
        self, rewards: Sequence[Float[Tensor, "S"]], rows: int | None = None
    ) -> Float[Tensor, "S"]:
        """The sum of the rewards of each part, on the device of the embeddings. `rows` is how many
        of each to insist on.
        """
        device = self.embeddings.device
        for reward in rewards:
            checks.shape("reward", reward, (rows,), "[S], one number per trajectory or response")
            if reward.is_complex() or reward.dtype == torch.bool:
                raise ValueError(f"reward: got {reward.dtype}, expected real numbers")
            rows = len(reward)
        terms = [a * r.to(device) for a, r in zip(self.weights, rewards, strict=True)]
        return torch.stack(terms).sum(0)


@dataclass(frozen=True, eq=False)
class BoundSum:
    """All rewards with their prompts."""

    total: SumOfRewards
    parts: tuple[BoundReward, ...]

    def infilling(self, given: Bool[Tensor, "S N"], present: Bool[Tensor, "S N"]) -> BoundSum:
        """The same for answers with blanks: see `BoundReward`."""
        sides = zip(self.total.parts, self.parts, strict=True)
        told = tuple(infilled(reward, bound, given, present) for reward, bound in sides)
        return BoundSum(self.total, told)

    def at(self, response: Int[Tensor, "S N"], masked: Bool[Tensor, "S N"]) -> StepSum:
        """Fix the tokens at the positions that are not masked."""
        fixed = tuple(part.at(response, masked) for part in self.parts)
        for one in fixed:
            checks.has("reward.at", one, "a StepReward", "embeddings")
        return StepSum(self.total, fixed)


@dataclass(frozen=True, eq=False)
class StepSum:
    """All rewards with prompts and committed tokens fixed."""

    total: SumOfRewards
    parts: tuple[StepReward, ...]

    @property
    def embeddings(self) -> Float[Tensor, "V d"]:
        """All tables."""
        return self.total.embeddings

    def __call__(
        self, mixed: Float[Tensor, "n d"], likeliest: Int[Tensor, "n"]
    ) -> Float[Tensor, "S"]:
        """The weighted sum, each reward with its own columns."""
        widths = [part.embeddings.shape[1] for part in self.parts]
        sides = zip(self.parts, mixed.split(widths, 1), strict=True)
        # A table that stands beside a wider one has been widened with it.
        return self.total.weighted(
            [part(own.to(part.embeddings.dtype), likeliest) for part, own in sides]
        )


def require_weights(rewards: int, weights: Sequence[float]) -> None:
    """Raise `ValueError` unless there is one finite weight, not 0, for each reward."""
    if not isinstance(weights, Sequence):
        raise ValueError(f"reward_weight: got {checks.shown(weights, 60)}, expected a list of them")
    if len(weights) != rewards or not rewards:
        raise ValueError(
            f"reward_weight: got {len(weights)} for {rewards} rewards, expected one for each"
        )
    for weight in weights:
        try:
            real = isinstance(weight, numbers.Real) and not isinstance(weight, bool)
            finite = real and math.isfinite(weight) and weight != 0
        except OverflowError:  # an integer that no float holds
            finite = False
        if not finite:
            got = checks.shown(weight, 60)
            raise ValueError(f"reward_weight: got {got}, expected a finite number, not 0")
