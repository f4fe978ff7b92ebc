# `make demo` and `make test` need Python 3.11 or newer and nothing else: they make .venv themselves.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal
BENCHMARKS := theory_step theory_answer observe probe depth distill_step embedded_training algorithms watch audit audit_scale audit_zoo unlabeled sweep
# Tests start many processes; each would compile the package again where no bytecode is kept.
export PYTHONDONTWRITEBYTECODE :=
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable

.PHONY: demo test slow check lint types contracts docs format paper-map benchmarks clean

demo: $(VENV)/.installed        ## install, run the quick experiments, write the page
	$(BIN)/contam demo

test: $(VENV)/.installed-test   ## install, run the fast tests
	$(PYTEST) -m "not slow"

slow: $(VENV)/.installed-test   ## the tests that take longer
	$(PYTEST) -m slow --durations 20

check: lint types contracts docs test   ## what a developer runs before a commit

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev
	$(BIN)/pyright --pythonpath $(BIN)/python

contracts: $(VENV)/.installed-dev   ## who may import whom
	$(BIN)/lint-imports

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

paper-map: $(VENV)/.installed       ## write docs/paper-map.md anew from the docstrings
	$(BIN)/python -m contam.paper > docs/paper-map.md

benchmarks: $(VENV)/.installed-test   ## each prints a ratio against a reference of the same run
	@failed=; for name in $(BENCHMARKS); do \
	  echo "== $$name"; $(BIN)/python benchmarks/$$name.py || failed="$$failed $$name"; \
	done; test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

clean:
	rm -rf $(VENV) site .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "contam needs Python 3.11 or newer: install it, or name it with make PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) ".[models,reference]"
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) ".[test]"
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) ".[dev]"
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test
