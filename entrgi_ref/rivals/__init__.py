"""Gradient-free rivals of guidance, on the same two networks.

    boards.py     unguided answers in the making, which both of them write
    smc.py        sequential Monte Carlo: many answers, of which the better are copied
    lookahead.py  the reward of each likely token, asked before one is written

They ask the reward model for scores of finished texts alone, so any function of texts will do.
Source: ours.
"""

from .lookahead import lookahead
from .smc import smc

__all__ = ["lookahead", "smc"]
