"""Rivals of guidance, on the same two networks.

    boards.py       unguided answers in the making, which the first three of them write
    smc.py          sequential Monte Carlo: many answers, of which the better are copied
    confidence.py   the same, by the mask predictor's own confidence: what is left without a reward
    lookahead.py    the reward of each likely token, asked before one is written
    damped.py       guidance itself, with smaller steps where less is known

Those that write boards ask the reward model for scores of finished texts alone, so any function of
texts will do. Source: ours.
"""

from .confidence import self_smc
from .damped import damped
from .lookahead import lookahead
from .smc import smc

__all__ = ["damped", "lookahead", "self_smc", "smc"]
