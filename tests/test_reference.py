"""`generate` gives the tokens of the slow reference implementation, whatever is set."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import reference
from entrgi_ref import GuidanceConfig, SamplingConfig, generate
from properties import tried
from tiny import TinyDenoiser, TinyReward

METHODS = ["expectation", "aps", "entrgi", "entrgi_tempered"]
ORDERS = ["entropy", "maskgit_plus", "topk_margin", "anchor", "origin"]


def same_tokens(
    seed: int, prompts: list[str], config: SamplingConfig, sharpness: float, start=None, keys=None
) -> None:
    denoiser, reward = TinyDenoiser(seed, sharpness=sharpness), TinyReward(seed + 50)
    generation = generate(denoiser, reward, prompts, config, start=start, keys=keys)
    for p, prompt in enumerate(prompts):
        own = (None if start is None else start[p].tolist(), None if keys is None else keys[p])
        for k in range(config.trajectories):
            expected = reference.answer(denoiser, reward, prompt, k, config, *own)
            assert generation.tokens[p, k].tolist() == expected, (prompt, k)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_and_order(method, order):
    guidance = GuidanceConfig(method, steps=2, step_size=1.0, dtype="float64")
    config = SamplingConfig(guidance, trajectories=2, new_tokens=5, denoising_steps=5, order=order)
    same_tokens(3, ["12", "40577"], config, sharpness=0.5)


def fitting(settings):
    """The order `origin` ranks nothing that a temperature could mix, and refuses one."""
    return settings | ({"order_temperature": 0.0} if settings["order"] == "origin" else {})


GUIDANCE = st.fixed_dictionaries(
    {
        "weight": st.sampled_from(METHODS),
        "steps": st.integers(0, 3),
        "step_size": st.floats(0.05, 3),
        "dtype": st.just("float64"),
        "optimiser": st.sampled_from(["adam", "sgd"]),
    }
)
SETTINGS = st.fixed_dictionaries(
    {
        "trajectories": st.integers(1, 3),
        "new_tokens": st.integers(1, 6),
        "denoising_steps": st.integers(1, 9),
        "temperature": st.floats(0.2, 3),
        "top_p": st.one_of(st.floats(0.05, 1), st.just(1.0)),
        "order": st.sampled_from(ORDERS),
        "order_temperature": st.one_of(st.just(0.0), st.floats(0.1, 2)),
        "eos_last": st.booleans(),
        "write_every_id": st.booleans(),
        "skip_empty_steps": st.booleans(),
        "seed": st.integers(0, 2**63 - 1),
    }
).map(fitting)
SHARPNESS = st.one_of(st.just(0.0), st.floats(0.01, 3))
"""Of the predictions: equal tokens, or some that differ by more than rounding."""
PROMPTS = st.lists(st.text("0123456789", min_size=1, max_size=6), min_size=1, max_size=3)


@tried(40)
@given(st.integers(0, 10**6), SHARPNESS, PROMPTS, GUIDANCE, SETTINGS)
def test_everything_that_can_be_set(seed, sharpness, prompts, guidance, settings):
    same_tokens(seed, prompts, SamplingConfig(GuidanceConfig(**guidance), **settings), sharpness)


@tried(40)
@given(
    st.integers(0, 10**6),
    SHARPNESS,
    PROMPTS,
    st.tuples(GUIDANCE, GUIDANCE),
    SETTINGS,
    st.data(),
)
def test_infilling_keys_and_guidance_by_step(seed, sharpness, prompts, guidance, settings, data):
    """Blanks anywhere, another number in each prompt; the same prompt may be there twice."""
    early, late = (GuidanceConfig(**one) for one in guidance)
    turn = data.draw(st.integers(0, 9))
    config = SamplingConfig(lambda step: early if step.index < turn else late, **settings)
    P, N, mask = len(prompts), config.new_tokens, 13
    rows = st.lists(st.integers(0, 13), min_size=N, max_size=N).filter(lambda row: mask in row)
    start = torch.tensor(data.draw(st.lists(rows, min_size=P, max_size=P)))
    keys = data.draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=P, max_size=P))
    same_tokens(seed, prompts, config, sharpness, start, keys)
