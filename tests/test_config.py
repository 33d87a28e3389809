"""The settings: defaults, checks, JSON."""

import json
import math
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from entrgi_ref import GuidanceConfig, SamplingConfig, entropy_weight, schedule


def test_defaults_are_the_papers():
    config = SamplingConfig()
    assert (config.trajectories, config.denoising_steps, config.new_tokens) == (4, 128, 128)
    assert (config.temperature, config.top_p, config.order) == (0.7, 0.95, "entropy")
    assert (config.guidance.weight, config.guidance.steps) == ("entrgi", 3)
    assert config.guidance.step_size == 0.5
    assert (config.guidance.dtype, config.guidance.epsilon) == ("float32", 0)
    assert (config.eos_last, config.write_every_id, config.skip_empty_steps) == (True, False, True)
    assert (config.order_temperature, config.seed) == (0, 0)


def test_configs_are_frozen():
    for config, name in ((SamplingConfig(), "seed"), (GuidanceConfig(), "steps")):
        with pytest.raises(FrozenInstanceError):
            setattr(config, name, 1)


@pytest.mark.parametrize(
    ("cls", "name", "value", "expected"),
    [
        (SamplingConfig, "temperature", 0, "a number in [1e-06, 1e+06]"),
        (SamplingConfig, "temperature", -1.0, "a number in [1e-06, 1e+06]"),
        (SamplingConfig, "temperature", math.nan, "a number in [1e-06, 1e+06]"),
        (SamplingConfig, "temperature", math.inf, "a number in [1e-06, 1e+06]"),
        (SamplingConfig, "temperature", "0.7", "a number in"),
        (SamplingConfig, "top_p", 0, "a number in (0, 1]"),
        (SamplingConfig, "top_p", 1.01, "a number in (0, 1]"),
        (SamplingConfig, "top_p", math.nan, "a number in (0, 1]"),
        (SamplingConfig, "top_p", True, "a number in (0, 1]"),
        (SamplingConfig, "trajectories", 0, "an integer of at least 1"),
        (SamplingConfig, "trajectories", 2.0, "an integer of at least 1"),
        (SamplingConfig, "new_tokens", 0, "an integer of at least 1"),
        (SamplingConfig, "denoising_steps", -3, "an integer of at least 1"),
        (SamplingConfig, "denoising_steps", True, "an integer of at least 1"),
        (SamplingConfig, "order", "entopy", "did you mean 'entropy'?"),
        (SamplingConfig, "order", None, "one of 'entropy', 'maskgit_plus'"),
        (SamplingConfig, "order_temperature", -0.1, "0 or a number in [1e-06, 1e+06]"),
        (SamplingConfig, "order_temperature", 1e-40, "0 or a number in [1e-06, 1e+06]"),
        (SamplingConfig, "order_temperature", math.nan, "0 or a number in"),
        (SamplingConfig, "order_temperature", True, "0 or a number in"),
        (SamplingConfig, "eos_last", 1, "True or False"),
        (SamplingConfig, "write_every_id", None, "True or False"),
        (SamplingConfig, "skip_empty_steps", "no", "True or False"),
        (SamplingConfig, "seed", -1, "an integer of at least 0"),
        (SamplingConfig, "seed", 2**63, "an integer below 2^63"),
        (SamplingConfig, "guidance", "entrgi", "a GuidanceConfig or a function"),
        (GuidanceConfig, "optimiser", "adma", "did you mean 'adam'?"),
        (GuidanceConfig, "optimiser", None, "one of 'adam', 'sgd'"),
        (GuidanceConfig, "steps", -1, "an integer of at least 0"),
        (GuidanceConfig, "steps", 1.5, "an integer of at least 0"),
        (GuidanceConfig, "step_size", 0, "a number in (0, 1e+06]"),
        (GuidanceConfig, "step_size", -math.inf, "a number in (0, 1e+06]"),
        (GuidanceConfig, "weight", "entropy", "did you mean 'entrgi"),
        (GuidanceConfig, "weight", "nothing", "one of 'expectation', 'aps', 'entrgi'"),
        (GuidanceConfig, "dtype", "float8", "did you mean 'float"),
        (GuidanceConfig, "epsilon", -1e-10, "0 or a number in [1e-30, 0.001]"),
    ],
)
def test_errors_name_the_field_the_value_and_what_is_allowed(
    as_users_run_it, cls, name, value, expected
):
    with pytest.raises(ValueError, match=name) as error:
        cls(**{name: value})
    assert str(error.value).startswith(f"{name}: got {value!r}, expected")
    assert expected in str(error.value)


GUIDANCE_SETTINGS = {
    "weight": st.sampled_from(["expectation", "aps", "entrgi", "entrgi_tempered"]),
    "steps": st.integers(0, 99),
    "step_size": st.floats(1e-9, 1e6),
    "dtype": st.sampled_from(["float32", "float64", "bfloat16", "denoiser"]),
    "epsilon": st.floats(1e-30, 1e-3),
    "optimiser": st.sampled_from(["adam", "sgd"]),
}
SETTINGS = {
    "guidance": st.fixed_dictionaries({}, optional=GUIDANCE_SETTINGS),
    "trajectories": st.integers(1, 99),
    "new_tokens": st.integers(1, 999),
    "denoising_steps": st.integers(1, 999),
    "temperature": st.floats(1e-6, 1e6),
    "top_p": st.floats(0, 1, exclude_min=True),
    "order": st.sampled_from(["entropy", "maskgit_plus", "topk_margin", "anchor", "origin"]),
    "order_temperature": st.one_of(st.just(0), st.floats(1e-6, 1e6)),
    "eos_last": st.booleans(),
    "write_every_id": st.booleans(),
    "skip_empty_steps": st.booleans(),
    "seed": st.integers(0, 2**63 - 1),
}


def test_settings_above_are_all_there_are():
    assert list(SETTINGS) == [f.name for f in fields(SamplingConfig)]
    assert list(GUIDANCE_SETTINGS) == [f.name for f in fields(GuidanceConfig)]


def fitting(settings):
    """Without those that have no effect beside the others: they are refused."""
    guidance = settings.get("guidance", {})
    if guidance.get("weight") in ("expectation", "aps"):
        guidance.pop("epsilon", None)
    if settings.get("order") == "origin":
        settings.pop("order_temperature", None)
    return settings


@given(st.fixed_dictionaries({}, optional=SETTINGS).map(fitting))
def test_json_round_trip(settings):
    config = SamplingConfig.from_json(json.dumps(settings))
    for name, value in settings.items():
        if name != "guidance":
            assert getattr(config, name) == value
    for name, value in settings.get("guidance", {}).items():
        assert getattr(config.guidance, name) == value
    assert SamplingConfig.from_json(config.to_json()) == config


def test_unknown_keys_are_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"'temprature'.*did you mean 'temperature'\?"):
        SamplingConfig.from_json('{"temprature": 0.5}')
    with pytest.raises(
        ValueError, match=r"GuidanceConfig setting: got 'step'.*did you mean 'steps'\?"
    ):
        SamplingConfig.from_json('{"guidance": {"step": 2}}')


def test_a_key_that_stands_there_twice_is_refused(as_users_run_it):
    for text in ('{"seed": 1, "seed": 2}', '{"guidance": {"seed": 1, "seed": 1}}'):
        with pytest.raises(ValueError, match="the key 'seed' stands there twice"):
            SamplingConfig.from_json(text)
    for other in (None, 5, ["{}"]):
        with pytest.raises(ValueError, match="SamplingConfig: got text that cannot be read"):
            SamplingConfig.from_json(other)


@pytest.mark.parametrize("text", ["[]", '"entrgi"', '{"guidance": 3}', "{", '{"temperature": NaN}'])
def test_json_that_does_not_fit_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011
        SamplingConfig.from_json(text)


def test_functions_are_as_good_as_names_but_not_in_json(as_users_run_it):
    def half(logits):
        return torch.full((len(logits),), 0.5)

    config = SamplingConfig(GuidanceConfig(weight=half))
    assert config.guidance.weight_function(0.7) is half
    with pytest.raises(ValueError, match="weight: got <function"):
        config.to_json()
    with pytest.raises(ValueError, match="order: got <function"):
        SamplingConfig(order=half).to_json()


def test_weight_functions_that_names_stand_for():
    logits = torch.randn(3, 7, dtype=torch.float64)

    def weight(tau=0.7, **settings):
        return GuidanceConfig(**settings).weight_function(tau)(logits)

    assert torch.equal(weight(weight="entrgi"), entropy_weight(logits))
    assert torch.equal(
        weight(weight="entrgi_tempered", tau=0.5), entropy_weight(logits, temperature=0.5)
    )
    assert torch.equal(weight(weight="entrgi", epsilon=1e-3), entropy_weight(logits, epsilon=1e-3))
    assert torch.equal(
        weight(weight="entrgi_tempered", epsilon=1e-3, tau=2),
        entropy_weight(logits, temperature=2, epsilon=1e-3),
    )
    assert weight(weight="aps").tolist() == [1, 1, 1]
    assert weight(weight="expectation").tolist() == [0, 0, 0]


def test_authors_switches_four_rows_and_nothing_else():
    for weight, epsilon in (("aps", 0), ("entrgi", 1e-10), ("entrgi_tempered", 1e-10)):
        config = SamplingConfig(
            GuidanceConfig(weight, steps=2), order="anchor", eos_last=False, seed=5
        )
        guidance = replace(config.guidance, epsilon=epsilon, dtype="denoiser")
        assert config.authors() == replace(
            config, guidance=guidance, eos_last=True, write_every_id=True
        )
    assert SamplingConfig.authors() == SamplingConfig().authors()


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, float])
@pytest.mark.parametrize("value", [math.inf, math.nan, 1e5])
def test_numbers_of_numpy_are_compared_as_pythons(kind, value):
    """float16 takes the largest number that is allowed for infinity, too."""
    with np.errstate(over="ignore"):
        given = kind(value)
    if math.isfinite(given):
        assert SamplingConfig(temperature=given).temperature == float(given)
    else:
        with pytest.raises(ValueError, match="temperature: got"):
            SamplingConfig(temperature=given)
        with pytest.raises(ValueError, match="step_size: got"):
            GuidanceConfig(step_size=given)


@pytest.mark.parametrize("weight", ["expectation", "aps", lambda logits: logits[:, 0] * 0])
def test_an_epsilon_without_an_entropy_is_refused(weight):
    with pytest.raises(ValueError, match=r"epsilon: got 1e-10, expected 0: .* no entropy"):
        GuidanceConfig(weight, epsilon=1e-10)
    theirs = SamplingConfig.authors()
    assert theirs.guided(weight=weight).guidance.epsilon == 0
    assert theirs.guided(weight="entrgi_tempered").guidance.epsilon == 1e-10
    with pytest.raises(
        ValueError, match=r"epsilon: got 1e-05, expected 0"
    ):  # one that is asked for
        theirs.guided(weight=weight, epsilon=1e-5)


@pytest.mark.parametrize(
    "others", [{}, {"eos_last": False}, {"write_every_id": True}, {"skip_empty_steps": False}]
)
def test_an_order_temperature_without_a_ranking_is_refused(others):
    with pytest.raises(ValueError, match=r"order_temperature: got 0.5, expected 0: .*'origin'"):
        SamplingConfig(order="origin", order_temperature=0.5, **others)


def test_numbers_of_numpy_are_as_good_as_pythons(as_users_run_it):
    config = SamplingConfig(
        GuidanceConfig(steps=np.int64(2), step_size=np.float32(0.5), epsilon=np.float64(1e-10)),
        trajectories=np.int32(3),
        new_tokens=np.uint8(7),
        denoising_steps=np.int16(9),
        temperature=np.float32(0.7),
        top_p=np.float64(0.9),
        order_temperature=np.float32(0.25),
        eos_last=np.bool_(False),
        seed=np.int64(5),
    )
    assert SamplingConfig.from_json(config.to_json()) == config
    assert config.temperature == float(np.float32(0.7))
    values = [getattr(config, f.name) for f in fields(config) if f.name != "guidance"]
    values += [getattr(config.guidance, f.name) for f in fields(config.guidance)]
    assert {type(value) for value in values} <= {int, float, bool, str}


def test_changes_are_of_the_guidance_of_each_step():
    config = SamplingConfig(lambda step: GuidanceConfig(steps=step.index), 1, 4, 4)
    for step in schedule(4, 4):
        changed = config.guided(step_size=2.0).guidance_at(step)
        assert changed == GuidanceConfig(steps=step.index, step_size=2.0)
        theirs = config.authors().guidance_at(step)
        assert theirs == GuidanceConfig(steps=step.index).authors()


def test_guidance_by_step_is_asked_once_for_each_step():
    asked = []

    def by_step(step):
        asked.append(step)
        return GuidanceConfig(steps=3 if step.t > 0.5 else 0)

    config = SamplingConfig(by_step, new_tokens=8, denoising_steps=8)
    steps = config.guided_steps()
    assert [step.index for step in asked] == list(range(8))
    assert [guidance.steps for _, guidance in steps] == [3, 3, 3, 3, 0, 0, 0]
    assert [g.steps for _, g in config.guided(steps=5).guided_steps()] == [5] * 7
    assert all(g.dtype == "denoiser" for _, g in config.authors().guided_steps())
    with pytest.raises(ValueError, match="guidance: got <function"):
        config.to_json()
    with pytest.raises(ValueError, match="guidance: got <function"):
        _ = config.constant_guidance


def test_the_steps_that_run_are_those_of_the_blanks():
    """Of none, no step; without their numbers those of an answer of nothing but blanks."""
    config = SamplingConfig(new_tokens=8, denoising_steps=8)
    assert config.guided_steps([]) == config.guided_steps([0]) == []
    assert [step.index for step, _ in config.guided_steps([1])] == [7]
    assert config.guided_steps(iter([1, 8])) == config.guided_steps([8]) == config.guided_steps()
    assert len(replace(config, skip_empty_steps=False).guided_steps([1])) == 8


def test_a_function_that_gives_no_guidance_is_refused():
    config = SamplingConfig(lambda step: "entrgi" if step.index == 2 else GuidanceConfig())
    with pytest.raises(ValueError, match="guidance: got 'entrgi' for denoising step 2"):
        config.guided_steps()


def test_json_holds_no_optimiser_of_yours():
    config = SamplingConfig(GuidanceConfig(optimiser=torch.optim.RMSprop))
    with pytest.raises(ValueError, match="optimiser: got <class"):
        config.to_json()


@pytest.mark.parametrize(
    ("cls", "name", "largest"),
    [
        (SamplingConfig, "temperature", 1e6),
        (SamplingConfig, "order_temperature", 1e6),
        (SamplingConfig, "top_p", 1.0),
        (GuidanceConfig, "step_size", 1e6),
        (GuidanceConfig, "epsilon", 1e-3),
    ],
)
def test_ranges_end_where_they_say(as_users_run_it, cls, name, largest):
    assert getattr(cls(**{name: largest}), name) == largest
    with pytest.raises(ValueError, match=f"{name}: got"):
        cls(**{name: math.nextafter(largest, math.inf)})


@pytest.mark.parametrize(
    ("cls", "name", "least", "below"),
    [
        (SamplingConfig, "trajectories", 1, 2**24),
        (SamplingConfig, "new_tokens", 1, 2**16),
        (SamplingConfig, "denoising_steps", 1, 2**16),
        (SamplingConfig, "seed", 0, 2**63),
        (GuidanceConfig, "steps", 0, 2**16),
    ],
)
def test_ranges_of_whole_numbers_end_where_they_say(as_users_run_it, cls, name, least, below):
    for taken in (least, below - 1):
        assert getattr(cls(**{name: taken}), name) == taken
    for wrong in (least - 1, below):
        with pytest.raises(ValueError, match=f"{name}: got {wrong}, expected an integer"):
            cls(**{name: wrong})


def test_a_trajectory_pauses_where_steps_are_not_skipped_or_blanks_differ():
    """Otherwise all commit at the same steps, and nothing need be held."""
    config = SamplingConfig(denoising_steps=8, new_tokens=8)
    assert not config.may_pause([8])
    assert not config.may_pause([8, 8])
    assert config.may_pause([8, 3])
    assert replace(config, skip_empty_steps=False).may_pause([8])
    origin = replace(config, order="origin", trajectories=1)
    assert not origin.may_pause([8])
    assert origin.may_pause([8, 8])
    assert replace(origin, skip_empty_steps=False).may_pause([8])
