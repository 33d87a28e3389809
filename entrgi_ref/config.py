"""The settings of Algorithm 1. Defaults are the paper's; `SamplingConfig.authors` adds the details
in which the authors' code differs from its words.

Both classes are frozen and checked when they are made: an error names the field, its value and the
allowed range. A setting that would have no effect beside the others is an error too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import Any

import torch

from . import checks
from .guidance import OPTIMISERS, OptimiserFunction
from .orders import ORDERS, ORIGIN, OrderFunction
from .relaxation import WEIGHTS, WeightFunction
from .schedule import MANY, Step, busy_steps, schedule

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "denoiser": None,
}
MANY_ANSWERS = 2**24
"""Of one prompt. A distribution may be asked for a million."""
BY_ENTROPY = ("entrgi", "entrgi_tempered")
"""The weights that `epsilon` is for."""


@dataclass(frozen=True)
class GuidanceConfig:
    """How the logits are guided within one denoising step (Eqs. 4 and 6)."""

    weight: str | WeightFunction = "entrgi"
    """The method: `expectation` (w = 0), `aps` (w = 1), `entrgi` (w = H / log V at temperature 1),
    `entrgi_tempered` (at the sampling temperature), or any function logits [n, V] -> w [n]."""
    steps: int = 3
    """M in [0, 2^16), gradient steps per denoising step. 0 is Best-of-N."""
    step_size: float = 0.5
    """eta > 0, the optimiser's step: Adam's in logits."""
    dtype: str = "float32"
    """Of the logits, guided or not, and the optimiser's state: `float32`, `float64`, `bfloat16`, or
    `denoiser` for that of the denoiser's logits, as in the authors' code (but not float16)."""
    epsilon: float = 0.0
    """0 or in [1e-30, 1e-3], added inside the entropy's logarithm; the authors' code adds 1e-10."""
    optimiser: str | OptimiserFunction = "adam"
    """How a gradient becomes a step: `adam` as in the authors' code, `sgd` for Eq. 6 as it reads,
    or a class of `torch.optim`, called as ([psi], lr=step_size)."""

    def __post_init__(self) -> None:
        checks.choice_or_function("weight", self.weight, WEIGHTS)
        checks.choice("dtype", self.dtype, DTYPES)
        checks.choice_or_function("optimiser", self.optimiser, OPTIMISERS)
        _set(self, "steps", checks.integer("steps", self.steps, minimum=0, below=MANY))
        _set(self, "step_size", checks.number("step_size", self.step_size, 0, 1e6))
        _set(self, "epsilon", checks.epsilon(self.epsilon))
        if self.epsilon and self.weight not in BY_ENTROPY:
            raise ValueError(
                f"epsilon: got {self.epsilon!r}, expected 0: the weight {self.weight!r} has no "
                "entropy that it could be added in"
            )

    def weight_function(self, temperature: float) -> WeightFunction:
        """The function logits -> w that `weight` names; `temperature` is the sampling one."""
        if not isinstance(self.weight, str):
            return self.weight
        settings = {"epsilon": self.epsilon} if self.epsilon else {}
        if self.weight == "entrgi_tempered":
            settings["temperature"] = temperature
        return partial(WEIGHTS[self.weight], **settings) if settings else WEIGHTS[self.weight]

    def but(self, **changes: Any) -> GuidanceConfig:
        """These settings with some changes; a new weight that has no entropy drops the epsilon."""
        if "weight" in changes and changes["weight"] not in BY_ENTROPY:
            changes = {"epsilon": 0.0, **changes}
        return replace(self, **changes)

    def authors(self) -> GuidanceConfig:
        """These settings, with what `SamplingConfig.authors` says."""
        epsilon = 1e-10 if self.weight in BY_ENTROPY else 0.0
        return replace(self, epsilon=epsilon, dtype="denoiser")


GuidanceByStep = Callable[[Step], GuidanceConfig]
"""The guidance of each denoising step."""


@dataclass(frozen=True)
class SamplingConfig:
    """How answers are sampled (Algorithm 1)."""

    guidance: GuidanceConfig | GuidanceByStep = field(default_factory=GuidanceConfig)
    """The same at every denoising step, or a function `Step` -> `GuidanceConfig`. It is called once
    for each step, before any model runs."""
    trajectories: int = 4
    """K in [1, 2^24), answers per prompt."""
    new_tokens: int = 128
    """N in [1, 2^16), length of a response."""
    denoising_steps: int = 128
    """T in [1, 2^16). Step i goes from noise level t to s, see `schedule`."""
    temperature: float = 0.7
    """tau > 0, in Eq. 1, for the tokens that are written, and for the order `entropy`."""
    top_p: float = 0.95
    """In (0, 1], the mass of the nucleus from which hard and written tokens are drawn."""
    order: str | OrderFunction = "entropy"
    """Which positions are committed first: `entropy`, `maskgit_plus`, `topk_margin`, `anchor` (see
    `ORDERS`), `origin` (at random), or any function `Candidates` -> confidence [n]."""
    order_temperature: float = 0.0
    """0 commits the most confident positions. Above 0, in [1e-6, 1e6], they are drawn without
    replacement, with probability softmax(confidence / order_temperature). Not under `origin`."""
    eos_last: bool = True
    """Whether positions whose candidate ends the answer are committed after all others. Under
    `origin`, which ranks nothing, it says nothing."""
    write_every_id: bool = False
    """Whether every id may be written, even the mask token, or those in `writable` alone."""
    skip_empty_steps: bool = True
    """Whether to skip steps that commit nothing. The answer is the same: they change nothing."""
    seed: int = 0
    """In [0, 2^63)."""

    def __post_init__(self) -> None:
        if not isinstance(self.guidance, GuidanceConfig) and not callable(self.guidance):
            raise ValueError(
                f"guidance: got {checks.shown(self.guidance)}, expected a GuidanceConfig or a "
                "function"
            )
        for name, minimum, below in (
            ("trajectories", 1, MANY_ANSWERS),
            ("new_tokens", 1, MANY),
            ("denoising_steps", 1, MANY),
            ("seed", 0, 2**63),
        ):
            _set(self, name, checks.integer(name, getattr(self, name), minimum, below))
        for name in ("eos_last", "write_every_id", "skip_empty_steps"):
            _set(self, name, checks.boolean(name, getattr(self, name)))
        _set(self, "temperature", checks.temperature(self.temperature))
        _set(self, "top_p", checks.number("top_p", self.top_p, 0, 1))
        checks.choice_or_function("order", self.order, [*ORDERS, ORIGIN])
        _set(self, "order_temperature", checks.order_temperature(self.order_temperature))
        if self.order_temperature and self.order == ORIGIN:
            raise ValueError(
                f"order_temperature: got {self.order_temperature!r}, expected 0: the order "
                "'origin' ranks nothing that it could mix"
            )

    def guidance_at(self, step: Step) -> GuidanceConfig:
        """The guidance of a denoising step. `ValueError` if a function of yours gives none."""
        if isinstance(self.guidance, GuidanceConfig):
            return self.guidance
        found = self.guidance(step)
        if not isinstance(found, GuidanceConfig):
            raise ValueError(
                f"guidance: got {checks.shown(found)} for denoising step {step.index}, expected a "
                "GuidanceConfig"
            )
        return found

    @property
    def left_to_chance(self) -> bool:
        """Whether nobody knows in advance how many tokens a step commits: positions are committed
        at random, or masks may be written and count again.
        """
        return self.order == ORIGIN or self.write_every_id

    @checks.explained
    def guided_steps(
        self, blanks: Iterable[int] | None = None
    ) -> list[tuple[Step, GuidanceConfig]]:
        """The denoising steps that run, each with its guidance.

        `blanks` are the numbers of masks that the responses begin with, by default `new_tokens`.
        With `skip_empty_steps` those steps are left out that are known to commit nothing: psi
        starts anew at every step and random numbers are keyed, so nothing remembers them.
        """
        steps = schedule(self.denoising_steps, self.new_tokens)
        guided = [(step, self.guidance_at(step)) for step in steps]
        if self.left_to_chance or not self.skip_empty_steps:
            return guided
        busy = busy_steps(self.denoising_steps, [self.new_tokens] if blanks is None else blanks)
        return [(step, guidance) for step, guidance in guided if step.index in busy]

    def may_pause(self, blanks: Collection[int]) -> bool:
        """Whether a trajectory may commit nothing at a step that runs.

        `blanks` are the numbers of masks that the responses begin with.
        """
        if self.order == ORIGIN:
            return not self.skip_empty_steps or self.trajectories * len(blanks) > 1
        if self.skip_empty_steps and len(set(blanks)) < 2:
            return False
        T = self.denoising_steps
        ran = busy_steps(T, blanks) if self.skip_empty_steps else set(range(T))
        return any(busy_steps(T, [n]) != ran for n in set(blanks))

    @property
    def constant_guidance(self) -> GuidanceConfig:
        """The guidance, if it is the same at every denoising step. `ValueError` if it is not."""
        if isinstance(self.guidance, GuidanceConfig):
            return self.guidance
        raise ValueError(f"guidance: got {checks.shown(self.guidance)}, expected a GuidanceConfig")

    def guided(self, **changes: Any) -> SamplingConfig:
        """These settings, with changes of the guidance at every denoising step: see its `but`.

        `guided(steps=0)` is Best-of-N.
        """
        return self._with_guidance(lambda guidance: guidance.but(**changes))

    def _with_guidance(self, of: Callable[[GuidanceConfig], GuidanceConfig]) -> SamplingConfig:
        if isinstance(self.guidance, GuidanceConfig):
            return replace(self, guidance=of(self.guidance))
        return replace(self, guidance=lambda step: of(self.guidance_at(step)))

    def authors(self: SamplingConfig | None = None) -> SamplingConfig:
        """These settings, or the default ones, with what the authors' code does otherwise.

        That is 1e-10 inside the entropy's logarithm, guided logits in the denoiser's dtype, ends of
        sequence last, and every id may be written (rows 1, 3, 8 and 12 of docs/ledger.md). What the
        ledger calls a fault is not imitated.
        """
        config = (self or SamplingConfig())._with_guidance(GuidanceConfig.authors)
        return replace(config, eos_last=True, write_every_id=True)

    def to_json(self) -> str:
        """The settings as JSON. `ValueError` if one of them is a function of yours."""
        own: dict[str, object] = {"order": self.order, "guidance": self.guidance}
        if isinstance(self.guidance, GuidanceConfig):
            own |= {"weight": self.guidance.weight, "optimiser": self.guidance.optimiser}
        for name, value in own.items():
            if callable(value):
                raise ValueError(f"{name}: got {value!r}, expected a name: JSON cannot hold code")
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> SamplingConfig:
        """The settings that `to_json` wrote. A missing key gets its default.

        Unknown keys and values that do not fit raise `ValueError`.
        """
        try:
            written = json.loads(text, object_pairs_hook=checks.without_doubles)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{cls.__name__}: got text that cannot be read ({error})") from error
        settings = _known(cls, written)
        if "guidance" in settings:
            settings["guidance"] = GuidanceConfig(**_known(GuidanceConfig, settings["guidance"]))
        return cls(**settings)


def _set(config: object, name: str, value: object) -> None:
    """Replace numbers of numpy by Python's own, which JSON can hold."""
    object.__setattr__(config, name, value)


def _known(cls: type, settings: object) -> dict[str, Any]:
    """Keyword arguments of the dataclass `cls`; `ValueError` for what is not a field of it."""
    if not isinstance(settings, Mapping):
        raise ValueError(f"{cls.__name__}: got {checks.shown(settings)}, expected a JSON object")
    for key in settings:
        checks.choice(f"{cls.__name__} setting", key, [f.name for f in fields(cls)])
    return dict(settings)
