"""The laboratory: methods against the truth, and against their rivals.

experiment.py    what its commands share: units of work, kept one by one, and the record
rivals.py        guidance and its rivals at equal compute
"""
