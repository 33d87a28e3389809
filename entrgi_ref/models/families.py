"""Families of masked diffusion language models, one declaration each.

All of them are transformers' own Llama, Qwen2 or Qwen3 in which every position attends to every
other. So nothing of a checkpoint's own code is needed: its configuration is translated field by
field, its weights are renamed, and what has no translation is refused.

A further family is a further entry of `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from ..checks import shown, some
from . import checkpoints


@dataclass(frozen=True)
class Family:
    """How the checkpoints of a family are read."""

    name: str
    """What it is called in messages."""
    model_type: str
    """In config.json."""
    config: type[Any]
    """Transformers' class of the configuration."""
    network: type[Any]
    """Transformers' class of the network."""
    shifted: bool
    """Whether the output at a position predicts the next one, as in the causal model that the
    weights came from. Read without its shift a model prints nonsense, and nothing fails.
    """
    fields: Mapping[str, str]
    """Their field of the configuration -> transformers'. Of two that mean one the first counts."""
    neutral: Mapping[str, tuple[Any, ...]]
    """Fields that would change the maths, and the values at which they do not."""
    written: tuple[str, ...] = ()
    """Fields that may not be missing: what stands for them in the family's code is not what
    transformers takes for its own.
    """
    same_if_null: Mapping[str, str] = field(default_factory=dict)
    """Transformers' field -> the one that it equals where it is null."""
    ignored: frozenset[str] = frozenset()
    """Fields without an effect, beside those that no family has one for."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Regular expression for a weight's name -> transformers' name."""
    tokenizer: str = "Qwen2Tokenizer"
    """Transformers' class of it."""
    mask_token: str | None = None
    """Where the tokenizer declares none, this token of it."""
    configured_mask: bool = False
    """Whether the mask token stands in config.json alone."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """Options of the chat template."""
    mark: str | None = None
    """A mask token that tells it from ordinary models of its `model_type`; None if none are."""

    def translated(self, written: Mapping[str, Any]) -> PretrainedConfig:
        """Transformers' configuration that computes what this one does.

        Raises `ValueError` naming the field if one is missing, is set to what the network with a
        full mask would not compute, or is not known.
        """
        kind = written.get("model_type")
        if kind != self.model_type:
            raise ValueError(f"model_type: got {kind!r}, expected {self.model_type!r}")
        same: dict[str, Any] = {}
        for theirs, ours in self.fields.items():
            if written.get(theirs) is not None:
                same.setdefault(ours, written[theirs])
        for ours, other in self.same_if_null.items():
            if other in same:
                same.setdefault(ours, same[other])
        for ours in REQUIRED:
            number = same.get(ours)
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                named = [theirs for theirs, same_as in self.fields.items() if same_as == ours]
                if not named:
                    raise ValueError(f"fields: got none for transformers' {ours!r}, expected one")
                raise ValueError(f"{named[0]}: got {number!r}, expected a positive integer")
        self._require_heads(same)
        for name in self.written:
            if written.get(name) is None:
                raise ValueError(f"{name}: got None, expected what {self.name} was trained with")
        for name, values in self.neutral.items():
            if name in written and written[name] not in values:
                raise ValueError(f"{name}: got {written[name]!r}, which is not supported")
        checkpoints.require_numbers({k: v for k, v in written.items() if v is not None})
        position = _rotations(written)
        layers = written.get("layer_types") or []
        if layers and layers != ["full_attention"] * same["num_hidden_layers"]:
            raise ValueError(
                f"layer_types: got {layers!r}, expected full_attention, once per layer"
            )
        known = set(self.fields) | set(self.neutral) | self.ignored | ROTATIONS | WITHOUT_EFFECT
        for name, value in written.items():
            # Whether to trust code of the checkpoint's says nothing where none is run.
            if name in known or name.startswith(("_", "trust_")):
                continue
            if value not in (None, False):
                raise ValueError(
                    f"{name}: got {value!r}, but what it means for {self.name} is not known"
                )
        try:
            with checkpoints.quiet():
                return self.config(**same, rope_parameters=position, use_cache=False)
        except Exception as error:  # transformers has kinds of its own for values of a wrong type
            raise ValueError(f"config.json: {checkpoints.one_line(error)}") from error

    def _require_heads(self, same: Mapping[str, Any]) -> None:
        """Raise `ValueError` for heads that no attention computes, though weights of their shape
        there can be. `same` are transformers' fields.

        Each head of keys is shared by as many others, and rotations turn pairs of numbers.
        """
        heads, shared, width = (
            same[ours] for ours in ("num_attention_heads", "num_key_value_heads", "hidden_size")
        )
        named = {ours: theirs for theirs, ours in reversed([*self.fields.items()])}
        name = named["num_attention_heads"]
        if heads % shared:
            raise ValueError(
                f"{named['num_key_value_heads']}: got {shared}, expected a divisor of {name}, "
                f"{heads}"
            )
        if "head_dim" in named:
            own = same.get("head_dim", 2)  # transformers' own is even
            if type(own) is not int or own < 2 or own % 2:
                raise ValueError(
                    f"{named['head_dim']}: got {own!r}, expected an even number of at least 2"
                )
            return
        if width % heads:
            raise ValueError(
                f"{name}: got {heads}, expected a divisor of {named['hidden_size']}, {width}"
            )
        if width // heads % 2:
            raise ValueError(
                f"{name}: got {heads} for a {named['hidden_size']} of {width}, which makes heads "
                f"of {width // heads} numbers, expected an even one"
            )


def _rotations(written: Mapping[str, Any]) -> dict[str, Any]:
    """How positions are encoded. Raises `ValueError` unless they are plain rotations, the same in
    all layers, and nothing else is said of them.
    """
    position = checkpoints.rope(written)
    periods: set[Any] = {written.get("rope_theta")}
    for name in ("rope_parameters", "rope_scaling"):
        found = written.get(name) or {}
        if any(found.get(kind, "default") != "default" for kind in ("rope_type", "type")):
            raise ValueError(f"{name}: got {shown(found)}, which is not supported")
        for part, value in found.items():
            if part not in ("rope_theta", "rope_type", "type") and value is not None:
                raise ValueError(
                    f"{name}: got {shown(part, 60)}, expected rope_type and rope_theta alone"
                )
        periods.add(found.get("rope_theta"))
    if len(periods - {None}) > 1:  # of which public code takes one or the other
        raise ValueError(f"rope_theta: got {some(sorted(periods - {None}))}, expected one of them")
    if not isinstance(position["rope_theta"], int | float):
        raise ValueError(f"rope_theta: got {position['rope_theta']!r}, expected a number")
    return position


ROTATIONS = {"rope_theta", "rope_scaling", "rope_parameters", "layer_types"}
WITHOUT_EFFECT = {
    "architectures",
    "auto_map",
    "chunk_size_feed_forward",
    "dtype",
    "id2label",
    "is_encoder_decoder",
    "label2id",
    "mask_token_id",  # read where a family's mask token stands there
    "model_type",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "return_dict",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
"""Fields of any family that change nothing here."""

REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)
"""Transformers' fields that have to be positive integers."""
QWEN = {
    name: name
    for name in (
        *REQUIRED,
        "head_dim",
        "hidden_act",
        "max_position_embeddings",
        "rms_norm_eps",
        "tie_word_embeddings",
        "initializer_range",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
    )
}
QWEN2 = {name: name for name in QWEN if name != "head_dim"}
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "use_sliding_window": (False, None),
    "attention_dropout": (0.0, None),
    "use_mrope": (False, None),
}
WINDOW = frozenset({"max_window_layers", "sliding_window"})
"""Which say nothing while `use_sliding_window` is off."""

DREAM = Family(
    name="Dream",
    model_type="Dream",
    config=Qwen2Config,
    network=Qwen2ForCausalLM,
    shifted=True,
    fields=QWEN2,
    neutral=NEUTRAL,
    ignored=WINDOW,
)
"""Dream, Dream-Coder and DiffuCoder, which are built alike."""

A2D_QWEN3 = Family(
    name="A2D on Qwen3",
    model_type="a2d-qwen3",
    config=Qwen3Config,
    network=Qwen3ForCausalLM,
    shifted=False,
    fields=QWEN,
    neutral={**NEUTRAL, "attention_bias": (False, None)},
    ignored=WINDOW,
    mask_token="<|mask|>",
    template={"enable_thinking": False},
)

A2D_QWEN2 = Family(
    name="A2D on Qwen2",
    model_type="a2d-qwen2",
    config=Qwen2Config,
    network=Qwen2ForCausalLM,
    shifted=False,
    fields=QWEN2,
    neutral=NEUTRAL,
    ignored=WINDOW,
    mask_token="<|mask|>",
)

OPEN_DCODER = Family(
    name="open-dcoder",
    model_type="qwen2",
    config=Qwen2Config,
    network=Qwen2ForCausalLM,
    shifted=True,
    fields=QWEN2,
    neutral=NEUTRAL,
    ignored=WINDOW,
    mask_token="<M>",
    mark="<M>",
)

LLADA = Family(
    name="LLaDA",
    model_type="llada",
    config=LlamaConfig,
    network=LlamaForCausalLM,
    shifted=False,
    fields={
        "embedding_size": "vocab_size",
        "vocab_size": "vocab_size",  # where embedding_size is null
        "d_model": "hidden_size",
        "mlp_hidden_size": "intermediate_size",
        "n_layers": "num_hidden_layers",
        "n_heads": "num_attention_heads",
        "n_kv_heads": "num_key_value_heads",
        "max_sequence_length": "max_position_embeddings",
        "rms_norm_eps": "rms_norm_eps",
        "weight_tying": "tie_word_embeddings",
        "init_std": "initializer_range",
        "bos_token_id": "bos_token_id",
        "eos_token_id": "eos_token_id",
        "pad_token_id": "pad_token_id",
    },
    same_if_null={"num_key_value_heads": "num_attention_heads"},
    written=("activation_type", "block_type", "layer_norm_type", "rms_norm_eps", "rope"),
    neutral={
        "activation_type": ("silu",),
        "alibi": (False,),
        "attention_dropout": (0.0, None),
        "attention_layer_norm": (False,),
        "bias_for_layer_norm": (False, None),
        "block_group_size": (1,),
        "block_type": ("llama",),
        "clip_qkv": (None,),
        "embedding_dropout": (0.0, None),
        "include_bias": (False,),
        "include_qkv_bias": (False, None),
        "input_emb_norm": (False,),
        "layer_norm_type": ("rms",),
        "layer_norm_with_affine": (True,),
        "multi_query_attention": (False, None),
        "residual_dropout": (0.0, None),
        "rope": (True,),
        "rope_full_precision": (True,),
        "scale_logits": (False,),
    },
    ignored=frozenset(
        {
            "alibi_bias_max",
            "attention_layer_norm_with_affine",  # of a norm that is off
            "flash_attention",
            "init_cutoff_factor",
            "init_device",
            "init_fn",
            "mlp_ratio",  # mlp_hidden_size counts
            "precision",
        }
    ),
    keys={
        r"^model\.transformer\.wte\.": "model.embed_tokens.",
        r"^model\.transformer\.ln_f\.": "model.norm.",
        r"^model\.transformer\.ff_out\.": "lm_head.",
        **{
            rf"^model\.transformer\.blocks\.(\d+)\.{theirs}\.": rf"model.layers.\1.{ours}."
            for theirs, ours in (
                ("attn_norm", "input_layernorm"),
                ("q_proj", "self_attn.q_proj"),
                ("k_proj", "self_attn.k_proj"),
                ("v_proj", "self_attn.v_proj"),
                ("attn_out", "self_attn.o_proj"),
                ("ff_norm", "post_attention_layernorm"),
                ("ff_proj", "mlp.gate_proj"),
                ("up_proj", "mlp.up_proj"),
                ("ff_out", "mlp.down_proj"),  # not the output layer, which has the same name
            )
        },
    },
    tokenizer="PreTrainedTokenizerFast",
    configured_mask=True,
)
"""LLaDA-8B and LLaDA-1.5. Their tokenizer's files do not say which token is the mask."""

FAMILIES: tuple[Family, ...] = (DREAM, A2D_QWEN3, A2D_QWEN2, OPEN_DCODER, LLADA)

BLOCKWISE = (
    "a later block does not exist while an earlier one is written, so there is no whole answer for "
    "a reward to read"
)
REFUSED = {
    "Fast_dLLM_Qwen": BLOCKWISE,
    "fast_dllm_v2": BLOCKWISE,
    "llada2_moe": BLOCKWISE,
    "opdlm": BLOCKWISE,
    "sdar": BLOCKWISE,
    "sdar_moe": BLOCKWISE,
    "diffusion_gemma": "it has no mask token, but renoises a random canvas: another algorithm",
}
"""Model types that are not masked diffusion in the sense of the paper, and why."""
BLOCKWISE_NAMES = ("bd3lm", "opdlm", "sdar", "fast_dllm", "fast-dllm", "llada2")
"""Parts of the names of blockwise checkpoints whose configuration is that of a family."""


def family_of(written: Mapping[str, Any], name: str) -> Family:
    """The family of a configuration; `name` is the checkpoint's, and a copy may hold its first one.

    Raises `ValueError` for a model that decodes block by block, or that is of none.
    """
    kind = written.get("model_type")
    reason = REFUSED.get(str(kind))
    names = f"{name} {written.get('_name_or_path', '')}".lower()
    if reason is None and any(part in names for part in BLOCKWISE_NAMES):
        reason = BLOCKWISE
    if reason:
        raise ValueError(f"model_type: got {kind!r} in {name}, which is not supported: {reason}")
    for family in FAMILIES:
        if family.model_type == kind:
            return family
    raise ValueError(
        f"model_type: got {kind!r}, expected one of "
        f"{some([repr(family.model_type) for family in FAMILIES])}"
    )
