"""Networks that a command will need, trained ahead of it and side by side.

A network is trained by one thread, so that it depends on nothing but its recipe, the code and the
machine. Other cores can train other networks meanwhile.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess

from .training import DenoiserRecipe, RewardRecipe, Track, cached, stored


def train_ahead(
    recipes: Sequence[DenoiserRecipe | RewardRecipe], processes: int, track: Track
) -> None:
    """Put networks into the cache, those that are not there yet, `processes` at a time.

    `track` wraps the networks. One that cannot be trained is left out: who asks for it later trains
    it there, and sees why not. Raises `ValueError` for what is no file in the place of one: a pipe
    would be waited for without end.
    """
    for path in map(stored, recipes):
        if path.exists() and not path.is_file():
            raise ValueError(f"cache: {path} is no file; remove it")
    missing = [recipe for recipe in recipes if not stored(recipe).exists()][::-1]
    if min(len(missing), processes) < 2:
        return
    fresh = multiprocessing.get_context("spawn")
    running: list[BaseProcess] = []
    for _ in track(range(len(missing)), f"training {len(missing)} networks, {processes} at a time"):
        while missing and len(running) < processes:
            process = fresh.Process(target=_train, args=(missing.pop(),), daemon=True)
            process.start()
            running.append(process)
        ended = connection.wait([process.sentinel for process in running])[0]
        running = [process for process in running if process.sentinel != ended]


def _train(recipe: DenoiserRecipe | RewardRecipe) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the command, and that ends this
    cached(recipe)
