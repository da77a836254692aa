# Kinora. `make demo` shows it, `make test` proves it; both install what they need. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
E2E_CLUSTER := kinora-e2e
# Tests side by side: a worker a core, four at most (they share one API server). PARALLEL= runs one after the other.
PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist worksteal
KINORA_SCALE_NAME ?= kinora-scale
KINORA_GATEWAY_NAME ?= kinora-gateway

include hack/make/cluster.mk

.PHONY: help venv lock fmt lint types generate verify unit contract integration s3-server e2e test demo demo-down bench \
  bench-failover bench-scale bench-scale-down bench-gateway bench-writes docs-pictures clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

# --- the Python environment -------------------------------------------------------------------------------------------

venv: $(VENV)/.installed ## Make .venv with every locked dependency

$(VENV)/.installed: requirements/dev.lock pyproject.toml hack/venv.sh
	@PYTHON="$(PYTHON)" hack/venv.sh $(VENV) requirements/dev.lock
	@touch $@

lock: venv ## Resolve dependencies anew and write the lock files (with hashes)
	$(BIN)/uv pip compile -q --upgrade --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  pyproject.toml -o requirements/runtime.lock
	$(BIN)/uv pip compile -q --upgrade --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  --group dev pyproject.toml -c requirements/runtime.lock -o requirements/dev.lock

# --- code -------------------------------------------------------------------------------------------------------------

fmt: venv ## Format the code
	$(BIN)/ruff format operator tests hack
	$(BIN)/ruff check --fix operator tests hack

lint: venv ## Style, formatting, and the layer rule
	$(BIN)/ruff check operator tests hack
	$(BIN)/ruff format --check operator tests hack
	$(BIN)/lint-imports --no-logo

types: venv ## mypy, strict
	$(BIN)/mypy

generate: venv ## Write the CRDs from the models, docs/models.md from the catalogue, the tables of docs/metrics.md
	$(BIN)/python -m kinora.api.crd crds
	$(BIN)/python -m kinora.catalogue.docs docs/models.md
	$(BIN)/python -m kinora.cli.metrics_docs docs/metrics.md

verify: venv ## Fail when generated files drift
	@drift=$$(mktemp -d) && trap 'rm -rf "$$drift"' EXIT && $(BIN)/python -m kinora.api.crd "$$drift" && \
	  diff -ru crds "$$drift" || { echo "crds/ differs from the models; run: make generate" >&2; exit 1; }
	@$(BIN)/python -m kinora.catalogue.docs /dev/stdout | diff -u docs/models.md - || \
	  { echo "docs/models.md differs from the catalogue; run: make generate" >&2; exit 1; }
	@$(BIN)/python -m kinora.cli.metrics_docs docs/metrics.md /dev/stdout | diff -u docs/metrics.md - || \
	  { echo "docs/metrics.md differs from the code; run: make generate" >&2; exit 1; }

# --- tests ------------------------------------------------------------------------------------------------------------

unit: venv ## Pure functions and single processes
	$(BIN)/pytest $(PARALLEL) tests/unit tests/cluster

contract: venv ## The stand-in against the recorded protocol; recipes against the node contract
	$(BIN)/pytest $(PARALLEL) tests/contract

integration: venv integration-up s3-server ## Operator, agent and policies on a real API server; S3
	$(BIN)/pytest $(PARALLEL) tests/integration --ignore tests/integration/test_scale_harness.py
	$(BIN)/pytest tests/integration/test_scale_harness.py  # alone: it counts all that the API server is asked

s3-server: ## Build the S3 server that tests sign requests for
	@hack/s3-server.sh

e2e: venv ## Real kubelet and containers, the chart installed
	@hack/e2e.sh $(E2E_CLUSTER)

test: ## Everything: lint, types, unit, contract, integration, e2e; installs what it needs
	@hack/test.sh

bench: venv ## Latency from create to the engine's start (needs the demo up), kinora render, quantize, finishing, fetch
	PYTHONPATH=hack:tests $(BIN)/python tests/bench/latency.py --name $(KINORA_CLUSTER_NAME)
	$(BIN)/python tests/bench/render.py
	$(BIN)/python tests/bench/quantize.py
	$(BIN)/python tests/bench/finish.py
	$(BIN)/python tests/bench/fetch.py

bench-failover: venv integration-up ## How long nobody binds when the leader is killed, and when it is asked to end
	PYTHONPATH=tests $(BIN)/python tests/bench/failover.py

bench-scale: venv ## N VideoJobs (10000) over PODS hollow server pods (500); PHASES=..., RESULTS=FILE (docs/performance.md)
	@env -u KINORA_CLUSTER -u KINORA_REGISTRY $(CLUSTER) up --name $(KINORA_SCALE_NAME) --control-plane-only
	PYTHONPATH=hack:tests $(BIN)/python -m bench.scale --name $(KINORA_SCALE_NAME) $(if $(N),--jobs $(N)) \
	  $(if $(PODS),--pods $(PODS)) $(if $(PHASES),--phases $(PHASES)) $(if $(RESULTS),--results $(RESULTS)) $(SCALE)

bench-scale-down: ## Stop the control plane of bench-scale
	@env -u KINORA_CLUSTER -u KINORA_REGISTRY $(CLUSTER) down --name $(KINORA_SCALE_NAME)

bench-gateway: venv ## What one replica of the gateway answers a second (needs wrk: apt-get install wrk)
	@env -u KINORA_CLUSTER -u KINORA_REGISTRY $(CLUSTER) up --name $(KINORA_GATEWAY_NAME) --control-plane-only
	PYTHONPATH=hack:tests $(BIN)/python -m bench.gateway --name $(KINORA_GATEWAY_NAME)

bench-writes: venv ## What each write of a VideoJob costs the API server; WATCHES=500 as with so many agents
	@env -u KINORA_CLUSTER -u KINORA_REGISTRY $(CLUSTER) up --name $(KINORA_GATEWAY_NAME) --control-plane-only
	PYTHONPATH=hack:tests $(BIN)/python -m bench.writes --name $(KINORA_GATEWAY_NAME) $(if $(WATCHES),--watches $(WATCHES))

docs-pictures: venv ## Draw the pictures of docs/tasks.md from its manifests, on the stand-in
	PYTHONPATH=hack:tests $(BIN)/python hack/docs

# --- the demo ---------------------------------------------------------------------------------------------------------

demo: venv ## From nothing to three videos on a real cluster
	@$(BIN)/python hack/demo up --name $(KINORA_CLUSTER_NAME)

demo-down: venv ## Remove every trace of the demo
	@$(BIN)/python hack/demo down --name $(KINORA_CLUSTER_NAME)

clean: ## Remove .venv and caches of the tools (the dev cluster's cache: python3 hack/cluster gc)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
