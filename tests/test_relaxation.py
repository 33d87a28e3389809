"""Eqs. 1 to 5: ranges, limits, symmetries, gradients."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from entrgi_ref import (
    WEIGHTS,
    entropy,
    entropy_weight,
    hard_embedding,
    interpolate,
    soft_embedding,
    token_distribution,
)

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=7)


def arrays(low=-20.0, high=20.0, shape=SHAPES):
    return hnp.arrays(np.float64, shape, elements=st.floats(low, high)).map(torch.from_numpy)


@st.composite
def logits_with_bans(draw):
    """Logits up to 1e4, some of them -inf, at least one per row finite."""
    logits = draw(arrays(-1e4, 1e4))
    banned = draw(hnp.arrays(bool, tuple(logits.shape)).map(torch.from_numpy))
    banned[:, draw(st.integers(0, logits.shape[1] - 1))] = False
    return logits.masked_fill(banned, -torch.inf)


# Eq. 1


@given(logits_with_bans(), st.floats(1e-6, 1e6))
@example(torch.tensor([[1e4, 0.0]], dtype=torch.float64), 1e-6)
def test_distribution_sums_to_one_and_bans_stay_banned(logits, temperature):
    q = token_distribution(logits, temperature)
    assert torch.all(q >= 0)
    torch.testing.assert_close(q.sum(1), torch.ones(len(q), dtype=q.dtype))
    assert torch.all(q[logits == -torch.inf] == 0)


@given(arrays(), st.floats(0.1, 10))
def test_distribution_is_exp_of_logits_over_temperature(logits, temperature):
    q = token_distribution(logits, temperature)
    for row, logits_row in zip(q.tolist(), logits.tolist(), strict=True):
        weights = [math.exp((x - max(logits_row)) / temperature) for x in logits_row]
        assert row == pytest.approx([w / sum(weights) for w in weights])


def test_distribution_survives_half_precision_and_tiny_temperatures():
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        q = token_distribution(torch.tensor([[60000.0, 1.0, -60000.0]], dtype=dtype), 1e-6)
        assert q.tolist() == [[1, 0, 0]]
        assert q.dtype == dtype


@pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf, True, "1"])
def test_distribution_refuses_temperatures(as_users_run_it, temperature):
    with pytest.raises(
        ValueError, match=r"temperature: got .*expected a number in \[1e-06, 1e\+06\]"
    ):
        token_distribution(torch.zeros(1, 2), temperature)


# Eqs. 2 and 3


@given(st.data(), arrays(-3, 3))
def test_soft_embedding_is_the_mean_of_the_hard_ones(data, logits):
    embeddings = data.draw(arrays(shape=(logits.shape[1], 3)))
    q = token_distribution(logits, 1)
    mean = sum(
        q[:, v : v + 1] * hard_embedding(torch.full((len(q),), v), embeddings)
        for v in range(logits.shape[1])
    )
    torch.testing.assert_close(soft_embedding(q, embeddings), mean)


@given(arrays(), st.data())
def test_soft_embedding_of_a_certain_token_is_its_hard_embedding(embeddings, data):
    tokens = torch.tensor(data.draw(st.lists(st.integers(0, len(embeddings) - 1), min_size=1)))
    certain = torch.nn.functional.one_hot(tokens, len(embeddings)).double()
    assert torch.equal(soft_embedding(certain, embeddings), hard_embedding(tokens, embeddings))


def test_embeddings_keep_the_dtype_of_the_table():
    table = torch.randn(4, 2, dtype=torch.bfloat16)
    assert soft_embedding(torch.full((1, 4), 0.25), table).dtype == torch.bfloat16
    assert hard_embedding(torch.tensor([1]), table).dtype == torch.bfloat16


@pytest.mark.parametrize("token", [-1, 4])
def test_hard_embedding_refuses_tokens_out_of_range(token):
    for kind in (ValueError, IndexError):  # the second is torch's own
        with pytest.raises(kind, match=rf"^tokens: got {token}, expected integers in \[0, 4\)$"):
            hard_embedding(torch.tensor([token]), torch.zeros(4, 2))


# Eq. 4


@given(logits_with_bans())
def test_entropy_is_in_range_and_finite(logits):
    h = entropy(logits)
    assert torch.all(h.isfinite())
    assert torch.all(h >= 0)
    possible = logits.isfinite().sum(1)
    assert torch.all(h <= possible.double().log() + 1e-9)


@given(logits_with_bans())
def test_entropy_agrees_with_its_definition(logits):
    for row, h in zip(logits.tolist(), entropy(logits).tolist(), strict=True):
        weights = [math.exp(x - max(row)) for x in row]
        q = [w / sum(weights) for w in weights]
        assert h == pytest.approx(-sum(p * math.log(p) for p in q if p > 0), abs=1e-9)


@given(logits_with_bans())
def test_gradient_of_entropy_is_finite(logits):
    logits.requires_grad_()
    entropy(logits).sum().backward()
    assert torch.all(logits.grad.isfinite())


@given(st.integers(2, 50), st.integers(1, 5), st.floats(-1e4, 1e4))
def test_weight_is_one_at_uniform_and_zero_at_one_hot(vocabulary, rows, level):
    uniform = torch.full((rows, vocabulary), level, dtype=torch.float64)
    torch.testing.assert_close(entropy_weight(uniform), torch.ones(rows, dtype=torch.float64))
    one_hot = torch.full((rows, vocabulary), -torch.inf)
    one_hot[:, vocabulary // 2] = level
    assert entropy_weight(one_hot).tolist() == [0.0] * rows


def test_weight_of_few_tokens_in_a_large_vocabulary():
    """Ledger row 5: with 152,064 tokens, weights near 1 are rare."""
    for tokens, weight in ((2, 0.06), (10, 0.19), (100, 0.39), (1000, 0.58)):
        logits = torch.full((1, 152_064), -torch.inf)
        logits[0, :tokens] = 0
        assert entropy_weight(logits).item() == pytest.approx(weight, abs=0.005)


@given(logits_with_bans())
def test_weight_is_in_the_unit_interval_in_every_dtype(logits):
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        w = entropy_weight(logits.to(dtype))
        assert torch.all((w >= 0) & (w <= 1))
        assert w.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_weight_uses_the_full_width_of_the_vocabulary():
    logits = torch.tensor([[0.0, 0.0, -torch.inf, -torch.inf]])
    assert entropy_weight(logits).item() == pytest.approx(0.5)


@given(arrays(), st.floats(-100, 100))
def test_entropy_ignores_a_shift(logits, shift):
    torch.testing.assert_close(entropy(logits + shift), entropy(logits), rtol=1e-6, atol=1e-9)


@given(arrays(), st.randoms(use_true_random=False))
def test_entropy_is_permutation_equivariant(logits, random):
    columns = random.sample(range(logits.shape[1]), logits.shape[1])
    rows = random.sample(range(len(logits)), len(logits))
    torch.testing.assert_close(entropy(logits[:, columns]), entropy(logits))
    torch.testing.assert_close(entropy(logits[rows]), entropy(logits)[rows])


@given(arrays(), st.floats(0.1, 10), st.floats(1.01, 5))
def test_entropy_grows_with_temperature(logits, temperature, factor):
    cold = entropy_weight(logits, temperature=temperature)
    warm = entropy_weight(logits, temperature=temperature * factor)
    assert torch.all(warm >= cold - 1e-12)


@given(arrays(-3, 3), st.floats(0.1, 5))
def test_weight_at_a_temperature_is_that_of_the_tempered_logits(logits, temperature):
    q = token_distribution(logits, temperature)
    h = -(q * q.log()).sum(1) / math.log(logits.shape[1])
    torch.testing.assert_close(entropy_weight(logits, temperature=temperature), h)


def test_weight_is_detached():
    logits = torch.randn(2, 3, requires_grad=True)
    assert not entropy_weight(logits).requires_grad


def test_epsilon_is_added_inside_the_logarithm():
    logits = torch.tensor([[0.0, 1.0, -torch.inf]], dtype=torch.float64)
    q = logits.softmax(1)
    expected = -(q * (q + 1e-4).log()).sum(1)
    torch.testing.assert_close(entropy(logits, epsilon=1e-4), expected)
    weight = entropy_weight(logits, epsilon=1e-4)
    torch.testing.assert_close(weight, expected / math.log(3))
    tempered = entropy(logits / 0.5, epsilon=1e-4) / math.log(3)
    torch.testing.assert_close(entropy_weight(logits, temperature=0.5, epsilon=1e-4), tempered)
    certain = torch.tensor([[0.0, -torch.inf]], dtype=torch.float64)
    assert entropy(certain, epsilon=1e-10).item() == pytest.approx(-1e-10, rel=1e-5)
    assert entropy_weight(certain, epsilon=1e-10).item() == 0


def test_weight_needs_two_tokens():
    with pytest.raises(ValueError, match="vocabulary of 1"):
        entropy_weight(torch.zeros(3, 1))


def test_methods_are_weight_functions():
    logits = torch.randn(3, 5, dtype=torch.float64)
    assert list(WEIGHTS) == ["expectation", "aps", "entrgi", "entrgi_tempered"]
    assert WEIGHTS["expectation"](logits).tolist() == [0, 0, 0]
    assert WEIGHTS["aps"](logits).tolist() == [1, 1, 1]
    assert torch.equal(WEIGHTS["entrgi"](logits), entropy(logits) / math.log(5))
    assert {weight(logits).dtype for weight in WEIGHTS.values()} == {torch.float64}


@pytest.mark.parametrize("gap", [20, 60, 120, 300, 600])
def test_the_entropy_of_a_nearly_certain_position_keeps_its_digits(gap):
    """Of two tokens of which one is less likely by exp(-gap): (gap + 1) exp(-gap) nats."""
    logits = torch.tensor([[0.0, -gap]], dtype=torch.float64)
    # The 1 is lost where 1 + exp(-gap) rounds to 1.
    assert entropy(logits).item() == pytest.approx(
        (gap + 0.5) * math.exp(-gap), rel=0.6 / gap, abs=0
    )


# Eq. 5


@st.composite
def soft_hard_weight(draw):
    shape = draw(SHAPES)
    soft, hard = draw(arrays(shape=shape)), draw(arrays(shape=shape))
    return soft, hard, draw(arrays(0, 1, shape=shape[:1]))


@given(soft_hard_weight())
def test_interpolation_is_the_weighted_mean(case):
    soft, hard, w = case
    expected = (1 - w)[:, None] * soft + w[:, None] * hard
    torch.testing.assert_close(interpolate(soft, hard, w), expected)


@given(soft_hard_weight())
def test_gradient_of_interpolation_is_that_of_the_soft_embedding(case):
    """For every w, and although hard and w depend on parameters too: sg covers them."""
    soft, hard, w = (x.requires_grad_() for x in case)
    mixed = interpolate(soft, hard, w)
    direction = torch.randn_like(mixed)
    (mixed * direction).sum().backward()
    assert torch.equal(soft.grad, direction)
    assert hard.grad is None
    assert w.grad is None


def test_literal_form_is_another_method():
    """Differentiating (1 - w) soft + w hard would scale the gradient by 1 - w."""
    soft = torch.zeros(1, 2, requires_grad=True)
    hard, w = torch.ones(1, 2), torch.tensor([0.75])
    ours = torch.autograd.grad(interpolate(soft, hard, w).sum(), soft)[0]
    literal = torch.autograd.grad(((1 - w) * soft + w * hard).sum(), soft)[0]
    assert ours.tolist() == [[1, 1]]
    assert literal.tolist() == [[0.25, 0.25]]


@pytest.mark.parametrize("shape", [(), (3,), (2, 1), (1, 2)])
def test_interpolation_refuses_weights_of_another_shape(as_users_run_it, shape):
    with pytest.raises(ValueError, match=r"weight: got shape .*expected \[n\], one number"):
        interpolate(torch.zeros(2, 4), torch.zeros(2, 4), torch.zeros(shape))


@pytest.mark.parametrize("shape", [(4,), (2, 2, 4)])
def test_interpolation_refuses_what_is_no_list_of_embeddings(as_users_run_it, shape):
    """A weight would go along another axis."""
    with pytest.raises(ValueError, match=r"weight: got shape .*expected \[n\], one number"):
        interpolate(torch.zeros(shape), torch.zeros(shape), torch.zeros(shape[0]))


def test_interpolation_keeps_the_dtype_of_the_embeddings():
    half = torch.ones(2, 4, dtype=torch.bfloat16)
    assert interpolate(half, half, torch.zeros(2)).dtype == torch.bfloat16


# Gradients of the whole chain


def gradient(logits, embeddings, reward, weight, tokens, temperature):
    """dR/dpsi of one gradient step of `guide`, before Adam."""
    psi = logits.clone().requires_grad_()
    soft = soft_embedding(token_distribution(psi, temperature), embeddings)
    mixed = interpolate(soft, hard_embedding(tokens, embeddings), weight(psi.detach()))
    return torch.autograd.grad(reward(mixed), psi)[0]


@given(arrays(-3, 3), st.data(), st.floats(0.3, 3), st.sampled_from(sorted(WEIGHTS)))
def test_gradient_against_finite_differences(logits, data, temperature, method):
    """The chain's derivative is that of R(soft(psi) + c) with c = w (hard - soft) held fixed."""
    embeddings = data.draw(arrays(-1, 1, shape=(logits.shape[1], 3)))
    tokens = torch.tensor(
        data.draw(
            st.lists(
                st.integers(0, logits.shape[1] - 1), min_size=len(logits), max_size=len(logits)
            )
        )
    )

    def reward(mixed):
        return torch.sin(mixed.sum(0)).sum() + (mixed**2).sum() / 3

    def soft(psi):
        return soft_embedding(token_distribution(psi, temperature), embeddings)

    w = WEIGHTS[method](logits)[:, None]
    offset = w * (hard_embedding(tokens, embeddings) - soft(logits))
    found = gradient(logits, embeddings, reward, WEIGHTS[method], tokens, temperature)
    step = 1e-6
    for i, v in itertools.product(range(len(logits)), range(logits.shape[1])):
        bump = torch.zeros_like(logits)
        bump[i, v] = step
        ahead, behind = (reward(soft(logits + s * bump) + offset) for s in (1, -1))
        assert found[i, v].item() == pytest.approx(((ahead - behind) / (2 * step)).item(), abs=1e-6)


@given(arrays(-2, 2, shape=st.tuples(st.integers(1, 3), st.integers(2, 4))), st.data())
def test_linear_reward_gives_every_method_the_exact_gradient(logits, data):
    """E_q[R(E[x])] by enumeration of all V^n answers; R linear in the embeddings."""
    n, V = logits.shape
    embeddings = data.draw(arrays(-2, 2, shape=(V, 2)))
    slope = data.draw(arrays(-2, 2, shape=(n, 2)))
    tokens = torch.tensor(data.draw(st.lists(st.integers(0, V - 1), min_size=n, max_size=n)))
    temperature = data.draw(st.floats(0.4, 2))

    psi = logits.clone().requires_grad_()
    q = token_distribution(psi, temperature)
    expected_reward = sum(
        math.prod(q[i, x] for i, x in enumerate(answer)) * (slope * embeddings[list(answer)]).sum()
        for answer in itertools.product(range(V), repeat=n)
    )
    exact = torch.autograd.grad(expected_reward, psi)[0]
    assume(exact.isfinite().all())

    for weight in (*WEIGHTS.values(), lambda logits: torch.full((n,), 0.3).double()):
        found = gradient(
            logits, embeddings, lambda mixed: (slope * mixed).sum(), weight, tokens, temperature
        )
        torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-9)


def test_entropy_counts_the_improbable_tokens_of_a_large_vocabulary():
    """One likely token and 152,063 of e^-21 each: together 1.2e-4 of probability, 2.5e-3 nats."""
    logits = torch.full((1, 152_064), -21.0, dtype=torch.float64)
    logits[0, 0] = 0
    rest = 152_063 * math.exp(-21)
    expected = math.log(1 + rest) + 21 * rest / (1 + rest)
    # A sum one by one from 1 on rounds by up to 1e-16 at each of 152,063 additions.
    assert entropy(logits).item() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_tempered_weights_do_not_overflow(dtype):
    """30 / 1e-4 is more than float16 can hold."""
    logits = torch.tensor([[30.0, 1.0, 0.0], [0.0, 0.0, 0.0]], dtype=dtype)
    assert entropy_weight(logits, temperature=1e-4).tolist() == pytest.approx([0, 1])


@pytest.mark.parametrize("temperature", [0, -1.0, 1e-7, math.nan, math.inf, "1"])
def test_a_temperature_that_is_none_is_refused_by_the_weight(as_users_run_it, temperature):
    with pytest.raises(ValueError, match=r"temperature: got .*\[1e-06, 1e\+06\]"):
        entropy_weight(torch.zeros(2, 3), temperature=temperature)


@pytest.mark.parametrize("epsilon", [-1e-10, 1.0, math.nan, None])
def test_an_epsilon_that_is_none_is_refused(as_users_run_it, epsilon):
    for function in (entropy, entropy_weight):
        with pytest.raises(ValueError, match=r"epsilon: got .*\[1e-30, 0.001\]"):
            function(torch.zeros(2, 3), epsilon=epsilon)


def test_every_named_weight_is_a_function_of_the_logits():
    logits = torch.randn(4, 9, dtype=torch.float64)
    for name, weight in WEIGHTS.items():
        w = weight(logits)
        assert w.shape == (4,), name
        assert ((w >= 0) & (w <= 1)).all()
    assert torch.equal(
        WEIGHTS["entrgi_tempered"](logits), entropy_weight(logits, temperature=0.7)
    ), "by itself at the paper's tau"


@pytest.mark.parametrize("epsilon", [0, 1e-30, 1e-10, 1e-3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_no_epsilon_makes_a_gradient_of_nan(dtype, epsilon):
    logits = torch.tensor([[0.0, 0.0, -torch.inf], [0.0, -torch.inf, -torch.inf]], dtype=dtype)
    logits.requires_grad_()
    h = entropy(logits, epsilon=epsilon)
    assert h.tolist() == pytest.approx([math.log(2), 0], abs=3 * epsilon + 1e-6)
    (gradient,) = torch.autograd.grad(h.sum(), logits)
    assert gradient.isfinite().all()
    assert entropy_weight(logits, epsilon=epsilon).isfinite().all()


@pytest.mark.parametrize("epsilon", [1e-50, 1e-46, 1e-31, 0.1, -1e-10, math.nan])
def test_an_epsilon_that_float32_cannot_add_is_refused(epsilon):
    """Of 1e-46 it makes 0, and 0 log 0 would be nan."""
    with pytest.raises(ValueError, match=r"epsilon: got .*0 or a number in \[1e-30, 0.001\]"):
        entropy(torch.zeros(1, 2), epsilon=epsilon)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_rounding_takes_a_weight_out_of_its_range(dtype):
    """Of a uniform row H / log V is often an ulp above 1; epsilon takes a certain one below 0."""
    above = 0
    for V in range(2, 70):
        uniform, certain = torch.zeros(1, V, dtype=dtype), 1e4 * torch.eye(1, V, dtype=dtype)
        above += bool(entropy(uniform) / math.log(V) > 1)
        for epsilon in (0.0, 1e-3):
            assert 0 <= entropy_weight(uniform, epsilon=epsilon) <= 1
            assert entropy_weight(certain, epsilon=epsilon) == 0
    assert above
