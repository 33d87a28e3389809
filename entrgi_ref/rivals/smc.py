"""Sequential Monte Carlo: unguided answers, of which those that promise more are copied.

Also known as Feynman-Kac steering (Singhal et al. 2025). The K answers to a prompt are particles.
After each step a particle is given the likeliest tokens where it is still masked, and the reward of
this text says what it promises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .. import checks
from ..config import SamplingConfig
from ..denoising import Generation
from ..draws import KeyedDraws, KeyedStepDraws, Purpose
from ..protocols import Denoiser
from .boards import Boards, Scorer


@torch.no_grad()
def smc(
    denoiser: Denoiser,
    reward: Scorer,
    prompts: Sequence[str],
    config: SamplingConfig | None = None,
    *,
    beta: float = 1.0,
    keys: Iterable[int] | None = None,
) -> Generation:
    r"""Answer each prompt K times, from about $p(x) \exp(R(x) / \beta)$.

    p is what `generate` draws from with these settings and no guidance. A step changes what a
    particle promises from $R_s$ to $R_t$, and multiplies its weight by $\exp((R_t - R_s) / \beta)$:
    over all steps by $\exp(R(x) / \beta)$ times what is the same for all, whatever was promised on
    the way. After each step K particles are drawn by weight, so that the better are copied and go
    on differently. As K grows the answers come from that distribution; of few particles many may
    be copies of one.

    A step costs a call of the mask predictor and a reward for each particle; the answers are scored
    once more. `beta` is in units of the reward, in [1e-6, 1e6]. `keys` as those of `generate`,
    which also says what raises `ValueError`. Source: Singhal et al. 2025 (arXiv 2501.06848);
    resampling: ours.
    """
    checks.arguments(denoiser, reward, config, asked=("score",))
    config = config or SamplingConfig()
    checks.temperature(beta, "beta")
    boards = Boards.of(denoiser, prompts, config, keys)
    rows = torch.arange(len(boards.response), device=boards.response.device)

    def promise(promised: Float[Tensor, "S"], written: Written) -> Float[Tensor, "S"]:
        texts = boards.response if written.last else boards.completed(written.after)
        return boards.scores(reward, texts, rows)

    steer(boards, promise, beta)
    return boards.generation(reward)


@dataclass(frozen=True, eq=False)
class Written:
    """What a step has written, of all particles."""

    before: Float[Tensor, "n V"]
    """The logits that the tokens were drawn from, at the positions that were masked."""
    tokens: Int[Tensor, "n"]
    masked: Bool[Tensor, "S N"]
    """Where nothing was written before the step."""
    committed: Bool[Tensor, "S N"]
    """Where the step has written: some of `masked`."""
    after: Float[Tensor, "m V"]
    """The logits at the positions that are masked now."""
    last: bool
    """Whether no step follows: a mask that is left then stays."""


Promise = Callable[[Float[Tensor, "S"], Written], Float[Tensor, "S"]]
"""What particles promise after a step, of what they promised before it and of what it has written.
Before the first step it is 0."""


def steer(boards: Boards, promise: Promise, beta: float) -> None:
    """Write the answers, and after each step let those go on that have gained in promise."""
    promised = torch.zeros(len(boards.response), dtype=torch.float64, device=boards.response.device)
    logits = boards.predict()
    for turn, step in enumerate(boards.steps):
        before, masked = logits, boards.masked
        drawn, _, committed = boards.next(step, before)
        boards.write(drawn.tokens, committed)
        logits = boards.predict(turn + 1)
        last = turn + 1 == len(boards.steps)
        written = Written(before, drawn.tokens, masked, committed, logits, last)
        now = promise(promised, written).double()
        gain = (now - promised) / beta
        chosen = survivors(gain, boards.draws, step.index, len(boards.prompts))
        logits = logits[rows_at(boards.masked, chosen)]
        boards.response, promised = boards.response[chosen], now[chosen]


def survivors(
    log_weights: Float[Tensor, "S"], draws: KeyedDraws, step: int, prompts: int
) -> Int[Tensor, "S"]:
    """The particles that go on, for each prompt K of its own: systematic resampling.

    A particle of weight w, of all of its prompt, is drawn floor(K w) or ceil(K w) times, K w on
    average. Of equal weights each is drawn once. One random number is used for each prompt.
    """
    weights = log_weights.unflatten(0, (prompts, -1)).softmax(1)
    K = weights.shape[1]
    row = draws.rows[::K]
    uniform = KeyedStepDraws(step, row, torch.zeros_like(row)).uniform(Purpose.RESAMPLE)
    rungs = (uniform[:, None] + torch.arange(K, device=row.device)) / K
    reached = weights.cumsum(1)
    chosen = torch.searchsorted(reached / reached[:, -1:], rungs, right=True)
    # The last rung may round to 1: it is that of the last particle of any weight.
    chosen = chosen.minimum(torch.searchsorted(reached, reached[:, -1:].contiguous()))
    return (chosen + K * torch.arange(prompts, device=row.device)[:, None]).flatten()


def rows_at(masked: Bool[Tensor, "S N"], chosen: Int[Tensor, "S"]) -> Int[Tensor, "n"]:
    """Where the masked positions of the chosen trajectories stand among all, in (S, N) order."""
    place = torch.zeros_like(masked, dtype=torch.long).masked_scatter(
        masked, torch.arange(int(masked.sum()), device=masked.device)
    )
    return place[chosen][masked[chosen]]
