"""A sequence-classification model as a `Reward`, differentiable through the response it reads.

The conversation is prefix + response + suffix, where prefix and suffix are what the reward model's
own chat template writes around an answer. The prefix does not change while an answer is denoised,
and no token of it can see the answer, so it is read once and its keys and values are kept: gradient
steps read the response and the suffix alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.cache_utils import Cache, DynamicLayer

from .. import checks
from . import checkpoints
from .checkpoints import Network
from .dream import Dream, positions
from .tokenizers import around_response, conversation, load_tokenizer, padded
from .vocabulary import VocabularyMap

SCORE_BATCH = 16
"""How many finished texts are scored at a time."""


@dataclass(frozen=True, eq=False)
class SequenceReward:
    """A frozen reward model with one label. Made by `from_pretrained`."""

    network: Network
    tokenizer: PreTrainedTokenizerBase
    vocabulary: VocabularyMap
    embeddings: Float[Tensor, "V d"]
    eos_id: int | None
    pad_id: int | None
    """The diffusion model's ids, by which the end of an answer is known."""
    prefix_cache: bool

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        denoiser: Dream,
        *,
        revision: str | None = None,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device | None = None,
        unmatched: str = "eos",
        adapter: str | Path | None = None,
        prefix_cache: bool = True,
    ) -> SequenceReward:
        """Load a checkpoint from a folder, or from the hub by its id.

        Args:
            path: a folder with config.json, safetensors shards and a tokenizer with a chat
                template, or a hub id such as `Skywork/Skywork-Reward-V2-Qwen3-1.7B`.
            denoiser: whose answers it will read; the vocabularies are matched.
            revision: the hub's branch, tag or commit.
            dtype: see `Dream.from_pretrained`.
            device: by default the denoiser's.
            unmatched: what a token is read as that the reward model lacks: its unknown or else its
                end token (`eos`, as in the authors' code), or nothing (`zero`).
            adapter: a folder with a LoRA adapter to merge, which needs `peft`.
            prefix_cache: whether to read the prefix once or at every gradient step. The results are
                the same.

        Raises:
            ValueError: if it is not there, is no causal model with one label, has only pickled
                weights or no chat template, or if the vocabularies have too little in common.
        """
        device = checkpoints.device_of(denoiser.network.device if device is None else device)
        dtype = checkpoints.dtype_of(dtype, device)
        folder = checkpoints.locate(path, revision)
        config = _config(folder)
        tokenizer = load_tokenizer(folder)
        network = checkpoints.load(
            AutoModelForSequenceClassification, folder, dtype=dtype, device=device, config=config
        )
        if not isinstance(getattr(network, "score", None), nn.Module):
            raise ValueError(
                f"checkpoint: {type(network).__name__} does not score the last token of a causal "
                "model, which is the only kind of reward model that is supported"
            )
        if adapter is not None:
            network = checkpoints.merge_adapter(network, adapter)
        table = network.get_input_embeddings().weight
        vocabulary = VocabularyMap.by_string(
            denoiser.tokens,
            {token: i for token, i in tokenizer.get_vocab().items() if i < len(table)},
            fallback=_fallback(tokenizer, folder),
        )
        return cls(
            network=network,
            tokenizer=tokenizer,
            vocabulary=vocabulary,
            embeddings=vocabulary.embeddings(table, unmatched),
            eos_id=denoiser.eos_id,
            pad_id=denoiser.pad_id,
            prefix_cache=prefix_cache,
        )

    @torch.no_grad()
    def bind(self, prompts: Sequence[str], trajectories: int) -> BoundSequenceReward:
        """Read each prompt once."""
        around = [around_response(self.tokenizer, prompt) for prompt in prompts]
        suffixes = {suffix for _, suffix in around}
        if len(suffixes) != 1:
            raise ValueError("checkpoint: what its chat template writes after an answer varies")
        tokens, valid = self._tokens([prefix for prefix, _ in around])
        prefix = self.network.get_input_embeddings()(tokens)
        suffix = self._tokens([suffixes.pop()])[0]
        cache = None
        # Without a suffix all that follows the prompt may be hidden, and the prompt's last token is
        # the one that is scored: then it has to be read.
        if self.prefix_cache and suffix.shape[1]:
            cache = self._read_prefix(prefix, valid, trajectories)
        return BoundSequenceReward(
            reward=self,
            prefix=None if cache else prefix.repeat_interleave(trajectories, 0),
            cache=cache,
            valid=valid.repeat_interleave(trajectories, 0),
            suffix=self.network.get_input_embeddings()(suffix)[0],
        )

    @torch.no_grad()
    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Float[Tensor, "S"]:
        """The reward of finished texts.

        The text of the whole conversation is tokenised afresh, so this is not quite the input that
        guidance saw. Source: authors' code.
        """
        pairs = zip(prompts, responses, strict=True)
        texts = [conversation(self.tokenizer, prompt, response) for prompt, response in pairs]
        rewards = []
        for start in range(0, len(texts), SCORE_BATCH):
            tokens, valid = self._tokens(texts[start : start + SCORE_BATCH])
            embedded = self.network.get_input_embeddings()(tokens)
            rewards.append(self.read(embedded, valid))
        return torch.cat(rewards)

    def read(
        self,
        embedded: Float[Tensor, "S read d"],
        visible: Bool[Tensor, "S all"],
        cache: Cache | None = None,
    ) -> Float[Tensor, "S"]:
        """The scores of sequences of which the last `read` tokens are given and the rest is cached.

        A score is taken at the last visible token.
        """
        hidden = self._hidden(embedded, visible, cache)
        ahead = visible.shape[1] - embedded.shape[1]
        index = torch.arange(hidden.shape[1], device=hidden.device)
        last = torch.where(visible[:, ahead:], index, 0).amax(1)
        row = torch.arange(len(hidden), device=hidden.device)
        return self.network.score(hidden[row, last]).squeeze(-1)

    def _hidden(
        self,
        embedded: Float[Tensor, "S read d"],
        visible: Bool[Tensor, "S all"],
        cache: Cache | None = None,
    ) -> Float[Tensor, "S read d"]:
        read, length = embedded.shape[1], visible.shape[1]
        checkpoints.require_positions("the reward model", length, self.network)
        at = torch.arange(length, device=visible.device)
        causal = at[-read:, None] >= at
        # A hidden token sees itself: a row with nothing to see would be nan in some kernels.
        itself = at[-read:, None] == at
        seen = causal & visible[:, None, :] | itself
        backbone = getattr(self.network, self.network.base_model_prefix)
        return backbone(
            inputs_embeds=embedded,
            attention_mask=seen[:, None],
            position_ids=positions(visible)[:, -read:],
            past_key_values=cache,
            use_cache=False,
        ).last_hidden_state

    def _read_prefix(
        self, prefix: Float[Tensor, "P prefix d"], valid: Bool[Tensor, "P prefix"], K: int
    ) -> Cache:
        """Keys and values of every layer at the prefix, K times each."""
        cache = Cache(layer_class_to_replicate=DynamicLayer)
        self._hidden(prefix, valid, cache)
        layers: list[Any] = cache.layers
        return Cache(
            layers=[
                _Prefix(layer.keys.repeat_interleave(K, 0), layer.values.repeat_interleave(K, 0))
                for layer in layers
            ]
        )

    def _tokens(self, texts: Sequence[str]) -> tuple[Int[Tensor, "P L"], Bool[Tensor, "P L"]]:
        return padded(self.tokenizer, texts, 0, self.embeddings.device)


class _Prefix(DynamicLayer):
    """One layer's keys and values of the prefix. Reading on from it does not change it.

    Transformers' own layer grows with everything that is read, so that a second gradient step would
    see what the first one read.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor):
        super().__init__()
        self.keys, self.values = keys, values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        return torch.cat([self.keys, key_states], 2), torch.cat([self.values, value_states], 2)


@dataclass(frozen=True, eq=False)
class BoundSequenceReward:
    """The reward model with its prompts read."""

    reward: SequenceReward
    prefix: Float[Tensor, "S prefix d"] | None
    """The prefix's embeddings, to be read at every gradient step; None if it is in the cache."""
    cache: Cache | None
    valid: Bool[Tensor, "S prefix"]
    suffix: Float[Tensor, "suffix d"]

    def at(self, response: Int[Tensor, "S N"], masked: Bool[Tensor, "S N"]) -> SequenceStepReward:
        """Fix the tokens at the positions that are not masked."""
        return SequenceStepReward(self, response, masked)


@dataclass(frozen=True, eq=False)
class SequenceStepReward:
    """The reward model with prompts and committed tokens fixed."""

    bound: BoundSequenceReward
    response: Int[Tensor, "S N"]
    masked: Bool[Tensor, "S N"]

    @property
    def embeddings(self) -> Float[Tensor, "V d"]:
        """The embedding table in the diffusion vocabulary's order."""
        return self.bound.reward.embeddings

    def __call__(
        self, mixed: Float[Tensor, "n d"], likeliest: Int[Tensor, "n"]
    ) -> Float[Tensor, "S"]:
        """The reward of each trajectory, with `mixed` embeddings at its masked positions."""
        bound = self.bound
        committed = F.embedding(self.response, self.embeddings)
        response = committed.masked_scatter(self.masked[..., None], mixed)
        suffix = bound.suffix.expand(len(response), -1, -1)
        prefix = [] if bound.prefix is None else [bound.prefix]
        after = bound.valid.new_ones(suffix.shape[:2])
        visible = torch.cat([bound.valid, self._visible(likeliest), after], 1)
        embedded = torch.cat([*prefix, response, suffix], 1)
        return bound.reward.read(embedded, visible, bound.cache)

    def _visible(self, likeliest: Int[Tensor, "n"]) -> Bool[Tensor, "S N"]:
        """Which tokens of the response the reward model attends to: none after the first end of
        sequence, and no padding. Masked positions are judged by their most likely token.

        Dream's end of sequence is its padding, so that the end itself is hidden too. Source:
        authors' code.
        """
        reward = self.bound.reward
        likely = self.response.masked_scatter(self.masked, likeliest)
        visible = torch.ones_like(self.masked)
        if reward.eos_id is not None:
            end = likely == reward.eos_id
            visible = end.cumsum(1) - end.long() == 0
        return visible if reward.pad_id is None else visible & (likely != reward.pad_id)


def _config(folder: Path) -> PretrainedConfig:
    """The configuration of a reward model, if it is one that can be read in two parts."""
    config = checkpoints.known_config(
        folder, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, "sequence classifiers"
    )
    written = checkpoints.read_config(folder)
    position = checkpoints.rope(written)["rope_type"]
    if written.get("quantization_config"):
        raise ValueError("quantization_config: quantised checkpoints are not supported")
    if config.num_labels != 1:
        raise ValueError(f"num_labels: got {config.num_labels}, expected a reward model with 1")
    sliding = set(getattr(config, "layer_types", None) or []) - {"full_attention"}
    if sliding:
        raise ValueError(
            f"layer_types: got {checks.some(sorted(sliding))}, expected full_attention only"
        )
    if getattr(config, "use_sliding_window", False) not in (False, None):
        raise ValueError("use_sliding_window: got True, which is not supported")
    if getattr(config, "sliding_window", None) is not None:  # those with a switch have put it out
        raise ValueError(f"sliding_window: got {config.sliding_window}, which is not supported")
    if position in ("dynamic", "longrope"):
        raise ValueError(
            f"rope_type: got {position!r}, which depends on the length of the sequence, so that a "
            "prefix cannot be read once"
        )
    return config


def _fallback(tokenizer: PreTrainedTokenizerBase, folder: Path) -> int:
    """What tokens are read as that the reward model lacks. Source: authors' code."""
    for index in (tokenizer.unk_token_id, tokenizer.eos_token_id):
        if index is not None:
            return int(index)
    raise ValueError(f"checkpoint: the tokenizer of {folder} has neither unknown nor end token")
