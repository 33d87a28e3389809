"""What the command lines share.

options.py      the options: one name and one explanation each
answer.py       the command that answers one prompt
progress.py     how far a run is
memory.py       running out of it, in words
provenance.py   where numbers come from
files.py        what is written, whole or not at all
"""
