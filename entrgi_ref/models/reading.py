"""Reading a causal network from embeddings, in two parts: what does not change is read once."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformers.cache_utils import Cache, DynamicLayer

from .. import checks
from . import checkpoints
from .checkpoints import Network
from .replayed import Backbone


def hidden_states(
    network: Network,
    embedded: Float[Tensor, "S read d"],
    visible: Bool[Tensor, "S all"],
    present: Bool[Tensor, "S all"] | None = None,
    backbone: Backbone | None = None,
) -> Float[Tensor, "S read d"]:
    """What the network makes of the last `read` tokens, each of which sees those before it.

    What is not `present` takes no position either: by default the padding on the left. `backbone`
    is the network's own, without a cache, if it is not given.
    """
    read, length = embedded.shape[1], visible.shape[1]
    if not _rotates(network):
        checkpoints.require_positions("the reward model", length, network.config)
    at = torch.arange(length, device=visible.device)
    causal = at[-read:, None] >= at
    # A hidden token sees itself: a row with nothing to see would be nan in some kernels.
    itself = at[-read:, None] == at
    seen = causal & visible[:, None, :] | itself
    run = backbone or backbone_of(network)
    places = positions(visible) if present is None else (present.cumsum(1) - 1).clamp_min(0)
    return run(embedded, seen[:, None], places[:, -read:])


@dataclass(frozen=True, eq=False)
class Responses:
    """The responses at a denoising step, for a network that reads them from embeddings."""

    tokens: Int[Tensor, "S N"]
    masked: Bool[Tensor, "S N"]
    embeddings: Float[Tensor, "V d"]
    eos_id: int | None
    pad_id: int | None
    given: Bool[Tensor, "S N"] | None = None
    """The tokens of a template, in infilling."""
    present: Bool[Tensor, "S N"] | None = None
    """False at the padding behind a shorter template, if there is one."""

    def filled(
        self, mixed: Float[Tensor, "n d"], likeliest: Int[Tensor, "n"]
    ) -> tuple[Float[Tensor, "S N d"], Int[Tensor, "S N"], Bool[Tensor, "S N"]]:
        """Embeddings, with `mixed` at the masked positions; likeliest tokens; what is visible."""
        if checks.at_hand(self.masked) and (n := int(self.masked.sum())) != len(mixed):
            raise ValueError(f"mixed: got {len(mixed)} rows, expected {n}, one per masked position")
        # Not by the mask itself: the backward pass would ask it how many positions there are, and
        # the host would wait for the answer.
        at = self.masked.nonzero_static(size=len(mixed)).unbind(1)
        embedded = F.embedding(self.tokens, self.embeddings).index_put(at, mixed)
        likely = self.tokens.index_put(at, likeliest)
        visible = visible_of(likely, self.eos_id, self.pad_id, self.given)
        return embedded, likely, visible if self.present is None else visible & self.present


def visible_of(
    likely: Int[Tensor, "S N"],
    eos_id: int | None,
    pad_id: int | None,
    given: Bool[Tensor, "S N"] | None = None,
) -> Bool[Tensor, "S N"]:
    """Which tokens of the response a reward model attends to: none after the first end of
    sequence, and no padding. Masked positions are judged by their most likely token.

    Dream's end of sequence is its padding, so that the end itself is hidden too. In infilling an
    end hides what follows it up to the next word that is `given`: the template's text is part of
    every answer. Source: authors' code; infilling: ours.
    """
    visible = torch.ones_like(likely, dtype=torch.bool)
    if eos_id is not None:
        end = likely == eos_id
        before = end.cumsum(1) - end.long()
        if given is not None:
            again = torch.where(given & ~end, before, 0)
            before = before - again.cummax(1).values
        visible = before == 0
    return visible if pad_id is None else visible & (likely != pad_id)


def backbone_of(network: Network, cache: Cache | None = None) -> Backbone:
    """The network without its head, reading on from a cache if one is given."""
    headless = getattr(network, network.base_model_prefix)
    read = {cache_option(headless): cache}

    def backbone(embedded: Tensor, mask: Tensor, position: Tensor) -> Tensor:
        hidden: Tensor = headless(
            inputs_embeds=embedded,
            attention_mask=as_attended(network, mask, embedded.dtype),
            position_ids=position,
            use_cache=False,
            **read,
        ).last_hidden_state
        return hidden

    return backbone


def cache_option(module: Any) -> str:
    """What a module of transformers calls its cache. 5.24 has a new name, and warns of the old one,
    which ends with 5.40.
    """
    return "cache" if "cache" in inspect.signature(module.forward).parameters else "past_key_values"


def as_attended(network: Network, mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask as the network's attention takes it: eager attention adds it to the scores."""
    if network.config.get_text_config()._attn_implementation != "eager":
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


def _rotates(network: Network) -> bool:
    """Whether positions are rotations, of which there is no last one, and no rows of a table."""
    config = network.config.get_text_config()
    return any(getattr(config, field, None) for field in ("rope_parameters", "rope_theta"))


def positions(valid: Bool[Tensor, "S L"]) -> Int[Tensor, "S L"]:
    """Positions counted from the first real token; 0 in the padding on the left.

    Not the number of visible tokens so far: a hidden token keeps its place.
    """
    length = valid.shape[1]
    index = torch.arange(length, device=valid.device)
    # The number of Falses before the first True, also where more of them follow it.
    padding = length - torch.where(valid, length - index, 0).amax(1, keepdim=True)
    return (index - padding).clamp_min(0)


def read_prefix(
    network: Network, prefix: Float[Tensor, "P prefix d"], valid: Bool[Tensor, "P prefix"], K: int
) -> Cache:
    """Keys and values of every layer at the prefix, K times each."""
    cache = Cache(layer_class_to_replicate=DynamicLayer)
    hidden_states(network, prefix, valid, backbone=backbone_of(network, cache))
    layers: list[Any] = cache.layers
    return Cache(
        layers=[
            _Prefix(layer.keys.repeat_interleave(K, 0), layer.values.repeat_interleave(K, 0))
            for layer in layers
        ]
    )


def rows_of(cache: Cache, start: int, end: int) -> Cache:
    """The keys and values of some rows of what `read_prefix` returned."""
    layers: list[Any] = cache.layers
    return Cache(
        layers=[_Prefix(layer.keys[start:end], layer.values[start:end]) for layer in layers]
    )


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


PROBE = 12
"""Tokens of the sequence on which a network's own forward pass is compared with ours."""
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.25}
"""By how much the two may differ, as a share of the hidden state."""


def _probe(network: Network) -> Int[Tensor, "1 probe"]:
    """Some tokens, none of which is padding."""
    table = network.get_input_embeddings().weight
    length = min(PROBE, checkpoints.positions_of(network.config))
    width, pad = len(table), network.config.get_text_config().pad_token_id
    ids = torch.arange(1, length + 1, device=table.device) * 7919 % width
    return torch.where(ids == (-1 if pad is None else pad), (ids + 1) % width, ids)[None]


@torch.no_grad()
def require_own_logits(network: Network) -> None:
    """Raise `ValueError` unless a causal model makes the same of tokens as its output layer makes
    of what it reads from their embeddings, padded on the left, at once and in two parts.

    Some models scale or bound their logits afterwards, and would give other likelihoods.
    """
    embed = network.get_input_embeddings()
    try:
        ids = _probe(network)
        own = network(input_ids=ids, use_cache=False).logits[0].float()
        visible = F.pad(torch.ones_like(ids, dtype=torch.bool), (2, 0), value=False)
        embedded = F.pad(embed(ids), (0, 0, 2, 0))
        half = 2 + ids.shape[1] // 2
        cache = read_prefix(network, embedded[:, :half], visible[:, :half], 1)
        backbone = backbone_of(network, cache)
        whole = hidden_states(network, embedded, visible)[0, 2:]
        parts = hidden_states(network, embedded[:, half:], visible, backbone=backbone)[0]
        output = network.get_output_embeddings()
        ours, second = output(whole).float(), output(parts).float()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of many kinds, in networks that are built otherwise
        raise ValueError(
            f"checkpoint: {type(network).__name__} cannot be read from embeddings in two parts: "
            f"{checkpoints.one_line(error)}"
        ) from error
    checkpoints.require_finite(network, own)
    tolerance = TOLERANCE[embed.weight.dtype]
    if not (ours - own).norm() <= tolerance * own.norm():
        raise ValueError(
            f"checkpoint: {type(network).__name__} makes other logits of tokens than its output "
            "layer makes of their embeddings: it is not supported"
        )
    expected = own[half - 2 :]
    if not (second - expected).norm() <= tolerance * expected.norm():
        raise ValueError(
            f"checkpoint: {type(network).__name__} makes other logits of tokens than of their "
            "embeddings, read in two parts: it is not supported"
        )


@torch.no_grad()
def require_own_scores(network: Network) -> None:
    """Raise `ValueError` unless a network makes the same of tokens as of their embeddings, padded
    on the left and read in two parts.

    Positions by distance, layers without a cache, tokens that see what follows or a head of another
    kind would give other numbers without a word. In 16 bits only what is far off is noticed.
    """
    embed = network.get_input_embeddings()
    try:
        ids = _probe(network)
        half = 2 + ids.shape[1] // 2
        own = network(input_ids=ids, use_cache=False).logits[:, 0]
        own_backbone = getattr(network, network.base_model_prefix)
        expected = (
            own_backbone(input_ids=ids, use_cache=False).last_hidden_state[:, half - 2 :].float()
        )
        embedded = F.pad(embed(ids), (0, 0, 2, 0))
        visible = F.pad(torch.ones_like(ids, dtype=torch.bool), (2, 0), value=False)
        backbone = backbone_of(
            network, read_prefix(network, embedded[:, :half], visible[:, :half], 1)
        )
        hidden = hidden_states(network, embedded[:, half:], visible, backbone=backbone)
        ours, hidden = network.score(hidden[:, -1]).squeeze(-1), hidden.float()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of many kinds, in networks that are built otherwise
        raise ValueError(
            f"checkpoint: {type(network).__name__} cannot be read from embeddings in two parts: "
            f"{checkpoints.one_line(error)}"
        ) from error
    checkpoints.require_finite(network, own, expected)
    tolerance = TOLERANCE[embed.weight.dtype]
    # Errors of a score are measured by the largest that a hidden state of this size can have.
    largest = network.score.weight.float().norm() * expected[:, -1].norm()
    same = (hidden - expected).norm() <= tolerance * expected.norm()
    if not (same and (own - ours).float().abs().max() <= tolerance * largest):
        raise ValueError(
            f"checkpoint: {type(network).__name__} makes {float(own):.4g} of a few tokens, but "
            f"{float(ours):.4g} of their embeddings, read in two parts: it is not supported"
        )
