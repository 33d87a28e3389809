"""The paper's experiments: `python -m entrgi_ref.paper`.

experiments.py   the experiments as data
testbed.py       what they run on
benchmarks.py    the prompts
runner.py        batches, failures, several processes
records.py       the run folder
commands.py      what the commands do
"""
