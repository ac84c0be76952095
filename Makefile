# `make demo` scores the bundled photos; `make check` is what continuous integration runs.
# Each target sets up a virtual environment in .venv first, where there is none, and keeps it up to date.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet
USE := $(VENV)/.installed
DEV := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.PHONY: help demo zoo test test-gpu plugins plugin-tests plugin-wheels check format format-check lint types layers docs clean

help:
	@echo "make demo    score the bundled photos, offline"
	@echo "make zoo     make the model zoo's index, figures and cards anew"
	@echo "make test    the fast tests"
	@echo "make test-gpu  what runs on an NVIDIA GPU, where there is one"
	@echo "make plugins install what is under plugins/, with Ray, and run its tests"
	@echo "make plugin-wheels  build, install and test what is under plugins/ as wheels"
	@echo "make check   all that continuous integration runs"
	@echo "make format  format the code and repair what ruff can"
	@echo "make docs    build the documentation into site/"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(USE): pyproject.toml | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(DEV): pyproject.toml | $(BIN)/python
	$(PIP) -e ".[dev]"
	@touch $(USE) $@

# Run it when a model, its facts or a figure in benchmarks/results has changed.
zoo: $(USE)
	$(BIN)/python model_zoo/make_index.py

demo: $(USE)
	$(BIN)/iqakit score examples/photos

test: $(DEV)
	$(BIN)/python -m pytest -q -m "not slow" -n auto --dist worksteal

# Not a part of check: continuous integration has no GPU.
test-gpu: $(DEV)
	IQAKIT_TEST_GPU=1 $(BIN)/python -m pytest -q tests/gpu

# The packages under plugins/, installed with all they need, each tested as its own project.
plugins: $(DEV)
	$(PIP) $(foreach plugin,$(wildcard plugins/*),-e $(plugin))
	for plugin in plugins/*; do (cd $$plugin && $(abspath $(BIN))/python -m pytest -q) || exit 1; done

# The same from their sources, without installing what they need; a package whose needs are not installed skips.
plugin-tests: $(DEV)
	@for each in plugins/*/; do \
		echo "$$each"; \
		PYTHONPATH="$$each/src" $(BIN)/python -m pytest -q -m "not slow" "$$each/tests" || exit 1; \
	done

# Built as wheels, installed into a bare environment, and tested there; nothing is downloaded.
plugin-wheels: $(DEV)
	$(BIN)/python tests/plugin_wheels.py

check: format-check lint types layers test plugin-wheels docs

format: $(DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

format-check: $(DEV)
	$(BIN)/ruff format --check .

lint: $(DEV)
	$(BIN)/ruff check .

types: $(DEV)
	$(BIN)/mypy
	$(BIN)/mypy tests/typing
	@for each in plugins/*/; do \
		$(BIN)/mypy --config-file "$${each}pyproject.toml" "$${each}src" || exit 1; \
	done

layers: $(DEV)
	$(BIN)/lint-imports

docs: $(DEV)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
