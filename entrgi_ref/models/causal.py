"""A causal network as a `Reward`, differentiable through the response it reads.

The conversation is prefix + response + suffix, where prefix and suffix are what the model's own
chat template writes around an answer. The prefix does not change while an answer is denoised, and
no token of it can see the answer, so it is read once and its keys and values are kept: gradient
steps read the response and the suffix alone.

What is made of the network's output is left to `sequence`, a score, and to `likelihood`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedTokenizerBase
from transformers.cache_utils import Cache

from .. import checks
from . import checkpoints
from .checkpoints import Network
from .reading import Responses, backbone_of, read_prefix, rows_of
from .replayed import Backbone, replayed
from .tokenizers import answered, around_response, padded, warn_of_special
from .vocabulary import VocabularyMap

SCORE_BATCH = 16
"""How many finished texts are scored at a time."""


@dataclass(frozen=True, eq=False)
class Conversations:
    """What a network reads: sequences of which the last `read` tokens are given as embeddings, and
    what is before them is cached.
    """

    embedded: Float[Tensor, "S read d"]
    visible: Bool[Tensor, "S all"]
    """Which tokens those behind them see."""
    tokens: Int[Tensor, "S all"]
    counted: Bool[Tensor, "S all"]
    """Which tokens count in the reward."""
    present: Bool[Tensor, "S all"] | None = None
    """What takes a position: by default all but the padding on the left."""

    @property
    def cached(self) -> int:
        """How many tokens are."""
        return self.visible.shape[1] - self.embedded.shape[1]

    def __getitem__(self, rows: slice) -> Conversations:
        """Some of them."""
        sides = self.embedded[rows], self.visible[rows], self.tokens[rows], self.counted[rows]
        return Conversations(*sides, None if self.present is None else self.present[rows])


@dataclass(frozen=True, eq=False)
class CausalReward(ABC):
    """A frozen causal network as a reward: what `SequenceReward` and `LikelihoodReward` share."""

    network: Network
    tokenizer: PreTrainedTokenizerBase
    vocabulary: VocabularyMap
    embeddings: Float[Tensor, "V d"]
    """In the diffusion vocabulary's order, on the denoiser's device."""
    eos_id: int | None
    pad_id: int | None
    """The diffusion model's ids, by which the end of an answer is known."""
    prefix_cache: bool = True
    cuda_graphs: bool = False
    micro_batch: int | None = None

    counts_prompt: ClassVar[bool]
    """Whether a token of the prompt may count."""
    again: ClassVar[int]
    """How many of the prefix's last tokens are read with what follows."""

    @abstractmethod
    def counting(self, tokens: Int[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
        """Which tokens may count, by what they are."""

    @abstractmethod
    def rewards(self, read: Conversations, backbone: Backbone | None = None) -> Float[Tensor, "S"]:
        """The rewards of conversations. `backbone` as in `hidden_states`."""

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        found: torch.device = self.network.get_input_embeddings().weight.device
        return found

    def bind(self, prompts: Sequence[str], trajectories: int) -> BoundCausalReward:
        """Tokenise the prompts. The network reads each of them once, when it is first asked:
        without guidance never.
        """
        checks.prompts(prompts)
        checks.integer("trajectories", trajectories, minimum=1)
        warn_of_special(self.tokenizer, prompts)
        around = [around_response(self.tokenizer, prompt) for prompt in prompts]
        suffixes = {suffix for _, suffix in around}
        if len(suffixes) != 1:
            raise ValueError("checkpoint: what its chat template writes after an answer varies")
        tokens, valid = self._tokens([prefix for prefix, _ in around])
        suffix = self._tokens([suffixes.pop()])[0][0]
        return BoundCausalReward(self, trajectories, tokens, valid, suffix)

    @torch.no_grad()
    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Float[Tensor, "S"]:
        """The reward of finished texts.

        The text of the whole conversation is tokenised afresh, so this is not quite the input that
        guidance saw. Source: authors' code.
        """
        checks.prompts(prompts)
        checks.prompts(responses, "responses")
        if len(prompts) != len(responses):
            raise ValueError(f"responses: got {len(responses)}, expected one for each prompt")
        pairs = list(zip(prompts, responses, strict=True))
        rewards = []
        for start in range(0, len(pairs), SCORE_BATCH):
            some = pairs[start : start + SCORE_BATCH]
            tokens, valid = self._tokens([answered(self.tokenizer, *pair) for pair in some])
            # Rotations have no last position: a text may be longer than was guided, but not much.
            most = 4 * checkpoints.positions_of(self.network.config)
            if tokens.shape[1] > most:
                raise ValueError(
                    f"responses: got a text of {tokens.shape[1]} tokens, expected at most {most}, "
                    "four times the positions that the reward model has"
                )
            counted = valid & self.counting(tokens)
            if not self.counts_prompt:
                before = [around_response(self.tokenizer, prompt)[0] for prompt, _ in some]
                counted &= valid.cumsum(1) > self._tokens(before)[1].sum(1)[:, None]
            embedded = self.network.get_input_embeddings()(tokens)
            rewards.append(self.rewards(Conversations(embedded, valid, tokens, counted)))
        return torch.cat(rewards).to(self.embeddings.device)

    def _tokens(self, texts: Sequence[str]) -> tuple[Int[Tensor, "P L"], Bool[Tensor, "P L"]]:
        width = len(self.network.get_input_embeddings().weight)
        return padded(self.tokenizer, texts, 0, self.device, "the reward model", width)


@dataclass(frozen=True, eq=False)
class BoundCausalReward:
    """The network with its prompts."""

    reward: CausalReward
    trajectories: int
    tokens: Int[Tensor, "P prefix"]
    real: Bool[Tensor, "P prefix"]
    """False at the padding on the left."""
    suffix: Int[Tensor, "suffix"]
    given: Bool[Tensor, "S N"] | None = None
    """In infilling, the tokens of the template."""
    present: Bool[Tensor, "S N"] | None = None
    """In infilling, False at the padding behind a shorter template, if there is one."""

    @checks.explained
    def infilling(
        self, given: Bool[Tensor, "S N"], present: Bool[Tensor, "S N"]
    ) -> BoundCausalReward:
        """The same for answers with blanks: see `BoundReward`."""
        return replace(self, given=given, present=None if present.all() else present)

    @cached_property
    def prefix(self) -> Prefix:
        """The prefix, read or to be read."""
        reward, K = self.reward, self.trajectories
        counted = self.real & reward.counting(self.tokens) & reward.counts_prompt
        again = self.tokens.shape[1]
        with torch.no_grad():
            embedded = reward.network.get_input_embeddings()(self.tokens)
            # Where nothing that follows an answer counts, an answer that ends at once is scored at
            # the prompt: then the prompt has to be read.
            behind = not reward.counts_prompt or bool(reward.counting(self.suffix).any())
            cache = None
            if reward.prefix_cache and behind and again > reward.again:
                again = reward.again
                end = self.tokens.shape[1] - again
                cache = read_prefix(reward.network, embedded[:, :end], self.real[:, :end], K)
            embedded = embedded[:, embedded.shape[1] - again :]
        tokens, real, counted, embedded = (
            side.repeat_interleave(K, 0) for side in (self.tokens, self.real, counted, embedded)
        )
        return Prefix(tokens, real, counted, embedded, cache)

    @cached_property
    def after(self) -> Float[Tensor, "suffix d"]:
        """The embeddings of the suffix."""
        found: Tensor = self.reward.network.get_input_embeddings()(self.suffix)
        return found

    @cached_property
    def backbone(self) -> Backbone:
        """The network, which reads on from the prefix if it has read it."""
        backbone = backbone_of(self.reward.network, self.prefix.cache)
        return replayed(backbone) if self.reward.cuda_graphs else backbone

    def rewards(self, read: Conversations) -> Float[Tensor, "S"]:
        """The rewards of all trajectories, read together or some at a time."""
        reward, S = self.reward, len(read.embedded)
        size = reward.micro_batch
        if size is None or size >= S:
            return reward.rewards(read, self.backbone)
        cache, parts = self.prefix.cache, []
        for start in range(0, S, size):
            part = None if cache is None else rows_of(cache, start, start + size)
            parts.append(
                checkpoint(
                    reward.rewards,
                    read[start : start + size],
                    backbone_of(reward.network, part),
                    use_reentrant=False,
                    preserve_rng_state=False,  # nothing in a frozen network is random
                )
            )
        return torch.cat(parts)

    @checks.explained
    def at(self, response: Int[Tensor, "S N"], masked: Bool[Tensor, "S N"]) -> CausalStepReward:
        """Fix the tokens at the positions that are not masked.

        Raises `ValueError` if the network has too few positions for such an answer.
        """
        reward = self.reward
        length = self.tokens.shape[1] + response.shape[1] + len(self.suffix)
        checkpoints.require_positions("the reward model", length, reward.network.config)
        fixed = reward.embeddings, reward.eos_id, reward.pad_id, self.given, self.present
        return CausalStepReward(self, Responses(response, masked, *fixed))


@dataclass(frozen=True, eq=False)
class Prefix:
    """What stands before a response, for each trajectory."""

    tokens: Int[Tensor, "S prefix"]
    real: Bool[Tensor, "S prefix"]
    counted: Bool[Tensor, "S prefix"]
    embedded: Float[Tensor, "S again d"]
    """What is read at every gradient step: all of it, or what the cache leaves."""
    cache: Cache | None


@dataclass(frozen=True, eq=False)
class CausalStepReward:
    """The network with prompts and committed tokens fixed."""

    bound: BoundCausalReward
    responses: Responses

    @property
    def embeddings(self) -> Float[Tensor, "V d"]:
        """The embedding table in the diffusion vocabulary's order."""
        return self.responses.embeddings

    @checks.explained
    def __call__(
        self, mixed: Float[Tensor, "n d"], likeliest: Int[Tensor, "n"]
    ) -> Float[Tensor, "S"]:
        """The reward of each trajectory, with `mixed` embeddings at its masked positions."""
        bound, reward, before = self.bound, self.bound.reward, self.bound.prefix
        response, likely, seen = self.responses.filled(mixed, likeliest)
        device, S = before.real.device, len(response)
        ids, seen = reward.vocabulary.ids[likely].to(device), seen.to(device)
        suffix, after = bound.suffix.expand(S, -1), bound.after.expand(S, -1, -1)
        behind, present = torch.ones_like(suffix, dtype=torch.bool), self.responses.present
        if present is not None:
            present = torch.cat([before.real, present.to(device), behind], 1)
        counted = [before.counted, seen & reward.counting(ids), reward.counting(suffix)]
        read = Conversations(
            torch.cat([before.embedded, response.to(device), after], 1),
            torch.cat([before.real, seen, behind], 1),
            torch.cat([before.tokens, ids, suffix], 1),
            torch.cat(counted, 1),
            present,
        )
        return bound.rewards(read).to(mixed.device)
