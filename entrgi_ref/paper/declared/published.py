"""The paper's published numbers, as far as they were available: from the authors' project page.

The body of the paper, with its tables of Avg@4 and LMUnit and its other methods, was not.
"""

from __future__ import annotations

from typing import Any

from ...commands.pairs import DREAM, SKYWORK, SMALL

TOP1: dict[tuple[str, str], float] = {
    ("reward-bench-2", "entrgi"): 3.91,
    ("reward-bench-2", "bon"): 2.99,
    ("judge-bench", "entrgi"): 2.44,
    ("judge-bench", "bon"): 1.65,
    ("rm-bench", "entrgi"): 5.70,
    ("rm-bench", "bon"): 5.11,
}
"""(Benchmark, method) -> Top@1: Dream-7B, Skywork-Reward-V2-Qwen3-1.7B, tau = 0.7."""

PROMPTS, SEEDS = 64, (1, 2, 3)
"""Of each benchmark. The settings behind the numbers are `SamplingConfig.authors()`."""

_QWEN3 = {"model_type": "qwen3", "vocab_size": 151_936, "num_key_value_heads": 8, "head_dim": 128}
SHAPES: dict[str, dict[str, Any]] = {
    DREAM: {
        "model_type": "Dream",
        "vocab_size": 152_064,
        "hidden_size": 3584,
        "intermediate_size": 18_944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
    SMALL: _QWEN3
    | {
        "model_type": "a2d-qwen3",
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
    },
    **{
        SKYWORK[size]: _QWEN3
        | {
            "hidden_size": width,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
        }
        for size, width, inner, layers, heads in (
            ("0.6B", 1024, 3072, 28, 16),
            ("1.7B", 2048, 6144, 28, 16),
            ("4B", 2560, 9728, 36, 32),
        )
    },
}
"""Hub id -> what `plan --dry` takes for config.json where the hub does not answer: the shape of
Qwen2.5-7B, which Dream has, and those of Qwen3. Not read from the hub here."""
LMUNIT = "ContextualAI/LMUnit-qwen2.5-72b"
"""The judge."""


def published(benchmark: str, method: str, measure: str) -> float | None:
    """A number of the paper's main table, or None if it was not available."""
    return TOP1.get((benchmark, method)) if measure == "top1" else None
