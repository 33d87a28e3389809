"""The settings of Algorithm 1. Defaults are those behind the paper's published numbers.

Both classes are frozen and checked when they are made: an error names the field, its value and the
allowed range.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import Any

import torch

from . import checks
from .orders import ORDERS, ORIGIN, OrderFunction
from .relaxation import WEIGHTS, WeightFunction, entropy_weight

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "denoiser": None,
}


@dataclass(frozen=True)
class GuidanceConfig:
    """How the logits are guided within one denoising step (Eqs. 4 and 6)."""

    weight: str | WeightFunction = "entrgi"
    """The method: `expectation` (w = 0), `aps` (w = 1), `entrgi` (w = H / log V at temperature 1),
    `entrgi_tempered` (at the sampling temperature), or any function logits [n, V] -> w [n]."""
    steps: int = 3
    """M >= 0, gradient steps per denoising step. 0 is Best-of-N."""
    step_size: float = 0.5
    """eta > 0, Adam's step in logits."""
    dtype: str = "float32"
    """Of the guided logits and Adam's state: `float32`, `float64`, `bfloat16`, or `denoiser` for
    that of the denoiser's logits, as in the authors' code."""
    epsilon: float = 0.0
    """In [0, 1e-3], added inside the logarithm of the entropy. The authors' code adds 1e-10."""

    def __post_init__(self) -> None:
        if not callable(self.weight):
            checks.choice("weight", self.weight, [*WEIGHTS, "entrgi_tempered"])
        checks.integer("steps", self.steps, minimum=0)
        checks.number("step_size", self.step_size, 0, 1e6)
        checks.choice("dtype", self.dtype, DTYPES)
        checks.number("epsilon", self.epsilon, 0, 1e-3, low_allowed=True)

    def weight_function(self, temperature: float) -> WeightFunction:
        """The function logits -> w that `weight` names; `temperature` is the sampling one."""
        if callable(self.weight):
            return self.weight
        if self.weight == "entrgi_tempered":
            return partial(entropy_weight, temperature=temperature, epsilon=self.epsilon)
        if self.weight == "entrgi" and self.epsilon:
            return partial(entropy_weight, epsilon=self.epsilon)
        return WEIGHTS[self.weight]


@dataclass(frozen=True)
class SamplingConfig:
    """How answers are sampled (Algorithm 1)."""

    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    trajectories: int = 4
    """K >= 1, answers per prompt."""
    new_tokens: int = 128
    """N >= 1, length of a response."""
    denoising_steps: int = 128
    """T >= 1. Step i goes from noise level t to s, see `schedule`."""
    temperature: float = 0.7
    """tau > 0, in Eq. 1 and for the tokens that are written."""
    top_p: float = 0.95
    """In (0, 1], the mass of the nucleus from which hard and written tokens are drawn."""
    order: str | OrderFunction = "entropy"
    """Which positions are committed first: `entropy`, `maskgit_plus`, `topk_margin`, `anchor` (see
    `ORDERS`), `origin` (at random), or any function `Candidates` -> confidence [n]."""
    order_temperature: float = 0.0
    """0 commits the most confident positions. Above 0 they are drawn without replacement, with
    probability softmax(confidence / order_temperature)."""
    eos_last: bool = True
    """Whether positions whose candidate ends the answer are committed after all others."""
    write_every_id: bool = False
    """Whether every id may be written, even the mask token, or those in `writable` alone."""
    skip_empty_steps: bool = True
    """Whether to skip steps that commit nothing. The answer is the same: they change nothing."""
    seed: int = 0
    """In [0, 2^63)."""

    def __post_init__(self) -> None:
        if not isinstance(self.guidance, GuidanceConfig):
            raise ValueError(f"guidance: got {self.guidance!r}, expected a GuidanceConfig")
        checks.integer("trajectories", self.trajectories, minimum=1)
        checks.integer("new_tokens", self.new_tokens, minimum=1)
        checks.integer("denoising_steps", self.denoising_steps, minimum=1)
        checks.temperature(self.temperature)
        checks.number("top_p", self.top_p, 0, 1)
        if not callable(self.order):
            checks.choice("order", self.order, [*ORDERS, ORIGIN])
        checks.number("order_temperature", self.order_temperature, 0, 1e6, low_allowed=True)
        for name in ("eos_last", "write_every_id", "skip_empty_steps"):
            checks.boolean(name, getattr(self, name))
        checks.integer("seed", self.seed, minimum=0)
        if self.seed >= 2**63:
            raise ValueError(f"seed: got {self.seed}, expected an integer below 2^63")

    def authors(self: SamplingConfig | None = None) -> SamplingConfig:
        """These settings, or the default ones, with what the authors' code does otherwise.

        That is 1e-10 inside the entropy's logarithm, guided logits in the denoiser's dtype, ends of
        sequence last, and every id may be written (rows 1, 3, 8 and 12 of docs/ledger.md). What the
        ledger calls a fault is not imitated.
        """
        config = self or SamplingConfig()
        guidance = replace(config.guidance, epsilon=1e-10, dtype="denoiser")
        return replace(config, guidance=guidance, eos_last=True, write_every_id=True)

    def to_json(self) -> str:
        """The settings as JSON. `ValueError` if the weight or the order is a function of yours."""
        for name, value in (("weight", self.guidance.weight), ("order", self.order)):
            if callable(value):
                raise ValueError(f"{name}: got {value!r}, expected a name: JSON cannot hold code")
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> SamplingConfig:
        """The settings that `to_json` wrote. A missing key gets its default.

        Unknown keys and values that do not fit raise `ValueError`.
        """
        settings = _known(cls, json.loads(text))
        if "guidance" in settings:
            settings["guidance"] = GuidanceConfig(**_known(GuidanceConfig, settings["guidance"]))
        return cls(**settings)


def _known(cls: type, settings: object) -> dict[str, Any]:
    """Keyword arguments of the dataclass `cls`; `ValueError` for what is not a field of it."""
    if not isinstance(settings, Mapping):
        raise ValueError(f"{cls.__name__}: got {settings!r}, expected a JSON object")
    for key in settings:
        checks.choice(f"{cls.__name__} setting", key, [f.name for f in fields(cls)])
    return dict(settings)
