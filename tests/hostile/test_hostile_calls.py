"""Public functions, called with arguments of other kinds, dtypes and shapes than they say."""

import dataclasses
import fractions
import math

import numpy as np
import pytest
import torch

import entrgi_ref as e
from checkpoints import DREAM, REWARD, SHORT, pair
from corpus import refusal
from entrgi_ref import checks
from entrgi_ref.models import SequenceReward, load_denoiser
from entrgi_ref.watching import printable, trace_page, words

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
