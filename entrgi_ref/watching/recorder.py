"""An observer that keeps a denoising trajectory, to be looked at afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .. import checks
from ..errors import DenoisingRecord
from ..protocols import Denoiser
from ..relaxation import entropy, entropy_weight
from .words import words


@dataclass
class Recorder:
    """An observer that keeps what a trace shows of every denoising step, and nothing of the
    vocabulary's width. Of several runs it keeps the last.
    """

    denoiser: Denoiser
    steps: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, record: DenoisingRecord) -> None:
        if self.steps and not self._goes_on(record):
            self.steps.clear()  # another run has begun
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
                "left": (record.masked & ~record.committed).cpu(),
            }
        )

    def _goes_on(self, record: DenoisingRecord) -> bool:
        """Whether a step is of the run of the last one: a later one that finds nothing masked but
        what that has left so.
        """
        last, masked = self.steps[-1], record.masked.cpu()
        if record.step <= last["step"] or masked.shape != last["left"].shape:
            return False
        return not bool((masked & ~last["left"]).any())

    def frames(self, trajectory: int) -> list[dict[str, Any]]:
        """One JSON-ready frame per denoising step of one trajectory (a row of the batch), and one
        for the answer.

        `tokens` are those before the step, None where masked. The lists of `slots` follow
        `positions`; weight, entropy, E and D are those of the last gradient step. `rewards` has one
        number per gradient step, and `mean_E`, `mean_D` too, or none where nothing is masked.
        """
        if not self.steps:
            raise ValueError("frames: got no denoising step, expected one that was observed")
        rows = len(self.steps[0]["tokens"])
        trajectory = checks.integer("trajectory", trajectory, minimum=0, below=rows)
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
                    "mean_E": _means(step["E"][:, mine]),
                    "mean_D": _means(step["D"][:, mine]),
                }
            )
        answer = self._words(self.steps[-1]["tokens"][trajectory])
        return [*frames, {"step": None, "t": 0, "tokens": answer, "positions": [], "committed": []}]

    def _words(self, tokens: Tensor) -> list[str | None]:
        return list(words(self.denoiser, tokens))


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def _means(rows: Tensor) -> list[float]:
    """The mean of each row; none of nothing, which would be nan."""
    return _rounded(rows.mean(1)) if rows.shape[1] else []
