"""The truth of the laboratory, by brute force; and what is judged by it."""

import ast
import itertools
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from building import records
from entrgi_ref import (
    GuidanceConfig,
    SamplingConfig,
    entropy_weight,
    generate,
    interpolate,
    prompt_key,
)
from entrgi_ref.schedule import busy_steps, schedule
from properties import tried
from toy.dial import Constant
from toy.laboratory import distribution, gradient, infilling, sampling, truth
from toy.laboratory.languages import (
    PROMPT,
    Enumerable,
    ExactDenoiser,
    NetworkReward,
    RewardKind,
    Wide,
)
from toy.laboratory.sampling import CHANGES, Samplers, ScoreFunction
from toy.statistics import Estimate, bootstrap

BRIEF = RewardKind(width=8, layers=1, steps=15)
LANGUAGE = Enumerable(7, 3, 3)
NARROW = Wide(5, 20, 3, smoothing=0.1)
SIZES = gradient.Sizes(4, ("base",), most_draws=100)


@pytest.fixture(scope="module")
def reward():
    return NetworkReward.trained(LANGUAGE, BRIEF, 7)


def all_answers(language):
    return torch.cartesian_prod(*[torch.arange(language.V)] * language.N)


@pytest.mark.filterwarnings("error")  # of numpy, for the logarithm of 0
def test_a_word_that_is_certain_is_written_first():
    """Its entropy is 0, though the logarithms of the others are infinite."""
    rows = {(-1, -1): [[0.5, 0.5], [0.0, 1.0]], (-1, 1): [[0.25, 0.75]]}
    law = truth.unguided_law(lambda board: np.array(rows[board]), 2, 2, [1, 1])
    np.testing.assert_allclose(law, [0, 0.25, 0, 0.75], atol=1e-15)


def test_the_position_of_least_entropy_is_written_first():
    """Which need not be that of the likeliest word."""
    rows = {(-1, -1): [[0.52, 0.16, 0.16, 0.16], [0.5, 0.5, 0, 0]]}
    rows |= {(-1, i): [[0.25] * 4] for i in (0, 1)}
    law = truth.unguided_law(lambda board: np.array(rows[board]), 4, 2, [1, 1])
    np.testing.assert_allclose(law.reshape(4, 4), [[0.125, 0.125, 0, 0]] * 4)


def test_embeddings_of_a_language_are_all_as_long_as_asked_for():
    """What they say of the words is too; a step of training moves them by less than 0.001."""
    for language in (LANGUAGE, NARROW):
        whole, half = (
            NetworkReward.trained(language, RewardKind(embedding_std=std, steps=1), 7).embeddings
            for std in (1.0, 0.5)
        )
        torch.testing.assert_close(half, whole / 2, atol=1e-3, rtol=0)


def test_tables_are_sums_over_words_pairs_and_neighbouring_triples():
    """Answer by answer, from the same normal numbers in the order in which they are drawn."""
    language, g = Enumerable(3, 3, 5), torch.Generator().manual_seed(7)
    found = language._table(torch.Generator().manual_seed(7), 0.8, 0.5)

    def normal(dimensions):
        return torch.randn([3] * dimensions, generator=g, dtype=torch.float64).numpy()

    parts = [(1, normal(1), (i,)) for i in range(5)]
    parts += [(0.8, normal(2), (i, j)) for i in range(5) for j in range(i + 1, 5)]
    parts += [(0.5, normal(3), (i, i + 1, i + 2)) for i in range(3)]
    for answer, total in zip(language.answers.tolist(), found.tolist(), strict=True):
        expected = [w * table[tuple(answer[i] for i in places)] for w, table, places in parts]
        assert total == pytest.approx(sum(expected), abs=1e-12)


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


def test_truth_by_hand():
    p = np.array([0.5, 0.25, 0.25, 0.0])
    log_q = np.log(np.array([0.25, 0.25, 0.5, 1e-9]))
    expected = 0.5 * math.log(2) + 0.25 * math.log(0.5)
    assert truth.divergence(p, log_q) == pytest.approx(expected)
    assert truth.total_variation(p, np.array([0.25, 0.25, 0.5, 0.0])) == pytest.approx(0.25)
    drawn = truth.counts(np.array([2, 0, 0, 2, 0, 1, 0, 0]), 5)
    assert drawn.tolist() == [5, 1, 2, 0, 0]
    assert drawn.dtype == float
    share = drawn[:3] / 8
    cost = share @ np.log(share) - share @ np.log([0.5, 0.25, 0.1]) - 2 / 16
    log_q = np.log(np.array([0.5, 0.25, 0.1, 0.1, 0.05]))
    assert truth.estimated_divergence(drawn, log_q) == pytest.approx(cost)
    found = truth.softmax(np.array([[0.0, 0.7 * math.log(3)], [1000.0, 1000.0]]), 0.7)
    np.testing.assert_allclose(found, [[0.25, 0.75], [0.5, 0.5]])
    # at the mean reward itself there is nothing to do; from 12 up in the logarithm, the end
    log_p, rewards = np.log(np.array([0.5, 0.5])), np.array([0.0, 1.0])
    assert truth.of_mean(log_p, rewards, 0.5).tolist() == [0.5, 0.5]
    np.testing.assert_allclose(truth.of_mean(log_p, rewards, 0.9), [0.1, 0.9], atol=1e-12)
    nearly = truth.of_mean(log_p, rewards * 1e-4, 0.999e-4)
    np.testing.assert_allclose(nearly, [0.001, 0.999], atol=1e-9)
    small = truth.of_mean(log_p, rewards * 1e4, 0.52e4)
    np.testing.assert_allclose(small, [0.48, 0.52], atol=1e-9)


@pytest.mark.parametrize(
    ("length", "steps", "expected"),
    [(4, 4, [1, 1, 2]), (5, 1, [5]), (8, 3, [2, 2, 4]), (3, 8, [1, 2]), (6, 2, [2, 4])],
)
def test_quotas_by_hand(length, steps, expected):
    assert truth.quotas(length, steps) == expected


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


def interaction(values, positions):
    """Of a table [2, ...]: what changing words at all of these positions adds to what changing
    fewer of them does.
    """
    total = 0.0
    for changed in itertools.product((0, 1), repeat=len(positions)):
        at = [0] * values.ndim
        for position, word in zip(positions, changed, strict=True):
            at[position] = word
        total += (-1) ** (len(positions) - sum(changed)) * values[tuple(at)]
    return total


def test_preferences_are_for_words_and_pairs_and_in_the_gold_score_for_neighbouring_triples():
    """Each a normal number: of standard deviation 1 for words, 0.8 for pairs and triples."""
    found = {"log_p": [], "gold": []}
    for seed in range(150):
        language = Enumerable(seed, 2, 4)
        p = language.log_p.exp()
        raw = language._table(torch.Generator().manual_seed(1_000 * seed + 1), 0.8, 0.8)
        deviation = (p @ (raw - p @ raw) ** 2).sqrt()
        torch.testing.assert_close(language._gold, (raw - p @ raw) / deviation)
        for name, table in (("log_p", language.log_p), ("gold", raw)):
            values = table.view(2, 2, 2, 2).numpy()
            found[name].append(
                [
                    interaction(values, positions)
                    for size in (1, 2, 3, 4)
                    for positions in itertools.combinations(range(4), size)
                ]
            )
    spread = {name: np.array(of).std(0) for name, of in found.items()}
    # of a pair, four numbers; of a single word two, and two for each of its three pairs
    rows = spread["log_p"] ** 2
    np.testing.assert_allclose(rows[:4].mean(), 2 + 3 * 2 * 0.64, rtol=0.15)
    np.testing.assert_allclose(rows[4:10].mean(), 4 * 0.64, rtol=0.15)
    # triples of neighbours: eight numbers each; (0, 1, 3) and (0, 2, 3) are none
    np.testing.assert_allclose(spread["gold"][[10, 13]] ** 2, 8 * 0.64, rtol=0.25)
    np.testing.assert_allclose(spread["gold"][[11, 12, 14]], 0, atol=1e-9)
    np.testing.assert_allclose(spread["log_p"][10:], 0, atol=1e-9)


def pair_chances(language):
    """p(b | a) in row a, of a wide language."""
    V = language.V
    pairs = torch.cartesian_prod(torch.arange(V), torch.arange(V))
    first = language._first[pairs[:, 0]]
    return (replace(language, N=2).log_likelihood(pairs).exp() / first).view(V, V)


def test_followers_in_a_wide_language_are_sixteen_by_zipfs_law():
    plain = Wide(5, 40, 3)
    chances = pair_chances(plain)
    assert ((chances > 0).sum(1) == 16).all()
    falling = chances.sort(1, descending=True).values[:, :16]
    sharpness = (falling[:, :1] / falling).log() / torch.arange(1, 17, dtype=torch.float64).log()
    sharpness = sharpness[:, 1:]
    torch.testing.assert_close(sharpness, sharpness[:, :1].expand(-1, 15))  # a power of the rank
    low, high = sharpness.min().item(), sharpness.max().item()  # of 40 draws from [1, 2)
    assert 1 <= low < 1.2
    assert 1.8 < high < 2
    torch.testing.assert_close(plain._first, chances.mean(0))
    # Popular words are followers more often, and strays are drawn by their popularity.
    stray = pair_chances(replace(plain, smoothing=1.0))
    torch.testing.assert_close(stray, stray[:1].expand(40, -1))
    ranks = torch.arange(1, 41, dtype=torch.float64)
    torch.testing.assert_close(stray[0].sort(descending=True).values, 1 / ranks / (1 / ranks).sum())
    often = (chances > 0).sum(0)[stray[0].argsort(descending=True)]
    assert often[:5].float().mean() > 2 * often[-5:].float().mean()
    mixed = pair_chances(replace(plain, smoothing=0.1))
    torch.testing.assert_close(mixed, 0.9 * chances + 0.1 * stray)


def test_what_cannot_be_said():
    language = Wide(5, 40, 3)
    never = (pair_chances(language) == 0).nonzero()[0]
    answer = torch.stack([never[0], never[1], never[0]])[None]
    assert language.log_likelihood(answer).tolist() == [-math.inf]
    nothing = torch.zeros(1, 3, dtype=torch.bool)
    q = language.conditionals(answer, torch.tensor([[False, False, True]]))
    torch.testing.assert_close(q[0, 2].sum(), torch.tensor(1.0, dtype=torch.float64))
    last = language.conditionals(answer, nothing)[0, 2]
    assert last.tolist() == pytest.approx([1 / 40] * 40)


def test_the_gold_score_of_a_wide_language_is_of_sixteen_classes():
    language = Wide(5, 200, 4)
    meaning = language.meaning(6)
    assert meaning.shape == (200, 6)
    classes, of_word = meaning.unique(dim=0, return_inverse=True)
    assert len(classes) == 16
    assert meaning.std().item() == pytest.approx(1, abs=0.25)
    answers = language.sample(300, torch.Generator().manual_seed(3))
    other = torch.stack([(of_word == of_word[w]).nonzero()[-1, 0] for w in answers.flatten()])
    other = other.view(answers.shape)
    assert not torch.equal(answers, other)
    torch.testing.assert_close(language.gold(answers), language.gold(other))
    # points of words and of neighbours: what is far apart has no say in each other
    a, b = answers[:1].clone(), answers[:1].clone()
    changed = answers[:1].clone()
    a[0, 0], b[0, 3] = answers[1, 0], answers[1, 3]
    changed[0, 0], changed[0, 3] = a[0, 0], b[0, 3]
    one, first, last, both = (float(language.gold(x)) for x in (answers[:1], a, b, changed))
    assert both - one == pytest.approx((first - one) + (last - one))
    near = answers[:1].clone()
    near[0, :2] = answers[1, :2]
    second = answers[:1].clone()
    second[0, 1] = answers[1, 1]
    assert float(language.gold(near)) - one != pytest.approx(
        (first - one) + (float(language.gold(second)) - one)
    )


def test_languages_are_those_that_their_seeds_have_named_so_far():
    """Records name them so."""
    few, wide = Enumerable(201, 4, 4), Wide(201, 40, 4, 0.02)
    answers = torch.tensor([[0, 1, 2, 3], [3, 3, 0, 1]])
    found = {
        "log_p": few.log_likelihood(answers).tolist(),
        "gold": few.gold(answers).tolist(),
        "drawn": few.sample(2, torch.Generator().manual_seed(0)).tolist(),
        "wide": wide.log_likelihood(answers).tolist(),
        "wide gold": wide.gold(answers).tolist(),
        "wide drawn": wide.sample(2, torch.Generator().manual_seed(0)).tolist(),
        "meaning": wide.meaning(2)[:2].flatten().tolist(),
    }
    expected = {
        "log_p": [-8.74682, -5.78241],
        "gold": [0.387709, -2.28444],
        "drawn": [[3, 3, 3, 0], [2, 3, 2, 3]],
        "wide": [-20.8757, -25.3536],
        "wide gold": [-0.473599, -0.710558],
        "wide drawn": [[38, 7, 7, 6], [24, 20, 13, 6]],
        "meaning": [1.44528, -0.0925367, 0.839247, 0.782777],
    }
    assert found.keys() == expected.keys()
    for name, numbers in expected.items():
        assert np.array(found[name]) == pytest.approx(np.array(numbers), rel=1e-4), name


def test_the_exact_denoiser_writes_words_and_never_its_mask():
    denoiser = ExactDenoiser(LANGUAGE)
    assert (denoiser.mask_id, denoiser.eos_id) == (3, None)
    assert denoiser.writable.tolist() == [True] * 3 + [False]
    prompts = denoiser.encode([PROMPT, PROMPT])
    assert (prompts.tokens.shape, prompts.valid.shape) == ((2, 0), (2, 0))
    assert prompts.keys == (prompt_key(PROMPT),) * 2
    assert denoiser.decode(torch.tensor([[0, 2, 1], [1, 1, 0]])) == ["0 2 1", "1 1 0"]
    masked = torch.tensor([[True, False, True]])
    board = torch.tensor([[3, 1, 3]])
    logits = denoiser(board, board >= 0, masked)
    assert logits.shape == (2, 4)
    assert (logits[:, 3] == -math.inf).all()
    torch.testing.assert_close(logits[:, :3].exp(), LANGUAGE.conditionals(board, masked)[masked])


def test_a_trained_reward_knows_the_gold_score_but_not_all_of_it():
    found = NetworkReward.trained(LANGUAGE, RewardKind(width=8, layers=1, steps=150), 7)
    sample = LANGUAGE.sample(2_000, torch.Generator().manual_seed(1))
    both = torch.stack([found.of(sample), LANGUAGE.gold(sample)])
    assert 0.5 < float(torch.corrcoef(both)[0, 1]) < 0.9999
    heads = [layer.self_attn.num_heads for layer in found.network.transformer.layers.layers]
    assert heads == [2], "with more or fewer the records show other networks"


def test_rewards_of_a_language_are_trained_as_those_of_the_records(monkeypatch):
    """By AdamW as torch has it; the rate rises for a tenth of the steps. Its seeds are its own."""
    groups, step = [], torch.optim.AdamW.step

    def noted(optimiser, *given):
        groups.append((optimiser.param_groups[0]["lr"], optimiser.param_groups[0]["weight_decay"]))
        return step(optimiser, *given)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    kind = RewardKind(width=4, layers=1, steps=20, batch=2)
    one = NetworkReward.trained(LANGUAGE, kind, 7)
    rates, decays = zip(*groups, strict=True)
    assert decays == (0.01,) * 20
    assert max(rates) == pytest.approx(4e-3)
    assert rates.index(max(rates)) == 1
    torch.manual_seed(3)
    state = torch.get_rng_state()
    again = NetworkReward.trained(LANGUAGE, kind, 7)
    assert torch.equal(torch.get_rng_state(), state)
    other = NetworkReward.trained(LANGUAGE, kind, 8)
    assert torch.equal(one.of(LANGUAGE.answers), again.of(LANGUAGE.answers))
    assert not torch.equal(one.of(LANGUAGE.answers), other.of(LANGUAGE.answers))
    assert not any(p.requires_grad for p in one.network.parameters())


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


def test_two_draws_take_each_others_reward_off():
    """By hand, at one position and two answers at once."""

    class Table:
        embeddings = torch.zeros(4, 2)

        def __init__(self):
            self.asked = []

        def of(self, boards):
            self.asked.append(boards.clone())
            return torch.tensor([1.0, 5.0, 2.0, 0.0], dtype=torch.float64)[boards[:, 0]]

    table = Table()
    guiding = ScoreFunction(table, torch.Generator().manual_seed(3))
    assert guiding.bind([PROMPT], 1) is guiding
    assert guiding.embeddings.equal(torch.eye(4, dtype=torch.float64))
    board = torch.tensor([[3, 1], [3, 0]])
    step = guiding.at(board, torch.tensor([[True, False]] * 2))
    q = torch.tensor([[0.2, 0.5, 0.3, 0.0], [0.4, 0.1, 0.5, 0.0]], dtype=torch.float64)
    mixed = q.clone().requires_grad_()
    value = step(mixed, q.argmax(-1))
    (slope,) = torch.autograd.grad(value.sum(), mixed)
    first, second = (asked[:, 0] for asked in table.asked)
    assert all(torch.equal(asked[:, 1], board[:, 1]) for asked in table.asked)
    points = torch.tensor([1.0, 5.0, 2.0, 0.0], dtype=torch.float64)
    expected = torch.zeros_like(q)
    for row, (a, b) in enumerate(zip(first, second, strict=True)):
        expected[row, a] += (points[a] - points[b]) / 2 / q[row, a]
        expected[row, b] += (points[b] - points[a]) / 2 / q[row, b]
    assert (first != second).any()
    torch.testing.assert_close(slope, expected)
    torch.testing.assert_close(value, (points[first] + points[second]) / 2)


def test_where_both_draws_write_the_same_word_the_score_function_has_no_slope():
    """Their rewards differ by what they write elsewhere."""
    second = SimpleNamespace(embeddings=torch.zeros(2, 2), of=lambda boards: boards[:, 1].double())
    board = torch.zeros(16, 2, dtype=torch.int64)
    guiding = ScoreFunction(second, torch.Generator().manual_seed(0))
    step = guiding.at(board, torch.ones_like(board) > 0)
    mixed = torch.tensor([[0.0, 1.0], [0.5, 0.5]], dtype=torch.float64).repeat(16, 1)
    value = step(mixed.requires_grad_(), mixed.argmax(-1))
    (slope,) = torch.autograd.grad(value.sum(), mixed)
    assert not slope[::2].any()
    differ = value == 0.5  # the mean of 0 and 1
    assert 0 < differ.sum() < 16
    assert slope[1::2].tolist() == [[-1.0, 1.0] if d else [0.0, 0.0] for d in differ]


def test_how_every_method_is_run_at_every_place_of_its_dial(monkeypatch):
    runs = []

    def generate(denoiser, reward, prompts, config, observe=None):
        assert (type(denoiser), denoiser.language) == (ExactDenoiser, LANGUAGE)
        assert list(prompts) == [PROMPT]
        runs.append((reward, config))
        if observe:
            for weight, masked in ((0.2, 3), (0.4, 1)):  # each position counts alike
                observe(SimpleNamespace(weight=torch.full((3, masked), weight)))
        return SimpleNamespace(tokens=torch.zeros(1, config.trajectories, 3))

    def rival(name):
        def run(denoiser, reward, prompts, config, **options):
            assert denoiser.language is LANGUAGE
            assert set(prompts) == {PROMPT}
            runs.append((name, len(prompts), config, options))
            return SimpleNamespace(tokens=torch.zeros(len(prompts), config.trajectories, 3))

        return run

    monkeypatch.setattr(sampling, "generate", generate)
    monkeypatch.setattr(sampling, "lookahead", rival("lookahead"))
    monkeypatch.setattr(sampling, "smc", rival("smc"))
    reward = SimpleNamespace(embeddings=torch.zeros(4, 2))
    samplers = Samplers(LANGUAGE, reward, 320, 9)
    curves = samplers.curves(distribution.ALL)
    base = SamplingConfig(
        GuidanceConfig(steps=0, dtype="float64"), 320, 3, 3, temperature=1.0, top_p=1.0, seed=9
    )
    assert samplers.base == base
    (of_mean,) = runs
    guidance = GuidanceConfig("entrgi", 3, 0.5, dtype="float64")
    mean_config = replace(base, guidance=guidance, trajectories=256, seed=10)
    assert of_mean == (reward, mean_config)
    assert samplers.mean_weight() == pytest.approx(0.25)
    weights = {
        **{name: name for name in ("expectation", "aps", "entrgi")},
        "w = 0.5": Constant(0.5),
        "matched": Constant(samplers.mean_weight()),
        "loo": "expectation",
    }
    etas = (0.125, 0.25, 0.5, 1.0, 2.0)
    three = {f"M = 3, eta = {eta:g}": (3, eta) for eta in etas}
    betas = {f"beta = {beta:g}": beta for beta in (4.0, 2.0, 1.0, 0.5, 0.25)}
    assert list(curves) == list(distribution.ALL)
    for name, curve in curves.items():
        for place, draw in curve.items():
            runs.clear()
            answers = draw()
            assert answers.shape == (320, 3)
            if name in ("lookahead", "smc"):
                options = {"beta": betas[place]}
                if name == "lookahead":
                    assert runs == [(name, 1, base, options | {"candidates": 3})]
                else:
                    config = replace(base, trajectories=8)
                    assert runs == [(name, 40, config, options | {"keys": range(40)})]
                continue
            M, eta = {**three, "M = 1, eta = 0.5": (1, 0.5), "M = 8, eta = 0.5": (8, 0.5)}[place]
            weight = weights.get(name, "entrgi")
            config = replace(base, guidance=GuidanceConfig(weight, M, eta, dtype="float64"))
            config = CHANGES[name](config) if name in CHANGES else config
            ((asked, found),) = runs
            assert list(found.guided_steps()) == list(config.guided_steps())
            assert replace(found, guidance=config.guidance) == config
            if name == "loo":
                assert (type(asked), asked.reward) == (ScoreFunction, reward)
                assert asked.generator.initial_seed() == 9
            else:
                assert asked is reward
        if name in ("lookahead", "smc"):
            assert list(curve) == list(betas)
        elif name in ("damped", "fading", "loo"):
            assert list(curve) == list(three)
        else:
            assert list(curve) == [*three, "M = 1, eta = 0.5", "M = 8, eta = 0.5"]
    runs.clear()
    assert Samplers(LANGUAGE, reward, 16, 0).mean_weight() == pytest.approx(0.25)
    assert runs[0][1].trajectories == 16


def test_lookahead_asks_about_six_words_at_most(monkeypatch):
    asked = []

    def run(*_, candidates, beta):
        asked.append(candidates)
        return SimpleNamespace(tokens=torch.zeros(1, 4, 3))

    monkeypatch.setattr(sampling, "lookahead", run)
    for V in (3, 6, 7):
        Samplers(Enumerable(0, V, 3), None, 4, 0).lookahead(1.0)
    assert asked == [3, 6, 6]


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
    for name in ("reinforce", "loo"):
        assert found[name]["bias"] == pytest.approx(0, abs=1e-20)
        assert found[name]["mean"] == found[name]["along"] == pytest.approx(wanted @ wanted)
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


def test_weights_by_hand():
    p = torch.tensor(
        [[0.6, 0.3, 0.08, 0.02, 0.0], [0.5, 0.5, 0, 0, 0], [0.97, 0.03, 0, 0, 0]],
        dtype=torch.float64,
    )
    H = -(p * p.clamp_min(1e-300).log()).sum(1)
    expected = [float(H[0]) / math.log(3), 1.0, 0.0]  # words that the nucleus of 95% holds
    found = gradient.entropy_over_nucleus(p.log(), 0.95)
    assert found.tolist() == pytest.approx(expected)
    tail = torch.tensor([[0.48, 0.48, *[0.04 / 40] * 40]], dtype=torch.float64)
    assert gradient.entropy_over_nucleus(tail.log(), 0.95).tolist() == [1]  # at most
    w = entropy_weight(p.log())
    torch.testing.assert_close(gradient.power(p.log(), 0.5), w.sqrt())
    torch.testing.assert_close(gradient.power(p.log(), 2.0), w * w)


def test_every_estimator_is_the_one_that_its_name_says(reward):
    state = two_masked()
    parts, rewards = gradient.exact(state, reward, SIZES)
    wanted = np.concatenate(parts)
    found = gradient.estimates(state, reward, SIZES, 0.37)
    exact = {"exact": pytest.approx(wanted @ wanted)}
    weights = {f"w = {i / 8:g}": constant(i / 8) for i in range(9)} | {
        "entrgi": entropy_weight,
        "matched": constant(0.37),
        "nucleus": lambda logits: gradient.entropy_over_nucleus(logits, SIZES.top_p),
        "sqrt": lambda logits: entropy_weight(logits).sqrt(),
        "square": lambda logits: entropy_weight(logits).square(),
    }
    several = {"entrgi x 4": 4, "entrgi x 16": 16}
    assert list(found) == [*weights, *several, "reinforce", "loo", "words asked"]
    for name, weight in weights.items():
        one = gradient.relaxed(state, reward, weight, SIZES, wanted)
        assert found[name] == pytest.approx(one | {"exact": wanted @ wanted}, rel=1e-9)
    for name, draws in several.items():
        one = found["entrgi"]
        assert found[name] == one | {"variance": pytest.approx(one["variance"] / draws)}
    asked = []

    def noted(logits):
        asked.append(logits)
        return entropy_weight(logits)

    assert gradient.relaxed(state, reward, noted, SIZES, wanted)["bias"] == found["entrgi"]["bias"]
    assert asked == [state.logits]  # not those at the temperature of Eq. 1
    score = gradient.score_function(state, rewards, SIZES, wanted)
    for name in ("reinforce", "loo"):
        assert found[name] == score[name] | exact
    assert found["words asked"] == gradient.words_asked(state, rewards, SIZES, wanted) | exact
    assert found["loo"]["along"] == found["loo"]["mean"] == pytest.approx(wanted @ wanted)


def test_the_states_of_the_record_are_still_drawn():
    """How many there are at each entropy, and the mean weight of each language's."""
    recorded = records.read("exact-gradient")["rows"]["enumerable"]
    design = gradient.design(False, 101, None)
    means, weights = [], []
    for kind, seed, V, N in design.languages:
        if kind == "enumerable":
            at = gradient.states(gradient.KIND[kind](seed, V, N), design.sizes, seed)
            of = [entropy_weight(state.logits) for state in at]
            means.append(float(torch.cat(of).mean()))
            weights += [float(w.mean()) for w in of]
    assert recorded["states"] == len(weights) == 12 * 24
    assert recorded["w"] == interval(means)
    for row, low in zip(recorded["by_entropy"], (0.0, 0.2, 0.4, 0.6, 0.8), strict=True):
        some = [w for w in weights if low <= w < low + 0.2]
        assert (row["from"], row["to"]) == (low, pytest.approx(low + 0.2))
        assert (row["states"], row["w"]) == (len(some), pytest.approx(np.mean(some)))


def interval(values):
    """As the records hold it: of one language both ends are the number itself."""
    found = vars(bootstrap(np.array(values)))
    if len(values) == 1:
        found = dict.fromkeys(found, found["mean"])
    return {name: round(value, 6) for name, value in found.items()}


def random_moments(rng, names):
    return {
        name: dict(zip(("bias", "variance", "along", "mean", "exact"), rng.random(5), strict=True))
        for name in names
    }


def test_a_gradient_study_is_summed_up(monkeypatch):
    monkeypatch.setattr("entrgi_ref.paper.shown.intervals.RESAMPLES", 200)
    rng = np.random.default_rng(0)
    names = [*(f"w = {i / 8:g}" for i in range(9)), "entrgi", "loo"]
    at = {3: [0.0, 0.2, 0.5], 4: [1.0, 0.1999, 0.55], 64: [0.45, 0.999, 1.0]}
    results = []
    for V, w in at.items():
        states = {kind: [random_moments(rng, names) for _ in w] for kind in ("base", "deep")}
        of = {
            kind: {"correlation": rng.random(), "states": states[kind]} for kind in ("base", "deep")
        }
        results.append(
            {
                "kind": "wide" if V == 64 else "enumerable",
                "V": V,
                "N": 3,
                "matched": rng.random(),
                "w": w,
                "rewards": of,
            }
        )
    for state in results[2]["rewards"]["base"]["states"][1:]:  # of no gradient to follow
        for moments in state.values():
            moments["exact"] = 0.0
    rows = gradient.summarise(results, ("base", "deep"))

    def estimators(some, kind):
        pooled = [
            {
                n: gradient.pooled([state[n] for state in r["rewards"][kind]["states"]])
                for n in names
            }
            for r in some
        ]
        return {
            name: {
                **{
                    measure: interval([one[name][measure] for one in pooled])
                    for measure in MEASURES
                },
                **{
                    f"entrgi_ahead_{short}": sum(
                        one["entrgi"][f"cosine_of_{short}"] > one[name][f"cosine_of_{short}"]
                        for one in pooled
                    )
                    for short in ("mean", "one")
                },
            }
            for name in names
        }

    def by_entropy(some, bins):
        found = []
        for low, high, places in bins:
            states = [some[i]["rewards"]["base"]["states"][j] for i, j in places]
            of = {name: gradient.pooled([state[name] for state in states]) for name in names}
            grid = {i / 8: of[f"w = {i / 8:g}"] for i in range(9)}
            found.append(
                {
                    "from": low,
                    "to": high,
                    "states": len(places),
                    "w": pytest.approx(np.mean([some[i]["w"][j] for i, j in places])),
                    "least_bias": min(grid, key=lambda w, grid=grid: grid[w]["bias"]),
                    "best_mean": max(grid, key=lambda w, grid=grid: grid[w]["cosine_of_mean"]),
                    "least_error": min(grid, key=lambda w, grid=grid: grid[w]["error"]),
                    "best_one": max(grid, key=lambda w, grid=grid: grid[w]["cosine_of_one"]),
                    "measures": of,
                }
            )
        return found

    MEASURES = ("bias", "deviation", "error", "cosine_of_mean", "cosine_of_one")
    few, wide = results[:2], results[2:]
    bins = {
        "enumerable": [
            (0.0, 0.2, [(0, 0), (1, 1)]),
            (0.2, 0.4, [(0, 1)]),
            (0.4, 0.6, [(0, 2), (1, 2)]),
            (0.8, 1.0, [(1, 0)]),
        ],
        "wide": [(0.4, 0.6, [(0, 0)])],
    }
    assert rows == {
        family: {
            "languages": len(some),
            "states": 3 * len(some),
            "w": interval([r["matched"] for r in some]),
            "rewards": {
                kind: {
                    "correlation": interval([r["rewards"][kind]["correlation"] for r in some]),
                    "estimators": estimators(some, kind),
                }
                for kind in ("base", "deep")
            },
            "by_V": {str(r["V"]): estimators([r], "base") for r in some},
            "by_entropy": by_entropy(some, bins[family]),
        }
        for family, some in (("enumerable", few), ("wide", wide))
    }


def estimate(mean):
    return {"mean": mean, "low": mean - 0.125, "high": mean + 0.25}


def test_the_tables_of_a_gradient_study():
    def of(mean, *ahead):
        names = ("cosine_of_mean", "cosine_of_one", "bias", "deviation")
        return {name: estimate(mean + i) for i, name in enumerate(names)} | {
            "entrgi_ahead_mean": ahead[0],
            "entrgi_ahead_one": ahead[1],
        }

    row = {"from": 0.2, "to": 0.4, "states": 7, "w": 0.3149}
    row |= {"least_bias": 0.25, "best_mean": 1.0, "best_one": 0.0, "least_error": 0.5}
    one = {
        "languages": 2,
        "states": 24,
        "w": estimate(0.3333),
        "rewards": {
            "base": {"estimators": {"w = 0": of(0.123, 2, 1), "w = 0.125": of(0.4, 0, 2)}},
            "deep": {"estimators": {"w = 0": of(9, 9, 9)}},
        },
        "by_entropy": [row],
    }
    empty = {**one, "languages": 1, "by_entropy": []}
    heads = (
        "| Estimator | Cosine, mean of draws | Cosine, one draw | Bias | Deviation | "
        "EntRGi ahead: mean, one |\n| --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| Expectation (w = 0) | 0.12 [−0.00, 0.37] | 1.12 [1.00, 1.37] | 2.12 [2.00, 2.37] | "
        "3.12 [3.00, 3.37] | 2, 1 |\n"
        "| w = 0.125 | 0.40 [0.28, 0.65] | 1.40 [1.27, 1.65] | 2.40 [2.27, 2.65] | "
        "3.40 [3.27, 3.65] | 0, 2 |\n\n"
        "| H / log V | states | mean w | w of least bias | w of best cosine, mean | one draw |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |"
    )
    alone = re.sub(r" \[[^]]*\]", "", heads)  # a single language says nothing of others
    assert gradient.markdown({"enumerable": one, "wide": empty}) == (
        f"enumerable: 2 languages, 24 states, mean w 0.33 [0.21, 0.58]\n\n{heads}\n"
        "| 0.2 to 0.4 | 7 | 0.31 | 0.25 | 1 | 0 |\n\n"
        f"wide: 1 languages, 24 states, mean w 0.33\n\n{alone}"
    )


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
    language = Enumerable(7, 3, 3)
    reward = NetworkReward.trained(language, BRIEF, 7)
    at = list(gradient.states(language, study.sizes, 7))
    weights = [entropy_weight(state.logits) for state in at]
    matched = float(torch.cat(weights).mean())
    base = {
        "correlation": pytest.approx(correlated(language, reward)),
        "states": [gradient.estimates(state, reward, study.sizes, matched) for state in at],
    }
    assert results["enumerable-7"] == {
        "kind": "enumerable",
        "V": 3,
        "N": 3,
        "matched": matched,
        "rewards": {"base": base},
        "w": [float(w.mean()) for w in weights],
    }
    text, rows = study.summary(results)
    assert {name: rows[name]["languages"] for name in rows} == {"enumerable": 2, "wide": 1}
    estimators = rows["enumerable"]["rewards"]["base"]["estimators"]
    assert estimators["entrgi x 4"]["deviation"]["mean"] == pytest.approx(
        estimators["entrgi"]["deviation"]["mean"] / 2, rel=1e-4
    )
    assert {row["from"] for row in rows["enumerable"]["by_entropy"]} <= set(gradient.BINS)
    for name in estimators:
        assert f"| {gradient.LABELS.get(name, name)} |" in text


@pytest.fixture
def short_dials(monkeypatch):
    """With a place or two each: how the others are run is tested above, without running them."""
    for name, places in (("STEP_SIZES", (0.5, 2.0)), ("OTHER_STEPS", (1,)), ("BETAS", (1.0,))):
        monkeypatch.setattr(sampling, name, places)


def test_a_small_distribution_study_says_all_that_it_should(short_dials):
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


def test_each_unit_is_measured_on_its_language(monkeypatch):
    recorded = records.read("exact-distribution")["rows"]
    full = distribution.design(False, 201, None)
    sizes = [(row["V"], row["N"]) for row in recorded["enumerable"]["by_language"]]
    assert [(V, N) for _, V, N in full.enumerable] == sizes
    assert len(full.wide) == recorded["wide"]["languages"] == 8
    for name in ("enumerable", "wide"):
        monkeypatch.setattr(distribution, name, lambda language, sizes: (language, sizes))
    quick = distribution.design(True, 5, None)
    assert quick.seeds == [5, 6, 5]
    units = ["enumerable-5", "enumerable-6", "wide-5"]
    assert quick.units == units
    found = [quick.measure(unit) for unit in units]
    assert [sizes for _, sizes in found] == [quick.sizes] * 3
    assert quick.sizes == distribution.Sizes(
        *(512, 32, ("expectation", "aps", "entrgi", "w = 0.5", "lookahead", "smc")),
        ("expectation", "aps", "entrgi"),
    )
    (first, second, wide), _ = zip(*found, strict=True)
    assert [type(language) for language in (first, second, wide)] == [Enumerable, Enumerable, Wide]
    assert [(one.seed, one.V, one.N) for one in (first, second)] == [(5, 5, 3), (6, 6, 3)]
    assert (wide.seed, wide.V, wide.N, wide.smoothing) == (5, 4096, 6, 0.02)
    few = distribution.design(False, 3, 2)
    assert few.units == ["enumerable-3", "enumerable-4", "wide-3", "wide-4"]
    # By its seed a language is the same in every run: two may share a folder.
    assert distribution.design(False, 4, 1).enumerable[0] == few.enumerable[1] == (4, 3, 5)


def test_the_gradient_study_takes_turns_with_its_languages():
    full, quick = gradient.design(False, 101, None), gradient.design(True, 1, None)
    sizes = [(4, 4), (3, 5), (5, 4), (3, 6), (6, 3), (4, 5)]
    assert full.languages == (
        *(("enumerable", 101 + i, *size) for i, size in enumerate([*sizes, *sizes])),
        *(("wide", 101 + i, 4096 if i % 2 == 0 else 8192, 8) for i in range(6)),
    )
    assert quick.languages == (
        *(("enumerable", 1 + i, *size) for i, size in enumerate(sizes[2:5])),
        ("wide", 1, 4096, 8),
    )
    assert quick.sizes == gradient.Sizes(8, ("base",), 256)
    assert quick.units == ["enumerable-1", "enumerable-2", "enumerable-3", "wide-1"]
    assert quick.seeds == [1, 2, 3, 1]
    # By its seed a language is the same in every run: two may share a folder.
    more = gradient.design(True, 2, 2).languages
    assert more[:2] == quick.languages[1:3]
    assert more[2:] == (("wide", 2, 8192, 8), ("wide", 3, 4096, 8))


def drawing(answers):
    """In the place of `Samplers`: every method draws these answers, at a few places."""

    class Drawing:
        def __init__(self, language, reward, draws, seed):
            self.asked = (draws, seed)

        def guided(self, weight, M, eta):
            assert M == 0
            return answers[: self.asked[0]]

        def mean_weight(self):
            return 0.25

        def curves(self, names):
            places = ("M = 3, eta = 0.5", "M = 8, eta = 0.5", "beta = 1")
            return {
                name: {place: lambda i=i: answers[3 * i :] for i, place in enumerate(places)}
                for name in names
            }

    return Drawing


def correlated(language, reward):
    sample = language.sample(4000, torch.Generator().manual_seed(language.seed + 1))
    return np.corrcoef(reward.of(sample), language.gold(sample))[0, 1]


def test_what_is_measured_of_an_enumerable_language(reward, monkeypatch):
    answers = LANGUAGE.sample(40, torch.Generator().manual_seed(2))
    monkeypatch.setattr(distribution, "Samplers", drawing(answers))
    monkeypatch.setattr(NetworkReward, "trained", lambda *_: reward)
    found = distribution.enumerable(LANGUAGE, distribution.Sizes(30, 8, ("aps", "smc")))
    log_p = LANGUAGE.log_p.numpy()
    R, gold = reward.of(LANGUAGE.answers).numpy(), LANGUAGE.gold(LANGUAGE.answers).numpy()

    def law(q):
        best = truth.divergence(truth.of_mean(log_p, R, q @ R), log_p)
        paid = truth.divergence(q, log_p)
        return {"kl": paid, "reward": q @ R, "gold": q @ gold, "excess": paid - best}

    def point(answers):
        drawn = truth.counts(LANGUAGE.index(answers).numpy(), 27)
        share, paid = drawn / len(answers), truth.estimated_divergence(drawn, log_p)
        closest = truth.of_mean(log_p, R, share @ R)
        perfect = np.random.default_rng(0).multinomial(len(answers), closest) / len(answers)
        return {
            "kl": paid,
            "excess": paid - truth.divergence(closest, log_p),
            "reward": float(reward.of(answers).mean()),
            "gold": float(LANGUAGE.gold(answers).mean()),
            "tv": truth.total_variation(share, closest),
            "tv_of_perfect": truth.total_variation(perfect, closest),
        }

    places = {"M = 3, eta = 0.5": 0, "M = 8, eta = 0.5": 3, "beta = 1": 6}
    curve = {place: pytest.approx(point(answers[i:])) for place, i in places.items()}
    tilts = {"4": 4.0, "2": 2.0, "1": 1.0, "0.5": 0.5, "0.25": 0.25}
    floors = {
        key: truth.divergence(truth.unguided_law(conditionals, 3, 3, truth.quotas(3, T)), log_p)
        for key, T in {"0.5": 1, "1": 3, "2": 6, "8": 24}.items()
    }
    assert found == {
        "kind": "enumerable",
        "V": 3,
        "N": 3,
        "matched": 0.25,
        "correlation": pytest.approx(correlated(LANGUAGE, reward)),
        "unguided": pytest.approx(point(answers[:30])),
        "floor": pytest.approx(floors),
        "curves": {"aps": curve, "smc": curve},
        "best_of": {
            str(K): pytest.approx(law(truth.best_of(log_p, R, K))) for K in (2, 4, 8, 16, 32)
        },
        "tilted": {
            name: pytest.approx(law(truth.tilted(log_p, R, beta)), abs=1e-9)
            for name, beta in tilts.items()
        },
        "segment": distribution.segment(LANGUAGE, reward),
    }


def test_what_is_measured_of_a_wide_language(monkeypatch):
    network = NetworkReward.trained(NARROW, BRIEF, 5)
    answers = NARROW.sample(40, torch.Generator().manual_seed(2))
    monkeypatch.setattr(distribution, "Samplers", drawing(answers))
    monkeypatch.setattr(NetworkReward, "trained", lambda *_: network)
    segment = {"mean": [0.0] * 5, "rms": [1.0] * 5}
    of = []
    monkeypatch.setattr(distribution, "segment", lambda *asked: of.append(asked) or segment)
    found = distribution.wide(NARROW, distribution.Sizes(8, 30, wide_methods=("aps", "smc")))
    assert of[0][1] is network
    assert (of[0][0].seed, of[0][0].V, of[0][0].smoothing) == (5, 20, 0)
    typical = NARROW.sample(20_000, torch.Generator().manual_seed(5))
    whole = float(NARROW.log_likelihood(typical).mean())

    def point(answers):
        return {
            "kl": whole - float(NARROW.log_likelihood(answers).mean()),
            "reward": float(network.of(answers).mean()),
            "gold": float(NARROW.gold(answers).mean()),
        }

    places = {"M = 3, eta = 0.5": 0, "beta = 1": 6}
    curve = {place: pytest.approx(point(answers[i:])) for place, i in places.items()}
    assert found == {
        "kind": "wide",
        "V": 20,
        "N": 3,
        "matched": 0.25,
        "segment": segment,
        "correlation": pytest.approx(correlated(NARROW, network)),
        "unguided": pytest.approx(point(answers[:30])),
        "curves": {"aps": curve, "smc": curve},
    }


def test_the_segment_is_that_of_all_draws(reward, monkeypatch):
    """And states at which every answer has the same reward are left out."""
    states = list(gradient.states(LANGUAGE, gradient.Sizes(12, most_draws=256), 7))
    moments = []
    E = reward.embeddings[:3]
    for state in states:
        q, n = (state.logits / 0.7).softmax(-1), len(state.words)
        cut = q.clone()
        for row in cut:
            falling = row.sort(descending=True)
            before = falling.values.cumsum(0) - falling.values
            row[falling.indices[before > 0.95]] = 0
        cut = cut / cut.sum(1, keepdim=True)
        draws = list(itertools.product(*[words.tolist() for words in state.words]))
        boards = state.boards(torch.tensor(draws))
        chance = torch.stack([q[range(n), draw].prod() for draw in draws])
        drawn = torch.stack([cut[range(n), draw].prod() for draw in draws])
        rewards = reward.of(boards)
        mean = (chance * rewards).sum()
        deviation = (chance * (rewards - mean) ** 2).sum().sqrt()
        step = reward.at(state.tokens.repeat(len(draws), 1), state.masked.repeat(len(draws), 1))
        of = []
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            mixed = torch.cat([(1 - share) * (q @ E) + share * E[list(draw)] for draw in draws])
            off = (step(mixed, torch.tensor(draws).flatten()) - mean) / deviation
            of.append([float((drawn * off).sum()), float((drawn * off**2).sum())])
        moments.append(of)
    expected = np.mean(moments, 0)
    asked = []
    one_word = gradient.State(
        torch.tensor([0, 1, 2]),
        torch.tensor([True, False, False]),
        torch.tensor([[0.0, -math.inf, -math.inf]], dtype=torch.float64),
        [torch.tensor([0])],
    )
    for at in (states, [one_word, *states]):
        monkeypatch.setattr(gradient, "states", lambda *of, at=at: asked.append(of) or iter(at))
        found = distribution.segment(LANGUAGE, reward)
        assert found["mean"] == pytest.approx(expected[:, 0])
        assert found["rms"] == pytest.approx(np.sqrt(expected[:, 1]))
    assert asked == [(LANGUAGE, gradient.Sizes(12, most_draws=256), 7)] * 2


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
    ends = {level: at(result, "entrgi", level, "reward") for level in (-0.001, 0.0, 2.0, 2.001)}
    assert ends == {-0.001: None, 0.0: 0.0, 2.0: 3.0, 2.001: None}
    found = distribution.matched_kl([result] * 3, 0.5, "reward")
    assert found["aps"]["difference"]["mean"] == pytest.approx(0.25 - 0.5)
    assert (found["aps"]["languages"], found["aps"]["ahead"]) == (3, 0)


def test_a_dial_whose_kl_does_not_rise_is_read_in_the_order_of_its_kl():
    """Also where the unguided sampler pays more than a place of the dial."""
    points = {0.25: (0.1, 1.0), 0.5: (0.9, 4.0), 1: (0.7, 2.0)}
    result = {
        "unguided": {"kl": 0.3, "reward": 0.0},
        "curves": {
            "aps": {f"M = 3, eta = {eta}": {"kl": k, "reward": r} for eta, (k, r) in points.items()}
        },
    }
    expected = {0.05: None, 0.2: 0.5, 0.5: 1.0, 0.8: 3.0, 0.9: 4.0, 0.95: None}
    for level, reward in expected.items():
        found = distribution.at_level(result, "aps", level, "reward")
        assert found == (None if reward is None else pytest.approx(reward))


def test_differences_at_a_kl_are_those_of_the_languages_that_both_dials_reach():
    def result(aps, loo=2.0):
        def to(kl, reward):
            return {"M = 3, eta = 1": {"kl": kl, "reward": reward}}

        return {
            "unguided": {"kl": 0.0, "reward": 0.0},
            "curves": {
                "aps": to(2.0, aps),
                "entrgi": to(2.0, 1.0),
                "loo": {"beta = 1": {"kl": loo, "reward": 5.0}},
                "smc": to(0.5, 1.0),
            },
        }

    results = [result(2.0), result(1.0), result(0.0, loo=0.9), result(1.5)]
    found = distribution.matched_kl(results, 1.0, "reward")
    assert found == {
        "aps": {"difference": interval([0.5, 0.0, -0.5, 0.25]), "languages": 4, "ahead": 2},
        "loo": {"difference": interval([2.0, 2.0, 2.0]), "languages": 3, "ahead": 3},
    }
    against = distribution.matched_kl(results, 1.0, "reward", "aps")
    assert against["entrgi"]["ahead"] == 1
    assert list(against) == ["entrgi", "loo"]


def measured_of(kind, seed):
    """A made-up result of a language."""
    rng = np.random.default_rng(seed)

    def point(kl):
        return {"kl": kl, "reward": 1.1 * kl + rng.random() / 10, "gold": rng.random()}

    curves = {
        name: {f"M = 3, eta = {i}": point(i * (0.5 + rng.random() / 5)) for i in (1, 2)}
        | {"M = 8, eta = 0.5": point(0.1)}
        for name in ("aps", "entrgi")
    }
    found = {
        "kind": kind,
        "V": 3,
        "N": 4,
        "correlation": rng.random(),
        "matched": rng.random(),
        "unguided": {"kl": 0.0, "reward": 0.0, "gold": rng.random(), "tv_of_perfect": 0.1},
        "curves": curves,
        "segment": {name: rng.random(5).tolist() for name in ("mean", "rms")},
    }
    if kind == "enumerable":
        found["floor"] = {"0.5": rng.random(), "8": rng.random()}
        found["best_of"] = {"2": {"kl": rng.random(), "excess": rng.random()}}
        found["tilted"] = {"1": {"kl": rng.random(), "excess": rng.random()}}
    return found


def test_a_distribution_study_is_summed_up(monkeypatch):
    monkeypatch.setattr("entrgi_ref.paper.shown.intervals.RESAMPLES", 200)
    results = [measured_of("enumerable", 1), measured_of("wide", 2), measured_of("enumerable", 3)]

    def expected(some, kind):
        def over(*keys):
            found = some
            for key in keys:
                found = [one[key] for one in found]
            return interval(found)

        measures = ("kl", "reward", "gold")
        places = ("M = 3, eta = 1", "M = 3, eta = 2", "M = 8, eta = 0.5")

        def at_1(result, name):
            found = distribution.at_level(result, name, 1.0, "reward")
            return None if found is None else round(found, 6)

        found = {
            "languages": len(some),
            "correlation": over("correlation"),
            "w": over("matched"),
            "unguided": {m: over("unguided", m) for m in measures},
            "curves": {
                name: {p: {m: over("curves", name, p, m) for m in measures} for p in places}
                for name in ("aps", "entrgi")
            },
            "at_matched_kl": {
                text: {w: distribution.matched_kl(some, level, w) for w in ("reward", "gold")}
                for text, level in (("0.5", 0.5), ("1", 1.0), ("1.5", 1.5))
            },
            "segment": {
                name: [over("segment", name, i) for i in range(5)] for name in ("mean", "rms")
            },
            "by_language": [
                {
                    "V": 3,
                    "N": 4,
                    "correlation": round(one["correlation"], 6),
                    "matched": round(one["matched"], 6),
                    "reward_at_1": {name: at_1(one, name) for name in ("aps", "entrgi")},
                    "rms": [round(value, 6) for value in one["segment"]["rms"]],
                }
                for one in some
            ],
        }
        if kind == "enumerable":
            found["floor"] = {key: over("floor", key) for key in ("0.5", "8")}
            for name, key in (("best_of", "2"), ("tilted", "1")):
                found[name] = {key: {m: over(name, key, m) for m in ("kl", "excess")}}
        return found

    assert distribution.summarise(results) == {
        "enumerable": expected(results[::2], "enumerable"),
        "wide": expected(results[1:2], "wide"),
    }


@pytest.mark.parametrize(
    ("low", "ahead", "is_ahead"),
    [(0.5, 6, True), (0.5, 5, False), (0.0, 9, False), (1e-9, 6, True), (-0.1, 9, False)],
)
def test_a_method_is_ahead_by_its_interval_and_in_two_thirds(low, ahead, is_ahead):
    answer = distribution.Answer("a", "wide", "aps", "loo", Estimate(1.0, low, 2.0), ahead, 9)
    assert answer.is_ahead is is_ahead


def test_no_method_is_ahead_by_a_single_language():
    """Of which there is no interval, however far it is ahead."""
    for answer in distribution.answers(registered(lambda i: 5.0, lambda i: 0.0, 1)):
        assert (answer.is_ahead, answer.languages) == (False, 1)
        assert math.isnan(answer.difference.low)


def test_only_what_was_run_is_compared():
    """Here two methods, on enumerable languages alone: of a tie neither is ahead."""
    rows = registered(lambda i: (0.5, 0.0, -0.25, -0.75)[i % 4], lambda i: 0.0, 8)
    del rows["wide"]
    rows["enumerable"]["curves"] = {"entrgi": {}, "damped": {}}
    (found,) = distribution.answers(rows)
    assert (found.question, found.first, found.other) == ("c", "damped", "entrgi")
    assert (found.ahead, found.languages) == (4, 8)
    for language in rows["enumerable"]["by_language"]:
        language["reward_at_1"]["damped"] = None
    (found,) = distribution.answers(rows)
    assert (found.ahead, found.languages) == (0, 0)
    assert all(math.isnan(value) for value in vars(found.difference).values())
    assert distribution.comparisons_table([found]).splitlines()[2] == (
        "| (c) | enumerable | EntRGi, damped | EntRGi | none reached | 0 of 0 | open |"
    )


def test_unreliability_asks_at_the_soft_end_where_both_dials_reach():
    rows = registered(lambda i: 1.0 + i, lambda i: 0.0, 7)
    for i, language in enumerate(rows["enumerable"]["by_language"]):
        language["rms"] = [float(i), 0.5, 0.5, 0.5, -float(i)]
    assert distribution.unreliability(rows)[::2] == (pytest.approx(1.0), 7)
    first, second, third, *_ = rows["enumerable"]["by_language"]
    first["reward_at_1"]["entrgi"] = None
    second["reward_at_1"]["expectation"] = None
    del third["reward_at_1"]["expectation"]
    assert distribution.unreliability(rows)[::2] == (pytest.approx(1.0), 4)


@pytest.mark.parametrize(
    ("rho", "text", "answer"),
    [(0.31, "+0.31", "no"), (0.32, "+0.32", "yes"), (-0.4, "−0.40", "no")],
)
def test_the_answers_are_a_table(monkeypatch, rho, text, answer):
    monkeypatch.setattr(distribution, "unreliability", lambda _: (rho, 0.0449, 28))
    monkeypatch.setattr("entrgi_ref.paper.shown.intervals.RESAMPLES", 200)
    rows = registered(lambda i: 0.12345, lambda i: 0.0, 3)
    rows["enumerable"]["curves"] = dict.fromkeys(("entrgi", "matched", "loo"))
    del rows["wide"]
    assert distribution.answers_table(rows) == (
        "| | Languages | Is | Ahead of | Reward at 1 nat, difference | Ahead in | Answer |\n"
        "| --- | --- | --- | --- | ---: | ---: | --- |\n"
        "| (a) | enumerable | EntRGi | constant: EntRGi's mean | +0.123 [+0.123, +0.123] | "
        "3 of 3 | yes |\n"
        "| (b) | enumerable | REINFORCE, leave one out | EntRGi | −0.123 [−0.123, −0.123] | "
        "0 of 3 | no |\n"
        "| (d) | enumerable | EntRGi's gain over Expectation | larger if soft points are misread "
        f"| rank correlation {text}, p = 0.04 | 28 languages | {answer} |"
    )


def test_the_tables_of_a_distribution_study():
    def at(mean, ahead):
        return {"difference": estimate(mean), "ahead": ahead, "languages": 5}

    curves = {
        name: {"M = 3, eta = 1": {m: estimate(0.123 + i) for i, m in enumerate(measures)}}
        for name, measures in (
            ("entrgi", ("kl", "reward", "gold", "excess")),
            ("w = 0.5", ("kl", "reward", "gold")),
            ("smc", ("kl", "gold")),
        )
    }
    found = {
        "languages": 5,
        "curves": curves,
        "at_matched_kl": {
            "0.5": {"reward": {"w = 0.5": at(0.456, 3), "smc": at(-1.0, 0)}},
            "1": {"reward": {"smc": at(2.0, 5)}},
        },
    }
    rows = {"enumerable": found, "wide": {**found, "languages": 4}}
    alone = {**found, "languages": 1, "at_matched_kl": {"1": {"reward": {"smc": {**at(2.0, 1)}}}}}
    alone["at_matched_kl"]["1"]["reward"]["smc"]["languages"] = 1
    assert distribution.matched_table({"wide": alone}).endswith("| +2.00 (1 of 1) |")
    assert distribution.places_table({"wide": alone}).endswith(" | 0.12 |  | 1.12 |  |")
    table = (
        "| --- | ---: | ---: |\n"
        "| w = 0.5 | +0.46 [+0.33, +0.71] (3 of 5) | not reached |\n"
        "| SMC, 8 particles | −1.00 [−1.12, −0.75] (0 of 5) | +2.00 [+1.88, +2.25] (5 of 5) |"
    )
    heads = "| at 0.5 nats (ahead in) | at 1 nats (ahead in) |"
    assert distribution.matched_table(rows) == (
        f"| enumerable, 5 languages {heads}\n{table}\n\n| wide, 4 languages {heads}\n{table}"
    )
    table = (
        "| at | nats paid | reward | gold | KL above the least |\n"
        "| --- | --- | ---: | ---: | ---: | ---: |\n"
        "| EntRGi | M = 3, eta = 1 | 0.12 [−0.00, 0.37] | 1.12 [1.00, 1.37] | "
        "2.12 [2.00, 2.37] | 3.12 [3.00, 3.37] |\n"
        "| w = 0.5 | M = 3, eta = 1 | 0.12 [−0.00, 0.37] | 1.12 [1.00, 1.37] | "
        "2.12 [2.00, 2.37] |  |\n"
        "| SMC, 8 particles | M = 3, eta = 1 | 0.12 [−0.00, 0.37] |  | 1.12 [1.00, 1.37] |  |"
    )
    assert distribution.places_table(rows) == f"| enumerable {table}\n\n| wide {table}"


def test_a_level_that_one_language_of_several_reached_has_no_interval():
    reached = {"difference": vars(bootstrap(np.full(3, 2.0))), "ahead": 1, "languages": 1}
    at = {"1": {"reward": {"smc": reached}}}
    rows = {"wide": {"languages": 5, "curves": {"smc": {}}, "at_matched_kl": at}}
    assert distribution.matched_table(rows).endswith("| +2.00 (1 of 1) |")


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


def test_a_gap_lies_between_the_ends_of_the_first_answer_that_leaves_enough_open():
    around = Wide(4, 20, 5, 0.05)
    drawn = infilling.Gap.draw(around)
    g = torch.Generator().manual_seed(4_006)
    tried = 0
    while True:
        answer = around.sample(1, g)[0].tolist()
        gap = infilling.Gap(around, answer[0], answer[-1])
        if gap.entropy >= 2.0:
            break
        tried += 1
    assert (drawn.first, drawn.last) == (gap.first, gap.last)
    assert (drawn.V, drawn.N) == (20, 3)


def test_the_entropy_of_a_gap_is_that_of_256_answers():
    gap = small_gap()
    answers = gap.sample(256, torch.Generator().manual_seed(0))
    assert gap.entropy == pytest.approx(-float(gap.log_likelihood(answers).mean()))


@pytest.mark.parametrize("count", [1, 256, 257, 600])
def test_a_gap_has_as_many_answers_as_are_asked_for(count):
    gap = infilling.Gap(Wide(3, 20, 3, 0.05), 7, 3)
    assert gap.sample(count, torch.Generator().manual_seed(0)).shape == (count, 1)


def test_what_is_measured_of_a_gap(monkeypatch):
    gap = small_gap()
    network = NetworkReward.trained(gap.around, BRIEF, 3)
    asked = []
    monkeypatch.setattr(
        NetworkReward, "trained", lambda *of: asked.append((of[0], of[-1])) or network
    )
    answers = gap.sample(40, torch.Generator().manual_seed(2))
    monkeypatch.setattr(infilling, "Samplers", drawing(answers))
    segment = {"mean": [0.0] * 5, "rms": [1.0] * 5}
    of = []
    monkeypatch.setattr(distribution, "segment", lambda *asked: of.append(asked) or segment)
    found = infilling.measure(gap, 30, ("aps", "smc"), BRIEF)
    assert asked == [(gap.around, 3)]
    assert (of[0][0].seed, of[0][0].smoothing, of[0][1]) == (3, 0, network)
    typical = float(gap.log_likelihood(answers[:30]).mean())

    def point(answers):
        return pytest.approx(
            {
                "kl": typical - float(gap.log_likelihood(answers).mean()),
                "reward": float(network.of(gap.whole(answers)).mean()),
                "gold": float(gap.around.gold(gap.whole(answers)).mean()),
            }
        )

    exact = gap.sample(1024, torch.Generator().manual_seed(3))
    correlation = np.corrcoef(network.of(gap.whole(exact)), gap.gold(exact))[0, 1]
    curve = {"M = 3, eta = 0.5": point(answers), "beta = 1": point(answers[6:])}
    assert found == {
        "kind": "infilling",
        "V": 20,
        "N": 3,
        "matched": 0.25,
        "segment": segment,
        "entropy": gap.entropy,
        "correlation": pytest.approx(correlation),
        "unguided": point(answers[:30]),
        "exact": point(exact),
        "curves": {"aps": curve, "smc": curve},
    }


def test_the_infilling_designs():
    quick, full = infilling.design(True, 1, None), infilling.design(False, 301, None)
    few = ("expectation", "aps", "entrgi", "lookahead")
    assert quick == infilling.InfillingDesign((1,), 64, few)
    assert full.units == [f"infilling-{seed}" for seed in range(301, 313)]
    assert (full.draws, full.methods) == (256, distribution.WIDE_METHODS)
    assert infilling.design(True, 4, 3).seeds == (4, 5, 6)


def test_a_small_infilling_study_says_what_it_should(monkeypatch, short_dials):
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
