"""Templates: blanks anywhere, and of different numbers in a batch, on every family."""

import itertools
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from checkpoints import DREAM, LONG, REWARD, SHORT
from entrgi_ref import GuidanceConfig, SamplingConfig, generate
from entrgi_ref.models import SequenceReward, load_denoiser
from entrgi_ref.models.reading import visible_of
from entrgi_ref.protocols import Template
from tiny import TinyDenoiser, TinyReward

FOLDERS = Path(__file__).parent / "data" / "parity-models"
FAMILIES = {path.parent.name: path.parent for path in sorted(FOLDERS.glob("*/config.json"))}
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
FAMILIES["dream-tiny"] = DREAM
TEXTS = ["____ the river", "a __ and __ home is long", "the ______"]
"""Two blanks that differ, at either end and between; text after the last one."""
PROMPTS = [SHORT, LONG, SHORT + " again"]


@cache
def networks(name):
    denoiser = load_denoiser(FAMILIES[name], dtype="float64", device="cpu")
    return denoiser, SequenceReward.from_pretrained(
        REWARD, denoiser, dtype="float64", unmatched="zero"
    )


def settings_of(new_tokens, steps=2, **changes):
    guidance = GuidanceConfig("entrgi", steps, dtype="float64")
    return SamplingConfig(guidance, 2, new_tokens, denoising_steps=5, **changes)


@pytest.mark.parametrize(
    ("name", "steps", "order"),
    [
        *(("dream-tiny", *each) for each in itertools.product((0, 2), ("entropy", "origin"))),
        *(pytest.param(*each.values, 2, "entropy", marks=each.marks) for each in OTHERS),
    ],
)
def test_templates_of_different_lengths_in_one_batch(name, steps, order):
    """Given tokens stay, blanks are filled, and each is answered as it is alone."""
    denoiser, reward = networks(name)
    starts = [denoiser.template(text) for text in TEXTS]
    lengths = [len(start) for start in starts]
    assert len(set(lengths)) > 1
    assert len({int((start == denoiser.mask_id).sum()) for start in starts}) > 1
    config = settings_of(max(lengths), steps, order=order, eos_last=False)
    together = generate(denoiser, reward, PROMPTS, config, start=starts)
    for p, start in enumerate(starts):
        answers = together.tokens[p, :, : len(start)]
        fixed = start != denoiser.mask_id
        assert (answers[:, fixed] == start[fixed]).all()
        assert denoiser.writable[answers].all()
        alone = settings_of(len(start), steps, order=order, eos_last=False)
        found = generate(denoiser, reward, [PROMPTS[p]], alone, start=start[None])
        assert torch.equal(found.tokens[0], answers)
        assert found.responses[0] == together.responses[p]
        assert torch.allclose(found.rewards[0], together.rewards[p], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["dream-tiny", *OTHERS])
def test_padding_in_the_template_is_no_part_of_the_answer(name):
    """A tensor filled up with the padding token is a list of shorter ones."""
    denoiser, reward = networks(name)
    starts = [denoiser.template(text) for text in TEXTS]
    N = max(map(len, starts))
    filler = torch.full((len(starts), N), denoiser.pad_id)
    for row, start in zip(filler, starts, strict=True):
        row[: len(start)] = start
    listed, filled = (
        generate(denoiser, reward, PROMPTS, settings_of(N), start=start)
        for start in (starts, filler)
    )
    assert torch.equal(listed.tokens, filled.tokens)
    assert torch.equal(listed.rewards, filled.rewards)


@pytest.mark.parametrize("name", ["dream-tiny", *OTHERS])
def test_a_template_of_blanks_is_plain_generation(name):
    denoiser, reward = networks(name)
    plain = generate(denoiser, reward, PROMPTS, settings_of(6))
    start = torch.stack([denoiser.template("______")] * 3)
    filled = generate(denoiser, reward, PROMPTS, settings_of(6), start=start)
    assert torch.equal(plain.tokens, filled.tokens)
    assert torch.equal(plain.rewards, filled.rewards)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("micro_batch", [None, 1])
def test_guidance_sees_no_padding(cached, micro_batch):
    """The rewards of a gradient step and their gradients, whatever stands in the padding."""
    denoiser, _ = networks("llada-tiny")
    reward = SequenceReward.from_pretrained(
        *(REWARD, denoiser), dtype="float64", prefix_cache=cached, micro_batch=micro_batch
    )
    row = denoiser.template("a ____ home")
    n, blanks = len(row), 2 * int((row == denoiser.mask_id).sum())
    torch.manual_seed(0)
    mixed = torch.randn(blanks, reward.embeddings.shape[1], dtype=torch.float64)
    likeliest = torch.randint(0, 300, (blanks,))

    def step(tokens, there):
        tokens, there = tokens.expand(2, -1), there.expand(2, -1)
        masked, given = tokens == denoiser.mask_id, there & (tokens != denoiser.mask_id)
        at = reward.bind([SHORT], 2).infilling(given, there)
        leaf = mixed.clone().requires_grad_()
        found = at.at(tokens, masked)(leaf, likeliest)
        return found.detach(), torch.autograd.grad(found.sum(), leaf)[0]

    alone, slope = step(row, torch.ones(n, dtype=torch.bool))
    there = torch.arange(n + 3) < n
    for filler in (denoiser.pad_id, 5):
        tokens = torch.cat([row, torch.full((3,), filler)])
        found, gradient = step(tokens, there)
        assert torch.allclose(found, alone, rtol=0, atol=1e-12)
        assert torch.allclose(gradient, slope, rtol=0, atol=1e-12)


ENDS, PADS = 7, 8


def slowly_visible(row, given, pad):
    """Position by position."""
    found, ended = [], False
    for token, fixed in zip(row, given, strict=True):
        if fixed and token != ENDS:
            ended = False
        found.append(not ended and token != pad)
        ended = ended or token == ENDS
    return found


@given(
    st.lists(st.tuples(st.integers(4, 8), st.booleans()), min_size=1, max_size=12),
    st.sampled_from([None, PADS, ENDS]),
)
@example([(ENDS, False), (4, False), (ENDS, True), (5, False)], None)  # a given end is an end
@example([(ENDS, True), (4, True), (5, False), (ENDS, False), (4, False), (5, True)], PADS)
@example([(4, False), (PADS, False), (5, False), (PADS, True)], PADS)
def test_an_end_hides_what_follows_up_to_the_next_given_word(row, pad):
    tokens, given = (torch.tensor([list(side)]) for side in zip(*row, strict=True))
    found = visible_of(tokens, ENDS, pad, given)[0].tolist()
    assert found == slowly_visible(tokens[0].tolist(), given[0].tolist(), pad)
    nothing = torch.zeros_like(given)
    plain = visible_of(tokens, ENDS, pad)
    assert torch.equal(visible_of(tokens, ENDS, pad, nothing), plain)
    assert plain[0].tolist() == slowly_visible(tokens[0].tolist(), [False] * len(row), pad)


def test_text_after_a_blank_that_ends_is_read():
    """The reward of a template's text does not vanish where a blank is likely to end the answer."""
    denoiser, reward = networks("dream-tiny")
    one = denoiser.template("a __ home")
    other = torch.cat([one[:-1], one[:1]])
    masked = (one == denoiser.mask_id)[None]
    ends = torch.full((2,), denoiser.eos_id)
    scores = [
        reward.bind([SHORT], 1)
        .infilling(~masked, torch.ones_like(masked))
        .at(row[None], masked)(reward.embeddings[ends], ends)
        for row in (one, other)
    ]
    assert not torch.allclose(*scores)


def test_rewards_that_cannot_leave_out_padding_are_refused():
    config = SamplingConfig(GuidanceConfig(steps=1), 2, new_tokens=6, denoising_steps=3)
    rows = [torch.tensor([13, 3, 13, 13, 4, 13]), torch.tensor([5, 13, 7])]
    with pytest.raises(ValueError, match="start: got templates of different lengths, which Tiny"):
        generate(TinyDenoiser(0), TinyReward(0), ["12", "3"], config, start=rows)
    same = [rows[0], rows[0].flip(0)]
    listed = generate(TinyDenoiser(0), TinyReward(0), ["12", "3"], config, start=same)
    whole = generate(TinyDenoiser(0), TinyReward(0), ["12", "3"], config, start=torch.stack(same))
    assert torch.equal(listed.tokens, whole.tokens)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([torch.tensor([13, 1])], r"start: got shape \[1, 2\], expected \[P, N\] = \[1, 6\]"),
        ([torch.tensor([[13] * 6])], r"start: got shape \[1, 6\], expected \[n\]"),
        ([], r"start: got \[\], expected a tensor"),
        ([torch.tensor([5] * 6)], "start: nothing is to be written for prompt 0"),
    ],
)
def test_lists_that_do_not_fit_are_refused(as_users_run_it, rows, message):
    config = SamplingConfig(GuidanceConfig(steps=1), 2, new_tokens=6, denoising_steps=3)
    with pytest.raises(ValueError, match=message):
        generate(TinyDenoiser(0), TinyReward(0), ["12"], config, start=rows)


def test_the_text_of_an_answer_is_without_the_padding():
    class Padded(TinyReward):
        def bind(self, prompts, trajectories):
            bound = super().bind(prompts, trajectories)
            bound.infilling = lambda given, present: bound
            return bound

        def score(self, prompts, responses):
            return torch.zeros(len(responses))

    config = SamplingConfig(GuidanceConfig(steps=1), 2, new_tokens=6, denoising_steps=3)
    rows = [torch.tensor([13, 3, 13, 13, 4, 13]), torch.tensor([5, 13, 7])]
    denoiser = TinyDenoiser(0)
    found = generate(denoiser, Padded(0), ["12", "3"], config, start=rows)
    for tokens, row, texts in zip(found.tokens, rows, found.responses, strict=True):
        assert texts == denoiser.decode(tokens[:, : len(row)])


def test_what_fills_up_is_never_the_mask():
    """Also of a denoiser without ends and padding, or whose padding is its mask."""
    rows = [torch.tensor([0, 3, 0, 4]), torch.tensor([5, 0])]
    for eos_id, pad_id in ((None, None), (0, None), (None, 0), (0, 0), (7, 0)):
        denoiser = TinyDenoiser(0)
        denoiser.mask_id, denoiser.eos_id, denoiser.pad_id = 0, eos_id, pad_id
        template = Template.of(rows, (2, 4), denoiser)
        assert (template.tokens == 0).sum(1).tolist() == [2, 1]
        assert template.present.tolist() == [[True] * 4, [True, True, False, False]]
        assert template.given.tolist() == [[False, True, False, True], [True, False, False, False]]
