"""Which networks go together: a mask predictor and reward models of its tokenizer, by size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..checks import choice

DREAM = "Dream-org/Dream-v0-Instruct-7B"
SKYWORK = {size: f"Skywork/Skywork-Reward-V2-Qwen3-{size}" for size in ("0.6B", "1.7B", "4B")}
"""The paper's, on the hub. The reward models by size."""
SMALL = "dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1"


@dataclass(frozen=True)
class Pair:
    """A mask predictor and a reward model, on the hub."""

    denoiser: str
    reward: str
    gigabytes: dict[str, float]
    """Of their weights in 16 bits. Counted from parameters, not measured."""

    def announced(self, *paths: str) -> str:
        """What is fetched, and how large it is, of those of its networks that are among `paths`.
        Nothing if none is.
        """
        mine = [path for path in paths if path in self.gigabytes]
        sizes = " and ".join(f"{path} (about {self.gigabytes[path]:g} GB)" for path in mine)
        return f"{sizes}: fetched from the hub, unless done before" if mine else ""


PAIRS = {
    "small": Pair(SMALL, SKYWORK["0.6B"], {SMALL: 1.5, SKYWORK["0.6B"]: 1.2}),
    "paper": Pair(DREAM, SKYWORK["1.7B"], {DREAM: 15.2, SKYWORK["1.7B"]: 3.4}),
}


def pair_of(size: str) -> Pair:
    """`ValueError` for a size that there is not."""
    choice("size", size, PAIRS)
    return PAIRS[size]


def chosen(
    size: str, size_is_given: bool, denoiser: str | None, rewards: Sequence[str]
) -> tuple[str, list[str], str]:
    """The denoiser and the rewards, by name or of a size, and what is fetched of a pair.

    Raises `ValueError` for a size that decides nothing.
    """
    pair = pair_of(size)
    if size_is_given and denoiser and rewards:
        raise ValueError(
            f"size: got {size!r} beside --denoiser and --reward, which name both networks"
        )
    network, judges = denoiser or pair.denoiser, list(rewards) or [pair.reward]
    return network, judges, pair.announced(network, *judges)
