"""The command-line options that several commands share: one name and one explanation each."""

from __future__ import annotations

from typing import Annotated

import typer

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
