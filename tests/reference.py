"""A second implementation of the method: slow, plain, one trajectory and one position at a time.

Written from the equations with numbers and lists, for no other use than to be compared with the
package. From the networks it takes logits and the reward's gradient at the mixed embeddings; all
else it computes on its own: the softmax and its derivative, entropy, nucleus, draws, Adam, orders.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import torch

from entrgi_ref import SamplingConfig

MASK64 = 2**64 - 1
HARD, COMMIT, ORDER, ORIGIN = 1, 2, 3, 4


def mix(state: int, field: int) -> int:
    """One output of SplitMix64."""
    z = (state + (field + 1) * 0x9E3779B97F4A7C15) & MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
    return z ^ (z >> 31)


def uniform(fields: Sequence[int]) -> float:
    state = 0
    for field in fields:
        state = mix(state, field)
    return (state >> 11) / 2**53


def softmax(logits: Sequence[float], temperature: float = 1.0) -> list[float]:
    top = max(logits)
    weights = [math.exp((x - top) / temperature) for x in logits]
    return [w / sum(weights) for w in weights]


def entropy(probabilities: Sequence[float]) -> float:
    return -sum(p * math.log(p) for p in probabilities if p > 0)


def nucleus(probabilities: Sequence[float], top_p: float) -> list[float]:
    if top_p == 1:
        return list(probabilities)
    kept, mass = [], 0.0
    for i in sorted(range(len(probabilities)), key=lambda i: (-probabilities[i], i)):
        if mass > top_p:
            break
        kept.append(i)
        mass += probabilities[i]
    return [p / mass if i in kept else 0.0 for i, p in enumerate(probabilities)]


def draw(probabilities: Sequence[float], u: float) -> int:
    reached = 0.0
    for i, p in enumerate(probabilities):
        reached += p
        if u * sum(probabilities) < reached:
            return i
    return max(i for i, p in enumerate(probabilities) if p > 0)


def method_weight(method: str, psi: Sequence[float], temperature: float) -> float:
    if method in ("expectation", "aps"):
        return {"expectation": 0.0, "aps": 1.0}[method]
    q = softmax(psi, temperature if method == "entrgi_tempered" else 1.0)
    return entropy(q) / math.log(len(psi))


def answer(
    denoiser,
    reward,
    prompt: str,
    trajectory: int,
    config: SamplingConfig,
    start: Sequence[int] | None = None,
    key: int | None = None,
) -> list[int]:
    """The tokens of one trajectory of one prompt, computed alone."""
    encoded = denoiser.encode([prompt])
    bound = reward.bind([prompt], 1)
    fields = [config.seed, encoded.keys[0] if key is None else key, trajectory]
    T, N, tau = config.denoising_steps, config.new_tokens, config.temperature
    response = [denoiser.mask_id] * N if start is None else list(start)

    for step in range(T):
        masked = [l for l in range(N) if response[l] == denoiser.mask_id]
        t, s = (1 + (1e-3 - 1) * i / T for i in (step, step + 1))
        share = 1.0 if step == T - 1 else 1 - s / t
        if not masked:
            continue

        # Predict, alone and without padding.
        row = torch.tensor([response])
        tokens = torch.cat([encoded.tokens, row], 1)
        where = row == denoiser.mask_id
        phi = denoiser(tokens, torch.ones_like(tokens, dtype=torch.bool), where).tolist()
        if not config.write_every_id:
            allowed = denoiser.writable.tolist()
            phi = [[x if ok else -math.inf for x, ok in zip(p, allowed, strict=True)] for p in phi]

        # Guide.
        def number(purpose: int, position: int, m: int = 0, step: int = step) -> float:
            return uniform([*fields, purpose, step, m, position])

        at = bound.at(row, where)
        psi = guided(phi, at, masked, config, lambda m, l: number(HARD, l, m), step, t, share)

        # Commit.
        q = [nucleus(softmax(p, tau), config.top_p) for p in psi]
        drawn = [draw(q[i], number(COMMIT, l)) for i, l in enumerate(masked)]
        if config.order == "origin":
            chosen = [i for i, l in enumerate(masked) if number(ORIGIN, l) < share]
        else:
            count = math.floor(torch.tensor(float(len(masked))) * share)
            confidence = [
                confidence_of(config.order, phi[i], psi[i], q[i], drawn[i], tau)
                for i in range(len(masked))
            ]
            if config.order_temperature:
                confidence = [
                    c / config.order_temperature - math.log(-math.log(number(ORDER, l)))
                    for c, l in zip(confidence, masked, strict=True)
                ]
            ends = [config.eos_last and x == denoiser.eos_id for x in drawn]
            ranked = sorted(range(len(masked)), key=lambda i: (ends[i], -confidence[i], i))
            chosen = ranked[:count]
        for i in chosen:
            response[masked[i]] = drawn[i]
    return response


def confidence_of(order, phi, psi, q, token: int, tau: float) -> float:
    if order == "entropy":
        return -entropy(softmax(phi, tau))
    if order == "maskgit_plus":
        return q[token]
    if order == "topk_margin":
        first, second = sorted(q, reverse=True)[:2]
        return first - second
    assert order == "anchor"
    return psi[token]


def guided(
    phi: list[list[float]],
    at,
    masked: list[int],
    config: SamplingConfig,
    number: Callable,
    step: int = 0,
    t: float = 1.0,
    share: float = 1.0,
) -> list[list[float]]:
    """M steps of Adam or of plain ascent on the logits; the softmax's derivative written out."""
    guidance = config.guidance
    if callable(guidance):
        guidance = guidance(SimpleNamespace(index=step, t=t, fraction=share))
    psi = [list(p) for p in phi]
    E = at.embeddings.tolist()
    V, tau = len(E), config.temperature
    first = [[0.0] * V for _ in psi]
    second = [[0.0] * V for _ in psi]
    for m in range(guidance.steps):
        q = [softmax(p, tau) for p in psi]
        mixed = []
        for i, l in enumerate(masked):
            soft = [sum(q[i][v] * E[v][k] for v in range(V)) for k in range(len(E[0]))]
            hard = E[draw(nucleus(q[i], config.top_p), number(m, l))]
            w = method_weight(guidance.weight, psi[i], tau)
            mixed.append([(1 - w) * a + w * b for a, b in zip(soft, hard, strict=True)])
        point = torch.tensor(mixed, dtype=torch.float64, requires_grad=True)
        likely = torch.tensor([max(range(V), key=lambda v: p[v]) for p in psi])
        with torch.enable_grad():
            gradient = torch.autograd.grad(at(point, likely).sum(), point)[0].tolist()
        for i, g in enumerate(gradient):
            along = [sum(a * b for a, b in zip(g, E[v], strict=True)) for v in range(V)]
            mean = sum(q[i][v] * along[v] for v in range(V))
            for v in range(V):
                slope = q[i][v] * (along[v] - mean) / tau
                if guidance.optimiser == "sgd":
                    psi[i][v] += guidance.step_size * slope
                    continue
                first[i][v] = 0.9 * first[i][v] + 0.1 * slope
                second[i][v] = 0.999 * second[i][v] + 0.001 * slope**2
                move = first[i][v] / (1 - 0.9 ** (m + 1))
                size = math.sqrt(second[i][v] / (1 - 0.999 ** (m + 1))) + 1e-8
                psi[i][v] += guidance.step_size * move / size
    return psi
