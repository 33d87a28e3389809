"""The family of template languages, best-of-K from a pool, and what becomes of a claim."""

import itertools
import json
import math
import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from entrgi_ref import SamplingConfig, generate
from properties import tried
from toy.__main__ import app
from toy.experiments import LanguageTestbed
from toy.laboratory import claims, measured, templates
from toy.laboratory.claims import judge
from toy.laboratory.measured import Condition, Found
from toy.laboratory.pools import best_of, curve, worth
from toy.laboratory.templates import (
    AGREEMENTS,
    HELD_OUT,
    WORDS,
    FamilyDenoiser,
    FamilyReward,
    draw_language,
    evenly,
    reward_tokens,
    word_vectors,
)
from toy.language import EOS, LENGTH, Prompt
from toy.networks import MaskPredictor, RewardModel, Size
from toy.statistics import STUDENT, spearman, student

SEEDS = st.integers(0, 10_000)
SMALL = (75, 120)


# The languages


@tried(25)
@given(SEEDS)
def test_the_corpus_obeys_its_grammar(seed):
    language = draw_language(seed)
    rng = random.Random(seed)
    for prompt, answer in zip(*language.corpus(rng, language.prompts, 20), strict=True):
        assert len(answer) == LENGTH
        assert language.is_valid(answer)
        reasons = [reason for _, _, reason in language.explain_gold(prompt, answer)]
        assert "may_not_follow" not in reasons


@tried(25)
@given(SEEDS, st.data())
def test_the_grammar_accepts_no_more_than_its_clauses(seed, data):
    """Against all sentences of up to two clauses, by category."""
    language = draw_language(seed, SMALL)
    clauses = [
        language.clause(described, adverb)
        for *described, adverb in itertools.product((False, True), repeat=3)
    ]
    sentences = {tuple(c) for c in clauses}
    sentences |= {(*a, "CONJ", *b) for a, b in itertools.product(clauses, clauses)}
    sentence = list(data.draw(st.sampled_from(sorted(sentences))))
    at = data.draw(st.integers(0, len(sentence) - 1))
    change = data.draw(st.sampled_from(["DET", "ADJ", "NOUN", "VERB", "ADV", "CONJ", ""]))
    sentence[at : at + 1] = [change] if change else []
    words = [language.categories[c][0] for c in sentence][: LENGTH - 1]
    words += [EOS] * (LENGTH - len(words))
    if len(sentence) < LENGTH:
        assert language.is_valid(words) == (tuple(sentence) in sentences)


@tried(25)
@given(SEEDS, st.data())
def test_gold_is_the_sum_of_its_parts_and_sees_each(seed, data):
    language = draw_language(seed)
    prompt = data.draw(st.sampled_from(language.prompts))
    words = [w for w, may in zip(language.vocabulary, language.writable, strict=True) if may]
    answer = data.draw(st.lists(st.sampled_from(words), min_size=LENGTH, max_size=LENGTH))
    parts = language.explain_gold(prompt, answer)
    assert language.gold(prompt, answer) == pytest.approx(sum(points for _, points, _ in parts))
    for position, points, reason in parts:
        assert 0 <= position < LENGTH
        assert points == getattr(language.points, reason)
    counted = [reason for _, _, reason in parts]
    assert (counted.count("may_not_follow") == 0) == (
        language.is_valid(answer) or language.is_valid([*answer, EOS])
    )
    content = [w for w in answer if language.category[w] in ("NOUN", "ADJ", "VERB")]
    assert counted.count("used_before") == len(content) - len(set(content))


def by_hand(order, adjective_first):
    language = replace(
        draw_language(3, SMALL),
        nouns={"sea": ("whale", "sailor"), "sky": ("eagle",)},
        adjectives={"gloomy": ("bleak",), "grand": ("royal",), "plain": ()},
        verbs=("finds", "hides"),
        determiners=("a", "an", "the"),
        adverbs=("today",),
        conjunctions=("and",),
        order=order,
        adjective_first=adjective_first,
        adverb_place="last",
        agreement="first letter",
    )
    return language, Prompt("sea", "sky", "gloomy")


@pytest.mark.parametrize(
    ("order", "first", "text", "reasons"),
    [
        ("SVO", True, "the bleak whale finds the eagle", "in_style on_topic on_topic"),
        ("SVO", True, "the eagle finds the whale", ""),
        ("OVS", True, "the eagle finds the whale", "on_topic on_topic"),
        ("SOV", False, "the whale royal the eagle finds", "on_topic out_of_style on_topic"),
        (
            *("SVO", False, "the royal whale finds the eagle"),
            "may_not_follow out_of_style may_not_follow on_topic on_topic",
        ),
        (
            *("VSO", True, "finds a eagle an eagle"),
            "wrong_determiner right_determiner on_topic used_before",
        ),
        (
            *("SVO", True, "the whale finds the eagle and the sailor finds the eagle today"),
            "on_topic on_topic on_topic used_before on_topic used_before",
        ),
    ],
)
def test_gold_by_hand(order, first, text, reasons):
    language, prompt = by_hand(order, first)
    parts = language.explain_gold(prompt, language.words_of(text))
    assert [reason for _, _, reason in parts] == reasons.split()


def test_an_answer_has_to_end():
    language, _ = by_hand("SVO", True)
    text = "the whale finds the eagle and the sailor hides the eagle and the whale finds"
    words = f"{text} the".split()
    assert len(words) == LENGTH
    assert not language.is_valid(words)
    assert not language.is_valid([*"the whale finds the eagle".split(), EOS, "the"])
    assert not language.is_valid("the whale finds the eagle".split())
    assert language.is_valid([*"the whale finds the eagle".split(), EOS])


def test_a_plain_style_has_no_opinion():
    language, prompt = by_hand("SVO", True)
    answer = language.words_of("the royal whale finds the bleak eagle")
    assert language.gold(prompt._replace(style="plain"), answer) == 2


@tried(25)
@given(SEEDS)
def test_a_seed_is_a_language(seed):
    language = draw_language(seed)
    assert language == draw_language(seed)
    assert language != draw_language(seed + 1)
    assert WORDS[0] <= len(language.vocabulary) <= WORDS[1]
    assert len(set(language.vocabulary)) == len(language.vocabulary)
    train, held_out = language.split
    assert len(held_out) == HELD_OUT
    assert not set(train) & set(held_out)
    assert set(train) | set(held_out) == set(language.prompts)
    for position in range(3):  # nothing about a held-out prompt is new but its combination
        assert {p[position] for p in train} == {p[position] for p in language.prompts}
    content = [w for c in ("NOUN", "ADJ") for w in language.categories[c]]
    share = sum(map(AGREEMENTS[language.agreement], content)) / len(content)
    assert 0.1 < share < 0.9
    assert min(map(len, language.nouns.values())) >= 2
    assert all(words for style, words in language.adjectives.items() if style != "plain")


def test_the_family_is_wide():
    """Twelve languages already show what depends on the lexicon or on the embeddings."""
    languages = [draw_language(seed) for seed in range(12)]
    sizes = [len(language.vocabulary) for language in languages]
    assert min(sizes) < 100
    assert max(sizes) > 800
    assert np.median(sizes) == pytest.approx(math.sqrt(75 * 1000), rel=0.3)
    places = np.array([[evenly(seed, dimension) for seed in range(12)] for dimension in (0, 1)])
    assert abs(np.corrcoef(places)[0, 1]) < 0.5
    assert np.diff(np.sort(places)).max() < 2 / 12
    for name in ("order", "adjective_first", "adverb_place", "agreement", "points", "habits"):
        assert len({getattr(language, name) for language in languages}) > 1, name


def test_wrong_prompts_are_refused():
    language = draw_language(0)
    good = str(language.prompts[0])
    assert language.parse_prompt(good) == language.prompts[0]
    for text in ("", good + " plain", "sea castle gloomy"):
        with pytest.raises(ValueError, match=r"prompt: got .* expected two topics"):
            language.parse_prompt(text)


# The networks


@pytest.fixture(scope="module")
def testbed():
    language = draw_language(7, SMALL)
    V = len(language.vocabulary)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        predictor = MaskPredictor(Size(8, 1), V, 3 + LENGTH)
        models = {
            size: FamilyReward(language, RewardModel(Size(width, 1), V, 4 + LENGTH, 1.0))
            for size, width in (("small", 4), ("medium", 8), ("large", 12))
        }
    return templates.Testbed(language, FamilyDenoiser(language, predictor), models)


def test_networks_of_a_language_work_in_generate(testbed):
    prompts = testbed.held_out_prompts(2)
    config = SamplingConfig(new_tokens=LENGTH, denoising_steps=4, trajectories=2)
    found = generate(testbed.denoiser, testbed.rewards["small"], prompts, config)
    assert testbed.language.writable[found.tokens].all()
    for prompt, responses, tokens in zip(prompts, found.responses, found.tokens, strict=True):
        for response, ids in zip(responses, tokens, strict=True):
            words = testbed.language.words_of(response)
            assert testbed.language.encode([words])[0].equal(ids)
            gold = testbed.language.gold(testbed.language.parse_prompt(prompt), words)
            assert testbed.gold_score(prompt, response) == gold
            assert testbed.valid(response) == testbed.language.is_valid(words)


def test_hard_embeddings_get_the_final_score(testbed):
    """What guidance climbs at a token's own embedding is what the reward model says at the end."""
    language, reward = testbed.language, testbed.rewards["medium"]
    prompts, answers = language.corpus(random.Random(0), language.split[1], 6)
    ids = language.encode(answers)
    masked = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    hidden = ids.masked_fill(masked, testbed.denoiser.mask_id)
    texts = [str(prompt) for prompt in prompts]
    at = reward.bind(texts, 1).at(hidden, masked)
    found = at(reward.embeddings[ids[masked]], ids[masked])
    expected = reward.score(texts, testbed.denoiser.decode(ids))
    torch.testing.assert_close(found, expected)
    swapped = reward.bind([texts[0]], 6).at(hidden, masked)
    found = swapped(reward.embeddings[ids[masked]], ids[masked])
    torch.testing.assert_close(found, reward.score([texts[0]] * 6, testbed.denoiser.decode(ids)))


def test_training_follows_the_rule_and_learns(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_CACHE", str(tmp_path))
    plan = replace(
        measured.QUICK,
        denoiser=(Size(16, 1), 40),
        rewards={"medium": (Size(8, 1), 20)},
        examples=400,
    )
    denoiser, rewards = measured.recipes_of(plan, 7)
    words = len(draw_language(7, plan.words).vocabulary)
    assert denoiser.steps == plan.denoiser_steps(40, words)
    low, high = measured.EMBEDDING_STD
    assert low <= rewards["medium"].embedding_std <= high
    assert (
        measured.recipes_of(plan, 8)[1]["medium"].embedding_std != rewards["medium"].embedding_std
    )
    testbed = templates.Testbed.load(denoiser, rewards)
    again = templates.Testbed.load(denoiser, rewards)  # from the cache
    for one, other in zip(
        testbed.denoiser.network.parameters(), again.denoiser.network.parameters(), strict=True
    ):
        assert one.equal(other)
    language = testbed.language
    prompts, answers = language.corpus(random.Random(1), language.split[0], 200)
    tokens = torch.cat([language.encode(prompts), language.encode(answers)], 1)
    mask = torch.full((200,), testbed.denoiser.mask_id)
    generator = torch.Generator().manual_seed(0)
    loss = denoiser.loss(testbed.denoiser.network, tokens, mask, generator)
    assert loss < 0.9 * math.log(words)
    with pytest.raises(ValueError, match="recipes of several languages"):
        templates.Testbed.load(replace(denoiser, seed=8), rewards)


def test_mask_predictors_see_masks_and_are_asked_for_what_they_hide():
    denoiser, _ = measured.recipes_of(replace(measured.QUICK, examples=64), 7)
    tokens, mask = denoiser.data(random.Random(0))
    language = draw_language(7, denoiser.words)
    seen = {}

    def network(visible, masked):
        seen.update(visible=visible, masked=masked)
        return torch.nn.functional.one_hot(tokens[masked], len(language.vocabulary)) * 100.0

    loss = denoiser.loss(network, tokens, mask, torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(0, abs=1e-6)
    masked = seen["masked"]
    assert (seen["visible"][masked] == language.ids["<mask>"]).all()
    assert seen["visible"][~masked].equal(tokens[~masked])
    assert not masked[:, :3].any()
    assert 0.3 < masked[:, 3:].float().mean() < 0.7
    train = set(language.split[0])
    assert all(Prompt(*(language.vocabulary[id] for id in row[:3])) in train for row in tokens)


def test_reward_recipes_know_gold_and_its_parts():
    _, rewards = measured.recipes_of(replace(measured.QUICK, examples=50), 7)
    recipe = rewards["small"]
    tokens, targets = recipe.data(random.Random(0))
    language = draw_language(7, recipe.words)
    words = [[language.vocabulary[id] for id in row] for row in tokens.tolist()]
    gold = np.array([language.gold(Prompt(*row[:3]), row[3:-1]) for row in words])
    expected = (gold - gold.mean()) / gold.std(ddof=1)
    assert targets[:, -1].numpy() == pytest.approx(expected, abs=1e-5)
    assert targets[:, :-1].sum(1).numpy() == pytest.approx(gold / gold.std(ddof=1), abs=1e-5)
    for row, points in zip(words, targets.tolist(), strict=True):
        for position, word in enumerate(row[:-1]):
            if word in language.nouns or word in language.adjectives:
                assert points[position] == 0  # the prompt
            if word in language.determiners:
                assert points[position] <= 0  # whether it is right, only the next word shows
    assert all(row[-1] == EOS for row in words)
    train = set(language.split[0])
    assert all(Prompt(*row[:3]) in train for row in words)
    ids = language.encode_prompts([" ".join(words[0][:3])])
    assert reward_tokens(language, ids, tokens[:1, 3:-1]).equal(tokens[:1])


def test_the_loss_of_a_reward_model_by_hand():
    _, rewards = measured.recipes_of(replace(measured.QUICK, examples=4), 7)
    recipe = rewards["small"]
    network = recipe.build()
    tokens, targets = recipe.data(random.Random(0))
    read = network.transformer(network.embedding(tokens))
    gold = network(network.embedding(tokens))
    parts = torch.stack([network.parts(read[:, i]).squeeze(-1) for i in range(3, 20)], 1)
    expected = ((gold - targets[:, 20]) ** 2).mean() + 5 * ((parts - targets[:, 3:20]) ** 2).mean()
    torch.testing.assert_close(recipe.loss(network, tokens, targets, None), expected)


def test_words_of_one_topic_start_alike():
    language = draw_language(9)
    vectors = word_vectors(9, WORDS, 24, 5000)
    assert vectors.shape == (len(language.vocabulary), 24)
    assert vectors.std().item() == pytest.approx(1, rel=1e-4)
    vectors = vectors / vectors.norm(dim=1, keepdim=True)

    def alike(some, others):
        return float(
            (
                vectors[[*map(language.ids.get, some)]]
                @ vectors[[*map(language.ids.get, others)]].T
            ).mean()
        )

    first, second, *_ = language.nouns.values()
    assert alike(first, first) > alike(first, second) + 0.1
    assert alike(first, second) > alike(first, language.verbs) + 0.1


def test_information_by_hand():
    """Word 0 four times, three of them with company 0; word 1 four times, always with company 1."""
    words, company = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), torch.tensor([0, 0, 0, 1, 1, 1, 1, 1])
    found = templates._information(words, company, (2, 3))
    expected = torch.tensor([[2.0, 1.0, 1.0], [1.0, 1.6, 1.0]]).log()  # 3 / 1.5, 4 / 2.5
    torch.testing.assert_close(found, expected)


def test_embeddings_start_at_their_scale():
    _, rewards = measured.recipes_of(replace(measured.QUICK, examples=2000), 7)
    recipe = rewards["medium"]
    network = recipe.build()
    table = network.embedding.weight.detach()
    assert table.std().item() == pytest.approx(recipe.embedding_std, rel=0.01)
    language = draw_language(7, recipe.words)
    one, other, *_ = ([language.ids[w] for w in words] for words in language.nouns.values())
    near, far = torch.pdist(table[one]).mean(), torch.cdist(table[one], table[other]).mean()
    assert near < 0.9 * far
    assert torch.pdist(table).min() > 0.1 * recipe.embedding_std  # all words can be told apart
    for layer in network.transformer.layers.layers:
        queries, keys, _ = layer.self_attn.in_proj_weight.chunk(3)
        assert queries.equal(keys)


# Best-of-K


@tried(60)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=7), st.integers(0, 1000), st.data())
def test_best_of_k_against_enumeration(rewards, seed, data):
    """Ties too: among the best of a choice each counts the same, over all orders."""
    n = len(rewards)
    K = data.draw(st.integers(1, n))
    values = np.random.default_rng(seed).normal(size=n)
    total = []
    for chosen in itertools.combinations(range(n), K):
        best = max(rewards[i] for i in chosen)
        total.append((chosen, [i for i in range(n) if rewards[i] == best]))
    # which of the equals is in a choice is chance: each of them stands for all
    expected = np.mean([values[equals].mean() for _, equals in total])
    assert best_of(np.array(rewards, float), values, K) == pytest.approx(expected)


def test_best_of_k_by_hand():
    rewards, values = np.array([3.0, 1.0, 2.0]), np.array([30.0, 10.0, 20.0])
    assert curve(rewards, values).tolist() == pytest.approx([20, (20 + 30 + 30) / 3, 30])
    assert best_of(rewards, -values, 2) == pytest.approx(-80 / 3)
    for K in (0, 4):
        with pytest.raises(ValueError, match=f"K: got {K}, expected 1 to 3"):
            best_of(rewards, values, K)


def test_best_of_k_is_unbiased():
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(4000, 12))
    values = rewards + rng.normal(size=rewards.shape)
    pooled = [best_of(r, v, 3) for r, v in zip(rewards, values, strict=True)]
    first = values[np.arange(4000), rewards[:, :3].argmax(1)]
    assert np.mean(pooled) == pytest.approx(0.8463, abs=0.05)  # the mean of a maximum of three
    assert np.std(pooled) < 0.7 * np.std(first)


def test_what_an_answer_is_worth():
    best = np.array([0.0, 1.0, 2.0, 1.5])
    assert [worth(best, value) for value in (-1, 0.5, 2.0, 2.1)] == [1, 2, 3, None]


# Statistics


def test_students_quantiles():
    """97.5% of the density lies below each."""
    for df, quantile in enumerate(STUDENT, 1):
        x = np.linspace(0, quantile, 20_001)
        scale = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
        density = scale * (1 + x**2 / df) ** (-(df + 1) / 2)
        mass = float(((density[1:] + density[:-1]) / 2).sum() * x[1])
        assert abs(mass - 0.475) < 0.0006 * density[-1], df
    assert len(STUDENT) == 39


def test_student_over_twelve():
    values = np.arange(12.0)
    found = student(values)
    half = 2.201 * values.std(ddof=1) / math.sqrt(12)
    assert (found.low, found.high) == pytest.approx((5.5 - half, 5.5 + half))
    for n in (0, 41):
        with pytest.raises(ValueError, match=f"values: got {n}, expected 1 to 40"):
            student(np.zeros(n))


def test_rank_correlation_by_hand():
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert spearman(x, np.exp(x))[0] == pytest.approx(1)
    assert spearman(x, np.array([2.0, 1.0, 4.0, 3.0, 5.0]))[0] == pytest.approx(0.8)
    assert spearman(x, np.array([1.0, 1.0, 2.0, 2.0, 3.0]))[0] == pytest.approx(0.9486833)
    assert spearman(x, -x)[1] == pytest.approx(2 / 120, abs=0.005)
    assert math.isnan(spearman(x, np.ones(5))[0])
    assert spearman(x[:3], x[:3])[1] == 1


def units(means, spread=0.1, prompts=16):
    noise = np.linspace(-spread, spread, prompts)
    return {f"language-{i}": mean + noise for i, mean in enumerate(means)}


def unrelated(by_language):
    """Covariates that go with nothing: a fixed, scrambled order."""
    order = np.random.default_rng(1).permutation(len(by_language))
    return {unit: {"words": float(i)} for unit, i in zip(by_language, order, strict=True)}


@pytest.mark.parametrize(
    ("means", "verdict"),
    [
        ([1.0, 1.3, 0.9, 1.2, 1.1, 0.8, 1.0, 1.2, 0.9, 1.1, 1.0, 1.3], "holds"),
        ([-1.0, -1.3, -0.9, -1.2, -1.1, -0.8, -1.0, -1.2], "does not hold"),
        ([1.0, -1.1, 0.9, -0.9, 1.1, -1.0], "depends on the language"),
        ([0.01, -0.02, 0.03, -0.01, 0.02, -0.03], "not told apart"),
        # a few languages carry the mean: its interval is above 0, the sign is not general
        ([1.0] * 7 + [-0.01] * 5, "not told apart"),
    ],
)
def test_verdicts(means, verdict):
    by_language = units(means)
    found = judge(by_language, unrelated(by_language))
    assert found["verdict"] == verdict
    assert found["mean"]["mean"] == pytest.approx(np.mean(means))
    assert found["share"] == np.mean(np.array(means) > 0)
    assert json.loads(json.dumps(found)) == found


def test_languages_without_a_value_are_left_out():
    some = units([1.0, 1.1, 1.2])
    covariates = unrelated(some) | {"empty": {"words": 9.0}}
    found = judge(some | {"empty": np.array([])}, covariates)
    assert (found["verdict"], len(found["by_language"])) == ("holds", 3)
    assert judge({"empty": np.array([])}, covariates)["verdict"] == "not measured"


def test_a_claim_may_depend_on_a_covariate():
    means = np.linspace(-1, 1, 12)
    by_language = units(means)
    covariates = {
        unit: {"words": float(mean**3), "noise": float(i % 3)}
        for i, (unit, mean) in enumerate(zip(by_language, means, strict=True))
    }
    found = judge(by_language, covariates)
    assert found["verdict"] == "depends on words"
    assert found["covariates"]["words"]["rho"] == pytest.approx(1)
    assert (found["above"], found["below"]) == (6, 6)


# From results to rows


PLAN = replace(
    measured.QUICK, prompts=3, pool=6, short_pool=6, gradient_steps=(1, 3, 4, 8), judged=20
)
GOLD = {"expectation": 1.0, "constant": 2.5, "aps": 2.0, "entrgi": 3.0}


def made_up(shift: float) -> dict:
    """A result with known answers: gold is that of the method, with changes for size and M, plus
    `shift`; the pool's gold scores are 0 to 5, and its rewards a tenth of them.
    """

    def run(c: Condition) -> dict:
        gold = GOLD[c.method] + {"small": -1, "medium": 0, "large": 0.5}[c.size] + shift
        gold += {0.2: 0.1, 0.5: 0.0, 1.0: 0.2}[c.step_size] - (c.M - 3) ** 2 / 10
        rows = [[gold - 9, gold + prompt, gold - 9, gold - 9] for prompt in (-0.1, 0.0, 0.1)]
        return {"rewards": [[0.0, 1.0, 0.5, 0.2]] * 3, "gold": rows, "valid": [1.0] * 3}

    pool = {"gold": [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]] * 3, "valid": [0.5, 0.75, 1.0]}
    pool |= dict.fromkeys(measured.SIZES, [[0.0, 0.1, 0.2, 0.3, 0.4, 0.5]] * 3)
    error = {"aps": 2.0, "entrgi": 0.5}
    return {
        "language": {"words": 100 + 10 * shift, "embedding_std": 0.5},
        "rewards": {size: {"embedding_norm": 3.0, "corpus": 0.5} for size in measured.SIZES},
        "costs": {size: {"denoiser": 1.0, "reward": 0.05} for size in measured.SIZES},
        "pools": {str(T): pool for T in (LENGTH, *PLAN.denoising_steps)},
        "runs": {c.key: run(c) for c in PLAN.conditions},
        "errors": {
            method: {
                "steps": [
                    {"step": step, "E": [E if step <= 4 else 9.0] * 3, "entropy": 2.0}
                    for step in range(2, 17)
                ],
                "bins": {"1": [10, 5.0, 15.0, 8], "2.5": [5, 10.0, 5.0, 1]},
                "band": [[4, 1.0, 3.0, 4], [4, 3.0, 1.0, 0], [0, 0.0, 0.0, 0]],
            }
            for method, E in error.items()
        },
        "seconds": {"training": 1.0, "answers": 1.0},
    }


@pytest.fixture(scope="module")
def rows():
    results = {f"language-{i}": Found(made_up(i / 10)) for i in range(4)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("entrgi_ref.paper.shown.intervals.RESAMPLES", 200)
        return claims.summarise(PLAN, results)


@pytest.mark.parametrize(
    ("claim", "mean"),
    [
        # the best of 4 out of 0..5 is 5 in C(5, 3) = 10 of 15 choices, 4 in 4, 3 in 1
        ("bon", 3.15 - (5 * 10 + 4 * 4 + 3) / 15),
        ("expectation", 2.0),
        ("aps", 1.0),
        ("constant", 0.5),
        ("size", 1.5),
        ("moderate", 0.4),
        ("collapse", 2.4),
        ("early", 0.75),
        ("soft", 0.0),  # +0.5 and -0.5; the third prompt has no such entropies
        ("equal", 3.15 - 5),  # 4 * (15 + 15 * 6 * 0.05 + 0.05) / 15.05, rounded up: all 6
    ],
)
def test_each_claim_is_its_difference(rows, claim, mean):
    found = rows["claims"][claim]
    assert found["mean"]["mean"] == pytest.approx(mean)
    assert set(found["by_language"]) == {f"language-{i}" for i in range(4)}


def test_claims_are_six_of_the_paper_and_two_of_our_own():
    sources = [claim.source for claim in claims.CLAIMS.values()]
    assert sources.count("not in the paper") == 2
    assert {f"the paper's Figure {i}" for i in (2, 3, 4, 5)} < set(sources)
    assert list(claims.CLAIMS)[:3] == ["bon", "expectation", "aps"]


def test_rows_of_the_methods_and_steps(rows):
    best_of_4 = (5 * 10 + 4 * 4 + 3) / 15
    methods = rows["methods"]
    assert methods["aps, large"]["gold_best"]["mean"] == pytest.approx(2.65 - best_of_4)
    assert methods["aps, large"]["gold_mean"]["mean"] == pytest.approx(2.65 - 6.75 - 2.5)
    assert methods["entrgi, small"]["top1"]["mean"] == pytest.approx(1 - best_of_4 / 10)
    assert methods["entrgi, small"]["average"]["mean"] == pytest.approx(0.425 - 0.25)
    equal = methods["bon_equal_compute, medium"]
    assert equal["gold_best"]["mean"] == pytest.approx(5 - best_of_4)
    assert equal["gold_mean"]["mean"] == 0
    assert {M: row["best_in"] for M, row in rows["steps"].items()} == {
        "1": 0,
        "3": 4,
        "4": 0,
        "8": 0,
    }
    assert rows["steps"]["8"]["gold_best"]["mean"] == pytest.approx(-2.1)
    soft = [(row["nats"], row["soft"], row["E"], row["D"]) for row in rows["errors"]["by_entropy"]]
    assert soft == [(1, 0.8, 0.5, 1.5), (2.5, 0.2, 2.0, 1.0)]


def test_rows_of_the_map(rows):
    place = next(r for r in rows["map"] if (r["size"], r["M"], r["T"]) == ("medium", 1, LENGTH))
    # gold 2.6 to 2.9; the best of 1 has 2.5, of 2 (0*0 + 1*1 + ... + 5*5) / 15
    assert place["worth"] == [2, 2, 2, 2]
    cheap, dear = (place["at_cost_ratio"][ratio] for ratio in ("0.03", "2"))
    assert cheap["K"] == 5  # 4 * (15 + 30 * 0.03 + 0.03) / 15.03, rounded up
    assert cheap["pool_too_small"] == 0
    assert cheap["gain"]["mean"] == pytest.approx(2.75 - (5 * 5 + 4) / 6)
    assert dear["K"] == 6
    assert dear["pool_too_small"] == 4
    assert dear["gain"]["mean"] == pytest.approx(2.75 - 5)
    assert dear["pays_in"] == 0
    never = Found(made_up(9))
    assert claims.place(Condition(), [never])["worth"] == [None]
    thirds = rows["by_quality"]
    assert [third["pairs"] for third in thirds] == [4, 4, 4]


def test_the_tables_say_what_the_rows_say(rows):
    text = claims.markdown(json.loads(json.dumps(rows)))
    assert (
        "| EntRGi is better than APS (the paper's main claim) | +1.00 [+1.00, +1.00] points | "
        in text
    )
    assert "| 4 of 4 | 4, 0 | — | holds |" in text
    assert "| medium, M = 1, η = 0.5, T = 16 | 2 | " in text
    assert "≤ −2.25 (0 of 4)" in text
    tables = text.split("\n\n")
    assert len(tables) == 4
    for table in tables:
        assert len({line.count(" | ") for line in table.splitlines()}) == 1


def test_guidance_pays_where_its_interval_and_enough_languages_say_so():
    def place(low, pays_in):
        return {
            "worth": [1] * 12,
            "at_cost_ratio": {"1": {"gain": {"low": low}, "pays_in": pays_in}},
        }

    assert claims.pays(place(0.01, 10), "1")
    assert not claims.pays(place(0.01, 9), "1")
    assert not claims.pays(place(-0.01, 12), "1")


# One language, measured


def test_a_small_language_is_measured_and_judged(testbed, monkeypatch):
    """Also: what is kept is what `generate` gives, and a unit depends on nothing else."""
    monkeypatch.setattr(measured.Testbed, "load", lambda *_: testbed)
    full = Condition.config.fget
    short = property(lambda condition: replace(full(condition), denoising_steps=2))
    monkeypatch.setattr(Condition, "config", short)
    monkeypatch.setattr("entrgi_ref.paper.shown.intervals.RESAMPLES", 200)
    plan = replace(
        PLAN, words=SMALL, pool=4, short_pool=4, gradient_steps=(1, 3, 4, 8), denoising_steps=(1,)
    )
    found = json.loads(json.dumps(measured.measure(plan, 7)))
    summary, rows = claims.Design(plan, 7, 1).summary({"language-7": found})
    assert "from 1 to 4 nats the soft part dominates" in summary
    assert json.loads(json.dumps(rows))["languages"]["language-7"]["words"] <= 120
    c = Condition("aps", "small")
    prompts = testbed.held_out_prompts(3)
    again = generate(testbed.denoiser, testbed.rewards["small"], prompts, c.config)
    run = found["runs"][c.key]
    assert np.array(run["rewards"]) == pytest.approx(again.rewards.numpy(), abs=1e-4)
    for prompt, gold, responses in zip(prompts, run["gold"], again.responses, strict=True):
        assert gold == [testbed.gold_score(prompt, response) for response in responses]
    pool = found["pools"]["16"]
    assert np.array(pool["gold"]).shape == np.array(pool["large"]).shape == (3, 4)


def test_errors_are_counted_where_they_are():
    """Two prompts, two trajectories each, three gradient steps, entropies from 0 to 5 nats."""
    rng = torch.Generator().manual_seed(0)
    by_prompt = measured.ErrorsByPrompt(2)
    sums = np.zeros((2, 4))
    bins: dict[float, int] = {}
    for step in (1, 2):
        masked = torch.rand(4, LENGTH, generator=rng) < 0.5
        H, E, D = torch.rand(3, 3, int(masked.sum()), generator=rng).mul(
            torch.tensor([5.0, 1.0, 1.0])[:, None, None]
        )
        by_prompt(SimpleNamespace(step=step, masked=masked, entropy=H, E=E, D=D))
        rows = [row for row in range(4) for hidden in masked[row] if hidden]
        means: list[list[float]] = [[], []]
        for m, (i, row) in itertools.product(range(3), enumerate(rows)):
            h, e, d = (float(x[m, i]) for x in (H, E, D))
            means[row // 2].append(e)
            if 1 <= h <= 4:
                sums[row // 2] += [1, e, d, d > e]
            bins[math.floor(h * 2) / 2] = bins.get(math.floor(h * 2) / 2, 0) + 1
        last = by_prompt.found()["steps"][-1]
        assert last["step"] == step + 1
        assert last["E"] == pytest.approx([np.mean(means[0]), np.mean(means[1])], abs=1e-4)
        assert last["entropy"] == pytest.approx(H.mean().item(), abs=1e-4)
    found = by_prompt.found()
    assert np.array(found["band"]) == pytest.approx(sums, abs=1e-3)
    assert {float(low): row[0] for low, row in found["bins"].items()} == bins


def test_the_design():
    full, quick = claims.design(False, 101, None), claims.design(True, 5, None)
    assert (full.units[0], full.units[-1], len(full.seeds)) == ("language-101", "language-112", 12)
    assert quick.units == ["language-5"]
    assert len(claims.design(False, 3, 2).units) == 2
    with pytest.raises(ValueError, match="units: got 41, expected at most 40 languages"):
        claims.design(False, 3, 41)
    assert full.settings == claims.design(False, 107, 6).settings  # so that two can share a folder
    assert json.loads(json.dumps(full.settings))["sampling"]["temperature"] == 0.7
    conditions = full.plan.conditions
    assert len({c.key for c in conditions}) == len(conditions) == 31
    for size, M in itertools.product(measured.SIZES, (1, 2, 3, 4, 6, 8)):
        assert Condition(size=size, M=M) in conditions


def test_the_papers_experiments_run_on_a_language(testbed, monkeypatch, tmp_path):
    """`toy run --language`: its prompts, networks, costs and gold score, not the toy's."""
    monkeypatch.setattr(measured.Testbed, "load", lambda *_: testbed)
    monkeypatch.setattr(templates, "draw_language", lambda seed, words: testbed.language)
    there = LanguageTestbed(7, quick=True)
    (benchmark,) = there.benchmarks
    assert list(benchmark.prompts) == testbed.held_out_prompts(templates.HELD_OUT)
    assert there.costs("large", [], LENGTH) == testbed.costs("large")
    declared = [LanguageTestbed(*of).declaration for of in ((7, True), (8, True), (7, False))]
    assert len({json.dumps(one) for one in declared}) == 3
    with pytest.raises(ValueError, match="reward: got 'huge'"):
        there.reward("huge")

    plan = "--methods aps --prompts 2 --seeds 1 --denoising-steps 2 --threads 1".split()
    words = ["run", "reward-size", "--quick", "--language", "7", *plan, "--out", str(tmp_path)]
    run = CliRunner().invoke(app, words)
    assert run.exit_code == 0, run.output
    records = [json.loads(line) for f in tmp_path.glob("**/*.jsonl") for line in f.open()]
    assert {record["variant"]["reward"] for record in records} == set(measured.SIZES)
    for record in records:
        gold = [testbed.gold_score(record["prompt"], r) for r in record["responses"]]
        assert record["gold"] == gold
        scores = testbed.rewards[record["variant"]["reward"]].score(
            [record["prompt"]] * 4, record["responses"]
        )
        assert record["rewards"] == pytest.approx(scores.tolist(), abs=1e-4)


def test_a_language_has_networks_of_its_own_seed():
    run = CliRunner().invoke(app, ["run", "main", "--language", "7", "--training-seed", "3"])
    assert "training_seed: got 3 with --language" in str(run.exception)
