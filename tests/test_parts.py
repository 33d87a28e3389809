"""Some rows of tables at a time: the same numbers as by all together, and less memory."""

import json
from dataclasses import fields, replace
from functools import partial

import paper_runs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from entrgi_ref import (
    WEIGHTS,
    DenoisingRecord,
    GuidanceConfig,
    KeyedDraws,
    SamplingConfig,
    generate,
    guide,
    parts,
)
from entrgi_ref.fast import adam
from entrgi_ref.orders import ORDERS, ORIGIN
from properties import tried
from tiny import TinyDenoiser, TinyReward
from tiny_testbed import TinyTestbed

ROUNDING = 1e-12
"""Products of fewer rows are added up in another order."""


def observed(config, rows, seed=0, vocabulary=14, prompts=("12", "40577"), **options):
    """A generation and the records of its steps."""
    records: list[DenoisingRecord] = []
    networks = TinyDenoiser(seed, vocabulary), TinyReward(seed + 50, vocabulary)
    options |= {"observe": records.append, "vocabulary_batch": rows}
    return generate(*networks, list(prompts), config, **options), records


def require_equal(found, expected):
    """Two generations with their records: equal tokens, and numbers within rounding."""
    assert torch.equal(found[0].tokens, expected[0].tokens)
    assert found[0].responses == expected[0].responses
    torch.testing.assert_close(found[0].rewards, expected[0].rewards, rtol=0, atol=0)
    assert len(found[1]) == len(expected[1])
    for one, other in zip(found[1], expected[1], strict=True):
        for each in fields(DenoisingRecord):
            mine, other_ = getattr(one, each.name), getattr(other, each.name)
            if not isinstance(mine, torch.Tensor):
                assert mine == other_
            elif mine.is_floating_point():
                assert mine.dtype == other_.dtype
                torch.testing.assert_close(mine, other_, rtol=ROUNDING, atol=ROUNDING)
            else:
                assert torch.equal(mine, other_), each.name


def half(logits):
    return logits.new_full(logits.shape[:1], 0.5)


def of_the_nucleus(candidates):
    return candidates.probabilities.amax(-1)


CHOICES = st.fixed_dictionaries(
    {
        "weight": st.sampled_from([*WEIGHTS, half]),
        "steps": st.integers(0, 3),
        "optimiser": st.sampled_from(["adam", "sgd", torch.optim.AdamW]),
        "trajectories": st.integers(1, 2),
        "new_tokens": st.integers(1, 4),
        "denoising_steps": st.integers(1, 4),
        "temperature": st.sampled_from([0.7, 1.5]),
        "top_p": st.sampled_from([0.3, 0.95, 1.0]),
        "order": st.sampled_from([*ORDERS, ORIGIN, of_the_nucleus]),
        "order_temperature": st.sampled_from([0.0, 0.7]),
        "write_every_id": st.booleans(),
        "seed": st.integers(0, 2**40),
    }
)


@tried(80)
@given(CHOICES, st.integers(12, 40), st.integers(0, 10**6), st.data())
def test_parts_give_the_same_numbers(choices, vocabulary, seed, data):
    """Tokens, rewards and records, in float64, whatever the size of a part."""
    guided = {name: choices.pop(name) for name in ("weight", "steps", "optimiser")}
    choices["order_temperature"] *= choices["order"] != ORIGIN
    config = SamplingConfig(GuidanceConfig(**guided, dtype="float64"), **choices)
    rows = data.draw(st.integers(1, 2 * config.trajectories * config.new_tokens + 2))
    expected = observed(config, None, seed, vocabulary)
    require_equal(observed(config, rows, seed, vocabulary), expected)


@pytest.mark.parametrize("order", [*ORDERS, ORIGIN])
def test_parts_give_the_same_numbers_in_every_order(order):
    guidance = GuidanceConfig(steps=3, dtype="float64")
    config = SamplingConfig(guidance, trajectories=2, new_tokens=5, denoising_steps=4, order=order)
    expected = observed(config, None)
    for rows in (3, 10**9):
        require_equal(observed(config, rows), expected)


class Recording:
    """A reward that asks for the last token, twice as much where it is the likeliest."""

    embeddings = torch.eye(3)

    def __init__(self):
        self.seen = []

    def __call__(self, mixed, likeliest):
        self.seen.append(likeliest.tolist())
        return (mixed[:, 2] * (1 + (likeliest == 2))).sum()[None]


def test_a_reward_is_told_the_likeliest_tokens_of_the_moved_logits():
    """As `guide` tells it."""
    logits, draws = torch.tensor([[0.1, 0, 0], [0, 0, 5]]), KeyedDraws.of(0, [7], 1)
    places = torch.tensor([0, 0]), torch.tensor([0, 1])
    options = {"weight": WEIGHTS["expectation"], "steps": 3, "step_size": 1.0, "optimiser": "sgd"}
    options |= {"temperature": 0.7, "top_p": 1.0}
    whole, parted = Recording(), Recording()
    expected = guide(logits, whole, **options, draw=draws.at(0, *places).hard)
    found = parts.in_parts(1, draws, 0, *places)(logits, parted, **options)
    assert parted.seen == whole.seen == [[0, 2], [2, 2], [2, 2]]
    torch.testing.assert_close(found, expected)


FLOAT64 = SamplingConfig(
    GuidanceConfig(steps=2, dtype="float64"), trajectories=2, new_tokens=5, denoising_steps=3
)


def test_banned_ids_stay_banned():
    """Weight decay would move them."""
    decaying = partial(torch.optim.RMSprop, weight_decay=0.1)
    config = replace(FLOAT64, guidance=GuidanceConfig(optimiser=decaying, dtype="float64"))
    found = observed(config, 3)
    require_equal(found, observed(config, None))
    for record in found[1]:
        assert (record.guided_logits[:, 13] == -torch.inf).all()


def test_a_template_is_filled_in_alike():
    start = torch.tensor([[13, 3, 13, 4, 13], [1, 13, 2, 3, 13]])
    expected = observed(FLOAT64, None, start=start)
    require_equal(observed(FLOAT64, 2, start=start), expected)
    assert (expected[0].tokens[0, :, [1, 3]] == torch.tensor([3, 4])).all()


def test_float32_is_the_same_up_to_its_rounding(monkeypatch):
    """Also where the whole table is large enough for Adam in one pass, and a part is not."""
    monkeypatch.setattr(adam, "LARGE", 100)
    config = replace(FLOAT64, guidance=GuidanceConfig(steps=2))
    made, whole = [], []
    monkeypatch.setattr(torch.optim, "Adam", noting(torch.optim.Adam, made, whole))
    found, expected = observed(config, 3), observed(config, None)
    assert torch.equal(found[0].tokens, expected[0].tokens)
    for one, other in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(one.guided_logits, other.guided_logits, rtol=1e-4, atol=1e-4)
    assert {size for size, fused in zip(made, whole, strict=True) if fused} >= {3 * 14, 20 * 14}


def noting(optimiser, sizes, fused):
    """Like the class, but it notes the size of each table, and whether it is done in one pass."""

    def make(parameters, **options):
        sizes.append(parameters[0].numel())
        fused.append(options["fused"])
        return optimiser(parameters, **options)

    return make


def test_there_are_never_more_rows_of_a_distribution(monkeypatch):
    """Of what is as wide as the vocabulary, all that is made in the loops."""
    made = []
    for name in ("token_distribution", "nucleus", "logit_gradient"):
        original = getattr(parts, name)

        def noted(table, *others, original=original):
            made.append(len(table))
            return original(table, *others)

        monkeypatch.setattr(parts, name, noted)
    observed(FLOAT64, 3)
    assert max(made) == 3


def test_no_masked_positions_are_nothing_to_do():
    config = replace(FLOAT64, order=ORIGIN, skip_empty_steps=False, new_tokens=1, denoising_steps=9)
    found, expected = observed(config, 2), observed(config, None)
    require_equal(found, expected)
    assert any(len(record.candidates) == 0 for record in expected[1])


# What goes wrong


@pytest.mark.parametrize("rows", [0, -1, 1.5, True, "two"])
def test_bad_sizes_are_refused_before_a_model_runs(as_users_run_it, rows):
    denoiser = TinyDenoiser(0)
    with pytest.raises(ValueError, match=r"^vocabulary_batch: got .*an integer of at least 1"):
        generate(denoiser, TinyReward(1), ["12"], FLOAT64, vocabulary_batch=rows)
    assert denoiser.calls == 0


def outside(logits):
    return logits.new_full(logits.shape[:1], 1.5)


@pytest.mark.parametrize(
    "change",
    [
        {"guidance": GuidanceConfig(outside, 2, dtype="float64")},
        {"guidance": GuidanceConfig(lambda logits: logits, 2, dtype="float64")},
        {"guidance": GuidanceConfig(lambda logits: logits.sum(), 2, dtype="float64")},
        {"guidance": GuidanceConfig(optimiser=torch.optim.LBFGS)},
        {"guidance": GuidanceConfig(optimiser=torch.optim.Adafactor)},
    ],
)
def test_what_goes_wrong_is_said_in_the_same_words(as_users_run_it, change):
    """But for how many positions there are together."""
    said = []
    for rows in (None, 20):
        with pytest.raises(ValueError, match=": ") as caught:
            observed(replace(FLOAT64, **change), rows)
        said.append(str(caught.value))
    assert said[0] == said[1]
    with pytest.raises(ValueError, match=said[0].partition(":")[0]):
        observed(replace(FLOAT64, **change), 3)


# On its way from the command line


def test_the_size_reaches_generate_in_a_run_and_in_a_plan(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(parts, "_read", noticing(parts._read, seen))
    paper_runs.tiny_run(tmp_path / "parts", TinyTestbed(vocabulary_batch=2), methods=["entrgi"])
    assert max(seen) == 2
    paper_runs.tiny_run(tmp_path / "whole", methods=["entrgi"])
    parted, whole = (paper_runs.by_key(tmp_path / name) for name in ("parts", "whole"))
    assert parted == whole
    one, other = ((tmp_path / name / "run.json").read_text() for name in ("parts", "whole"))
    assert json.loads(one)["settings"] == json.loads(other)["settings"]


def noticing(read, seen):
    def noted(draw, psi, *others):
        seen.append(len(psi))
        return read(draw, psi, *others)

    return noted
