# Everything a developer runs. Needs Python 3.11 or newer with pip and venv; the rest is set up here.

SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$python && break; done)
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
VENV := .venv
BIN := $(VENV)/bin
CHECKS := ruff format-check types imports pytest docs

.PHONY: help setup test lint format docs demo soak bench lock clean $(filter-out docs,$(CHECKS))

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.stamp ## create .venv with the locked versions and this project

test: setup ## run every check that CI runs; stops at the first that fails
	@for check in $(CHECKS); do \
		printf '\n== %s\n' "$$check"; \
		$(MAKE) --no-print-directory "$$check" || { \
			printf '\nmake test: stopped at %s; run it alone with: make %s\n' "$$check" "$$check" >&2; exit 1; }; \
	done; printf '\nmake test: all checks passed\n'

lint: ruff format-check types imports ## run the checks that start nothing

ruff: setup ## check the code with ruff
	$(BIN)/ruff check

format-check: setup ## check the format with ruff
	$(BIN)/ruff format --check

types: setup ## check the types with basedpyright
	$(BIN)/basedpyright

imports: setup ## check who imports whom with import-linter
	$(BIN)/lint-imports --no-logo

pytest: setup ## run the tests, the doctests and the examples of README and docs (ARGS='-k word')
	$(BIN)/python -m pytest $(ARGS)

docs: setup ## build the docs into docs/_build/html, warnings as errors
	$(BIN)/sphinx-build --fail-on-warning --keep-going --nitpicky --quiet --builder html docs docs/_build/html

format: setup ## format the code and mend what ruff can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

demo: setup ## start a lab on the example site and send an event through it
	$(BIN)/labwright demo

soak: setup ## run the kill tests with a hundred kills
	LABWRIGHT_KILLS=100 $(BIN)/python -m pytest -m kill --timeout=3600 -s

bench: .venv-bench/.stamp .venv-ocs/.stamp .venv-schedulers/.stamp ## measure every bench/bench_*.py and write bench/results.json
	.venv-bench/bin/python bench/run.py $(ARGS)

lock: ## renew the lock files from pyproject.toml (UPGRADE=1 takes the newest versions)
	test -x .venv-lock/bin/uv || { $(PYTHON) -m venv .venv-lock && .venv-lock/bin/python $(PIP_INSTALL) 'uv>=0.9,<1'; }
	.venv-lock/bin/uv pip compile pyproject.toml --extra dev --output-file requirements.lock $(LOCK_OPTIONS)
	.venv-lock/bin/uv pip compile pyproject.toml --extra bench --constraints requirements.lock \
		--output-file requirements-bench.lock $(LOCK_OPTIONS)

LOCK_OPTIONS := --quiet --universal --python-version 3.11 --no-annotate --custom-compile-command 'make lock' \
	$(if $(UPGRADE),--upgrade)

clean: ## remove everything that these commands made
	rm -rf .venv .venv-bench .venv-ocs .venv-schedulers .venv-peers .venv-lock docs/_build .pytest_cache .ruff_cache .hypothesis .import_linter_cache .labwright build dist
	find . -type d -name __pycache__ -prune -exec rm -rf {} +

.venv/.stamp: requirements.lock pyproject.toml
.venv-bench/.stamp: requirements-bench.lock pyproject.toml

.venv-ocs/.stamp: bench/requirements-ocs.txt # the peer of the agents; without it their bench measures ours alone
	$(PYTHON) -m venv .venv-ocs
	.venv-ocs/bin/python $(PIP_INSTALL) --requirement $< || echo 'note: OCS does not install here; its figures are left out' >&2
	@touch $@

.venv-schedulers/.stamp: bench/requirements-schedulers.txt # the peers of the schedules; without them ours is measured alone
	$(PYTHON) -m venv .venv-schedulers
	.venv-schedulers/bin/python $(PIP_INSTALL) --requirement $< || echo 'note: the peers do not install here; their figures are left out' >&2
	@touch $@

%/.stamp:
	@test -n "$(PYTHON)" || { echo 'error: no Python 3.11 or newer on PATH; install one, or try: make PYTHON=/path/to/python3' >&2; exit 1; }
	@echo "setting up $* with $(PYTHON)"
	$(PYTHON) -m venv $*
	$*/bin/python $(PIP_INSTALL) --requirement $<
	$*/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@
