# Everything runs in .venv; uv installs into it, and pip where uv cannot.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TOOLS := $(VENV)/.installed-tools
RUN := $(BIN)/python loaders/run.py

# Bytecode makes every start seconds faster; some machines switch it off.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install tools gmail stripe status dashboard check test test-all test-extended lint types sql pytest-quick pytest build emulator smoke-bigquery chaos disasters property audit parse-dbt2 bench clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 16

install: $(INSTALLED) profiles.yml ## .venv with what runs need, pinned, and profiles.yml

tools: $(TOOLS) profiles.yml ## the same, and what tests and linters need

# $(1): what is installed. uv takes seconds where pip takes minutes, and says less.
define installed
	@echo "installing $(1) into $(VENV): some 0.8 GB"
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@uv=$$(command -v uv || echo $(BIN)/uv); \
	test -x "$$uv" || $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt uv; \
	"$$uv" pip install --python $(BIN)/python --constraint constraints.txt --editable '$(1)' || \
	$(BIN)/python -m pip install --disable-pip-version-check \
		--constraint constraints.txt --editable '$(1)'
	@touch $@
endef

$(INSTALLED): pyproject.toml constraints.txt
	$(call installed,.)

$(TOOLS): pyproject.toml constraints.txt
	$(call installed,.[dev])
	@touch $(INSTALLED)

profiles.yml:
	cp profiles.example.yml profiles.yml

gmail: install ## fetch mail, merge it, check it (the sandbox when no mailbox is configured)
	$(RUN) gmail

stripe: install ## fetch payments, merge them, check them (the sandbox when no account is configured)
	$(RUN) stripe

status: install ## how each connection is, and the last runs
	$(RUN) status

dashboard: install ## the same and more as one page, landfall-dashboard.html
	$(RUN) dashboard

lint: tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

types: tools
	$(BIN)/mypy

sql: tools
	$(BIN)/sqlfluff lint models tests/acceptance

# A file stays on one worker, as its fixtures are dear, but for some (tests/conftest.py).
PYTEST := $(BIN)/pytest -n 2 --dist loadfile

pytest-quick: tools
	$(PYTEST) -m 'not slow and not extended'

pytest: tools
	$(PYTEST) --durations 15 -m 'not extended'

# On a warehouse and a profile of its own: a check must not touch somebody's data.
CHECK := $(CURDIR)/target/check
build: export LANDFALL_DUCKDB_PATH := $(CHECK)/check.duckdb
build: export LANDFALL_STATE_DIR := $(CHECK)/state
build: export DBT_PROFILES_DIR := $(CHECK)
build: tools
	rm -rf $(CHECK) && mkdir -p $(CHECK) && cp profiles.example.yml $(CHECK)/profiles.yml
	$(BIN)/dbt build --target-path $(CHECK)/target
	$(RUN) gmail --connection sandbox
	$(RUN) gmail --connection sandbox
	$(RUN) stripe --connection sandbox
	$(RUN) stripe --connection sandbox
	$(BIN)/dbt build --target-path $(CHECK)/target
	$(BIN)/dbt docs generate --target-path $(CHECK)/target
	$(RUN) status
	$(RUN) dashboard --output $(CHECK)/dashboard.html

# Side by side: most of these use one core, and whichever fails fails the whole.
check: tools ## the quick part of the tests, before every commit
	@$(MAKE) --no-print-directory --jobs=2 lint pytest-quick types
	@echo "check: passed"

test: tools ## what proves the product on DuckDB, and one pass on the emulator
	@$(MAKE) --no-print-directory --jobs=2 lint pytest types sql build
	@echo "test: passed"

test-extended: tools ## what test-all adds: the emulator twins, the sandbox's own tests, …
	$(PYTEST) --durations 15 -m extended

test-all: test test-extended ## everything that proves the project
	@echo "test-all: passed"

emulator: tools ## run the BigQuery emulator (needs Python 3.13) for --target emulator
	$(BIN)/python -m tests.peers.emulator

smoke-bigquery: tools ## run twice against LANDFALL_BIGQUERY_PROJECT, in datasets made for it
	$(BIN)/python -m tests.peers.smoke

chaos: tools ## kill runs at every named step and at random instants, for an hour or more
	$(BIN)/python -m tests.chaos
	$(BIN)/python -m tests.chaos --emulator

disasters: tools ## the same, and then a backup, a dataset or a state directory is put back
	$(BIN)/python -m tests.chaos --disasters

property: export LANDFALL_PROPERTY_EXAMPLES ?= 200
property: tools ## random histories of a mailbox, of an account, and of their runs
	$(BIN)/pytest -n 2 tests/python/test_gmail_property.py tests/python/test_stripe_property.py \
		tests/python/test_restore_property.py

audit: tools ## known vulnerabilities of the pinned packages (asks the network)
	$(BIN)/uv tool run --quiet pip-audit --strict --requirement constraints.txt \
		--no-deps --disable-pip

# dbt 2 is no Python module: its package fetches a program from dbt Labs' host.
DBT2 := .peers/dbt2
parse-dbt2: tools ## parse the project with dbt 2.x, in an environment of its own (asks the network)
	@test -x $(DBT2)/bin/dbt || { $(PYTHON) -m venv $(DBT2) && \
		$(DBT2)/bin/python -m pip install --quiet --disable-pip-version-check dbt==2.0.9; } || \
		{ echo "parse-dbt2: dbt 2.x cannot be installed here, nothing was parsed" >&2; exit 1; }
	$(DBT2)/bin/dbt parse --no-version-check --profiles-dir . --target-path target/dbt2

bench: tools ## print the benchmarks' tables, write bench-results/
	$(BIN)/python -m tests.bench

clean: ## remove .venv, caches, logs and results; warehouses, state and profiles.yml stay
	rm -rf $(VENV) target logs .mypy_cache .ruff_cache .pytest_cache .hypothesis bench-results
