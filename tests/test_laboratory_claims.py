"""The family of template languages, best-of-K from a pool, and what becomes of a claim."""

import hashlib
import itertools
import json
import math
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from building import records
from entrgi_ref import SamplingConfig, generate, prompt_key
from entrgi_ref.paper.declared.costs import Costs
from properties import tried
from toy.__main__ import app
from toy.dial import Constant
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
from toy.testbed import count_parameters
from toy.training import cache_key

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
            "SVO",
            True,
            "whale whale eagle",
            " ".join(["may_not_follow", "on_topic", "may_not_follow", "used_before"])
            + " may_not_follow on_topic may_not_follow",
        ),  # after the first noun of a clause all are objects
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


@pytest.mark.parametrize("seed", [103, 105, 106, 110])
def test_the_languages_of_the_record_are_still_drawn(seed):
    """All that the record says of a language, down to the mean gold of answers of its corpus."""
    recorded = records.read("claims")["rows"]["languages"][f"language-{seed}"]
    _, rewards = measured.recipes_of(measured.FULL, seed)
    language = SimpleNamespace(language=draw_language(seed))
    found = measured.facts(language, rewards["medium"].embedding_std)
    assert found == {name: recorded[name] for name in found}
    assert len(found) == 10


def test_a_word_asks_for_a_determiner_by_its_first_letter_its_last_or_its_length():
    asks = {
        name: [word for word in ("ba", "ab", "abe", "bad") if rule(word)]
        for name, rule in templates.AGREEMENTS.items()
    }
    assert asks == {
        "first letter": ["ab", "abe"],
        "last letter": ["ba", "abe"],
        "length": ["abe", "bad"],
    }


def test_made_up_words_have_one_to_three_syllables():
    """Each a consonant and a vowel; perhaps a vowel before them, and a consonant after."""
    spell = templates._speller(random.Random(0))
    words = [spell() for _ in range(1000)]
    assert len(set(words)) == 1000
    shapes = {"".join("V" if c in "aeiou" else "C" for c in word) for word in words}
    assert shapes == {
        first + "CV" * syllables + last
        for first in ("", "V")
        for syllables in (1, 2, 3)
        for last in ("", "C")
    }
    assert set("".join(words)) == set("aeioubdfgklmnprstvz")


def test_words_are_shared_out_evenly():
    found = templates._grouped(["one", "two"], "abcde")
    assert found == {"one": ("a", "c", "e"), "two": ("b", "d")}


def test_a_tag_counts_the_nouns_of_its_clause():
    categories = "DET NOUN VERB NOUN NOUN NOUN VERB CONJ DET NOUN EOS".split()
    found = "DET0 NOUN1 VERB1 NOUN2 NOUN3 NOUN3 VERB3 CONJ DET0 NOUN1 EOS".split()
    assert templates.tagged(categories) == found


def test_the_mixture_is_half_corpus_a_quarter_at_another_prompt_a_quarter_disturbed():
    language = draw_language(4, SMALL)
    prompts = language.split[0]
    plain = language.corpus(random.Random(0), prompts, 800)
    mixed = language.mixture(random.Random(0), prompts, 800)
    moved = [a != b for a, b in zip(plain[0], mixed[0], strict=True)]
    disturbed = [
        np.mean([a != b for a, b in zip(*pair, strict=True)])
        for pair in zip(plain[1], mixed[1], strict=True)
    ]
    assert np.mean(moved) == pytest.approx(0.25, abs=0.04)
    assert set(mixed[0]) <= set(prompts)
    assert not any(m and d for m, d in zip(moved, disturbed, strict=True))
    # A rate from 0 to 30%, even over a quarter; some answers are left as they were by chance.
    assert np.mean(disturbed) == pytest.approx(0.25 * 0.15, rel=0.15)
    assert max(disturbed) < 0.65


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


def test_each_trajectory_of_a_language_is_guided_for_its_own_prompt(testbed):
    reward, prompts = testbed.rewards["small"], testbed.held_out_prompts(2)
    words = testbed.language.writable.nonzero().flatten()
    g = torch.Generator().manual_seed(3)
    response = words[torch.randint(len(words), (4, LENGTH), generator=g)]
    masked = torch.rand(response.shape, generator=g) < 0.5

    def found(prompts, trajectories, rows):
        step = reward.bind(prompts, trajectories).at(response[rows], masked[rows])
        likeliest = response[rows][masked[rows]]
        return step(reward.embeddings[likeliest], likeliest)

    alone = [found([prompts[row // 2]], 1, [row]) for row in range(4)]
    torch.testing.assert_close(found(prompts, 2, [0, 1, 2, 3]), torch.cat(alone))
    assert not torch.allclose(found(prompts[1:], 1, [1]), alone[1])


def test_what_a_testbed_says_of_its_networks(testbed):
    language = testbed.language
    denoiser, small = testbed.denoiser.network, testbed.rewards["small"].network
    numbers = {network: count_parameters(network) for network in (denoiser, small)}
    costs = testbed.costs("small")
    assert costs == Costs(denoiser=19 * numbers[denoiser], reward=20 * numbers[small])
    for network in numbers:
        assert not network.training
        assert not any(p.requires_grad for p in network.parameters())
    held_out = templates.held_out_prompts(language)
    assert testbed.held_out_prompts(48) == list(held_out)
    assert testbed.held_out_prompts(1) == [str(language.split[1][0])]
    with pytest.raises(ValueError, match=r"^prompts: got 49, expected at most 48$"):
        testbed.held_out_prompts(49)
    with pytest.raises(ValueError, match="prompts: got 0"):
        testbed.held_out_prompts(0)
    found = testbed.denoiser.encode(list(held_out[:2]))
    assert found.tokens.equal(language.encode_prompts(held_out[:2]))
    assert found.valid.all()
    assert found.keys == tuple(map(prompt_key, held_out[:2]))
    ids = language.ids
    assert (testbed.denoiser.mask_id, testbed.denoiser.eos_id) == (ids["<mask>"], ids[EOS])


def test_ends_of_a_response_are_left_out_but_for_the_only_word(testbed):
    language = testbed.language
    word, other = language.verbs[:2]
    rows = [[word, EOS, other, EOS], [EOS] * 4, [word, other, word, other]]
    texts = testbed.denoiser.decode(language.encode(rows))
    assert texts == [f"{word} {EOS} {other}", EOS, f"{word} {other} {word} {other}"]
    assert language.words_of(texts[0]) == [word, EOS, other] + [EOS] * 13


def test_a_mask_of_another_length_is_refused(testbed, as_users_run_it):
    tokens = torch.zeros(1, 19, dtype=torch.long)
    masked = torch.ones(1, LENGTH + 1, dtype=torch.bool)
    message = r"new_tokens: got shape \[1, 17\], expected \[S, N\] in the toy = \[any, 16\]"
    with pytest.raises(ValueError, match=message):
        testbed.denoiser(tokens, tokens >= 0, masked)


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
    small = {name: replace(rewards["medium"], steps=i) for i, name in enumerate(("large", "small"))}
    asked = []
    monkeypatch.setattr(
        templates, "cached", lambda recipe, track: asked.append(recipe) or recipe.build()
    )
    several = templates.Testbed.load(denoiser, rewards | small)
    assert asked == [denoiser, rewards["medium"], small["large"], small["small"]]
    assert list(several.rewards) == ["medium", "large", "small"]
    assert len({judge.network for judge in several.rewards.values()}) == 3  # each has its own


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


def company_of(seed, words, examples):
    """The table of `word_vectors`, cell by cell: positive mutual information of each word with
    each word of the prompt by place, and with the twenty commonest words on either side.
    """
    language = draw_language(seed, words)
    corpus = language.corpus(random.Random(f"vectors {seed}"), language.split[0], examples)
    sentences = [[*prompt, *answer] for prompt, answer in zip(*corpus, strict=True)]
    counted = Counter(word for sentence in sentences for word in sentence[3:])
    in_order = sorted(counted, key=lambda w: (-counted[w], language.ids[w]))
    common = in_order[:20]
    assert counted[in_order[19]] > counted[in_order[20]]  # no tie decides who is common
    pairs = {"prompt": Counter(), "left": Counter(), "right": Counter()}
    for sentence in sentences:
        for word, place in itertools.product(sentence, range(3)):
            pairs["prompt"][word, (place, sentence[place])] += 1
        for before, after in itertools.pairwise(sentence[3:]):
            pairs["left"][after, before] += 1
            pairs["right"][before, after] += 1
    columns = []
    for side, counts in pairs.items():
        total, rows, company = sum(counts.values()), Counter(), Counter()
        for (word, other), n in counts.items():
            rows[word] += n
            company[other] += n
        for other in company:
            if side == "prompt" or other in common:
                shares = [
                    counts[word, other] * total / (rows[word] * company[other]) if rows[word] else 0
                    for word in language.vocabulary
                ]
                columns.append(np.log(np.maximum(shares, 1)))
    return np.array(columns).T


def test_word_vectors_are_the_leading_ones_of_the_company_that_words_keep():
    table = company_of(6, SMALL, 300)
    U, S, _ = np.linalg.svd(table - table.mean(0), full_matrices=False)
    for width in (6, 200):
        vectors = word_vectors(6, SMALL, width, 300).double().numpy()
        assert vectors.shape == (len(table), width)
        expected = U[:, :width] * np.sqrt(S[:width])
        scale = np.zeros(vectors.shape)
        scale[:, : expected.shape[1]] = expected
        expected = expected / scale.std(ddof=1)
        np.testing.assert_allclose(vectors @ vectors.T, expected @ expected.T, atol=2e-3)
    assert not vectors[:, len(table) :].any()


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


def test_a_reward_models_queries_and_keys_are_half_as_large_again():
    language = draw_language(7, SMALL)
    size = Size(8, 2)
    made = []
    for kind in (RewardModel, templates.TaughtRewardModel):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            made.append(kind(size, len(language.vocabulary), 20, 1.0))
    for plain, taught in zip(*(network.transformer.layers.layers for network in made), strict=True):
        _, keys, values = plain.self_attn.in_proj_weight.chunk(3)
        found = taught.self_attn.in_proj_weight.chunk(3)
        for part, expected in zip(found, (1.5 * keys, 1.5 * keys, values), strict=True):
            torch.testing.assert_close(part, expected)


def test_embeddings_are_word_vectors_and_some_noise(monkeypatch):
    """Of 0.3 standard deviations; counted in 20,000 sentences, or in as many as a recipe has."""
    _, rewards = measured.recipes_of(measured.FULL, 106)
    asked = []
    g = torch.Generator().manual_seed(0)
    vectors = torch.randn(77, 40, generator=g)

    def given(seed, words, width, examples):
        asked.append((seed, words, width, examples))
        return vectors / vectors.std()

    monkeypatch.setattr(templates, "word_vectors", given)
    with torch.random.fork_rng():
        for examples in (30_000, 20_000, 500):
            torch.manual_seed(0)  # of the noise
            network = replace(rewards["medium"], examples=examples).build()
    assert asked == [(106, WORDS, 40, n) for n in (20_000, 20_000, 500)]
    table = network.embedding.weight.detach()
    assert table.std().item() == pytest.approx(rewards["medium"].embedding_std, rel=1e-4)
    fit = torch.linalg.lstsq(vectors, table).solution
    noise = ((table - vectors @ fit).square().sum() / (77 - 40) / 40).sqrt()
    signal = (vectors @ fit).std()
    assert (noise / signal).item() == pytest.approx(0.3, rel=0.12)
    turned = fit @ fit.T  # by a rotation alone
    torch.testing.assert_close(turned / turned.diagonal().mean(), torch.eye(40), atol=0.35, rtol=0)


def test_at_least_one_word_of_an_answer_is_hidden_in_the_mean():
    """The share is even from 1/16 to 1, and 1/16 below: no word is hidden in 4.2% of the rows."""
    denoiser, _ = measured.recipes_of(replace(measured.QUICK, examples=8), 7)
    tokens, mask = denoiser.data(random.Random(0))
    tokens, mask = tokens.repeat(1000, 1), mask.repeat(1000)
    hidden = []

    def network(visible, masked):
        hidden.append(masked[:, 3:].sum(1))
        return torch.zeros(1, 2).expand(int(masked.sum()), -1)

    with pytest.raises(IndexError):  # the target is no class of this network
        denoiser.loss(network, tokens, mask, torch.Generator().manual_seed(0))
    none = (15 / 16) ** 17 / 17 + (15 / 16) ** 16 / 16
    assert (hidden[0] == 0).float().mean().item() == pytest.approx(none, abs=0.007)
    assert hidden[0].float().mean().item() == pytest.approx(8 + 16 / 2 / 16**2, rel=0.01)


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
    overrated = np.array([1.0, 3.0, 2.0, 2.0])  # gold falls as the reward grows
    assert [worth(overrated, value) for value in (2.0, 2.5, 3.5)] == [2, 2, None]


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


def around(mean, half):
    """Two prompts of a language, whose own interval is from `mean - half` to `mean + half`."""
    return np.array([mean - half, mean + half])


@pytest.mark.parametrize(
    ("means", "spread", "verdict", "above", "below"),
    [
        # four of five have the sign: just enough; seven of ten: not
        ([1.0, 1.0, 1.1, 0.9, -0.1], 0.05, "holds", 4, 1),
        ([1.0] * 7 + [-0.01] * 3, 0.02, "not told apart", 7, 0),
        # nearest to 0 on either side: 0 itself has no sign and is no clear case
        ([0.0] * 4, 0.0, "not told apart", 0, 0),
        ([0.1, 0.1, 0.1, 0.1], 0.1, "holds", 0, 0),
        ([-0.1, -0.1, -0.1, -0.2], 0.1, "does not hold", 0, 1),
        # two clear cases on either side are enough, one is not
        ([1.0, -1.0, 1.0, -1.0], 0.1, "depends on the language", 2, 2),
        ([1.0, -1.0, 1.0, -0.05], 0.1, "not told apart", 2, 1),
        ([-1.0, 1.0, -1.0, 0.05], 0.1, "not told apart", 1, 2),
        ([0.4, -0.4, 0.4, -0.4], 0.1, "depends on the language", 2, 2),
    ],
)
def test_verdicts_at_the_borders(means, spread, verdict, above, below):
    by_language = {f"language-{i}": around(mean, spread) for i, mean in enumerate(means)}
    covariates = {unit: {"words": 1.0} for unit in by_language}  # goes with nothing
    found = judge(by_language, covariates)
    assert (found["verdict"], found["above"], found["below"]) == (verdict, above, below)
    assert found["share"] == np.mean(np.array(means) > 0)


def test_a_covariate_goes_with_a_claim_below_a_share_of_five_percent(monkeypatch):
    """Divided by the number of covariates: here by two. All that do are named."""
    by_language = {f"language-{i}": around(mean, 0.1) for i, mean in enumerate([1, -1, 1, -1.0])}
    covariates = {unit: {"words": 1.0, "norm": 2.0} for unit in by_language}
    for p, verdict in (
        ([0.0249, 0.9], "depends on words"),
        ([0.025, 0.9], "depends on the language"),
        ([0.9, 0.001], "depends on norm"),
        ([0.001, 0.001], "depends on words and norm"),
    ):
        given = iter(p)
        monkeypatch.setattr(claims, "spearman", lambda x, y, given=given: (0.5, next(given)))
        found = judge(by_language, covariates)
        assert found["verdict"] == verdict
        assert list(found["covariates"]) == ["words", "norm"]
        assert found["covariates"]["norm"] == {"rho": 0.5, "p": p[1]}


def test_languages_without_a_value_are_left_out():
    some = units([1.0, 1.1, 1.2])
    covariates = unrelated(some) | {"empty": {"words": 9.0}}
    found = judge(some | {"empty": np.array([])}, covariates)
    assert (found["verdict"], len(found["by_language"])) == ("holds", 3)
    assert judge({"empty": np.array([])}, covariates)["verdict"] == "not measured"


@pytest.mark.parametrize(
    ("low", "high", "verdict", "above", "below"),
    [
        (-1, 1, "depends on words", 6, 6),
        (1, 3, "holds", 12, 0),  # how much it does depends on words
        (-3, -1, "does not hold", 0, 12),
    ],
)
def test_a_claim_may_depend_on_a_covariate(low, high, verdict, above, below):
    """But not whether it holds, where its interval is on one side of 0."""
    means = np.linspace(low, high, 12)
    by_language = units(means)
    covariates = {
        unit: {"words": float(mean**3), "noise": float(i % 3)}
        for i, (unit, mean) in enumerate(zip(by_language, means, strict=True))
    }
    found = judge(by_language, covariates)
    assert found["verdict"] == verdict
    assert found["covariates"]["words"]["rho"] == pytest.approx(1)
    assert (found["above"], found["below"]) == (above, below)


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


def drawn_at_random(seed):
    """A result with everything at random: what is said of it is computed twice."""
    rng = np.random.default_rng(seed)
    found = made_up(0.0)
    for run in found["runs"].values():
        run["rewards"] = rng.normal(size=(3, 4)).round(5).tolist()
        run["gold"] = (1 + rng.normal(size=(3, 4))).tolist()
    for T in found["pools"]:
        pool = {"gold": rng.normal(size=(3, 6)).tolist(), "valid": rng.random(3).tolist()}
        for size in measured.SIZES:
            pool[size] = (np.array(pool["gold"]) + rng.normal(size=(3, 6))).tolist()
        found["pools"][T] = pool
    for of in found["errors"].values():
        of["steps"] = [
            {"step": step, "E": rng.random(3).tolist(), "entropy": rng.random()}
            for step in range(1, 17)
        ]
        of["bins"] = {key: rng.random(4).tolist() for key in ("0", "0.5", "10", "2")}
        of["bins"] |= {"1.5": [7, *rng.random(3)]} if seed else {}
    found["language"]["words"] = int(rng.integers(75, 1000))
    found["rewards"]["medium"]["embedding_norm"] = rng.random()
    return Found(found)


def best_of_K(found, size, K, prompt, T=LENGTH, values="gold"):
    """The mean over all choices of K answers of the pool."""
    pool = found.result["pools"][str(T)]
    rewards = pool[size][prompt]
    chosen = [max(c, key=lambda i: rewards[i]) for c in itertools.combinations(range(6), K)]
    return np.mean([pool[values][prompt][i] for i in chosen])


def picked(found, c):
    """The gold of the answer with the largest reward, for each prompt."""
    run = found.result["runs"][c.key]
    return [
        gold[int(np.argmax(row))] for gold, row in zip(run["gold"], run["rewards"], strict=True)
    ]


def test_a_smaller_pool_is_too_small_for_more():
    """Best-of-K is of the pool with as many denoising steps, which may be another size."""
    found = drawn_at_random(0)
    (T,) = PLAN.denoising_steps
    pool = found.result["pools"][str(T)]
    pool.update({name: [row[:3] for row in pool[name]] for name in ("gold", *measured.SIZES)})
    dear = Costs(denoiser=1.0, reward=10.0)
    assert found.equal(Condition(T=T), dear) == (3, True)
    assert found.equal(Condition(), dear) == (6, True)
    free = Costs(denoiser=1.0, reward=0.0)
    assert found.equal(Condition(T=T), free) == (3, True)
    assert found.equal(Condition(), free) == (4, False)


def test_prompts_of_which_all_answers_are_alike_say_nothing_of_a_rewards_quality():
    found = drawn_at_random(0)
    pool = found.result["pools"][str(LENGTH)]
    others = [np.corrcoef(pool["small"][i], pool["gold"][i])[0, 1] for i in (0, 2)]
    pool["gold"][1] = [1.0] * 6
    assert found.quality("small") == pytest.approx(np.mean(others))


def test_the_map_against_all_choices_from_the_pools():
    found = [drawn_at_random(seed) for seed in range(4)]
    for c in (Condition(M=1), Condition(size="small"), Condition(T=8)):
        row = claims.place(c, found)
        assert {name: row[name] for name in ("method", "size", "M", "T")} == {
            "method": "entrgi",
            "size": c.size,
            "M": c.M,
            "T": c.T,
        }
        mine = [np.mean(picked(f, c)) for f in found]
        bests = [
            [np.mean([best_of_K(f, c.size, K, p, c.T) for p in range(3)]) for K in range(1, 7)]
            for f in found
        ]
        four = vars(student(np.array([m - best[3] for m, best in zip(mine, bests, strict=True)])))
        assert row["over_as_many"] == pytest.approx(four)
        assert row["worth"] == [
            next((K for K, value in enumerate(best, 1) if value >= m), None)
            for m, best in zip(mine, bests, strict=True)
        ]
        assert list(row["at_cost_ratio"]) == "the toy's,0.03,0.1,0.25,0.5,1,2".split(",")
        for name, at in row["at_cost_ratio"].items():
            ratio = 0.05 if name == "the toy's" else float(name)
            unguided = c._replace(M=0).config
            K = Costs(1.0, ratio).equal_trajectories(c.config, unguided)
            assert at["K"] == min(K, 6)
            assert at["pool_too_small"] == (4 if K > 6 else 0)
            gains = [m - best[min(K, 6) - 1] for m, best in zip(mine, bests, strict=True)]
            assert at["gain"] == pytest.approx(vars(student(np.array(gains))))
            assert at["pays_in"] == sum(gain > 0 for gain in gains)


def test_a_gain_of_nothing_does_not_pay():
    """All answers have the same gold: guided ones and those of the pool."""
    found = drawn_at_random(0)
    for run in found.result["runs"].values():
        run["gold"] = [[1.0] * 4] * 3
    for pool in found.result["pools"].values():
        pool["gold"] = [[1.0] * 6] * 3
    place = claims.place(Condition(), [found])
    assert {at["pays_in"] for at in place["at_cost_ratio"].values()} == {0}
    assert place["worth"] == [1]


def test_pairs_in_thirds_by_the_rewards_quality():
    found = [drawn_at_random(seed) for seed in range(4)]
    pairs = []
    for f, size in itertools.product(found, measured.SIZES):
        pool = f.result["pools"]["16"]
        quality = np.mean(
            [np.corrcoef(r, g)[0, 1] for r, g in zip(pool[size], pool["gold"], strict=True)]
        )
        mine = np.mean(picked(f, Condition(size=size)))
        four, six = (np.mean([best_of_K(f, size, K, p) for p in range(3)]) for K in (4, 6))
        pairs.append((quality, mine - four, mine - six))
    pairs.sort()
    for n in (4, 3):
        some = claims.by_quality(found[:n])
        assert [row["pairs"] for row in some] == [n, n, n]
    for row, i in zip(claims.by_quality(found), (0, 4, 8), strict=True):
        quality, gains, equal = np.array(pairs[i : i + 4]).T
        assert row == {
            "quality": pytest.approx([quality[0], quality[-1]]),
            "pairs": 4,
            "over_as_many": pytest.approx(gains.mean()),
            "at_equal_compute": pytest.approx(equal.mean()),
            "pays_in": sum(equal > 0),
        }
        assert not any(isinstance(row[name], np.generic) for name in row)


def test_errors_are_means_over_languages_and_sums_by_entropy():
    found = [drawn_at_random(seed) for seed in range(3)]
    rows = claims.errors(found)
    for method in ("aps", "entrgi"):
        of = [f.result["errors"][method]["steps"] for f in found]
        assert rows[method] == [
            {
                "step": i + 1,
                "E": pytest.approx(np.mean([steps[i]["E"] for steps in of])),
                "entropy": pytest.approx(np.mean([steps[i]["entropy"] for steps in of])),
            }
            for i in range(16)
        ]
    bins = [f.result["errors"]["entrgi"]["bins"] for f in found]
    expected = []
    for key in ("0", "0.5", "1.5", "2", "10"):
        n, E, D, soft = np.sum([of[key] for of in bins if key in of], 0)
        means = {"E": E / n, "D": D / n, "soft": soft / n}
        expected.append(pytest.approx({"nats": float(key), "count": int(n), **means}))
    assert rows["by_entropy"] == expected


def test_methods_and_steps_against_all_choices_from_the_pools():
    found = [drawn_at_random(seed) for seed in range(4)]
    rows = claims.methods(found)
    assert list(rows) == [
        f"{method}, {size}"
        for size in ("small", "medium", "large")
        for method in ("expectation", "constant", "aps", "entrgi", "bon_equal_compute")
    ]

    def over(values):
        return pytest.approx(vars(student(np.array(values))))

    def best(f, size, K, values):
        return np.mean([best_of_K(f, size, K, p, values=values) for p in range(3)])

    aps = rows["aps, small"]
    c = Condition("aps", "small")
    runs = [f.result["runs"][c.key] for f in found]
    pools = [f.result["pools"]["16"] for f in found]
    assert aps == {
        "gold_best": over([np.mean(picked(f, c)) - best(f, "small", 4, "gold") for f in found]),
        "gold_mean": over(
            [np.mean(r["gold"]) - np.mean(p["gold"]) for r, p in zip(runs, pools, strict=True)]
        ),
        "top1": over(
            [
                np.max(r["rewards"], 1).mean() - best(f, "small", 4, "small")
                for r, f in zip(runs, found, strict=True)
            ]
        ),
        "average": over(
            [np.mean(r["rewards"]) - np.mean(p["small"]) for r, p in zip(runs, pools, strict=True)]
        ),
    }
    equal = rows["bon_equal_compute, small"]
    for measure, values in (("gold_best", "gold"), ("top1", "small")):
        gains = [best(f, "small", 6, values) - best(f, "small", 4, values) for f in found]
        assert equal[measure] == over(gains)
    assert equal["average"]["mean"] == equal["gold_mean"]["mean"] == 0
    with pytest.MonkeyPatch.context() as patch:  # of fewer than there are in a pool
        patch.setattr(Found, "equal", lambda self, condition: (5, False))
        fewer = claims.methods(found)["bon_equal_compute, small"]["gold_best"]
    assert fewer == over([best(f, "small", 5, "gold") - best(f, "small", 4, "gold") for f in found])

    steps = claims.steps(PLAN, found)
    sizes = measured.SIZES
    golds = {
        M: [np.mean([picked(f, Condition(size=size, M=M)) for size in sizes]) for f in found]
        for M in (1, 3, 4, 8)
    }
    assert list(steps) == ["1", "3", "4", "8"]
    for M, of in golds.items():
        row = steps[str(M)]
        less = [m - first for m, first in zip(of, golds[1], strict=True)]
        assert row["gold_best"] == over(less)
        wins = [max(golds, key=lambda m, i=i: golds[m][i]) == M for i in range(4)]
        assert row["best_in"] == sum(wins)
        if M > 1:
            drawn = [np.mean([best(f, size, 6, "gold") for size in sizes]) for f in found]
            gains = [m - d for m, d in zip(of, drawn, strict=True)]
            assert row["against_equal_compute"] == over(gains)


def test_claims_against_the_runs():
    """Each claim's value for every prompt, from the answers alone."""
    found = drawn_at_random(1)
    gold = {c: np.array(picked(found, c)) for c in PLAN.conditions}
    ours = gold[Condition()]

    def over_sizes(M):
        return np.mean([gold[Condition(size=size, M=M)] for size in measured.SIZES], 0)

    E = {
        method: np.mean([step["E"] for step in found.result["errors"][method]["steps"][:4]], 0)
        for method in ("aps", "entrgi")
    }
    expected = {
        "bon": ours - [best_of_K(found, "medium", 4, p) for p in range(3)],
        "expectation": ours - gold[Condition("expectation")],
        "aps": ours - gold[Condition("aps")],
        "size": gold[Condition(size="large")] - gold[Condition(size="small")],
        "moderate": over_sizes(3) - over_sizes(1),
        "collapse": over_sizes(4) - over_sizes(8),
        "early": 1 - E["entrgi"] / E["aps"],
        "soft": [0.5, -0.5],
        "equal": ours - [best_of_K(found, "medium", 6, p) for p in range(3)],
        "constant": ours - gold[Condition("constant")],
    }
    assert {name: list(claim.value(found)) for name, claim in claims.CLAIMS.items()} == {
        name: pytest.approx(list(values)) for name, values in expected.items()
    }
    units = {name: claim.unit for name, claim in claims.CLAIMS.items()}
    assert units == {**dict.fromkeys(expected, "points"), "early": "share", "soft": "share"}


def test_rows_of_a_language(rows):
    assert rows["languages"]["language-2"] == {
        "words": 102.0,
        "embedding_std": 0.5,
        "valid": 0.75,
        "gold": 2.5,
        "rewards": {
            size: {"embedding_norm": 3.0, "corpus": 0.5, "quality": pytest.approx(1)}
            for size in measured.SIZES
        },
        "seconds": {"training": 1.0, "answers": 1.0},
    }
    places = {(r["size"], r["M"], r["step_size"], r["T"]) for r in rows["map"]}
    assert places == {(c.size, *c[2:]) for c in PLAN.conditions if c.method == "entrgi"}
    assert {r["method"] for r in rows["map"]} == {"entrgi"}


def estimate(mean):
    return {"mean": mean, "low": mean - 0.125, "high": mean + 0.25}


def test_the_tables_of_the_claims():
    """As a reader sees them; worth is the median, where more than the pool is the largest."""

    def claim(text, **changes):
        of = {"text": text, "source": "a page", "unit": "points", "verdict": "holds"}
        of |= {"mean": estimate(0.123), "share": 2 / 3, "above": 2, "below": 1}
        of |= {"by_language": dict.fromkeys("abc"), "covariates": {}}
        return of | changes

    goes_with = {
        "words": {"rho": 0.456, "p": 0.1},
        "norm": {"rho": float("nan"), "p": 1.0},
        "quality": {"rho": -0.5, "p": 0.1},
    }

    def place(size, gain, pool_too_small, worth, T=16, step_size=0.5):
        at = {"gain": estimate(gain), "pool_too_small": pool_too_small, "pays_in": 2}
        other = {**at, "pool_too_small": 0, "pays_in": 0}
        return {
            "size": size,
            "M": 3,
            "step_size": step_size,
            "T": T,
            "worth": worth,
            "at_cost_ratio": {"the toy's": at, "0.03": other},
        }

    measures = ("gold_best", "gold_mean", "top1", "average", "against_equal_compute")
    of = {name: estimate(i + 0.123) for i, name in enumerate(measures)}
    rows = {
        "languages": dict.fromkeys("abc"),
        "claims": {
            "none": claim("First", by_language={}, verdict="not measured"),
            "one": claim("Second", covariates=goes_with),
            "two": claim("Third", verdict="does not hold", unit="share"),
        },
        "methods": {
            f"{m}, small": of
            for m in ("expectation", "constant", "aps", "entrgi", "bon_equal_compute")
        },
        "steps": {"2": of | {"best_in": 1}, "4": of | {"best_in": 0}},
        "map": [
            place("small", 0.5, 1, [3, None, 1]),
            place("large", -0.5, 0, [None, 2, None], T=8, step_size=1.0),
            place("large", 0.0, 0, [7, 5, 9, 1]),
        ],
    }
    claimed, methods, steps, where = claims.markdown(rows).split("\n\n")
    assert claimed.splitlines() == [
        (
            "| Claim | Difference | Sign in | Clearly above, below 0 | Rank correlation with | "
            "Verdict |"
        ),
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| First | — | — | — | — | not measured |",
        (
            "| Second (a page) | +0.12 [−0.00, +0.37] points | 2 of 3 | 2, 1 | "
            "words +0.46, quality −0.50 | holds |"
        ),
        "| Third (a page) | +0.12 [−0.00, +0.37] share | 2 of 3 | 2, 1 | — | does not hold |",
    ]
    cells = "+0.12 [−0.00, +0.37] | +1.12 [+1.00, +1.37] | +2.12 [+2.00, +2.37]"
    average, equal = "+3.12 [+3.00, +3.37]", "+4.12 [+4.00, +4.37]"
    names = ("Expectation", "w = 0.5", "APS", "EntRGi", "Best-of-N, equal compute")
    assert methods.splitlines() == [
        "| Less Best-of-4 | Gold of the best | Gold, mean | Top@1 | Avg@K |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(f"| {name}, small | {cells} | {average} |" for name in names),
    ]
    assert steps.splitlines() == [
        (
            "| M | Gold of the best, less M = 2 | Gold, mean, less M = 2 | Top@1, less M = 2 | "
            "Gold, less Best-of-N at equal compute | Best M in |"
        ),
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        f"| 2 | {cells} | {equal} | 1 |",
        f"| 4 | {cells} | {equal} | 0 |",
    ]
    assert where.splitlines() == [
        "| Where | Worth in draws | Cost ratio the toy's | Cost ratio 0.03 |",
        "| --- | ---: | ---: | ---: |",
        "| small, M = 3, η = 0.5, T = 16 | 3 | ≤ +0.50 (2 of 3) | +0.50 (0 of 3) |",
        "| large, M = 3, η = 1, T = 8 | more than the pool | −0.50 (2 of 3) | −0.50 (0 of 3) |",
        "| large, M = 3, η = 0.5, T = 16 | 5 | +0.00 (2 of 3) | +0.00 (0 of 3) |",
    ]


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
    def place(low, pays_in, pool_too_small=0):
        at = {"gain": {"low": low}, "pays_in": pays_in, "pool_too_small": pool_too_small}
        return {"worth": [1] * 12, "at_cost_ratio": {"1": at}}

    assert claims.pays(place(0.01, 10), "1")
    assert not claims.pays(place(0.0, 12), "1")
    five = {**place(0.01, 4), "worth": [1] * 5}
    assert claims.pays(five, "1")  # four of five are just enough
    assert not claims.pays(place(0.01, 9), "1")
    assert not claims.pays(place(-0.01, 12), "1")
    assert not claims.pays(place(0.01, 12, pool_too_small=1), "1")  # docs/preregistered.md: open


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
    assert len(claims.design(False, 3, 40).seeds) == 40
    with pytest.raises(ValueError, match="units: got 41, expected at most 40 languages"):
        claims.design(False, 3, 41)
    assert full.settings == claims.design(False, 107, 6).settings  # so that two can share a folder
    assert json.loads(json.dumps(full.settings))["sampling"]["temperature"] == 0.7
    conditions = full.plan.conditions
    assert len({c.key for c in conditions}) == len(conditions) == 31
    for size, M in itertools.product(measured.SIZES, (1, 2, 3, 4, 6, 8)):
        assert Condition(size=size, M=M) in conditions


def test_networks_are_small_so_one_thread_measures(monkeypatch):
    threads = torch.get_num_threads()
    asked = []
    monkeypatch.setattr(
        claims, "measure", lambda plan, seed: asked.append((plan, seed, torch.get_num_threads()))
    )
    torch.set_num_threads(2)
    try:
        claims.design(True, 3, None).measure("language-3")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert asked == [(measured.QUICK, 3, 1)]


def test_the_conditions_are_the_papers_but_for_what_they_say():
    paper = SamplingConfig(new_tokens=16, denoising_steps=16)
    assert Condition().config == paper.guided(weight="entrgi", steps=3, step_size=0.5)
    other = Condition("constant", "small", 4, 1.0, 8)
    assert other.key == "constant, small, M 4, eta 1, T 8"
    expected = replace(paper, denoising_steps=8)
    expected = expected.guided(weight=Constant(0.5), steps=4, step_size=1.0)
    assert other.config == expected
    traced = [c for c in measured.FULL.conditions if measured.is_traced(c)]
    assert traced == [Condition("aps"), Condition("entrgi")]
    conditions = measured.FULL.conditions
    assert [c.step_size for c in conditions if c.step_size != 0.5] == [0.2, 1.0]
    assert [c.T for c in conditions if c.T != 16] == [4, 8]
    assert measured.FULL.denoiser_steps(1400, 1000) == 2800
    assert measured.FULL.denoiser_steps(1400, 250) == 1750


def test_other_code_of_the_languages_is_other_networks():
    """Those in the cache are of the code that made them."""
    denoiser, rewards = measured.recipes_of(measured.FULL, 1)
    for recipe in (denoiser, *rewards.values()):
        keys = {cache_key(recipe), cache_key(replace(recipe, code="other"))}
        assert len(keys) == 2
        assert recipe.code == templates.CODE
    digest = hashlib.sha256(Path(templates.__file__).read_bytes()).hexdigest()
    assert digest.startswith(templates.CODE)


@pytest.mark.parametrize("seed", [1, 106])
def test_networks_are_trained_by_rule(seed):
    """Their sizes and steps are the plan's, and the embeddings' deviation is the language's."""
    plan = measured.FULL
    denoiser, rewards = measured.recipes_of(plan, seed)
    words = len(draw_language(seed).vocabulary)
    std = 0.14 * (1 / 0.14) ** evenly(seed, 1)
    assert denoiser == templates.FamilyDenoiserRecipe(
        *(Size(64, 2), round(1400 * (1 + words / 1000)), seed), learning_rate=6e-3, examples=40_000
    )
    trained = {"small": (24, 1200), "medium": (40, 1200), "large": (64, 1600)}
    assert rewards == {
        name: templates.FamilyRewardRecipe(
            *(Size(width, 2), steps, seed),
            learning_rate=3e-3,
            examples=40_000,
            embedding_std=pytest.approx(std),
        )
        for name, (width, steps) in trained.items()
    }


def test_the_quick_plan():
    quick = claims.design(True, 1, None).plan
    size = [quick.denoiser[0].width, *(size.width for size, _ in quick.rewards.values())]
    assert size == [48, 12, 24, 32]
    assert [steps for _, steps in (quick.denoiser, *quick.rewards.values())] == [550, 200, 200, 200]
    assert (quick.words, quick.prompts, quick.pool, quick.short_pool) == ((75, 120), 8, 24, 24)
    assert (quick.gradient_steps, quick.step_sizes) == ((1, 3, 4, 8), (1.0,))
    assert (quick.denoising_steps, quick.judged, quick.examples) == ((8,), 200, 6_000)
    assert {size.layers for size, _ in (quick.denoiser, *quick.rewards.values())} == {2}


def test_quality_by_hand(testbed):
    """On answers to held-out prompts, as the corpus has them and as training mixes them."""
    language, reward = testbed.language, testbed.rewards["large"]
    found = measured.quality(testbed, "large", 25)
    norms = reward.embeddings.square().sum(1).sqrt()
    assert found["embedding_norm"] == pytest.approx(norms.mean().item())
    for name, draw in (("corpus", language.corpus), ("mixture", language.mixture)):
        prompts, answers = draw(random.Random("judged 7"), language.split[1], 25)
        gold = [language.gold(*pair) for pair in zip(prompts, answers, strict=True)]
        scores = reward.score([str(p) for p in prompts], [" ".join(a) for a in answers])
        assert found[name] == pytest.approx(np.corrcoef(scores, gold)[0, 1])
    assert math.isnan(measured.correlation(np.ones(3), np.arange(3.0)))
    assert math.isnan(measured.correlation(np.arange(3.0), np.ones(3)))
    x, y = np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 2.0])
    assert measured.correlation(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])


def test_what_is_said_of_a_language_is_what_was_drawn(testbed):
    """And the mean gold of 500 answers of its corpus, at prompts that no network has seen."""
    language = testbed.language
    asked = []

    class Spied:
        def __getattr__(self, name):
            return getattr(language, name)

        def corpus(self, rng, prompts, examples):
            asked.append((rng.getstate(), prompts, examples))
            return language.corpus(rng, prompts, examples)

    found = measured.facts(replace(testbed, language=Spied()), 0.3)
    assert asked == [(random.Random("gold 7").getstate(), language.split[1], 500)]
    examples = zip(*language.corpus(random.Random("gold 7"), language.split[1], 500), strict=True)
    assert found.pop("corpus_gold") == pytest.approx(
        sum(language.gold(*example) for example in examples) / 500
    )
    assert found == {
        "words": len(language.vocabulary), "topics": len(language.nouns), "order": language.order,
        "adjective_first": language.adjective_first, "adverb_place": language.adverb_place,
        "agreement": language.agreement, "points": language.points._asdict(),
        "habits": language.habits._asdict(), "embedding_std": 0.3,
    }  # fmt: skip


def test_the_numbers_of_a_language(testbed, monkeypatch):
    """A pool and a run, of answers that are given: rewards to five digits, gold by prompt."""
    language, prompts = testbed.language, testbed.held_out_prompts(6)
    rng = random.Random(0)
    texts = {}
    configs = []

    def generate(denoiser, reward, some, config, observe=None):
        configs.append((reward, config, list(some), observe))
        K = config.trajectories
        for prompt in some:
            _, answers = language.corpus(rng, [language.parse_prompt(prompt)], K)
            texts[prompt] = [" ".join(answer) for answer in answers]
            if prompt == prompts[0]:
                texts[prompt][0] = language.verbs[0]  # no sentence
        rewards = torch.stack([reward.score([p] * K, texts[p]) for p in some])
        return SimpleNamespace(responses=[texts[p] for p in some], rewards=rewards)

    monkeypatch.setattr(measured, "generate", generate)
    found = measured.pool(testbed, prompts, 5, 8)
    assert [(c[0], c[2], c[3]) for c in configs] == [
        (testbed.rewards["medium"], prompts[:4], None),
        (testbed.rewards["medium"], prompts[4:], None),
    ]
    assert configs[0][1] == replace(Condition(M=0, T=8).config, trajectories=5)
    scores = {
        size: [
            [round(score, 5) for score in reward.score([p] * 5, texts[p]).tolist()] for p in prompts
        ]
        for size, reward in testbed.rewards.items()
    }
    gold = [[testbed.gold_score(p, text) for text in texts[p]] for p in prompts]
    assert found == {"gold": gold, "valid": [0.8] + [1.0] * 5, **scores}

    configs.clear()
    clock = iter([10.0, 12.3456])
    monkeypatch.setattr(measured, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    observer = object()
    c = Condition("aps", "small", T=4)
    found = measured.run(testbed, c, prompts, observer)
    assert configs == [(testbed.rewards["small"], c.config, prompts, observer)]
    assert found == {
        "rewards": [
            [round(x, 5) for x in testbed.rewards["small"].score([p] * 4, texts[p]).tolist()]
            for p in prompts
        ],
        "gold": [[testbed.gold_score(p, text) for text in texts[p]] for p in prompts],
        "valid": [0.75] + [1.0] * 5,
        "seconds": 2.35,
    }


def test_a_language_is_measured_in_all_its_parts(testbed, monkeypatch):
    plan = replace(PLAN, pool=5, short_pool=2, prompts=3, denoising_steps=(8,))
    clock = iter([1.0, 3.0, 7.5])
    monkeypatch.setattr(measured.Testbed, "load", lambda *_: testbed)
    monkeypatch.setattr(measured, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(measured, "pool", lambda of, prompts, K, T: (len(prompts), K, T))
    observed = {}

    def run(of, condition, prompts, errors):
        if errors is not None:
            observed[condition] = errors
            monkeypatch.setattr(errors, "found", lambda: condition.method)
        return len(prompts)

    monkeypatch.setattr(measured, "run", run)
    found = measured.measure(plan, 7)
    _, rewards = measured.recipes_of(plan, 7)
    assert found == {
        "language": measured.facts(testbed, rewards["medium"].embedding_std),
        "rewards": {size: measured.quality(testbed, size, 20) for size in measured.SIZES},
        "costs": {size: vars(testbed.costs(size)) for size in measured.SIZES},
        "pools": {"16": (3, 5, 16), "8": (3, 2, 8)},
        "runs": {c.key: 3 for c in plan.conditions},
        "errors": {"aps": "aps", "entrgi": "entrgi"},
        "seconds": {"training": 2.0, "answers": 4.5},
    }
    assert list(observed) == [Condition("aps"), Condition("entrgi")]
    assert {errors.prompts for errors in observed.values()} == {3}


def test_errors_at_the_borders_of_the_band():
    """1 and 4 nats are inside; a bin begins at its lower end; one step, one prompt."""
    H = torch.tensor([[1.0, 4.0, 0.999, 4.001, 0.5]])
    E = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.25]])
    D = torch.tensor([[0.2, 0.2, 0.3, 0.5, 0.123456]])
    by_prompt = measured.ErrorsByPrompt(1)
    masked = torch.ones(1, 5, dtype=torch.bool)
    by_prompt(SimpleNamespace(step=0, masked=masked, entropy=H, E=E, D=D))
    found = by_prompt.found()
    assert found["band"] == [[2.0, 0.3, 0.4, 1.0]]
    assert found["steps"] == [{"step": 1, "E": [0.25], "entropy": 2.1}]
    assert found["bins"] == {
        "0.5": [2.0, 0.55, 0.4235, 0.0],
        "1": [1.0, 0.1, 0.2, 1.0],
        "4": [2.0, 0.6, 0.7, 1.0],
    }


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
