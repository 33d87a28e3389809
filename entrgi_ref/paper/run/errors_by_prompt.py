"""An observer that keeps, for each prompt, what Figures 2 and 3 are drawn from."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import DenoisingRecord

BINS = 40


class ErrorsByPrompt:
    """Sums of E and of the entropy by denoising step, and counts of their pairs."""

    def __init__(self, prompts: int, trajectories: int, embeddings: Float[Tensor, "V d"]):
        """`embeddings`: the reward model's, whose size gives the scale of E."""
        self.trajectories = trajectories
        self.log_vocabulary = math.log(len(embeddings))
        # E is at most the distance of a token from an average of tokens. Rows of zeros are tokens
        # that the reward model lacks: they may be the most.
        norms = embeddings.float().norm(dim=1)
        norms = norms[norms > 0]
        self.largest_error = 2 * float(norms.median()) if len(norms) else 1.0
        self.counts = torch.zeros(prompts, BINS, BINS, dtype=torch.int64, device=embeddings.device)
        self.steps: list[tuple[int, Tensor, Tensor, Tensor]] = []

    def __call__(self, record: DenoisingRecord) -> None:
        """Observe a denoising step."""
        row = record.masked.nonzero()[:, 0] // self.trajectories
        prompt = row.expand_as(record.E)
        zeros = torch.zeros(len(self.counts), dtype=torch.float64, device=row.device)

        def total(values: Tensor) -> Tensor:
            return zeros.index_add(0, prompt.flatten(), values.flatten().double())

        self.steps.append(
            (record.step, total(record.E), total(record.entropy), total(torch.ones_like(record.E)))
        )
        x = (record.entropy / self.log_vocabulary * BINS).long().clamp(0, BINS - 1)
        y = (record.E / self.largest_error * BINS).long().clamp(0, BINS - 1)
        place = (prompt * BINS + x) * BINS + y
        self.counts.view(-1).index_add_(
            0, place.flatten(), torch.ones_like(place.flatten(), dtype=torch.int64)
        )

    def of(self, prompt: int) -> dict[str, Any]:
        """What was seen of a prompt, ready for JSON.

        Means are over positions, trajectories and gradient steps; entropies in nats, E in units of
        the embedding. The last bin of the errors holds all larger ones too.
        """
        steps = [
            {
                "step": step,
                "E": float(error[prompt] / n[prompt]),
                "entropy": float(entropy[prompt] / n[prompt]),
                "n": int(n[prompt]),
            }
            for step, error, entropy, n in self.steps
            if n[prompt] > 0
        ]
        edges = [i / BINS for i in range(BINS + 1)]
        return {
            "steps": steps,
            "histogram": {
                "entropy_edges": [edge * self.log_vocabulary for edge in edges],
                "error_edges": [edge * self.largest_error for edge in edges],
                "counts": self.counts[prompt].tolist(),
            },
            "log_vocabulary": self.log_vocabulary,
        }
