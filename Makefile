# The only list of commands: `make help` prints it.
# Variables: ENGINE=auto|docker|process  BASE_IMAGE=name  PAIRS=2  ARGS="--json"  PYTHON=python3.12
#            CHALLENGE=learn2reg2022 or a YAML file  DATA=test  GROUND_TRUTH=folder  WORKERS=2 (tests)

SHELL := /bin/bash
PYTHON ?= python3
ENGINE ?= auto
BASE_IMAGE ?=
PAIRS ?= 2
CHALLENGE ?=
DATA ?=
GROUND_TRUTH ?=
WORKERS ?= 2
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
HARNESS := $(BIN)/harness
UV := $(shell command -v uv 2>/dev/null)
BASE_OPTION := $(if $(BASE_IMAGE),--base-image '$(BASE_IMAGE)')
WHAT := $(if $(CHALLENGE),--challenge '$(CHALLENGE)') $(if $(DATA),--data '$(DATA)')

.DEFAULT_GOAL := help
.PHONY: help build build-evaluation run check pack test lint format data doctor bench base-image clean

help: ## Print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

build: $(VENV)/.method ## Set up everything and build the submission's image (ENGINE=, BASE_IMAGE=)
	@$(HARNESS) build --engine $(ENGINE) $(BASE_OPTION)

run: $(VENV)/.method ## Dry-run the submission on test/: fields to submission/, the record to runs/
	@$(HARNESS) phantom --if-empty --pairs $(PAIRS) $(WHAT)
	@$(HARNESS) run --engine $(ENGINE) $(BASE_OPTION) $(WHAT) $(ARGS)

build-evaluation: ## Build the image that evaluates fields (GROUND_TRUTH=folder to put the truth into it)
	@scripts/evaluation-context '$(GROUND_TRUTH)' | docker build -f evaluation.Dockerfile \
	  -t l2r_evaluation $(if $(BASE_IMAGE),--build-arg BASE_IMAGE='$(BASE_IMAGE)') -

check: $(VENV)/.run ## Say what is wrong with the fields in submission/, before you upload them
	@$(HARNESS) check $(WHAT) $(ARGS)

pack: $(VENV)/.run ## Make submission.zip of the fields in submission/, if they have no errors
	@$(HARNESS) pack $(WHAT) $(ARGS)

data: $(VENV)/.run ## Make phantom data in test/ and its truth in truth/ (PAIRS=, CHALLENGE=, DATA=)
	@$(HARNESS) phantom --pairs $(PAIRS) $(WHAT)

test: $(VENV)/.test ## Run the tests; those without their engine, browser or GPU skip, with a reason
	@$(BIN)/pytest -n $(WORKERS) $(ARGS)

lint: $(VENV)/.test ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.test ## Put the code into shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.test ## Run the benchmarks; each prints its table
	@for program in bench/*.py; do $(BIN)/python $$program || exit; done

doctor: $(VENV)/.run ## Say what this machine has for timed runs, and what it lacks
	@$(HARNESS) doctor

base-image: ## Make the base image from Debian packages, for sites without an image registry
	@scripts/base-image $(ARGS)

clean: ## Remove what the commands made: environment, caches, runs, fields (not test/ or truth/)
	@rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@rm -f submission.zip
	@find submission -mindepth 1 ! -name README.md -delete
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment. Each stamp is newer than what it was made from, so up to date means silent.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Python 3.11 or newer is needed; name one with PYTHON=python3.12" >&2; exit 1; }
	@echo "setting up $(VENV)/, once" >&2
ifneq ($(UV),)
	@$(UV) venv --quiet --python $(PYTHON) $(VENV)
else
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "Python's venv module is needed (Debian: apt-get install python3-venv), or uv" >&2; exit 1; }
endif

ifneq ($(UV),)
INSTALL = $(UV) pip install --quiet --python $(BIN)/python
else
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
endif

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing the harness" >&2
	@$(INSTALL) --constraint constraints.txt --editable .
# Compiled now: where Python may not write (PYTHONDONTWRITEBYTECODE) each start would compile it all.
	@$(BIN)/python -m compileall -q harness
	@touch $@

# The method's own requirements, for the process engine; the image installs them for itself.
$(VENV)/.method: method/requirements.txt $(VENV)/.run
ifneq ($(ENGINE),docker)
	@$(INSTALL) --requirement method/requirements.txt || \
	  echo "method/requirements.txt: not installed on this machine, only in the container" >&2
	@touch $@
endif

$(VENV)/.test: $(VENV)/.run $(VENV)/.method
	@echo "installing what the tests need" >&2
	@$(INSTALL) --constraint constraints.txt --editable '.[test,report]'
	@touch $@
