"""A mask predictor that is asked about each board once.

A trajectory that has committed nothing has the board of the step before, so the mask predictor
would say the same of it again. That happens under the order `origin`, where chance says how many
tokens a trajectory commits; in infilling, where those with few blanks wait for the others; and at
steps that commit nothing, if they are not skipped.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .. import checks


class Unchanged:
    """A denoiser that reads only the trajectories whose board has changed since the last call.

    The others get the logits that they had, and finished ones have none to get. The plain version
    is the denoiser itself. The numbers are its numbers, but for the rounding of a network that
    depends on how many rows it reads together: it reads fewer here.

    For this the last logits are held, [n, V] in the denoiser's precision. So neither the denoiser
    nor who asks it may write into them. Each call is about the same trajectories, in the same
    order, and waits for the device once.
    """

    def __init__(self, denoiser: Any):
        self.mask_id, self.eos_id = denoiser.mask_id, denoiser.eos_id
        self.writable = denoiser.writable
        self.encode, self.decode = denoiser.encode, denoiser.decode
        self._denoiser = denoiser
        self._board: Tensor | None = None
        self._logits: Tensor | None = None

    def __call__(
        self, tokens: Int[Tensor, "S L"], valid: Bool[Tensor, "S L"], masked: Bool[Tensor, "S N"]
    ) -> Float[Tensor, "n V"]:
        """The denoiser's logits at the masked positions."""
        board = torch.cat([tokens, valid, masked], 1)  # all that the logits depend on
        self._logits = self._read(board, tokens, valid, masked)
        self._board = board
        return self._logits

    def _read(self, board: Tensor, tokens: Tensor, valid: Tensor, masked: Tensor) -> Tensor:
        last, self._logits = self._logits, None
        if self._board is None or last is None:
            return self._denoiser(tokens, valid, masked)
        changed = (board != self._board).any(1) & masked.any(1)
        new = masked & changed[:, None]
        counts = torch.stack([changed.sum(), new.sum(), masked.sum()])
        rows, fresh, n = counts.tolist()  # read together: the host waits once
        vocabulary = last.shape[1]
        if fresh == n > 0:
            del last  # nothing of it is needed, and the denoiser may need the memory
        if rows == len(tokens):
            return self._denoiser(tokens, valid, masked)
        if rows:
            some = _places(changed, rows)
            read = self._denoiser(tokens[some], valid[some], masked[some])
            checks.shape("the denoiser's logits", read, (fresh, vocabulary), "[n, V]")
            if fresh == n:
                return read
        elif n == len(last):
            return last
        at = _places(masked, n)
        before = self._board[:, -masked.shape[1] :].flatten().cumsum(0) - 1  # masked before
        logits = last[before[at]]  # of any row where it is new
        if rows:
            logits.index_copy_(0, _places(new.flatten()[at], fresh), read)
        return logits


def _places(flags: Tensor, count: int) -> Tensor:
    """Where the flags are set, `count` places. `nonzero` would ask the device how many they are."""
    return flags.flatten().byte().argsort(descending=True, stable=True)[:count]
