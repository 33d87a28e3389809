"""What the documentation is built by. mkdocs calls `hooks.py`, which calls the rest.

records.py    numbers and tables from the run records
sources.py    source code by equation id, tests by name
symbols.py    the table of symbols
figures.py    pictures, drawn at every build
hooks.py      puts all of that into the pages
"""
