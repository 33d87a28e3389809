"""A network whose last layer works only at the positions that are read.

All layers but the last one read every position, as every position attends to all others. Of the
last layer's output only that of the response is read, so nothing else needs its feed-forward part,
or attends. The prompt's keys and values are still needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from .checkpoints import Network


@contextmanager
def narrowed(network: Network, window: slice) -> Iterator[None]:
    """Let `network.model` return the last hidden states in a window of positions, [S, window, d].

    They are those of the whole network, but for the rounding of products that are of fewer rows.
    A layer that is compiled would be so again for each hook, and does all of its work.
    """
    last = network.model.layers[-1]
    # The name in transformers: see `backbone_of`.
    cache = "cache" if "cache" in inspect.signature(last.forward).parameters else "past_key_values"

    def narrow(layer: Any, given: Any, options: dict[str, Any]) -> Any:
        (hidden,), rotations = given, options["position_embeddings"]
        everywhere = {cache: KeysAndValues()}
        layer.self_attn(
            hidden_states=layer.input_layernorm(hidden),
            position_embeddings=rotations,
            attention_mask=None,
            **everywhere,
        )
        here = {
            "position_embeddings": tuple(rotation[:, window] for rotation in rotations),
            "position_ids": options["position_ids"][:, window],
        }
        return (hidden[:, window],), options | here | everywhere

    def cut(layer: Any, given: Any, hidden: Tensor) -> Tensor:
        return hidden[:, window]

    compiled = last._compiled_call_impl is not None
    hook = (
        network.model.norm.register_forward_hook(cut)
        if compiled
        else last.register_forward_pre_hook(narrow, with_kwargs=True)
    )
    try:
        yield
    finally:
        hook.remove()


class KeysAndValues:
    """The part of transformers' cache that attention asks: it keeps what it is first given, and
    answers with that from then on.
    """

    def __init__(self) -> None:
        self._kept: tuple[Tensor, Tensor] | None = None

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """What the positions that are asked for attend to: at first, when nobody reads what they
        make of it, a single position.
        """
        if self._kept is None:
            self._kept = keys, values
            return keys[:, :, :1], values[:, :, :1]
        return self._kept
