# Everything that is done to mainstem, by one name each. Set-up happens by itself, from lock files, and costs nothing when warm.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run test check format bench chaos sim kill-every-call doctor wheel lock clean set-up-run set-up-dev

# The first Python that is new enough; another one: make PYTHON=/path/to/python …
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
BIN := .venv/bin
# Arguments for pytest or the benches, such as ARGS='-k upload' or ARGS='--rounds 5'
ARGS ?=
export VIDEO ONCE

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: set-up-run ## Show it: a broken upload becomes adaptive video (ONCE=1 ends afterwards, VIDEO=path takes your clip)
	@$(BIN)/python -m examples.video.demo

test: set-up-dev ## Run all tests (ARGS= for pytest); installs what make doctor lists, as root
	@$(BIN)/python -m scripts.doctor test --install
	@$(BIN)/python -m scripts.browser_files --with-tests
	@$(BIN)/pytest --numprocesses 2 --dist loadfile $(ARGS)

check: set-up-dev ## Check format, lint, imports and types
	@echo "format";  $(BIN)/ruff format --check --quiet . || { echo "run: make format"; exit 1; }
	@echo "lint";    $(BIN)/ruff check --quiet .
	@echo "imports"; $(BIN)/lint-imports --no-logo > .cache/imports.txt 2>&1 || { cat .cache/imports.txt; exit 1; }
	@echo "types";   $(BIN)/mypy
	@echo "types of the public names"; $(BIN)/basedpyright --warnings > .cache/types.txt || { cat .cache/types.txt; exit 1; }
	@$(BIN)/python -m scripts.public_types

format: set-up-dev ## Format the code, and mend what the linter can
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --fix --quiet .

chaos: set-up-dev ## Kill and stop the leaders of a log that four processes use, for a minute (ARGS='--seconds 60')
	@$(BIN)/python -m chaos $(ARGS)

sim: set-up-dev ## Random histories of the log on a failing disk: SEEDS=1000 [FIRST=0]
	@SEEDS=$(or $(SEEDS),1000) FIRST=$(or $(FIRST),0) $(BIN)/python -m pytest -q tests/sim/test_history.py

kill-every-call: set-up-dev ## Kill a real process with -9 at every system call that it makes on the log, one after the other
	@$(BIN)/python -m scripts.doctor test --install
	@KILL=all $(BIN)/python -m pytest -q tests/e2e/test_kill_every_call.py $(ARGS)

bench: set-up-dev ## Measure against peers and the raw limit (ONLY=log.append.c100 for one)
	@$(BIN)/python -m scripts.doctor bench --install
	@$(BIN)/python -m bench $(if $(ONLY),--only $(ONLY)) $(ARGS)

doctor: ## Say what this machine lacks, and the one command that brings it
	@"$(PYTHON)" -m scripts.doctor

wheel: set-up-dev ## Build the wheel into dist/
	@$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls -1 dist

lock: set-up-dev ## Write the lock files anew (UPGRADE=1 takes the newest versions)
	@$(BIN)/python -m scripts.lock $(if $(UPGRADE),--upgrade)

clean: ## Remove everything that was made: environment, caches, builds
	@rm -rf .venv .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist node_modules out \
		src/mainstem/web/static/vendor
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

set-up-run set-up-dev:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is missing (Debian: apt-get install python3.11 python3.11-venv)"; exit 2; }
	@"$(PYTHON)" -m scripts.set_up $(@:set-up-%=%)
	@$(if $(filter set-up-run,$@),$(BIN)/python -m scripts.browser_files)
	@mkdir -p .cache
