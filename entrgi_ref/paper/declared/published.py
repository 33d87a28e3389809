"""The paper's published numbers, as far as they were available: from the authors' project page.

The body of the paper, with its tables of Avg@4 and LMUnit and its other methods, was not.
"""

from __future__ import annotations

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

DREAM = "Dream-org/Dream-v0-Instruct-7B"
SKYWORK = {size: f"Skywork/Skywork-Reward-V2-Qwen3-{size}" for size in ("0.6B", "1.7B", "4B")}
"""The reward models, by size."""
LMUNIT = "ContextualAI/LMUnit-qwen2.5-72b"
"""The judge."""


def published(benchmark: str, method: str, measure: str) -> float | None:
    """A number of the paper's main table, or None if it was not available."""
    return TOP1.get((benchmark, method)) if measure == "top1" else None
