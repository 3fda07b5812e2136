# Everything starts here: `make serve`, `make test`, `make check`. Set-up happens by itself, once, in .venv
# (and in .clients, for clients of others to test against).
# Nothing outside this folder is changed; a system package that is missing is named, never installed.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help serve test check format clean

VENV := .venv
BIN := $(VENV)/bin
# Nothing is byte-compiled ahead: that is a third of the time, and what is used is compiled at its first import.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile

# One range with a CPU and a CUDA build; the same stands in pyproject.toml.
TORCH := torch>=2.11,<2.14
CPU_INDEX := https://download.pytorch.org/whl/cpu

help:
	@echo "make serve [ARGS=\"--port 9000\"]   start the daemon, then open the address that it prints"
	@echo "make test  [ARGS=\"-k page\"]       all tests"
	@echo "make check                        formatter, linter, types"
	@echo "make format                       format the code"
	@echo "make clean                        remove .venv, caches and builds"

serve: $(VENV)/.serve-stamp
	@exec $(BIN)/omnid serve $(ARGS)

test: $(VENV)/.dev-stamp
	@command -v chromium chromium-browser >/dev/null \
	  || echo "No Chromium: the page will not be tested. It is installed by: apt-get install -y chromium" >&2
	@$(BIN)/python tests/clients_apart/environments.py
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev-stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev-stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .clients build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ------------------------------------------------------------------------------------- set-up
# The stamps are the proof that an install went through; they are as old as the pyproject.toml it followed.

$(VENV)/.serve-stamp: pyproject.toml | $(VENV)/.torch-stamp
	@echo "Installing what the daemon needs ..."
	@$(PIP) -e ".[server,model]"
	@touch $@

$(VENV)/.dev-stamp: pyproject.toml | $(VENV)/.torch-stamp
	@echo "Installing what the daemon, its benchmarks and its tests need ..."
	@$(PIP) -e ".[server,model,bench,dev]"
	@touch $@ $(VENV)/.serve-stamp

# First and alone: silero-vad asks for any torch, and would bring gigabytes of CUDA to a machine without a GPU.
$(VENV)/.torch-stamp: | $(BIN)/python
	@echo "Installing PyTorch ..."
	@index=""; \
	if ! command -v nvidia-smi >/dev/null && [ -z "$${PIP_FIND_LINKS:-}" ]; then \
	  if $(BIN)/python -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=6)' $(CPU_INDEX)/torch/ 2>/dev/null; \
	  then index="--extra-index-url $(CPU_INDEX)"; \
	  else echo "$(CPU_INDEX) can not be reached; taking what the package index has." >&2; fi; \
	fi; \
	$(PIP) $$index "$(TORCH)"
	@touch $@

$(BIN)/python:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	  if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then \
	    if "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	      echo "Making $(VENV) with $$("$$python" --version) ..."; \
	      "$$python" -m venv $(VENV); exit; \
	    fi; \
	    version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	    missing="$${missing:-python$$version-venv}"; \
	  fi; \
	done; \
	if [ -n "$${missing:-}" ]; then echo "Python can not make environments. As root:  apt-get install -y $$missing" >&2; \
	else echo "Python 3.11, 3.12 or 3.13 is needed. As root:  apt-get install -y python3 python3-venv" >&2; fi; \
	exit 1
