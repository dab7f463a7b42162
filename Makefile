# What a newcomer needs is `make demo` and `make test`; `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
UV ?= $(shell command -v uv || echo .tools/bin/uv)
RUN = $(UV) run --quiet
HARNESS = PYTHONPATH=tests $(RUN) python -m harness
SIDE_BY_SIDE = -n auto --dist worksteal
# Cluster tests mostly wait: so many workers, each with a cluster of its own (2 GB), and a file of tests at a time.
CLUSTERS ?= 3
ON_CLUSTERS = -n $(CLUSTERS) --dist loadfile --no-loadscope-reorder

.PHONY: help demo test test-fast test-long test-kind coverage check format crd tools cluster cluster-down bench clean

help: ## print this text
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.tools/bin/uv:
	@echo "getting uv, once only" >&2
	@python3 -m venv .tools && .tools/bin/pip install --quiet uv

.venv: $(filter .tools/bin/uv,$(UV)) pyproject.toml uv.lock
	@$(UV) sync --quiet --frozen
	@touch .venv

demo: .venv ## two migrations of a small shop under load, on a real cluster, with figures (KEEP=1 leaves it running)
	@PYTHONPATH=tests:demo $(RUN) python demo

test: .venv ## all tests but the long campaigns: linters, types, unit, real cluster
	@$(MAKE) --no-print-directory check-code
	@$(HARNESS) tools >/dev/null # here, where people see the progress and no time limit of a test runs
	@$(RUN) pytest $(SIDE_BY_SIDE) -m "not cluster and not long" $(PYTEST)
	@$(RUN) pytest $(ON_CLUSTERS) -m "cluster and not long" $(PYTEST)

test-fast: .venv ## the tests that need no cluster and a minute or two
	@$(RUN) pytest $(SIDE_BY_SIDE) -m "not cluster and not long and not exhaustive" $(PYTEST)

test-long: .venv ## everything, the long campaigns as a whole
	@$(HARNESS) tools >/dev/null
	@$(RUN) pytest $(SIDE_BY_SIDE) -m "not cluster" $(PYTEST)
	@CUTOVER_PATIENCE=4 $(RUN) pytest $(ON_CLUSTERS) -m "cluster" $(PYTEST) # side by side they load the machine to the full

test-kind: .venv ## the tests of plans on kind in Docker, with the operator that its chart installs
	@$(HARNESS) kind >/dev/null # fails at once when Docker is missing
	@$(RUN) pytest --cluster=kind -m "cluster and not long" -o timeout_func_only=true $(PYTEST) # the first test waits for images

coverage: .venv ## how much of the code the tests without a cluster reach
	@$(RUN) pytest -q -m "not cluster and not long" --cov --cov-report=term:skip-covered $(PYTEST)

check: .venv test ## what CI runs

.PHONY: check-code
check-code: .venv
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy
	@$(RUN) lint-imports --no-cache
	@$(RUN) complexipy operator --max-complexity-allowed 15 --failed
	@$(RUN) cutover crd | diff -u crds/migrationplans.yaml - || (echo "the CRD file is stale: run make crd" >&2; exit 1)

format: .venv ## format the code
	@$(RUN) ruff check --fix --quiet .
	@$(RUN) ruff format --quiet .

crd: .venv ## generate crds/ from the models
	@$(RUN) cutover crd > crds/migrationplans.yaml
	@cp crds/migrationplans.yaml charts/cutover/crds/

tools: .venv ## get the programs of the local cluster (once; minutes the first time)
	@$(HARNESS) tools

cluster: .venv ## start a local cluster and leave it running
	@$(HARNESS) up

cluster-down: .venv ## stop it and remove its data
	@$(HARNESS) down

bench: .venv ## the figures of docs/performance.md
	@PYTHONPATH=tests $(RUN) python bench/run.py

clean: cluster-down ## also drop what was built here (the cache of tools stays)
	@rm -rf .venv .tools dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
