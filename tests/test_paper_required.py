"""What a record and a declaration must hold, field by field."""

import copy
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrgi_ref.paper.declared.methods import SAMPLED
from entrgi_ref.paper.run import required
from entrgi_ref.paper.run.required import ANSWERS, IDENTITY, fits, require, require_fields
from properties import tried

RECORD = {
    "experiment": "error-by-step",
    "benchmark": "rm-bench",
    "method": "entrgi",
    "variant": {"reward": "1.7B", "gradient_steps": 3},
    "seed": 0,
    "idx": 4,
    "prompt": "Why?",
    "status": "ok",
    "fingerprint": "abc",
    "commit": "0123",
    "versions": {"torch": "2.13.0"},
    "responses": ["So.", "Thus."],
    "rewards": [0.5, -1],
    "gold": [0.25, 0],
    "errors": {
        "steps": [{"step": 0, "E": 0.0, "entropy": 0.5, "n": 1}],
        "histogram": {
            "entropy_edges": [0.0, 0.5, 1.0],
            "error_edges": [0.0, 1.0],
            "counts": [[0], [3]],
        },
        "log_vocabulary": 11.9,
    },
    "written": {"words": [["So", "."], ["Thus", "."]], "steps": [[0, 1], [2**16 - 1, 0]]},
    "reason": None,
    "settings": {
        "trajectories": 2,
        "new_tokens": 2,
        "denoising_steps": 2,
        "temperature": 0.7,
        "top_p": 1,
        "order": "entropy",
        "guidance": {"steps": 3, "step_size": 0.5},
        "reward": "1.7B",
        "options": {"beta": 1.0, "candidates": 8},
        "own_weight": {"name": "half"},
    },
}
JUDGEMENT = {name: RECORD[name] for name in list(RECORD)[:9]} | {
    "response": "So.",
    "scores": [1.0, 3.0],
    "score": 2.0,
    "without_digit": 0,
}
DECLARATION = {
    "experiment": "main",
    "testbed": "dream",
    "settings": RECORD["settings"],
    "rewards": {"1.7B": {"name": "a/b", "commit": "0"}, "sum": {"name": "c", "parts": []}},
    "main_reward": "1.7B",
    "benchmarks": {"rm-bench": "0123"},
    "asked": [
        {"methods": ["aps"], "variants": [{}], "seeds": [0], "prompts": {"rm-bench": 1}},
    ],
    "denoiser": {"name": "d"},
    "dtype": "bfloat16",
}


def changed(content, path, value):
    """`value` is put where the path leads; `...` takes the field away."""
    content = copy.deepcopy(content)
    *to, last = path.split(".")
    inner = content
    for name in to:
        inner = inner[int(name) if isinstance(inner, list) else name]
    if value is ...:
        del inner[last]
    else:
        inner[int(last) if isinstance(inner, list) else last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("seed", 1.0, "its seed is 1.0, expected an integer"),
        ("seed", True, "its seed is True, expected an integer"),
        ("seed", 2**63, f"its seed is {2**63}, expected an integer"),
        ("seed", ..., "it has no seed"),
        ("idx", -1, "its idx is -1, expected 0 or more"),
        ("prompt", 3, "its prompt is 3, expected a text"),
        ("method", "a/b", "its method is 'a/b', expected a name without / and control characters"),
        ("benchmark", "", "its benchmark is '', expected a name without"),
        ("variant", [], "its variant is [], expected an object"),
        ("variant.reward", "a\n", "its reward is 'a\\n', expected a name without"),
        ("variant.more", 0.5, "its variant.more is 0.5, expected a text or an integer"),
        ("variant.gradient_steps", "3", "its variant.gradient_steps is '3', expected an integer"),
        ("settings.reward", "a/b", "its reward is 'a/b', expected a name without"),
        ("status", "good", "its status is 'good', expected 'ok' or 'failed'"),
        ("versions.torch", 2, "its versions.torch is 2, expected a text"),
        ("rewards", [0.5], "it has 2 responses and 1 rewards"),
        ("rewards", {}, "its rewards is {}, expected a list"),
        ("rewards.1", math.nan, "its rewards[1] is nan, expected a number"),
        ("rewards.1", math.inf, "its rewards[1] is inf, expected a number"),
        ("rewards.0", 2e100, "its rewards[0] is 2e+100, expected a number"),
        ("rewards.0", False, "its rewards[0] is False, expected a number"),
        ("gold", [1], "it has 1 gold scores and 2 rewards"),
        ("gold", [1, 0, 2], "it has 3 gold scores and 2 rewards"),
        ("errors.steps.0.step", -1, "its errors.steps have"),
        ("errors.steps.0.step", 2**16, "its errors.steps have"),
        ("errors.steps.0.n", 0, "expected an index and n above 0"),
        ("errors.steps.0.E", -1e-9, "expected an E from 0 on"),
        ("errors.steps.0.entropy", None, "its errors.steps[0].entropy is None, expected a number"),
        (
            "errors.histogram.entropy_edges",
            [0.0, 1.0, 0.5],
            "its errors.histogram has edges that fall",
        ),
        ("errors.histogram.error_edges", [1.0, 0.0], "its errors.histogram has edges that fall"),
        (
            "errors.histogram.counts.1.0",
            -1,
            "its errors.histogram.counts hold a negative number",
        ),
        ("errors.histogram.counts", [[0]], "its errors.histogram.counts do not fit the edges"),
        (
            "errors.histogram.counts",
            [[0], [3, 1]],
            "its errors.histogram.counts do not fit the edges",
        ),
        (
            "errors.log_vocabulary",
            0,
            "its errors.log_vocabulary is 0, expected more than 0",
        ),
        (
            "written.words",
            [["So"], ["Thus", "."]],
            "its written.words are of 2 answers and its written.steps of 2, expected 2",
        ),
        ("written.steps", [[0, 1]], "its written.words are of 2 answers and its written.steps"),
        ("written.steps.1.1", -1, "its written.steps hold a negative number"),
        ("written.steps.1.1", 2**16, f"its written.steps hold an index that is not below {2**16}"),
        ("settings.guidance", 1, "its settings.guidance is 1, expected an object"),
        ("settings.guidance.steps", ..., "it has no settings.guidance.steps"),
        ("settings.options.candidates", 8.5, "its settings.options.candidates is 8.5, expected an"),
        ("settings.own_weight.name", None, "its settings.own_weight.name is None, expected a text"),
    ],
)
def test_what_is_refused_in_a_record(path, value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        required.require_answers(changed(RECORD, path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 2**63 - 1),
        ("seed", -(2**63) + 1),
        ("rewards.0", 1e100),
        ("rewards.0", -1e100),
        ("errors.steps.0.step", 2**16 - 1),
        ("errors.histogram.entropy_edges", [0.0, 0.0, 1.0]),
        ("errors.log_vocabulary", 1e-9),
        ("variant.more", "text"),
        *((name, None) for name in ("written", "reason")),
        *((name, ...) for name in ("written", "reason", "gold", "settings", "commit")),
        *((f"variant.{name}", ...) for name in ("reward", "gradient_steps")),
        *((f"settings.{name}", ...) for name in ("options", "own_weight")),
        ("unknown", object()),
    ],
)
def test_what_is_taken_in_a_record(path, value):
    required.require_answers(changed(RECORD, path, value))


@pytest.mark.parametrize("value", [None, ...])
def test_errors_are_there_where_the_experiment_observes_them_and_nowhere_else(value):
    without = changed(RECORD, "errors", value)
    with pytest.raises(ValueError, match="it has no errors, which error-by-step observes"):
        required.require_answers(without | {"experiment": "error-by-step"})
    required.require_answers(without | {"experiment": "main"})
    required.require_answers(without | {"experiment": "of another program"})
    with pytest.raises(ValueError, match="it has errors, which main does not observe"):
        required.require_answers(RECORD | {"experiment": "main"})


def test_a_failed_prompt_has_no_answers():
    failed = {**RECORD, "status": "failed", "reason": "too long"}
    for name in ("responses", "rewards", "gold"):
        failed[name] = []
    for name in ("errors", "written"):
        del failed[name]
    required.require_answers(failed)
    with pytest.raises(ValueError, match="it has 0 responses and 0 rewards"):
        required.require_answers({**failed, "status": "ok"})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("score", None, "its score is None, expected a number"),
        ("score", "1", "its score is '1', expected a number"),
        ("score", ..., "it has no score"),
        ("scores.0", None, "its scores[0] is None, expected a number"),
        ("without_digit", 0.5, "its without_digit is 0.5, expected an integer"),
        ("without_digit", -1, "its without_digit is -1, expected one from 0 to 2, as many as scor"),
        ("without_digit", 3, "its without_digit is 3, expected one from 0 to 2"),
        ("scores", [], "its scores are none, expected one for each unit test"),
        ("scores.1", 5.01, "its scores hold 5.01, expected numbers from 1 to 5"),
        ("scores.0", 0, "its scores hold 0, expected numbers from 1 to 5"),
        ("score", 2.001, "its score is 2.001, expected the mean of its scores, 2.0"),
        ("score", 1.999, "its score is 1.999, expected the mean of its scores, 2.0"),
        ("status", "", "its status is '', expected"),
    ],
)
def test_what_is_refused_in_a_judgement(path, value, message):
    required.require_judgement(JUDGEMENT)
    required.require_judgement({**JUDGEMENT, "score": 2.0 + 1e-12, "without_digit": 2})
    rounded = {"scores": [5.000000000000001], "score": 5.000000000000001}
    required.require_judgement({**JUDGEMENT, **rounded})
    failed = {**JUDGEMENT, "score": None, "scores": [], "status": "failed", "without_digit": 5}
    required.require_judgement(failed)  # what was asked before it failed is counted
    with pytest.raises(ValueError, match=r"^its score is 2\.0, expected none of what has failed$"):
        required.require_judgement({**failed, "score": 2.0})
    with pytest.raises(ValueError, match=r"^its without_digit is -1, expected 0 or more$"):
        required.require_judgement({**failed, "without_digit": -1})
    with pytest.raises(ValueError, match=re.escape(message)):
        required.require_judgement(changed(JUDGEMENT, path, value))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("experiment", "a/b", "its experiment is 'a/b', expected a name"),
        ("benchmarks", {"a/b": "0"}, "its benchmarks is 'a/b', expected a name"),
        ("benchmarks.rm-bench", 1, "its benchmarks.rm-bench is 1, expected a text"),
        ("rewards", {"a\x00": {"name": "c"}}, "its rewards is 'a\\x00', expected a name"),
        ("rewards.sum.parts", [{"name": "d"}], "it has no rewards.sum.parts[0].weight"),
        ("main_reward", "4B", "its main_reward is '4B', none of them"),
        ("denoiser", ..., "it has no denoiser"),
        ("denoiser.name", 1, "its denoiser.name is 1, expected a text"),
        ("dtype", ..., "it has no dtype"),
        ("quantize", {"reward": 8}, "its quantize.reward is 8, expected a text"),
        ("asked.0.prompts", {"rm-bench": 0}, "its asked[0].prompts.rm-bench is 0, expected 1 or"),
        ("asked.0.seeds", [0.5], "its asked[0].seeds[0] is 0.5, expected an integer"),
        ("asked.0.variants", ["x"], "its asked[0].variants[0] is 'x', expected an object"),
        ("asked.0.variants", [{"reward": ["x"]}], "its asked[0].variants[0].reward is ['x'], exp"),
        ("asked.0.variants", [{"reward": "a/b"}], "its reward is 'a/b', expected a name"),
        ("asked.0.variants", [{"more": []}], "its asked[0].variants[0].more is [], expected a te"),
        ("asked.0.methods", ["aps"] * 2**21, "its asked has 2097152 cells, expected at most 1048"),
        ("settings", {}, "it has no settings.guidance"),
    ],
    ids=lambda value: f"{value!r:.60}",
)
def test_what_is_refused_in_a_declaration(path, value, message):
    required.require_experiment(DECLARATION)
    with pytest.raises(ValueError, match=re.escape(message)):
        required.require_experiment(changed(DECLARATION, path, value))


def test_what_was_asked_for_is_counted_over_all_requests():
    """Each cell is looked for in the records."""
    one = {"methods": ["aps"] * 2**8, "variants": [{}] * 2**6, "seeds": [0] * 2**5}
    asked = {**one, "prompts": {"rm-bench": 1, "own": 1}}
    right = {**DECLARATION, "asked": [asked]}
    required.require_experiment(right)
    with pytest.raises(ValueError, match=r"^its asked has 2097152 cells, expected at most 1048576"):
        required.require_experiment({**right, "asked": [asked] * 2})


def test_of_the_toy_a_declaration_names_no_networks():
    toy = {**DECLARATION, "testbed": "toy"}
    del toy["denoiser"], toy["dtype"]
    required.require_experiment(toy)


def test_what_a_caption_needs():
    guidance = {"steps": 3, "step_size": 0.5, "optimiser": "adam"}
    right = changed(DECLARATION, "settings.guidance", guidance)
    required.require_captioned(right)
    required.require_captioned({**right, "denoiser": "the toy's"})
    for path, value, message in [
        ("settings.guidance.optimiser", ..., "it has no settings.guidance.optimiser"),
        ("benchmarks", {}, "it has no benchmarks"),
        ("denoiser", ..., "it has no denoiser"),
        ("denoiser", {}, "it has no denoiser.name"),
    ]:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            required.require_captioned(changed(right, path, value))


def test_a_record_is_of_its_run():
    own = {**RECORD, "experiment": "main"}
    required.require_own(DECLARATION, own)
    required.require_own(DECLARATION, {**own, "variant": {}})
    del own["settings"]  # as in records of earlier versions
    required.require_own(DECLARATION, {**own, "variant": {"gradient_steps": 0}})
    shared = {**DECLARATION, "settings": {"temperature": 0.7, "guidance": {}}}
    required.require_own(shared, {**own, "settings": {"temperature": 0.7}})
    with pytest.raises(ValueError, match=r"^its temperature is 0\.1, but that of the run 0\.7$"):
        required.require_own(shared, {**own, "settings": {"temperature": 0.1}})
    for change, message in [
        ({"experiment": "size"}, "it is of the experiment 'size'"),
        ({"variant": {"gradient_steps": -1}}, "expected steps from 0 on"),
        ({"variant": {"reward": "4B"}}, "its reward model is '4B', none of the run's"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            required.require_own(DECLARATION, own | change)


@pytest.mark.parametrize(
    "name",
    [
        *("new_tokens", "denoising_steps", "temperature", "top_p", "order", "order_temperature"),
        *("eos_last", "write_every_id", "skip_empty_steps"),
    ],
)
def test_a_setting_that_all_share_is_the_runs(name):
    own = {**RECORD, "experiment": "main", "settings": {**RECORD["settings"], name: "mine"}}
    shared = {**DECLARATION, "settings": {**RECORD["settings"], name: "theirs"}}
    with pytest.raises(ValueError, match=f"^its {name} is 'mine', but that of the run 'theirs'$"):
        required.require_own(shared, own)


@pytest.mark.parametrize(
    ("method", "path", "value", "message"),
    [
        ("entrgi", "guidance.steps", 2, "its guidance.steps is 2, expected 3"),
        ("bon", "guidance.steps", 3, "its guidance.steps is 3, expected 0"),
        ("self_smc", "guidance.steps", 1, "its guidance.steps is 1, expected 0"),
        ("half", "guidance.step_size", 0.4, "its guidance.step_size is 0.4, expected 0.5"),
        ("damped", "trajectories", 3, "its trajectories is 3, expected 2"),
        ("bon", "trajectories", 3, "its trajectories is 3, expected 2"),
        ("bon_equal_compute", "trajectories", 3, "it has 2 responses, expected 3"),
        ("aps", "seed", 1, "its settings.seed is 1, expected 0"),
        ("aps", "guidance.weight", "entrgi", "its guidance.weight is 'entrgi', expected 'aps'"),
        ("damped", "guidance.weight", "x", "its guidance.weight is 'x', expected 'entrgi'"),
        ("half", "guidance.weight", "aps", "its guidance.weight is 'aps', expected 'half'"),
        ("damped", "options", ..., "it has no settings.options, with which damped answers"),
        ("aps", "reward", "sum", "its settings.reward is 'sum', expected '1.7B'"),
    ],
)
def test_the_settings_of_a_record_are_those_of_its_cell(method, path, value, message):
    """Of methods with the compute of EntRGi nobody knows here how often they answer."""
    equal = method in required.UNGUIDED
    own = {**RECORD, "experiment": "main", "method": method, "variant": {}}
    own = changed(own, "settings.guidance.steps", 0 if equal else 3)
    own["settings"] |= {"seed": 0}
    required.require_own(DECLARATION, own)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        required.require_own(DECLARATION, changed(own, f"settings.{path}", value))
    failed = {**own, "status": "failed", "responses": []}
    required.require_own(DECLARATION, failed)


def test_the_gradient_steps_of_a_record_are_those_of_its_variant():
    own = {**RECORD, "experiment": "main", "variant": {"gradient_steps": 8}}
    with pytest.raises(ValueError, match=r"^its guidance\.steps is 3, expected 8$"):
        required.require_own(DECLARATION, own)
    required.require_own(DECLARATION, changed(own, "settings.guidance.steps", 8))


def test_a_judge_is_declared():
    judge = {"run": "a", "backend": "b", "model": {"name": "c"}, "unit_tests": ["d"]}
    required.require_judge(judge)
    with pytest.raises(ValueError, match=r"^its unit_tests\[0\] is 1, expected a text$"):
        required.require_judge({**judge, "unit_tests": [1]})


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3)
    ),
    max_leaves=6,
)
KINDS = (
    *(str, int, float, bool, (int,), (str,), [int], [[float]], {str: int}, ([str],)),
    *({"a": int}, {"a?": int}, {"a": {"b?": str}}, [{"a": float}], {"a?": (int,), "b": [str]}),
)


def not_refused(kind, value):
    try:
        require(value, kind, "value")
    except ValueError:
        return False
    return True


@tried(100)
@given(kind=st.sampled_from(KINDS), value=VALUES)
def test_what_fits_is_what_is_not_refused(kind, value):
    """A quick question and a slow one with a reason have one answer."""
    assert fits(kind)(value) == not_refused(kind, value)


NUMBERS = [math.nan, math.inf, -1e101, 1e100, 10**400, -(2**63), 2**63 - 1, True, "1", None, 0.5]


@pytest.mark.parametrize("kind", [[float], [int], [str], [bool]])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("odd", NUMBERS)
def test_one_odd_value_in_a_list_is_seen_wherever_it_stands(kind, place, odd):
    """All of a list are asked together, and beside nan nothing is the largest."""
    value = [kind[0](1), kind[0](0)]
    value.insert(place, odd)
    assert fits(kind)(value) == not_refused(kind, value)


def test_a_record_fits():
    assert fits(IDENTITY | ANSWERS)(RECORD)
    require_fields(RECORD, IDENTITY | ANSWERS)


def test_methods_without_a_gradient_step_are_those_that_have_none():
    assert {*required.UNGUIDED} == {"bon", "bon_equal_compute", *SAMPLED}
