"""The options that the toy's commands share, and the networks that they stand for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from .testbed import Testbed

Quick = Annotated[
    bool,
    typer.Option(
        "--quick",
        help="Smaller networks, trained in seconds; where there is a choice fewer prompts and one "
        "seed. To try things out: the numbers are others.",
    ),
]
Reward = Annotated[
    str, typer.Option(help="The guiding reward model: small, medium, large or closed_form.")
]
TrainingSeed = Annotated[
    int,
    typer.Option(
        min=0,
        max=2**63 - 1,
        help="Of the networks: another seed is another pair, trained if it is not in the cache.",
    ),
]
EmbeddingStd = Annotated[
    float,
    typer.Option(help="Standard deviation of the reward model's embeddings before its training."),
]
Threads = Annotated[int, typer.Option(min=1, max=256, help="CPU threads.")]


def load_testbed(
    reward: str, quick: bool, seed: int, embedding_std: float, threads: int, pairs: int = 1
) -> Testbed:
    """The trained networks, with a progress bar if they have to be trained first: then those of
    the next training seeds too, if more pairs will be needed.
    """
    import torch

    from .ahead import train_ahead
    from .testbed import Testbed, recipes

    torch.set_num_threads(threads)
    wanted = [
        recipe
        for after in range(pairs)
        for recipe in recipes(reward, quick, seed + after, embedding_std)
        if recipe
    ]
    train_ahead(wanted, threads, bar)
    return Testbed.load(reward, quick=quick, seed=seed, embedding_std=embedding_std, track=bar)


def bar(steps: Iterable[int], label: str) -> Iterable[int]:
    """Progress of a training, in the terminal."""
    with typer.progressbar(steps, label=label) as shown:
        yield from shown
