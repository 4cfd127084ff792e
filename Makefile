# Everything runs in a virtual environment of the checkout; "make run" and "make test" need only python3.11 or later.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test check lint types proto bench clean

$(VENV)/run.stamp: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/dev.stamp: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

run: $(VENV)/run.stamp
	$(BIN)/actcd --config-file config/single-node.yaml

test: check
	$(BIN)/pytest -n 2 -m e2e

check: lint types $(VENV)/dev.stamp
	$(BIN)/pytest -n 2 -m 'not e2e'

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python tools/genproto.py --check

types: $(VENV)/dev.stamp
	$(BIN)/mypy

proto: $(VENV)/dev.stamp
	$(BIN)/python tools/genproto.py

bench: $(VENV)/dev.stamp
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) default.etcd
