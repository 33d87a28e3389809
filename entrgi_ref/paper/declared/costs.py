"""What a run costs, and how many unguided trajectories the same cost buys."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...config import SamplingConfig
from ...schedule import busy_steps, schedule


@dataclass(frozen=True)
class Costs:
    """What it costs either network to read one sequence: positions x parameters.

    A table of embeddings does not count among the parameters, as nothing is multiplied with it,
    unless it is the output layer too.
    """

    denoiser: float
    reward: float
    text: float | None = None
    """What a score on the way costs, if not `reward`: a finished text is read with its prompt."""

    @property
    def of_text(self) -> float:
        """What a score on the way costs."""
        return self.reward if self.text is None else self.text

    def per_trajectory(self, config: SamplingConfig, texts: int = 0) -> float:
        """The cost of one answer: all steps that run, their gradient steps, the `texts` that are
        scored on the way, and the final score.

        A backward pass through a frozen network counts as one forward pass: there are no gradients
        of weights to compute. Source: ours.
        """
        gradient_steps = gradient_steps_of(config)
        guidance = 2 * sum(gradient_steps) * self.reward
        on_the_way = guidance + texts * self.of_text
        return len(gradient_steps) * self.denoiser + on_the_way + self.reward

    def equal_trajectories(
        self, guided: SamplingConfig, unguided: SamplingConfig, texts: int = 0
    ) -> int:
        """K with which `unguided` costs as much as `guided`, rounded up: BoN at equal compute, or a
        rival that scores so many `texts` on the way to an answer.
        """
        ratio = self.per_trajectory(guided) / self.per_trajectory(unguided, texts)
        return math.ceil(round(guided.trajectories * ratio, 9))  # 4.0000000000000001 is 4


def gradient_steps_of(config: SamplingConfig) -> list[int]:
    """M at each denoising step that runs, if every step commits what the schedule says."""
    busy = busy_steps(config.denoising_steps, [config.new_tokens])
    return [
        config.guidance_at(step).steps
        for step in schedule(config.denoising_steps, config.new_tokens)
        if step.index in busy or not config.skip_empty_steps
    ]
