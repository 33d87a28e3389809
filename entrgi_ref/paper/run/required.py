"""What records and declarations must hold. What does not is a `ValueError` that names the field.

A folder may have been copied, cut off, edited, or written by another program: what is read from it
is checked here, once, so that nobody who reads it later has to.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import product
from typing import Any

from ... import checks
from ..declared import benchmarks
from ..declared.experiments import EXPERIMENTS, LONGEST_NAME

Record = dict[str, Any]
Require = Callable[[Record], None]
"""What a record must pass."""

Kind = Any
"""A type; `[kind]`, a list of it; `{field: kind}`, an object with these fields (those that end with
`?` may be missing); `{str: kind}`, an object whatever its fields; `(kind,)`, that or null."""


class OtherRunError(ValueError):
    """A record is of another run, or of what its run was never asked for. If all are, its run.json
    may be to blame.
    """


class OtherPromptError(ValueError):
    """A record is of another prompt than its benchmark has: only who has that can know."""


WORDS = {str: "a text", int: "an integer", float: "a number", dict: "an object", list: "a list"}
LARGEST = 1e100
"""Of numbers: sums of their squares are numbers too."""
LARGEST_INTEGER = 2**63 - 1


def _is_number(value: Any) -> bool:
    return type(value) in (float, int) and -LARGEST <= value <= LARGEST  # nan is not


def _is_integer(value: Any) -> bool:
    return type(value) is int and -LARGEST_INTEGER <= value <= LARGEST_INTEGER


def require_names(content: Mapping[str, Any], fields: tuple[str, ...]) -> None:
    """Raise `ValueError` unless these fields of an object are names, or the keys of objects are."""
    for field in fields:
        value = content.get(field, "-")
        for name in value if isinstance(value, Mapping) else [value]:
            if expected := _no_name(name):
                raise ValueError(f"its {field} is {name!r:.40}, expected a name {expected}")


@cache
def _no_name(name: str) -> str | None:
    """What a text lacks to be a name, if it is none."""
    if not checks.is_name(name):
        return "without / and control characters"
    return None if len(name.encode()) <= LONGEST_NAME else f"of at most {LONGEST_NAME} bytes"


def require(value: Any, kind: Kind, name: str) -> None:
    """Raise `ValueError` unless a value is of a kind."""
    shape = type(kind) if isinstance(kind, dict | list) else kind
    if isinstance(kind, tuple):
        (inner,) = kind
        if value is not None:
            require(value, inner, name)
        return
    if kind is float:
        right = _is_number(value)
    elif kind is int:
        right = _is_integer(value)
    else:
        right = isinstance(value, shape)
    if not right:
        expected = str(WORDS.get(shape, shape))
        if kind in (int, float) and type(value) in (int, kind):  # too large, or nan
            most = "1e100" if kind is float else "(2^63 - 1)"
            expected += f" between -{most} and {most}"
        raise ValueError(f"its {name} is {value!r:.40}, expected {expected}")
    if isinstance(kind, list):
        (inner,) = kind
        for i, one in enumerate(value):
            require(one, inner, f"{name}[{i}]")
    if isinstance(kind, dict):
        require_fields(value, kind, f"{name}.")


def require_fields(content: Mapping[str, Any], fields: Mapping[Any, Kind], of: str = "") -> None:
    """Raise `ValueError` unless an object has fields of these kinds."""
    for field, kind in fields.items():
        if field is str:
            for name, value in content.items():
                require(value, kind, f"{of}{name}")
        elif field.rstrip("?") in content:
            require(content[field.rstrip("?")], kind, f"{of}{field.rstrip('?')}")
        elif not field.endswith("?"):
            raise ValueError(f"it has no {of}{field}")


def fits(kind: Kind) -> Callable[[Any], bool]:
    """The question whether a value is of a kind, asked quickly: of every record of a large run.

    What does not fit is asked again by `require`, which says what is wrong.
    """
    if isinstance(kind, tuple):
        (inner,) = map(fits, kind)
        return lambda value: value is None or inner(value)
    if isinstance(kind, list) and kind[0] in (int, float, str):
        return partial(_are_all, kind[0])
    if isinstance(kind, list):
        (inner,) = map(fits, kind)
        return lambda value: type(value) is list and all(map(inner, value))
    if isinstance(kind, dict) and str in kind:
        inner = fits(kind[str])
        return lambda value: type(value) is dict and all(map(inner, value.values()))
    if isinstance(kind, dict):
        fields = [(n.rstrip("?"), n.endswith("?"), fits(k)) for n, k in kind.items()]

        def has_fields(value: Any) -> bool:
            if type(value) is not dict:
                return False
            for name, optional, right in fields:
                if name in value:
                    if not right(value[name]):
                        return False
                elif not optional:
                    return False
            return True

        return has_fields
    if kind is float:
        return _is_number
    if kind is int:
        return _is_integer
    return lambda value: type(value) is kind


def _are_all(kind: type, value: Any) -> bool:
    """Whether that is a list of such values, asked of all of them together."""
    if type(value) is not list:
        return False
    if not value:
        return True
    kinds = {int, float} if kind is float else {kind}
    if not kinds.issuperset(map(type, value)):
        return False
    if kind is str:
        return True
    most = LARGEST if kind is float else LARGEST_INTEGER
    # Beside nan the least and the largest say nothing, but the sum is nan.
    return -most <= min(value) and max(value) <= most and sum(value) == sum(value)


# Records

IDENTITY = {
    "experiment": str,
    "benchmark": str,
    "method": str,
    "variant": {"reward?": str, "gradient_steps?": int},
    "seed": int,
    "idx": int,
    "prompt": str,
    "status": str,
    "fingerprint": str,
    "commit?": str,
    "versions?": {str: str},
}
ERRORS = {
    "steps": [{"step": int, "E": float, "entropy": float, "n": int}],
    "histogram": {"entropy_edges": [float], "error_edges": [float], "counts": [[int]]},
    "log_vocabulary": float,
}
WRITTEN = {"words": [[str]], "steps": [[int]]}
"""Of each answer its tokens, as a person sees them, and the denoising step that wrote each."""
GUIDANCE = {"steps": int, "step_size": float}
SETTINGS = {
    "trajectories": int,
    "new_tokens": int,
    "denoising_steps": int,
    "temperature": float,
    "top_p": float,
    "order": str,
    "guidance": GUIDANCE,
}
ANSWERS = {
    "responses": [str],
    "rewards": [float],
    "gold?": [float],
    "errors?": (ERRORS,),
    "written?": (WRITTEN,),
    "reason?": (str,),
    "settings?": {
        **SETTINGS,
        "reward": str,
        "options?": {"beta?": float, "candidates?": int},
        "own_weight?": {str: str},
    },
}
JUDGEMENT = {
    "response": str,
    "scores": [float],
    "score": (float,),
    "without_digit": int,
    "reason?": (str,),
}


_is_answer, _is_judgement = fits(IDENTITY | ANSWERS), fits(IDENTITY | JUDGEMENT)


def require_answers(record: Record) -> None:
    """Raise `ValueError` unless a line is the record of a prompt's answers."""
    if not _is_answer(record):
        require_fields(record, IDENTITY | ANSWERS)
    _require_status(record)
    responses, rewards = record["responses"], record["rewards"]
    if len(rewards) != len(responses) or (record["status"] == "ok" and not rewards):
        raise ValueError(f"it has {len(responses)} responses and {len(rewards)} rewards")
    gold: Any = record.get("gold", rewards)
    if len(gold) != len(rewards):
        raise ValueError(f"it has {len(gold)} gold scores and {len(rewards)} rewards")
    if record.get("errors") is not None:
        _require_counts(record["errors"])
        histogram = record["errors"]["histogram"]
        shape = [len(histogram[edges]) - 1 for edges in ("entropy_edges", "error_edges")]
        if [len(row) for row in histogram["counts"]] != [shape[1]] * shape[0]:
            raise ValueError("its errors.histogram.counts do not fit the edges")
    _require_observed(record)
    if record.get("written") is not None:
        _require_written(record["written"], len(responses))


def _require_observed(record: Record) -> None:
    """Raise `ValueError` unless a record has errors where its experiment observes them, and only
    there.
    """
    experiment = EXPERIMENTS.get(record["experiment"])
    if experiment is None:
        return
    seen, expected = record.get("errors") is not None, experiment.observed
    if expected and not seen and record["status"] == "ok":
        raise ValueError(f"it has no errors, which {experiment.name} observes")
    if seen and not expected:
        raise ValueError(f"it has errors, which {experiment.name} does not observe")


def _require_counts(errors: Mapping[str, Any]) -> None:
    """Raise `ValueError` for numbers that an observer cannot have seen."""
    for step in errors["steps"]:
        if not (0 <= step["step"] < MOST_STEPS and step["n"] > 0):
            raise ValueError(f"its errors.steps have {step!r:.80}, expected an index and n above 0")
        if step["E"] < 0:
            raise ValueError(f"its errors.steps have {step!r:.80}, expected an E from 0 on")
    edges = errors["histogram"]["entropy_edges"], errors["histogram"]["error_edges"]
    if any(len(one) < 2 for one in edges):
        raise ValueError("its errors.histogram has no bin, expected two edges or more")
    if any(one != sorted(one) for one in edges):
        raise ValueError("its errors.histogram has edges that fall")
    if any(count < 0 for row in errors["histogram"]["counts"] for count in row):
        raise ValueError("its errors.histogram.counts hold a negative number")
    if errors["log_vocabulary"] <= 0:
        raise ValueError(
            f"its errors.log_vocabulary is {errors['log_vocabulary']!r}, expected more than 0"
        )


MOST_STEPS = 2**16


def _require_written(written: Mapping[str, Any], answers: int) -> None:
    """Raise `ValueError` unless each answer has as many steps as words."""
    words, steps = ([len(answer) for answer in written[name]] for name in ("words", "steps"))
    if words != steps or len(words) != answers:
        raise ValueError(
            f"its written.words are of {len(words)} answers and its written.steps of {len(steps)}, "
            f"expected {answers} with as many steps as words"
        )
    if any(min(answer, default=0) < 0 for answer in written["steps"]):
        raise ValueError("its written.steps hold a negative number, expected indices from 0")
    if any(max(answer, default=0) >= MOST_STEPS for answer in written["steps"]):
        raise ValueError(f"its written.steps hold an index that is not below {MOST_STEPS}")


def require_judgement(record: Record) -> None:
    """Raise `ValueError` unless a line is the record of a judgement."""
    if not _is_judgement(record):
        require_fields(record, IDENTITY | JUDGEMENT)
    _require_status(record)
    if record["status"] == "ok":
        _require_scores(record["scores"], record["score"], record["without_digit"])
    elif record["score"] is not None:
        raise ValueError(f"its score is {record['score']!r}, expected none of what has failed")
    elif record["without_digit"] < 0:
        raise ValueError(f"its without_digit is {record['without_digit']}, expected 0 or more")


ROUNDING = 1e-9
"""By how much a mean of weights may be off, of which the last digit depends on the order."""


def _require_scores(scores: list[float], score: float | None, without_digit: int) -> None:
    """Raise `ValueError` for what no judge can have said."""
    if score is None:
        raise ValueError("its score is None, expected a number")
    if not scores:
        raise ValueError("its scores are none, expected one for each unit test")
    for one in scores:
        if not 1 - ROUNDING <= one <= 5 + ROUNDING:
            raise ValueError(f"its scores hold {one!r}, expected numbers from 1 to 5")
    mean = sum(scores) / len(scores)
    if abs(score - mean) > ROUNDING:
        raise ValueError(f"its score is {score!r}, expected the mean of its scores, {mean!r}")
    if not 0 <= without_digit <= len(scores):
        raise ValueError(
            f"its without_digit is {without_digit}, expected one from 0 to {len(scores)}, as many "
            "as scores"
        )


NAMES = ("experiment", "benchmark", "method")


def _require_status(record: Record) -> None:
    if record["status"] not in ("ok", "failed"):
        raise ValueError(f"its status is {record['status']!r:.40}, expected 'ok' or 'failed'")
    if record["idx"] < 0:
        raise ValueError(f"its idx is {record['idx']}, expected 0 or more")
    require_names(record, NAMES)
    require_names(record.get("settings", {}), ("reward",))
    _require_variant(record["variant"], "variant")


def _require_variant(variant: Mapping[str, Any], of: str) -> None:
    """Raise `ValueError` unless all that a variant says is a text or an integer."""
    require_names(variant, ("reward",))
    for name, value in variant.items():
        if not (isinstance(value, str) or _is_integer(value)):
            raise ValueError(f"its {of}.{name} is {value!r:.40}, expected a text or an integer")


# Declarations

NAMED = {"name": str, "commit?": str}
OWN_WEIGHTS = {str: {"module": str, "function": str, "source": str}}
EXPERIMENT = {
    "experiment": str,
    "testbed": str,
    "settings": {"guidance": dict},
    "rewards": {str: {**NAMED, "parts?": [{**NAMED, "weight": float}]}},
    "main_reward": str,
    "benchmarks": {str: str},
    "asked?": [
        {
            "methods": [str],
            "own_weights?": OWN_WEIGHTS,
            "variants": [IDENTITY["variant"]],
            "seeds": [int],
            "prompts": {str: int},
        },
    ],
    "made_with?": [{str: str}],
}
DREAM = {"denoiser": NAMED, "dtype": str, "quantize?": {str: str}, "unmatched?": str}
"""Of a run on Dream, beside those of `EXPERIMENT`."""
JUDGE = {
    "run": str,
    "backend": str,
    "model": NAMED,
    "unit_tests": [str],
    "asked?": [{"own_weights?": OWN_WEIGHTS}],
    "made_with?": [{str: str}],
}


MOST_CELLS = 2**20
"""Of a run, each method with each variant and seed on each benchmark."""


def require_experiment(declaration: Mapping[str, Any]) -> None:
    """Raise `ValueError` unless it declares the run of an experiment."""
    require_fields(declaration, EXPERIMENT)
    _require_asked(declaration.get("asked", []))
    require_names(declaration, ("experiment", "main_reward", "rewards", "benchmarks"))
    if len(declaration["benchmarks"]) > benchmarks.MOST:
        count = len(declaration["benchmarks"])
        raise ValueError(f"it has {count} benchmarks, expected at most {benchmarks.MOST}")
    if declaration["testbed"] == "dream":
        require_fields(declaration, DREAM)
    if declaration["main_reward"] not in declaration["rewards"]:
        raise ValueError(f"its main_reward is {declaration['main_reward']!r:.40}, none of them")


def require_said(declaration: Mapping[str, Any]) -> None:
    """Raise `ValueError` unless what stands beside a declaration can be read: what has been asked
    for, and by which code.
    """
    of = EXPERIMENT if "benchmarks" in declaration else JUDGE
    require_fields(declaration, {name: of[name] for name in ("asked?", "made_with?")})
    if "benchmarks" in declaration:
        _require_asked(declaration.get("asked", []))


def _require_asked(asked: Sequence[Mapping[str, Any]]) -> None:
    """Raise `ValueError` unless the cells that have been asked for can be looked for one by one."""
    lists = ("methods", "variants", "seeds", "prompts")
    cells = sum(math.prod(len(one[name]) for name in lists) for one in asked)
    if cells > MOST_CELLS:
        raise ValueError(f"its asked has {cells} cells, expected at most {MOST_CELLS}")
    for i, one in enumerate(asked):
        for j, variant in enumerate(one["variants"]):
            _require_variant(variant, f"asked[{i}].variants[{j}]")
        for name, count in one["prompts"].items():
            if count < 1:
                raise ValueError(f"its asked[{i}].prompts.{name} is {count}, expected 1 or more")


CAPTIONED = {"settings": {**SETTINGS, "guidance": {**GUIDANCE, "optimiser": str}}}
"""What a report says of a run, beside the fields of `EXPERIMENT`."""


def require_captioned(declaration: Mapping[str, Any]) -> None:
    """Raise `ValueError` unless a report can say with which settings an experiment has run."""
    require_fields(declaration, CAPTIONED)
    if not declaration["benchmarks"]:
        raise ValueError("it has no benchmarks")
    denoiser = declaration.get("denoiser")
    if not isinstance(denoiser, str):
        require_fields(declaration, {"denoiser": {"name": str}})


Cell = tuple[str, str, str, int]
"""Benchmark, method, variant and seed, as in a `Key`."""


def dumped(variant: Mapping[str, Any]) -> str:
    """The JSON of a variant, the same object each time: there are few of them and many records."""
    as_written = repr(variant)
    if as_written not in _DUMPED:
        _DUMPED[as_written] = json.dumps(variant, sort_keys=True)
    return _DUMPED[as_written]


_DUMPED: dict[str, str] = {}


def asked_of(declaration: Mapping[str, Any]) -> dict[Cell, int]:
    """Cell -> how many prompts a run has been asked for, at most."""
    found: dict[Cell, int] = {}
    for one in declaration.get("asked", []):
        sides = product(one["prompts"].items(), one["methods"], one["variants"], one["seeds"])
        for (benchmark, count), method, variant, seed in sides:
            cell = benchmark, method, dumped(variant), seed
            found[cell] = max(count, found.get(cell, 0))
    return found


@dataclass(frozen=True)
class AskedFor:
    """What a run has been asked for. It is only ever asked for more, and its run.json is written
    before its records.
    """

    benchmarks: frozenset[str] | None
    """None where it does not say which it has."""
    cells: Mapping[Cell, int]

    @cached_property
    def said(self) -> dict[str, tuple[set[str], int]]:
        """Benchmark -> the methods, and the most prompts, that it was asked for; of others anything
        may have been.
        """
        found: dict[str, tuple[set[str], int]] = {}
        for (benchmark, method, _, _), count in self.cells.items():
            methods, most = found.get(benchmark, (set(), 0))
            found[benchmark] = methods | {method}, max(most, count)
        return found

    @classmethod
    def of(cls, declaration: Mapping[str, Any]) -> AskedFor:
        """`ValueError` if a run can never have been asked for that."""
        try:
            fields = {name: EXPERIMENT[name] for name in ("benchmarks", "asked?")}
            require_fields(declaration, fields)
        except ValueError:
            return cls(None, {})  # who reads it as that of an experiment says what is wrong with it
        _require_asked(declaration.get("asked", []))
        return cls(frozenset(declaration["benchmarks"]), asked_of(declaration))


def require_asked_for(asked: AskedFor, record: Record) -> None:
    """Raise `OtherRunError` if a record is of a benchmark that its run does not have, or of a
    method or a prompt that nobody has asked for. Seeds and variants may have been added by hand:
    its settings say whether it is of them.
    """
    benchmark, idx = record["benchmark"], record["idx"]
    if asked.benchmarks is not None and benchmark not in asked.benchmarks:
        raise OtherRunError(f"its benchmark is {benchmark!r:.40}, none of the run's")
    if benchmark not in asked.said:
        return
    methods, count = asked.said[benchmark]
    if record["method"] not in methods:
        raise OtherRunError(f"its method is {record['method']!r:.40}, none that was asked for")
    if idx >= count:
        raise OtherRunError(f"its idx is {idx}, expected one below {count}: as many were asked for")


def require_prompt(prompt: str | None, record: Record) -> None:
    """Raise `OtherPromptError` unless a record is of a prompt of its benchmark; of None nobody
    knows.
    """
    if prompt is not None and record["prompt"] != prompt:
        raise OtherPromptError(
            f"its prompt is {record['prompt']!r:.60}, expected {prompt!r:.60}, which its benchmark "
            "has there"
        )


UNVARIED = (
    *("new_tokens", "denoising_steps", "temperature", "top_p", "order", "order_temperature"),
    *("eos_last", "write_every_id", "skip_empty_steps"),
)
"""Settings that all methods and variants of a run share."""


def require_own(declaration: Mapping[str, Any], record: Record) -> None:
    """Raise `ValueError` unless a record is of what a run declares: it may have been edited."""
    if record["experiment"] != declaration["experiment"]:
        raise ValueError(f"it is of the experiment {record['experiment']!r:.40}")
    if record["variant"].get("gradient_steps", 0) < 0:
        raise ValueError(f"its variant is {record['variant']!r:.60}, expected steps from 0 on")
    settings, shared = record.get("settings", {}), declaration["settings"]
    for name in UNVARIED:
        if name in settings and name in shared and settings[name] != shared[name]:
            raise ValueError(
                f"its {name} is {settings[name]!r:.40}, but that of the run {shared[name]!r:.40}"
            )
    reward = record["variant"].get("reward", declaration["main_reward"])
    if reward not in declaration["rewards"]:
        raise ValueError(f"its reward model is {reward!r:.40}, none of the run's")
    if settings:
        _require_of_cell(shared, record, settings, reward)


UNGUIDED = ("bon", "bon_equal_compute", "smc", "self_smc", "lookahead")
"""Methods without a gradient step. All but the first answer as often as the compute of EntRGi
allows.
"""

OF_GUIDANCE = ("optimiser", "dtype")
"""What the guided methods of a run share."""


def _require_of_cell(
    shared: Mapping[str, Any], record: Record, settings: Mapping[str, Any], reward: str
) -> None:
    """Raise `ValueError` unless the settings of a record are those of its cell in a run with the
    settings `shared`.
    """
    method, variant = record["method"], record["variant"]
    guidance, theirs = settings.get("guidance", {}), shared["guidance"]
    steps = 0 if method in UNGUIDED else variant.get("gradient_steps", theirs.get("steps"))
    if "steps" in guidance and steps is not None and guidance["steps"] != steps:
        raise ValueError(f"its guidance.steps is {guidance['steps']!r}, expected {steps}")
    _require_of_method(method, theirs, settings)
    for name in ("step_size",) if method in UNGUIDED else ("step_size", *OF_GUIDANCE):
        if name in guidance and guidance[name] != theirs.get(name, guidance[name]):
            got, expected = guidance[name], theirs[name]
            raise ValueError(f"its guidance.{name} is {got!r:.40}, expected {expected!r}")
    K = settings.get("trajectories")
    if method not in UNGUIDED[1:] and shared.get("trajectories", K) != K:
        raise ValueError(f"its trajectories is {K!r}, expected {shared['trajectories']!r}")
    if record["status"] == "ok" and len(record["responses"]) != K and K is not None:
        raise ValueError(f"it has {len(record['responses'])} responses, expected {K}")
    if settings.get("seed", record["seed"]) != record["seed"]:
        raise ValueError(
            f"its settings.seed is {settings['seed']!r:.40}, expected {record['seed']}"
        )
    if settings.get("reward", reward) != reward:
        raise ValueError(f"its settings.reward is {settings['reward']!r:.40}, expected {reward!r}")


def _require_of_method(method: str, shared: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise `ValueError` unless settings are those of a method: a weight goes by its name, and the
    others have that of the run. `shared` is the guidance of the run.
    """
    ours = "entrgi" if method == "damped" else method
    weight = settings.get("guidance", {}).get("weight", ours)
    expected = shared.get("weight", weight) if method in UNGUIDED else ours
    if weight != expected:
        raise ValueError(f"its guidance.weight is {weight!r:.40}, expected {expected!r:.40}")
    if method == "damped" and "options" not in settings:  # without them it is entrgi's
        raise ValueError(f"it has no settings.options, with which {method} answers")


def require_judge(declaration: Mapping[str, Any]) -> None:
    """Raise `ValueError` unless it declares the judging of a run."""
    require_fields(declaration, JUDGE)
