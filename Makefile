# Every command a user needs. The virtual environment is made by the first one that needs it, and reused afterwards.
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
READY := .venv/.ready
LOCAL := $(BIN)/python -m include.local
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder

export PYTHONPATH := $(CURDIR):$(CURDIR)/plugins
# Without bytecode every `import airflow` takes three times as long.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-postgres-15 stack up down status psql env env-file lint format bench chaos docs revision new-entity lock

help: ## This list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(READY): requirements-dev.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Sluice needs Python 3.11 to 3.13; $(PYTHON) is $$($(PYTHON) --version 2>&1). Say: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Making the virtual environment .venv with $$($(PYTHON) --version) (about a minute the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
	  { echo "$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements-dev.txt
	@touch $@

demo: $(READY) ## The stack, the migrations, and every pipeline on 50,000 customers, with a table of what each did
	@$(BIN)/python -m include.local.demo

test: $(READY) ## Everything, on services of its own
	@$(PYTEST)

test-postgres-15: $(READY) ## The database tests once more, on the oldest PostgreSQL that is promised
	@SLUICE_POSTGRES_BIN=$$(ls -d /usr/lib/postgresql/15/bin) $(PYTEST) -m database --ignore=tests/chaos

stack: $(READY) ## PostgreSQL, Valkey and the demo API, migrated, without Airflow
	@$(LOCAL) up

up: $(READY) ## The stack and the whole of Airflow, with the UI's address and login
	@$(LOCAL) up --with-airflow

down: $(READY) ## Stops what `stack`, `up` or `demo` started; data stay in .local/
	@$(LOCAL) down

status: $(READY) ## What runs, where
	@$(LOCAL) status

psql: $(READY) ## A SQL prompt on the data
	@$(LOCAL) psql

env: $(READY) ## export lines: eval "$$(make -s env)", and any `airflow ...` command works against the local stack
	@$(LOCAL) env

env-file: ## A .env of random secrets for docker compose
	@$(PYTHON) -m include.local.env_file

lint: $(READY) ## Style, types, layers, generated documentation
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "not formatted: run make format" >&2; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/python -m sluice.dag_docs --check

format: $(READY) ## Formats the code
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format --quiet .

bench: $(READY) ## Speed, as ratios to a floor measured in the same run (some minutes)
	@$(BIN)/python -m benchmarks.daily_sync
	@$(BIN)/python -m benchmarks.publish
	@$(BIN)/python -m benchmarks.replication
	@$(BIN)/python -m benchmarks.warehouse
	@$(BIN)/python -m benchmarks.quality
	@$(BIN)/python -m benchmarks.data_docs

chaos: $(READY) ## The proofs, long: 10,000 random schedules of syncs, failures and kills, 2,000 of loads, processes that die (two hours)
	@$(BIN)/python -m tests.chaos --schedules 10000 --http 200
	@$(BIN)/python -m tests.chaos.deaths
	@SLUICE_WAREHOUSE_EXAMPLES=2000 $(BIN)/python -m pytest tests/warehouse/test_load_model.py

docs: $(READY) ## docs/DAGS.md from the DAGs themselves
	@$(BIN)/python -m sluice.dag_docs

revision: $(READY) ## The migration that a changed contract needs: make revision MESSAGE="..."
	@$(LOCAL) revision "$(MESSAGE)"

new-entity: $(READY) ## A contract and its migration from a sample: make new-entity NAME=invoices FROM=<url or file> [CONNECTION=shop_api]
	@$(BIN)/python -m include.local.new_entity "$(NAME)" "$(FROM)" $(if $(CONNECTION),--connection "$(CONNECTION)")

lock: $(READY) ## Compiles requirements*.in to their locks, for Python 3.11 to 3.13
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 requirements.in -o requirements.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 requirements-dev.in -c requirements.txt -o requirements-dev.txt
