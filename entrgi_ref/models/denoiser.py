"""Masked diffusion language models as a `Denoiser`, on transformers' own classes.

What differs between families, such as the shift and the names of weights, is declared in
`families`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from .. import checks
from ..protocols import Prompts, prompt_key
from . import checkpoints
from .checkpoints import Network
from .families import DREAM, Family, family_of
from .loading import How, Loading
from .reading import as_attended, positions
from .tokenizers import (
    conversation,
    ids_of,
    load_tokenizer,
    padded,
    require_ids,
    token_strings,
    warn_of_special,
    with_blanks,
    working,
)
from .window import forget, hidden_states_at


@dataclass(frozen=True, eq=False)
class DenoiserCheckpoint:
    """All of a mask predictor's checkpoint but its weights. Made by `examine`."""

    folder: Path
    family: Family
    config: PretrainedConfig
    """Transformers', translated."""
    tokenizer: PreTrainedTokenizerBase
    tokens: tuple[str | None, ...]
    """The string of each id, V of them; None for ids that the tokenizer does not know."""
    mask_id: int
    """The token that stands at a masked position."""

    @classmethod
    def examine(
        cls, path: str | Path, *, revision: str | None = None, family: Family | None = None
    ) -> DenoiserCheckpoint:
        """Look at a checkpoint in a folder or on the hub, without loading its weights.

        Raises `ValueError` if it is not there, is of no family (or not of the one that is given),
        has only pickled weights, or has a configuration that is not understood.
        """
        folder = checkpoints.locate(path, revision)
        written = checkpoints.read_config(folder)
        family = family or family_of(written, checkpoints.name_of(folder))
        config = family.translated(written)
        tokenizer = load_tokenizer(folder, family.tokenizer)
        require_ids(folder)
        mask_id = _mask_of(tokenizer, written, family, folder)
        _check_special_tokens(tokenizer, written, mask_id, config.vocab_size)
        checkpoints.require_weights(folder)
        wide = config.vocab_size, config.hidden_size
        checkpoints.require_shape(folder, "lm_head.weight", wide, family.keys, needed=False)
        checkpoints.require_shape(folder, "model.embed_tokens.weight", wide, family.keys)
        tokens = token_strings(tokenizer, config.vocab_size)
        return cls(folder, family, config, tokenizer, tokens, mask_id)

    def template(self, text: str) -> Int[Tensor, "N"]:
        """A response with blanks, for `start` of `generate`: see `tokenizers.with_blanks`."""
        return with_blanks(self.tokenizer, text, self.mask_id)

    def require_room(self, prompts: Sequence[str], new_tokens: int) -> None:
        """Raise `ValueError` if a prompt with its answer takes more positions than there are."""
        for prompt in prompts:
            text = conversation(self.tokenizer, prompt, **self.family.template)
            length = len(ids_of(self.tokenizer, text, self.family.name)) + new_tokens
            checkpoints.require_positions(self.family.name, length, self.config)

    def load(
        self,
        *,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device = "auto",
        compiled: bool = False,
        **how: Unpack[How],
    ) -> DiffusionLM:
        """Load the weights; see `load_denoiser`."""
        loading = Loading.of(dtype, device, compiled=compiled, **how)
        network = loading.network(
            self.family.network,
            self.folder,
            self.config,
            key_mapping=dict(self.family.keys) or None,
        )
        if self.config.tie_word_embeddings:
            table = network.model.embed_tokens.weight
            checkpoints.require_tied(self.folder, table, self.family.keys)
            network.lm_head.weight = table
        writable = torch.tensor([token is not None for token in self.tokens], device=loading.device)
        writable[self.mask_id] = False
        made = Dream if self.family is DREAM else DiffusionLM
        found = made(
            network=network,
            tokenizer=self.tokenizer,
            tokens=self.tokens,
            writable=writable,
            mask_id=self.mask_id,
            eos_id=self.tokenizer.eos_token_id,
            pad_id=self.tokenizer.pad_token_id,
            family=self.family,
        )
        _require_logits(found, self.folder)
        if compiled:
            compile_layers(network)
        return found


@checks.explained
def load_denoiser(
    path: str | Path,
    *,
    revision: str | None = None,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    compiled: bool = False,
    family: Family | None = None,
    **how: Unpack[How],
) -> DiffusionLM:
    """Load a masked diffusion language model of any family that is declared, frozen.

    Args:
        path: a folder with config.json, safetensors shards and the tokenizer's plain files, or a
            hub id such as `Dream-org/Dream-v0-Instruct-7B`.
        revision: the hub's branch, tag or commit.
        dtype: `auto` (bfloat16 on a GPU, else float32), `float32`, `bfloat16`, `float16`, `float64`
            or a torch dtype.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        compiled: whether torch should compile its layers, which takes some seconds at the first
            call and is faster from then on. It rounds otherwise.
        family: a declaration of yours; by default the one of `FAMILIES` that config.json names.
        how: what else there is to say of how it is loaded: see `How`.

    Raises:
        ValueError: for what `Loading.of` says, and for what `DenoiserCheckpoint.examine` says.
    """
    Loading.of(dtype, device, compiled=compiled, **how)
    checkpoint = DenoiserCheckpoint.examine(path, revision=revision, family=family)
    return checkpoint.load(dtype=dtype, device=device, compiled=compiled, **how)


@dataclass(frozen=True, eq=False)
class DiffusionLM:
    """A frozen masked diffusion language model. Made by `load_denoiser`."""

    network: Network
    tokenizer: PreTrainedTokenizerBase
    tokens: tuple[str | None, ...]
    """The string of each id, V of them; None for ids that the tokenizer does not know."""
    writable: Bool[Tensor, "V"]
    """Ids that the tokenizer knows, without the mask token."""
    mask_id: int
    eos_id: int | None
    pad_id: int | None
    family: Family = DREAM

    @property
    def dtype(self) -> torch.dtype:
        """That of its logits."""
        found: torch.dtype = self.network.lm_head.weight.dtype
        return found

    def encode(self, prompts: Sequence[str]) -> Prompts:
        """The prompts in the chat template, up to where the answer begins, padded on the left."""
        checks.prompts(prompts)
        options = self.family.template
        warn_of_special(self.tokenizer, prompts)
        texts = [conversation(self.tokenizer, prompt, **options) for prompt in prompts]
        filler = self.mask_id if self.pad_id is None else self.pad_id  # hidden, whatever it is
        device, width = self.network.device, self.network.config.vocab_size
        tokens, valid = padded(self.tokenizer, texts, filler, device, self.family.name, width)
        if not valid.any(1).all():
            raise ValueError("checkpoint: its chat template makes nothing of a prompt")
        return Prompts(tokens, valid, keys=tuple(map(prompt_key, prompts)))

    @checks.explained
    def __call__(
        self, tokens: Int[Tensor, "S L"], valid: Bool[Tensor, "S L"], masked: Bool[Tensor, "S N"]
    ) -> Float[Tensor, "n V"]:
        """The logits at the masked positions. Nothing of size [S, L, V] is ever made."""
        length, new_tokens = tokens.shape[1], masked.shape[1]
        # A shifted family keeps what it learnt as a causal model: the output at a position
        # predicts the next one.
        end = length - 1 if self.family.shifted else length
        if new_tokens > end:
            raise ValueError(f"masked: got {new_tokens} positions, expected at most {end}")
        if masked.dtype != torch.bool:
            raise ValueError(f"masked: got {masked.dtype}, expected torch.bool")
        tokens = checks.ids("tokens", tokens, self.network.config.vocab_size)
        checkpoints.require_positions(self.family.name, length, self.network.config)
        hidden = self._hidden_states(tokens, valid, slice(end - new_tokens, end))
        return self.network.lm_head(hidden[masked])

    def _hidden_states(
        self, tokens: Int[Tensor, "S L"], valid: Bool[Tensor, "S L"], read: slice
    ) -> Float[Tensor, "S _ d"]:
        return hidden_states_at(
            self.network,
            read,
            input_ids=tokens,
            # A mask that is given is all the mask there is: nothing is causal.
            attention_mask=as_attended(self.network, valid[:, None, None, :], self.dtype),
            position_ids=positions(valid),
            use_cache=False,
        )

    @checks.explained
    def template(self, text: str) -> Int[Tensor, "N"]:
        """A response with blanks, for `start` of `generate`: see `tokenizers.with_blanks`."""
        return with_blanks(self.tokenizer, text, self.mask_id)

    @checks.explained
    def decode(self, response: Int[Tensor, "S N"]) -> list[str]:
        """The text of each response: all its tokens, without the special ones.

        It is not cut at the first end of sequence. Source: authors' code.
        """
        checks.shape("response", response, (None, None), "[S, N]")
        rows = checks.ids("response", response, self.network.config.vocab_size).tolist()
        with working(f"checkpoint: the tokenizer of {self.family.name} does not work"):
            return [str(self.tokenizer.decode(row, skip_special_tokens=True)) for row in rows]


@dataclass(frozen=True, eq=False)
class Dream(DiffusionLM):
    """A frozen Dream checkpoint, the paper's. Made by `from_pretrained`."""

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        revision: str | None = None,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device = "auto",
        compiled: bool = False,
        **how: Unpack[How],
    ) -> Dream:
        """`load_denoiser`, for Dream alone. Raises `ValueError` if it is of another family."""
        found = load_denoiser(
            path,
            revision=revision,
            dtype=dtype,
            device=device,
            compiled=compiled,
            family=DREAM,
            **how,
        )
        assert isinstance(found, Dream)
        return found


def compile_layers(network: Network) -> None:
    """Have torch compile what all layers do, once, at the first call."""
    forget(network)
    for layer in network.model.layers:
        layer.compile()


@torch.no_grad()
def _require_logits(denoiser: DiffusionLM, folder: Path) -> None:
    """Raise `ValueError`, naming the `folder`, unless logits can be made of two tokens: what a
    configuration says may agree with the weights, and still no layer computes it.
    """
    network = denoiser.network
    tokens = torch.full((1, 2), denoiser.mask_id, device=network.device)
    try:
        everywhere = torch.ones_like(tokens).bool()
        network.lm_head(denoiser._hidden_states(tokens, everywhere, slice(None)))
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:  # of many kinds, for what does not fit in there
        raise ValueError(
            f"checkpoint: {folder} makes no logits of tokens: {checkpoints.one_line(error)}"
        ) from error


def _mask_of(
    tokenizer: PreTrainedTokenizerBase, written: Mapping[str, Any], family: Family, folder: Path
) -> int:
    """The mask token: the tokenizer's, or the one that the family has, or, where the family says
    so, the configuration's.
    """
    found, known = tokenizer.mask_token_id, tokenizer.get_vocab()
    own = None if family.mask_token is None else known.get(family.mask_token)
    if family.mark is None and None not in (found, own) and found != own:
        raise ValueError(
            f"mask_token: got {tokenizer.mask_token!r:.60} in {folder}, expected "
            f"{family.mask_token!r}, that of {family.name}"
        )
    found = own if found is None else found
    if found is None and family.configured_mask:
        found = written.get("mask_token_id")
        if found is not None and found not in tokenizer.get_added_vocab().values():
            raise ValueError(
                f"mask_token_id: got {checks.shown(found, 60)}, expected the id of a special token "
                "of the tokenizer"
            )
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        raise ValueError(
            f"checkpoint: the {'configuration' if family.configured_mask else 'tokenizer'} of "
            f"{folder} has no mask token"
        )
    if family.mark is not None and tokenizer.convert_ids_to_tokens(found) != family.mark:
        raise ValueError(
            f"model_type: got {family.model_type!r} with the mask token "
            f"{tokenizer.convert_ids_to_tokens(found)!r}, expected {family.mark!r}, that of "
            f"{family.name}: of other models of this type the shift is not known"
        )
    return found


def _check_special_tokens(
    tokenizer: PreTrainedTokenizerBase, written: Mapping[str, Any], mask_id: int, width: int
) -> None:
    """That tokenizer and configuration do not contradict. They may in the padding, which is hidden,
    and of several ends of an answer one is the tokenizer's: there the tokenizer counts.
    """
    found = {
        "mask": mask_id,
        "eos": tokenizer.eos_token_id,
        "pad": tokenizer.pad_token_id,
    }
    ends = written.get("eos_token_id")
    ends = ends if isinstance(ends, list) else []
    if mask_id in (found["eos"], *ends):
        raise ValueError(
            f"checkpoint: the token {mask_id} is both the mask and the end of an answer"
        )
    for name, index in found.items():
        other = written.get(f"{name}_token_id")
        if index is None:
            if name == "eos" and other is not None:
                raise ValueError(
                    f"eos_token_id: got {other!r} in config.json, but the tokenizer has none"
                )
            continue
        if index >= width:
            raise ValueError(
                f"checkpoint: the {name} token has the id {index}, but vocab_size is {width}"
            )
        several = name == "eos" and index in ends
        if other in (None, index) or (several and all(end == index for end in ends)):
            continue
        said = f"{name}_token_id: got {other!r} in config.json, but {index} in the tokenizer"
        if name != "pad" and not several:
            raise ValueError(said)
        warnings.warn(f"{said}, which counts", stacklevel=2)
