"""The readers of outside data, each with a valid file: what fuzzers begin with.

A target takes the bytes of a file. It ends well or raises a `ValueError` of one line, as
`corpus.refusal` says.
"""

from __future__ import annotations

import copy
import functools
import json
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from paper_runs import tiny_run

from checkpoints import DREAM, REWARD, SHORT
from corpus import VALUES
from entrgi_ref import SamplingConfig
from entrgi_ref.commands.asked import asked
from entrgi_ref.models import DenoiserCheckpoint, RewardCheckpoint, load_denoiser
from entrgi_ref.paper.declared import benchmarks
from entrgi_ref.paper.run.records import fingerprint, read_records
from entrgi_ref.paper.run.start import pinned
from entrgi_ref.paper.shown.browse import contents
from entrgi_ref.paper.shown.listing import listing
from entrgi_ref.paper.shown.report import tables
from entrgi_ref.paper.shown.summary import Run


@dataclass(frozen=True)
class Target:
    """A reader of a file."""

    valid: bytes
    read: Callable[[bytes], Any]
    lines: bool = False
    """Whether the file has a value of JSON in each line, or is one."""


@functools.cache
def folder() -> Path:
    """Removed when nobody needs it: at the end of the process."""
    made = tempfile.TemporaryDirectory()
    KEPT.append(made)
    return Path(made.name)


KEPT: list[Any] = []


@functools.cache
def run() -> Path:
    """A small run."""
    tiny_run(folder() / "run", asked=True, prompts=2)
    lines = [file.read_text() for file in folder().glob("run/records/*.jsonl")]
    for file in folder().glob("run/records/*.jsonl"):
        file.unlink()
    (folder() / "run" / "records" / "a.jsonl").write_text("".join(lines))
    return folder() / "run"


def records(data: bytes) -> None:
    """What all commands read, and what some of them compute."""
    file = run() / "records" / "a.jsonl"
    before = file.read_bytes()
    try:
        file.write_bytes(data)
        listing([run()])
        read_records(run())
        found = Run.read(run())
        contents(found)
        if found.records:
            tables(found)
    finally:
        file.write_bytes(before)


def declaration(data: bytes) -> None:
    """With a fingerprint that fits, if it is an object."""
    file = run() / "run.json"
    before = file.read_bytes()
    try:
        content = json.loads(data)
        beside = ("fingerprint", "asked", "made_with")
        own = fingerprint({k: v for k, v in content.items() if k not in beside})
        data = json.dumps({**content, "fingerprint": own}).encode()
    except (ValueError, AttributeError, TypeError, RecursionError):
        pass
    try:
        file.write_bytes(data)
        listing([run()])
        found = Run.read(run())
        contents(found)
        pinned(run())
    finally:
        file.write_bytes(before)


def of_checkpoint(
    source: Path, name: str, examine: Callable[[Path], Any]
) -> Callable[[bytes], None]:
    """What is read of a checkpoint with another file of that name."""

    def read(data: bytes) -> None:
        own = folder() / source.name
        if not own.exists():
            shutil.copytree(source, own)
        before = (own / name).read_bytes()
        try:
            (own / name).write_bytes(data)
            examine(own)
        finally:
            (own / name).write_bytes(before)

    return read


def denoiser(path: Path) -> None:
    """Its first logits, and with them all that is read of it."""
    found = load_denoiser(path, dtype="float32", device="cpu")
    made = found.encode([SHORT])
    masked = torch.ones(1, 2, dtype=torch.bool)
    tokens = torch.cat([made.tokens, torch.full((1, 2), found.mask_id)], 1)
    with torch.no_grad():
        found(tokens, torch.ones_like(tokens, dtype=torch.bool), masked)


def of_file(name: str, read: Callable[[str], Any]) -> Callable[[bytes], None]:
    """A reader of one file."""

    def target(data: bytes) -> None:
        (folder() / name).write_bytes(data)
        read(str(folder() / name))

    return target


def targets() -> dict[str, Target]:
    """All of them, by name."""
    rows = b"".join(
        json.dumps({"prompt": f"a {i}", "template": "b __"}).encode() + b"\n" for i in range(3)
    )
    whole = "model.safetensors"
    return {
        "records": Target((run() / "records" / "a.jsonl").read_bytes(), records, lines=True),
        "run.json": Target((run() / "run.json").read_bytes(), declaration),
        "settings": Target(
            SamplingConfig().to_json().encode(),
            lambda data: SamplingConfig.from_json(data.decode("utf-8", "surrogateescape")),
        ),
        "benchmark": Target(rows, of_file("b.jsonl", benchmarks.load), lines=True),
        "prompts": Target(rows, of_file("p.jsonl", lambda file: asked([], file, [])), lines=True),
        "config.json": Target(
            (DREAM / "config.json").read_bytes(), of_checkpoint(DREAM, "config.json", denoiser)
        ),
        "a reward's config.json": Target(
            (REWARD / "config.json").read_bytes(),
            of_checkpoint(REWARD, "config.json", RewardCheckpoint.examine),
        ),
        "tokenizer_config.json": Target(
            (DREAM / "tokenizer_config.json").read_bytes(),
            of_checkpoint(DREAM, "tokenizer_config.json", DenoiserCheckpoint.examine),
        ),
        "vocab.json": Target(
            (DREAM / "vocab.json").read_bytes(),
            of_checkpoint(DREAM, "vocab.json", DenoiserCheckpoint.examine),
        ),
        "weights": Target((DREAM / whole).read_bytes(), of_checkpoint(DREAM, whole, denoiser)),
    }


def mutated(target: Target, seed: int) -> bytes:
    """The valid file with a few changes: of a value of its JSON, or of its bytes."""
    chance = random.Random(seed)
    data = target.valid
    try:
        parts = data.split(b"\n") if target.lines else [data]
        place = chance.choice([i for i, part in enumerate(parts) if part.strip()])
        value = json.loads(parts[place])
    except ValueError:
        value = None
    if value is not None and chance.random() < 0.7:
        for _ in range(chance.randint(1, 2)):
            value = _changed(value, chance)
        parts[place] = json.dumps(value).encode()
        return b"\n".join(parts)
    return _spoilt(data, chance)


def _changed(value: Any, chance: random.Random) -> Any:
    """JSON with one value changed, taken away, doubled or put elsewhere."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.15:
        return copy.deepcopy(
            chance.choice([*VALUES, 2**31, 10**12, [[]] * 5, value, [value], {"": value}])
        )
    value = copy.copy(value)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    at = chance.choice(list(keys))
    kind = chance.random()
    if kind < 0.1:
        del value[at]
    elif kind < 0.15 and isinstance(value, list):
        value.append(copy.deepcopy(value[at]))
    elif kind < 0.2 and isinstance(value, dict):
        value[chance.choice(list(keys))] = copy.deepcopy(value[at])
    else:
        value[at] = _changed(value[at], chance)
    return value


def _spoilt(data: bytes, chance: random.Random) -> bytes:
    """Bytes with some changed, taken away, put in or doubled; half of them near the beginning."""
    spoilt = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        end = min(len(spoilt), 4000) if chance.random() < 0.5 else len(spoilt)
        at, size = chance.randrange(end + 1), chance.choice([1, 1, 2, 8, 100])
        kind = chance.random()
        if kind < 0.4:
            spoilt[at : at + 1] = bytes([chance.randrange(256)])
        elif kind < 0.6:
            del spoilt[at : at + size]
        elif kind < 0.8:
            spoilt[at:at] = chance.randbytes(size)
        elif kind < 0.9:
            spoilt[at:at] = spoilt[at : at + size]
        else:
            del spoilt[at:]
    return bytes(spoilt)
