"""Random networks of any shape, behind the same classes as the real ones: what `bench` runs on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)

from ...commands.pairs import DREAM, SKYWORK, SMALL
from ...models import Dream, SequenceReward, VocabularyMap
from ..declared import shapes as declared
from ..declared.published import SHAPES as SHAPES_OF


@dataclass(frozen=True)
class Sizes:
    """Those of a transformer."""

    width: int
    layers: int
    inner: int
    """Width of its feed-forward layers."""
    heads: int
    key_value_heads: int
    head: int
    """Width of a head."""

    @property
    def options(self) -> dict[str, Any]:
        """Fields of a configuration of transformers."""
        return {
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "intermediate_size": self.inner,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
        }

    @classmethod
    def of(cls, path: str) -> Sizes:
        """Those that are declared for a checkpoint of the hub."""
        known = declared.Sizes.of(SHAPES_OF[path])
        return cls(known.width, known.layers, known.inner, known.heads, known.kv_heads, known.head)


NARROW = Sizes(width=64, layers=2, inner=256, heads=1, key_value_heads=1, head=64)
DREAM_7B, QWEN3_1_7B, QWEN3_4B = map(Sizes.of, (DREAM, SKYWORK["1.7B"], SKYWORK["4B"]))
SMALL_DENOISER, QWEN3_0_6B = map(Sizes.of, (SMALL, SKYWORK["0.6B"]))


@dataclass(frozen=True)
class Shape:
    """Sizes of a run and of its networks."""

    vocabulary: int
    prompt: int
    """Tokens of each prompt."""
    prompts: int
    trajectories: int
    new_tokens: int
    denoising_steps: int
    denoiser: Sizes = NARROW
    reward: Sizes = NARROW
    gradient_steps: int = 3
    dtype: str = "float32"


SHAPES = {
    "tiny": Shape(385, 600, 2, 4, 64, 16),
    "toy": Shape(64, 8, 16, 4, 12, 12),
    "wide": Shape(152_064, 16, 1, 4, 16, 8),
    "small": Shape(151_936, 32, 1, 1, 32, 4, SMALL_DENOISER, QWEN3_0_6B),
    "paper": Shape(152_064, 256, 4, 4, 128, 8, DREAM_7B, QWEN3_1_7B, dtype="bfloat16"),
    "paper-4b": Shape(152_064, 256, 4, 4, 128, 4, DREAM_7B, QWEN3_4B, dtype="bfloat16"),
}
"""`tiny` has the sizes of the recorded runs but for its prompts, `wide` the vocabulary of Dream on
small networks, `small` those of the small pair and of one short answer, for a CPU, `paper` those of
Dream-7B and the 1.7B reward model, for a GPU, `paper-4b` those of the 4B one. The paper's 128
denoising steps are 8 and 4 here: the masks, and so the seconds of a step, are as many on average,
or a little more."""


SUFFIX = 1
"""Tokens that `Words` writes after an answer."""


@dataclass
class Words:
    """A tokenizer whose words are numbers: the text `5 7` has the tokens 5 and 7."""

    size: int
    eos_token_id: int = 1
    pad_token_id: int = 1
    mask_token_id: int = 0
    all_special_ids: tuple[int, ...] = (0, 1)

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        return {"input_ids": [int(word) for word in text.split()]}

    def apply_chat_template(self, turns: list[dict[str, str]], **options: Any) -> str:
        """The turns one after another, each between two marks."""
        return " ".join(f"2 {turn['content']} 3" for turn in turns)

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        """The numbers."""
        return " ".join(str(index) for index in ids if index not in self.all_special_ids)


def networks(shape: Shape, device: torch.device) -> tuple[Dream, SequenceReward]:
    """A denoiser and a reward model of a shape, with random weights."""
    torch.manual_seed(0)
    common: dict[str, Any] = {
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": 2 * (shape.prompt + shape.new_tokens) + 64,
        "pad_token_id": None,
        "tie_word_embeddings": False,
    }
    heads: dict[str, Any] = {"head_dim": shape.denoiser.head}
    qwen2 = Qwen2Config(**common, **shape.denoiser.options, **heads)
    head: dict[str, Any] = {"head_dim": shape.reward.head, "num_labels": 1}
    qwen3 = Qwen3Config(**common, **shape.reward.options, **head)
    torch.set_default_dtype(getattr(torch, shape.dtype))
    try:
        with torch.device(device):
            mask_predictor = Qwen2ForCausalLM(qwen2)
            classifier = Qwen3ForSequenceClassification(qwen3)
            writable = torch.arange(shape.vocabulary) >= 2
    finally:
        torch.set_default_dtype(torch.float32)
    for network in (mask_predictor, classifier):
        network.requires_grad_(False).eval()
    table: Any = classifier.get_input_embeddings().weight
    words: Any = Words(shape.vocabulary)
    everyone = torch.arange(shape.vocabulary)
    denoiser = Dream(
        network=mask_predictor,
        tokenizer=words,
        tokens=tuple(map(str, range(shape.vocabulary))),
        writable=writable,
        mask_id=0,
        eos_id=1,
        pad_id=1,
    )
    same = VocabularyMap(everyone, everyone >= 0, shape.vocabulary, ())
    reward = SequenceReward(
        network=classifier,
        tokenizer=words,
        vocabulary=same.to(device),
        embeddings=table,
        eos_id=1,
        pad_id=1,
        prefix_cache=True,
    )
    return denoiser, reward


def prompts_of(shape: Shape) -> list[str]:
    """Prompts of random words, all of one length."""
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(4, shape.vocabulary, (shape.prompts, shape.prompt), generator=generator)
    return [" ".join(map(str, row)) for row in words.tolist()]
