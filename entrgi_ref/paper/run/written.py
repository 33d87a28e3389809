"""Which denoising step wrote each token of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ... import checks
from ...config import SamplingConfig
from ...draws import KeyedDraws, KeyedStepDraws
from ...protocols import Denoiser
from ...watching.words import words


class WrittenAt:
    """The draws that `generate` makes by default, which also note when each token is written.

    Draws are asked at every step for all positions that are still masked, so the last step at which
    a position was asked for is the one that wrote it. An observer of `generate` would have the
    errors of Eq. 8 computed at every gradient step. This costs a write of n numbers for each
    denoising step, for which no device waits.
    """

    def __init__(self, denoiser: Denoiser, prompts: Sequence[str], config: SamplingConfig):
        """The draws for `generate` with these prompts and settings."""
        encoded = checks.encoded(denoiser.encode(prompts), len(prompts))
        self._denoiser, self._trajectories = denoiser, config.trajectories
        device = encoded.tokens.device
        self._draws = KeyedDraws.of(config.seed, encoded.keys, config.trajectories, device)
        shape = (len(prompts), config.trajectories, config.new_tokens)
        self._steps = torch.zeros(shape, dtype=torch.int64, device=device)

    def at(self, step: int, row: Int[Tensor, "n"], position: Int[Tensor, "n"]) -> KeyedStepDraws:
        self._steps.view(-1, self._steps.shape[-1])[row, position] = step
        return self._draws.at(step, row, position)

    def of(self, tokens: Int[Tensor, "P K N"]) -> list[dict[str, Any]]:
        """For each prompt, ready for JSON: its answers' words, and the index of the denoising step
        that wrote each.
        """
        known, place = tokens.unique(return_inverse=True)
        word, places = words(self._denoiser, known), place.tolist()
        return [
            {"words": [[word[i] for i in answer] for answer in answers], "steps": steps}
            for answers, steps in zip(places, self._steps.tolist(), strict=True)
        ]
