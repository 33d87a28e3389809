"""The toy testbed: a language, a tiny mask predictor and tiny reward models. `python -m toy`."""
