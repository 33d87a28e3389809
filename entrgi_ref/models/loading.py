"""How a network is loaded: precision, place, rounded weights, weights that wait, attention.

What is asked for is checked by `Loading.of` as a whole, before anything is loaded. The weights of
the layers may be rounded (`quantize`) or may wait in the CPU's memory (`offload`); embeddings and
head stay as they are and where they are needed, as guidance reads the one and the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from transformers import BitsAndBytesConfig, PretrainedConfig, TorchAoConfig

from .. import checks
from . import checkpoints
from .checkpoints import Network, blank

PACKAGES = {"8bit": "torchao", "4bit": "bitsandbytes"}
"""How weights are rounded, and by what. Products are of the network's precision in both: a network
is one whose weights have been rounded, and its gradient is exact.
"""
ATTENTION = ("sdpa", "eager")
"""Which of transformers' kinds of attention hide what a mask of ours hides."""
HIDES_NOTHING = ("flash", "flex", "paged")
"""How others begin, which have other masks."""


class How(TypedDict, total=False):
    """The options of loading that all networks share."""

    quantize: str | None
    """8bit or 4bit: to what the weights of the layers are rounded. None, the default, is as they
    are."""
    offload: bool
    """Whether layers that do not fit `max_memory` stay in the CPU's memory and are brought to the
    GPU whenever they are read, in the backward pass once more."""
    max_memory: float | None
    """GiB of the GPU for the network's weights, of `offload`. By default half of what is free."""
    attention: str
    """transformers' kind: sdpa, the default, or eager, which is slower and takes more memory."""


@dataclass(frozen=True)
class Loading:
    """How one network is loaded. Made by `of`, which checks it."""

    dtype: torch.dtype
    device: torch.device
    quantize: str | None = None
    offload: bool = False
    max_memory: float | None = None
    attention: str = "sdpa"

    @classmethod
    def of(
        cls,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device = "auto",
        *,
        compiled: bool = False,
        cuda_graphs: bool = False,
        adapter: object = None,
        field: str = "device",
        **how: Unpack[How],
    ) -> Loading:
        """What is asked for, if it can be had here.

        Args:
            dtype: see `load_denoiser`.
            device: likewise.
            compiled: whether its layers are to be compiled.
            cuda_graphs: whether its work is to be recorded and replayed.
            adapter: one to be merged into it, if any.
            field: what the device is called where it was given.
            how: see `How`.

        Raises:
            ValueError: for a device, a precision or a kind that there is not, for a package that
                is missing, and for what does not go together.
        """
        for name in set(how) - set(How.__annotations__):  # Python would name this class
            known = ", ".join(["dtype", "device", *How.__annotations__])
            raise TypeError(
                f"got an unexpected keyword argument {name!r}; of loading there are {known}"
            )
        compiled = checks.boolean("compiled", compiled)
        cuda_graphs = checks.boolean("cuda_graphs", cuda_graphs)
        where = checkpoints.device_of(device, field)
        found = cls(checkpoints.dtype_of(dtype, where), where, **how)
        found._require_attention()
        others = {"compiled": compiled, "cuda_graphs": cuda_graphs, "adapter": adapter is not None}
        found._require_quantize()
        found._require_offload()
        for name in ("quantize", "offload"):
            if not getattr(found, name):
                continue
            for other, asked in others.items():
                if asked:
                    raise ValueError(f"{other}: cannot be combined with {name}")
            if found.dtype == torch.float64:
                raise ValueError(f"dtype: got 'float64', which cannot be combined with {name}")
        if found.quantize and found.offload:
            raise ValueError("offload: cannot be combined with quantize; take one of them")
        return found

    @property
    def options(self) -> dict[str, Any]:
        """What a checkpoint's `load` is called with."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def require_steps(self, cuda_graphs: bool, micro_batch: object) -> None:
        """Raise `ValueError` unless a reward model that is loaded so can make its gradient steps
        recorded, or for some trajectories at a time.
        """
        checks.rows_at_a_time("micro_batch", micro_batch)
        if cuda_graphs and micro_batch is not None:
            raise ValueError("micro_batch: cannot be combined with cuda_graphs")
        if cuda_graphs and self.device.type != "cuda":
            raise ValueError(f"cuda_graphs: got True on {self.device}, expected a GPU of NVIDIA")

    def _require_attention(self) -> None:
        if str(self.attention).startswith(HIDES_NOTHING):
            raise ValueError(
                f"attention: got {self.attention!r}, which would not hide what a mask of ours "
                f"hides; expected one of {', '.join(ATTENTION)}"
            )
        checks.choice("attention", self.attention, ATTENTION)

    def _require_quantize(self) -> None:
        if self.quantize is None:
            return
        checks.choice("quantize", self.quantize, PACKAGES)
        if self.quantize == "4bit" and self.device.type == "cpu":
            raise ValueError(
                "quantize: got '4bit' on a CPU, on some of which bitsandbytes has no gradients; "
                "take 8bit, or a GPU"
            )
        for package in (PACKAGES[self.quantize], "accelerate"):
            _require_package("quantize", self.quantize, package)

    def _require_offload(self) -> None:
        checks.boolean("offload", self.offload)
        if self.max_memory is not None:
            checks.number("max_memory", self.max_memory, 0, 2**20)
            if not self.offload:
                raise ValueError(f"max_memory: got {self.max_memory}, of no use without offload")
        if not self.offload:
            return
        if self.device.type != "cuda":
            raise ValueError(
                f"offload: got True on {self.device}, expected a GPU, which the weights would leave"
            )
        _require_package("offload", True, "accelerate")

    def network(
        self, architecture: type[Any], folder: Path, config: PretrainedConfig, **options: Any
    ) -> Network:
        """The network, frozen: see `checkpoints.load`, which takes the `options`.

        Raises `ValueError` too if a GPU has no room for what cannot be offloaded.
        """
        load = partial(
            checkpoints.load,
            architecture,
            folder,
            dtype=self.dtype,
            device=self.device,
            config=config,
            attn_implementation=self.attention,
            **options,
        )
        if self.quantize:
            rounding = self._rounding(heads(blank(architecture, config)))
            place = {"": str(self.device)}
            return frozen_products(load(device_map=place, quantization_config=rounding))
        if self.offload:
            return self.dispatched(load, spread(blank(architecture, config), *self._room()))
        return load()

    def _rounding(self, kept: list[str]) -> Any:
        """What transformers calls the configuration of a quantisation."""
        if self.quantize == "4bit":
            return BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_compute_dtype=self.dtype,
                llm_int8_skip_modules=kept,
            )
        from torchao.quantization import Int8WeightOnlyConfig

        return TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=kept)

    def _room(self) -> tuple[torch.device, torch.dtype, float]:
        """The GPU, the precision of the weights, and the bytes that they may take there."""
        if self.max_memory is not None:
            return self.device, self.dtype, self.max_memory * 2**30
        return self.device, self.dtype, torch.cuda.mem_get_info(self.device)[0] / 2

    @staticmethod
    def dispatched(load: Any, places: Mapping[str, str], **options: Any) -> Network:
        """The network with its parts in these places. Layers that are not on the device are read
        once more in the backward pass: else it would hold the weights of all of them until then.
        """
        network = load(device_map=dict(places), **options)
        home = next(iter(places.values()))
        for name, place in places.items():
            if place != home:
                layer = network.get_submodule(name)
                layer.forward = partial(_read_again, layer.forward)
        return network


@dataclass(frozen=True)
class Together:
    """How a denoiser and its reward are loaded: in one precision, and unless the reward has a
    device of its own beside each other.
    """

    denoiser: Loading
    reward: Loading

    @classmethod
    def of(
        cls,
        dtype: str,
        device: str,
        reward_device: str | None = None,
        *,
        quantize: Mapping[str, str],
        offload: bool = False,
        attention: str = "sdpa",
        compiled: bool = False,
        cuda_graphs: bool = False,
        adapter: object = None,
    ) -> Together:
        """What is asked for; `quantize` is of `denoiser` and `reward`. `compiled` is for the one,
        `cuda_graphs` and `adapter` are for the other. Raises `ValueError` as `Loading.of` does.
        """
        how: dict[str, How] = {
            name: {"quantize": quantize.get(name), "offload": offload, "attention": attention}
            for name in ("denoiser", "reward")
        }
        denoiser = Loading.of(dtype, device, compiled=compiled, **how["denoiser"])
        reward = Loading.of(
            denoiser.dtype,
            denoiser.device if reward_device is None else reward_device,
            cuda_graphs=cuda_graphs,
            adapter=adapter,
            field="device" if reward_device is None else "reward_device",
            **how["reward"],
        )
        return cls(denoiser, reward)


def _require_package(field: str, value: object, package: str) -> None:
    if find_spec(package) is None:
        raise ValueError(
            f"{field}: got {value!r}, which needs the package {package}; pip install {package}"
        )


def heads(network: Network) -> list[str]:
    """The names of what follows the layers: the score, or the output layer."""
    output = network.get_output_embeddings()
    return [
        name
        for name, module in network.named_modules()
        if name == "score" or (output is not None and module is output)
    ]


def spread(
    network: Network, device: torch.device | str, dtype: torch.dtype, room: float
) -> dict[str, str]:
    """Part of a network -> where its weights lie: on the device what is no layer, and of the layers
    as many as there is room for, from the first on; the rest on the CPU.

    Raises `ValueError` if there is no room for what is no layer, in bytes.
    """
    lists = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.ModuleList)]
    path, layers = max(lists, key=lambda one: _numbers(one[1]))
    left = room - (_numbers(network) - _numbers(layers)) * dtype.itemsize
    if left < 0:
        raise ValueError(
            f"offload: all but the layers takes {(room - left) / 2**30:.3g} GiB of a GPU, for "
            f"which there are {room / 2**30:.3g}"
        )
    places, parent = {}, ""
    for part in path.split("."):
        inside = network.get_submodule(parent) if parent else network
        prefix = f"{parent}." if parent else ""
        for name, _ in inside.named_children():
            if name != part:
                places[prefix + name] = str(device)
        parent = prefix + part
    for i, layer in enumerate(layers):
        left -= _numbers(layer) * dtype.itemsize
        places[f"{path}.{i}"] = str(device) if left >= 0 else "cpu"
    return places


def _numbers(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _read_again(forward: Any, *inputs: Any, **options: Any) -> Any:
    # To its end: there the weights leave the GPU again.
    with set_checkpoint_early_stop(False):
        return checkpoint(forward, *inputs, use_reentrant=False, **options)


def frozen_products(network: Network) -> Network:
    """The network, holding for its backward pass no copies of torchao's weights in its precision,
    which would take more than the weights took before they were rounded.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear) and type(layer.weight).__module__.startswith("torchao"):
            rounded: Any = layer
            rounded.forward = partial(_Product.apply, layer.weight, layer.bias)
    return network


class _Product(torch.autograd.Function):
    """x -> x W^T + b with frozen rounded weights."""

    @staticmethod
    def forward(ctx: Any, weight: Any, bias: Tensor | None, x: Tensor) -> Tensor:
        ctx.weight = weight
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[None, None, Tensor]:
        return None, None, slope @ ctx.weight.dequantize()
