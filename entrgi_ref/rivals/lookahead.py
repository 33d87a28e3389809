"""Lookahead: before a token is written, the reward of each of the likeliest ones is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .. import checks
from ..config import SamplingConfig
from ..denoising import Generation
from ..protocols import Denoiser
from .boards import Boards, Scorer


@torch.no_grad()
def lookahead(
    denoiser: Denoiser,
    reward: Scorer,
    prompts: Sequence[str],
    config: SamplingConfig | None = None,
    *,
    candidates: int = 8,
    beta: float = 1.0,
    keys: Iterable[int] | None = None,
) -> Generation:
    r"""Answer each prompt K times, each token chosen by what the reward makes of it.

    Which positions a step writes is decided as without guidance. They are written one after the
    other, the most confident first: of the `candidates` likeliest tokens i of the nucleus one is
    drawn with probability proportional to $q_i \exp(R_i / \beta)$. $R_i$ is the reward of the text
    with token i there, and with the likeliest tokens wherever nothing is written.

    The random number that draws a token has drawn one there without guidance before: so the answers
    of a large `beta` and all candidates are those without guidance. Where that number decides
    whether the position is written (`eos_last`, the orders `maskgit_plus` and `anchor`), the token
    depends on it, and the distribution is another one.

    With one masked position left, `candidates` = V and top_p = 1 this is the mask predictor's
    distribution tilted by the reward, exactly. Before that it is not: the likeliest tokens stand
    for all that may follow.

    A token costs as many rewards as there are candidates. `beta` is in units of the reward, in
    [1e-6, 1e6]. `keys` as those of `generate`, which also says what raises `ValueError`. Source:
    ours.
    """
    checks.arguments(denoiser, reward, config, asked=("score",))
    config = config or SamplingConfig()
    checks.temperature(beta, "beta")
    checks.integer("candidates", candidates, minimum=1)
    boards = Boards.of(denoiser, prompts, config, keys)
    for turn, step in enumerate(boards.steps):
        logits, masked = boards.predict(turn), boards.masked
        drawn, confidence, committed = boards.next(step, logits)
        tokens, text = drawn.tokens.clone(), boards.completed(logits)
        for row, position, at in queue(confidence, committed, masked):
            q = drawn.probabilities[at]
            likely = q.topk(min(candidates, q.shape[1]), dim=1).indices.sort(1).values
            chance = q.gather(1, likely).double()
            # Where the nucleus has fewer, the reward is asked about its likeliest once more.
            likely = torch.where(chance > 0, likely, q.argmax(1, keepdim=True))
            rewards = _rewards(boards, reward, text, row, position, likely)
            # Over a small beta one of 16 bits would be no number.
            rewards = rewards.to(torch.promote_types(rewards.dtype, torch.float32))
            tilted = (chance.log() + rewards / beta).softmax(1)
            choice = boards.draws.at(step.index, row, position).candidates(tilted)
            tokens[at] = likely.gather(1, choice[:, None]).squeeze(1)
            text[row, position] = tokens[at]
        boards.write(tokens, committed)
    return boards.generation(reward)


def queue(
    confidence: Float[Tensor, "n"], committed: Bool[Tensor, "S N"], masked: Bool[Tensor, "S N"]
) -> Iterator[tuple[Int[Tensor, "s"], Int[Tensor, "s"], Int[Tensor, "s"]]]:
    """The positions to be written, at most one of a trajectory at a time, the most confident first:
    row and position, and which of the masked positions it is.
    """
    ranked = confidence.new_zeros(masked.shape).masked_scatter(masked, confidence)
    falling = ranked.argsort(dim=1, descending=True, stable=True)
    # What is written comes first, whatever its confidence: that may be -inf.
    falling = falling.gather(
        1, committed.gather(1, falling).long().argsort(dim=1, descending=True, stable=True)
    )
    place = (masked.flatten().cumsum(0) - 1).view_as(masked)
    quota = committed.sum(1)
    for turn in range(int(quota.max())):
        row = (quota > turn).nonzero().flatten()
        position = falling[row, turn]
        yield row, position, place[row, position]


def _rewards(
    boards: Boards,
    reward: Scorer,
    text: Int[Tensor, "S N"],
    row: Int[Tensor, "s"],
    position: Int[Tensor, "s"],
    tokens: Int[Tensor, "s k"],
) -> Float[Tensor, "s k"]:
    """The rewards of the texts with each of the tokens at the position."""
    k = tokens.shape[1]
    texts = text[row].repeat_interleave(k, 0)
    texts[torch.arange(len(texts)), position.repeat_interleave(k)] = tokens.flatten()
    return boards.scores(reward, texts, row.repeat_interleave(k)).view_as(tokens)
