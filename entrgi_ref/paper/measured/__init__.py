"""How long a guided step takes, and where the time goes.

bench.py      the command `bench`
networks.py   random networks of any shape
"""
