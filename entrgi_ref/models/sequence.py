"""A sequence-classification model as a `Reward`: the score at the last token of a conversation."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from .. import checks
from ..protocols import Denoiser
from . import checkpoints
from .adapters import Adapter
from .causal import CausalReward, Conversations
from .checkpoints import Network
from .loading import How, Loading
from .reading import hidden_states, require_own_scores
from .replayed import Backbone
from .tokenizers import around_response, ids_of, load_tokenizer, token_strings
from .vocabulary import UNMATCHED, VocabularyMap


@dataclass(frozen=True, eq=False)
class RewardCheckpoint:
    """All of a reward model's checkpoint but its weights. Made by `examine`."""

    folder: Path
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase
    adapter: Adapter | None
    unmatched: str

    architecture: ClassVar[Network] = AutoModelForSequenceClassification

    @classmethod
    def examine(
        cls,
        path: str | Path,
        *,
        revision: str | None = None,
        unmatched: str = "eos",
        adapter: str | Path | None = None,
    ) -> RewardCheckpoint:
        """Look at a checkpoint in a folder or on the hub, without loading its weights.

        Raises `ValueError` if it is not there, is no causal model with one label, or has only
        pickled weights or no chat template. The arguments are those of
        `SequenceReward.from_pretrained`.
        """
        checks.choice("unmatched", unmatched, UNMATCHED)
        folder = checkpoints.locate(path, revision)
        config = cls.readable(folder)
        tokenizer = load_tokenizer(folder)
        checkpoints.require_weights(folder)
        merged = None if adapter is None else Adapter.examine(adapter)
        return cls(folder, config, tokenizer, merged, unmatched)

    @staticmethod
    def readable(folder: Path) -> PretrainedConfig:
        """The configuration, if it is that of a reward model that can be read in two parts.

        Raises `ValueError` naming the field if it is not.
        """
        config = readable_config(
            folder, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, "sequence classifiers"
        )
        if config.num_labels != 1:
            raise ValueError(
                f"num_labels: got {config.num_labels}, expected a reward model with 1; a causal "
                "model is one whose `architectures` say so"
            )
        _require_head(config)
        return config

    def vocabulary(self, tokens: Sequence[str | None]) -> VocabularyMap:
        """Match the strings of the diffusion model's ids with the tokens of the reward model.

        Raises `ValueError` if they have too little in common.
        """
        width = self.config.get_text_config().vocab_size
        known = {token: i for token, i in self.tokenizer.get_vocab().items() if i < width}
        fallback = fallback_of(self.tokenizer, self.folder, width)
        return VocabularyMap.by_string(tokens, known, fallback, self.unmatched)

    def require_room(self, prompts: Sequence[str], new_tokens: int) -> None:
        """Raise `ValueError` if a prompt with its answer takes more positions than there are."""
        for prompt in prompts:
            texts = around_response(self.tokenizer, prompt)
            ids = [ids_of(self.tokenizer, text, "the reward model") for text in texts]
            length = sum(map(len, ids)) + new_tokens
            checkpoints.require_positions("the reward model", length, self.config)

    def load(
        self,
        denoiser: Denoiser,
        *,
        tokens: Sequence[str | None] | None = None,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device | None = None,
        prefix_cache: bool = True,
        cuda_graphs: bool = False,
        micro_batch: int | None = None,
        **how: Unpack[How],
    ) -> CausalReward:
        """Load the weights; see `SequenceReward.from_pretrained`."""
        checks.has("denoiser", denoiser, "a Denoiser", "encode", "decode", "writable")
        home = denoiser.writable.device
        loading = Loading.of(
            dtype,
            home if device is None else device,
            cuda_graphs=cuda_graphs,
            adapter=self.adapter,
            **how,
        )
        checks.boolean("prefix_cache", prefix_cache)
        loading.require_steps(cuda_graphs, micro_batch)
        names = tokens_of(denoiser) if tokens is None else tokens
        require_all(names, denoiser)
        vocabulary = self.vocabulary(names)
        network = loading.network(self.architecture, self.folder, self.config)
        if self.adapter is not None:
            network = self.adapter.merged(network)
        self.require_own(network)
        return self.made(
            network=network,
            tokenizer=self.tokenizer,
            vocabulary=vocabulary.to(home),
            embeddings=vocabulary.embeddings(table_of(network), self.unmatched).to(home),
            eos_id=denoiser.eos_id,
            pad_id=getattr(denoiser, "pad_id", None),
            prefix_cache=prefix_cache,
            cuda_graphs=cuda_graphs,
            micro_batch=micro_batch,
        )

    def require_own(self, network: Network) -> None:
        """Raise `ValueError` if we would read other numbers than the network does itself."""
        require_own_scores(network)

    @staticmethod
    def made(**parts: Any) -> CausalReward:
        """The reward, of its parts."""
        return SequenceReward(**parts)


def tokens_of(denoiser: Denoiser) -> Sequence[str | None]:
    """The string of each id, from the denoiser's `tokens` or its `tokenizer`.

    `ValueError` if it has neither.
    """
    tokens: Sequence[str | None] | None = getattr(denoiser, "tokens", None)
    if tokens is not None:
        return tokens
    tokenizer = getattr(denoiser, "tokenizer", None)
    if tokenizer is None:
        raise ValueError(
            f"denoiser: {type(denoiser).__name__} has neither `tokens` nor a `tokenizer`, by which "
            "its ids are matched with the reward model's; give from_pretrained(tokens=...)"
        )
    return token_strings(tokenizer, len(denoiser.writable))


def require_all(tokens: Sequence[str | None], denoiser: Denoiser) -> None:
    """Raise `ValueError` unless there is a string, or None, for each of the denoiser's ids."""
    if len(tokens) != len(denoiser.writable):
        raise ValueError(
            f"tokens: got {len(tokens)}, expected one for each of the denoiser's "
            f"{len(denoiser.writable)} ids"
        )


@torch.no_grad()
def table_of(network: Network) -> Float[Tensor, "reward_vocabulary d"]:
    """What the network makes of each token: its table of embeddings, scaled if it scales them."""
    embed = network.get_input_embeddings()
    return embed(torch.arange(len(embed.weight), device=embed.weight.device))


@dataclass(frozen=True, eq=False)
class SequenceReward(CausalReward):
    """A frozen reward model with one label. Made by `from_pretrained`."""

    counts_prompt: ClassVar[bool] = True
    again: ClassVar[int] = 0

    @classmethod
    @checks.explained
    def from_pretrained(
        cls,
        path: str | Path,
        denoiser: Denoiser,
        *,
        tokens: Sequence[str | None] | None = None,
        revision: str | None = None,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device | None = None,
        unmatched: str = "eos",
        adapter: str | Path | None = None,
        prefix_cache: bool = True,
        cuda_graphs: bool = False,
        micro_batch: int | None = None,
        **how: Unpack[How],
    ) -> SequenceReward:
        """Load a checkpoint from a folder, or from the hub by its id.

        Args:
            path: a folder with config.json, safetensors shards and a tokenizer with a chat
                template, or a hub id such as `Skywork/Skywork-Reward-V2-Qwen3-1.7B`.
            denoiser: whose answers it will read; the vocabularies are matched.
            tokens: the string of each of the denoiser's ids, None where an id has none. By default
                the denoiser's own `tokens`, or those of its `tokenizer`.
            revision: the hub's branch, tag or commit.
            dtype: see `Dream.from_pretrained`.
            device: by default the denoiser's. On another one it is sent the embeddings of responses
                at each gradient step, and sends their gradients back.
            unmatched: what a token is read as that the reward model lacks: its unknown or else its
                end token (`eos`, as in the authors' code), or nothing (`zero`).
            adapter: a folder with a LoRA adapter to merge, which needs `peft`.
            prefix_cache: whether to read the prefix once or at every gradient step. The results are
                the same.
            cuda_graphs: whether to record what a GPU does in a gradient step and replay it, which
                is faster where Python is what a GPU waits for. The results are the same.
            micro_batch: how many trajectories the network reads at a time in a gradient step. Each
                part is read once more for its backward pass, so that only what one part needs is
                kept. The results are the same. By default all are read together.
            how: what else there is to say of how it is loaded: see `How`.

        Raises:
            ValueError: for what `Loading.of` says; if it is not there, is no causal model with one
                label, has only pickled weights or no chat template; if the vocabularies have too
                little in common, or the adapter does not fit exactly; if what the network makes of
                tokens is not what it makes of their embeddings.
        """
        checkpoint = RewardCheckpoint.examine(
            path, revision=revision, unmatched=unmatched, adapter=adapter
        )
        found = checkpoint.load(
            denoiser,
            tokens=tokens,
            dtype=dtype,
            device=device,
            prefix_cache=prefix_cache,
            cuda_graphs=cuda_graphs,
            micro_batch=micro_batch,
            **how,
        )
        assert isinstance(found, cls)
        return found

    def counting(self, tokens: Int[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
        """Where a score may be taken: as in transformers' own heads not at what they know as
        padding, which for some models is the token that ends a turn.
        """
        pad = self.network.config.get_text_config().pad_token_id
        return torch.ones_like(tokens, dtype=torch.bool) if pad is None else tokens != pad

    def rewards(self, read: Conversations, backbone: Backbone | None = None) -> Float[Tensor, "S"]:
        """The score at the last token that counts."""
        hidden = hidden_states(self.network, read.embedded, read.visible, read.present, backbone)
        index = torch.arange(hidden.shape[1], device=hidden.device)
        last = torch.where(read.counted[:, read.cached :], index, 0).amax(1)
        row = torch.arange(len(hidden), device=hidden.device)
        scores: Tensor = self.network.score(hidden[row, last]).squeeze(-1)
        return scores


def readable_config(
    folder: Path, models: Mapping[type[PretrainedConfig], Any], kind: str
) -> PretrainedConfig:
    """The configuration of a causal network among `models`, if it can be read in two parts.

    Raises `ValueError` naming the field if it cannot.
    """
    config = checkpoints.known_config(folder, models, kind)
    written = checkpoints.read_config(folder)
    if written.get("quantization_config"):
        raise ValueError("quantization_config: quantised checkpoints are not supported")
    # A network that sees pictures too has the fields of its language model apart.
    text = config.get_text_config()
    for part in (config, text):
        _require_full_attention(part)
    for rotations in (*checkpoints.rope_types(written), *checkpoints.rope_types(text.to_dict())):
        if rotations in ("dynamic", "longrope"):
            raise ValueError(
                f"rope_type: got {rotations!r}, which depends on the length of the sequence, so "
                "that a prefix cannot be read once"
            )
    _require_one_reading(getattr(text, "rope_parameters", None))
    return config


def _require_one_reading(rotations: Any) -> None:
    """Raise `ValueError` for rotations of all layers beside some of one kind of layer: a network
    reads the ones or the others. Some versions of transformers add the first to the second.
    """
    if not (isinstance(rotations, Mapping) and "rope_type" in rotations):
        return
    for kind, inner in rotations.items():
        if isinstance(inner, Mapping):
            raise ValueError(
                f"rope_parameters: got {checks.shown(kind, 60)} beside rope_type, which is for all "
                "layers, expected the one or the other"
            )


def _require_full_attention(config: PretrainedConfig) -> None:
    """Raise `ValueError` unless a token sees all that precede it, by a plain mask."""
    sliding = set(getattr(config, "layer_types", None) or []) - {"full_attention"}
    if sliding:
        raise ValueError(
            f"layer_types: got {checks.some(sorted(sliding))}, expected full_attention only"
        )
    if getattr(config, "use_sliding_window", False) not in (False, None):
        raise ValueError("use_sliding_window: got True, which is not supported")
    window = getattr(config, "sliding_window", None)
    if window is not None and not (window == 0 and _has_switch(config)):
        raise ValueError(f"sliding_window: got {window}, which is not supported")
    if getattr(config, "alibi", False):
        raise ValueError(
            "alibi: got True, which is not supported: positions by distance need a plain mask"
        )


def _has_switch(config: PretrainedConfig) -> bool:
    """Whether its kind of network knows the field `use_sliding_window`, and not its file alone.
    Where that is off there is no window, which some write as null and some as 0.
    """
    return "use_sliding_window" in inspect.signature(type(config).__init__).parameters


def _require_head(config: PretrainedConfig) -> None:
    """Raise `ValueError` unless the network of this configuration ends in the layer `score`."""
    network = checkpoints.blank(AutoModelForSequenceClassification, config)
    if not isinstance(getattr(network, "score", None), nn.Module):
        raise ValueError(
            f"checkpoint: {type(network).__name__} does not score the last token of a causal "
            "model, which is the only kind of reward model that is supported"
        )


def fallback_of(tokenizer: PreTrainedTokenizerBase, folder: Path, width: int) -> int:
    """What tokens are read as that the reward model lacks. Source: authors' code."""
    for kind in ("unk", "eos"):
        index = getattr(tokenizer, f"{kind}_token_id")
        if index is not None and index >= width:
            raise ValueError(
                f"checkpoint: the {kind} token of {folder} has the id {index}, but its table of "
                f"embeddings has {width} rows"
            )
        if index is not None:
            return int(index)
    raise ValueError(f"checkpoint: the tokenizer of {folder} has neither unknown nor end token")
