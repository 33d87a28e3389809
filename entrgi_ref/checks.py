"""Checks whose errors say what was given, what was expected and where.

Settings and shapes are checked before any work. Whether numbers are finite is known only on the
device: those conditions are collected there, and read once per denoising step, so that checking
does not make the host wait for the device.
"""

from __future__ import annotations

import difflib
import inspect
import itertools
import numbers
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set, Sized
from contextlib import contextmanager, suppress
from functools import cache, wraps
from types import UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints
from unicodedata import category

import torch
from jaxtyping import AbstractArray, jaxtyped
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])
MISFITS = (AttributeError, LookupError, OverflowError, RuntimeError, TypeError)
"""What Python and torch raise for arguments that a function cannot work with."""


def explained(function: Function) -> Function:
    """`function`, which raises a `ValueError` that names the argument, where it fails and one is of
    another kind, dtype or shape than its annotation says. As long as all is well nobody looks.
    """

    @wraps(function)
    def explaining(*given: Any, **options: Any) -> Any:
        try:
            return function(*given, **options)
        except MISFITS as error:
            if said := _misfit(function, given, options):
                raise ValueError(said) from error
            raise

    return cast(Function, explaining)


def _misfit(function: Any, given: Any, options: Any) -> str | None:
    """What to say of the first argument that does not fit."""
    try:
        arguments = inspect.signature(function).bind(*given, **options).arguments
        hints = get_type_hints(function)
    except (TypeError, NameError):  # one is missing, or there is no such name
        return None
    shapes: list[str] = []
    with jaxtyped("context"):  # in which each letter has one size
        for name, value in arguments.items():
            if not _fits(value, hints.get(name, Any)):
                beside = f" beside {', '.join(shapes)}" if shapes else ""
                wanted = function.__annotations__[name]
                if not isinstance(wanted, str):
                    wanted = inspect.formatannotation(wanted)
                return f"{name}: got {shown(value)}, expected {wanted}{beside}"
            if isinstance(value, Tensor):
                shapes.append(f"{name} {list(value.shape)}")
    return None


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is what an annotation says, as far as that can be told at once."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Callable:
        return callable(value)
    if isinstance(origin, type) and issubclass(origin, Iterable):
        several = isinstance(value, origin) and not isinstance(value, str)
        return several and (not inner or all(_fits(one, inner[0]) for one in value))
    if hint is Any or not isinstance(hint, type):
        return True
    if getattr(hint, "_is_protocol", False):  # by isinstance, a wrapper with `__getattr__` is none
        names = [name for name in vars(hint) if name == "__call__" or not name.startswith("_")]
        return all(hasattr(value, name) for name in names)
    if issubclass(hint, AbstractArray):
        plain = isinstance(value, Tensor) and value.layout == torch.strided
        small = plain and (value.is_quantized or "float8" in str(value.dtype))
        empty = plain and value.ndim == 2 and not value.shape[1]
        return plain and not small and not empty and isinstance(value, hint)
    if hint in (int, float) and not isinstance(value, bool):
        return isinstance(value, numbers.Integral if hint is int else numbers.Real)
    return isinstance(value, hint)


def shown(value: object, most: int = 200) -> str:
    """A value in one line of a message, cut where it is long."""
    if isinstance(value, Tensor) and value.is_nested:
        return "a nested tensor"
    if isinstance(value, Tensor) and (value.ndim or value.is_meta):
        layout = "" if value.layout == torch.strided else f" in {value.layout}"
        layout += " on meta" if value.is_meta else ""
        return f"{value.dtype} of shape {list(value.shape)}{layout}"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # some integers have too many digits for Python
        text = f"one of {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most]} ..."


def integer(name: str, value: object, minimum: int, below: int = 2**63) -> int:
    """`value` as Python's own; `ValueError` unless it is an integer in [minimum, below)."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not (whole and value >= minimum):  # type: ignore[operator]
        raise ValueError(f"{name}: got {shown(value)}, expected an integer of at least {minimum}")
    if value >= below:  # type: ignore[operator]
        power = below.bit_length() - 1
        end = f"2^{power}" if below == 2**power >= 2**10 else str(below)
        raise ValueError(f"{name}: got {shown(value)}, expected an integer below {end}")
    return int(value)  # type: ignore[call-overload]


def number(
    name: str, value: object, low: float, high: float, *, low_allowed: bool = False
) -> int | float:
    """`value` as Python's own; `ValueError` unless it is in (low, high], or [low, high] with
    `low_allowed`.
    """
    plain = value
    if isinstance(value, numbers.Real) and not isinstance(value, int | float):
        with suppress(OverflowError):  # float16 would round the interval's end up to infinity
            plain = float(value)
    real = isinstance(plain, int | float) and not isinstance(plain, bool)
    inside = real and (low < plain <= high or (low_allowed and plain == low))  # type: ignore[operator]
    if not inside:  # nan never is
        interval = f"{'[' if low_allowed else '('}{low:g}, {high:g}]"
        raise ValueError(f"{name}: got {shown(value)}, expected a number in {interval}")
    return plain if type(plain) in (int, float) else float(plain)  # type: ignore[arg-type,return-value]


def temperature(value: object, name: str = "temperature") -> int | float:
    """A temperature at which a softmax can be computed; `ValueError` if `value` is none."""
    return number(name, value, 1e-6, 1e6, low_allowed=True)


def order_temperature(value: object) -> int | float:
    """0, or a temperature; `ValueError` if `value` is neither."""
    return _zero_or("order_temperature", value, 1e-6, 1e6)


def epsilon(value: object) -> int | float:
    """What may be added inside the logarithm of the entropy; `ValueError` otherwise.

    Of numbers below 1e-38 float32 makes 0, and of its logarithm -inf.
    """
    return _zero_or("epsilon", value, 1e-30, 1e-3)


def _zero_or(name: str, value: object, low: float, high: float) -> int | float:
    if isinstance(value, numbers.Real) and not isinstance(value, bool) and value == 0:
        return 0.0
    try:
        return number(name, value, low, high, low_allowed=True)
    except ValueError:
        raise ValueError(
            f"{name}: got {shown(value)}, expected 0 or a number in [{low:g}, {high:g}]"
        ) from None


def choice(name: str, value: object, allowed: Iterable[str]) -> None:
    """Raise `ValueError` unless `value` is one of `allowed`; the message suggests the nearest."""
    allowed = list(allowed)
    if not (isinstance(value, str) and value in allowed):  # an array answers with an array
        near = difflib.get_close_matches(value, allowed, n=1) if isinstance(value, str) else []
        hint = "".join(f"; did you mean {one!r}?" for one in near)
        names = ", ".join(map(repr, allowed))
        raise ValueError(f"{name}: got {shown(value)}, expected one of {names}{hint}")


class DoubleKeyError(ValueError):
    """A key stands twice in an object of JSON."""


def without_doubles(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. `DoubleKeyError` for a key that stands there twice: which one is meant?"""
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _), *_) = Counter(key for key, _ in pairs).most_common(1)
        raise DoubleKeyError(f"the key {twice!r:.40} stands there twice")
    return found


def function(name: str, value: object) -> None:
    """Raise `ValueError` unless `value` can be called."""
    if not callable(value):
        raise ValueError(f"{name}: got {shown(value)}, expected a function")


def arguments(
    denoiser: object,
    reward: object,
    config: object,
    draws: object = None,
    asked: Sequence[str] = ("embeddings", "bind", "score"),
) -> None:
    """Raise `ValueError` unless these are what `generate` works with; the last may be None, and so
    may `config`. `asked` is what the reward is asked for.
    """
    has("denoiser", denoiser, "a Denoiser", "mask_id", "eos_id", "writable", "encode", "decode")
    may_be_written = denoiser.writable  # type: ignore[attr-defined]
    flat = isinstance(may_be_written, Tensor) and may_be_written.ndim == 1
    width = len(may_be_written) if flat else 2**63 - 1
    for field in ("eos_id", "pad_id"):
        if (one := getattr(denoiser, field, None)) is not None:
            integer(f"denoiser.{field}", one, minimum=0, below=width)
    has("reward", reward, "a Reward", *asked)
    if config is not None:
        has("config", config, "a SamplingConfig", "guided_steps")
    if draws is not None:
        has("draws", draws, "Draws", "at")


def step_draws(value: Any, config: Any) -> Any:
    """`value`; `ValueError` unless it draws at a denoising step all that settings ask for."""
    chance = ("order",) if config.order_temperature else ()
    chance = ("origin",) if config.order == "origin" else chance
    has("draws.at", value, "StepDraws", "hard", "candidates", *chance)
    return value


def has(name: str, value: object, kind: str, *members: str) -> None:
    """Raise `ValueError` unless `value` has these members, as a thing of this kind has.

    Not by isinstance: from Python 3.12 on, that refuses a wrapper with a `__getattr__`.
    """
    for member in members:
        if isinstance(value, type) or not hasattr(value, member):
            got = shown(value, 60)
            raise ValueError(f"{name}: got {got}, expected {kind}, which has {member!r}")


def only_reads(name: str, value: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of a tensor, or of a record of tensors, that raises `ValueError` if it writes into
    one of them: what comes after would be computed from something else.
    """
    function(name, value)

    def reading(given: Any) -> Any:
        of = [given] if isinstance(given, Tensor) else vars(given).values()
        with unwritten(name, *of):
            found = value(given)
        if isinstance(found, Tensor) and found.is_complex():
            raise ValueError(f"{name}: got {found.dtype}, expected real numbers")
        # A copy, as the next call may write into memory that the function keeps.
        return found.clone() if isinstance(found, Tensor) else found

    return reading


@contextmanager
def unwritten(name: str, *given: Any) -> Iterator[None]:
    """Raise `ValueError` if one of these tensors is written into meanwhile."""
    # torch counts the writes into a tensor, but for those made under inference_mode.
    tensors = [one for one in given if isinstance(one, Tensor) and not one.is_inference()]
    before = [tensor._version for tensor in tensors]
    yield
    if [tensor._version for tensor in tensors] != before:
        raise ValueError(f"{name}: it wrote into what it was given, which it may only read")


def asked(name: str, model: Callable[..., Any], *given: Any) -> Any:
    """What a function of yours makes of tensors that it only reads."""
    with unwritten(name, *given):
        return model(*given)


def choice_or_function(name: str, value: object, allowed: Iterable[str]) -> None:
    """Raise `ValueError` unless `value` is one of `allowed`, or can be called."""
    if not callable(value):
        choice(name, value, allowed)


def boolean(name: str, value: object) -> bool:
    """`value` as Python's own; `ValueError` unless it is True or False."""
    if not isinstance(value, bool) and type(value).__name__ not in ("bool_", "bool"):  # numpy's
        raise ValueError(f"{name}: got {shown(value)}, expected True or False")
    return bool(value)


def shape(name: str, value: object, expected: tuple[int | None, ...], meaning: str) -> None:
    """Raise `ValueError` unless `value` is a tensor of the expected shape; None is any size."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name}: got {shown(value, 60)}, expected a tensor of shape {meaning}")
    if value.layout != torch.strided or value.is_nested or value.is_quantized:
        raise ValueError(f"{name}: got {shown(value)}, expected plain numbers of shape {meaning}")
    fits = len(value.shape) == len(expected) and all(
        size in (None, given) for given, size in zip(value.shape, expected, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in expected)
        raise ValueError(f"{name}: got shape {list(value.shape)}, expected {meaning} = [{wanted}]")


def floating(**values: Tensor) -> None:
    """Raise `ValueError` for a tensor that holds no real numbers of floating point, which would be
    cut to whole ones, or only their real part taken, without a word.
    """
    for name, value in values.items():
        if not value.is_floating_point():
            raise ValueError(f"{name}: got {shown(value)}, expected floating point")


def mixable(soft: Tensor, hard: Tensor, weight: object) -> None:
    """Raise `ValueError` unless these are embeddings [n, d] and weights [n] of floating point."""
    shape("weight", weight, soft.shape[:-1], "[n], one number per masked position")
    shape("hard", hard, tuple(soft.shape), "[n, d], that of soft")
    floating(soft=soft, hard=hard, weight=weight)  # type: ignore[arg-type]


class OutOfRangeError(ValueError, IndexError):
    """A token is not of the vocabulary. As torch's own it is an `IndexError`, too."""


def ids(name: str, value: Tensor, below: int) -> Tensor:
    """`value` in int64; `ValueError` unless it holds integers and, where that can be looked at,
    those of [0, below).
    """
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise ValueError(f"{name}: got {shown(value)}, expected integers")
    value = value.long()
    if at_hand(value) and value.numel() and not (value.min() >= 0 and value.max() < below):
        wrong = value[(value < 0) | (value >= below)].tolist()
        raise OutOfRangeError(f"{name}: got {some(wrong)}, expected integers in [0, {below})")
    return value


def choices(logits: Tensor) -> None:
    """Raise `ValueError` unless there are two tokens or more to choose from."""
    vocabulary = logits.shape[-1]
    if vocabulary < 2:
        raise ValueError(f"logits: got a vocabulary of {vocabulary}, expected 2 or more: log 1 = 0")


def prompts(value: object, name: str = "prompts") -> None:
    """Raise `ValueError` unless `value` is a list of at least one string."""
    unordered = isinstance(value, str | Set | Mapping | Tensor)
    several = isinstance(value, Iterable) and isinstance(value, Sized)
    texts = several and not unordered and all(isinstance(v, str) for v in value)  # type: ignore
    if not texts or not len(value):  # type: ignore[arg-type]
        raise ValueError(f"{name}: got {shown(value)}, expected a list of at least one string")
    for prompt in value:  # type: ignore[attr-defined]
        text(name, prompt)


LONGEST = 2**20
"""Characters of a prompt: several times as many as any model has positions."""


def text(name: str, value: str) -> None:
    """Raise `ValueError` unless `value` can be encoded, which bytes that are no UTF-8 cannot, and
    has at most `LONGEST` characters.
    """
    if len(value) > LONGEST:
        raise ValueError(f"{name}: got {len(value)} characters, expected at most {LONGEST}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name}: got {shown(value, 60)}, which is not valid text") from None


@cache
def is_name(value: str) -> bool:
    """Whether files and lines of a table can be named by a text: letters and signs that are seen,
    and none that parts folders.
    """
    return bool(value) and "/" not in value and all(category(c)[0] != "C" for c in value)


def seeds(value: Sequence[int]) -> tuple[int, ...]:
    """Seeds of sampling; `ValueError` unless they are different integers in [0, 2^63), one at
    least.
    """
    if not value or len(set(value)) < len(value):
        raise ValueError(f"seeds: got {list(value)}, expected different integers")
    return tuple(integer("seeds", seed, minimum=0) for seed in value)


def keys(value: Iterable[int], prompts: int | None = None, *, beside: object = None) -> list[int]:
    """The keys; `ValueError` unless each has 64 bits, they are as many as prompts, and there are no
    draws `beside` them.
    """
    if beside is not None:
        raise ValueError("keys: got keys beside draws, expected one or the other")
    if isinstance(value, Tensor):
        value = value.tolist()
    unordered = isinstance(value, str | bytes | Set | Mapping)
    several = isinstance(value, Iterable) and not unordered
    most = (prompts or MOST_KEYS) + 1  # of keys without end no more is read
    found = list(itertools.islice(value, most)) if several else []
    if len(found) != prompts if prompts else not 0 < len(found) <= MOST_KEYS:
        raise ValueError(
            f"keys: got {shown(value, 60)}, expected {prompts or 'some'} integers, one per prompt"
        )
    return [integer("keys", key, minimum=-(2**63)) for key in found]


MOST_KEYS = 2**20
"""Where nobody says how many prompts there are."""


def start(value: object, shape_: tuple[int, int], vocabulary: int, mask_id: int) -> Tensor:
    """`value` in int64. Raises `ValueError` unless it is ids [P, N], a mask token in each row."""
    shape("start", value, shape_, "[P, N]")
    assert isinstance(value, Tensor)
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise ValueError(f"start: got {value.dtype}, expected integers, the ids of tokens")
    value = value.long()  # torch cannot compare those of some types
    if not ((value >= 0) & (value < vocabulary)).all():
        raise ValueError(f"start: got ids outside of the vocabulary, expected [0, {vocabulary})")
    masks: list[int] = (value == mask_id).sum(1).tolist()
    if 0 in masks:
        full = some([p for p, count in enumerate(masks) if count == 0])
        raise ValueError(
            f"start: nothing is to be written for prompt {full}, expected the mask token {mask_id} "
            "at least once"
        )
    return value


def rows_at_a_time(name: str, value: object) -> None:
    """Raise `ValueError` unless `value` is None, for all together, or an integer of at least 1."""
    if value is not None:
        integer(name, value, minimum=1)


def encoded(value: Any, prompts: int) -> Any:
    """`value`; `ValueError` unless it is what a denoiser makes of so many prompts."""
    has("denoiser.encode", value, "Prompts", "tokens", "valid", "keys")
    shape("denoiser.encode, tokens", value.tokens, (prompts, None), "[P, prompt]")
    shape("denoiser.encode, valid", value.valid, tuple(value.tokens.shape), "[P, prompt]")
    for name, tensor, dtype in (
        ("tokens", value.tokens, torch.int64),
        ("valid", value.valid, torch.bool),
    ):
        if tensor.dtype != dtype:
            raise ValueError(f"denoiser.encode, {name}: got {tensor.dtype}, expected {dtype}")
    if not isinstance(value.keys, Sized) or len(value.keys) != prompts:
        got = len(value.keys) if isinstance(value.keys, Sized) else repr(value.keys)
        raise ValueError(f"denoiser.encode, keys: got {got}, expected {prompts}, one per prompt")
    return value


def texts(value: Any, expected: int) -> Any:
    """`value`; `ValueError` unless it is a list of so many strings."""
    several = isinstance(value, list | tuple) and len(value) == expected
    if not several or not all(isinstance(text, str) for text in value):
        raise ValueError(
            f"denoiser.decode: got {shown(value, 60)}, expected a list of {expected} strings"
        )
    return value


def writable(value: object, mask_id: int) -> int:
    """V. `ValueError` unless `value` says which tokens may be written, and not the mask."""
    if not isinstance(value, Tensor) or value.dtype != torch.bool or value.ndim != 1:
        raise ValueError(f"denoiser.writable: got {shown(value, 60)}, expected a bool tensor [V]")
    if value[integer("denoiser.mask_id", mask_id, minimum=0, below=len(value))]:
        raise ValueError("denoiser.writable: got True at the mask token, expected False")
    if at_hand(value) and not value.any():
        raise ValueError("denoiser.writable: got True nowhere, expected tokens that may be written")
    return len(value)


def vocabulary(may_be_written: object, mask_id: int, embeddings: object) -> None:
    """Raise `ValueError` unless the networks share a vocabulary, in which the mask is no token."""
    shape("reward.embeddings", embeddings, (writable(may_be_written, mask_id), None), "[V, d]")
    if not embeddings.shape[1]:  # type: ignore[attr-defined]
        raise ValueError("reward.embeddings: got vectors of width 0, expected 1 at least")


def count(masked: Tensor) -> int | None:
    """How many are masked, or None where the host would wait for it."""
    return int(masked.sum()) if at_hand(masked) else None


def uniform(name: str, value: Any, n: int | None = None) -> Any:
    """`value`; `ValueError` unless it is one number for each of the n masked positions and, where
    that can be looked at, in [0, 1).
    """
    shape(f"draws, {name}", value, (n,), "[n], one number per masked position")
    if not value.is_floating_point():
        raise ValueError(f"draws, {name}: got {value.dtype}, expected floating point")
    if at_hand(value) and value.numel() and not (value.min() >= 0 and value.max() < 1):  # nor nan
        raise ValueError(f"draws, {name}: got a number outside of [0, 1)")
    return value


def some_mass(total: Tensor) -> Tensor:
    """`total`, the sums of rows of probabilities; `ValueError` if one is 0, where that can be
    looked at.
    """
    if at_hand(total) and not total.all():
        raise ValueError("probabilities: got a row of zeros, expected those of one token or more")
    return total


def logits(value: Any, rows: int | None, vocabulary_: int) -> Any:
    """`value`; `ValueError` unless a denoiser has returned floating-point numbers [n, V]."""
    shape("the denoiser's logits", value, (rows, vocabulary_), "[n, V]")
    if not value.is_floating_point():
        raise ValueError(f"the denoiser's logits: got {value.dtype}, expected floating point")
    if value.is_meta:
        raise ValueError(f"the denoiser's logits: got {shown(value)}, expected numbers")
    return value


def precision(dtype: torch.dtype | None) -> None:
    """Raise `ValueError` if logits of this dtype, where it is known, cannot be guided."""
    if dtype == torch.float16:
        raise ValueError(
            "logits: got torch.float16, expected float32, float64 or bfloat16 (the dtype of "
            "GuidanceConfig): Adam's epsilon of 1e-8 is 0 in float16"
        )


def precisions(guidances: Iterable[Any], denoiser: object) -> None:
    """Raise `ValueError` if a denoiser that says its `dtype` makes logits that cannot be guided."""
    if any(guidance.steps and guidance.dtype == "denoiser" for guidance in guidances):
        precision(getattr(denoiser, "dtype", None))


def tables(logits: Tensor, embeddings: Tensor, steps: object) -> None:
    """Raise `ValueError` unless logits [n, V] and embeddings [V, d] are of one vocabulary, and
    `steps` gradient steps can be made with them.
    """
    shape("logits", logits, (None, None), "[n, V]")
    shape("reward.embeddings", embeddings, (logits.shape[1], None), "[V, d]")
    for name, table in (("logits", logits), ("reward.embeddings", embeddings)):
        if not table.is_floating_point():
            raise ValueError(f"{name}: got {table.dtype}, expected a floating-point dtype")
    if integer("steps", steps, minimum=0) == 0:
        return
    precision(logits.dtype)
    if embeddings.is_inference():
        raise ValueError(
            "reward.embeddings: got a tensor made under torch.inference_mode, which has no "
            "gradients; load the reward model outside of it"
        )


def climb(
    step_size: object,
    temperature_: object,
    top_p: object,
    optimiser: object,
    known: Iterable[str],
) -> None:
    """Raise `ValueError` unless these settings of `guide` are in their ranges."""
    number("step_size", step_size, 0, 1e6)
    temperature(temperature_)
    number("top_p", top_p, 0, 1)
    choice_or_function("optimiser", optimiser, known)


def optimiser(make: Callable[..., Any], psi: Tensor, step_size: float) -> Any:
    """What `make` makes; `ValueError` unless it has a `step()` that makes one step of a given
    gradient.
    """
    try:
        value = make([psi], lr=step_size)
    except TypeError as error:
        name = getattr(make, "__qualname__", type(make).__name__)
        raise ValueError(f"optimiser: {name} does not take ([psi], lr=...): {error}") from error
    try:
        inspect.signature(value.step).bind()
    except (AttributeError, TypeError):
        raise ValueError(
            f"optimiser: got one of {type(value).__name__}, expected one whose step() takes no "
            "argument: it gets one gradient per step, and the reward is not computed again"
        ) from None
    if any(kind.__name__ in MIXING for kind in type(value).__mro__):
        raise ValueError(
            f"optimiser: got one of {type(value).__name__}, expected one that makes a step for "
            "each number by itself: no trajectory may depend on another"
        )
    return value


MIXING = ("Muon", "Adafactor", "SparseAdam")
"""Optimisers in which the step of one number depends on the gradients of others, or that want
gradients of another kind."""


def drawn(tokens: Any, logits: Tensor, *, written: bool = False) -> Any:
    """`tokens` as int64; `ValueError` unless they are one id for each row of `logits`. Where that
    can be looked at, also if one is not of the vocabulary, or is to be `written` and may not be.
    """
    shape("draw", tokens, logits.shape[:1], "[n], one token per masked position")
    if tokens.dtype.is_floating_point or tokens.dtype.is_complex or tokens.dtype == torch.bool:
        raise ValueError(f"draw: got {tokens.dtype}, expected integers, the ids of tokens")
    tokens = tokens.long()
    if at_hand(logits) and at_hand(tokens):
        try:
            reached = logits.gather(1, tokens[:, None])[:, 0]
        except RuntimeError as error:
            wrong = tokens[(tokens < 0) | (tokens >= logits.shape[1])].tolist()
            expected = f"ids in [0, {logits.shape[1]})"
            raise ValueError(f"draw: got {some(wrong)}, expected {expected}") from error
        if written and (reached == -torch.inf).any():
            got = some(tokens[reached == -torch.inf].tolist())
            raise ValueError(f"draw: got {got}, expected ids that may be written")
    return tokens


def at_hand(tensor: Tensor) -> bool:
    """Whether its numbers can be looked at without a wait, as those on a GPU cannot."""
    return tensor.is_cpu


def rewards(value: Any, trajectories: int | None) -> Any:
    """`value`; `ValueError` unless it is one number per trajectory, with a gradient."""
    if trajectories is not None:
        integer("trajectories", trajectories, minimum=1)
    shape("reward", value, (trajectories,), "[S], one number per trajectory")
    if value.is_complex():
        raise ValueError(f"reward: got {value.dtype}, expected real numbers")
    if not value.requires_grad:
        raise ValueError(UNUSED)
    return value


UNUSED = "reward: got rewards without a gradient, expected a function of `mixed`"


def scores(value: Any, prompts: Sequence[str], trajectories: int) -> Any:
    """`value`; `ValueError` unless it is a finite number for each finished answer."""
    shape("reward.score", value, (len(prompts) * trajectories,), "[S], one number per response")
    if value.is_complex() or value.dtype == torch.bool:
        raise ValueError(f"reward.score: got {value.dtype}, expected real numbers")
    if not value.isfinite().all():
        listing = named((~value.isfinite()).nonzero(), prompts, trajectories)
        raise ValueError(f"the reward of the finished answer is not finite, for prompt {listing}")
    return value


class GuidanceError(ValueError):
    """A number went bad on the way. `reason` says which one, and when.

    `where` marks the trajectories [S] concerned, or the masked positions [n] if `per_position`.
    """

    def __init__(self, reason: str, where: Tensor, per_position: bool):
        self.reason, self.where, self.per_position = reason, where, per_position
        kind = "masked positions" if per_position else "trajectories"
        super().__init__(f"{reason}; {kind}: {some(where.nonzero().flatten().tolist())}")


@contextmanager
def naming(step: int, row: Tensor, prompts: Sequence[str], trajectories: int) -> Iterator[None]:
    """Name step and prompts in a `GuidanceError`; `row` is that of each masked position."""
    try:
        yield
    except GuidanceError as error:
        rows = row[error.where] if error.per_position else error.where.nonzero()
        listing = named(rows, prompts, trajectories)
        message = f"denoising step {step}: {error.reason}, for prompt {listing}"
        raise ValueError(message) from error


def named(rows: Tensor, prompts: Sequence[str], trajectories: int) -> str:
    """The prompts that some rows of the batch belong to, by number and beginning."""
    numbers = sorted({row // trajectories for row in rows.flatten().tolist()})
    return some([f"{p} ({prompts[p][:40]!r})" for p in numbers])


def some(items: Sequence[object]) -> str:
    """A list for a message, cut when it is long."""
    more = f" and {len(items) - 8} more" if len(items) > 8 else ""
    return ", ".join(map(str, items[:8])) + more


class Conditions:
    """Conditions collected on the device and read together, so that the host waits only once."""

    def __init__(self) -> None:
        self._collected: list[tuple[str, Tensor, bool]] = []

    def require(self, reason: str, holds: Tensor, *, per_position: bool = True) -> None:
        """Add a condition: what to say, and where all is well."""
        self._collected.append((reason, holds, per_position))

    def require_step(
        self, m: int, soft: Tensor, weight: Tensor, rewards: Tensor, slope: Tensor | None
    ) -> None:
        """Add what must hold at gradient step `m`; `slope` is the gradient of `soft`."""
        if slope is None:
            raise ValueError(UNUSED)
        at = f"at gradient step {m}"
        largest, steepest = soft.detach().abs().amax(-1), slope.abs().amax(-1)
        self.require(f"the soft embedding is not finite {at}", largest < torch.inf)
        self.require(f"the weight is outside [0, 1] {at}", weight == weight.clamp(0, 1))
        self.require(f"the reward is not finite {at}", rewards.isfinite(), per_position=False)
        self.require(f"the gradient is not finite {at}", steepest < torch.inf)
        # Adam divides by its square, and would stand still.
        square = steepest.to(torch.promote_types(slope.dtype, torch.float32)).square()
        self.require(f"the square of the gradient is not finite {at}", square < torch.inf)

    def settle(self) -> None:
        """Raise `GuidanceError` for the first condition that does not hold everywhere."""
        verdicts = torch.stack([holds.all() for _, holds, _ in self._collected]).tolist()
        for (reason, holds, per_position), fine in zip(self._collected, verdicts, strict=True):
            if not fine:
                raise GuidanceError(reason, ~holds, per_position)
