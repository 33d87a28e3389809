"""Boards that have not changed are not read again, and nothing else is different."""

import weakref
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from entrgi_ref import GuidanceConfig, SamplingConfig, generate
from entrgi_ref.fast.unchanged import Unchanged
from properties import tried
from tiny import TinyDenoiser, TinyReward

FLOAT64 = GuidanceConfig(dtype="float64", steps=2)
SMALL = SamplingConfig(FLOAT64, trajectories=2, new_tokens=6, denoising_steps=6)
PROMPTS = ["12", "40577"]
TEMPLATES = torch.tensor([[13, 3, 13, 13, 12, 13], [5, 13, 7, 8, 9, 2]])
"""Four blanks and one."""
BLANK = torch.full((2, 6), 13)
CASES = {
    "origin": (replace(SMALL, order="origin"), None),
    "origin, with steps that commit nothing": (
        replace(SMALL, order="origin", denoising_steps=12, skip_empty_steps=False),
        None,
    ),
    "origin, any id, in the denoiser's precision": (
        replace(SMALL.guided(dtype="denoiser"), order="origin", write_every_id=True),
        None,
    ),
    "infilling": (SMALL, TEMPLATES),
    "infilling, any id, in the denoiser's precision": (
        replace(SMALL.guided(dtype="denoiser"), write_every_id=True),
        TEMPLATES,
    ),
    "steps that commit nothing": (replace(SMALL, skip_empty_steps=False), None),
    "many of them": (replace(SMALL, denoising_steps=15, skip_empty_steps=False), BLANK),
}
LOCKSTEP = {
    "the default": (SMALL, None),
    "more steps than tokens": (replace(SMALL, denoising_steps=15), None),
    "as in the authors' code": (SMALL.authors(), None),
    "any id": (replace(SMALL.authors(), denoising_steps=15), None),
    "infilling with as many blanks": (SMALL, BLANK),
    "a step for each few tokens": (
        replace(SMALL, denoising_steps=2, skip_empty_steps=False),
        None,
    ),
    "origin, alone": (replace(SMALL, order="origin", trajectories=1), "one prompt"),
}


class Spy(TinyDenoiser):
    """Keeps what it is asked about, and what it says."""

    def __init__(self, seed):
        super().__init__(seed)
        self.asked, self.said = [], []

    def __call__(self, tokens, valid, masked):
        found = super().__call__(tokens, valid, masked)
        self.asked.append((tokens, valid, masked))
        self.said.append((found, found.clone()))
        return found


def run(config, start, seed=0, denoiser=None, plain=False):
    """A generation and its records, also with the plain version."""
    records = []
    with pytest.MonkeyPatch.context() as patch:
        if plain:
            patch.setattr("entrgi_ref.denoising.Unchanged", lambda denoiser: denoiser)
        prompts = PROMPTS[:1] if start == "one prompt" else PROMPTS
        found = generate(
            denoiser or TinyDenoiser(seed),
            TinyReward(seed + 50),
            prompts,
            replace(config, seed=seed),
            start=start if isinstance(start, torch.Tensor) else None,
            observe=records.append,
        )
    return found, records


@pytest.mark.parametrize("case", CASES)
@tried(6)
@given(seed=st.integers(0, 10**6))
def test_nothing_but_the_reading_is_different(case, seed):
    """In float64: the same answers, and the same at every step."""
    found, records = run(*CASES[case], seed)
    expected, plain = run(*CASES[case], seed, plain=True)
    assert torch.equal(found.tokens, expected.tokens)
    torch.testing.assert_close(found.rewards, expected.rewards)
    assert len(records) == len(plain)
    for one, other in zip(records, plain, strict=True):
        for field in fields(one):
            pair = getattr(one, field.name), getattr(other, field.name)
            if isinstance(pair[0], torch.Tensor) and pair[0].is_floating_point():
                torch.testing.assert_close(*pair, rtol=1e-6, atol=1e-9, equal_nan=True)
            else:
                assert torch.equal(*map(torch.as_tensor, pair)), field.name


@pytest.mark.parametrize("case", CASES)
def test_the_rows_that_are_read_are_those_that_changed(case):
    """Found anew from the records: the boards before each step, and who has a mask."""
    config, start = CASES[case]
    total = read = 0
    for seed in range(5):
        denoiser = Spy(seed)
        _, records = run(config, start, seed, denoiser)
        board = (BLANK if start is None else start).repeat_interleave(2, 0)
        last, asked = torch.full_like(board, -1), iter(denoiser.asked)
        prompt = denoiser.encode(PROMPTS)
        for record in records:
            rows = [
                r
                for r in range(len(board))
                if board[r].tolist() != last[r].tolist() and 13 in board[r].tolist()
            ]
            if rows:
                tokens, valid, masked = next(asked)
                length = prompt.tokens.shape[1]
                assert torch.equal(tokens[:, length:], board[rows])
                assert torch.equal(tokens[:, :length], prompt.tokens[[r // 2 for r in rows]])
                assert torch.equal(valid[:, :length], prompt.valid[[r // 2 for r in rows]])
                assert torch.equal(masked, record.masked[rows])
            total, read = total + len(board), read + len(rows)
            last, board = board, record.tokens
        assert next(asked, None) is None
    assert read < total


def test_nobody_writes_into_what_is_held():
    for case, (config, start) in CASES.items():
        denoiser = Spy(3)
        run(config, start, 3, denoiser)
        assert all(torch.equal(now, then) for now, then in denoiser.said), case


@pytest.mark.parametrize("case", LOCKSTEP)
def test_where_all_rows_change_nothing_is_held(case, monkeypatch):
    """Not even until the next prediction."""

    def never(denoiser):
        raise AssertionError("it would hold a table for nothing")

    class Last(TinyDenoiser):
        last = staticmethod(lambda: None)

        def __call__(self, tokens, valid, masked):
            assert self.last() is None
            found = super().__call__(tokens, valid, masked)
            self.last = weakref.ref(found)
            return found

    monkeypatch.setattr("entrgi_ref.denoising.Unchanged", never)
    config, start = LOCKSTEP[case]
    denoiser = Last(0)
    prompts = PROMPTS[:1] if start == "one prompt" else PROMPTS
    start = start if isinstance(start, torch.Tensor) else None
    generate(denoiser, TinyReward(50), prompts, config, start=start)
    assert denoiser.calls > 1


def test_a_table_of_which_nothing_is_needed_is_given_back_before_the_next():
    last = weakref.ref(torch.zeros(1))

    def read(tokens, valid, masked):
        nonlocal last
        assert last() is None
        found = torch.zeros(int(masked.sum()), 5)
        last = weakref.ref(found)
        return found

    unchanged = Unchanged(Numbers(read))
    masked = torch.ones(3, 4, dtype=torch.bool)
    for token in range(4):
        masked[0] = token < 2  # the first row is finished then
        tokens = torch.full((3, 6), token)
        unchanged(tokens, torch.ones(3, 6, dtype=torch.bool), masked.clone())
    assert last() is not None


class Numbers:
    """A denoiser of a function, by default one whose logits are different for every board."""

    mask_id, eos_id, writable = 0, None, torch.ones(5, dtype=torch.bool)
    encode = decode = None

    def __init__(self, read=None):
        self.read = read or self.numbers
        self.asked = []

    def __call__(self, tokens, valid, masked):
        self.asked.append(len(tokens))
        return self.read(tokens, valid, masked)

    @staticmethod
    def numbers(tokens, valid, masked):
        board = torch.cat([tokens, valid, masked], 1)
        row = (board * 4 ** torch.arange(board.shape[1])).sum(1)
        grid = 8 * row[:, None] + torch.arange(masked.shape[1])
        return grid[masked][:, None] + torch.arange(5) / 8


def boards(S, L, N):
    flags = st.lists(st.booleans(), min_size=N, max_size=N)
    row = st.tuples(
        st.lists(st.integers(0, 3), min_size=L, max_size=L),
        st.lists(st.booleans(), min_size=L, max_size=L),
        st.one_of(flags, st.just([False] * N)),
    )
    return st.lists(row, min_size=S, max_size=S)


@tried(80)
@given(st.data(), st.integers(1, 4), st.integers(1, 3))
def test_it_says_what_the_denoiser_says_whatever_changes(data, S, N):
    """Tokens, padding or masks: in any rows, back and forth, also where nothing is masked."""
    L = N + 1
    rows = data.draw(boards(S, L, N))
    denoiser = Numbers()
    unchanged, last = Unchanged(denoiser), None
    for _ in range(data.draw(st.integers(2, 6))):
        changing = data.draw(st.sets(st.tuples(st.integers(0, S - 1), st.integers(0, 2))))
        others = data.draw(boards(S, L, N))
        rows = [
            tuple(others[r][part] if (r, part) in changing else rows[r][part] for part in range(3))
            for r in range(S)
        ]
        asked = [torch.tensor(part) for part in zip(*rows, strict=True)]
        before = len(denoiser.asked)
        assert torch.equal(unchanged(*asked), Numbers.numbers(*asked))
        if last is not None:
            read = [r for r in range(S) if rows[r] != last[r] and any(rows[r][2])]
            assert denoiser.asked[before:] == ([len(read)] if read else [])
        last = rows


def test_after_a_failure_everything_is_read_again():
    class Failing(Numbers):
        fails = False

        def __call__(self, tokens, valid, masked):
            if self.fails:
                raise RuntimeError
            return super().__call__(tokens, valid, masked)

    denoiser = Failing()
    unchanged = Unchanged(denoiser)
    board = torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 3).bool(), torch.ones(2, 2).bool()
    unchanged(*board)
    denoiser.fails = True
    with pytest.raises(RuntimeError):
        unchanged(board[0] + 1, *board[1:])
    denoiser.fails = False
    assert torch.equal(unchanged(*board), Numbers.numbers(*board))


@pytest.mark.parametrize("change", [lambda x: x[:-1], lambda x: x.repeat(2, 1), lambda x: x[:, 1:]])
def test_a_wrong_shape_is_refused_also_of_some_rows(change):
    """Of all rows `predict` asks for the shape."""
    wrong = False

    def read(*asked):
        found = Numbers.numbers(*asked)
        return change(found) if wrong else found

    unchanged = Unchanged(Numbers(read))
    tokens, masked = torch.zeros(3, 4, dtype=torch.int64), torch.ones(3, 2, dtype=torch.bool)
    unchanged(tokens, tokens == 0, masked)
    wrong, other = True, tokens.clone()
    other[1, 3] = 1
    with pytest.raises(ValueError, match=r"denoiser's logits: got shape .* = \[2, 5\]"):
        unchanged(other, tokens == 0, masked)


def test_origin_reads_two_thirds_of_the_rows():
    """With as many steps as tokens, a row commits nothing at a step in e^-1 of all cases."""
    denoiser = Spy(0)
    config = SamplingConfig(FLOAT64, 8, 50, 50, order="origin").guided(steps=0)
    records = []
    generate(denoiser, TinyReward(50), PROMPTS, config, observe=records.append)
    read = sum(len(tokens) for tokens, _, _ in denoiser.asked)
    assert 0.58 < read / (len(records) * 16) < 0.68
