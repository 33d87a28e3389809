"""The sizes of a network, from its configuration alone: parameters and operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...checks import integer, some

KINDS = {
    "Dream": "qwen2",
    "a2d-qwen2": "qwen2",
    "a2d-qwen3": "qwen3",
    "llada": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}
"""Types of configurations of which the layers are known, and whose layers they are."""
RENAMED = {
    "llada": {
        "vocab_size": ("embedding_size", "vocab_size"),
        "hidden_size": ("d_model",),
        "intermediate_size": ("mlp_hidden_size",),
        "num_hidden_layers": ("n_layers",),
        "num_attention_heads": ("n_heads",),
        "num_key_value_heads": ("n_kv_heads", "n_heads"),
        "tie_word_embeddings": ("weight_tying",),
    }
}
"""Type -> field of transformers' -> theirs, of which the first that is not null counts."""
REQUIRED = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads"),
)


@dataclass(frozen=True)
class Sizes:
    """A transformer with grouped queries, rotations and a gated layer, as Llama and Qwen are."""

    kind: str
    """qwen2, which adds biases to queries, keys and values; qwen3, which normalises heads; or
    llama, which does neither.
    """
    vocabulary: int
    width: int
    inner: int
    """Width of the gated layer."""
    layers: int
    heads: int
    kv_heads: int
    head: int
    """Width of a head."""
    tied: bool = False
    """Whether the output layer is the table of embeddings."""
    causal: bool = False
    """Whether it is a causal model, which as a reward is asked for likelihoods."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Sizes:
        """From the contents of config.json. Raises `ValueError` for a type that is not known, and
        for a field that is missing.
        """
        kind = config.get("model_type")
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(
                f"model_type: got {kind!r}, expected one of {', '.join(KINDS)}: of other layers "
                "the memory is not known"
            )
        for ours, theirs in RENAMED.get(kind, {}).items():
            found = [config[name] for name in theirs if config.get(name) is not None]
            config = {**config, **({ours: found[0]} if found else {})}
        missing = [name for name in REQUIRED if not isinstance(config.get(name), int)]
        if missing:
            raise ValueError(f"config.json: it lacks {some(missing)}")
        for name in REQUIRED:
            integer(name, config[name], minimum=1, below=2**31)
        integer("head_dim", config.get("head_dim") or 0, minimum=0, below=2**31)
        heads = config["num_attention_heads"]
        # Qwen3's configuration has this default, whatever the width.
        names = config.get("architectures")
        names = names if isinstance(names, list) else []
        default = 128 if KINDS[kind] == "qwen3" else config["hidden_size"] // heads
        return cls(
            kind=KINDS[kind],
            vocabulary=config["vocab_size"],
            width=config["hidden_size"],
            inner=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config["num_key_value_heads"],
            head=config.get("head_dim") or default,
            tied=bool(config.get("tie_word_embeddings", False)),
            causal=any(str(name).endswith("ForCausalLM") for name in names),
        )

    @property
    def queries(self) -> int:
        """Width of all heads together."""
        return self.heads * self.head

    @property
    def keys(self) -> int:
        """Width of all heads of keys together, and of those of values."""
        return self.kv_heads * self.head

    @property
    def repeated(self) -> int:
        """Width of the keys that attention reads: repeated for each head of queries, unless one
        head serves them all, which needs no copies.
        """
        return self.queries if self.kv_heads > 1 else self.keys

    @property
    def products(self) -> dict[str, int]:
        """Numbers of a layer's products: those that can be rounded; and their rows."""
        return {
            "numbers": 2 * self.width * (self.queries + self.keys) + 3 * self.width * self.inner,
            "rows": self.queries + 2 * self.keys + 2 * self.width + 2 * self.inner,
            "largest": self.width * max(self.inner, self.queries),
        }

    @property
    def in_layers(self) -> int:
        """Parameters of all layers and of the last normalisation."""
        attention = 2 * self.width * (self.queries + self.keys)
        biases, norms = self.queries + 2 * self.keys, 2 * self.head
        more = {"llama": 0, "qwen2": biases, "qwen3": norms}[self.kind]
        layer = attention + 3 * self.width * self.inner + 2 * self.width + more
        return self.layers * layer + self.width

    @property
    def as_denoiser(self) -> int:
        """Parameters with embeddings and an output layer over the vocabulary."""
        return self.in_layers + (1 if self.tied else 2) * self.vocabulary * self.width

    @property
    def as_reward(self) -> int:
        """Parameters with embeddings and one score, or the output layer of a causal model."""
        if self.causal:
            return self.as_denoiser
        return self.in_layers + self.vocabulary * self.width + self.width

    @property
    def output(self) -> int:
        """Numbers of the output layer that a reward is read by: none but of a causal model."""
        return self.vocabulary * self.width if self.causal else 0

    def operations(self, tokens: float, context: float) -> float:
        """Floating point operations of a forward pass of `tokens` that see `context` each, without
        an output layer. A product and a sum are two.
        """
        return tokens * (2 * self.in_layers + 4 * self.layers * context * self.queries)
