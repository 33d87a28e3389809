"""What an experiment is, before anything runs.

experiments.py  the experiments as data
plan.py         an experiment with everything that decides its records
testbed.py      what it runs on: Dream, or the toy
benchmarks.py   the prompts
costs.py        what a run costs, for Best-of-N at equal compute
shapes.py       the sizes of a network, from its configuration
memory.py       what memory a run takes, from the sizes of its networks
published.py    the paper's numbers
"""
