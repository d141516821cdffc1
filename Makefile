# Everything a developer types. Needs only Python >= 3.11, make and git; pip brings the rest into $(VENV).
#   make demo PYTHON=python3.12 VENV=/tmp/venv

PYTHON ?= python3
VENV ?= .venv
# Tests wait for processes half of their time.
JOBS ?= $(shell echo $$(( ($$(nproc) * 3 + 1) / 2 )))
ARGS ?=
WORLDS ?= 10000

BIN := $(VENV)/bin
PIP_READY := $(VENV)/.ready-pip
RUNTIME := $(VENV)/.ready-runtime
DEV := $(VENV)/.ready-dev
REAL := $(VENV)/.ready-real
LOAD := $(VENV)/.ready-load
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.PHONY: help setup demo up down test check format lint types contracts bench soak scenarios live dashboards \
	dashboards-check real stack clean load load-all load-ci load-compare load-card

help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(DEV) ## Install llmswap and the developers' tools into $(VENV)

demo: $(RUNTIME) ## Serve three simulated models and watch them being swapped (Ctrl-C ends it)
	@$(BIN)/llmswap demo $(ARGS)

up: ## Start the stack with dashboards on Docker, with a GPU if there is one (deploy/README.md)
	@deploy/up.sh $(ARGS)

down: ## Stop the stack; what was measured is kept
	docker compose --profile '*' down $(ARGS)

test: $(DEV) ## Run the whole test suite (ARGS='-k name' narrows it down)
	@$(BIN)/python -m compileall -q llmswap tests  # each program under test would compile it anew
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

check: format lint types contracts test ## Format, lint, types, import contracts and tests

format: $(DEV) ## Check the formatting (write it: .venv/bin/ruff format)
	$(BIN)/ruff format --check

lint: $(DEV) ## Lint
	$(BIN)/ruff check

types: $(DEV) ## Check the types
	$(BIN)/mypy

contracts: $(DEV) ## Check which room may import which
	$(BIN)/lint-imports

bench: $(DEV) ## Measure the figures the README promises (ARGS='--quick' for a short look)
	$(BIN)/python -m tests.bench $(ARGS)

soak: $(DEV) ## Run random worlds under each scheduler, every invariant checked on every step (WORLDS=10000, ARGS='--seed 10000')
	$(BIN)/python -m llmswap.sim --worlds $(WORLDS) --jobs 0 --fair $(ARGS)
	$(BIN)/python -m llmswap.sim --worlds $(WORLDS) --jobs 0 $(ARGS)

scenarios: $(DEV) ## Simulate every named scenario under both schedulers and rewrite the table in docs/scheduling.md
	$(BIN)/python -m tests.sim.whatif.table $(ARGS)

live: $(DEV) ## Serve a scenario with a real llmswap under both schedulers, hold the simulator to it (9 min; ARGS=--quick: 3)
	$(BIN)/python -m tests.live $(ARGS)

dashboards: $(DEV) ## Write grafana/dashboards anew from grafana/generate
	$(BIN)/python -m grafana.generate

dashboards-check: $(DEV) ## Hold the boards to Grafana's own types and code (npm), and to a real Prometheus under load
	$(BIN)/python -m pytest -m real tests/grafana $(ARGS)

stack: $(REAL) ## Bring the stack up on a Docker engine of its own, load it, break it (10 min)
	$(BIN)/python -m pytest -m real tests/real_stack $(ARGS)

real: $(REAL) ## Test against a real llama-server with the real OpenAI and Anthropic SDKs
	$(BIN)/python -m pytest -m real tests/real $(ARGS)

# What `make load` is told, as flags; what is left out is the scenario's own choice.
LOAD_FLAGS = $(if $(POLICY),--policy $(POLICY)) $(if $(SCALE),--time-scale $(SCALE)) $(if $(MINUTES),--minutes $(MINUTES)) \
	$(if $(SEED),--seed $(SEED)) $(if $(MODELS),--models $(MODELS))

load: $(LOAD) ## Load test: SCENARIO=opencode_fanout [TARGET=URL] [POLICY=fifo] [SCALE=0.05] [MINUTES=] [SEED=] [MODELS=a=b,…]
	$(BIN)/python -m loadtests run $(or $(SCENARIO),opencode_fanout) $(if $(TARGET),--target $(TARGET)) $(LOAD_FLAGS) $(ARGS)

load-all: $(LOAD) ## Run every scenario against simulated upstreams (25 min; ARGS='burst unknown' for some)
	$(BIN)/python -m loadtests all $(LOAD_FLAGS) $(ARGS)

load-ci: $(LOAD) ## Six scenarios in 4 minutes, one of them failing under fifo as it should, then the tests of the load tests
	$(BIN)/python -m loadtests ci $(LOAD_FLAGS) $(ARGS)
	$(BIN)/python -m pytest -m real tests/loadtests

load-compare: $(LOAD) ## Print and draw how two reports differ: A=folder B=folder
	$(BIN)/python -m loadtests compare $(A) $(B)

load-card: $(LOAD) ## Load fifo and fair with opencode_fanout, and rewrite the score card in docs/load-tests.md
	$(BIN)/python -m loadtests card opencode_fanout --minutes 30 $(ARGS)

clean: ## Remove the virtual environment and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps make set-up free when pyproject.toml has not changed. pip learnt --group (dependency groups) in 25.1.
$(PIP_READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "llmswap needs Python 3.11 or newer, but '$(PYTHON)' is" \
	    "$$($(PYTHON) --version 2>&1 | head -n 1). Name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "== making a virtual environment in $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "making $(VENV) failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PIP) install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(RUNTIME): pyproject.toml | $(PIP_READY)
	@echo "== installing llmswap and what it runs on"
	@$(PIP) install --quiet --editable .
	@touch $@

$(DEV): pyproject.toml | $(PIP_READY)
	@echo "== installing llmswap and the developers' tools"
	@$(PIP) install --quiet --editable . --group dev
	@touch $@ $(RUNTIME)

$(LOAD): pyproject.toml $(DEV)
	@echo "== installing the load generator"
	@$(PIP) install --quiet --group load
	@touch $@

$(REAL): pyproject.toml $(DEV)
	@echo "== installing what the tests against real engines and compose need"
	@$(PIP) install --quiet --group real
	@touch $@
