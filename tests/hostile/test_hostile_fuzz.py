"""Valid files, changed at random: no reader raises anything but one line.

A dozen of each here; `make fuzz` goes on for minutes.
"""

import functools
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus import refusal
from fuzzed import mutated, targets
from properties import tried

pytestmark = pytest.mark.usefixtures("as_users_run_it")
NAMES = (
    *("records", "run.json", "settings", "benchmark", "prompts", "config.json"),
    *("a reward's config.json", "tokenizer_config.json", "vocab.json", "weights"),
)
of = functools.cache(targets)


def test_the_valid_files_are_read():
    assert set(of()) == set(NAMES)
    for name, target in of().items():
        assert refusal(lambda target=target: target.read(target.valid)) is None, name


@pytest.mark.parametrize("name", NAMES)
@tried(40)
@given(seed=st.integers(0, 2**64 - 1))
def test_a_changed_file_is_read_or_refused(name, seed):
    target = of()[name]
    data = mutated(target, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refusal(lambda: target.read(data))
