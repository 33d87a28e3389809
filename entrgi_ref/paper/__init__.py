"""The paper's experiments: `python -m entrgi_ref.paper`.

declared/  what an experiment is: methods, benchmarks, testbeds, published numbers
run/       batches, failures, several processes; the run folder
judged/    a judge scores the best answers
shown/     tables, figures, the authors' file layout
measured/  how long a guided step takes, and where the time goes
"""
