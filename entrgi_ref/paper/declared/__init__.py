"""What an experiment is, before anything runs.

experiments.py  the experiments as data
plan.py         an experiment with everything that decides its records
testbed.py      what it runs on: Dream, or the toy
benchmarks.py   the prompts
methods.py      how a method answers prompts, rivals at equal compute too
costs.py        what an answer costs, for methods at equal compute
shapes.py       the sizes of a network, from its configuration
memory.py       what memory a run takes, from the sizes of its networks
published.py    the paper's numbers
"""
