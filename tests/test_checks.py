"""What is refused, to the last number that is taken and the first that is not."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, Optional, Protocol

import numpy as np
import pytest
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from entrgi_ref import checks

pytestmark = pytest.mark.usefixtures("as_users_run_it")


def refused(message, check, *given, **named):
    """A check raises an error of exactly these words."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check(*given, **named)


def test_integers():
    for taken in (3, np.int64(3), np.uint8(3), 2**63 - 1):
        found = checks.integer("n", taken, minimum=3)
        assert (found, type(found)) == (taken, int)
    for wrong in (2, -(2**63), True, 3.0, "3", None):
        message = f"n: got {wrong!r}, expected an integer of at least 3"
        refused(message, checks.integer, "n", wrong, minimum=3)
    message = f"n: got {2**63}, expected an integer below 2^63"
    refused(message, checks.integer, "n", 2**63, minimum=3)
    assert checks.integer("n", 2**16 - 1, 0, below=2**16) == 2**16 - 1
    message = f"n: got {2**16}, expected an integer below 2^16"
    refused(message, checks.integer, "n", 2**16, 0, below=2**16)


def test_numbers():
    for taken in (1, 2.0, 0.5, np.float32(0.5), np.int64(2)):
        found = checks.number("x", taken, 0, 2)
        assert found == taken
        assert type(found) is (type(taken) if type(taken) in (int, float) else float)
    for wrong in (0, -1, math.nextafter(2, 3), math.nan, math.inf, True, False, "1", 1j, None):
        message = f"x: got {wrong!r}, expected a number in (0, 2]"
        refused(message, checks.number, "x", wrong, 0, 2)
    assert checks.number("x", 0, 0, 2, low_allowed=True) == 0
    message = "x: got -5e-324, expected a number in [0, 2]"
    refused(message, checks.number, "x", math.nextafter(0, -1), 0, 2, low_allowed=True)


@pytest.mark.parametrize(
    ("check", "name", "zero", "low", "high"),
    [
        (checks.temperature, "temperature", False, 1e-6, 1e6),
        (checks.order_temperature, "order_temperature", True, 1e-6, 1e6),
        (checks.epsilon, "epsilon", True, 1e-30, 1e-3),
    ],
)
def test_ranges(check, name, zero, low, high):
    for taken in (low, high, *((0, 0.0) if zero else ())):
        assert check(taken) == taken
    below, above = math.nextafter(low, 0), math.nextafter(high, math.inf)
    for wrong in (below, above, -low, math.nan, False, "1", *(() if zero else (0, 0.0))):
        kinds = f"{'0 or ' if zero else ''}a number in [{low:g}, {high:g}]"
        refused(f"{name}: got {wrong!r}, expected {kinds}", check, wrong)
    for taken in (np.float64(high), np.float32(0 if zero else 1e-3)):
        assert type(check(taken)) is float


def test_a_temperature_has_the_name_that_it_is_given():
    assert checks.temperature(2, "beta") == 2
    refused("beta: got 0, expected a number in [1e-06, 1e+06]", checks.temperature, 0, "beta")


def test_a_text_is_cut_only_where_it_is_longer_than_most():
    assert checks.shown("x" * 198) == f"'{'x' * 198}'"
    assert checks.shown("x" * 199) == f"'{'x' * 199} ..."
    assert checks.shown("abc", 5) == "'abc'"
    assert checks.shown(torch.tensor(2.5)) == "tensor(2.5000)"
    assert checks.shown(torch.zeros(2, 0).long()) == "torch.int64 of shape [2, 0]"


def test_one_of_several():
    checks.choice("order", "entropy", ["entropy", "margin"])
    refused(
        "order: got 'entropi', expected one of 'entropy', 'margin'; did you mean 'entropy'?",
        *(checks.choice, "order", "entropi", iter(["entropy", "margin"])),
    )
    refused(
        "order: got 'abcd', expected one of 'abcde', 'abcdf'; did you mean 'abcdf'?",
        *(checks.choice, "order", "abcd", ["abcde", "abcdf"]),
    )
    refused(
        "order: got array(['entropy', 'margin'], dtype='<U7'), expected one of 'entropy', 'margin'",
        *(checks.choice, "order", np.array(["entropy", "margin"]), ("entropy", "margin")),
    )
    message = "order: got 3, expected one of 'entropy', 'margin'"
    refused(message, checks.choice, "order", 3, ("entropy", "margin"))
    refused(message, checks.choice_or_function, "order", 3, ("entropy", "margin"))
    checks.choice_or_function("order", "margin", ["entropy", "margin"])
    checks.choice_or_function("order", print, [])
    checks.function("order", print)
    refused("order: got 3, expected a function", checks.function, "order", 3)


def test_truth_values():
    for taken in (True, False, np.bool_(True), np.bool_(False)):
        assert checks.boolean("b", taken) is bool(taken)
    for wrong in (0, 1, "True", None, torch.tensor(True)):
        refused(f"b: got {wrong!r}, expected True or False", checks.boolean, "b", wrong)


def test_shapes():
    checks.shape("x", torch.zeros(2, 3), (2, None), "[a, b]")
    checks.shape("x", torch.zeros(2, 3), (None, 3), "[a, b]")
    for size, expected, words in [
        ((2, 3), (3, None), "3, any"),
        ((2, 3), (2, 2), "2, 2"),
        ((2,), (2, None), "2, any"),
        ((2, 3), (2,), "2"),
    ]:
        message = f"x: got shape {list(size)}, expected [a, b] = [{words}]"
        refused(message, checks.shape, "x", torch.zeros(size), expected, "[a, b]")
    wrong = list(range(100))
    message = f"x: got {wrong!r:.60} ..., expected a tensor of shape [a]"
    refused(message, checks.shape, "x", wrong, (None,), "[a]")


def test_two_tokens_are_a_choice():
    checks.choices(torch.zeros(1, 2))
    message = "logits: got a vocabulary of 1, expected 2 or more: log 1 = 0"
    refused(message, checks.choices, torch.zeros(3, 1))


def test_prompts():
    checks.prompts(["a"])
    checks.prompts(("a", ""))
    for wrong in ("a", [], [1], ["a", None], {}, 3, iter(["a"]), {"a"}, {"a": 1}):
        message = f"prompts: got {wrong!r}, expected a list of at least one string"
        refused(message, checks.prompts, wrong)
    checks.prompts(["a" * 2**20])
    message = f"prompts: got {2**20 + 1} characters, expected at most {2**20}"
    refused(message, checks.prompts, ["a", "a" * (2**20 + 1)])
    refused(message, checks.prompts, [" " * (2**20 + 1)])
    wrong = "\ud800" * 100
    message = f"prompts: got {wrong!r:.60} ..., which is not valid text"
    refused(message, checks.prompts, [wrong])


def test_names_of_files():
    for name in ("a", "ö-3 _.x", "日本"):
        assert checks.is_name(name)
    for name in ("", "a/b", "a\nb", "a\x00", "\u200b", "\ud800"):
        assert not checks.is_name(name)


def test_seeds_and_keys():
    assert checks.seeds([0, 2**63 - 1]) == (0, 2**63 - 1)
    for wrong in ([], [1, 1]):
        refused(f"seeds: got {wrong}, expected different integers", checks.seeds, wrong)
    refused("seeds: got -1, expected an integer of at least 0", checks.seeds, [-1])
    assert checks.keys([-(2**63), 2**63 - 1]) == [-(2**63), 2**63 - 1]
    assert checks.keys(torch.tensor([1, 2]), 2) == [1, 2]
    assert checks.keys(iter([4]), 1) == [4]
    message = f"keys: got {-(2**63) - 1}, expected an integer of at least {-(2**63)}"
    refused(message, checks.keys, [-(2**63) - 1])
    refused(f"keys: got {2**63}, expected an integer below 2^63", checks.keys, [2**63])
    for wrong, prompts, count in (
        ([1], 2, 2),
        ([], None, "some"),
        ("12", 2, 2),
        (3, None, "some"),
    ):
        message = f"keys: got {wrong!r}, expected {count} integers, one per prompt"
        refused(message, checks.keys, wrong, prompts)
    said = f"keys: got '{'1' * 59} ..., expected 2 integers, one per prompt"
    refused(said, checks.keys, "1" * 100, 2)
    assert checks.keys([1], beside=None) == [1]
    message = "keys: got keys beside draws, expected one or the other"
    refused(message, checks.keys, [1], 1, beside=[])


def test_what_the_answer_starts_from():
    start = torch.tensor([[0, 4], [4, 3]])
    assert checks.start(start, (2, 2), 5, 4) is start
    for dtype in (torch.uint8, torch.int32, torch.uint16, torch.uint64):
        taken = checks.start(start.to(dtype), (2, 2), 5, 4)
        assert taken.dtype == torch.int64
        assert taken.equal(start)
    message = "start: got ids outside of the vocabulary, expected [0, 5)"
    for wrong in (-1, 5):
        refused(message, checks.start, torch.tensor([[4, wrong]]), (1, 2), 5, 4)
    for dtype in (torch.float32, torch.bool, torch.complex64):
        message = f"start: got {dtype}, expected integers, the ids of tokens"
        refused(message, checks.start, torch.ones(1, 2).to(dtype), (1, 2), 5, 1)
    refused(
        "start: nothing is to be written for prompt 1, 3, expected the mask token 4 at least once",
        *(checks.start, torch.tensor([[4], [0], [4], [1]]), (4, 1), 5, 4),
    )


def test_logits_of_a_denoiser():
    checks.logits(torch.zeros(2, 3), 2, 3)
    checks.logits(torch.zeros(2, 3, dtype=torch.bfloat16), None, 3)
    for dtype in (torch.complex64, torch.int64):
        message = f"the denoiser's logits: got {dtype}, expected floating point"
        refused(message, checks.logits, torch.zeros(2, 3, dtype=dtype), 2, 3)
    for wrong in (torch.zeros(2, 3).to_sparse(), torch.zeros(2, 3, device="meta")):
        expected = "numbers" if wrong.is_meta else "plain numbers of shape [n, V]"
        message = f"the denoiser's logits: got {checks.shown(wrong)}, expected {expected}"
        refused(message, checks.logits, wrong, 2, 3)
    with pytest.raises(ValueError, match="the denoiser's logits: got "):
        checks.logits(torch.zeros(2, 3), 2, 4)


def test_rows_at_a_time():
    checks.rows_at_a_time("rows", None)
    checks.rows_at_a_time("rows", 1)
    message = "rows: got 0, expected an integer of at least 1"
    refused(message, checks.rows_at_a_time, "rows", 0)


def test_what_a_denoiser_makes_of_prompts():
    def made(tokens=(2, 3), valid=(2, 3), keys=2, whole=torch.int64, truth=torch.bool):
        tokens, valid = torch.zeros(tokens, dtype=whole), torch.ones(valid, dtype=truth)
        return SimpleNamespace(tokens=tokens, valid=valid, keys=[0] * keys)

    right = made()
    assert checks.encoded(right, 2) is right
    for wrong, message in (
        (made(tokens=(3, 3)), "tokens: got shape [3, 3], expected [P, prompt] = [2, any]"),
        (made(valid=(2, 4)), "valid: got shape [2, 4], expected [P, prompt] = [2, 3]"),
        (made(whole=torch.int32), "tokens: got torch.int32, expected torch.int64"),
        (made(truth=torch.int64), "valid: got torch.int64, expected torch.bool"),
        (made(keys=3), "keys: got 3, expected 2, one per prompt"),
    ):
        refused(f"denoiser.encode, {message}", checks.encoded, wrong, 2)
    right.keys = 5
    message = "denoiser.encode, keys: got 5, expected 2, one per prompt"
    refused(message, checks.encoded, right, 2)


def test_what_a_denoiser_reads_of_ids():
    for right in (["a", "b"], ("a", "b")):
        assert checks.texts(right, 2) is right
    for wrong in (["a"], ["a", 1], "ab", None, ["a", "b", "c"]):
        message = f"denoiser.decode: got {wrong!r}, expected a list of 2 strings"
        refused(message, checks.texts, wrong, 2)
    said = f"denoiser.decode: got '{'a' * 59} ..., expected a list of 2 strings"
    refused(said, checks.texts, "a" * 100, 2)


def test_a_vocabulary_of_both_networks():
    writable = torch.tensor([True, True, False])
    checks.vocabulary(writable, 2, torch.zeros(3, 4))
    for wrong in ([True], torch.zeros(3), torch.ones(1, 3, dtype=torch.bool)):
        message = f"denoiser.writable: got {checks.shown(wrong, 60)}, expected a bool tensor [V]"
        refused(message, checks.vocabulary, wrong, 2, torch.zeros(3, 4))
    said = f"denoiser.writable: got {str([True] * 100)[:60]} ..., expected a bool tensor [V]"
    refused(said, checks.vocabulary, [True] * 100, 2, torch.zeros(3, 4))
    message = "reward.embeddings: got shape [2, 4], expected [V, d] = [3, any]"
    refused(message, checks.vocabulary, writable, 2, torch.zeros(2, 4))
    for wrong, expected in (
        (3, "below 3"),
        (-1, "of at least 0"),
        (True, "of at least 0"),
        (1.0, "of at least 0"),
        (None, "of at least 0"),
    ):
        message = f"denoiser.mask_id: got {wrong!r}, expected an integer {expected}"
        refused(message, checks.vocabulary, writable, wrong, torch.zeros(3, 4))
    message = "denoiser.writable: got True at the mask token, expected False"
    refused(message, checks.vocabulary, writable, 1, torch.zeros(3, 4))


def test_precisions_that_can_be_guided():
    for right in (None, torch.float32, torch.float64, torch.bfloat16):
        checks.precision(right)
    half, whole = SimpleNamespace(dtype=torch.float16), SimpleNamespace(dtype=torch.float32)
    as_denoiser = SimpleNamespace(steps=1, dtype="denoiser")
    checks.precisions([as_denoiser], whole)
    checks.precisions([as_denoiser], object())
    checks.precisions([SimpleNamespace(steps=0, dtype="denoiser")], half)
    checks.precisions([SimpleNamespace(steps=1, dtype="float32")], half)
    with pytest.raises(ValueError, match=r"logits: got torch\.float16"):
        checks.precisions([SimpleNamespace(steps=0, dtype="denoiser"), as_denoiser], half)


def test_tables():
    logits, embeddings = torch.zeros(2, 3), torch.zeros(3, 4)
    checks.tables(logits, embeddings, 1)
    for steps in (0, 1):
        message = "reward.embeddings: got shape [2, 4], expected [V, d] = [3, any]"
        refused(message, checks.tables, logits, torch.zeros(2, 4), steps)
        message = "logits: got shape [3], expected [n, V] = [any, any]"
        refused(message, checks.tables, logits[0], embeddings, steps)
        message = "logits: got torch.int64, expected a floating-point dtype"
        refused(message, checks.tables, logits.long(), embeddings, steps)
    message = "steps: got -1, expected an integer of at least 0"
    refused(message, checks.tables, logits, embeddings, -1)
    with torch.inference_mode():
        without = torch.zeros(3, 4)
    for table, given in ((logits.half(), embeddings), (logits, without)):
        checks.tables(table, given, 0)
        with pytest.raises(ValueError, match=r"got torch\.float16|torch\.inference_mode"):
            checks.tables(table, given, 1)


def test_settings_of_guide():
    right = {"step_size": 1e6, "temperature_": 1e6, "top_p": 1, "optimiser": "adam"}
    checks.climb(**right, known=["adam"])
    for name, wrong in {
        "step_size": math.nextafter(1e6, math.inf),
        "temperature_": math.nextafter(1e6, math.inf),
        "top_p": math.nextafter(1, 2),
        "optimiser": "sgd",
    }.items():
        with pytest.raises(ValueError, match=f"{name.removesuffix('_')}: got {wrong!r}"[:30]):
            checks.climb(**right | {name: wrong}, known=["adam"])
    for name in ("step_size", "top_p"):
        checks.climb(**right | {name: 5e-324}, known=["adam"])
        with pytest.raises(ValueError, match=f"{name}: got 0"):
            checks.climb(**right | {name: 0}, known=["adam"])


PARTS = {
    "denoiser": ("a Denoiser", ("mask_id", "eos_id", "writable", "encode", "decode")),
    "reward": ("a Reward", ("embeddings", "bind", "score")),
    "config": ("a SamplingConfig", ("guided_steps",)),
    "draws": ("Draws", ("at",)),
}


@pytest.mark.parametrize("name", PARTS)
def test_what_is_asked_of_the_parts_of_a_generation(name):
    """What they have may be anything, also None; a class has it, but is none."""
    right = {one: SimpleNamespace(**dict.fromkeys(has)) for one, (_, has) in PARTS.items()}
    checks.arguments(**right)
    checks.arguments(**right | {"config": None, "draws": None})
    kind, members = PARTS[name]
    for member in members:
        wrong = SimpleNamespace(**dict.fromkeys(one for one in members if one != member))
        message = f"{name}: got {checks.shown(wrong, 60)}, expected {kind}, which has {member!r}"
        refused(message, checks.arguments, **right | {name: wrong})
    whole = type("Whole", (), dict.fromkeys(members))
    message = f"{name}: got {checks.shown(whole, 60)}, expected {kind}, which has {members[0]!r}"
    refused(message, checks.arguments, **right | {name: whole})
    checks.arguments(right["denoiser"], SimpleNamespace(score=1), None, asked=("score",))


def test_a_function_that_may_only_read():
    """Whether it is given a tensor or a record of some; what it returns is passed on."""
    with pytest.raises(ValueError, match=r"^weight: got 'entropy', expected a function$"):
        checks.only_reads("weight", "entropy")
    table = torch.ones(2)
    assert checks.only_reads("x", torch.sum)(table) == 2
    record = SimpleNamespace(table=table, step=3)
    assert checks.only_reads("x", lambda given: given.step)(record) == 3
    for given, write in ((table, lambda t: t.mul_(2)), (record, lambda r: r.table.zero_())):
        with pytest.raises(ValueError, match=r"^x: it wrote into what it was given"):
            checks.only_reads("x", write)(given)
    with torch.inference_mode():  # of which torch counts no writes
        assert checks.only_reads("x", torch.sum)(torch.ones(2)) == 2


def test_rewards_have_a_gradient():
    slope = torch.zeros(3, requires_grad=True)
    assert checks.rewards(slope, 3) is slope
    assert checks.rewards(slope, None) is slope
    message = "reward: got shape [3], expected [S], one number per trajectory = [2]"
    refused(message, checks.rewards, slope, 2)
    refused(checks.UNUSED, checks.rewards, torch.zeros(3), 3)


def test_a_score_for_each_answer():
    checks.scores(torch.zeros(4), ["a", "b"], 2)
    for dtype in (torch.bool, torch.complex64):
        wrong = torch.zeros(4, dtype=dtype)
        said = f"reward.score: got {dtype}, expected real numbers"
        refused(said, checks.scores, wrong, ["a", "b"], 2)
    message = "reward.score: got shape [3], expected [S], one number per response = [4]"
    refused(message, checks.scores, torch.zeros(3), ["a", "b"], 2)
    refused(
        "the reward of the finished answer is not finite, for prompt 1 ('bbb')",
        *(checks.scores, torch.tensor([0, 0, 0, math.inf]), ["aaa", "bbb"], 2),
    )


def test_lists_are_cut_when_they_are_long():
    assert checks.some([*range(8)]) == "0, 1, 2, 3, 4, 5, 6, 7"
    assert checks.some([*range(9)]) == "0, 1, 2, 3, 4, 5, 6, 7 and 1 more"
    prompts = ["a" * 40 + "b", "c"]
    assert checks.named(torch.tensor([5, 0, 4]), prompts, 4) == f"0 ({'a' * 40!r}), 1 ('c')"


def test_conditions_say_the_first_that_does_not_hold():
    rows = ((0.0, 0.0), (0.0, 0.0))

    def settled(soft=rows, weight=(0.0, 1.0), rewards=(0.0, 0.0), slope=rows):
        conditions = checks.Conditions()
        conditions.require("all is lost", torch.tensor([True, True]))
        conditions.require_step(2, *map(torch.tensor, (soft, weight, rewards, slope)))
        conditions.settle()

    settled()
    settled(soft=((0, 3e38), (3e38, 3e38)), slope=((1e19, -1e19), (0, 0)))
    for wrong, reason, where, per_position in (
        ({"soft": ((0, 0), (0, -math.inf))}, "the soft embedding is not finite", (0, 1), True),
        ({"soft": ((math.nan, 0), (0, 0))}, "the soft embedding is not finite", (1, 0), True),
        ({"slope": ((0, 0), (-1e20, 0))}, "the square of the gradient is not finite", (0, 1), True),
        ({"weight": (-1e-9, 0)}, "the weight is outside [0, 1]", (True, False), True),
        ({"weight": (0, 1.0001)}, "the weight is outside [0, 1]", (False, True), True),
        ({"rewards": (0, math.nan)}, "the reward is not finite", (False, True), False),
        ({"slope": ((0, math.inf), (0, 0))}, "the gradient is not finite", (True, False), True),
        (
            {"rewards": (math.inf, 0), "slope": ((0, 0), (0, math.nan))},
            "the reward is not finite",
            (True, False),
            False,
        ),
    ):
        with pytest.raises(checks.GuidanceError) as error:
            settled(**wrong)
        assert error.value.reason == f"{reason} at gradient step 2"
        assert error.value.where.tolist() == list(where)
        assert error.value.per_position is per_position
        kind = "masked positions" if per_position else "trajectories"
        assert str(error.value).endswith(f"; {kind}: {where.index(True)}")
    with pytest.raises(ValueError, match=f"^{re.escape(checks.UNUSED)}$"):
        checks.Conditions().require_step(0, *[torch.zeros(1)] * 3, None)


def test_the_square_of_a_gradient_is_taken_in_float32_at_least():
    """In float16 that of 256 is none."""
    conditions, zero = checks.Conditions(), torch.zeros(1)
    conditions.require_step(0, zero[:, None], zero, zero, torch.full((1, 1), 6e4).half())
    conditions.settle()


def test_prompts_are_named_by_row_or_by_position():
    def message(per_position):
        where = torch.tensor([False, True, False])
        with (
            pytest.raises(ValueError, match="denoising step 5") as error,
            checks.naming(5, torch.tensor([0, 3, 3]), ["a", "b"], 2),
        ):
            raise checks.GuidanceError("it went bad", where, per_position)
        return str(error.value)

    assert message(True) == "denoising step 5: it went bad, for prompt 1 ('b')"
    assert message(False) == "denoising step 5: it went bad, for prompt 0 ('a')"


class Named(Protocol):
    """It has a name, and says it."""

    @property
    def name(self) -> str: ...

    def __call__(self) -> str: ...


def failing(hint, kind=RuntimeError):
    """A function that cannot work with its argument, whatever it is."""

    def function(x):
        raise kind("inside")

    function.__annotations__["x"] = hint
    return checks.explained(function)


@pytest.mark.parametrize(
    ("hint", "fitting", "others"),
    [
        (int, [1, -1, np.int64(2), True], [1.0, "1", None, np.float32(1), torch.tensor(1)]),
        (float, [1, 1.5, math.nan, np.float32(1), Fraction(1, 2)], ["1", None, 1j, True]),
        (str, ["", "a"], [b"a", 1, None, ["a"]]),
        (int | None, [None, 2], ["2", 1.5, []]),
        (Optional[str], [None, "a"], [2, ["a"]]),  # noqa: UP045, as older code writes it
        (Callable[[int], str], [print, int, lambda: 1], ["print", None]),
        (Sequence[str], [[], ["a"], ("a", "b")], ["a", "", b"a", {"a"}, ["a", 1], None]),
        (Iterable[int], [[], {1, 2}, range(3)], ["12", [1, "a"], 3, None]),
        (Mapping[str, int], [{}, {"a": 1}], [{1: 1}, ["a"], "a"]),
        (list[Any], [[], [1, None]], [(), "a"]),
        (Any, [None, 1, "a"], []),
        (Tensor, [torch.zeros(2)], [[0.0], np.zeros(2)]),
        (Float[Tensor, "n V"], [torch.zeros(2, 3), torch.zeros(0, 3)], [torch.zeros(2, 0)]),
        (Float[Tensor, "n V"], [], [torch.zeros(2), torch.zeros(2, 3).long(), np.zeros((2, 3))]),
        (Float[Tensor, "n V"], [], [torch.zeros(2, 3).to_sparse(), [[1.0]], None]),
        (Float[Tensor, "n V"], [], [torch.zeros(2, 3).to(torch.float8_e5m2)]),
        (Int[Tensor, "n"], [torch.zeros(2).int(), torch.zeros(0).long()], [torch.zeros(2)]),
        (Bool[Tensor, "n"], [torch.zeros(2).bool()], [torch.zeros(2).long()]),
    ],
)
def test_an_argument_of_another_kind_is_named_where_it_fails(hint, fitting, others):
    """And none that fits: then the error stays what it was."""
    call = failing(hint)
    for value in fitting:
        with pytest.raises(RuntimeError, match=r"^inside$"):
            call(value)
    for value in others:
        with pytest.raises(
            ValueError, match=rf"^x: got {re.escape(checks.shown(value))}, "
        ) as said:
            call(value)
        assert isinstance(said.value.__cause__, RuntimeError)


def test_what_is_asked_of_a_protocol_is_all_of_it():
    class Whole:
        name = "a"

        def __call__(self):
            return self.name

    with pytest.raises(RuntimeError, match="inside"):
        failing(Named)(Whole())
    for part in (SimpleNamespace(name="a"), lambda: "a", 3):
        with pytest.raises(ValueError, match=r"^x: got .*, expected .*Named$"):
            failing(Named)(part)


@pytest.mark.parametrize(
    "kind", [AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError]
)
def test_what_python_and_torch_raise_of_an_argument_is_explained(kind):
    with pytest.raises(ValueError, match=r"^x: got 'a', expected int$"):
        failing(int, kind)("a")
    with pytest.raises(kind, match="inside"):
        failing(int, kind)(1)
    with pytest.raises(ZeroDivisionError, match="inside"):
        failing(int, ZeroDivisionError)("a")
