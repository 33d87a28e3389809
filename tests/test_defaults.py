"""What is taken where nothing is said: a change of it changes what everybody gets."""

import importlib
import inspect
import operator
from dataclasses import MISSING, fields

import pytest

DEFAULTS = {
    "entrgi_ref.config:GuidanceConfig": {
        "weight": "entrgi",
        "steps": 3,
        "step_size": 0.5,
        "dtype": "float32",
        "epsilon": 0.0,
        "optimiser": "adam",
    },
    "entrgi_ref.config:SamplingConfig": {
        "trajectories": 4,
        "new_tokens": 128,
        "denoising_steps": 128,
        "temperature": 0.7,
        "top_p": 0.95,
        "order": "entropy",
        "order_temperature": 0.0,
        "eos_last": True,
        "write_every_id": False,
        "skip_empty_steps": True,
        "seed": 0,
    },
    "entrgi_ref.denoising:generate": {
        "config": None,
        "start": None,
        "keys": None,
        "observe": None,
        "draws": None,
        "vocabulary_batch": None,
    },
    "entrgi_ref.denoising:predict": {"dtype": None, "every_id": False, "n": None},
    "entrgi_ref.draws:KeyedStepDraws.uniform": {"gradient_step": 0},
    "entrgi_ref.guidance:guide": {"optimiser": "adam", "observe": None, "trajectories": None},
    "entrgi_ref.orders:rank": {"order": "entropy", "order_temperature": 0.0},
    "entrgi_ref.orders:commit": {"put_last": None},
    "entrgi_ref.relaxation:entropy": {"epsilon": 0.0},
    "entrgi_ref.relaxation:entropy_weight": {"temperature": 1.0, "epsilon": 0.0},
    "entrgi_ref.rivals:smc": {"config": None, "beta": 1.0, "keys": None},
    "entrgi_ref.rivals:self_smc": {"config": None, "beta": 1.0, "keys": None},
    "entrgi_ref.rivals:lookahead": {"config": None, "candidates": 8, "beta": 1.0, "keys": None},
    "entrgi_ref.rivals:damped": {"config": None},
}


@pytest.mark.parametrize("of", DEFAULTS)
def test_defaults(of):
    module, name = of.split(":")
    found = operator.attrgetter(name)(importlib.import_module(module))
    if inspect.isclass(found):
        given = {field.name: field.default for field in fields(found)}
    else:
        of_function = inspect.signature(found).parameters.values()
        given = {one.name: one.default for one in of_function if one.default is not one.empty}
    expected = DEFAULTS[of]
    assert {name: value for name, value in given.items() if value is not MISSING} == expected
    for name, value in expected.items():
        assert type(given[name]) is type(value)
