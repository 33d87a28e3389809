"""What a checkpoint is, without its weights: its configuration, and how large its files are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from . import checkpoints


@dataclass(frozen=True)
class Listed:
    """A checkpoint as its folder or the hub lists it."""

    config: Mapping[str, Any]
    """The contents of config.json."""
    files: Mapping[str, int]
    """Name -> bytes, of what is fetched or read: see `checkpoints.DATA`."""
    on_hub: bool
    """Whether it would have to be fetched, but for what is in the cache."""

    @property
    def weights(self) -> int:
        """Bytes of the weights."""
        return sum(n for name, n in self.files.items() if name.endswith(".safetensors"))


def listed(path: str | Path) -> Listed | None:
    """A checkpoint in a folder or on the hub. Of the hub config.json alone is fetched.

    If the hub does not answer, what has been fetched before, or else None. Raises `ValueError` if
    there is no such folder, or if the hub has no such checkpoint or revision.
    """
    folder = checkpoints.expanded(path)
    if folder.is_dir():
        return _of_folder(folder)
    hub_id, _, revision = str(path).partition("@")
    if not checkpoints.is_hub_id(hub_id):
        raise ValueError(f"checkpoint: there is no folder {str(path)!r}")
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        found = HfApi().model_info(
            hub_id, revision=revision or None, files_metadata=True, timeout=10
        )
        config = hf_hub_download(hub_id, "config.json", revision=found.sha)
    except RevisionNotFoundError as error:
        raise ValueError(
            f"checkpoint: the hub has {hub_id!r}, but no revision {revision!r} of it"
        ) from error
    except Exception as error:  # of many kinds, for a network that is not there
        absent = isinstance(error, RepositoryNotFoundError | EntryNotFoundError)
        # The last says that a network is not there, too: only the cache lacks the file.
        if absent and not isinstance(error, LocalEntryNotFoundError):
            raise ValueError(f"checkpoint: the hub has no {hub_id!r} with a config.json") from error
        cached = try_to_load_from_cache(hub_id, "config.json", revision=revision or None)
        return _of_folder(Path(cached).parent) if isinstance(cached, str) else None
    files = {file.rfilename: file.size or 0 for file in found.siblings or []}
    return Listed(checkpoints.read_json(Path(config)), _data(files), on_hub=True)


def _of_folder(folder: Path) -> Listed:
    files = {file.name: file.stat().st_size for file in folder.iterdir() if file.is_file()}
    return Listed(checkpoints.read_config(folder), _data(files), on_hub=False)


def _data(files: Mapping[str, int]) -> dict[str, int]:
    return {
        name: size
        for name, size in files.items()
        if any(fnmatch(name, pattern) for pattern in checkpoints.DATA)
    }
