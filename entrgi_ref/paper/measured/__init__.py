"""How long a guided step takes, and where the time goes.

command.py    what the command `bench` writes
bench.py      a run beside the networks alone, and the parts of a step
scaling.py    how it grows with each size of a run
switches.py   and what each trick gives
networks.py   random networks of any shape
"""
