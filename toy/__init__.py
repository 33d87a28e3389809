"""The toy testbed: a language, a tiny mask predictor and tiny reward models. `python -m toy`."""

import entrgi_ref as entrgi_ref  # first of all: it answers Ctrl-C from here on
