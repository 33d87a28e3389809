# Everything runs in .venv, with the versions of constraints.txt.
PYTHON ?= python3
BIN = .venv/bin
# Kept bytecode saves a third of the seconds before a test begins, in each process of a run.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo setup test test-slow test-deep fuzz test-kernel test-matrix test-site mutants audit wheel bench laboratory lint docs serve clean

demo: setup  ## the method on the toy: trains it at the first run, then compares all methods
	$(BIN)/python -m toy

setup: .venv/up-to-date  ## the virtual environment; does nothing when up to date

.venv/up-to-date: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[dev]'
	touch $@

test: lint  ## the quick tests, after lint and types; names the slowest
	$(BIN)/python -m pytest -n 2 --dist loadgroup --durations=20 --ignore=tests/test_browse.py --ignore=tests/test_live.py --ignore=tests/test_site.py

test-slow: .venv/mutants-up-to-date  ## tests that take longer, and further cases of the same
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
	TRITON_INTERPRET=1 PYTHONPATH=.venv/kernel $(BIN)/python -m pytest -n 2 tests/test_fast_kernel.py

# The combinations are listed in noxfile.py. In NOX: --session oldest, -- tests/test_parity.py, ...
test-matrix: .venv/matrix-up-to-date  ## the tests on each declared Python that is at hand, on the oldest and newest libraries
	$(BIN)/nox $(NOX)

# Strict: a version that the database does not know is a failure. Without it, with no database at all, nothing is found and all seems well.
AUDIT = pip-audit@2.10.1

audit: .venv/matrix-up-to-date  ## known vulnerabilities of the versions in constraints.txt: needs the network
	$(BIN)/uv tool run $(AUDIT) --strict --no-deps --disable-pip --requirement constraints.txt

wheel: setup  ## the wheel and the sdist, into dist/
	rm -rf dist
	$(BIN)/python -m hatchling build

.venv/matrix-up-to-date: .venv/up-to-date
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[dev,matrix]'
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

# In MUTANTS: --room ROOM or ROOM=SHARE, --share of the mutants, --again to go on, ... Hours of all of them. results/mutants keeps which test runs which line.
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
	$(BIN)/ruff check docs entrgi_ref tests toy noxfile.py
	$(BIN)/ruff format --check docs entrgi_ref tests toy noxfile.py
	$(BIN)/mypy --num-workers 2

clean:  ## remove the environment, caches and results
	rm -rf .venv .venv-matrix dist results site toy/.cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
