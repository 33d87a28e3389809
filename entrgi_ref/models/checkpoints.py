"""Checkpoints as they lie on the hub, read as data: none of their code runs, nothing is unpickled.

Every reason for which a checkpoint cannot be used is a `ValueError` of one line.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, GenerationConfig, PretrainedConfig, dynamic_module_utils
from transformers.utils import logging

from .. import checks

Network = Any
"""A transformers model. Its attributes are found at run time, so a type checker knows none."""

DATA = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]
"""What is fetched from the hub: configuration, weights, tokenizer. No Python and no pickles."""


def expanded(path: str | Path) -> Path:
    """A path whose `~` is the home folder. `ValueError` if it is that of a user who has none, or if
    no file can have such a name.
    """
    if not isinstance(path, str | Path) or not str(path):
        raise ValueError(
            f"checkpoint: got {checks.shown(path, 60)}, expected a folder or an id on the hub"
        )
    try:
        found = Path(path).expanduser()
        found.exists()  # which a name that is too long is not asked
        return found
    except (RuntimeError, OSError) as error:
        raise ValueError(f"checkpoint: there is no folder {checks.shown(str(path))}") from error


def locate(path: str | Path, revision: str | None = None) -> Path:
    """The folder of a checkpoint: `path` itself, or what the hub holds under that id.

    An id may carry its revision: `Dream-org/Dream-v0-Instruct-7B@main`. Raises `ValueError` if
    there is no such folder, if a folder is given a revision, or if the hub cannot be reached and no
    earlier download is at hand.
    """
    folder = expanded(path)
    if folder.is_dir():
        if revision is not None:
            raise ValueError(
                f"revision: got {revision!r} for the folder {str(path)!r}, expected none: it is "
                "that of a checkpoint on the hub"
            )
        _require_files(folder)
        return folder
    hub_id, _, own = str(path).partition("@")
    if not is_hub_id(hub_id):
        raise ValueError(f"checkpoint: there is no folder {checks.shown(str(path))}")
    revision = revision or own or None
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=DATA))
    except Exception as error:  # whatever goes wrong there, the reader needs one line
        first = (str(error).splitlines() or [type(error).__name__])[0]
        at = f" at revision {revision!r}" if revision else ""
        raise ValueError(
            f"checkpoint: {hub_id!r} is no folder here, and could not be fetched{at} from the hub "
            f"({type(error).__name__}: {first}); give a folder, or connect to the network"
        ) from error
    _require_files(folder)
    return folder


def _require_files(folder: Path) -> None:
    """Raise `ValueError` for what is read and never ends: a pipe, or a text file of gigabytes."""
    for file in sorted(file for pattern in (*DATA, TEMPLATES) for file in folder.glob(pattern)):
        if not file.is_file():
            raise ValueError(f"checkpoint: {file} is no file that can be read")
        size = file.stat().st_size
        if size < LARGEST_POINTER and file.read_bytes().startswith(POINTER):
            raise ValueError(
                f"checkpoint: {file} is a pointer of Git LFS, not the file itself; fetch it by "
                "`git lfs pull`"
            )
        if file.suffix != ".safetensors" and size > LARGEST_TEXT:
            raise ValueError(
                f"checkpoint: {file} has {size} bytes, expected at most {LARGEST_TEXT}"
            )
    size = sum(file.stat().st_size for file in folder.glob(TEMPLATES))
    if size > LARGEST_TEXT:
        raise ValueError(
            f"checkpoint: the files {folder / TEMPLATES} have {size} bytes, expected at most "
            f"{LARGEST_TEXT}"
        )


TEMPLATES = "additional_chat_templates/*.jinja"
"""All of these are read, whichever is used."""
LARGEST_TEXT = 2**28
"""Bytes of a file beside the weights. Tokenizers of 250,000 tokens take a tenth of it."""
POINTER, LARGEST_POINTER = b"version https://git-lfs.github.com/spec/", 1024
"""How it begins, and how many bytes it has at most."""


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of an id on the hub, OWNER/NAME."""
    part = r"[A-Za-z0-9][\w.\-]*"
    return re.fullmatch(f"{part}/{part}", name) is not None


def identity(path: str | Path) -> dict[str, str]:
    """Which checkpoint it is, wherever it lies: the hub's id and commit, or for a folder its name
    and a hash of its contents (of large files: their size, beginning and end).
    """
    folder = locate(path)
    if _is_snapshot(folder):
        return {"name": name_of(folder), "commit": folder.name}
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(file for pattern in DATA for file in folder.glob(pattern)):
        size = file.stat().st_size
        with file.open("rb") as content:
            digest.update(f"{file.name} {size} ".encode() + content.read(SAMPLED))
            content.seek(max(0, size - SAMPLED))
            digest.update(content.read())
    return {"name": name_of(folder), "contents": digest.hexdigest()}


def name_of(folder: Path) -> str:
    """The hub's id of a folder in its cache, else the folder's name."""
    if _is_snapshot(folder):
        return "/".join(folder.parent.parent.name.split("--")[1:])
    return folder.resolve().name


def _is_snapshot(folder: Path) -> bool:
    """Whether it lies in the hub's cache: models--OWNER--NAME/snapshots/COMMIT."""
    cached = folder.parent
    return cached.name == "snapshots" and cached.parent.name.startswith("models--")


SAMPLED = 2**20
"""Bytes at either end of a file by which its contents are known."""


def read_config(folder: Path) -> dict[str, Any]:
    """The contents of config.json. `ValueError` for what transformers would load without being
    asked to: an adapter that lies there, or files and fields that we do not look at.
    """
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            f"checkpoint: {folder} holds an adapter too, adapter_config.json; give it a folder of "
            "its own, and name that as the adapter"
        )
    written = read_json(folder / "config.json")
    if written.get("transformers_weights") is not None:
        raise ValueError(
            f"transformers_weights: got {written['transformers_weights']!r:.60}, expected none: "
            "weights are read from model.safetensors or the shards of its index"
        )
    for field in ELSEWHERE:
        if written.get(field):
            raise ValueError(
                f"{field}: got {written[field]!r:.60}, expected none: the configuration is read as "
                "it stands in config.json"
            )
    return written


ELSEWHERE = ("attribute_map", "configuration_files")
"""Fields by which transformers reads other fields, or another file, in the place of those here."""


NUMBERS = ("rms_norm_eps", "max_position_embeddings", "num_labels", "rope_theta")
MOST_LAYERS, MOST_LABELS = 1000, 10_000
"""A configuration of many more would be built for hours, before anybody looks at the weights."""


def require_numbers(config: Mapping[str, Any]) -> None:
    """Raise `ValueError` if a field that must be a positive number is something else, and for a
    number of layers that no network has.

    Older versions of transformers would take it, and fail later or not at all.
    """
    for field in NUMBERS:
        value = config.get(field, 1)
        if value is None and field == "rope_theta":
            continue  # some versions of transformers write it, with the number elsewhere
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{field}: got {value!r}, expected a number")
        if not 0 < value <= 1e30:
            raise ValueError(f"{field}: got {value!r}, expected a number in (0, 1e30]")
        if field == "num_labels" and value > MOST_LABELS:
            raise ValueError(f"{field}: got {value!r}, expected a reward model with 1")
    for field, value in config.items():
        if "layer" in field and isinstance(value, int) and value > MOST_LAYERS:
            raise ValueError(f"{field}: got {value!r}, expected at most {MOST_LAYERS} layers")
        if isinstance(value, Mapping):
            require_numbers(value)


def known_config(
    folder: Path, models: Mapping[type[PretrainedConfig], Any], kind: str
) -> PretrainedConfig:
    """The configuration, if transformers itself has models of its type among `models`.

    A type that it lacks would be looked for in the checkpoint's own code. Raises `ValueError`.
    """
    written = read_config(folder)
    name = written.get("model_type")
    if not isinstance(name, str) or name not in CONFIG_MAPPING:
        raise ValueError(f"model_type: got {name!r}, which transformers does not know")
    if CONFIG_MAPPING[name] not in models:
        raise ValueError(f"model_type: got {name!r}, of which there are no {kind}")
    require_numbers(written)
    rope(written)  # refuses what is no object
    for fields in (written, written.get("text_config")):
        if isinstance(fields, Mapping) and fields.get("is_causal") not in (None, True):
            raise ValueError(
                f"is_causal: got {fields['is_causal']!r}, expected a causal model: tokens that see "
                "what comes after them cannot be read in two parts"
            )
    try:
        with quiet():
            config: PretrainedConfig = CONFIG_MAPPING[name].from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        text = config.get_text_config()
    except Exception as error:  # transformers has kinds of its own for values of a wrong type
        raise ValueError(f"config.json: {one_line(error)}") from error
    if not isinstance(text, PretrainedConfig):
        raise ValueError(f"config.json: got {text!r:.60} for its text part, expected a model's")
    return config


def require_positions(model: str, length: int, config: PretrainedConfig) -> None:
    """Raise `ValueError` for a sequence longer than the model has positions."""
    limit = positions_of(config)
    if length > limit:
        raise ValueError(
            f"prompt: with the answer it takes {length} positions, {model} has {limit}; shorten "
            "the prompt or lower new_tokens"
        )


def positions_of(config: PretrainedConfig) -> int:
    """How many positions a model has; a large number if it does not say, as by -1."""
    positions = int(getattr(config.get_text_config(), "max_position_embeddings", None) or 0)
    return positions if positions > 0 else 2**31


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file. `ValueError` if there is no file, or something else in it."""
    if not path.is_file():
        raise ValueError(f"checkpoint: {path.parent} has no {path.name}")
    try:
        content = json.loads(
            path.read_text(encoding="utf-8"),
            parse_constant=_no_number,
            parse_float=_finite,
            object_pairs_hook=checks.without_doubles,
        )
    except checks.DoubleKeyError as error:
        raise ValueError(f"checkpoint: {path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"checkpoint: {path} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"checkpoint: {path} holds no JSON object")
    return content


def _no_number(written: str) -> float:
    raise ValueError(f"{written} is no number")


def _finite(written: str) -> float:
    value = float(written)
    return value if math.isfinite(value) else _no_number(written)


def load(
    architecture: type[Any],
    folder: Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    **options: Any,
) -> Network:
    """The network, frozen, with its weights from the safetensors shards of `folder`.

    Raises `ValueError` if there are none, or if they and the architecture do not fit exactly: a
    weight that is missing would be random, one too many would be ignored, and both would give wrong
    numbers without a word. With a `device_map` among the options it stays where that puts it.
    """
    options.setdefault("attn_implementation", "sdpa")
    # The checkpoint's own, generation_config.json, is not read: it may not be greedy, and may not
    # load.
    options["generation_config"] = GenerationConfig()
    stored = require_weights(folder)
    renamed = options.get("key_mapping") or {}
    _require_size(architecture, folder, options["config"], stored, renamed)
    try:
        with quiet():
            network, report = architecture.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below, by name
                local_files_only=True,
                trust_remote_code=False,
                **options,
            )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of many kinds, for files and fields that do not fit
        raise ValueError(
            f"checkpoint: the weights of {folder} do not load: {one_line(error)}"
        ) from error
    surplus = {key for key in report["unexpected_keys"] if not key.endswith(_IGNORED)}
    for problem, keys in (
        ("lacks", report["missing_keys"]),
        ("has weights that the architecture does not:", surplus),
        ("has weights of another shape:", report["mismatched_keys"]),
    ):
        if keys:
            named = checks.some(sorted(map(str, keys)))
            raise ValueError(f"checkpoint: {folder} {problem} {named}")
    if dtype == torch.float64:
        _normalise_in_double(network)
    network = network.requires_grad_(False).eval()
    return network if "device_map" in options else network.to(device)


def require_shape(
    folder: Path,
    name: str,
    shape: tuple[int, ...],
    renamed: Mapping[str, str],
    *,
    needed: bool = True,
) -> None:
    """Raise `ValueError` if a weight of that name is stored in another shape, or not at all while
    it is `needed`. Reads none of it.
    """
    with _stored(folder, name, renamed) as found:
        if found is None and needed:
            raise ValueError(f"checkpoint: {folder} lacks {name}")
        if found is not None and tuple(found.get_shape()) != shape:
            raise ValueError(
                f"checkpoint: {folder} has weights of another shape: {name}, "
                f"{list(found.get_shape())}, expected {list(shape)}"
            )


def require_tied(folder: Path, table: Tensor, renamed: Mapping[str, str]) -> None:
    """Raise `ValueError` if the file has an output layer of its own that differs from the table of
    embeddings: public code takes the table then, and some versions of transformers the file's.
    """
    with _stored(folder, "lm_head.weight", renamed) as own:
        if own is not None and not torch.equal(own[:].to(table), table):
            raise ValueError(
                "tie_word_embeddings: got True, but the checkpoint has an output layer of its own "
                "that differs from the embeddings"
            )


@contextmanager
def _stored(folder: Path, name: str, renamed: Mapping[str, str]) -> Iterator[Any]:
    """A weight as it lies in the folder's shards, a slice that is not read yet; None if there is
    none of that name. `renamed` are patterns of their names, and what they are replaced by.
    """
    for file in _weight_files(folder):
        with safe_open(file, "pt") as shard:
            for theirs in shard.keys():  # noqa: SIM118
                if _ours(theirs, renamed) == name:
                    yield shard.get_slice(theirs)
                    return
    yield None


def _ours(name: str, renamed: Mapping[str, str]) -> str:
    """What a weight of the file is called in transformers."""
    for pattern, replacement in renamed.items():
        name = re.sub(pattern, replacement, name)
    return name


def _require_one_each(
    network: Network, folder: Path, stored: Iterable[str], renamed: Mapping[str, str]
) -> None:
    """Raise `ValueError` if two weights are the same one, under a name that is translated or with
    and without the prefix that transformers adds: which of them is meant, nobody says.
    """
    prefix, known = f"{network.base_model_prefix}.", network.state_dict().keys()
    of: dict[str, str] = {}
    for name in stored:
        ours = _ours(name, renamed)
        candidates = ours, prefix + ours, ours.removeprefix(prefix)
        meant = next((one for one in candidates if one in known), ours)
        if meant in of:
            raise ValueError(
                f"checkpoint: {folder} has the weight {meant} twice, as {of[meant]} and as {name}"
            )
        of[meant] = name


def require_weights(folder: Path) -> dict[str, int]:
    """Raise `ValueError` unless there are weights, all shards of them, each once and in floating
    point. Reads none of them. Returns how many numbers each weight has.
    """
    found: dict[str, tuple[Path, int]] = {}
    for file in _weight_files(folder):
        try:
            with safe_open(file, "pt") as shard:
                slices = {name: shard.get_slice(name) for name in shard.keys()}  # noqa: SIM118
                stored = {n: (s.get_dtype(), math.prod(s.get_shape())) for n, s in slices.items()}
            _require_names_once(file)
        except Exception as error:  # of kinds of its own, such as for a truncated file
            raise ValueError(
                f"checkpoint: the weights of {file} do not load: {one_line(error)}"
            ) from error
        for name, (dtype, size) in stored.items():
            if name in found:
                raise ValueError(
                    f"checkpoint: {folder} has the weight {name} twice, in {found[name][0].name} "
                    f"and in {file.name}"
                )
            read = name.endswith(("weight", "bias")) and not re.search(CAUSAL_MASK, name)
            if read and dtype not in STORED:
                raise ValueError(
                    f"checkpoint: {name} in {file} is stored as {dtype}, expected one of "
                    f"{', '.join(STORED)}"
                )
            found[name] = file, size
    return {name: size for name, (_, size) in found.items()}


def _require_names_once(file: Path) -> None:
    """Raise `ValueError` if a weight stands twice in a header, where the last one would count."""
    with file.open("rb") as shard:
        header = shard.read(int.from_bytes(shard.read(8), "little"))
    json.loads(header, object_pairs_hook=checks.without_doubles)


STORED = ("F64", "F32", "F16", "BF16")
CAUSAL_MASK = r"\b(attn|attention)\.bias$"
"""What some older networks call a bias."""


def _weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads weights from: one, or the shards that an index names."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if not any(folder.glob("*.safetensors")):
        others = sorted(file.name for file in folder.glob("*.bin"))
        kind = f"only pickled ones ({others[0]}), which are not read" if others else "none at all"
        raise ValueError(
            f"checkpoint: {folder} has no weights in the safetensors format, {kind}; convert them, "
            "for example by the hub's service safetensors/convert"
        )
    if not index.is_file():
        return [whole] if whole.is_file() else sorted(folder.glob("*.safetensors"))
    written = read_json(index)
    shards = written.get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ValueError(f"checkpoint: {index} has no weight_map")
    if not isinstance(written.get("metadata"), dict):  # which transformers writes into
        raise ValueError(
            f"checkpoint: {index}: metadata: got {checks.shown(written.get('metadata'), 60)}, "
            "expected an object"
        )
    names = sorted({str(name) for name in shards.values()})
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors") or len(name) > 200:
            raise ValueError(
                f"checkpoint: {index} names the shard {name!r:.60}, expected files in the "
                "safetensors format beside it"
            )
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"checkpoint: {folder} lacks the shards {checks.some(missing)}")
    if whole.is_file() and names != [whole.name]:
        raise ValueError(
            f"checkpoint: {folder} has {whole.name} beside {index.name}, expected one of the two"
        )
    return [folder / name for name in names]


def blank(architecture: type[Any], config: PretrainedConfig) -> Network:
    """The network without numbers, for the names and shapes of its parts.

    Raises `ValueError` if none can be built of the configuration.
    """
    make = getattr(architecture, "from_config", None) or architecture
    try:
        with quiet(), torch.device("meta"):
            return make(deepcopy(config))  # which loading the network changes
    except Exception as error:  # of many kinds, for fields that do not fit
        raise ValueError(_why_not_built(config, error)) from error


def _why_not_built(config: PretrainedConfig, error: Exception) -> str:
    """What to say of a configuration in whose building this was raised. Of rotations that the
    network does not find where it looks for them, the error is no more than a word.
    """
    rotations = getattr(config.get_text_config(), "rope_parameters", None)
    if isinstance(rotations, Mapping):
        got = f"rope_parameters: got {checks.shown(rotations, 100)}, expected"
        if error.args == ("rope_type",):
            return f"{got} an object with 'rope_type', which is for all layers"
        kinds = [
            part.get("rope_type")
            for part in (rotations, *rotations.values())
            if isinstance(part, Mapping)
        ]
        if any(isinstance(kind, list | dict) or error.args == (kind,) for kind in kinds):
            return f"{got} a type that transformers knows"
    if isinstance(error, KeyError):  # a name that transformers does not know
        for field, value in sorted(config.get_text_config().to_dict().items()):
            if isinstance(value, str) and error.args == (value,):
                return f"{field}: got {checks.shown(value, 60)}, which transformers does not know"
    return f"config.json: {one_line(error)}"


def require_finite(network: Network, *found: Tensor) -> None:
    """Raise `ValueError` if numbers that a network makes of a few tokens are not finite."""
    if all(numbers.isfinite().all() for numbers in found):
        return
    weights = network.named_parameters()
    wrong = next((name for name, weight in weights if not weight.isfinite().all()), None)
    raise ValueError(
        f"checkpoint: {network.name_or_path} makes numbers of a few tokens that are not finite"
        + (f": the weight {wrong} is not" if wrong else "")
    )


def _require_size(
    architecture: type[Any],
    folder: Path,
    config: PretrainedConfig,
    stored: Mapping[str, int],
    renamed: Mapping[str, str],
) -> None:
    """Raise `ValueError` if the configuration is of a much larger network than the weights: the
    memory of all that is missing would be taken before anybody says so. And if a weight is there
    twice.
    """
    layers = getattr(config.get_text_config(), "num_hidden_layers", None) or 0
    if layers > len(stored):
        raise ValueError(f"num_hidden_layers: got {layers}, but {folder} has {len(stored)} weights")
    network = blank(architecture, config)
    parameters = sum(one.numel() for one in network.parameters())
    if parameters > 2 * sum(stored.values()) + 2**20:  # an embedding may count twice
        raise ValueError(
            f"config.json: it is of a network of {parameters} numbers, but {folder} has "
            f"{sum(stored.values())}"
        )
    _require_one_each(network, folder, stored, renamed)


_IGNORED = ("rotary_emb.inv_freq", "lm_head.weight")
"""Buffers of older checkpoints, and an output layer that a reward model does not use."""


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, reports and warnings from transformers: what matters is raised. And no
    question whether to run a checkpoint's own code: that it would be needed is raised, too.
    """
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    patience = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = patience
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def one_line(error: Exception) -> str:
    """What an error says, short and in one line; its kind if it says nothing."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _normalise_in_double(network: nn.Module) -> None:
    """Replace transformers' RMSNorm, which computes in float32 whatever the model's dtype.

    Exact claims, such as that the prefix cache changes nothing, are made in float64. Rotations too
    are computed in float32, but each from its position alone, so they are the same numbers always.
    """
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child).__name__.endswith("RMSNorm") and hasattr(child, "variance_epsilon"):
                norm: Any = child
                exact = nn.RMSNorm(norm.weight.shape, eps=norm.variance_epsilon)
                exact.weight = norm.weight
                setattr(parent, name, exact)


DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


def device_of(device: str | torch.device, field: str = "device") -> torch.device:
    """The device, `auto` being a GPU if there is one. Raises `ValueError`, naming the `field`,
    if it is not there.

    Apple's `mps` is refused: tokens are drawn in float64, which it lacks.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"{field}: got {checks.shown(device)}, expected auto, cpu, cuda, cuda:1, ..."
        ) from error
    if found.type == "mps":
        raise ValueError(
            f"{field}: got {str(device)!r}, which lacks float64, in which tokens are drawn; use cpu"
        )
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"{field}: got {str(device)!r}, expected auto, cpu, cuda, cuda:1, ...")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"{field}: got {str(device)!r}, but this machine has {torch.cuda.device_count()} CUDA "
            "devices; use cpu"
        )
    return found


def dtype_of(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype, `auto` being bfloat16 on a GPU, as in the paper, and float32 elsewhere."""
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if isinstance(dtype, torch.dtype) and dtype in DTYPES.values():
        return dtype
    checks.choice("dtype", dtype, ["auto", *DTYPES])
    return DTYPES[str(dtype)]


def rope_types(config: Mapping[str, Any]) -> Iterator[str]:
    """The kinds of rotations in a configuration: of all layers, or of each type of layer."""
    for field in ("rope_parameters", "rope_scaling"):
        written = config.get(field)
        if isinstance(written, Mapping):
            for part in (written, *written.values()):
                if isinstance(part, Mapping):
                    yield str(part.get("rope_type", part.get("type", "default")))


def rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """How positions are encoded: `rope_theta` and `rope_type`.

    Read from `rope_parameters`, as transformers 5 writes it, or from `rope_theta` and
    `rope_scaling`, as older versions did.
    """
    for field in ("rope_parameters", "rope_scaling"):
        if not isinstance(config.get(field) or {}, Mapping):
            raise ValueError(f"{field}: got {checks.shown(config[field])}, expected an object")
    written = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = written.get("rope_type", written.get("type", "default"))
    return {
        "rope_theta": written.get("rope_theta", config.get("rope_theta")),
        "rope_type": kind,
    }
