"""How a method answers prompts: its settings, what else it is given, and what computes it.

The rivals have the compute of EntRGi with the settings of the run, counted by `Costs`, and K is
rounded up, as for Best-of-N at equal compute:

    damped      EntRGi's own passes, and so its K
    smc         as many particles as that buys, with a finished text scored for each at each step
    self_smc    as many particles as Best-of-N at equal compute has answers: it scores none
    lookahead   K answers, and as many candidates for each token as that buys; where it does not buy
                two, two, and fewer answers
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ...commands.own_weights import OwnWeight, settings_of
from ...config import SamplingConfig
from ...denoising import Generation, generate
from ...draws import Draws
from ...errors import DenoisingRecord
from ...protocols import Denoiser, Reward
from ...rivals import damped, lookahead, self_smc, smc
from .costs import Costs, gradient_steps_of
from .experiments import RIVALS

SAMPLED: Mapping[str, Callable[..., Generation]] = {
    "smc": smc,
    "self_smc": self_smc,
    "lookahead": lookahead,
}
"""The rivals that need no gradient."""
BETA = {"smc": 0.1, "self_smc": 1.0, "lookahead": 1.0}
"""Their beta, in units of the reward, of `self_smc` in nats. Chosen on the toy, with the training
seeds 10 and 11: not tuned for Dream."""
FEWEST = 2
"""Candidates for a token: among fewer there is nothing to choose."""


@dataclass(frozen=True)
class Method:
    """A method of an experiment with all that it takes to answer prompts."""

    name: str
    config: SamplingConfig
    """Of `damped`, the settings that are damped: JSON can hold these."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What a rival is called with beside the settings."""

    @classmethod
    def of(
        cls,
        name: str,
        base: SamplingConfig,
        costs: Callable[[], Costs],
        own_weights: Mapping[str, OwnWeight] | None = None,
    ) -> Method:
        """A method under the settings `base`. `costs` is asked where it decides something;
        `own_weights` are functions by the names of their methods.
        """
        unguided = base.guided(steps=0)
        if name == "bon":
            return cls(name, unguided)
        if name == "bon_equal_compute":
            K = costs().equal_trajectories(base, unguided)
            return cls(name, replace(unguided, trajectories=K))
        if own_weights and name in own_weights:
            return cls(name, base.guided(weight=own_weights[name]))
        if name not in SAMPLED:
            return cls(name, base.guided(weight="entrgi" if name == "damped" else name))
        options = {"beta": BETA[name]}
        if name == "lookahead":
            options["candidates"] = _candidates(base, costs())
        found = cls(name, unguided, options)
        K = costs().equal_trajectories(base, unguided, found.texts)
        if name == "lookahead":
            K = min(K, base.trajectories)
        return replace(found, config=replace(unguided, trajectories=K))

    @classmethod
    def recorded(cls, record: Mapping[str, Any]) -> Method:
        """The method of a record. `ValueError` for a weight of your own: a record holds no code."""
        settings, known = record["settings"], {each.name for each in fields(SamplingConfig)}
        own = {name: value for name, value in settings.items() if name in known}
        config = SamplingConfig.from_json(json.dumps(own))
        return cls(record["method"], config, settings.get("options", {}))

    @property
    def settings(self) -> dict[str, Any]:
        """What a record says of it, beside its name."""
        settings = settings_of(self.config)
        return {**settings, "options": dict(self.options)} if self.name in RIVALS else settings

    @property
    def texts(self) -> int:
        """How many texts are scored on the way to an answer."""
        if self.name == "smc":
            return len(gradient_steps_of(self.config))
        return int(self.options.get("candidates", 0)) * self.config.new_tokens

    @property
    def takes_draws(self) -> bool:
        """Whether `generate` answers it, whose draws may be given and whose steps be seen."""
        return self.name not in SAMPLED

    def answer(
        self,
        denoiser: Denoiser,
        reward: Reward,
        prompts: Sequence[str],
        *,
        observe: Callable[[DenoisingRecord], None] | None = None,
        draws: Draws | None = None,
        vocabulary_batch: int | None = None,
    ) -> Generation:
        """Answer prompts. `observe`, `draws` and `vocabulary_batch` are those of `generate`; rivals
        without gradients have no use for them.
        """
        if not self.takes_draws:
            return SAMPLED[self.name](denoiser, reward, prompts, self.config, **self.options)
        config = damped(self.config) if self.name == "damped" else self.config
        options: Any = {"observe": observe, "draws": draws, "vocabulary_batch": vocabulary_batch}
        return generate(denoiser, reward, prompts, config, **options)


def _candidates(base: SamplingConfig, costs: Costs) -> int:
    """As many for each token as make an answer cost at most what a guided one does."""
    spare = costs.per_trajectory(base) - costs.per_trajectory(base.guided(steps=0))
    each = base.new_tokens * costs.of_text
    return max(FEWEST, math.floor(round(spare / each, 9))) if each else FEWEST
