# 'make' alone lists the targets. Each sets up .venv by itself when it is missing or out of date.
# PYTHON=/path/to/python3 names the Python that .venv is made with.
BIN := .venv/bin
READY := .venv/.installed
# Some machines set this. The tests start hundreds of interpreters, and each would compile all of
# recallfs before it begins.
unexport PYTHONDONTWRITEBYTECODE
SCRIPTS := $(shell grep -l -d skip '^\#!.*python' scripts/*)

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

$(READY): requirements.lock pyproject.toml scripts/bootstrap
	scripts/bootstrap .venv

install: $(READY) ## set up .venv with everything that development needs

demo: $(READY) ## release files of a small made-up store, open them again, end to end
	$(BIN)/recall demo

# They sync thousands of small files, which is quick in memory; test-services does it on a disk. What
# a test leaves behind is dropped when it passes, or it would fill the memory.
test: $(READY) ## the tests that need nothing but Python packages
	@[ -n "$$PYTEST_DEBUG_TEMPROOT" ] || [ ! -w /dev/shm ] || \
	    [ "$$(df --output=avail -k /dev/shm | tail -1)" -lt 4000000 ] || \
	    export PYTEST_DEBUG_TEMPROOT=/dev/shm; \
	set -x; $(BIN)/python -m pytest -m "not services" -n 4 -o tmp_path_retention_policy=failed $(ARGS)

test-services: $(READY) ## the tests that need mounts, other users, servers
	$(BIN)/python scripts/test-services $(ARGS)

test-lowest: $(READY) ## the quick tests with the lowest versions pyproject.toml allows
	scripts/test-lowest $(ARGS)

test-spyglass: $(READY) ## the tests with Spyglass, DataJoint and MariaDB, set up from nothing
	scripts/test-spyglass $(ARGS)

kill: $(READY) ## kill random operations at random points; ARGS='--points 1000 --seed 7'
	$(BIN)/python scripts/kill-points $(ARGS)

lint: lint-rules lint-format lint-types lint-layers lint-docs ## everything below

lint-rules: $(READY) ## ruff: rules
	$(BIN)/ruff check . $(SCRIPTS)

lint-format: $(READY) ## ruff: format
	$(BIN)/ruff format --check . $(SCRIPTS)

lint-types: $(READY) ## mypy, strict
	$(BIN)/mypy
	$(BIN)/mypy --scripts-are-modules $(SCRIPTS)

lint-layers: $(READY) ## import-linter: imports point down
	$(BIN)/lint-imports

lint-docs: $(READY) ## every public object is documented; generated pages are up to date
	$(BIN)/python scripts/check-docstrings
	$(BIN)/python scripts/gen-error-docs --check
	$(BIN)/python scripts/gen-cli-docs --check
	$(BIN)/python scripts/gen-doctor-docs --check
	$(BIN)/python scripts/gen-json-docs --check
	$(BIN)/python scripts/gen-bench-docs --check

bench: $(READY) ## figures beside those of the peers, in minutes; ARGS='--selection usual'
	scripts/bench-peers
	$(BIN)/recall bench run $(ARGS)
	$(BIN)/recall bench report --to benchmarks/report

docs: $(READY) ## the documentation, to site/
	$(BIN)/python scripts/gen-error-docs
	$(BIN)/python scripts/gen-cli-docs
	$(BIN)/python scripts/gen-doctor-docs
	$(BIN)/python scripts/gen-json-docs
	$(BIN)/python scripts/gen-bench-docs
	$(BIN)/mkdocs build --strict

picture: $(READY) ## the picture in README.md, from what `make demo` prints now
	$(BIN)/python scripts/gen-demo-picture

lock: $(READY) ## remake requirements.lock with today's versions
	scripts/lock

clean: ## drop everything that the other targets made
	rm -rf .venv .venv-lowest .venv-peers .venv-spyglass benchmarks/report build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	    .import_linter_cache
	find src tests -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help install demo test test-services test-lowest test-spyglass kill lint lint-rules lint-format lint-types \
    lint-layers lint-docs bench docs picture lock clean
