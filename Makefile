# Everything runs in a virtual environment of the checkout; "make run" and "make test" need only python3.11 or later.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run cluster compile pure test check lint types fast proto bench profile fuzz fuzz-wire sim nemesis clean

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

# Three members on 127.0.0.1:2379, :22379 and :32379; Ctrl-C stops them. Kill one (its process id is told) and watch.
cluster: $(VENV)/run.stamp
	$(BIN)/python -m tools.cluster config/three-node/node1.yaml config/three-node/node2.yaml config/three-node/node3.yaml

# The hot path as machine code, a third to two thirds quicker; needs a C compiler and some minutes. "make pure" goes back.
compile: $(VENV)/dev.stamp
	$(BIN)/python -m tools.compiled build

pure: $(VENV)/dev.stamp
	$(BIN)/python -m tools.compiled remove

# Four workers where there are processes: they wait more than they compute.
test: check
	$(BIN)/pytest -n 4 --dist worksteal -m e2e

# Side by side, on two cores; each says what it has to say when it ends.
check: $(VENV)/dev.stamp
	$(MAKE) --no-print-directory --jobs 2 --output-sync lint types fast

fast: $(VENV)/dev.stamp
	$(BIN)/pytest -n 2 --dist worksteal -m 'not e2e'

lint: $(VENV)/dev.stamp
	$(BIN)/python -m tools.compiled check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python tools/genproto.py --check

types: $(VENV)/dev.stamp
	$(BIN)/mypy

proto: $(VENV)/dev.stamp
	$(BIN)/python tools/genproto.py

# Takes about half an hour; make bench ROWS='put|txn' measures only some rows.
ROWS ?=
bench: $(VENV)/dev.stamp
	$(BIN)/python -m bench --large --rows '$(ROWS)'

# A flame graph of the server under a load: make profile LOAD=txn; see python -m bench.profile --help.
LOAD ?= put
profile: $(VENV)/dev.stamp
	$(BIN)/python -m bench.profile $(LOAD)

# New random requests and watchers against actcd and etcd at once: make fuzz ROUNDS=500; a failure names its seed.
ROUNDS ?= 50
fuzz: $(VENV)/dev.stamp
	ACTCD_FUZZ_ROUNDS=$(ROUNDS) ACTCD_FUZZ_BASE=$$(date +%s) $(BIN)/pytest -x -q -n 2 -m e2e tests/e2e/test_differential_kv.py tests/e2e/test_differential_watch.py tests/e2e/test_bad_input.py tests/e2e/test_bad_tokens.py

# Random bytes and frames against the engine, HTTP and the links between members: minutes of it.
EXAMPLES ?= 20000
fuzz-wire: $(VENV)/dev.stamp
	ACTCD_EXAMPLES=$(EXAMPLES) $(BIN)/pytest -x -q -n 2 --timeout 0 -o faulthandler_timeout=0 tests/properties/test_net_wire.py tests/properties/test_rafthttp_frames.py

# Clusters of real actors with faults, each from a seed: make sim SEEDS=1000, make sim FROM=5000, make sim SEED=7.
SEEDS ?= 200
FROM ?= 1
sim: $(VENV)/dev.stamp
	$(BIN)/python -m sim $(if $(SEED),--seed $(SEED) --trace,--seeds $(SEEDS) --from $(FROM))

# Clusters of processes under kills, pauses, partitions and delays: make nemesis MINUTES=30, make nemesis SEED=7,
# make nemesis PROGRAMS=actcd,actcd,etcd.
MINUTES ?= 10
nemesis: $(VENV)/dev.stamp
	$(BIN)/python -m tests.nemesis --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(PROGRAMS),--programs $(PROGRAMS))

clean:
	rm -rf $(VENV) default.etcd node1.etcd node2.etcd node3.etcd
