"""Which networks go together: a mask predictor and reward models of its tokenizer, by size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checks import choice

DREAM = "Dream-org/Dream-v0-Instruct-7B"
SKYWORK = {size: f"Skywork/Skywork-Reward-V2-Qwen3-{size}" for size in ("0.6B", "1.7B", "4B")}
"""The paper's, on the hub. The reward models by size."""
SMALL = "dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1"


GIGABYTES = {
    SMALL: 1.5,
    DREAM: 15.2,
    SKYWORK["0.6B"]: 1.2,
    SKYWORK["1.7B"]: 3.4,
    SKYWORK["4B"]: 8.0,
}
"""Of weights in 16 bits. Counted from parameters, not measured."""


def announced(paths: Iterable[str]) -> str:
    """What of these is fetched, and how large it is, if they are of those that are known here."""
    names = [path.partition("@")[0] for path in paths if not Path(path).is_dir()]
    sizes = [f"{name} (about {GIGABYTES[name]:g} GB)" for name in names if name in GIGABYTES]
    return f"{' and '.join(sizes)}: fetched from the hub, unless done before" if sizes else ""


@dataclass(frozen=True)
class Pair:
    """A mask predictor and a reward model, on the hub."""

    denoiser: str
    reward: str


PAIRS = {"small": Pair(SMALL, SKYWORK["0.6B"]), "paper": Pair(DREAM, SKYWORK["1.7B"])}


def pair_of(size: str, given: bool, denoiser: str | None, rewards: Sequence[str]) -> Pair:
    """The pair of a size. Raises `ValueError` for a size that there is not, and for one that was
    `given` and decides nothing, beside a denoiser and rewards.
    """
    choice("size", size, PAIRS)
    if given and denoiser and rewards:
        raise ValueError(
            f"size: got {size!r} beside --denoiser and --reward, which name both networks"
        )
    return PAIRS[size]
