# Everything runs in .venv, with the versions of constraints.txt.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo setup test lint clean

demo: setup  ## the method on the toy: trains it at the first run, then compares all methods
	$(BIN)/python -m toy

setup: .venv/up-to-date  ## the virtual environment; does nothing when up to date

.venv/up-to-date: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[dev]'
	touch $@

test: lint  ## all tests, after lint and types
	$(BIN)/python -m pytest -n 2

lint: setup  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## remove the environment, caches and results
	rm -rf .venv results toy/.cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
