"""The laboratory: methods against the truth, and against their rivals.

experiment.py      what its commands share: units of work, kept one by one, and the record
languages.py       languages by seed with exact conditionals, and reward models trained on them
truth.py           what is true, by counting, in numpy alone
gradient.py        `exact gradient`: estimators against the exact gradient
sampling.py        every method as a sampler, with a dial for its strength
distribution.py    `exact distribution`: what samplers draw, at matched KL
infilling.py       `exact infilling`: the same between given words of wide languages
rivals.py          `rivals`: methods at equal compute on trained pairs of the toy
templates.py       a family of template languages, each with networks of its own
measured.py        what is measured of each of them
claims.py          `claims`: the paper's claims, judged on that
pools.py           best-of-K for every K, from one pool of answers
"""
