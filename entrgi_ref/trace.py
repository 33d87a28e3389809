"""A denoising trajectory to look at: as one self-contained web page, and live in the terminal.

Both are observers of `generate`. The algorithm knows nothing of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from .errors import DenoisingStep
from .protocols import Denoiser
from .relaxation import entropy, entropy_weight


@dataclass
class Recorder:
    """An observer that keeps what a trace shows of every denoising step, and nothing of the
    vocabulary's width.
    """

    denoiser: Denoiser
    steps: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, record: DenoisingStep) -> None:
        row, position = record.masked.nonzero(as_tuple=True)
        guided = len(record.weight) > 0
        self.steps.append(
            {
                "step": record.step,
                "t": record.t,
                "row": row.cpu(),
                "position": position.cpu(),
                # Without guidance, what the weight and the entropy would be.
                "weight": (record.weight if guided else entropy_weight(record.logits)[None])
                .float()
                .cpu(),
                "entropy": (record.entropy if guided else entropy(record.logits)[None])
                .float()
                .cpu(),
                "E": record.E.float().cpu(),
                "D": record.D.float().cpu(),
                "rewards": record.rewards.float().cpu(),
                "candidates": record.candidates.cpu(),
                "committed": record.committed.cpu(),
                "tokens": record.tokens.cpu(),
            }
        )

    def frames(self, trajectory: int) -> list[dict[str, Any]]:
        """One JSON-ready frame per denoising step of one trajectory (a row of the batch), and one
        for the answer.

        `tokens` are those before the step, None where masked. The lists of `slots` follow
        `positions`; weight, entropy, E and D are those of the last gradient step. `rewards` has one
        number per gradient step, and `mean_E`, `mean_D` too.
        """
        frames = []
        for step in self.steps:
            mine = step["row"] == trajectory
            positions = step["position"][mine]
            before = self._words(step["tokens"][trajectory])
            for position in positions.tolist():
                before[position] = None

            def last(name: str, step: dict[str, Any] = step, mine: Tensor = mine) -> list[float]:
                return _rounded(step[name][-1][mine]) if len(step[name]) else []

            frames.append(
                {
                    "step": step["step"],
                    "t": round(step["t"], 4),
                    "tokens": before,
                    "positions": positions.tolist(),
                    "candidates": self._words(step["candidates"][mine]),
                    "committed": step["committed"][trajectory].nonzero().flatten().tolist(),
                    **{name: last(name) for name in ("weight", "entropy", "E", "D")},
                    "rewards": _rounded(step["rewards"][:, trajectory]),
                    "mean_E": _rounded(step["E"][:, mine].mean(1)),
                    "mean_D": _rounded(step["D"][:, mine].mean(1)),
                }
            )
        answer = self._words(self.steps[-1]["tokens"][trajectory])
        return [*frames, {"step": None, "t": 0, "tokens": answer, "positions": [], "committed": []}]

    def _words(self, tokens: Tensor) -> list[str | None]:
        return list(words(self.denoiser, tokens))


def words(denoiser: Denoiser, tokens: Int[Tensor, "N"]) -> list[str]:
    """The text of each token by itself, with signs for what would not be seen."""
    ids, texts = tokens.tolist(), denoiser.decode(tokens[:, None])
    return [
        printable(text) or ("⟨end⟩" if index == denoiser.eos_id else "⟨special⟩")
        for index, text in zip(ids, texts, strict=True)
    ]


def printable(text: str) -> str:
    """`text` in one line, without the characters that would command a terminal."""
    text = text.replace("\n", "⏎").replace("\t", "⇥")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def write_trace(path: Path, prompt: str, panels: list[dict[str, Any]]) -> None:
    """Write the page: one panel per trajectory, side by side, in one file that needs no network.

    A panel has `title`, `subtitle`, `results` (label -> text, shown with the finished answer) and
    `frames`, from `Recorder.frames`.
    """
    data = json.dumps(
        {"prompt": prompt, "panels": panels}, ensure_ascii=False, separators=(",", ":")
    )
    data = data.replace("<", "\\u003c")  # no text may end the script element that holds it
    page, script, style = (
        (Path(__file__).parent / f"trace.{kind}").read_text(encoding="utf-8")
        for kind in ("html", "js", "css")
    )
    page = page.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
    path.write_text(page.replace('"TRACE"', data, 1), encoding="utf-8")


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

    def __call__(self, record: DenoisingStep) -> None:
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


def weight_colour(weight: float) -> tuple[int, int, int]:
    """The red, green and blue of a weight in [0, 1]: dark blue is 0 (soft), yellow is 1 (hard).

    The page does the same.
    """
    place = min(max(weight, 0.0), 1.0) * (len(CIVIDIS) - 1)
    low = min(int(place), len(CIVIDIS) - 2)
    r, g, b = torch.lerp(CIVIDIS[low], CIVIDIS[low + 1], place - low).round().int().tolist()
    return r, g, b
