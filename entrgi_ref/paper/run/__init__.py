"""From a plan to records.

start.py             the command `run`
estimate.py          the command `plan`
runner.py            batches, failures, several processes
folder.py            the run folder: what is written, and when
records.py           what a record is
errors_by_prompt.py  what Figures 2 and 3 are drawn from
"""
