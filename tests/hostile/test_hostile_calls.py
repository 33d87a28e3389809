"""Public functions, called with arguments of other kinds, dtypes and shapes than they say."""

import dataclasses
import fractions
import itertools
import math
import re
import types

import numpy as np
import pytest
import torch

import entrgi_ref as e
from checkpoints import DREAM, REWARD, SHORT, pair
from corpus import refusal
from entrgi_ref import checks
from entrgi_ref.models import SequenceReward, SumOfRewards, VocabularyMap, load_denoiser
from entrgi_ref.parts import in_parts
from entrgi_ref.rivals import lookahead
from entrgi_ref.watching import (
    Recorder,
    TerminalView,
    printable,
    trace_page,
    trace_pages,
    weight_colour,
    words,
)

pytestmark = pytest.mark.usefixtures("as_users_run_it")
LOGITS = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
Q, TABLE = LOGITS.softmax(-1), LOGITS[:, :4].new_ones(5, 4)
SOFT, TOKENS = Q @ TABLE, torch.tensor([0, 1, 2])
MASKED = torch.tensor([[True, True, True, False]])
DRAWS = e.KeyedDraws.of(0, [1], 1)
STEP = DRAWS.at(0, torch.zeros(3, dtype=torch.long), TOKENS)
CANDIDATES = e.Candidates(TOKENS, Q, LOGITS, LOGITS, 0.7)
ARGUMENTS = (
    *(None, True, 5, -1, 10**5000, 1.5, math.nan, math.inf, 1j, fractions.Fraction(1, 2)),
    *("", "abc", b"x", [], [1.0, 2.0], [[1.0]], ["a"], [None], {}, {"a"}, object()),
    *(np.ones((3, 5)), np.float32(0.5), np.int64(2)),
    *(torch.tensor(1.0), torch.tensor(2), torch.rand(5), torch.rand(2, 3, 5)),
    *(torch.zeros(3, 5, dtype=kind) for kind in (torch.int64, torch.bool)),
    *(LOGITS.to(kind) for kind in (torch.float16, torch.float8_e4m3fn)),
    *(LOGITS.to("meta"), LOGITS.to_sparse(), torch.rand(0, 5), torch.rand(3, 0), torch.rand(3, 1)),
    *(torch.rand(5, 3).T, torch.rand(1, 5).expand(3, 5), LOGITS.clone().requires_grad_()),
    *(torch.full((3, 5), bad) for bad in (math.nan, math.inf, -math.inf)),
    *(torch.rand(4, 5), torch.rand(3, 6), TOKENS, TOKENS.int(), TOKENS == 1, torch.rand(3)),
)
"""What stands where something else is expected."""
CALLS = {
    e.token_distribution: {"logits": LOGITS, "temperature": 0.7},
    e.soft_embedding: {"probabilities": Q, "embeddings": TABLE},
    e.entropy: {"logits": LOGITS, "epsilon": 0.0},
    e.entropy_weight: {"logits": LOGITS, "temperature": 1.0, "epsilon": 0.0},
    e.interpolate: {"soft": SOFT, "hard": SOFT, "weight": torch.rand(3)},
    e.nucleus: {"probabilities": Q, "top_p": 0.9},
    e.inverse_cdf: {"probabilities": Q, "uniform": torch.rand(3)},
    e.approximation_error: {"mixed": SOFT, "soft": SOFT},
    e.discreteness_error: {"mixed": SOFT, "hard": SOFT},
    e.commit: {
        "tokens": TOKENS,
        "confidence": torch.rand(3),
        "quota": torch.tensor([2]),
        "masked": MASKED,
        "put_last": 4,
    },
    e.rank: {"candidates": CANDIDATES, "chance": STEP, "order": "anchor", "order_temperature": 0.0},
    DRAWS.at: {"step": 0, "row": TOKENS * 0, "position": TOKENS},
    e.how_many: {"step": e.schedule(4, 4)[1], "masked": MASKED, "chance": STEP, "order": "anchor"},
    e.schedule: {"denoising_steps": 4, "new_tokens": 4},
    e.prompt_key: {"prompt": "a"},
    e.KeyedDraws.of: {"seed": 0, "keys": [1], "trajectories": 1},
    e.draw_candidates: {
        "logits": LOGITS,
        "guided_logits": LOGITS,
        "draw": STEP.candidates,
        "temperature": 0.7,
        "top_p": 0.9,
    },
    e.GuidanceConfig: {"weight": "aps", "steps": 1, "step_size": 1.0, "dtype": "float32"},
    e.SamplingConfig: {"guidance": e.GuidanceConfig(), "new_tokens": 4, "top_p": 0.9, "seed": 1},
    STEP.hard: {"probabilities": Q, "gradient_step": 0},
    printable: {"text": "x"},
}


def refused(call, arguments):
    """One line that names one of the arguments, or a result."""
    said = refusal(lambda: call(**arguments))
    inner = ("draw", "probabilities", "uniform", "template", "reward", "the denoiser's logits")
    inner += ("response",)
    allowed = (*arguments, *inner, "checkpoint: the tokenizer of Dream does not work")
    assert said is None or said.startswith(allowed), said
    assert len(said or "") < 1000


@pytest.mark.parametrize("call", CALLS, ids=lambda call: getattr(call, "__qualname__", str(call)))
def test_any_argument_is_taken_or_named(call):
    fitting = CALLS[call]
    call(**fitting)
    for name in fitting:
        for value in ARGUMENTS:
            refused(call, fitting | {name: value})


@pytest.fixture(scope="module")
def networks():
    return pair("float32")


def test_any_argument_of_the_networks_is_taken_or_named(networks):
    denoiser, reward = networks
    encoded, bound = denoiser.encode([SHORT]), reward.bind([SHORT], 1)
    response, masked = torch.full((1, 3), denoiser.mask_id), torch.ones(1, 3, dtype=torch.bool)
    tokens = torch.cat([encoded.tokens, response], 1)
    step = bound.at(response, masked)
    logits = torch.randn(3, len(denoiser.writable))
    settings = {"steps": 1, "step_size": 0.5, "temperature": 0.7, "top_p": 0.9}
    calls = {
        denoiser.encode: {"prompts": ["a"]},
        denoiser.template: {"text": "a __"},
        denoiser.decode: {"response": response},
        denoiser: {
            "tokens": tokens,
            "valid": torch.ones_like(tokens, dtype=torch.bool),
            "masked": masked,
        },
        reward.bind: {"prompts": ["a"], "trajectories": 1},
        reward.score: {"prompts": ["a"], "responses": ["b"]},
        bound.at: {"response": response, "masked": masked},
        bound.infilling: {"given": masked, "present": masked},
        e.guide: {
            "logits": logits,
            "reward": step,
            "weight": e.WEIGHTS["aps"],
            "draw": STEP.hard,
            "optimiser": "adam",
            "observe": None,
            **settings,
        },
        words: {"denoiser": denoiser, "tokens": TOKENS},
    }
    for call, fitting in calls.items():
        for name in fitting:
            for value in ARGUMENTS:
                refused(call, fitting | {name: value})


class Changed:
    """A network of which one method returns something else."""

    def __init__(self, network, **changed):
        self.__dict__.update(changed)
        self.network = network

    def __getattr__(self, name):
        return getattr(self.network, name)

    def __call__(self, *given):
        return self.predicted(self.network(*given))


@pytest.mark.parametrize(
    "predicted",
    [
        *(lambda x: x * math.nan, lambda x: x + math.inf, lambda x: x.long(), lambda x: x + 0j),
        *(lambda x: x.T, lambda x: x.to("meta"), lambda x: x.to_sparse(), lambda x: x.numpy()),
    ],
)
def test_what_a_denoiser_may_not_return_is_named(predicted, networks):
    denoiser, reward = networks
    config = e.SamplingConfig(e.GuidanceConfig(steps=1), 1, 2, 2)
    changed = Changed(denoiser, predicted=predicted)
    assert "denoiser's logits" in refusal(lambda: e.generate(changed, reward, [SHORT], config))


def test_numbers_that_are_not_real_are_named(networks):
    denoiser, reward = networks
    config = e.SamplingConfig(e.GuidanceConfig(steps=1), 1, 2, 2)
    for kind in (torch.complex64, torch.bool):
        score = Changed(reward, score=lambda *_, kind=kind: torch.zeros(1, dtype=kind))
        said = refusal(lambda score=score: e.generate(denoiser, score, [SHORT], config))
        assert said == f"reward.score: got {kind}, expected real numbers"
    weight = config.guided(weight=lambda logits: logits[:, 0] * 0j)
    order = dataclasses.replace(config, order=lambda candidates: candidates.logits[:, 0] * 0j)
    for name, own in (("weight", weight), ("order", order)):
        said = refusal(lambda own=own: e.generate(denoiser, reward, [SHORT], own))
        assert said == f"{name}: got torch.complex64, expected real numbers"
    said = refusal(lambda: checks.rewards(torch.zeros(1, dtype=torch.complex64), 1))
    assert said == "reward: got torch.complex64, expected real numbers"


def test_what_is_loaded_is_named(networks):
    denoiser, _ = networks
    for name, value in (
        ("family", 5),
        ("compiled", LOGITS),
        ("path", 5),
        ("path", "x" * 300),
        ("device", [1]),
    ):
        options = {"path": DREAM, "device": "cpu", name: value}
        assert refusal(lambda options=options: load_denoiser(**options))
    for name, value in (("tokens", 5), ("denoiser", None), ("device", {})):
        options = {"path": REWARD, "denoiser": denoiser, name: value}
        assert refusal(lambda options=options: SequenceReward.from_pretrained(**options))


def test_a_page_of_what_is_no_json_is_refused():
    assert refusal(lambda: trace_page(LOGITS, [])).startswith("prompt: got torch.float32 of shape")


@pytest.mark.parametrize("row", [[7, 7, 9], [-1], [True], torch.tensor([0], dtype=torch.uint8)])
def test_rows_that_are_none_are_refused(row):
    """From the end, or as a mask, others would be taken."""
    row = torch.as_tensor(row)
    said = refusal(lambda: DRAWS.at(0, row, torch.zeros(len(row), dtype=torch.long)))
    assert said.startswith("row: got torch.")
    assert "in [0, 1)" in said


class _Full(torch.Tensor):
    def index_select(self, *_):  # as torch.Tensor's
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_memory_that_is_out_is_no_fault_of_the_rows():
    row = torch.zeros(1, dtype=torch.long)
    with pytest.raises(torch.OutOfMemoryError):
        e.KeyedDraws(torch.zeros(1, dtype=torch.long).as_subclass(_Full)).at(0, row, row)


@pytest.mark.parametrize("error", [e.approximation_error, e.discreteness_error])
def test_distances_are_of_equal_shapes(error):
    name = "soft" if error is e.approximation_error else "hard"
    for one, other in ((SOFT, SOFT[:, :1]), (SOFT[:, :1], SOFT), (SOFT, SOFT[:1])):
        assert refusal(lambda one=one, other=other: error(one, other)).startswith(f"{name}: got")


def test_what_makes_no_optimiser_is_named(networks):
    denoiser, reward = networks
    for make, name in ((torch.optim.Optimizer, "Optimizer"), (lambda: None, ".<lambda>")):
        guided = e.SamplingConfig(e.GuidanceConfig(steps=1, optimiser=make), 1, 2, 2)
        said = refusal(lambda guided=guided: e.generate(denoiser, reward, [SHORT], guided))
        assert said.startswith("optimiser: ")
        assert f"{name} does not take ([psi], lr=...)" in said


def test_a_text_of_many_times_the_positions_is_not_scored(networks):
    """Of a million tokens attention would take a terabyte."""
    _, reward = networks
    for prompt, answer in (("x " * 2**19, "b"), ("a", "x " * 2**19)):
        said = refusal(lambda prompt=prompt, answer=answer: reward.score([prompt], [answer]))
        assert said.startswith("responses: got a text of ")
        assert said.endswith("four times the positions that the reward model has")


def test_a_text_is_no_list_of_prompts(networks):
    """It would be taken for as many prompts as it has letters."""
    denoiser, reward = networks
    for read in (denoiser.encode, lambda text: reward.bind(text, 1)):
        assert refusal(lambda read=read: read(SHORT)).startswith("prompts: got 'explain")
    said = refusal(lambda: reward.score(["a"], ["b", "c"]))
    assert said == "responses: got 2, expected one for each prompt"


def test_what_does_not_fit_is_said_beside_what_does():
    said = refusal(lambda: e.soft_embedding(Q, TABLE[:4]))
    assert said.replace('"', "'") == (
        "embeddings: got torch.float32 of shape [4, 4], expected Float[Tensor, 'V d'] beside "
        "probabilities [3, 5]"
    )


def test_an_error_of_another_kind_stays_what_it_is():
    @checks.explained
    def function(number: int, of: "Unknown" = None):
        raise KeyError(number)

    @checks.explained
    def other(number: float, *, of: list[int]):
        raise KeyError(number)

    for call in (lambda: function("x"), lambda: other(1, of=[2])):
        with pytest.raises(KeyError):
            call()
    with pytest.raises(TypeError, match=r"other\(\) missing 1 required"):
        other(1)
    assert refusal(lambda: other(True, of=[2])) == "number: got True, expected float"
    assert refusal(lambda: other(1, of=["x"])).startswith("of: got ['x'], expected list[int]")


def test_a_value_is_shown_in_one_short_line():
    assert checks.shown(np.ones((2, 2))) == "array([[1., 1.], [1., 1.]])"
    assert checks.shown("x" * 1000) == f"'{'x' * 199} ..."
    assert checks.shown(10**5000) == "one of int"


WHOLE = torch.arange(20).view(5, 4)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: e.soft_embedding(Q, WHOLE), "embeddings"),
        (lambda: e.soft_embedding(Q + 0j, TABLE), "probabilities"),
        (lambda: e.interpolate(WHOLE[:3], SOFT, torch.rand(3)), "soft"),
        (lambda: e.interpolate(SOFT, WHOLE[:3], torch.rand(3)), "hard"),
        (lambda: e.interpolate(SOFT, SOFT, TOKENS), "weight"),
    ],
)
def test_tables_of_whole_numbers_are_refused(call, name):
    """Probabilities and weights would be cut to 0."""
    assert re.match(f"{name}: got torch.*, expected floating point$", refusal(call))


@pytest.mark.parametrize("tokens", [TOKENS.short(), TOKENS.byte()])
def test_tokens_of_any_integers_are_taken(tokens):
    assert e.hard_embedding(tokens, TABLE).equal(TABLE[TOKENS])


@pytest.mark.parametrize("wide", [5, 5000])
@pytest.mark.parametrize("number", [math.nan, -3.0, 1.0, 5.0])
def test_numbers_that_draw_nothing_are_refused(number, wide):
    q = torch.full((3, wide), 1 / wide)
    said = refusal(lambda: e.inverse_cdf(q, torch.tensor([0.5, number, 0.5])))
    assert said == "draws, uniform: got a number outside of [0, 1)"


@pytest.mark.parametrize("wide", [5, 5000])
def test_a_row_of_zeros_has_no_token(wide):
    q = torch.full((3, wide), 1 / wide)
    q[1] = 0
    said = refusal(lambda: e.inverse_cdf(q, torch.rand(3)))
    assert said == "probabilities: got a row of zeros, expected those of one token or more"


@pytest.mark.parametrize("keys", [{1, 2}, {1: 2}, b"ab"])
def test_keys_have_an_order(keys, networks):
    assert refusal(lambda: e.KeyedDraws.of(0, keys, 1)).startswith("keys: got ")


def test_keys_and_trajectories_have_an_end():
    assert refusal(lambda: e.KeyedDraws.of(0, itertools.repeat(1), 1)).startswith("keys: got ")
    said = refusal(lambda: e.KeyedDraws.of(0, [1], 2**45))
    assert said == f"trajectories: got {2**45}, expected an integer below 2^24"


def test_counts_and_places_are_whole_numbers():
    one, half = torch.tensor([1]), torch.tensor([0.5])
    said = refusal(lambda: e.commit(TOKENS, torch.rand(3), half, MASKED))
    assert said == "quota: got torch.float32 of shape [1], expected integers"
    for bad in (-1, 5):
        said = refusal(lambda bad=bad: e.commit(TOKENS, torch.rand(3), one * bad, MASKED))
        assert said == f"quota: got {bad}, expected integers in [0, 5)"
    said = refusal(lambda: DRAWS.at(0, one - 1, half))
    assert said == "position: got torch.float32 of shape [1], expected integers"


def test_a_purpose_is_one_of_five():
    for bad in ("3", 0, 6, None):
        assert refusal(lambda bad=bad: STEP.uniform(bad)).endswith("is not a valid Purpose")
    assert STEP.uniform(2).equal(STEP.uniform(e.draws.Purpose.COMMIT))


def test_a_margin_is_between_two_tokens():
    one = e.Candidates(TOKENS * 0, Q[:, :1], LOGITS[:, :1], LOGITS[:, :1], 0.7)
    assert "expected 2 or more" in refusal(lambda: e.rank(one, STEP, "topk_margin"))


@pytest.mark.parametrize("name", ["logits", "guided_logits"])
@pytest.mark.parametrize("bad", [None, LOGITS[:, :4], LOGITS[:2]])
def test_candidates_are_of_one_table(name, bad):
    tables = {"logits": LOGITS, "guided_logits": LOGITS, name: bad}
    said = refusal(lambda: e.Candidates(TOKENS, Q, **tables, temperature=0.7))
    assert said.startswith(f"{name}: got ")


@pytest.mark.parametrize(
    ("field", "bad"),
    [*(("eos_id", bad) for bad in ("4", -1, math.nan, [4], 10**9)), ("pad_id", "x")],
)
def test_the_tokens_of_a_denoiser_are_of_its_vocabulary(field, bad, networks):
    denoiser, reward = networks
    other = dataclasses.replace(denoiser, **{field: bad})
    said = refusal(lambda: e.generate(other, reward, [SHORT]))
    assert said.startswith(f"denoiser.{field}: got {bad!r}, expected an integer")


class _With:
    """Another thing, but for some of its members."""

    def __init__(self, of, **members):
        self._of, self._members = of, members

    def __getattr__(self, name):
        members = self.__dict__.get("_members", {})
        return members[name] if name in members else getattr(self._of, name)

    def __call__(self, *given):
        return self._of(*given)


def test_what_models_of_ones_own_give_is_named(networks):
    denoiser, reward = networks
    config = e.SamplingConfig(new_tokens=2, denoising_steps=2, trajectories=1)

    def said(denoiser=denoiser, reward=reward, **options):
        return refusal(lambda: e.generate(denoiser, reward, [SHORT], config, **options))

    nothing = _With(denoiser, writable=torch.zeros_like(denoiser.writable))
    assert said(nothing) == (
        "denoiser.writable: got True nowhere, expected tokens that may be written"
    )
    thin = _With(reward, embeddings=reward.embeddings[:, :0])
    assert said(reward=thin) == "reward.embeddings: got vectors of width 0, expected 1 at least"
    bound = reward.bind([SHORT], 1)
    for members, expected in (
        ({"infilling": lambda *_: None}, "reward.infilling: got None, expected a BoundReward"),
        ({"infilling": None}, "reward.infilling: got None, expected a function"),
        ({"at": None, "infilling": lambda *_: _With(bound, at=None)}, "reward.at: got None, "),
    ):
        own = _With(reward, bind=lambda *_, members=members: _With(bound, **members))
        assert said(reward=own).startswith(expected)
    draws = _With(DRAWS, at=lambda *_: None)
    assert said(draws=draws).startswith("draws.at: got None, expected StepDraws")


def _stuck(parameters, lr):
    (psi,) = parameters
    return types.SimpleNamespace(step=lambda: psi.fill_(math.nan))


def test_what_went_bad_first_is_named(networks):
    """And not the weight of logits that an optimiser has made nan."""
    denoiser, reward = networks
    config = e.SamplingConfig(new_tokens=2, denoising_steps=2, trajectories=1)
    own = config.guided(optimiser=_stuck)
    said = refusal(lambda: e.generate(denoiser, reward, [SHORT], own))
    assert ": the soft embedding is not finite at gradient step 1, for prompt 0" in said


@pytest.mark.parametrize("rows", [None, 1])
@pytest.mark.parametrize("factor", [1e18, 1e25])
def test_a_gradient_of_which_adam_makes_nothing_is_said(factor, rows):
    """Its square overflows, and no logit would move."""

    class Large:
        embeddings = TABLE * torch.arange(5)[:, None]

        def __call__(self, mixed, likeliest):
            return mixed.sum()[None] * factor

    options = {"weight": e.entropy_weight, "steps": 1, "step_size": 0.5, "temperature": 0.7}
    options |= {"top_p": 0.9, "draw": STEP.hard}
    climb = in_parts(rows, DRAWS, 0, TOKENS * 0, TOKENS) or e.guide
    if factor < 1e19:
        assert not climb(LOGITS, Large(), **options).equal(LOGITS)
    else:
        said = refusal(lambda: climb(LOGITS, Large(), **options))
        assert said.startswith("the square of the gradient is not finite at gradient step 0")


@pytest.mark.parametrize("odd", [LOGITS.to_sparse(), torch.nested.nested_tensor([LOGITS])])
def test_odd_tensors_are_called_what_they_are(odd):
    said = refusal(lambda: checks.shape("weight", odd, (3,), "[n]"))
    assert re.search(r"weight: got (torch.float32 .* in torch.sparse_coo|a nested tensor), ", said)


def test_what_watches_says_what_it_lacks(networks):
    denoiser, reward = networks
    recorder = Recorder(denoiser)
    said = refusal(lambda: recorder.frames(0))
    assert said == "frames: got no denoising step, expected one that was observed"
    config = e.SamplingConfig(new_tokens=2, denoising_steps=2, trajectories=2)
    e.generate(denoiser, reward, [SHORT], config, observe=recorder)
    assert recorder.frames(1)
    for view in (
        lambda: recorder.frames(2),
        lambda: e.generate(
            *networks, [SHORT], config, observe=TerminalView(denoiser, trajectory=2)
        ),
    ):
        assert refusal(view) == "trajectory: got 2, expected an integer below 2"
    for call in (lambda: trace_pages(None), lambda: weight_colour("x")):
        assert ": got " in refusal(call)
    assert refusal(lambda: e.SamplingConfig().guided_steps(5)).startswith("blanks: got 5, ")


def test_sums_of_what_is_no_reward_are_refused(networks):
    _, reward = networks
    for rewards, weights, name in (
        ([1, 2], [1, 1], "rewards"),
        (None, [1], "rewards"),
        ([reward], None, "reward_weight"),
        ([reward], [10**400], "reward_weight"),
        ([_With(reward, embeddings=np.ones((2, 3)))], [1], "rewards, embeddings"),
    ):
        said = refusal(lambda rewards=rewards, weights=weights: SumOfRewards.of(rewards, weights))
        assert said.startswith(f"{name}: got ")


def test_a_map_of_vocabularies_fits_what_it_is_of():
    good = VocabularyMap.by_string(["a", "b"], {"a": 1, "b": 0}, 0)
    for call, name in (
        (lambda: VocabularyMap.by_string(None, {}, 0), "tokens"),
        (lambda: VocabularyMap.by_string(["a"], None, 0), "reward_ids"),
        (lambda: VocabularyMap.by_string(["a"], {"a": 0}, None), "fallback"),
        (lambda: VocabularyMap.by_string(["a"], {"a": 0}, 0, "x"), "unmatched"),
        (lambda: good.embeddings(torch.zeros(1, 2), "eos"), "table's rows"),
        (lambda: good.embeddings(None, "eos"), "table"),
        (lambda: good.unmatched_mass(Q), "probabilities"),
    ):
        assert refusal(call).startswith(f"{name}: got ")


def test_a_draw_only_reads(networks):
    denoiser, reward = networks
    config = e.SamplingConfig(new_tokens=2, denoising_steps=2, trajectories=1, top_p=1.0)

    class Draws:
        def __init__(self, name):
            self.name = name

        def at(self, *given):
            drawn = DRAWS.at(*given)

            def written(probabilities, *step):
                found = probabilities.argmax(-1)
                probabilities.zero_()
                return found

            return _With(drawn, **{self.name: written})

    for rows in (None, 1):
        for name in ("hard", "candidates"):
            options = {"draws": Draws(name), "vocabulary_batch": rows}
            said = refusal(
                lambda options=options: e.generate(denoiser, reward, [SHORT], config, **options)
            )
            assert said.startswith("draw: it wrote into what it was given")


@pytest.mark.parametrize(
    ("settings", "lacking"),
    [({}, None), ({"order_temperature": 1.0}, "order"), ({"order": "origin"}, "origin")],
)
def test_draws_have_what_the_settings_ask_for(settings, lacking, networks, monkeypatch):
    """And no more: before a model runs."""
    denoiser, reward = networks
    config = e.SamplingConfig(new_tokens=2, denoising_steps=2, trajectories=1, **settings)

    class Draws:
        def at(self, *given):
            found = DRAWS.at(*given)
            names = [n for n in ("hard", "candidates", "order", "origin") if n != lacking]
            return types.SimpleNamespace(**{name: getattr(found, name) for name in names[:2]})

    options = {"draws": Draws()}
    said = refusal(lambda: e.generate(denoiser, reward, [SHORT], config, **options))
    assert said is None if lacking is None else said.endswith(f"which has {lacking!r}")


def test_the_first_token_of_a_vocabulary_may_end_answers(networks):
    denoiser, reward = networks
    config = e.SamplingConfig(new_tokens=2, denoising_steps=2, trajectories=1)
    other = dataclasses.replace(denoiser, eos_id=0, pad_id=0)
    assert not refusal(lambda: e.generate(other, reward, [SHORT], config))


def test_what_may_be_written_is_said_to_be_no_list(networks):
    denoiser, reward = networks
    other = _With(denoiser, writable=denoiser.writable[None])
    said = refusal(lambda: e.generate(other, reward, [SHORT]))
    assert said.startswith("denoiser.writable: got torch.bool of shape [1, ")


def test_the_parts_of_a_sum_are_held_to_what_one_reward_is(networks):
    reward = networks[1]

    def summed(**members):
        return SumOfRewards.of([reward, _With(reward, **members)], [1, 1])

    one = torch.zeros(1)
    for bad in (torch.tensor(3.0), [1.0], one.bool(), one + 1j, torch.zeros(3)):
        both = summed(score=lambda *_, bad=bad: bad)
        said = refusal(lambda both=both: both.score(["a", "b"], ["c", "d"]))
        assert said.startswith("reward: got ")
    both = summed(bind=lambda *_: None)
    assert refusal(lambda: both.bind([SHORT], 1)).startswith("reward.bind: got None")
    whole = torch.ones(reward.embeddings.shape, dtype=torch.long)
    said = refusal(lambda: summed(embeddings=whole))
    assert said.startswith("rewards, embeddings: got torch.int64 of shape")


def test_a_denoiser_reads_tokens_of_its_vocabulary(networks):
    denoiser, _ = networks
    encoded = denoiser.encode([SHORT])
    masked = torch.ones(1, 2, dtype=torch.bool)
    width = len(denoiser.writable)
    for bad in (-1, width):
        tokens = encoded.tokens.clone()
        tokens[0, 0] = bad
        said = refusal(lambda tokens=tokens: denoiser(tokens, encoded.valid, masked))
        assert said == f"tokens: got {bad}, expected integers in [0, {width})"
        said = refusal(lambda bad=bad: denoiser.decode(torch.tensor([[bad]])))
        assert said == f"response: got {bad}, expected integers in [0, {width})"
    wide = torch.ones(1, 500, dtype=torch.bool)
    said = refusal(lambda: denoiser(encoded.tokens, encoded.valid, wide))
    assert said.startswith("masked: got 500 positions, expected at most ")
    for bad in (torch.tensor([[1.5]]), torch.tensor([1])):
        assert refusal(lambda bad=bad: denoiser.decode(bad)).startswith("response: got ")


def test_a_recorder_keeps_the_last_of_several_runs(networks):
    denoiser, reward = networks
    one = e.SamplingConfig(new_tokens=2, denoising_steps=2, trajectories=1)
    recorder, again = Recorder(denoiser), Recorder(denoiser)
    for config in (dataclasses.replace(one, trajectories=2, seed=3), one):
        e.generate(denoiser, reward, [SHORT], config, observe=recorder)
    e.generate(denoiser, reward, [SHORT], one, observe=again)
    assert recorder.frames(0) == again.frames(0)


def test_an_empty_name_is_no_checkpoint():
    assert refusal(lambda: load_denoiser("")).startswith("checkpoint: got '', expected a folder")
    assert len(refusal(lambda: load_denoiser("a" * 5000))) < 300


def test_lookahead_divides_a_reward_of_sixteen_bits_in_more(networks):
    """Over a small beta it is no number in float16."""
    denoiser, reward = networks
    config = e.SamplingConfig(new_tokens=3, denoising_steps=3, trajectories=2)

    def answered(dtype):
        def score(prompts, texts):
            return torch.tensor([float(len(text) % 8) for text in texts], dtype=dtype)

        own = _With(reward, score=score)
        return lookahead(denoiser, own, [SHORT], config, beta=1e-5, candidates=3).tokens

    assert answered(torch.float16).equal(answered(torch.float32))
