"""The paper's experiments as data: what is varied, what is observed, what it regenerates.

Figure numbers are the paper's, from its public summary. A benchmark, a model and the number of
prompts belong to the testbed (Dream or the toy), not to the experiment.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

LABELS = {
    "bon": "Best-of-N",
    "bon_equal_compute": "Best-of-N, equal compute",
    "expectation": "Expectation",
    "aps": "APS",
    "entrgi": "EntRGi",
    "damped": "EntRGi, damped",
    "smc": "SMC",
    "self_smc": "Self-rewarding SMC",
    "lookahead": "Lookahead",
}
"""The names of the methods as the tables have them; a weight of your own goes by its own."""
RIVALS = ("damped", "smc", "self_smc", "lookahead")
"""Methods of `entrgi_ref.rivals`, at EntRGi's compute: see `methods.py`."""
METHODS = tuple(name for name in LABELS if name not in RIVALS)
GUIDED = ("expectation", "aps", "entrgi")
MAIN = "main"
ALL_REWARDS = "all"

LONGEST_NAME = 200
"""Bytes of what names something in records."""

GRADIENT_STEPS = (1, 2, 3, 4, 6, 8)
"""M in the experiment `gradient-steps`. The paper's own values were not available."""


def label_of(method: str) -> str:
    """What a method is called in tables."""
    return LABELS.get(method, method)


def in_order(methods: Collection[str]) -> list[str]:
    """Methods in the order of the tables, weights of your own behind ours."""
    return [*(m for m in LABELS if m in methods), *sorted(set(methods) - set(LABELS))]


@dataclass(frozen=True)
class Experiment:
    """What is run: every method with every reward model and number of gradient steps, on every
    benchmark, with every seed.
    """

    name: str
    regenerates: str
    """Which table or figure of the paper."""
    methods: tuple[str, ...]
    rewards: str = MAIN
    """`main`: the testbed's main reward model; `all`: every size that it has."""
    gradient_steps: tuple[int | None, ...] = (None,)
    """M; None is that of the settings."""
    observed: bool = False
    """Whether the errors E and the entropies are recorded."""
    beside: tuple[str, ...] = ()
    """Methods that are run only when they are named."""

    def variants(self, rewards: tuple[str, ...], main: str) -> list[Mapping[str, str | int]]:
        """What differs between the cells of one method and benchmark."""
        sizes: tuple[str | None, ...] = (None,) if self.rewards == MAIN else rewards
        return [
            {
                **({} if size is None else {"reward": size}),
                **({} if steps is None else {"gradient_steps": steps}),
            }
            for size in sizes
            for steps in self.gradient_steps
        ]


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment("main", "the main table", METHODS, beside=RIVALS),
        Experiment(
            "error-by-step",
            "Figure 2: errors and entropy by step",
            ("aps", "entrgi"),
            observed=True,
        ),
        Experiment(
            "error-vs-entropy",
            "Figure 3: errors against entropy",
            ("aps", "entrgi"),
            observed=True,
        ),
        Experiment("reward-size", "Figure 4 and appendix", ("bon", *GUIDED), rewards=ALL_REWARDS),
        Experiment(
            "gradient-steps",
            "Figure 5 and appendix",
            GUIDED,
            rewards=ALL_REWARDS,
            gradient_steps=GRADIENT_STEPS,
        ),
    )
}


@dataclass(frozen=True)
class Cell:
    """One method with one variant and seed on one benchmark."""

    experiment: str
    benchmark: str
    method: str
    variant: Mapping[str, str | int]
    seed: int
