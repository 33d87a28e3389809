"""The same numbers sooner: what is done where networks and their vocabulary are large.

rows.py       functions of rows, applied to as many at a time as the processor's cache holds
nucleus.py    the nucleus without sorting the vocabulary; on a GPU, nucleus_kernel.py
draw.py       a draw from it without adding up the vocabulary token by token
gradient.py   the gradient of the logits in closed form
adam.py       Adam in one pass
unchanged.py  a mask predictor that does not read the same board again

The plain versions stand in the files that use these, and tests hold the two against each other.
"""
