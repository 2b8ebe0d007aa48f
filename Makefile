PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
# With it each of the tests' many processes would compile all it imports anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo demo-timetables test test-servers test-all matrix faults-short controls faults faults-nightly lint docs bench bench-quick clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## Sign up 500 people, kill the consumer three times, count the mails
	$(PY) examples/demo/demo.py

demo-timetables: $(READY) ## Collect 100,000 rows from a moody API, gently; kill the collector midway, compare the rows
	$(PY) examples/timetables/timetables.py

# More workers than cores: many tests wait for another process most of their time.
test: $(READY) ## Run the tests that need no server, in a minute or two
	$(PY) -m pytest -n 3 --dist worksteal -m "not slow and not long and not faults and not servers"

test-servers: $(READY) ## Run the tests that take longer, and those on PostgreSQL, MariaDB and Redis; says which it skips for want of one
	$(PY) -m pytest -n 4 --dist worksteal -m "(servers or long) and not slow and not faults" -rs

test-all: $(READY) ## Run the tests, the slow ones too, without the fault suite
	$(PY) -m pytest -n auto --dist worksteal -m "" --ignore=tests/faults

matrix: ## Run the tests of `make test` on each Python from 3.11 to 3.13 that this machine has
	@.ci/matrix $(VERSIONS)

faults-short: $(READY) ## Run the short fault tests, and small the rows of the fault suite in which most has broken
	$(PY) -m pytest -m "faults and not slow"
	$(PY) tests/faults/run.py short -k "f6_ or f22_ or f24_ or f26_ or f34_ or f41_"

controls: $(READY) ## Plant twelve bugs, one at a time: the fault suite must find each
	FLAGSWEEP_FAULTS_RESULTS=build/controls $(PY) -m pytest -m faults tests/faults/test_controls.py -rP --durations=0

faults: $(READY) ## Run the fault suite (half an hour) and render docs/faults.md
	$(PY) tests/faults/run.py ci

faults-nightly: $(READY) ## Run the fault suite in its full size (hours) and render docs/faults.md
	$(PY) tests/faults/run.py nightly

lint: $(READY) ## Check style, format and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

docs: $(READY) ## Write the pages that are made from the code
	$(PY) docs/reference.py
	$(PY) -m flagsweep.operations.why.page

bench: $(READY) ## Measure, beside plain sqlite3 and plain Huey
	$(PY) benchmarks/bench.py

bench-quick: $(READY) ## See whether every measurement still runs, in small sizes
	$(PY) benchmarks/bench.py --quick --json build/bench-quick.json

clean: ## Remove everything that make made
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "flagsweep needs Python 3.11 or newer as '$(PYTHON)'; name another one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation -e .
	@mkdir -p $(VENV)/src && ln -sfn "$(CURDIR)" $(VENV)/src/flagsweep
	@touch $@
