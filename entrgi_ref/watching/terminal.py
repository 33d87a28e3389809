"""A denoising trajectory live in the terminal."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .. import checks
from ..errors import DenoisingRecord
from ..protocols import Denoiser
from ..relaxation import entropy_weight
from .words import words


@dataclass
class TerminalView:
    """An observer that prints one line per denoising step of one trajectory; a masked position is a
    block, coloured by w.
    """

    denoiser: Denoiser
    trajectory: int = 0
    colour: bool = True
    separator: str = " "
    """Between tokens: none if they bring their own spaces."""

    def __call__(self, record: DenoisingRecord) -> None:
        rows = len(record.tokens)
        self.trajectory = checks.integer("trajectory", self.trajectory, minimum=0, below=rows)
        mine = record.masked.nonzero()[:, 0] == self.trajectory
        weight = (record.weight[-1] if len(record.weight) else entropy_weight(record.logits))[
            mine
        ].tolist()
        masked, committed = (
            record.masked[self.trajectory].tolist(),
            record.committed[self.trajectory].tolist(),
        )
        weights = iter(weight)
        slots = []
        for position, word in enumerate(words(self.denoiser, record.tokens[self.trajectory])):
            w = next(weights) if masked[position] else None
            if committed[position]:
                slots.append(_paint(word, w, self.colour) if self.colour else f"[{word}]")
            elif masked[position]:
                slots.append(
                    _paint("  ", w, self.colour) if self.colour else f"{w:.1f}".lstrip("0")
                )
            else:
                slots.append(word)
        rewards = record.rewards[:, self.trajectory].tolist()
        shown = " → ".join(f"{r:+.2f}" for r in rewards) if rewards else "unguided"
        print(f"{record.step + 1:4d}  t {record.t:.2f}  {self.separator.join(slots)}   R {shown}")


def _paint(text: str, weight: float | None, colour: bool) -> str:
    """`text` on the colour of a weight, as an ANSI sequence of the terminal."""
    if weight is None or not colour:
        return text
    r, g, b = weight_colour(weight)
    dark = r * 0.299 + g * 0.587 + b * 0.114 < 118
    return f"\x1b[48;2;{r};{g};{b}m\x1b[38;5;{15 if dark else 16}m{text}\x1b[0m"


CIVIDIS = torch.tensor(
    [[0, 34, 78], [58, 77, 107], [124, 123, 120], [185, 172, 112], [254, 232, 56]],
    dtype=torch.float32,
)
"""Five points of the colour map cividis, which people with any kind of colour vision can read."""


@checks.explained
def weight_colour(weight: float) -> tuple[int, int, int]:
    """The red, green and blue of a weight in [0, 1]: dark blue is 0 (soft), yellow is 1 (hard).

    The page does the same.
    """
    place = min(max(weight, 0.0), 1.0) * (len(CIVIDIS) - 1)
    low = min(int(place), len(CIVIDIS) - 2)
    r, g, b = torch.lerp(CIVIDIS[low], CIVIDIS[low + 1], place - low).round().int().tolist()
    return r, g, b
