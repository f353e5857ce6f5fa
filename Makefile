# Everything runs in .venv, made on demand from the locked packages (.ci/setup). `make help` lists the targets.
PY := .venv/bin/python
# arguments for the program behind a target: make test ARGS="-k retention -x"
ARGS ?=
# two workers: the tests share one machine with the servers they start
WORKERS ?= 2
CYCLES ?= 2000
export DRCTL_PYTHON

.DEFAULT_GOAL := help
.PHONY: help setup setup-run demo test check format bench soak faults docs lock wheel clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup-run ## The main job for real: init, full and incremental backup, retention, restore, compare
	@PATH="$(CURDIR)/.venv/bin:$$PATH" examples/demo.sh $(ARGS)

test: setup ## Install what the tests need (Debian packages too) and run them all
	@.ci/debian-packages
	$(PY) -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

check: setup ## Lint, formatting, types, layers
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

format: setup ## Mend what ruff can mend
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

bench: setup ## Measure drctl beside an installed restic and borg
	$(PY) -m benchmarks $(ARGS)

soak: setup ## Run everything over and over in one process: memory, descriptors, threads (CYCLES=2000)
	@.ci/debian-packages
	DRCTL_SOAK_CYCLES=$(CYCLES) $(PY) -m pytest tests/soak $(ARGS)

faults: setup ## Lying storages, failing system calls, kill -9: every flow
	@.ci/debian-packages
	$(PY) -m pytest -n $(WORKERS) --dist loadgroup tests/faults $(wildcard tests/*/test_*fault*.py) $(ARGS)

docs: setup ## Write docs/reference from the commands
	$(PY) -m drctl.cli.reference docs/reference

lock: setup ## Renew uv.lock and requirements/*.txt
	.ci/lock $(ARGS)

wheel: setup ## Build dist/*.whl
	$(PY) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

clean: ## Remove .venv, caches and build results (no demo, no repository)
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

setup:
	@.ci/setup dev

setup-run:
	@.ci/setup run
