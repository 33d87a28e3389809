"""The toy's two kinds of network: a bidirectional mask predictor and causal reward models.

Small transformers, from torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class Size:
    """The size of a transformer."""

    width: int
    """Of its embeddings, d."""
    layers: int
    heads: int = 4
    """Of attention. They share the width."""


class Transformer(nn.Module):
    """A pre-norm transformer with learnt positions: vectors [S, L, d] in, vectors [S, L, d] out."""

    def __init__(self, size: Size, length: int, causal: bool):
        super().__init__()
        self.position = nn.Parameter(torch.randn(length, size.width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            size.width,
            size.heads,
            4 * size.width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(
            layer, size.layers, nn.LayerNorm(size.width), enable_nested_tensor=False
        )
        self.register_buffer(
            "mask", nn.Transformer.generate_square_subsequent_mask(length) if causal else None
        )
        self.causal = causal

    def forward(self, embedded: Float[Tensor, "S L d"]) -> Float[Tensor, "S L d"]:
        return self.layers(embedded + self.position, mask=self.mask, is_causal=self.causal)


class MaskPredictor(nn.Module):
    """The masked diffusion language model: logits of the token at each masked position, from all
    other tokens.
    """

    def __init__(self, size: Size, vocabulary: int, length: int):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, size.width)
        self.transformer = Transformer(size, length, causal=False)
        self.head = nn.Linear(size.width, vocabulary)

    def forward(
        self, tokens: Int[Tensor, "S L"], masked: Bool[Tensor, "S L"]
    ) -> Float[Tensor, "n V"]:
        return self.head(self.transformer(self.embedding(tokens))[masked])


class RewardModel(nn.Module):
    """A scalar per sequence, read off the last position; it reads embeddings, so it can be given
    mixed ones.
    """

    def __init__(self, size: Size, vocabulary: int, length: int, embedding_std: float):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, size.width)
        nn.init.normal_(self.embedding.weight, std=embedding_std)
        self.transformer = Transformer(size, length, causal=True)
        self.head = nn.Linear(size.width, 1)

    def forward(self, embedded: Float[Tensor, "S L d"]) -> Float[Tensor, "S"]:
        return self.head(self.transformer(embedded)[:, -1]).squeeze(-1)
