"""What each response begins with."""

from types import SimpleNamespace

import pytest
import torch

from entrgi_ref.protocols import Template

pytestmark = pytest.mark.usefixtures("as_users_run_it")
V, MASK, EOS, PAD = 8, 7, 6, 5


def denoiser(mask_id=MASK, eos_id=EOS, **more):
    writable = torch.arange(V) != mask_id
    return SimpleNamespace(mask_id=mask_id, eos_id=eos_id, writable=writable, **more)


def template(rows, **more):
    return Template.of(torch.tensor(rows), (len(rows), len(rows[0])), denoiser(**more))


def test_nothing_but_blanks_by_default():
    found = Template.of(None, (2, 3), denoiser(pad_id=PAD))
    assert found.tokens.tolist() == [[MASK] * 3] * 2
    assert found.present.all()
    assert not found.given.any()


def test_what_is_given_stays_and_padding_at_the_end_is_not_there():
    found = template([[3, MASK, PAD, PAD], [PAD, MASK, PAD, 4], [MASK] * 4], pad_id=PAD)
    assert found.present.tolist() == [[True, True, False, False], [True] * 4, [True] * 4]
    assert found.given.tolist() == [
        [True, False, False, False],
        [True, False, True, True],
        [False] * 4,
    ]


@pytest.mark.parametrize("more", [{}, {"pad_id": None}, {"pad_id": MASK}])
def test_nothing_is_padding_where_no_token_is_or_where_it_is_the_mask(more):
    found = template([[3, MASK, PAD, PAD], [MASK] * 4], **more)
    assert found.present.all()
    assert found.given.tolist() == [[True, False, True, True], [False] * 4]


@pytest.mark.parametrize(
    ("filler", "mask_id", "eos_id", "more"),
    [
        (PAD, MASK, EOS, {"pad_id": PAD}),
        (EOS, MASK, EOS, {"pad_id": None}),
        (EOS, MASK, EOS, {"pad_id": MASK}),
        (EOS, MASK, EOS, {}),
        (0, MASK, MASK, {}),
        (0, MASK, None, {}),
        (1, 0, 0, {}),
    ],
)
def test_rows_of_different_lengths_are_filled_up(filler, mask_id, eos_id, more):
    rows = [torch.tensor([mask_id, 3]), torch.tensor([mask_id, 4, 3, 2])]
    found = Template.of(rows, (2, 4), denoiser(mask_id, eos_id, **more))
    assert found.tokens.tolist() == [[mask_id, 3, filler, filler], [mask_id, 4, 3, 2]]
    assert found.present.tolist() == [[True, True, False, False], [True] * 4]
    assert found.given.tolist() == [[False, True, False, False], [False, True, True, True]]


@pytest.mark.parametrize("padding", [{}, {"pad_id": PAD}])
def test_a_reward_is_told_what_is_given_and_what_is_padding(padding):
    """Each prompt's trajectories side by side, and even where nothing is padding or given."""

    class Told(list):
        def at(self):
            """As a bound reward has it."""

    told = SimpleNamespace(infilling=lambda *sides: Told(side.tolist() for side in sides))
    reward = SimpleNamespace(bind=lambda prompts, trajectories: told)
    found = template([[3, MASK, PAD], [MASK, 2, 4]], **padding).bind(reward, ["a", "b"], 2)
    there = not padding
    assert found == [
        [[True, False, there]] * 2 + [[False, True, True]] * 2,
        [[True, True, there]] * 2 + [[True] * 3] * 2,
    ]
    blanks = Template.of(None, (1, 2), denoiser()).bind(reward, ["a"], 1)
    assert blanks == [[[False] * 2], [[True] * 2]]


@pytest.mark.parametrize("shape", [(2, 3), (1, 4), (2, 5)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"start: got shape \[2, 4\], expected \[P, N\] = "):
        Template.of(torch.full((2, 4), MASK), shape, denoiser())
    rows = [torch.tensor([MASK]), torch.full((4,), MASK)]
    if shape != (2, 4):
        with pytest.raises(ValueError, match="start: got shape"):
            Template.of(rows, shape, denoiser())
    with pytest.raises(ValueError, match=r"start: got shape \[1, 1\], expected \[n\] = \[any\]"):
        Template.of([torch.tensor([[MASK]])], (1, 1), denoiser())


def test_the_text_of_each_answer_is_without_the_padding():
    def decode(response):
        return [" ".join(map(str, row)) for row in response.tolist()]

    short = template([[3, MASK, PAD], [MASK, MASK, 4]], pad_id=PAD)
    answers = torch.tensor([[3, 1, PAD], [3, 2, PAD], [1, 2, 4], [2, 1, 4]])
    texts = short.decode(denoiser(decode=decode), answers)
    assert texts == ["3 1", "3 2", "1 2 4", "2 1 4"]
    whole = Template.of(None, (2, 3), denoiser())
    assert whole.decode(denoiser(decode=decode), answers) == decode(answers)
