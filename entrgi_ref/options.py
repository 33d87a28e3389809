"""The command-line options that several commands share: one name and one explanation each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from .config import GuidanceConfig

Trajectories = Annotated[int, typer.Option(help="K, answers per prompt. The paper's value is 4.")]
DenoisingSteps = Annotated[
    int, typer.Option(help="T. The paper's value is 128, one per new token.")
]
GradientSteps = Annotated[
    int,
    typer.Option(
        help="M, gradient steps per denoising step; 0 is Best-of-N. The paper's value is 3."
    ),
]
StepSize = Annotated[
    float, typer.Option(help="eta, Adam's step in logits. The paper's value is 0.5.")
]
Temperature = Annotated[
    float, typer.Option(help="tau, of the sampling distribution. The paper's value is 0.7.")
]
TopP = Annotated[
    float,
    typer.Option(help="Mass of the nucleus that tokens are drawn from. The paper's value is 0.95."),
]
Order = Annotated[
    str,
    typer.Option(
        help="Which positions are committed first: entropy (the paper's), maskgit_plus, "
        "topk_margin, anchor or origin (at random)."
    ),
]
Method = Annotated[
    str, typer.Option(help="expectation, aps, entrgi, entrgi_tempered, or bon for no guidance.")
]
Seed = Annotated[int, typer.Option(help="Of all random choices.")]
NewTokens = Annotated[int, typer.Option(help="N, length of an answer. The paper's value is 128.")]
Device = Annotated[
    str, typer.Option(help="auto (a GPU if there is one), cpu, cuda, cuda:1, ... or mps.")
]
Dtype = Annotated[
    str,
    typer.Option(
        help="Of both networks: auto (bfloat16 on a GPU, as in the paper, else float32), float32, "
        "bfloat16, float16 or float64."
    ),
]
DreamPath = Annotated[
    str,
    typer.Option("--dream", help="The Dream checkpoint: a folder, or its id on the hub."),
]
RewardPath = Annotated[
    str,
    typer.Option("--reward", help="The reward model: a folder, or its id on the hub."),
]


def guidance(method: str, gradient_steps: int, step_size: float) -> GuidanceConfig:
    """The settings that --method, --gradient-steps and --step-size stand for."""
    from .checks import choice
    from .config import GuidanceConfig

    choice("method", method, METHODS)
    if method == "bon":
        return GuidanceConfig(steps=0, step_size=step_size)
    return GuidanceConfig(weight=method, steps=gradient_steps, step_size=step_size)


METHODS = ("bon", "expectation", "aps", "entrgi", "entrgi_tempered")
