# Everything runs in .venv, with the versions of constraints.txt.
PYTHON ?= python3
BIN = .venv/bin
# Kept bytecode saves a third of the seconds before a test begins, in each process of a run.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo setup test test-slow test-deep fuzz test-kernel test-oldest test-site mutants bench laboratory lint docs serve clean

demo: setup  ## the method on the toy: trains it at the first run, then compares all methods
	$(BIN)/python -m toy

setup: .venv/up-to-date  ## the virtual environment; does nothing when up to date

.venv/up-to-date: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[dev]'
	touch $@

test: lint  ## all tests but those in a browser, after lint and types; names the slowest
	$(BIN)/python -m pytest -n 2 --dist loadgroup --durations=20 --ignore=tests/test_browse.py --ignore=tests/test_live.py --ignore=tests/test_site.py

test-slow: setup  ## tests that take longer
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m slow

test-deep: setup  ## tests that take longer still, for a release; ten times the examples of properties
	HYPOTHESIS_PROFILE=deep $(BIN)/python -m pytest -n 2 --dist loadgroup -m 'deep or hypothesis'

# The kernels of a GPU by Triton's interpreter. Beside the environment: a torch for GPUs brings a Triton of its own.
TRITON = triton==3.6.0

# In FUZZ: names of readers, --seconds for each, --atheris (pip install atheris) for one reader led by coverage.
fuzz: setup  ## the readers of outside data, on files changed at random: a minute each
	$(BIN)/python tests/hostile/fuzz.py $(FUZZ)

test-kernel: setup  ## the kernels of a GPU, on a CPU
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .venv/kernel $(TRITON)
	PYTHONPATH=.venv/kernel $(BIN)/python -m pytest -n 2 tests/test_fast_kernel.py

# The oldest transformers that is supported, and what it needs in other versions than constraints.txt.
OLDEST = transformers==5.0.0 huggingface_hub==1.33.0 tokenizers==0.22.2

test-oldest: .venv-oldest/up-to-date  ## the tests of the models on the oldest transformers
	.venv-oldest/bin/python -m pytest -n 2 tests/test_parity.py tests/test_parity_models.py tests/test_models.py tests/test_models_bad_input.py tests/test_main.py

.venv-oldest/up-to-date: pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv .venv-oldest
	grep -vE '^(transformers|huggingface_hub|tokenizers)==' constraints.txt > .venv-oldest/constraints.txt
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-oldest/constraints.txt torch
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-oldest/constraints.txt $(OLDEST) --editable '.[dev]'
	touch $@

docs: .venv/docs-up-to-date  ## the site, into site/; figures are drawn anew
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

serve: .venv/docs-up-to-date  ## the site, built again at every change
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

test-site: docs  ## the built site in a browser: needs Chromium
	$(BIN)/python -m pytest -n 2 --dist loadgroup -rs tests/test_site.py tests/test_browse.py tests/test_live.py

.venv/docs-up-to-date: .venv/up-to-date
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[dev,docs]'
	touch $@

bench: setup  ## time beside the networks alone, at the real vocabulary on small networks
	$(BIN)/python -m entrgi_ref.paper bench --shape wide

# In MUTANTS: --room ROOM, --share of the mutants, ... Hours of all of them: results/mutants keeps which test runs which line.
mutants: .venv/mutants-up-to-date  ## the code broken at each place: what share do the tests notice?
	PYTHONPATH=tests $(BIN)/python -m mutants $(MUTANTS)

.venv/mutants-up-to-date: .venv/up-to-date
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[dev,mutants]'
	touch $@

# Two lanes, a core each. What is done is kept in results/: stopped, it goes on there.
laboratory: setup  ## the laboratory's full runs, in two to three hours
	$(BIN)/python -m toy claims --threads 1 & \
	for study in "exact gradient" "exact distribution" "exact infilling" rivals; do \
		$(BIN)/python -m toy $$study --threads 1; \
	done; \
	wait

lint: setup  ## style and types
	$(BIN)/ruff check docs entrgi_ref tests toy
	$(BIN)/ruff format --check docs entrgi_ref tests toy
	$(BIN)/mypy

clean:  ## remove the environment, caches and results
	rm -rf .venv .venv-oldest results site toy/.cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
