"""The laboratory: methods against the truth, and against their rivals.

experiment.py    what its commands share: units of work, kept one by one, and the record
templates.py     a family of template languages, each with networks of its own
claims.py        the paper's claims on them
pools.py         best-of-K for every K, from one pool of answers
"""
