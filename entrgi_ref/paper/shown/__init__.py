"""From records to tables and figures.

listing.py     the command `list`
report.py      the command `report`
export.py      the command `export`
comparable.py  which runs may stand in one table
summary.py     mean and standard error over the seeds
tables.py      Markdown and LaTeX
figures.py     the paper's figures
"""
