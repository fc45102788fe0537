# One place for the commands that people and CI run. `make` alone lists them.

PY := .venv/bin/python
PYTEST := $(PY) -m pytest
ARGS ?=

# honoured by `make lab`; an empty one means: choose
export PORT TOKEN PYTHON

.DEFAULT_GOAL := help
.PHONY: help setup lab test test-fast notebooks bench chaos lint format lock clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install everything that lab and test need (venv, packages, RabbitMQ, browser)
	@scripts/setup.sh test

lab: ## set up, start a private broker and JupyterLab: PORT=8899 TOKEN=secret choose where and how
	@case "$$PORT" in *[!0-9]*) echo "PORT=$$PORT is no port: make lab PORT=8899" >&2; exit 2 ;; esac
	@scripts/setup.sh lab
	@$(PY) scripts/lab.py

test: ## set up, check everything, run every test and lesson: one verdict (ARGS= goes to pytest)
	@scripts/setup.sh test
	@scripts/test.sh $(ARGS)

test-fast: ## only the unit tests
	@scripts/setup.sh test
	@$(PYTEST) -q tests/unit $(ARGS)

notebooks: ## make the lessons anew from notebooks/source, executed, with pictures (ARGS=01 for one)
	@scripts/setup.sh test
	@$(PY) scripts/notebooks.py $(ARGS)

bench: ## measure against other clients, same work, same node (ARGS=--help for what there is)
	@scripts/setup.sh lab
	@$(PY) -m benchmarks $(ARGS)

chaos: ## break a broker under load by a random schedule of faults, then kill all in turn, and check (ARGS="--faults 50" for the first only)
	@scripts/setup.sh lab
	@.venv/bin/chatlib chaos $(ARGS)
	@[ -n "$(ARGS)" ] || CHATLIB_LONG=1 $(PYTEST) -q -s -o timeout=600 tests/faults/test_promises.py

lint: ## ruff and mypy
	@scripts/setup.sh lab
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

format: ## let ruff put the code in its form
	@scripts/setup.sh lab
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

lock: ## compile the lock anew from pyproject.toml, to the newest releases
	@scripts/setup.sh lab
	@scripts/lock.sh

clean: ## remove what setup, tests and builds made here (not RabbitMQ or the browser)
	@rm -rf .venv .setup build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
