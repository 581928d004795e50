# Two commands do everything on a fresh machine: `make demo` and `make test`.
SHELL := /bin/bash
PY := .venv/bin/python

.PHONY: help install system demo demo-down test test-quick test-long test-cluster check format bench lock clean

help:            ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

install: .venv/.installed  ## The locked environment in .venv (idempotent)

.venv/.installed: requirements.lock pyproject.toml scripts/install.sh
	@scripts/install.sh

system:          ## Debian packages that the browser, database and cluster tests use
	@scripts/system-packages.sh

demo: install    ## The main job: corpus, stack, sweep, promotion, leaderboard
	@.venv/bin/vfsearch demo

demo-down:       ## Stop the servers that the demo leaves running; nothing is lost
	@.venv/bin/vfsearch stack down

test: install system  ## The whole suite (under 25 minutes on 2 cores)
	@$(PY) -m pytest -n 2 --dist loadfile -m "not matrix and not long"

test-quick: install  ## What runs in under 2 minutes
	@$(PY) -m pytest -n 2 --dist loadfile -m "not slow and not fault and not browser"

test-long: install system  ## Kills at random moments, in mid-checkpoint, by Ray's memory monitor
	@$(PY) -m pytest -m long

test-cluster: install system  ## The long fault scenarios on a cluster of test hosts (root)
	@$(PY) -m pytest tests/cluster

check: install   ## Style, types and the direction of imports
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

format: install  ## Format the code
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

bench: install   ## The benchmarks that fit 15 minutes on 2 cores
	@$(PY) -m benchmarks

lock: install    ## Renew requirements.lock from pyproject.toml
	@.venv/bin/uv pip compile -q --generate-hashes --python-version 3.11 --no-emit-index-url \
		--no-header --extra dev pyproject.toml -o requirements.lock

clean:           ## Remove the environment and what the demo made (stop the stack first)
	@.venv/bin/vfsearch stack down || true
	@rm -rf .venv .vfsearch
