# Two commands matter: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
STOKE = .venv/bin/stoke
# Containers often set it. Without bytecode every start compiles all modules anew, which triples its time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup setup-dev demo test check lock bench torture screenshots clean

help:
	@grep -hE '^## ' $(MAKEFILE_LIST) | sed 's/^## //'

## make setup        .venv/bin/stoke, from the locked requirements
setup:
	@PYTHON="$(PYTHON)" tools/setup run

setup-dev:
	@PYTHON="$(PYTHON)" tools/setup dev

## make demo         the main job on this machine: numpy and pandas, cold, then warm
demo: setup
	@.venv/bin/python tools/demo.py

## make test         every test this machine can run (.ci/run brings the engines)
# Most tests wait for processes, containers and pods, so there are more of them at once than cores.
test: setup-dev check
	@.venv/bin/python tools/run_tests.py $(PYTEST_ARGS)

## make check        lint, types, import contracts
check: setup-dev
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

## make bench        the figures, each as a ratio in one run
bench: setup-dev
	@.venv/bin/python -m bench

## make torture      attacks at random for ten minutes; SECONDS= and SEED= change and repeat them
torture: setup-dev
	@.venv/bin/python -m bench.torture

## make screenshots  pictures and a recording of the real app running real jobs
screenshots: setup-dev
	@.venv/bin/python tools/screenshots.py
	@.venv/bin/python tools/tour.py

## make lock         lock the dependencies again, with hashes
lock: setup
	@tools/lock

clean:
	rm -rf .venv
