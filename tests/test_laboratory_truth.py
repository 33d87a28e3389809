"""The truth of the laboratory, by brute force; and what is judged by it."""

import ast
import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from entrgi_ref import GuidanceConfig, SamplingConfig, generate, interpolate
from entrgi_ref.schedule import busy_steps, schedule
from properties import tried
from toy.laboratory import distribution, gradient, infilling, truth
from toy.laboratory.languages import (
    PROMPT,
    Enumerable,
    ExactDenoiser,
    NetworkReward,
    RewardKind,
    Wide,
)
from toy.laboratory.sampling import CHANGES, Samplers, ScoreFunction

BRIEF = RewardKind(width=8, layers=1, steps=15)
LANGUAGE = Enumerable(7, 3, 3)
NARROW = Wide(5, 20, 3, smoothing=0.1)
SIZES = gradient.Sizes(4, ("base",), most_draws=100)


@pytest.fixture(scope="module")
def reward():
    return NetworkReward.trained(LANGUAGE, BRIEF, 7)


def all_answers(language):
    return torch.cartesian_prod(*[torch.arange(language.V)] * language.N)


# Counting


def test_what_is_true_is_computed_by_numpy_alone():
    tree = ast.parse(Path(truth.__file__).read_text())
    modules = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [node.names[0].name])
    }
    assert modules == {"__future__", "collections.abc", "numpy", "numpy.typing"}


@tried(25)
@given(st.integers(0, 10**6), st.integers(1, 3), st.sampled_from([0.3, 0.7, 1.0]))
def test_the_exact_gradient_is_that_of_finite_differences(seed, n, tau):
    rng = np.random.default_rng(seed)
    logits = [rng.normal(size=int(V)) for V in rng.integers(2, 5, n)]
    rewards = rng.normal(size=[len(psi) for psi in logits])
    found = truth.gradient(logits, rewards, tau)
    h = 1e-4
    for here, psi in enumerate(logits):
        for i in range(len(psi)):

            def moved(by, here=here, i=i):
                other = [one.copy() for one in logits]
                other[here][i] += by
                return truth.expected_reward(other, rewards, tau)

            # Of fourth order: the error of the second is above what is to be seen.
            slope = 8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))
            assert found[here][i] == pytest.approx(slope / (12 * h), abs=1e-8)


def test_the_expected_reward_is_that_of_draws():
    rng = np.random.default_rng(0)
    logits, rewards = [rng.normal(size=3), rng.normal(size=4)], rng.normal(size=(3, 4))
    q = [np.exp(psi / 0.7) / np.exp(psi / 0.7).sum() for psi in logits]
    first, second = (rng.choice(len(p), 200_000, p=p) for p in q)
    drawn = rewards[first, second]
    wrong = abs(drawn.mean() - truth.expected_reward(logits, rewards, 0.7))
    assert wrong < 4 * drawn.std() / math.sqrt(len(drawn))
    # Its gradient too: the score function's mean.
    score = (np.eye(3)[first] - q[0]) / 0.7
    each = drawn[:, None] * score
    wrong = np.abs(each.mean(0) - truth.gradient(logits, rewards, 0.7)[0])
    assert (wrong < 4 * each.std(0) / math.sqrt(len(each))).all()


def test_the_tilted_distribution_is_that_of_a_loop():
    rng = np.random.default_rng(1)
    raw, rewards = rng.normal(size=50), rng.normal(size=50)
    log_p = raw - math.log(sum(math.exp(x) for x in raw))
    for beta in (0.25, 1.0, 4.0):
        weights = [math.exp(a) * math.exp(r / beta) for a, r in zip(log_p, rewards, strict=True)]
        found = truth.tilted(log_p, rewards, beta)
        assert found.sum() == pytest.approx(1, abs=1e-12)
        np.testing.assert_allclose(found, np.array(weights) / sum(weights), rtol=1e-12)


@tried(30)
@given(st.integers(0, 10**6), st.floats(0.05, 0.95))
def test_no_distribution_has_the_reward_for_less(seed, share):
    rng = np.random.default_rng(seed)
    log_p, rewards = np.log(rng.dirichlet(np.ones(20))), rng.normal(size=20)
    base = np.exp(log_p) @ rewards
    wanted = base + share * (rewards.max() - base)
    best = truth.of_mean(log_p, rewards, wanted)
    assert best @ rewards == pytest.approx(wanted, abs=1e-6)
    least = truth.divergence(best, log_p)
    for _ in range(20):
        q = rng.dirichlet(np.ones(20))
        # Mixed with the best or the worst answer until it has the reward.
        end = rewards.argmax() if q @ rewards < wanted else rewards.argmin()
        part = (wanted - q @ rewards) / (rewards[end] - q @ rewards)
        q = (1 - part) * q + part * np.eye(20)[end]
        assert truth.divergence(q, log_p) >= least - 1e-9
    # The distance to it is what is paid above the least.
    excess = truth.divergence(q, log_p) - least
    assert truth.divergence(q, np.log(best)) == pytest.approx(excess, abs=1e-4)


def test_a_reward_below_the_mean_costs_nothing_and_one_above_the_best_cannot_be():
    log_p, rewards = np.log(np.array([0.5, 0.3, 0.2])), np.array([0.0, 1.0, 2.0])
    np.testing.assert_allclose(truth.of_mean(log_p, rewards, 0.7), np.exp(log_p))
    with pytest.raises(ValueError, match="expected below the best answer's, 2"):
        truth.of_mean(log_p, rewards, 2.0)


@pytest.mark.parametrize("K", [1, 2, 3])
def test_the_best_of_some_is_that_of_all_tuples(K):
    p, rewards = np.array([0.4, 0.3, 0.2, 0.1]), np.array([1.0, 2.0, 2.0, -1.0])
    expected = np.zeros(4)
    for drawn in itertools.product(range(4), repeat=K):
        best = max(rewards[i] for i in drawn)
        winners = [i for i in drawn if rewards[i] == best]
        for i in winners:
            expected[i] += np.prod(p[list(drawn)]) / len(winners)
    np.testing.assert_allclose(truth.best_of(np.log(p), rewards, K), expected, atol=1e-12)


def test_estimates_of_kl_come_near_with_more_draws():
    rng = np.random.default_rng(3)
    p, s = rng.dirichlet(np.ones(200)), rng.dirichlet(np.ones(200))
    wanted = truth.divergence(s, np.log(p))
    errors, bias = {}, {}
    for n in (500, 5_000, 50_000):
        drawn = rng.multinomial(n, s, size=40).astype(float)
        found = np.array([truth.estimated_divergence(one, np.log(p)) for one in drawn])
        errors[n] = math.sqrt(((found - wanted) ** 2).mean())
        bias[n] = abs(found.mean() - wanted)
    assert errors[500] > 2 * errors[5_000] > 4 * errors[50_000]
    assert errors[50_000] < 0.01
    assert bias[5_000] < 199 / (2 * 5_000) / 2
    # Half a nat for each answer but one: without it the estimate is too large by so much.
    plain = [(x / n) @ (np.log(x / n, where=x > 0, out=np.zeros(200)) - np.log(p)) for x in drawn]
    assert np.mean(plain) - wanted == pytest.approx(199 / (2 * n), rel=0.3)


@tried(60)
@given(st.integers(1, 40), st.integers(1, 60))
def test_quotas_are_those_of_the_schedule(N, T):
    busy = busy_steps(T, [N])
    steps = [step for step in schedule(T, N) if step.index in busy]
    assert len(truth.quotas(N, T)) == len(steps)
    assert sum(truth.quotas(N, T)) == N


# Languages


@tried(20)
@given(st.integers(0, 10**4), st.sampled_from([LANGUAGE, NARROW]))
def test_conditionals_are_those_of_all_answers(seed, language):
    g = torch.Generator().manual_seed(seed)
    tokens = language.sample(1, g)
    masked = torch.rand(1, language.N, generator=g) < 0.6
    answers = all_answers(language)
    p = language.log_likelihood(answers).exp()
    fits = ((answers == tokens) | masked).all(1)
    found = language.conditionals(tokens.masked_fill(masked, language.V), masked)
    for place in masked[0].nonzero().flatten():
        wanted = torch.zeros(language.V, dtype=p.dtype).index_add(0, answers[fits, place], p[fits])
        torch.testing.assert_close(found[0, place], wanted / wanted.sum(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("language", [LANGUAGE, NARROW, replace(NARROW, smoothing=0.0)])
def test_answers_are_drawn_with_their_probabilities(language):
    answers = all_answers(language)
    p = language.log_likelihood(answers).exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-9)
    drawn = language.sample(40_000, torch.Generator().manual_seed(0))
    powers = language.V ** torch.arange(language.N - 1, -1, -1)
    share = torch.bincount((drawn * powers).sum(1), minlength=len(p)) / len(drawn)
    noise = (p * (1 - p) / len(drawn)).sqrt()
    assert ((share - p).abs() <= 5 * noise + 1e-4).all()
    gold = language.gold(drawn)
    assert abs(float(gold.mean())) < 0.05
    assert float(gold.std()) == pytest.approx(1, abs=0.05)


def test_another_seed_is_another_language_and_the_same_is_the_same():
    answers = all_answers(LANGUAGE)
    again, other = Enumerable(7, 3, 3), Enumerable(8, 3, 3)
    assert torch.equal(again.log_likelihood(answers), LANGUAGE.log_likelihood(answers))
    assert torch.equal(again.gold(answers), LANGUAGE.gold(answers))
    assert not torch.allclose(other.log_p, LANGUAGE.log_p)
    assert not torch.allclose(other.gold(answers), LANGUAGE.gold(answers))


def test_a_trained_reward_knows_the_gold_score_but_not_all_of_it():
    found = NetworkReward.trained(LANGUAGE, RewardKind(width=8, layers=1, steps=150), 7)
    sample = LANGUAGE.sample(2_000, torch.Generator().manual_seed(1))
    both = torch.stack([found.of(sample), LANGUAGE.gold(sample)])
    assert 0.5 < float(torch.corrcoef(both)[0, 1]) < 0.9999


# Samplers


def configured(draws, T=3):
    unguided = GuidanceConfig(steps=0, dtype="float64")
    return SamplingConfig(unguided, draws, 3, T, temperature=1.0, top_p=1.0)


def conditionals(board):
    tokens = torch.tensor([board])
    return LANGUAGE.conditionals(tokens, tokens < 0)[tokens < 0].numpy()


@pytest.mark.parametrize("T", [1, 3, 6])
def test_the_law_of_the_unguided_sampler(reward, T):
    law = truth.unguided_law(conditionals, 3, 3, truth.quotas(3, T))
    assert law.sum() == pytest.approx(1, abs=1e-12)
    drawn = generate(ExactDenoiser(LANGUAGE), reward, [PROMPT], configured(20_000, T)).tokens[0]
    share = truth.counts(LANGUAGE.index(drawn).numpy(), 27) / len(drawn)
    assert truth.total_variation(share, law) < 0.02


def test_one_word_at_a_time_in_any_order_is_the_language_itself():
    law = truth.unguided_law(conditionals, 3, 3, [1, 1, 1])
    np.testing.assert_allclose(law, LANGUAGE.log_p.exp().numpy(), atol=1e-12)
    together = truth.unguided_law(conditionals, 3, 3, [3])
    assert truth.divergence(together, LANGUAGE.log_p.numpy()) > 0.01


def test_step_sizes_fade_or_grow():
    """fading: eta t; damped: eta (1 - s), and so the other way."""
    config = SamplingConfig(GuidanceConfig("entrgi", 3, 2.0), 1, 4, 4, skip_empty_steps=False)
    sizes = {
        name: [guidance.step_size for _, guidance in change(config).guided_steps()]
        for name, change in CHANGES.items()
    }
    assert sizes["fading"] == [2 * step.t for step in schedule(4, 4)]
    assert sizes["fading"] == sorted(sizes["fading"], reverse=True)
    assert sizes["damped"] == sorted(sizes["damped"])


def test_the_score_function_climbs_the_exact_gradient(reward):
    """Its mean over many rows, through the softmax as `guide` takes it."""
    state = next(gradient.states(LANGUAGE, replace(SIZES, states=1), 3))
    wanted, _ = gradient.exact(state, reward, SIZES)
    rows, n = 20_000, len(state.words)
    guiding = ScoreFunction(reward, torch.Generator().manual_seed(0))
    step = guiding.at(state.tokens.expand(rows, -1), state.masked.expand(rows, -1))
    padded = torch.nn.functional.pad(state.logits, (0, 1), value=-torch.inf)
    psi = padded.repeat(rows, 1).requires_grad_()
    value = step((psi / SIZES.temperature).softmax(-1) @ guiding.embeddings, psi.argmax(-1))
    each = torch.autograd.grad(value.sum(), psi)[0].view(rows, n, -1)
    for i, words in enumerate(state.words):
        of = each[:, i, words].numpy()
        wrong = np.abs(of.mean(0) - wanted[i])
        assert (wrong < 5 * of.std(0) / math.sqrt(rows) + 1e-12).all()


# Estimators of the gradient


def constant(w):
    return lambda logits: logits.new_full((len(logits),), w)


def two_masked():
    return next(
        state
        for state in gradient.states(LANGUAGE, replace(SIZES, states=50), 0)
        if len(state.words) == 2
    )


@pytest.mark.parametrize("w", [0.0, 0.4, 1.0])
def test_moments_are_those_of_all_draws(reward, w):
    """By autograd through all of Eqs. 1 to 5, one draw after the other."""
    state = two_masked()
    wanted = np.concatenate(gradient.exact(state, reward, SIZES)[0])
    found = gradient.relaxed(state, reward, constant(w), SIZES, wanted)
    E = reward.embeddings[:3]
    cut = (state.logits / 0.7).softmax(-1)
    for row in cut:  # the nucleus
        falling = row.sort(descending=True)
        before = falling.values.cumsum(0) - falling.values
        row[falling.indices[before > 0.95]] = 0
    cut = cut / cut.sum(1, keepdim=True)
    weights = torch.full((2,), w, dtype=torch.float64)
    each, chance = [], []
    for draw in itertools.product(range(3), repeat=2):
        psi = state.logits.clone().requires_grad_()
        mixed = interpolate((psi / 0.7).softmax(-1) @ E, E[list(draw)], weights)
        step = reward.at(state.tokens[None], state.masked[None])
        slope = torch.autograd.grad(step(mixed, torch.tensor(draw)).sum(), psi)[0]
        each.append(torch.cat([slope[i, words] for i, words in enumerate(state.words)]).numpy())
        chance.append(float(cut[0, draw[0]] * cut[1, draw[1]]))
    mean = np.average(each, axis=0, weights=chance)
    variance = np.average([((one - mean) ** 2).sum() for one in each], weights=chance)
    assert (w > 0) == (variance > 1e-9)
    assert found == pytest.approx(
        {
            "bias": ((mean - wanted) ** 2).sum(),
            "variance": variance,
            "along": mean @ wanted,
            "mean": mean @ mean,
        },
        rel=1e-9,
        abs=1e-15,
    )


def test_score_functions_are_unbiased_and_as_noisy_as_draws(reward):
    state, rng = two_masked(), np.random.default_rng(0)
    gradients, rewards = gradient.exact(state, reward, SIZES)
    wanted = np.concatenate(gradients)
    found = gradient.score_function(state, rewards, SIZES, wanted)
    assert found["reinforce"]["bias"] == pytest.approx(0, abs=1e-20)
    q = (state.logits / 0.7).softmax(-1).numpy()
    pairs = 60_000
    x = np.stack([rng.choice(3, size=(pairs, 2), p=row) for row in q], 2)  # pair, draw, position
    R = rewards[x[..., 0], x[..., 1]]
    s = np.concatenate([(np.eye(3)[x[..., i]] - q[i]) / 0.7 for i in range(2)], 2)
    one, two = R[:, 0, None] * s[:, 0], (R[:, :1] - R[:, 1:]) * (s[:, 0] - s[:, 1]) / 2
    for name, each in (("reinforce", one), ("loo", two)):
        spread = ((each - wanted) ** 2).sum(1)
        assert found[name]["variance"] == pytest.approx(
            spread.mean(), abs=5 * spread.std() / math.sqrt(pairs)
        )
        assert (np.abs(each.mean(0) - wanted) < 5 * each.std(0) / math.sqrt(pairs) + 1e-12).all()


def test_asking_every_word_is_unbiased_and_exact_where_one_is_masked(reward):
    for state in gradient.states(LANGUAGE, SIZES, 1):
        gradients, rewards = gradient.exact(state, reward, SIZES)
        found = gradient.words_asked(state, rewards, SIZES, np.concatenate(gradients))
        assert found["bias"] == pytest.approx(0, abs=1e-20)
        assert (len(state.words) > 1) or found["variance"] == pytest.approx(0, abs=1e-20)


def test_a_linear_reward_has_no_bias_and_no_variance():
    """Whatever the weight: but only if hard words come from all of q."""

    class Linear(NetworkReward):
        def at(self, response, masked):
            return lambda mixed, likeliest: (
                (mixed @ HEAD).view(len(response), -1) * torch.tensor([1.0, 2.0])
            ).sum(1)

    g = torch.Generator().manual_seed(0)
    HEAD = torch.randn(8, generator=g, dtype=torch.float64)
    state = two_masked()
    reward = Linear(NetworkReward.trained(LANGUAGE, BRIEF, 7).network)
    points = (reward.embeddings[:3] @ HEAD).numpy()
    R = points[:, None] + 2 * points[None]
    R = R[np.ix_(*[words.numpy() for words in state.words])]
    logits = [row[words].numpy() for row, words in zip(state.logits, state.words, strict=True)]
    wanted = np.concatenate(truth.gradient(logits, R, 0.7))
    for w in (0.0, 0.5, 1.0):
        found = gradient.relaxed(state, reward, constant(w), replace(SIZES, top_p=1.0), wanted)
        assert found["bias"] == pytest.approx(0, abs=1e-18)
        assert found["variance"] == pytest.approx(0, abs=1e-18)


def test_what_is_pooled_is_one_long_vector():
    rng = np.random.default_rng(0)
    wanted, mean, variance = rng.normal(size=(3, 4)), rng.normal(size=(3, 4)), rng.random(3)
    moments = [
        {
            "bias": ((m - g) ** 2).sum(),
            "variance": v,
            "along": m @ g,
            "mean": m @ m,
            "exact": g @ g,
        }
        for g, m, v in zip(wanted, mean, variance, strict=True)
    ]
    found, g, m = gradient.pooled(moments), wanted.ravel(), mean.ravel()
    length = np.linalg.norm(g)
    assert found["bias"] == pytest.approx(np.linalg.norm(m - g) / length)
    assert found["deviation"] == pytest.approx(math.sqrt(variance.sum()) / length)
    assert found["error"] == pytest.approx(math.hypot(found["bias"], found["deviation"]))
    assert found["cosine_of_mean"] == pytest.approx(m @ g / np.linalg.norm(m) / length)
    one = math.sqrt(m @ m + variance.sum())
    assert found["cosine_of_one"] == pytest.approx(m @ g / one / length)


# Designs


def test_a_small_gradient_study_says_all_that_it_should(monkeypatch):
    monkeypatch.setitem(gradient.KINDS, "base", BRIEF)
    languages = (("enumerable", 7, 3, 3), ("enumerable", 8, 4, 2), ("wide", 5, 64, 3))
    study = gradient.GradientDesign(languages, replace(SIZES, states=3))
    results = {unit: study.measure(unit) for unit in study.units}
    assert study.measure("enumerable-7") == results["enumerable-7"]
    text, rows = study.summary(results)
    assert {name: rows[name]["languages"] for name in rows} == {"enumerable": 2, "wide": 1}
    estimators = rows["enumerable"]["rewards"]["base"]["estimators"]
    assert estimators["entrgi x 4"]["deviation"]["mean"] == pytest.approx(
        estimators["entrgi"]["deviation"]["mean"] / 2, rel=1e-4
    )
    assert {row["from"] for row in rows["enumerable"]["by_entropy"]} <= set(gradient.BINS)
    for name in estimators:
        assert f"| {gradient.LABELS.get(name, name)} |" in text


def test_a_small_distribution_study_says_all_that_it_should():
    sizes = distribution.Sizes(
        64, 8, distribution.ALL, ("aps", "entrgi", "matched"), replace(BRIEF, steps=5)
    )
    found = distribution.enumerable(Enumerable(7, 3, 2), sizes)
    assert set(found["curves"]) == set(distribution.ALL)
    # The law of the best of K, and tilted distributions, are on the frontier or above it.
    assert all(point["excess"] > -1e-6 for point in found["best_of"].values())
    assert all(abs(point["excess"]) < 1e-4 for point in found["tilted"].values())
    assert found["floor"]["8"] <= found["floor"]["0.5"] + 1e-9
    rows = distribution.summarise([found, found])
    text = distribution.markdown(rows)
    for name in distribution.ALL:
        assert f"| {distribution.LABELS.get(name, name)} |" in text


def test_methods_are_compared_between_the_places_of_a_dial():
    def curve(*points):
        return {
            f"M = 3, eta = {i}": {"kl": kl, "reward": r} for i, (kl, r) in enumerate(points)
        } | {"M = 8, eta = 0.5": {"kl": 0.9, "reward": 99.0}}

    result = {
        "unguided": {"kl": 0.0, "reward": 0.0},
        "curves": {"entrgi": curve((1.0, 1.0), (2.0, 3.0)), "aps": curve((0.8, 0.4))},
    }
    at = distribution.at_level
    assert at(result, "entrgi", 0.5, "reward") == pytest.approx(0.5)
    assert at(result, "entrgi", 1.5, "reward") == pytest.approx(2.0)
    assert at(result, "aps", 0.4, "reward") == pytest.approx(0.2)
    assert at(result, "aps", 1.0, "reward") is None
    found = distribution.matched_kl([result] * 3, 0.5, "reward")
    assert found["aps"]["difference"]["mean"] == pytest.approx(0.25 - 0.5)
    assert (found["aps"]["languages"], found["aps"]["ahead"]) == (3, 0)


def registered(gain, misread, languages=9):
    """Rows of a record in which EntRGi is ahead by what `gain` says for a language's number."""
    methods = {name: {} for name in distribution.ALL}
    of = {
        "curves": methods,
        "by_language": [
            {
                "rms": [misread(i)] * 5,
                "reward_at_1": {name: 1.0 + gain(i) * (name == "entrgi") for name in methods},
            }
            for i in range(languages)
        ],
    }
    return {"enumerable": of, "wide": of}


@pytest.mark.parametrize(
    ("gain", "ahead"),
    [
        (lambda i: 0.5 + i / 100, True),
        (lambda i: 5.0 if i < 5 else -0.01, False),  # five of nine are not two thirds
        (lambda i: 0.01 if i < 8 else -1.0, False),  # an interval on both sides of 0
        (lambda i: -0.5 - i / 100, False),
    ],
)
def test_registered_comparisons_are_answered_as_they_say(gain, ahead):
    found = {
        (of.question, of.family, of.first, of.other): of
        for of in distribution.answers(registered(gain, lambda i: 0.0))
    }
    assert sorted({question for question, *_ in found}) == ["a", "b", "c", "e"]
    gains = [gain(i) for i in range(9)]
    for (*_, first, other), of in found.items():
        sign = 1 if first == "entrgi" else -1
        assert "entrgi" in (first, other)
        assert of.difference.mean == pytest.approx(sign * np.mean(gains))
        assert (of.ahead, of.languages) == (sum(sign * g > 0 for g in gains), 9)
        if sign == 1:
            assert of.is_ahead is ahead
    assert found["c", "enumerable", "damped", "entrgi"].is_ahead is (max(gains) < 0)


def test_languages_whose_dials_do_not_reach_are_left_out():
    rows = registered(lambda i: 1.0 + i, lambda i: -float(i))
    assert distribution.unreliability(rows)[::2] == (pytest.approx(-1.0), 9)
    rows["wide"]["by_language"][3]["reward_at_1"]["aps"] = None
    rows["enumerable"]["by_language"][0]["reward_at_1"]["expectation"] = None
    found = {(of.family, of.other): of for of in distribution.answers(rows)}
    assert found["wide", "aps"].languages == 8
    assert found["wide", "aps"].difference.mean == pytest.approx((45 - 4) / 8)
    assert distribution.unreliability(rows)[2] == 8
    text = distribution.answers_table(rows)
    assert "rank correlation −1.00" in text
    assert text.count("| yes |") == 4  # (a) twice, (e) twice


def test_the_segment_ends_at_answers(reward):
    """At the hard end the reward model reads real words: over all of q, its mean is the mean."""
    found = distribution.segment(LANGUAGE, reward)
    assert len(found["mean"]) == len(found["rms"]) == 5
    assert abs(found["mean"][-1]) < 0.5  # the nucleus cuts a little off


def test_samplers_have_a_dial_each(reward):
    samplers = Samplers(LANGUAGE, reward, 16, 0)
    curves = samplers.curves(distribution.ALL)
    for name in distribution.ALL:
        first = next(iter(curves[name].values()))()
        assert first.shape == (16, 3)
        assert torch.equal(first, next(iter(curves[name].values()))())


# Infilling


def small_gap():
    return infilling.Gap(Wide(3, 20, 5, 0.05), 7, 3)


def test_a_gap_is_the_language_given_its_ends():
    """Its probabilities sum to 1, are those of whole answers but for a factor, and exact draws and
    conditionals follow them.
    """
    gap = small_gap()
    inside = torch.cartesian_prod(*[torch.arange(gap.V)] * gap.N)
    log_p = gap.log_likelihood(inside)
    assert float(log_p.logsumexp(0)) == pytest.approx(0, abs=1e-9)
    whole = gap.whole(inside)
    assert whole[:, 0].unique().tolist() == [7]
    assert whole[:, -1].unique().tolist() == [3]
    assert torch.equal(whole[:, 1:-1], inside)
    apart = gap.around.log_likelihood(whole) - log_p
    assert float(apart.std()) == pytest.approx(0, abs=1e-9)

    board = torch.tensor([[4, gap.V, gap.V]])
    q = gap.conditionals(board, board == gap.V)
    p = log_p.exp().view(gap.V, gap.V, gap.V)[4]
    assert torch.allclose(q[0, 1], p.sum(1) / p.sum())
    assert torch.allclose(q[0, 2], p.sum(0) / p.sum())

    drawn = gap.sample(2000, torch.Generator().manual_seed(0))
    share = torch.bincount(drawn[:, 0], minlength=gap.V) / 2000
    first = log_p.exp().view(gap.V, -1).sum(1)
    assert float((share - first).abs().max()) < 0.05
    assert gap.entropy == pytest.approx(float(-(log_p.exp() * log_p).sum()), abs=0.4)
    assert torch.equal(gap.gold(inside), gap.around.gold(whole))


def test_a_gaps_reward_reads_the_given_words():
    gap = small_gap()
    network = NetworkReward.trained(gap.around, BRIEF, 3)
    reward = infilling.GapReward(network.network, gap=gap)
    answers = gap.sample(4, torch.Generator().manual_seed(1))
    assert torch.equal(reward.of(answers), network.of(gap.whole(answers)))
    masked = torch.zeros_like(answers, dtype=torch.bool)
    masked[:, 1] = True
    words = answers[:, 1]
    found = reward.at(answers, masked)(reward.embeddings[words], words)
    assert torch.allclose(found, reward.of(answers))


def test_a_small_infilling_study_says_what_it_should(monkeypatch):
    monkeypatch.setattr(distribution, "WIDE", (48, 5))
    study = infilling.InfillingDesign((5, 6), 16, ("expectation", "entrgi", "smc"), BRIEF)
    results = {unit: study.measure(unit) for unit in study.units}
    assert study.measure("infilling-5") == results["infilling-5"]
    for found in results.values():
        assert found["unguided"]["kl"] == 0
        assert found["entropy"] >= infilling.ENOUGH
        assert set(found["curves"]) == {"expectation", "entrgi", "smc"}
    text, rows = study.summary(results)
    assert rows["infilling"]["languages"] == 2
    assert "| (i) | infilling | EntRGi | Expectation |" in text
