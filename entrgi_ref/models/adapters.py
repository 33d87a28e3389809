"""A LoRA adapter, merged into the weights of a network exactly, or refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from .. import checks
from .checkpoints import Network, locate, one_line, quiet, read_json


@dataclasses.dataclass(frozen=True)
class Adapter:
    """An adapter's folder, its weights aside."""

    folder: Path

    @classmethod
    def examine(cls, path: str | Path) -> Adapter:
        """Look at everything but the weights.

        Raises `ValueError` if `peft` is not installed, if the folder holds no adapter in
        safetensors, or if its configuration is none of LoRA that this `peft` understands in full.
        """
        try:
            from peft import LoraConfig  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise ValueError(
                "adapter: merging one needs the package peft; pip install 'peft>=0.18'"
            ) from error
        folder = locate(path)
        weights = folder / "adapter_model.safetensors"
        if not weights.is_file():
            raise ValueError(f"adapter: {folder} has no adapter_model.safetensors")
        try:
            with safe_open(weights, "pt") as file:
                low = [name for name in file.keys() if LOW.search(name)]  # noqa: SIM118
                rank = max((file.get_slice(name).get_shape()[0] for name in low), default=0)
        except Exception as error:  # of kinds of its own, such as for a truncated file
            raise ValueError(f"adapter: {weights} does not load: {one_line(error)}") from error
        written = read_json(folder / "adapter_config.json")
        if written.get("peft_type") != "LORA":
            raise ValueError(
                f"adapter: peft_type: got {written.get('peft_type')!r}, expected 'LORA'"
            )
        known = {field.name for field in dataclasses.fields(LoraConfig)}
        unknown = sorted(
            name for name, value in written.items() if name not in known and value not in WITHOUT
        )
        if unknown:
            raise ValueError(
                f"adapter: the installed peft does not know {checks.some(unknown)} of {folder}"
            )
        for field in UNSUPPORTED:
            if written.get(field):
                raise ValueError(
                    f"adapter: {field}: got {checks.shown(written[field], 60)}, with which an "
                    "adapter cannot be merged into the weights exactly"
                )
        if written.get(REPEATED):
            raise ValueError(
                f"adapter: {REPEATED}: got {checks.shown(written[REPEATED], 60)}, expected none: a "
                "network with other layers than its checkpoint's cannot be read"
            )
        if PISSA.fullmatch(str(written.get("init_lora_weights"))):
            raise ValueError(
                f"adapter: init_lora_weights: got {written['init_lora_weights']!r:.60}, with which "
                "an adapter cannot be merged into the weights exactly"
            )
        pattern = written.get("rank_pattern")
        by_layer = list(pattern.values()) if isinstance(pattern, dict) else []
        for field, ranks in (("r", [written.get("r")]), ("rank_pattern", by_layer)):
            for one in ranks:
                if isinstance(one, int) and one > max(rank, MOST_RANK):
                    said = f"got {one}, but its weights have a rank of at most {rank}"
                    raise ValueError(f"adapter: {field}: {said}")
        for field in NAMES:
            found = written.get(field)
            if isinstance(found, list) and len(found) > MOST_NAMES:
                raise ValueError(
                    f"adapter: {field}: got {len(found)} names, expected at most {MOST_NAMES}"
                )
            if isinstance(found, str) and found not in WORDS:
                raise ValueError(
                    f"adapter: {field}: got the pattern {found!r:.60}, expected a list of names: a "
                    "pattern can take any time"
                )
        for field in BY_LAYER:
            found = written.get(field) or ()
            for name in [found] if isinstance(found, str) else found:
                if not (isinstance(name, str) and re.fullmatch(r"[\w.]+", name)):
                    raise ValueError(
                        f"adapter: {field}: got {name!r:.60}, expected names of layers: a pattern "
                        "can take any time"
                    )
        return cls(folder)

    def merged(self, network: Network) -> Network:
        """`network` with the adapter added to its weights.

        Raises `ValueError` unless the adapter has exactly the weights that its configuration puts
        into this network: peft itself would leave out what does not fit.
        """
        from peft import PeftConfig, get_peft_model, get_peft_model_state_dict
        from peft import set_peft_model_state_dict as set_weights

        try:
            given = load_file(self.folder / "adapter_model.safetensors")
            with quiet():
                config = PeftConfig.from_pretrained(str(self.folder))
                adapted = get_peft_model(network, config)
                wanted = _shapes(get_peft_model_state_dict(adapted, save_embedding_layers=False))
        except Exception as error:  # of many kinds, for files and names that do not fit
            raise ValueError(f"adapter: {self.folder} does not fit: {one_line(error)}") from error
        found = _shapes(given)
        for problem, names in (
            ("lacks", wanted.keys() - found.keys()),
            ("has weights that its configuration does not name:", found.keys() - wanted.keys()),
            ("has weights of another shape:", {n for n in wanted if wanted[n] != found.get(n)}),
        ):
            if names:
                raise ValueError(f"adapter: {self.folder} {problem} {checks.some(sorted(names))}")
        if not all(bool(tensor.isfinite().all()) for tensor in given.values()):
            raise ValueError(f"adapter: {self.folder} has weights that are not finite")
        try:
            with quiet():
                set_weights(adapted, given)
                merged: Any = adapted.merge_and_unload()
        except Exception as error:  # of many kinds, for what cannot be merged
            raise ValueError(f"adapter: {self.folder} does not fit: {one_line(error)}") from error
        return merged.requires_grad_(False).eval()


UNSUPPORTED = ("lora_bias", "alora_invocation_tokens")
"""Fields of an adapter that adds more than a product of two matrices, or not to every token."""

REPEATED = "layer_replication"
"""A field that repeats layers. What is added to one would be added to each that shares its weights,
and there are as many as it says before anybody looks at the file.
"""
BY_LAYER = ("rank_pattern", "alpha_pattern", "layers_pattern")
"""Fields in which peft takes the names of layers for patterns."""
LOW = re.compile(r"lora_(embedding_)?A")
"""In the name of the first of two matrices, which has as many rows as the rank."""
PISSA = re.compile(r"pissa_niter_\d+")
"""A start from singular values that chance has a part in."""
MOST_RANK = 2**10
"""peft makes weights of the rank that it is told, before they are compared with the file's."""
MOST_NAMES = 2**14
"""Each is compared with the name of each layer."""
NAMES, WORDS = ("target_modules", "exclude_modules"), ("all-linear",)
"""Fields that name layers; and words that peft knows there."""

WITHOUT: tuple[Any, ...] = (None, False, "", [], {})
"""Values at which a field asks for nothing."""


def _shapes(weights: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}
