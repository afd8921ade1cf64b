# Every command of this repository. `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON_ENV := .venv/bin
READY := .venv/.ready
ARGS ?=

.PHONY: help setup system check test real demo bench bench-drift soak docs assets clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Options of a command go in ARGS:  make demo ARGS='--duration 60 --seed 7'"

setup: $(READY) ## Make .venv and install the locked packages into it

$(READY): pyproject.toml uv.lock package-lock.json build_web.py .ci/setup
	@sh .ci/setup
	@touch $@

system: ## Install what the tests use from the system: mosquitto, chromium, postgresql, redis (as root, when missing)
	@sh .ci/system mosquitto chromium postgresql redis-server

check: setup ## Style, types and floors
	$(PYTHON_ENV)/ruff check .
	$(PYTHON_ENV)/ruff format --check .
	$(PYTHON_ENV)/mypy
	$(PYTHON_ENV)/lint-imports

test: setup system ## Every test
	@$(PYTHON_ENV)/python -m pytest -n logical --maxprocesses 4 --dist loadfile $(ARGS)

real: setup system ## Only the tests against real servers and a real browser
	@$(PYTHON_ENV)/python -m pytest -m "real or browser" $(ARGS)

demo: setup ## The press line, live in a browser; Ctrl-C ends it
	@sh .ci/system mosquitto
	@$(PYTHON_ENV)/boucle demo press $(ARGS)

bench: setup ## Run every benchmark and renew docs/figures.md
	@sh .ci/system mosquitto
	@$(PYTHON_ENV)/python -m bench.all $(ARGS)

bench-drift: setup ## Judge the simulated episodes again and renew docs/why/sensor-or-machine.md
	@$(PYTHON_ENV)/python -m bench.drift $(ARGS)

soak: setup ## Kill a running product a thousand times; no row lost, none doubled (ten minutes)
	@$(PYTHON_ENV)/python -m bench.soak $(ARGS)

docs: setup ## Renew the generated pages of docs/reference
	@$(PYTHON_ENV)/python docs/generate.py

assets: setup ## Bring in the browser libraries of the page, pinned and verified
	@$(PYTHON_ENV)/python build_web.py

clean: ## Remove everything that was made here
	rm -rf .venv build dist run .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
