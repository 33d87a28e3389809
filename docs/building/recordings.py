"""Our reading of the recordings of public code in tests/data, and the same with the wrong shift.

`tests/test_parity.py` and `tests/test_parity_models.py` say what the recordings are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from building.records import ROOT
from entrgi_ref.models import DiffusionLM, load_denoiser
from entrgi_ref.orders import ORDERS, Candidates, commit

DREAM = ROOT / "tests" / "data" / "parity"
OTHERS = ROOT / "tests" / "data" / "parity-models"
TOLERANCE = 1e-4
"""Of logits, as in the tests."""


@dataclass(frozen=True)
class Readings:
    """Of one checkpoint."""

    shifted: bool
    """Whether its output at a position predicts the next one."""
    right: float
    """The largest difference of our logits to the recorded ones."""
    wrong: float
    """The same, if the shift is left out, or made where there is none."""


@dataclass(frozen=True)
class Decode:
    """The first answer of a recorded decode, token by token as the vocabulary writes them."""

    recorded: list[str]
    right: list[str]
    wrong: list[str]


@cache
def readings() -> dict[str, Readings]:
    """Folder of the checkpoint -> how far both readings are from its public code's logits."""
    found = {}
    names = json.loads((OTHERS / "vectors.json").read_text(encoding="utf-8"))["models"]
    dream = DREAM / "dream-tiny"
    boards = {dream: _dream_board(dream), **{OTHERS / name: _board(name) for name in names}}
    for folder, (tokens, valid, masked, logits) in boards.items():
        off = []
        with torch.no_grad():
            for denoiser in _both(folder):
                off.append(float((denoiser(tokens, valid, masked) - logits).abs().max()))
        found[folder.name] = Readings(_both(folder)[0].family.shifted, *off)
    return found


@cache
def decodes() -> dict[str, Decode]:
    """Folder of the checkpoint -> its recorded unguided decode, and ours in both readings. As many
    tokens are committed at each step as in the recording.
    """
    found = {}
    for name in ("llada-tiny", "a2d-qwen3-tiny"):
        run = {field: _vectors(OTHERS)[f"{name}.decode.{field}"] for field in DECODED}
        both = _both(OTHERS / name)
        boards = [run["after"][-1], *(_decode(denoiser, run) for denoiser in both)]
        words = [[str(both[0].tokens[token]) for token in board[0].tolist()] for board in boards]
        found[name] = Decode(*words)
    return found


DECODED = ("prompt", "prompt_valid", "before", "after", "counts")


def _decode(denoiser: DiffusionLM, run: Mapping[str, Tensor]) -> Tensor:
    board = run["before"][0]
    valid = torch.cat([run["prompt_valid"], torch.ones_like(board, dtype=torch.bool)], 1)
    for count in run["counts"]:
        masked = board == denoiser.mask_id
        with torch.no_grad():
            logits = denoiser(torch.cat([run["prompt"], board], 1), valid, masked)
        q = logits.softmax(-1)
        candidates = Candidates(q.argmax(-1), q, logits, logits, 1.0)
        where = commit(candidates.tokens, ORDERS["maskgit_plus"](candidates), count, masked)
        board = torch.where(where, board.masked_scatter(masked, candidates.tokens), board)
    return board


@cache
def _vectors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "vectors.safetensors")


@cache
def _both(folder: Path) -> tuple[DiffusionLM, DiffusionLM]:
    """A checkpoint as its family is declared, and with the other shift."""
    right = load_denoiser(folder, dtype="float32", device="cpu")
    return right, replace(right, family=replace(right.family, shifted=not right.family.shifted))


def _board(name: str) -> tuple[Tensor, ...]:
    fields = ("tokens", "valid", "masked", "logits")
    return tuple(_vectors(OTHERS)[f"{name}.{field}"] for field in fields)


def _dream_board(folder: Path) -> tuple[Tensor, ...]:
    """Of the first step of a recorded run, some answers to each prompt."""
    written = json.loads((DREAM / "vectors.json").read_text(encoding="utf-8"))
    case = written["cases"][0]
    fields = ("x", "step0.mask", "step0.logits")
    x, masked, logits = (_vectors(DREAM)[f"{case['name']}.{field}"] for field in fields)
    prompts = _both(folder)[0].encode(written["prompts"])
    valid = prompts.valid.repeat_interleave(case["K"], 0)
    return x[0].long(), F.pad(valid, (0, masked.shape[1]), value=True), masked.bool(), logits
