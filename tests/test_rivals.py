"""Rivals of guidance, against what they aim at, on languages small enough to count."""

import itertools
import math
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from entrgi_ref import (
    GuidanceConfig,
    KeyedDraws,
    SamplingConfig,
    generate,
    predict,
    prompt_key,
)
from entrgi_ref.draws import KeyedStepDraws
from entrgi_ref.orders import by_logit
from entrgi_ref.rivals import damped, lookahead, self_smc, smc
from entrgi_ref.rivals.boards import Boards
from entrgi_ref.rivals.confidence import confidence
from entrgi_ref.rivals.lookahead import queue
from entrgi_ref.rivals.smc import Written, rows_at, survivors
from properties import tried
from tiny import TinyDenoiser, TinyReward, Trainable

V, N = 5, 3
"""The last id is the mask."""
BUSY = 2
"""Of as many steps as positions the first commits none, and is skipped."""
PROMPTS = ["3", "123"]
FLOAT64 = GuidanceConfig(steps=0, dtype="float64")


class Table:
    """A plain function of texts, without embeddings or gradients."""

    def __init__(self, length=N, scale=1.5, seed=3):
        answers = list(itertools.product(range(V - 1), repeat=length))
        g = torch.Generator().manual_seed(seed)
        rewards = scale * torch.randn(len(PROMPTS), len(answers), generator=g, dtype=torch.float64)
        self.rewards = {
            (prompt, " ".join(map(str, answer))): float(reward)
            for prompt, row in zip(PROMPTS, rewards, strict=True)
            for answer, reward in zip(answers, row, strict=True)
        }
        self.calls = 0

    def score(self, prompts, responses):
        self.calls += len(responses)
        asked = zip(prompts, responses, strict=True)
        return torch.tensor([self.rewards[one] for one in asked], dtype=torch.float64)


class Guiding(Table):
    """What `generate` takes, and does not ask where nothing is guided."""

    embeddings = torch.zeros(V, 2, dtype=torch.float64)

    def bind(self, prompts, trajectories):
        return self

    def at(self, response, masked):
        return self

    def __call__(self, mixed, likeliest):
        raise AssertionError


class Dependent(TinyDenoiser):
    """A mask predictor that says something else after each other token."""

    more = 2.0

    def __call__(self, tokens, valid, masked):
        g = torch.Generator().manual_seed(1)
        more = self.more * torch.randn(7, N, V, generator=g, dtype=torch.float64)
        written = torch.where(masked, 0, tokens[:, -N:] + 1)
        place = (written * (torch.arange(N) + 1)).sum(1) % 7
        return super().__call__(tokens, valid, masked) + more[place][masked]


def configured(K, length=N, steps=N, **changes):
    changes = {"top_p": 1.0, "eos_last": False} | changes
    return SamplingConfig(
        FLOAT64, trajectories=K, new_tokens=length, denoising_steps=steps, **changes
    )


def law(denoiser, prompt, steps, tau=0.7, power=0.0):
    """The probability of each answer under unguided sampling, by going through all of them.

    Each way to an answer counts with a power of the product of what was written at temperature 1.
    """
    encoded = denoiser.encode([prompt]).tokens
    levels = torch.linspace(1, 1e-3, steps + 1)

    def follow(answer, step):
        blank = [i for i, token in enumerate(answer) if token is None]
        if step == steps or not blank:
            return {tuple(answer): 1.0}
        share = 1 if step == steps - 1 else 1 - levels[step + 1] / levels[step]
        count = int(len(blank) * share)
        if count == 0:
            return follow(answer, step + 1)
        tokens = torch.tensor([[V - 1 if token is None else token for token in answer]])
        masked = torch.tensor([[token is None for token in answer]])
        board = torch.cat([encoded, tokens], 1)
        logits = denoiser(board, torch.ones_like(board) > 0, masked)[:, : V - 1]
        q, sure = (logits / tau).softmax(-1), logits.softmax(-1)
        entropy = [-sum(p * math.log(p) for p in row) for row in q.tolist()]
        first = sorted(range(len(blank)), key=lambda i: entropy[i])[:count]
        found = {}
        for written in itertools.product(range(V - 1), repeat=count):
            after, p = list(answer), 1.0
            for i, token in zip(first, written, strict=True):
                after[blank[i]] = token
                p *= float(q[i, token] * sure[i, token] ** power)
            for end, rest in follow(after, step + 1).items():
                found[end] = found.get(end, 0) + p * rest
        return found

    found = follow([None] * N, 0)
    total = 1 if power == 0 else sum(found.values())
    return {answer: p / total for answer, p in found.items()}


def drawn(tokens):
    counts = {}
    for answer in map(tuple, tokens.tolist()):
        counts[answer] = counts.get(answer, 0) + 1 / len(tokens)
    return counts


def total_variation(p, q):
    return sum(abs(p.get(answer, 0) - q.get(answer, 0)) for answer in {*p, *q}) / 2


def tilted(p, prompt, reward, beta):
    weights = {
        answer: chance * math.exp(reward.rewards[prompt, " ".join(map(str, answer))] / beta)
        for answer, chance in p.items()
    }
    total = sum(weights.values())
    return {answer: weight / total for answer, weight in weights.items()}


@pytest.mark.parametrize("steps", [2, 3])
def test_many_particles_are_drawn_from_the_tilted_distribution(steps):
    denoiser, reward, beta = Dependent(2, V), Table(), 0.8
    found = smc(denoiser, reward, PROMPTS, configured(12_000, steps=steps), beta=beta)
    for p, prompt in enumerate(PROMPTS):
        unguided = law(denoiser, prompt, steps)
        assert sum(unguided.values()) == pytest.approx(1)
        target = tilted(unguided, prompt, reward, beta)
        assert total_variation(target, unguided) > 0.15
        assert total_variation(drawn(found.tokens[p]), target) < 0.03
        assert len(target) == 64


@pytest.mark.parametrize(("steps", "tau"), [(2, 1.5), (3, 1.0)])
def test_many_self_rewarding_particles_are_drawn_by_their_confidence(steps, tau):
    denoiser, reward, beta = Dependent(2, V, sharpness=0.2), Table(), 0.6
    denoiser.more = 1.2
    config = configured(12_000, steps=steps, temperature=tau)
    found = self_smc(denoiser, reward, PROMPTS, config, beta=beta)
    for p, prompt in enumerate(PROMPTS):
        unguided = law(denoiser, prompt, steps, tau)
        target = law(denoiser, prompt, steps, tau, power=1 / beta)
        if tau == 1:
            powers = {answer: chance ** (1 + 1 / beta) for answer, chance in unguided.items()}
            total = sum(powers.values())
            assert target == pytest.approx({a: power / total for a, power in powers.items()})
        assert total_variation(target, unguided) > 0.12
        assert total_variation(drawn(found.tokens[p]), target) < 0.012
    assert reward.calls == found.rewards.numel()  # the finished ones alone


def test_confidence_in_16_bits_is_summed_in_more():
    logits = (4 * torch.randn(3, 50, generator=torch.Generator().manual_seed(0))).bfloat16()
    masked = torch.tensor([[True, False], [True, True]])
    committed = torch.tensor([[True, False], [False, True]])
    written = Written(logits, torch.tensor([7, 8, 9]), masked, committed, logits[1:2], last=False)
    expected = logits.double().log_softmax(1)[[0, 2], [7, 9]]
    torch.testing.assert_close(confidence(written), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("rival", [smc, self_smc])
def test_particles_go_on_with_the_logits_of_their_own_boards(rival, monkeypatch):
    """Also where they are masked at different numbers of places, as under `origin`."""
    seen, next_step = [], Boards.next

    def noted(boards, step, logits):
        seen.append(boards.masked.sum(1).tolist())
        assert torch.equal(logits, boards.predict())
        return next_step(boards, step, logits)

    monkeypatch.setattr(Boards, "next", noted)
    config = configured(8, order="origin")
    rival(TinyDenoiser(4, V), Table(), PROMPTS, config, beta=0.3)
    assert any(len(set(masked)) > 1 for masked in seen)


def test_what_particles_promise_on_the_way_moves_no_weight_in_the_end():
    """Rewards of unfinished texts are wrong on purpose; the weights of finished ones are not."""
    denoiser, beta = TinyDenoiser(2, V), 1.0
    reward, misled = Table(), Table()
    config = configured(12_000)
    calls = []

    def score(prompts, responses):
        calls.append(1)
        finished = reward.score(prompts, responses)
        return finished if len(calls) >= BUSY else 0.3 * finished.flip(0)

    misled.score = score
    found = smc(denoiser, misled, PROMPTS[:1], config, beta=beta)
    target = tilted(law(denoiser, PROMPTS[0], N), PROMPTS[0], reward, beta)
    assert len(calls) == BUSY + 1  # and the finished ones
    assert total_variation(drawn(found.tokens[0]), target) < 0.07


@pytest.mark.parametrize("rival", [smc, self_smc, lookahead])
@pytest.mark.parametrize(
    ("steps", "changes"),
    [
        (2, {}),
        (3, {"eos_last": True, "trajectories": 40, "order_temperature": 9.0}),
        (3, {"eos_last": False, "trajectories": 40, "order_temperature": 9.0}),
        (5, {"order": "origin"}),
        (5, {"order": "origin", "eos_last": True, "trajectories": 40}),
        (5, {"order": "maskgit_plus", "order_temperature": 0.5}),
        (3, {"guidance": GuidanceConfig(), "seed": 2}),
        (3, {"write_every_id": True}),
        (3, {"write_every_id": True, "eos_last": True, "trajectories": 40}),
        (3, {"order": by_logit, "eos_last": True, "trajectories": 40, "order_temperature": 9.0}),
    ],
)
def test_at_a_large_beta_answers_are_those_without_guidance(rival, steps, changes):
    denoiser = TinyDenoiser(4, V)
    config = replace(configured(3, steps=steps, top_p=0.9), **changes)
    options = {"candidates": V} if rival is lookahead else {}

    reward = Guiding()
    if config.write_every_id:  # then masks may be left in the text
        reward.rewards = defaultdict(float, reward.rewards)
    found = rival(denoiser, reward, PROMPTS, config, beta=1e6, **options)
    unguided = generate(denoiser, reward, PROMPTS, config.guided(steps=0))
    assert torch.equal(found.tokens, unguided.tokens)
    assert torch.equal(found.rewards, unguided.rewards)
    assert found.responses == unguided.responses
    assert found.config == unguided.config


def test_lookahead_at_the_last_position_draws_from_the_tilted_conditional():
    denoiser, reward, beta = TinyDenoiser(6, V), Table(1), 0.7
    config = configured(20_000, length=1, steps=1)
    found = lookahead(denoiser, reward, PROMPTS, config, candidates=V, beta=beta)
    for p, prompt in enumerate(PROMPTS):
        encoded = denoiser.encode([prompt]).tokens
        board = torch.cat([encoded, torch.tensor([[V - 1]])], 1)
        logits = denoiser(board, torch.ones_like(board) > 0, torch.ones(1, 1) > 0)[0, : V - 1]
        q = dict(
            zip(itertools.product(range(V - 1)), (logits / 0.7).softmax(0).tolist(), strict=True)
        )
        target = tilted(q, prompt, reward, beta)
        assert total_variation(target, q) > 0.07
        assert total_variation(drawn(found.tokens[p]), target) < 0.015


def test_lookahead_asks_for_a_reward_of_each_candidate_and_takes_the_best_at_a_small_beta():
    denoiser, reward = TinyDenoiser(6, V), Table()
    lookahead(denoiser, reward, PROMPTS, configured(2), candidates=3, beta=1e-6)
    assert reward.calls == 2 * 2 * (N * 3 + 1)  # and the finished ones
    assert denoiser.calls == BUSY
    wider = lookahead(denoiser, reward, PROMPTS, configured(2), candidates=99, beta=1e-6)
    # The last token is the best of all there are.
    best = {
        (prompt, place, others): max(
            reward.rewards[prompt, " ".join(map(str, (*others[:place], token, *others[place:])))]
            for token in range(V - 1)
        )
        for prompt in PROMPTS
        for place in range(N)
        for others in itertools.product(range(V - 1), repeat=N - 1)
    }
    for p, prompt in enumerate(PROMPTS):
        for answer, value in zip(wider.tokens[p].tolist(), wider.rewards[p].tolist(), strict=True):
            rest = [(*answer[:place], *answer[place + 1 :]) for place in range(N)]
            assert any(value == best[prompt, place, rest[place]] for place in range(N))
    greedy = lookahead(denoiser, reward, PROMPTS, configured(2), candidates=1)
    assert torch.equal(greedy.tokens[:, 0], greedy.tokens[:, 1])
    assert (wider.average > greedy.average).all()


@tried(50)
@given(
    weights=st.lists(st.lists(st.floats(-30, 5), min_size=4, max_size=4), min_size=1, max_size=3),
    step=st.integers(0, 100),
)
def test_survivors_are_as_many_copies_as_their_weight_says(weights, step):
    table = torch.tensor(weights, dtype=torch.float64)
    P, K = table.shape
    draws = KeyedDraws.of(0, range(P), K)
    chosen = survivors(table.flatten(), draws, step, P).view(P, K)
    expected = K * table.softmax(1)
    for p in range(P):
        assert ((chosen[p] >= p * K) & (chosen[p] < (p + 1) * K)).all()
        copies = torch.bincount(chosen[p] - p * K, minlength=K)
        assert (copies >= (expected[p] - 1e-9).floor()).all()
        assert (copies <= (expected[p] + 1e-9).ceil()).all()
    same = survivors(torch.zeros(P * K, dtype=torch.float64), draws, step, P)
    assert same.tolist() == list(range(P * K))


def test_a_last_rung_that_rounds_to_one_is_the_last_particle(monkeypatch):
    last = torch.tensor([1 - 2**-53], dtype=torch.float64)
    monkeypatch.setattr(KeyedStepDraws, "uniform", lambda *_: last)
    chosen = survivors(torch.zeros(4, dtype=torch.float64), KeyedDraws.of(0, [7], 4), 0, 1)
    assert chosen[-1] == 3


def test_a_last_rung_that_rounds_to_one_is_no_particle_without_weight(monkeypatch):
    last = torch.tensor([1 - 2**-53], dtype=torch.float64)
    monkeypatch.setattr(KeyedStepDraws, "uniform", lambda *_: last)
    weights = torch.tensor([0.3, 0.0, -math.inf, -math.inf], dtype=torch.float64)
    for K in (2, 3, 4):
        chosen = survivors(weights[:K], KeyedDraws.of(0, [7], K), 0, 1)
        assert chosen[-1] == 1


def test_a_first_rung_of_zero_is_no_particle_without_weight(monkeypatch):
    monkeypatch.setattr(KeyedStepDraws, "uniform", lambda *_: torch.zeros(1).double())
    weights = torch.tensor([-math.inf, 0.0], dtype=torch.float64)
    assert survivors(weights, KeyedDraws.of(0, [7], 2), 0, 1).tolist() == [1, 1]


def test_survivors_are_drawn_by_weight_on_average():
    weights = torch.tensor([0.05, 0.5, 0.15, 0.3], dtype=torch.float64)
    draws = KeyedDraws.of(0, [7], 4)
    counts = torch.zeros(4)
    for step in range(2000):
        counts += torch.bincount(survivors(weights.log(), draws, step, 1), minlength=4)
    assert torch.allclose(counts / 8000, weights.float(), atol=0.01)


@tried(50)
@given(rows=st.integers(1, 5), width=st.integers(1, 4), seed=st.integers(0, 1000))
def test_positions_of_chosen_trajectories_are_found(rows, width, seed):
    g = torch.Generator().manual_seed(seed)
    masked = torch.rand(rows, width, generator=g) < 0.5
    chosen = torch.randint(rows, (rows,), generator=g)
    names = [(row, i) for row in range(rows) for i in range(width) if masked[row, i]]
    expected = [(int(row), i) for row in chosen for i in range(width) if masked[row, i]]
    assert [names[i] for i in rows_at(masked, chosen)] == expected


def test_the_queue_goes_through_the_committed_positions_by_confidence():
    masked = torch.tensor([[True, False, True, True], [True, True, True, True]])
    confidence = torch.tensor([0.1, 0.9, 0.5, 3.0, -1.0, -2.0, -9.0])
    # The most confident of the second is not among them: an end that is put last, say.
    committed = torch.tensor([[False, False, True, True], [False, True, False, True]])
    turns = [tuple(part.tolist() for part in turn) for turn in queue(confidence, committed, masked)]
    assert turns == [([0, 1], [2, 1], [1, 4]), ([0, 1], [3, 3], [2, 6])]
    near = confidence.double() * 0 + 1 + 1e-12 * torch.arange(7)  # in float32 all are 1
    assert next(queue(near, committed, masked))[1].tolist() == [3, 3]
    committed[0, 2] = False  # one trajectory is done before the other
    turns = [tuple(part.tolist() for part in turn) for turn in queue(confidence, committed, masked)]
    assert turns == [([0, 1], [3, 1], [2, 4]), ([1], [3], [6])]


@pytest.mark.parametrize("rival", [smc, self_smc, lookahead])
def test_an_answer_is_that_of_its_prompt_alone(rival):
    denoiser, reward = TinyDenoiser(4, V), Table()
    together = rival(denoiser, reward, PROMPTS, configured(4), beta=0.5)
    for p, prompt in enumerate(PROMPTS):
        alone = rival(denoiser, reward, [prompt], configured(4), beta=0.5)
        assert torch.equal(alone.tokens[0], together.tokens[p])


def test_rewards_are_asked_of_texts_with_the_likeliest_tokens_where_nothing_is_written():
    """And with what has been written, in the same step too."""
    config, reward, asked, records = configured(2), Guiding(), [], []
    score = reward.score

    def scored(prompts, responses):
        asked.append(torch.tensor([[int(word) for word in text.split()] for text in responses]))
        return score(prompts, responses)

    reward.score = scored
    networks = Dependent(6, V), reward
    generate(*networks, PROMPTS, config.guided(steps=0), observe=records.append)
    first, last = records
    assert last.masked.sum(1).tolist() == [2] * 4
    asked.clear()
    smc(*networks, PROMPTS, config)
    likeliest = last.tokens.masked_scatter(last.masked, last.logits.argmax(-1))
    promised = torch.where(last.masked, likeliest, first.tokens)
    assert torch.equal(asked[0], promised)

    asked.clear()
    found = lookahead(*networks, PROMPTS, config, candidates=V, beta=0.1)
    one, *_, third, finished = (texts.view(4, -1, N) for texts in asked)
    likeliest = first.tokens.masked_scatter(first.masked, first.logits.argmax(-1))
    assert ((one == likeliest[:, None]) | first.committed[:, None]).all()
    answers = found.tokens.view(4, 1, N)
    written = (third == answers).all(1)  # in all texts but at the place that is asked about
    assert written.sum(1).tolist() == [N - 1] * 4
    assert torch.equal(finished, answers)


@pytest.mark.parametrize("rival", [smc, lookahead])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_all_rewards_have_in_common_changes_nothing(rival, dtype):
    """A thousand million, beside which float32 knows no differences."""
    config = replace(configured(12), guidance=GuidanceConfig(steps=0, dtype=dtype))
    reward, higher = Table(), Table()
    higher.score = lambda *asked: reward.score(*asked) + 1e9
    found = rival(TinyDenoiser(4, V), reward, PROMPTS, config, beta=0.3)
    again = rival(TinyDenoiser(4, V), higher, PROMPTS, config, beta=0.3)
    assert torch.equal(found.tokens, again.tokens)


@pytest.mark.parametrize(
    ("rival", "options", "message"),
    [
        (smc, {"beta": 0}, "beta: got 0"),
        (self_smc, {"beta": 1e7}, "beta: got 10000000.0"),
        (lookahead, {"beta": math.nan}, "beta: got nan"),
        (lookahead, {"candidates": 0}, "candidates: got 0"),
        (smc, {"keys": [1]}, "keys: got"),
    ],
)
def test_settings_out_of_range_are_refused(rival, options, message):
    denoiser = TinyDenoiser(4, V)
    with pytest.raises(ValueError, match=message):
        rival(denoiser, Table(), PROMPTS, configured(2), **options)
    assert denoiser.calls == 0


def test_the_queue_holds_what_is_written_whatever_its_confidence():
    """An order may give -inf to all that it would rather not write."""
    inf = math.inf
    confidence = torch.tensor([0.5, -inf, 1.0, 2.0, -inf, -inf])
    masked = torch.tensor([[True, True, True, False], [True, False, True, True]])
    committed = torch.tensor([[False, True, True, False], [False, False, True, True]])
    found = [[each.tolist() for each in one] for one in queue(confidence, committed, masked)]
    assert found == [[[0, 1], [2, 2], [2, 4]], [[0, 1], [1, 3], [1, 5]]]


@pytest.mark.parametrize("rival", [smc, self_smc, lookahead])
def test_empty_steps_change_nothing(rival):
    """Whether they are run or not: random numbers are made of a step's place among all."""
    config = configured(4, steps=3 * N)
    one, other = (
        rival(Dependent(4, V), Table(), PROMPTS, replace(config, skip_empty_steps=skip), beta=0.5)
        for skip in (True, False)
    )
    assert torch.equal(one.tokens, other.tokens)


@pytest.mark.parametrize("rival", [smc, self_smc, lookahead])
def test_rewards_that_are_not_finite_are_refused(rival):
    reward = Table()
    reward.score = lambda prompts, responses: torch.full((len(responses),), torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        rival(TinyDenoiser(4, V), reward, PROMPTS, configured(2))


@pytest.mark.parametrize("rival", [smc, self_smc, lookahead])
def test_random_numbers_are_made_of_the_keys(rival):
    """By default those of the prompts."""
    config, prompts = replace(configured(8, steps=BUSY), top_p=1.0), PROMPTS[:1] * 2

    def tokens(**options):
        return rival(TinyDenoiser(4, V), Table(), prompts, config, **options).tokens

    one, other = tokens(keys=[5, 6])
    assert not torch.equal(one, other)
    assert torch.equal(tokens(keys=[prompt_key(prompt) for prompt in prompts]), tokens())


@pytest.mark.parametrize(
    ("dtype", "expected"), [("float32", torch.float32), ("denoiser", torch.bfloat16)]
)
def test_logits_are_of_the_precision_that_is_asked_for(dtype, expected):
    class Short(TinyDenoiser):
        def __call__(self, tokens, valid, masked):
            return super().__call__(tokens, valid, masked).bfloat16()

    config = replace(configured(2), guidance=GuidanceConfig(steps=0, dtype=dtype))
    assert Boards.of(Short(4, V), PROMPTS, config).predict().dtype == expected


@pytest.mark.parametrize("rival", [smc, self_smc, lookahead])
def test_each_step_has_the_precision_that_it_is_given(rival, monkeypatch):
    """One particle, or a nucleus of one token, is an unguided answer. And the settings of each step
    are asked for once, before any model runs.
    """
    denoiser, reward, asked = TinyDenoiser(4, 12, sharpness=0.05), TinyReward(5, 12), []

    def guidance(step):
        asked.append((step.index, denoiser.calls))
        return GuidanceConfig(steps=0, dtype="float64" if step.index % 3 == 1 else "bfloat16")

    config = SamplingConfig(guidance, 1, 16, 16, seed=3, top_p=0.01 if rival is lookahead else 1.0)
    expected = generate(denoiser, reward, PROMPTS, config).tokens
    asked.clear()
    denoiser.calls = 0
    predicted = []

    def noting(*given, **named):
        predicted.append(predict(*given, **named))
        return predicted[-1]

    monkeypatch.setattr("entrgi_ref.rivals.boards.predict", noting)
    assert torch.equal(rival(denoiser, reward, PROMPTS, config).tokens, expected)
    assert asked == [(i, 0) for i in range(16)]
    kinds = [torch.float64 if i % 3 == 1 else torch.bfloat16 for i in range(1, 16)]
    assert [logits.dtype for logits in predicted] == kinds


@pytest.mark.parametrize("rival", [smc, self_smc, lookahead])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_refused(rival, value):
    """As `generate` refuses them: or masks would be left, or the first token written everywhere."""

    class Turns(TinyDenoiser):
        def __call__(self, tokens, valid, masked):
            logits = super().__call__(tokens, valid, masked)
            if self.calls == 2:
                logits[-1, :] = value
            return logits

    message = r"the denoiser's logits are not finite, for prompt 1 \('123'\)$"
    with pytest.raises(ValueError, match=message):
        rival(Turns(4, V), Table(), PROMPTS, configured(3))


@pytest.mark.parametrize("rival", [smc, self_smc, lookahead])
def test_a_denoiser_that_is_none_is_refused(rival):
    """A row or a text too few, or a mask that may be written."""

    class Short(TinyDenoiser):
        def __call__(self, tokens, valid, masked):
            return super().__call__(tokens, valid, masked)[1:]

    with pytest.raises(ValueError, match=r"the denoiser's logits: got .*\[n, V\]"):
        rival(Short(4, V), Table(), PROMPTS, configured(2))
    denoiser = TinyDenoiser(4, V)
    denoiser.writable = torch.ones(V, dtype=torch.bool)
    with pytest.raises(ValueError, match="writable: got True at the mask token"):
        rival(denoiser, Table(), PROMPTS, configured(2))
    assert denoiser.calls == 0
    denoiser = TinyDenoiser(4, V)
    denoiser.decode = lambda response: ["0 0 0"]
    with pytest.raises(ValueError, match=r"denoiser.decode: got .* a list of \d+ strings"):
        rival(denoiser, Table(), PROMPTS, configured(2))


@pytest.mark.parametrize("rival", [smc, self_smc, lookahead])
@pytest.mark.parametrize(("name", "value"), [("denoiser", 3), ("reward", str), ("config", {})])
def test_what_is_no_part_of_it_is_refused(as_users_run_it, rival, name, value):
    denoiser = TinyDenoiser(4, V)
    given = {"denoiser": denoiser, "reward": Table(), "config": configured(2)} | {name: value}
    with pytest.raises(ValueError, match=f"^{name}: got .*, expected "):
        rival(prompts=PROMPTS, **given)
    assert denoiser.calls == 0


@pytest.mark.parametrize("rival", [smc, self_smc, lookahead])
def test_no_graph_is_kept_of_trainable_networks(rival):
    reward, scores = Table(), Table().score
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    reward.score = lambda prompts, responses: scale * scores(prompts, responses)
    answered = rival(Trainable(4, V), reward, PROMPTS, configured(2))
    assert not answered.rewards.requires_grad


def test_a_mask_that_is_left_at_the_end_is_weighed_as_it_is_scored():
    """Where every id may be written. Nobody fills it in any more."""

    class Forgetful(TinyDenoiser):
        """The mask is the second likeliest."""

        def __call__(self, tokens, valid, masked):
            logits = super().__call__(tokens, valid, masked)
            logits[:, self.mask_id] = logits[:, : self.mask_id].amax(1) - 0.1
            return logits

    reward, asked = TinyReward(5, V), []
    scores = reward.score
    reward.score = lambda prompts, texts: asked.append(texts) or scores(prompts, texts)
    found = smc(Forgetful(4, V), reward, ["3"], configured(8, write_every_id=True), beta=1e6)
    *_, weighed, finished = asked
    assert any(str(V - 1) in text.split() for text in finished)
    assert set(finished) <= set(weighed)
    assert [*found.responses[0]] == finished


def test_damped_steps_grow_with_what_is_known():
    config = SamplingConfig(GuidanceConfig("aps", 2, 0.8), new_tokens=4, denoising_steps=4)
    steps = damped(config).guided_steps()
    levels = [1 - 0.999 * i / 4 for i in (2, 3)] + [0]  # the first of four commits nothing
    for (_, guidance), left in zip(steps, levels, strict=True):
        assert guidance.step_size == pytest.approx(0.8 * (1 - left), rel=1e-6)
        assert guidance.but(step_size=0.8) == config.guidance
    assert damped().guidance_at(steps[-1][0]) == GuidanceConfig()
    twice = damped(damped(config)).guided_steps()
    assert twice[0][1].step_size == pytest.approx(0.8 * (1 - levels[0]) ** 2, rel=1e-6)
    assert damped(config).trajectories == config.trajectories


@pytest.mark.parametrize("wrong", [{}, 0, GuidanceConfig()])
def test_damped_settings_are_made_of_settings(as_users_run_it, wrong):
    """What is false does not stand for the default."""
    with pytest.raises(ValueError, match=r"^config: got .*, expected a SamplingConfig, which has"):
        damped(wrong)
