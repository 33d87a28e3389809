"""A network whose last layer works only at the positions that are read.

All layers but the last one read every position, as every position attends to all others. Of the
last layer's output only that of the response is read, so nothing else needs its feed-forward part,
or attends. The prompt's keys and values are still needed.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Any

from torch import Tensor

from .checkpoints import Network
from .reading import cache_option

WINDOW: ContextVar[slice | None] = ContextVar("WINDOW", default=None)
"""What the calls of this thread read: others may use the same network meanwhile."""
ATTACHING = threading.Lock()


def hidden_states_at(network: Network, window: slice, **inputs: Any) -> Tensor:
    """The last hidden states of `network.model` in a window of positions, [S, window, d].

    They are those of the whole network, but for the rounding of products that are of fewer rows.
    Layers that are compiled do all of their work.
    """
    last = network.model.layers[-1]
    if last._compiled_call_impl is not None:
        whole: Tensor = network.model(**inputs).last_hidden_state
        return whole[:, window]
    with ATTACHING:
        if narrow not in last._forward_pre_hooks.values():
            last.register_forward_pre_hook(narrow, with_kwargs=True)
    before = WINDOW.set(window)
    try:
        found: Tensor = network.model(**inputs).last_hidden_state
        return found
    finally:
        WINDOW.reset(before)


def narrow(layer: Any, given: Any, options: dict[str, Any]) -> Any:
    """What a layer is given in place of all positions: those of the window, and what there is to
    attend to.
    """
    window = WINDOW.get()
    if window is None:
        return None
    (hidden,), rotations = given, options["position_embeddings"]
    everywhere = {cache_option(layer): KeysAndValues()}
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


def forget(network: Network) -> None:
    """Leave the last layer as it was: to be compiled it must be plain."""
    last = network.model.layers[-1]
    for key, hook in list(last._forward_pre_hooks.items()):
        if hook is narrow:
            del last._forward_pre_hooks[key], last._forward_pre_hooks_with_kwargs[key]


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
