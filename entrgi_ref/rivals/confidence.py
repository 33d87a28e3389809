"""Self-rewarding sequential Monte Carlo: particles that promise what the mask predictor is sure of.

No reward is read on the way. It is the control of `smc`: what copying the better particles does
when the model itself says which those are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from .. import checks
from ..config import SamplingConfig
from ..denoising import Generation
from ..protocols import Denoiser
from .boards import Boards, Scorer
from .smc import Written, steer


@torch.no_grad()
def self_smc(
    denoiser: Denoiser,
    reward: Scorer,
    prompts: Sequence[str],
    config: SamplingConfig | None = None,
    *,
    beta: float = 1.0,
    keys: Iterable[int] | None = None,
) -> Generation:
    r"""Answer each prompt K times, from about $p(x) \exp(C(x) / \beta)$.

    p is what `generate` draws from with these settings and no guidance. The confidence C, in nats,
    is the sum over all tokens of $\log \mathrm{softmax}(\phi)$, of each at the moment it is
    written, at temperature 1 and of all ids that may be written. Each step multiplies a particle's
    weight by what it has written, $\exp(\Delta C / \beta)$, and K particles are drawn by weight.

    As K grows the answers come from that distribution. At temperature 1, with top_p = 1 and an
    order without chance, $C = \log p$, so it is $p(x)^{1 + 1 / \beta}$, normalised: answers that
    are likely become likelier. Where an answer can be written in several orders (`origin`, an order
    temperature, `eos_last`), each way to write it counts with its own C.

    A step costs a call of the mask predictor; `reward` scores the finished answers alone. `beta` is
    in nats, in [1e-6, 1e6]. `keys` as those of `generate`, which also says what raises
    `ValueError`. Source: after Self-Rewarding SMC (arXiv 2602.01849), of which a public
    description was read, not the code; C at each token, resampling: ours.
    """
    checks.arguments(denoiser, reward, config, asked=("score",))
    config = config or SamplingConfig()
    checks.temperature(beta, "beta")
    boards = Boards.of(denoiser, prompts, config, keys)

    def promise(promised: Float[Tensor, "S"], written: Written) -> Float[Tensor, "S"]:
        return promised + confidence(written)

    steer(boards, promise, beta)
    return boards.generation(reward)


def confidence(written: Written) -> Float[Tensor, "S"]:
    """The sum of the log-probabilities, at temperature 1, of what a step has written, in nats."""
    chosen = written.committed[written.masked]
    logits, tokens = written.before[chosen], written.tokens[chosen]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    found = logits.gather(1, tokens[:, None]).squeeze(1) - logits.logsumexp(1)
    of_each = torch.zeros_like(written.committed, dtype=torch.float64)
    return of_each.masked_scatter(written.committed, found.double()).sum(1)
