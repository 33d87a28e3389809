"""What is true, by counting: gradients, tilted distributions, distances. In numpy, and without a
line in common with what is judged by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softmax(logits: Array, temperature: float = 1.0) -> Array:
    """Along the last axis."""
    shifted = np.exp((logits - logits.max(-1, keepdims=True)) / temperature)
    return np.asarray(shifted / shifted.sum(-1, keepdims=True))


def expected_reward(logits: Sequence[Array], rewards: Array, temperature: float) -> float:
    """E[R(x)] where the word at each masked position is drawn by itself from softmax(psi / tau).

    `logits` has the psi of each masked position, `rewards` an axis for each.
    """
    found = rewards
    for psi in logits:
        found = np.tensordot(softmax(psi, temperature), found, 1)
    return float(found)


def gradient(logits: Sequence[Array], rewards: Array, temperature: float) -> list[Array]:
    """The gradient of `expected_reward` in the logits of each position:

    q_i (E[R | x_l = i] - E[R]) / tau.
    """
    q = [softmax(psi, temperature) for psi in logits]
    found = []
    for here in range(len(q)):
        given = np.moveaxis(rewards, here, 0)
        for other in reversed([q[i] for i in range(len(q)) if i != here]):
            given = given @ other
        found.append(q[here] * (given - q[here] @ given) / temperature)
    return found


def tilted(log_p: Array, rewards: Array, beta: float) -> Array:
    """p(x) exp(R(x) / beta) / Z over all answers: what guidance is meant to draw from."""
    return softmax(log_p + rewards / beta)


def divergence(p: Array, log_q: Array) -> float:
    """KL(p || q) in nats."""
    some = p > 0
    return float(p[some] @ (np.log(p[some]) - log_q[some]))


def total_variation(p: Array, q: Array) -> float:
    """In [0, 1]."""
    return float(np.abs(p - q).sum() / 2)


def of_mean(log_p: Array, rewards: Array, reward: float) -> Array:
    """The tilted distribution with this mean reward: of all that have it the nearest to p.

    p itself up to its own mean reward. `ValueError` if no distribution has it.
    """
    if reward <= softmax(log_p) @ rewards:
        return softmax(log_p)
    if reward >= rewards.max():
        raise ValueError(f"reward: got {reward}, expected below the best answer's, {rewards.max()}")
    low, high = -12.0, 12.0  # the logarithm of 1 / beta
    for _ in range(60):
        middle = (low + high) / 2
        if softmax(log_p + np.exp(middle) * rewards) @ rewards < reward:
            low = middle
        else:
            high = middle
    return softmax(log_p + np.exp(high) * rewards)


def best_of(log_p: Array, rewards: Array, K: int) -> Array:
    """The distribution of the best of K draws from p; of equal rewards each is as likely the best.

    The chance that all K are at most R, less the chance that all are below R.
    """
    p = softmax(log_p)
    levels, place = np.unique(rewards, return_inverse=True)
    mass = np.bincount(place, p, len(levels))
    upto = np.minimum(np.cumsum(mass), 1)
    best = upto**K - np.append(0, upto[:-1]) ** K
    return np.asarray(p * (best / mass)[place])


def counts(places: NDArray[np.int64], answers: int) -> Array:
    """How often each answer was drawn."""
    return np.bincount(places, minlength=answers).astype(float)


def estimated_divergence(drawn: Array, log_q: Array) -> float:
    """KL(s || q) in nats for a sampler s that drew each answer so often.

    The entropy of s has the correction of Miller and Madow (1955), half a nat for each answer seen
    but one, over the number of draws; the cross-entropy is a mean over draws, which is unbiased.
    """
    n = drawn.sum()
    share = drawn[drawn > 0] / n
    entropy = -(share @ np.log(share)) + (len(share) - 1) / (2 * n)
    return float(-entropy - share @ log_q[drawn > 0])


def unguided_law(
    conditionals: Callable[[tuple[int, ...]], Array], words: int, length: int, per_step: list[int]
) -> Array:
    """The distribution of answers when so many positions are written at each step, the ones of
    least entropy first, each from its own conditional.

    `conditionals` takes a board with -1 at masks and gives a row for each of them.
    """
    found = np.zeros((words,) * length)

    def follow(board: tuple[int, ...], steps: list[int], chance: float) -> None:
        if -1 not in board:
            found[board] += chance
            return
        q = conditionals(board)
        logs = np.log(q, out=np.zeros_like(q), where=q > 0)
        blank = [i for i, word in enumerate(board) if word < 0]
        first = np.argsort(-(q * logs).sum(1), kind="stable")[: steps[0]]
        for chosen in np.ndindex(*(words,) * len(first)):
            p = chance * float(np.prod([q[i, word] for i, word in zip(first, chosen, strict=True)]))
            if p:
                after = list(board)
                for i, word in zip(first, chosen, strict=True):
                    after[blank[i]] = word
                follow(tuple(after), steps[1:], p)

    follow((-1,) * length, per_step, 1.0)
    return found.ravel()


def quotas(length: int, steps: int) -> list[int]:
    """How many positions each step writes that writes any: of the masked ones the share by which
    the noise level falls, from 1 to 0.001 in equal steps, rounded down; the last writes the rest.
    """
    levels = np.linspace(1, 1e-3, steps + 1)
    found, masked = [], length
    for i in range(steps):
        last = i == steps - 1
        now = masked if last else int(masked * (1 - levels[i + 1] / levels[i]))
        masked -= now
        if now:
            found.append(now)
    return found
