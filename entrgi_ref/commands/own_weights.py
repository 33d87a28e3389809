"""Weight functions of yours, named as MODULE:FUNCTION on the command line."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import json
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from .. import checks
from ..config import GuidanceConfig, SamplingConfig
from ..relaxation import WEIGHTS
from .memory import out_of_memory

if TYPE_CHECKING:
    from ..relaxation import WeightFunction

SEPARATOR = ":"
TAKEN = ("bon", *WEIGHTS)
"""Names that no function of yours may have."""
PROBED = 4096
"""Tokens in the vocabulary of the logits with which a function is tried out."""


@dataclass(frozen=True)
class OwnWeight:
    """A weight function with where it is from. Its method has the name of the function."""

    module: str
    function: str
    source: str
    """A hash of its code, and of what it uses of its module."""
    weight: WeightFunction = field(compare=False, repr=False)

    @classmethod
    def load(cls, given: str) -> OwnWeight:
        """Import what `given`, MODULE:FUNCTION, names: from the current folder, or what is
        installed. It is tried out on some logits.

        Raises `ValueError` if there is no such module or function, or if it gives anything but a
        finite number in [0, 1] for each row.
        """
        name, _, function = given.partition(SEPARATOR)
        if not function.isidentifier() or not all(map(str.isidentifier, name.split("."))):
            raise ValueError(f"method: got {given!r}, expected MODULE:FUNCTION")
        module = _imported(name, given)
        try:
            weight = getattr(module, function)
        except AttributeError as error:
            there = [
                n
                for n, value in vars(module).items()
                if inspect.isfunction(value) and value.__module__ == name
            ]
            raise ValueError(
                f"method: got {given!r}, but {name} has no {function}; its functions: "
                f"{checks.some(there) or 'none'}"
            ) from error
        except Exception as error:  # of a `__getattr__` of the module's
            raise ValueError(_import_failed(name, given, error)) from error
        checks.function(f"method: {given}", weight)
        _try_out(given, weight)
        return cls(name, function, _hash(module, function, given), weight)

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """`ValueError` where it fails after all, which the logits of its trial did not show."""
        given = f"{self.module}{SEPARATOR}{self.function}"
        try:
            found = self.weight(logits)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # exit() would end the run without a word
            if isinstance(error, RuntimeError) and out_of_memory(error):
                raise
            raise ValueError(_failed(given, logits, error)) from error
        _require_plain(given, found)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process imports the module itself: what it finds there is what it declares."""
        return OwnWeight.load, (f"{self.module}{SEPARATOR}{self.function}",)

    @property
    def declaration(self) -> dict[str, str]:
        """What a run says of it."""
        return {"module": self.module, "function": self.function, "source": self.source}


def named(
    methods: Sequence[str],
    known: Collection[str],
    others: Collection[str] = (),
    option: str = "methods",
) -> tuple[list[str], dict[str, OwnWeight]]:
    """The names of methods, and the functions of those that are given as MODULE:FUNCTION.

    Raises `ValueError` for what is neither known nor such a function, and for a function with the
    name of another method, known here or one of `others`. `option` is what a message begins with.
    """
    names: list[str] = []
    own: dict[str, OwnWeight] = {}
    for given in methods:
        if SEPARATOR not in given:
            checks.choice(option, given, known)
            names.append(given)
            continue
        weight = OwnWeight.load(given)
        name = weight.function
        if name in (*TAKEN, *known, *others) or (name in own and own[name] != weight):
            raise ValueError(
                f"method: got {given!r}, but {name} is the name of another method; rename the "
                "function"
            )
        names.append(name)
        own[name] = weight
    return names, own


def settings_of(config: SamplingConfig) -> dict[str, Any]:
    """The settings for a record. A weight of `OwnWeight` has the name of its function there, and
    `own_weight` says where it is from; of other functions `ValueError`, as of `to_json`.
    """
    weight = config.guidance.weight if isinstance(config.guidance, GuidanceConfig) else None
    if not isinstance(weight, OwnWeight):
        return dict(json.loads(config.to_json()))
    settings: dict[str, Any] = json.loads(config.guided(weight="entrgi").to_json())
    settings["guidance"]["weight"] = weight.function
    return {**settings, "own_weight": weight.declaration}


def _imported(name: str, given: str) -> ModuleType:
    here = str(Path.cwd())
    if not {"", here} & set(sys.path):  # as in `python -m`; a console script has its own folder
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        module: object = importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{name}.".startswith(f"{missing}."):
            said = f"there is no module {missing}, neither in {here} nor installed"
            raise ValueError(f"method: got {given!r}, but {said}") from error
        raise ValueError(_import_failed(name, given, error)) from error
    if not isinstance(module, ModuleType):  # what it has put in its own place
        raise ValueError(f"method: got {given!r}, but {name} is {module!r:.60}, expected a module")
    return module


def _try_out(given: str, weight: WeightFunction) -> None:
    """On a row of middling logits, one that is nearly certain, one that is even, and one of which
    half are -inf, as are those of tokens that may not be written.
    """
    noise = torch.randn(4, PROBED, generator=torch.Generator().manual_seed(0))
    logits = noise * torch.tensor([1.0, 50.0, 0.0, 1.0])[:, None]
    logits[3, ::2] = -torch.inf
    before = logits.clone()
    try:
        with torch.no_grad():
            found = checks.only_reads(f"method: {given}", weight)(logits)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ValueError(_failed(given, before, error)) from error
    _require_plain(given, found)
    if not torch.equal(logits, before):  # by `data` or numpy, which torch does not count
        raise ValueError(
            f"method: {given}: it wrote into what it was given, which it may only read"
        )
    checks.shape(f"method: the weights of {given}", found, (4,), "[n], one for each row of logits")
    outside = found[~((found >= 0) & (found <= 1))].tolist()
    if outside:
        raise ValueError(
            f"method: {given} gives {checks.some(outside)}, expected finite numbers in [0, 1]; "
            "logits of tokens that may not be written are -inf"
        )


def _require_plain(given: str, found: object) -> None:
    """Raise `ValueError` for a tensor of which there are no numbers to compare."""
    if isinstance(found, torch.Tensor):
        other = next((kind for kind in ("sparse", "meta") if getattr(found, f"is_{kind}")), None)
        if other or "float8" in str(found.dtype):
            kind = f" that is {'on ' * (other == 'meta')}{other}" if other else ""
            raise ValueError(f"method: {given} gives {found.dtype}{kind}, expected plain numbers")


def _failed(given: str, logits: torch.Tensor, error: BaseException) -> str:
    return f"method: {given} cannot be called with logits {list(logits.shape)} ({_said(error)})"


def _import_failed(name: str, given: str, error: BaseException) -> str:
    return f"method: got {given!r}, but importing {name} failed ({_said(error)})"


def _said(error: BaseException) -> str:
    """What an error of yours says, in one line."""
    try:
        return " ".join(f"{type(error).__name__}: {error}".split())
    except Exception:  # its own `__str__` fails; the error itself is what `raise ... from` keeps
        return f"{type(error).__name__}: it cannot be shown"


def _hash(module: ModuleType, function: str, given: str) -> str:
    """Of the statements that define a function and all that it uses of its module: comments, line
    breaks and the other functions may change.
    """
    weight = getattr(module, function)
    try:
        if inspect.isfunction(weight) and weight.__module__ != module.__name__:  # imported there
            module, function = sys.modules[weight.__module__], weight.__name__
        statements = ast.parse(inspect.getsource(module)).body
    except Exception as error:  # of many kinds, for what a module says of itself
        raise ValueError(f"method: the source of {given} cannot be read: {_said(error)}") from error
    bound: dict[str, list[ast.stmt]] = {}
    for statement in statements:
        for name in _binds(statement):
            bound.setdefault(name, []).append(statement)
    if function not in bound:
        raise ValueError(f"method: {given} is not defined in the source of {module.__name__}")
    used: list[ast.stmt] = []
    wanted = [function]
    while wanted:
        for statement in bound.get(wanted.pop(), []):
            if statement not in used:
                used.append(statement)
                wanted += [n.id for n in ast.walk(statement) if isinstance(n, ast.Name)]
    text = "\n".join(ast.unparse(statement) for statement in statements if statement in used)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _binds(statement: ast.stmt) -> Iterator[str]:
    """The names of a module that a statement gives a value."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.partition(".")[0]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
