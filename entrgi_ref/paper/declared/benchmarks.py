"""The prompts of a benchmark: from the hub, or from a local file; shuffled and cut by the seed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ... import checks
from ...commands.files import read_lines, require_readable


@dataclass(frozen=True)
class Source:
    """A benchmark on the hub."""

    hub_id: str
    split: str
    field: str
    rows: int
    """As published; another number is an error, as the shuffle would be another."""


HUB = {
    "reward-bench-2": Source("allenai/reward-bench-2", "test", "prompt", 1865),
    "judge-bench": Source("ScalerLab/JudgeBench", "gpt", "question", 350),
    "rm-bench": Source("THU-KEG/RM-Bench", "train", "prompt", 1327),
}
"""The paper's benchmarks."""

MOST = 64
"""Benchmarks of a run: each has a panel in its figures, and they are drawn in seconds."""

LONGEST_NAME = 100
"""Bytes of a benchmark's name: files of an export have it in theirs, beside other names."""

FIELDS = ("prompt", "question")
"""Where a local file may hold the prompt."""


@dataclass(frozen=True)
class Benchmark:
    """All prompts of a benchmark, and where they come from."""

    name: str
    prompts: tuple[str, ...] = field(repr=False)
    source: str
    """The hub's id and commit, or the hash of a file's prompts: part of a run's fingerprint."""

    def drawn(self, seed: int, count: int) -> list[str]:
        """The first `count` prompts after a shuffle by `seed`, or all if there are fewer.

        The shuffle is that of `datasets.Dataset.shuffle`. Source: authors' code.
        """
        order = np.random.default_rng(seed).permutation(len(self.prompts))
        return [self.prompts[i] for i in order[:count]]


def load(name: str, pinned: Mapping[str, str] | None = None) -> Benchmark:
    """A benchmark by its name in `HUB`, with `@REVISION` if one is wanted, or by the path of a
    .jsonl or .parquet file with a field `prompt` or `question`.

    `pinned` gives the commit of those that are named without a revision. Raises `ValueError` if it
    is neither, or cannot be read.
    """
    path = Path(name)
    if path.suffix.lower() in (".jsonl", ".parquet"):
        return _from_file(path)
    known, _, revision = name.partition("@")
    if known not in HUB:
        checks.choice("benchmark (or a .jsonl or .parquet file)", known, HUB)
    return _from_hub(known, revision or (pinned or {}).get(known, "main"))


def _from_file(path: Path) -> Benchmark:
    require_readable("benchmark", path)
    if not checks.is_name(path.stem):
        raise ValueError(f"benchmark: {path.name!r} has characters that are not seen in its name")
    if len(path.stem.encode()) > LONGEST_NAME:
        raise ValueError(
            f"benchmark: got {path.name!r:.60}, expected a name of at most {LONGEST_NAME} bytes"
        )
    rows = _json_lines(path) if path.suffix.lower() == ".jsonl" else _parquet(path)
    prompts = tuple(_prompt(row, path, number) for number, row in enumerate(rows, 1))
    if not prompts:
        raise ValueError(f"benchmark: {path} holds no prompts")
    text = "\0".join(prompts)
    if text.count("\0") >= len(prompts):  # a prompt has that character: where does it end?
        text = f"\0{json.dumps(prompts)}"
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return Benchmark(path.stem, prompts, f"{len(prompts)} prompts, {digest}")


def _json_lines(path: Path) -> list[Any]:
    rows: list[Any] = []
    for number, line in enumerate(read_text("benchmark", path), 1):
        if line.strip():
            if len(rows) == MOST_ROWS:
                raise ValueError(f"benchmark: {path} has more than {MOST_ROWS} rows")
            try:
                rows.append(json.loads(line, object_pairs_hook=checks.without_doubles))
            except checks.DoubleKeyError as error:
                raise ValueError(f"benchmark: {path}, line {number}: {error}") from error
            except (ValueError, RecursionError) as error:
                raise ValueError(f"benchmark: {path}, line {number}: not JSON ({error})") from error
    return rows


def read_text(name: str, path: Path) -> Iterator[str]:
    """The lines of a file in UTF-8. Raises `ValueError` if it is none."""
    try:
        yield from read_lines(path)
    except ValueError as error:
        raise ValueError(f"{name}: {path} is not text in UTF-8 of short lines: {error}") from error


def _parquet(path: Path) -> list[Any]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(
            "benchmark: .parquet files need the extra `paper`: pip install datasets"
        ) from error
    try:
        return list(_parquet_rows(parquet, path))
    except Exception as error:  # of many kinds; the reader needs one line
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"benchmark: {path} is no parquet file that can be read: {reason:.200}"
        ) from error


MOST_ROWS = 2**20
"""Of a benchmark. The largest of the paper's has 1,865."""
MOST_BYTES = 2**28
"""Of all its prompts together, in a file that may be compressed."""


def _parquet_rows(parquet: Any, path: Path) -> Iterator[dict[str, Any]]:
    """The columns that may hold prompts, and no others, which may hold what Python cannot.

    A text that occurs often stands in the file once. It is read like that too, so that what it all
    comes to is known before it is in memory.
    """
    from pyarrow import compute, types

    schema, about = parquet.read_schema(path), parquet.read_metadata(path)
    for name in FIELDS:
        if schema.names.count(name) > 1:
            raise ValueError(f"two columns are called {name!r}")
    kinds = {name: schema.field(name).type for name in FIELDS if name in schema.names}
    kinds = {n: kind.value_type if types.is_dictionary(kind) else kind for n, kind in kinds.items()}
    found = [n for n, kind in kinds.items() if types.is_string(kind) or types.is_large_string(kind)]
    if not found:
        raise ValueError(f"it has no column of texts called {' or '.join(map(repr, FIELDS))}")
    if about.num_rows > MOST_ROWS:
        raise ValueError(f"it has {about.num_rows} rows, expected at most {MOST_ROWS}")
    size = 0
    with parquet.ParquetFile(path, read_dictionary=found) as file:
        for batch in file.iter_batches(columns=found):
            for column in batch.columns:
                lengths = compute.binary_length(column.dictionary).take(column.indices)
                size += compute.sum(lengths).as_py() or 0
            if size > MOST_BYTES:
                raise ValueError(
                    f"its prompts have {size} bytes or more, expected at most {MOST_BYTES}"
                )
            yield from batch.to_pylist()


def _prompt(row: Any, path: Path, number: int) -> str:
    for name in FIELDS:
        if isinstance(row, dict) and isinstance(row.get(name), str):
            text = str(row[name])
            if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
                raise ValueError(f"benchmark: {path}, row {number}: half a character (a surrogate)")
            checks.text(f"benchmark: {path}, row {number}", text)
            if not text.strip():
                raise ValueError(
                    f"benchmark: {path}, row {number}: got {text!r:.40}, expected some text"
                )
            return text
    raise ValueError(
        f"benchmark: {path}, row {number}: has no text in {' or '.join(map(repr, FIELDS))}"
    )


def _from_hub(name: str, revision: str) -> Benchmark:
    source = HUB[name]
    try:
        import datasets
        from huggingface_hub import HfApi
    except ImportError as error:
        raise ValueError(
            "benchmark: those of the hub need the extra `paper`: pip install datasets"
        ) from error
    try:
        known = re.fullmatch("[0-9a-f]{40}", revision)  # then the hub need not be asked
        commit = revision if known else HfApi().dataset_info(source.hub_id, revision=revision).sha
        table = datasets.load_dataset(source.hub_id, split=source.split, revision=commit)
        prompts = tuple(table[source.field])
    except Exception as error:  # of many kinds; the reader needs one line
        first = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"benchmark: {source.hub_id} could not be fetched ({type(error).__name__}: {first}); "
            "connect to the network, or give a .jsonl or .parquet file"
        ) from error
    if len(prompts) != source.rows:
        raise ValueError(
            f"benchmark: {source.hub_id} at {commit} has {len(prompts)} rows, expected "
            f"{source.rows}; pin the revision that the paper used by {name}@REVISION"
        )
    return Benchmark(name, prompts, f"{source.hub_id}@{commit}")


def named(names: Sequence[str], pinned: Mapping[str, str] | None = None) -> list[Benchmark]:
    """Several benchmarks. Raises `ValueError` if two have one name, or there are too many."""
    if len(names) > MOST:
        raise ValueError(f"benchmark: {len(names)} are given, expected at most {MOST}")
    found = [load(name, pinned) for name in names]
    titles = [benchmark.name for benchmark in found]
    twice = {title for title in titles if titles.count(title) > 1}
    if twice:
        raise ValueError(f"benchmark: {checks.some(sorted(twice))} is given twice")
    return found
