"""From records to tables and figures.

listing.py     the command `list`
report.py      the command `report`
intervals.py   how far a difference could be another by chance
export.py      the command `export`
comparable.py  whether a run may be compared with the published numbers
summary.py     mean and standard error over the seeds
tables.py      Markdown and LaTeX
figures.py     the paper's figures
"""
