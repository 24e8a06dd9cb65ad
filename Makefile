# The workshop. `make` alone tells what there is.
#
# Works from a path with spaces (every path here is relative) and with GNU make 3.81, as macOS
# has it. Needs a Python from 3.11 to 3.14; requirements/install.sh brings the rest into .venv.

SHELL := /bin/sh
.SUFFIXES:
.DEFAULT_GOAL := help
.PHONY: help demo install check format test lambdas bench docs lock clean

# What is set for other work on this machine must not leak into this.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONDONTWRITEBYTECODE PYTHONOPTIMIZE

BIN := .venv/bin
ARGS ?=
PROJECT ?= .
LAMBDA_PYTHON ?= 3.12

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

demo: install ## three days of real flights, and four deliveries that are refused (ARGS=--cloud)
	@$(BIN)/lakewarden demo $(ARGS)

install: ## everything into .venv, pinned by hash
	@PYTHON='$(PYTHON)' sh requirements/install.sh

check: install ## format, lint, types, architecture, fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/unit $(ARGS)

format: install ## put the code in order
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: install ## all tests: unit, contract and the real stack (ARGS="-k lake" for some)
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile $(ARGS)

lambdas: install ## the zip of the Lambda functions (PROJECT=DIR; LAMBDA_PYTHON=3.12)
	@PATH="$$PATH:.tools/bin"; set -e; \
	rm -rf build/lambda-packages; \
	uv pip install --quiet --target build/lambda-packages --no-deps --only-binary :all: \
		--require-hashes --python-platform x86_64-manylinux2014 --python-version $(LAMBDA_PYTHON) \
		-r requirements/lambda.txt; \
	$(BIN)/python -m lakewarden.stepfunctions.bundle --packages build/lambda-packages \
		--project '$(PROJECT)' --out build/lambda.zip

bench: install ## what is measured, against what
	$(BIN)/python -m benchmarks $(ARGS)

docs: install ## the generated pages, and the outputs that the others show (ARGS=pages: the former)
	@$(BIN)/python -m docs $(ARGS)

# One file for every platform and every Python that we support. Pins stay where they still fit;
# `make lock UPGRADE=1` takes the newest of everything.
COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)

lock: install ## compile requirements/*.txt from pyproject.toml (UPGRADE=1 for the newest)
	@PATH="$$PATH:.tools/bin"; set -e; \
	$(COMPILE) pyproject.toml --extra postgres -o requirements/runtime.txt; \
	$(COMPILE) pyproject.toml --all-extras --group dev -c requirements/runtime.txt -o requirements/dev.txt; \
	$(COMPILE) --group lambda -c requirements/runtime.txt -o requirements/lambda.txt; \
	$(COMPILE) --group build -c requirements/dev.txt -o requirements/build.txt; \
	$(COMPILE) --no-deps --group aws-cli -o requirements/aws-cli.txt; \
	$(COMPILE) --group installer -o requirements/uv.txt; \
	$(COMPILE) src/lakewarden/local/control/ministack.in -o src/lakewarden/local/control/ministack.txt

clean: ## remove what make made; data under .lakewarden stay
	rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf build dist src/*.egg-info
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
