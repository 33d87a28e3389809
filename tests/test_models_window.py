"""The last layer at the positions that are read is the last layer."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn import functional as F
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from entrgi_ref.models.denoiser import compile_layers
from entrgi_ref.models.reading import positions
from entrgi_ref.models.window import WINDOW, hidden_states_at, narrow

KINDS = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}


def network(kind, layers=2, attention="sdpa", dtype=torch.float64):
    config, made = KINDS[kind]
    torch.manual_seed(0)
    return (
        made._from_config(
            config(
                vocab_size=50,
                hidden_size=24,
                intermediate_size=40,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=6,
                use_cache=False,
            ),
            attn_implementation=attention,
        )
        .to(dtype)
        .eval()
    )


def inputs(network, tokens, valid):
    """Every position attends to every valid one."""
    mask = torch.zeros(valid.shape, dtype=network.dtype).masked_fill(~valid, -1e9)
    mask = valid if network.config._attn_implementation == "sdpa" else mask
    return {
        "input_ids": tokens,
        "attention_mask": mask[:, None, None, :],
        "position_ids": positions(valid),
        "use_cache": False,
    }


def hidden_states(network, tokens, valid):
    return network.model(**inputs(network, tokens, valid)).last_hidden_state


def narrowed(network, tokens, valid, window):
    return hidden_states_at(network, window, **inputs(network, tokens, valid))


BOARD = torch.randint(50, (3, 12), generator=torch.Generator().manual_seed(0))
VALID = torch.arange(12) >= torch.tensor([0, 2, 5])[:, None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("window", [slice(7, 12), slice(6, 11), slice(0, 12), slice(11, 12)])
@torch.no_grad()
def test_the_same_numbers_in_a_window(kind, attention, layers, window):
    made = network(kind, layers, attention)
    whole = hidden_states(made, BOARD, VALID)
    found = narrowed(made, BOARD, VALID, window)
    seen = VALID[:, window]
    torch.testing.assert_close(found[seen], whole[:, window][seen], rtol=1e-12, atol=1e-12)
    assert found.shape[1] == window.stop - window.start
    assert torch.equal(hidden_states(made, BOARD, VALID), whole)


@torch.no_grad()
def test_nothing_else_is_computed_in_the_last_layer(monkeypatch):
    made, read, attended = network("qwen3"), [], []
    attention = F.scaled_dot_product_attention

    def noted(query, key, value, **options):
        attended.append((query.shape[2], key.shape[2]))
        return attention(query, key, value, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", noted)
    for layer in made.model.layers:
        layer.mlp.register_forward_pre_hook(lambda _, given: read.append(given[0].shape[1]))
    narrowed(made, BOARD, VALID, slice(8, 12))
    assert read == [12, 4]
    assert attended == [
        (12, 12),
        (12, 1),
        (4, 12),
    ]  # of the second nothing is read but what it keeps


@torch.no_grad()
def test_compiled_layers_stay_as_they_are(monkeypatch):
    made = network("qwen2")
    whole = hidden_states(made, BOARD, VALID)
    narrowed(made, BOARD, VALID, slice(3, 9))
    layer = made.model.layers[-1]
    for one in made.model.layers:
        monkeypatch.setattr(one, "compile", lambda: None)
    compile_layers(made)
    assert not layer._forward_pre_hooks
    monkeypatch.setattr(layer, "_compiled_call_impl", layer._call_impl)
    assert torch.equal(narrowed(made, BOARD, VALID, slice(3, 9)), whole[:, 3:9])
    assert not layer._forward_pre_hooks
    assert torch.equal(hidden_states(made, BOARD, VALID), whole)


def test_what_fails_leaves_nothing_behind():
    made = network("qwen2")
    with pytest.raises(RuntimeError):
        narrowed(made, BOARD[:, :3], VALID, slice(2, 3))
    assert WINDOW.get() is None


@torch.no_grad()
def test_threads_share_a_network():
    """Each reads its own window, or the whole."""
    made = network("qwen3")
    copied = copy.deepcopy(made)
    whole = hidden_states(made, BOARD, VALID)
    windows = [slice(start, start + width) for start in range(6) for width in (1, 3, 6)]

    def read(window):
        return [narrowed(made, BOARD, VALID, window), hidden_states(made, BOARD, VALID)]

    with ThreadPoolExecutor(4) as threads:
        for window, (part, rest) in zip(windows, threads.map(read, windows), strict=True):
            seen = VALID[:, window]
            torch.testing.assert_close(part[seen], whole[:, window][seen], rtol=1e-12, atol=1e-12)
            assert torch.equal(rest, whole)
    assert [*made.model.layers[-1]._forward_pre_hooks.values()] == [narrow]
    assert torch.equal(hidden_states(copied, BOARD, VALID), whole)
