"""The equation registry: which function computes which equation.

A function that computes an equation of the method carries its id, `@equation("eq:entropy-weight")`.
The tests check that every equation has its function, and the documentation finds the source of an
equation by its id. The numbering follows the order in which the method uses the equations; the
paper's own numbers may differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from . import checks


@dataclass(frozen=True)
class Equation:
    """An equation or a step of the algorithm: its number, its statement in LaTeX, and where the
    statement comes from.

    `source` is `seed` (the paper's public summary), `page` (the authors' project page), `code` (how
    the authors' code behaves) or `ours` (our own reading), or several of them.
    """

    number: str
    statement: str
    source: str


EQUATIONS = {
    "eq:token-distribution": Equation("Eq. 1", r"q = \mathrm{softmax}(\psi / \tau)", "seed"),
    "eq:soft-embedding": Equation("Eq. 2", r"\bar e = \sum_i q_i E^R_i", "seed"),
    "eq:hard-embedding": Equation("Eq. 3", r"\tilde e = E^R[x],\quad x \sim q", "seed"),
    "eq:entropy": Equation("Eq. 4", r"H(q) = -\sum_i q_i \log q_i", "seed"),
    "eq:entropy-weight": Equation("Eq. 4", r"w = H(q) / \log K", "seed"),
    "eq:interpolation": Equation(
        "Eq. 5", r"\hat e = \bar e + \mathrm{sg}\big(w (\tilde e - \bar e)\big)", "page, code"
    ),
    "eq:logit-gradient": Equation(
        "Eq. 6",
        r"\nabla_{\psi_i} R = q_i\, \langle g, E^R_i - \bar e \rangle / \tau",
        "ours",
    ),
    "eq:guidance-step": Equation(
        "Eq. 6", r"\psi \leftarrow \psi + \eta\, \nabla_\psi R(\hat e)", "seed, code"
    ),
    "alg:commit": Equation(
        "Eq. 7",
        r"x \sim \mathrm{softmax}(\psi / \tau), \text{ keep the most confident}",
        "seed, code",
    ),
    "eq:approximation-error": Equation(
        "Eq. 8", r"\mathcal E = \lVert \hat e - \bar e \rVert", "ours"
    ),
    "eq:discreteness-error": Equation(
        "Eq. 8", r"\mathcal D = \lVert \hat e - \tilde e \rVert", "ours"
    ),
    "alg:generate": Equation("Alg. 1", r"z_T \to \dots \to z_0", "seed, code"),
    "alg:schedule": Equation("Alg. 1", r"\lfloor n (1 - s/t) \rfloor", "code"),
    "alg:order": Equation("Alg. 1", r"\text{confidence of each masked position}", "code"),
    "alg:nucleus": Equation(
        "Alg. 1", r"\text{the most probable tokens that reach mass } p", "code"
    ),
    "alg:draw": Equation("Alg. 1", r"x = F_q^{-1}(u),\quad u = \mathrm{hash}(\text{key})", "ours"),
}
"""Every equation id, with its number, statement and source."""

IMPLEMENTATIONS: dict[str, str] = {}
"""Equation id -> `module:function` of the code that computes it, filled by `equation`."""

Function = TypeVar("Function", bound=Callable[..., object])


def equation(id: str) -> Callable[[Function], Function]:
    """Mark the decorated function as the code of an equation, whose errors name what does not fit
    (`checks.explained`). `KeyError` for an unknown id.
    """
    if id not in EQUATIONS:
        raise KeyError(f"{id!r} is not a known equation id: add it to EQUATIONS")

    def mark(function: Function) -> Function:
        IMPLEMENTATIONS[id] = f"{function.__module__}:{function.__qualname__}"
        return checks.explained(function)

    return mark
