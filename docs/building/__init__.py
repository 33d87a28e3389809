"""What the documentation is built by. mkdocs calls `hooks.py`, which calls the rest.

records.py    numbers and tables from the run records
facts.py      all other numbers, with their sources
examples.py   the Python blocks of the pages
notebooks.py  notebooks, made of pages
sources.py    source code by equation id, tests by name
symbols.py    the table of symbols
figures.py    pictures, drawn at every build
live.py       the networks of the live page, by hand
hooks.py      puts all of that into the pages
"""
