# Each target builds .venv first where it is not there, or where requirements.lock or pyproject.toml changed.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
READY := .venv/.ready
# Without bytecode each process compiles every file anew, and pytest rewrites every assertion: a third of `make test`.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: simulate test lint bench results faults clean

simulate: $(READY)
	$(BIN)/gliofed-simulate $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m tests.benchmarks $(ARGS)

results: $(READY)
	$(BIN)/python -m tests.benchmarks.results $(ARGS)

faults: $(READY)
	$(BIN)/python -m tests.faults $(ARGS)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gliofed needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf .venv outputs multirun
