"""From records to tables and figures.

listing.py     the command `list`
report.py      the command `report`
export.py      the command `export`
comparable.py  whether a run may be compared with the published numbers
intervals.py   the bootstrap
paired.py      differences between methods, prompt by prompt
summary.py     mean and standard error over the seeds
numbers.py     the tables as data
tables.py      Markdown and LaTeX
figures.py     the paper's figures
captions.py    what stands below them
"""
