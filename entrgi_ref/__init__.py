"""entrgi_ref: the reference implementation of EntRGi, entropy-aware reward guidance for diffusion
language models.

At test time, EntRGi steers a masked diffusion language model by the gradient of a reward model;
both stay frozen. Read the method in this order:

    relaxation.py   Eqs. 1 to 5: what the reward model reads at a position that has no token yet,
                    and its weight w (`entropy_weight`)
    guidance.py     Eq. 6, the inner loop: gradient steps on the logits
    denoising.py    Algorithm 1 and Eq. 7, the outer loop: predict, guide, commit
    errors.py       Eq. 8, and the records that observers get

What these use, by the question that each answers:

    schedule.py     how many tokens does a step commit? (`how_many`)
    orders.py       which positions come first? (`ORDERS`, `commit`)
    draws.py        where do random numbers come from, and what is drawn with them?
    config.py       which settings are there, and what are the paper's?
    protocols.py    where do I add a reward or a denoiser? A class of your own, with these methods,
                    is handed to `generate`; no list names it (small ones: toy/models.py)
    parts.py        what if tables of the vocabulary do not fit the memory?
    equations.py    which function computes which equation?
    checks.py       what is refused, and in which words?

The rooms beside it: `models` (Dream and the reward models of the paper), `watching` (a trajectory
on a page or in the terminal), `commands` (what the command lines share), `paper` (the experiments).

Docstrings end with the source of what they say: the `seed` (the paper's public summary, from which
this package was begun; it has nothing to do with random seeds), the authors' project `page`, the
`authors' code` (how it behaves), or `ours` (what none of them fixes). The numbers of the equations
are ours.
"""

from .checks import GuidanceError
from .config import GuidanceConfig, SamplingConfig
from .denoising import Generation, draw_candidates, generate, predict
from .draws import KeyedDraws, inverse_cdf, nucleus
from .equations import EQUATIONS, IMPLEMENTATIONS
from .errors import DenoisingRecord, GradientRecord, approximation_error, discreteness_error
from .guidance import OPTIMISERS, guide
from .orders import ORDERS, Candidates, commit, rank
from .protocols import BoundReward, Denoiser, Prompts, Reward, StepReward, prompt_key
from .relaxation import (
    WEIGHTS,
    entropy,
    entropy_weight,
    hard_embedding,
    interpolate,
    soft_embedding,
    token_distribution,
)
from .schedule import Step, how_many, schedule

__version__ = "0.1.0"

__all__ = [
    "EQUATIONS",
    "IMPLEMENTATIONS",
    "OPTIMISERS",
    "ORDERS",
    "WEIGHTS",
    "BoundReward",
    "Candidates",
    "Denoiser",
    "DenoisingRecord",
    "Generation",
    "GradientRecord",
    "GuidanceConfig",
    "GuidanceError",
    "KeyedDraws",
    "Prompts",
    "Reward",
    "SamplingConfig",
    "Step",
    "StepReward",
    "approximation_error",
    "commit",
    "discreteness_error",
    "draw_candidates",
    "entropy",
    "entropy_weight",
    "generate",
    "guide",
    "hard_embedding",
    "how_many",
    "interpolate",
    "inverse_cdf",
    "nucleus",
    "predict",
    "prompt_key",
    "rank",
    "schedule",
    "soft_embedding",
    "token_distribution",
]
