"""Dream-7B as a `Denoiser`, on transformers' own Qwen2.

Dream's weights and maths are those of Qwen2, but every position attends to every other. So nothing
of the checkpoint's own code is needed: its configuration is translated field by field, and what
has no translation is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from ..protocols import Prompts, prompt_key
from . import checkpoints
from .checkpoints import Network
from .reading import positions
from .tokenizers import conversation, load_tokenizer, padded, token_strings, with_blanks


@dataclass(frozen=True, eq=False)
class DenoiserCheckpoint:
    """All of a Dream checkpoint but its weights. Made by `examine`."""

    folder: Path
    config: Qwen2Config
    """Qwen2's, translated."""
    tokenizer: PreTrainedTokenizerBase
    tokens: tuple[str | None, ...]
    """The string of each id, V of them; None for ids that the tokenizer does not know."""

    @classmethod
    def examine(cls, path: str | Path, *, revision: str | None = None) -> DenoiserCheckpoint:
        """Look at a checkpoint in a folder or on the hub, without loading its weights.

        Raises `ValueError` if it is not there, is no Dream, has only pickled weights, or has a
        configuration that is not understood.
        """
        folder = checkpoints.locate(path, revision)
        written = checkpoints.read_config(folder)
        config = qwen2_config(written)
        tokenizer = load_tokenizer(folder, "Qwen2Tokenizer")
        _check_special_tokens(tokenizer, written, folder)
        checkpoints.require_weights(folder)
        return cls(folder, config, tokenizer, token_strings(tokenizer, config.vocab_size))

    @property
    def mask_id(self) -> int:
        """The token that stands at a masked position."""
        found: int = self.tokenizer.mask_token_id
        return found

    def template(self, text: str) -> Int[Tensor, "N"]:
        """A response with blanks, for `start` of `generate`: see `tokenizers.with_blanks`."""
        return with_blanks(self.tokenizer, text, self.mask_id)

    def require_room(self, prompts: Sequence[str], new_tokens: int) -> None:
        """Raise `ValueError` if a prompt with its answer takes more positions than there are."""
        for prompt in prompts:
            ids = self.tokenizer(conversation(self.tokenizer, prompt), add_special_tokens=False)
            length = len(ids["input_ids"]) + new_tokens
            checkpoints.require_positions("Dream", length, self.config)

    def load(
        self,
        *,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device = "auto",
        compiled: bool = False,
    ) -> Dream:
        """Load the weights; see `Dream.from_pretrained`."""
        device = checkpoints.device_of(device)
        dtype = checkpoints.dtype_of(dtype, device)
        network = checkpoints.load(
            Qwen2ForCausalLM, self.folder, dtype=dtype, device=device, config=self.config
        )
        if self.config.tie_word_embeddings and network.lm_head.weight is not (
            network.model.embed_tokens.weight
        ):
            raise ValueError(
                "tie_word_embeddings: got True, but the checkpoint has an output layer of its own"
            )
        writable = torch.tensor([token is not None for token in self.tokens], device=device)
        writable[self.mask_id] = False
        if compiled:
            compile_layers(network)
        return Dream(
            network=network,
            tokenizer=self.tokenizer,
            tokens=self.tokens,
            writable=writable,
            mask_id=self.mask_id,
            eos_id=self.tokenizer.eos_token_id,
            pad_id=self.tokenizer.pad_token_id,
        )


@dataclass(frozen=True, eq=False)
class Dream:
    """A frozen Dream checkpoint. Made by `from_pretrained`."""

    network: Network
    tokenizer: PreTrainedTokenizerBase
    tokens: tuple[str | None, ...]
    """The string of each id, V of them; None for ids that the tokenizer does not know."""
    writable: Bool[Tensor, "V"]
    """Ids that the tokenizer knows, without the mask token."""
    mask_id: int
    eos_id: int | None
    pad_id: int | None

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        revision: str | None = None,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device = "auto",
        compiled: bool = False,
    ) -> Dream:
        """Load a checkpoint from a folder, or from the hub by its id.

        Args:
            path: a folder with config.json, safetensors shards and the tokenizer's plain files, or
                a hub id such as `Dream-org/Dream-v0-Instruct-7B`.
            revision: the hub's branch, tag or commit.
            dtype: `auto` (bfloat16 on a GPU, else float32), `float32`, `bfloat16`, `float16`,
                `float64` or a torch dtype.
            device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
            compiled: whether torch should compile its layers, which takes some seconds at the first
                call and is faster from then on. It rounds otherwise.

        Raises:
            ValueError: if the device is not there, and for what `DenoiserCheckpoint.examine` says.
        """
        device = checkpoints.device_of(device)
        dtype = checkpoints.dtype_of(dtype, device)
        checkpoint = DenoiserCheckpoint.examine(path, revision=revision)
        return checkpoint.load(dtype=dtype, device=device, compiled=compiled)

    @property
    def dtype(self) -> torch.dtype:
        """That of its logits."""
        found: torch.dtype = self.network.lm_head.weight.dtype
        return found

    def encode(self, prompts: Sequence[str]) -> Prompts:
        """The prompts in the chat template, up to where the answer begins, padded on the left."""
        texts = [conversation(self.tokenizer, prompt) for prompt in prompts]
        filler = self.mask_id if self.pad_id is None else self.pad_id  # hidden, whatever it is
        device, width = self.network.device, self.network.config.vocab_size
        tokens, valid = padded(self.tokenizer, texts, filler, device, "Dream", width)
        if not valid.any(1).all():
            raise ValueError("checkpoint: its chat template makes nothing of a prompt")
        return Prompts(tokens, valid, keys=tuple(map(prompt_key, prompts)))

    def __call__(
        self, tokens: Int[Tensor, "S L"], valid: Bool[Tensor, "S L"], masked: Bool[Tensor, "S N"]
    ) -> Float[Tensor, "n V"]:
        """The logits at the masked positions. Nothing of size [S, L, V] is ever made."""
        length, new_tokens = tokens.shape[1], masked.shape[1]
        checkpoints.require_positions("Dream", length, self.network.config)
        hidden = self.network.model(
            input_ids=tokens,
            # A mask that is given is all the mask there is: nothing is causal.
            attention_mask=valid[:, None, None, :],
            position_ids=positions(valid),
            use_cache=False,
        ).last_hidden_state
        # Dream keeps the shift of the causal model that it was made from: what comes out at a
        # position predicts the next one.
        predicting = hidden[:, length - new_tokens - 1 : length - 1]
        return self.network.lm_head(predicting[masked])

    def template(self, text: str) -> Int[Tensor, "N"]:
        """A response with blanks, for `start` of `generate`: see `tokenizers.with_blanks`."""
        return with_blanks(self.tokenizer, text, self.mask_id)

    def decode(self, response: Int[Tensor, "S N"]) -> list[str]:
        """The text of each response: all its tokens, without the special ones.

        It is not cut at the first end of sequence. Source: authors' code.
        """
        rows = response.tolist()
        return [str(self.tokenizer.decode(row, skip_special_tokens=True)) for row in rows]


def compile_layers(network: Network) -> None:
    """Have torch compile what all layers do, once, at the first call."""
    for layer in network.model.layers:
        layer.compile()


TRANSLATED = {
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "tie_word_embeddings",
    "initializer_range",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
}
"""Fields of Dream's configuration that mean the same in Qwen2's."""

REQUIRED = {
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
}

OFF = {
    "use_sliding_window": (False, None),
    "attention_dropout": (0.0, 0, None),
    "use_mrope": (False, None),
}
"""Fields that would change the maths, and the values at which they do not."""

WITHOUT_EFFECT = {
    "architectures",
    "auto_map",
    "dtype",
    "mask_token_id",  # the tokenizer's counts
    "max_window_layers",
    "model_type",
    "sliding_window",  # the window's size, which says nothing while use_sliding_window is off
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "chunk_size_feed_forward",
    "id2label",
    "label2id",
    "is_encoder_decoder",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "return_dict",
}


def qwen2_config(dream: Mapping[str, Any]) -> Qwen2Config:
    """Qwen2's configuration that computes what Dream's does.

    Raises `ValueError` naming the field if one is missing, is set to what Qwen2 with a full mask
    would not compute, or is not known.
    """
    kind = dream.get("model_type")
    if kind != "Dream":
        raise ValueError(f"model_type: got {kind!r}, expected 'Dream'")
    for field in sorted(REQUIRED):
        number = dream.get(field)
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ValueError(f"{field}: got {number!r}, expected a positive integer")
    for field, neutral in OFF.items():
        if field in dream and dream[field] not in neutral:
            raise ValueError(f"{field}: got {dream[field]!r}, which is not supported")
    checkpoints.require_numbers({k: v for k, v in dream.items() if v is not None})
    position = checkpoints.rope(dream)
    if position["rope_type"] != "default":
        field = "rope_parameters" if dream.get("rope_parameters") else "rope_scaling"
        raise ValueError(f"{field}: got {dream[field]!r}, which is not supported")
    if not isinstance(position["rope_theta"], int | float):
        raise ValueError(f"rope_theta: got {position['rope_theta']!r}, expected a number")
    layers = dream.get("layer_types") or []
    if layers and layers != ["full_attention"] * dream["num_hidden_layers"]:
        raise ValueError(f"layer_types: got {layers!r}, expected full_attention, once per layer")
    known = TRANSLATED | set(OFF) | WITHOUT_EFFECT
    known |= {"rope_theta", "rope_scaling", "rope_parameters", "layer_types"}
    for field, value in dream.items():
        if field not in known and not field.startswith("_") and value not in (None, False):
            raise ValueError(f"{field}: got {value!r}, but what it means for Dream is not known")
    same = {field: dream[field] for field in TRANSLATED if dream.get(field) is not None}
    try:
        with checkpoints.quiet():
            return Qwen2Config(**same, rope_parameters=position, use_cache=False)
    except Exception as error:  # transformers has kinds of its own for values of a wrong type
        raise ValueError(f"config.json: {checkpoints.one_line(error)}") from error


def _check_special_tokens(
    tokenizer: PreTrainedTokenizerBase, written: Mapping[str, Any], folder: Path
) -> None:
    """That there is a mask token, and that tokenizer and configuration do not contradict."""
    for name, required in (("mask", True), ("eos", False), ("pad", False)):
        index = getattr(tokenizer, f"{name}_token_id")
        if index is None and required:
            raise ValueError(f"checkpoint: the tokenizer of {folder} has no {name} token")
        if index is not None and index >= written["vocab_size"]:
            raise ValueError(
                f"checkpoint: the {name} token has the id {index}, but vocab_size is "
                f"{written['vocab_size']}"
            )
        other = written.get(f"{name}_token_id")
        if other is not None and index is not None and other != index:
            raise ValueError(
                f"{name}_token_id: got {other!r} in config.json, but {index} in the tokenizer"
            )
