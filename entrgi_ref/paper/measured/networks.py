"""Random networks of any shape, behind the same classes as the real ones: what `bench` runs on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2ForSequenceClassification

from ...models import Dream, SequenceReward, VocabularyMap


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
    denoiser: tuple[int, int]
    """Width and layers."""
    reward: tuple[int, int]
    gradient_steps: int = 3
    dtype: str = "float32"


SHAPES = {
    "tiny": Shape(385, 600, 2, 4, 64, 16, (64, 2), (64, 2)),
    "toy": Shape(64, 8, 16, 4, 12, 12, (64, 2), (48, 2)),
    "wide": Shape(152_064, 16, 1, 4, 16, 8, (64, 2), (64, 2)),
    "paper": Shape(152_064, 256, 4, 4, 128, 128, (3584, 28), (2048, 28), dtype="bfloat16"),
}
"""`tiny` has the sizes of the recorded runs but for its prompts, `wide` the vocabulary of Dream on
small networks, `paper` the sizes of Dream-7B and the 1.7B reward model, for a GPU."""


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
    dtype = getattr(torch, shape.dtype)

    def config(width: int, layers: int) -> Qwen2Config:
        heads = max(1, width // 64)
        one_label: Any = {"num_labels": 1}  # of the reward model
        return Qwen2Config(
            vocab_size=shape.vocabulary,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=2 * (shape.prompt + shape.new_tokens) + 64,
            pad_token_id=None,
            **one_label,
        )

    with torch.device(device):
        mask_predictor = Qwen2ForCausalLM(config(*shape.denoiser)).to(dtype)
        classifier = Qwen2ForSequenceClassification(config(*shape.reward)).to(dtype)
        writable = torch.arange(shape.vocabulary) >= 2
    for network in (mask_predictor, classifier):
        network.requires_grad_(False).eval()
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
        embeddings=classifier.get_input_embeddings().weight,
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
