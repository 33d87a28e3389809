"""The best answers, scored by a judge.

judging.py   the command `judge`
judge.py     questions, scores, unit tests
backends.py  the networks that judge
"""
