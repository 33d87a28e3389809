"""From a plan to records.

start.py             the command `run`
estimate.py          the command `plan`
dry.py               the same without networks, `plan --dry`
batches.py           batches of prompts, and what computes their records
runner.py            who computes which batch, what is written, when to give up
cluster.py           the same by the actors of a Ray cluster
records.py           what a run folder holds
required.py          what must be in a record, and in the declaration of a run
folder.py            how it is written, gone on with and repaired
errors_by_prompt.py  what Figures 2 and 3 are drawn from
"""
