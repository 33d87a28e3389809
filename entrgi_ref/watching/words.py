"""What a person sees of a token."""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor

from .. import checks
from ..protocols import Denoiser


@checks.explained
def words(denoiser: Denoiser, tokens: Int[Tensor, "N"]) -> list[str]:
    """The text of each token by itself, with signs for what would not be seen."""
    ids, texts = tokens.tolist(), denoiser.decode(tokens[:, None])
    return [
        printable(text) or ("⟨end⟩" if index == denoiser.eos_id else "⟨special⟩")
        for index, text in zip(ids, texts, strict=True)
    ]


@checks.explained
def printable(text: str) -> str:
    """`text` in one line, without the characters that would command a terminal."""
    text = text.replace("\n", "⏎").replace("\t", "⇥")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
