# `make demo` and `make test` each do all their set-up, in .venv, on a fresh Debian or Ubuntu machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_OPTIONS ?=
PYTEST_OPTIONS ?=
CHAOS_OPTIONS ?=

.PHONY: demo test chaos lint setup-demo setup-test system-demo system-test clean

demo: setup-demo
	$(BIN)/inspector demo $(DEMO_OPTIONS)

test: setup-test
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-fail-under=90 $(PYTEST_OPTIONS)

# Every kind of fault against a whole station (docs/chaos.md); as root also those that mount or lay networks.
chaos: setup-test
	$(BIN)/python tests/faults/chaos --json runs/chaos.json $(CHAOS_OPTIONS)

lint: setup-test
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

setup-demo: $(VENV)/.installed-demo
setup-test: $(VENV)/.installed-test

# The simulator is a part of the package: a change of it is built again.
SIMULATOR := $(wildcard inspector/camera/simulator/src/* inspector/camera/simulator/*.py)

$(VENV)/.installed-demo: pyproject.toml setup.py $(SIMULATOR)
	sh tools/system-packages.sh demo
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.installed-test: pyproject.toml setup.py constraints.txt $(SIMULATOR)
	sh tools/system-packages.sh test
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,dev,postgres]'
	touch $@ $(VENV)/.installed-demo

clean:
	rm -rf $(VENV) build dist *.egg-info runs
