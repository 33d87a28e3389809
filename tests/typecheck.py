"""The type checker of the tests: an int is as good as a float, as everywhere in Python."""

import functools
import inspect

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped

MOST = 400
"""Calls that are checked in a test. Small networks are called so often that checks took most of
the time of the tests.
"""
calls = 0


def begin() -> None:
    """Check from here on: at the start of each test."""
    global calls
    calls = 0
    jaxtyping.config.update("jaxtyping_disable", False)


def decorator(typechecker):
    """What jaxtyping's hook decorates with. A function inside of another is decorated whenever the
    outer one runs, which takes longer than what it does: so only if it has shapes.
    """
    if typechecker == "context":  # as in `checks.explained`
        return jaxtyped("context")
    decorate = jaxtyped(typechecker=typechecker)

    def decorated(checked):
        shapes = "[Tensor" in str(checked.__annotations__)
        return decorate(checked) if shapes or "<locals>" not in checked.__qualname__ else checked

    return decorated


def check(checked):
    """Check what a function is called with."""
    checked = beartype(conf=BeartypeConf(is_pep484_tower=True))(checked)
    if not inspect.isfunction(checked):
        return checked

    @functools.wraps(checked)
    def counted(*args, **kwargs):
        global calls
        calls += 1
        if calls == MOST:
            jaxtyping.config.update("jaxtyping_disable", True)
        return checked(*args, **kwargs)

    return counted
