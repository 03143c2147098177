# `make test` and `make demo` do all the set-up on a fresh machine: Linux, Python 3.11 or newer, pip.
# The set-up is done once, in .venv, and again when pyproject.toml or .ci/constraints.txt change.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
INPUTS := pyproject.toml .ci/constraints.txt

.PHONY: setup test conformance baseline demo lint format clean

setup: $(VENV)/.installed

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile

# All of ONNX's backend tests (`make test` runs a part of them), and docs/conformance.md.
conformance: $(VENV)/.installed-test
	$(BIN)/python tests/conformance/report.py

# tests/baseline anew, for a change of programs or of their code that is meant (docs/architecture.md, "The frozen baseline").
baseline: $(VENV)/.installed-test
	$(BIN)/python tests/baseline/regenerate.py

demo: $(VENV)/.installed
	$(BIN)/python experiments/demo.py

lint: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	.ci/check_wheel

format: $(VENV)/.installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

# Debian splits ensurepip off into python3-venv; without it the pip of the system installs the first pip of the environment.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "ansor-py needs Python 3.11 or newer; '$(PYTHON)' is older. Name another one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null || \
	  { echo "libgomp.so.1 is missing: LightGBM needs OpenMP's runtime. Remedy: apt-get install libgomp1" >&2; exit 1; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || \
	  { rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV) && \
	    $(PYTHON) -m pip --disable-pip-version-check --python $(VENV)/bin/python install --quiet pip; }

$(VENV)/.installed: $(BIN)/python $(INPUTS)
	$(PIP) install --quiet -c .ci/constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) install --quiet -c .ci/constraints.txt -e '.[test]'
	@touch $@
