# Every target makes the environment it needs in .venv, once; what it is built of changing makes it anew.
# PYTHON chooses the interpreter, VENV the folder, TORCH what is installed as PyTorch, XGBOOST as XGBoost; RAY= leaves
# Ray out of test-slow.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
XGBOOST ?= xgboost-cpu==3.2.0
RAY ?= ray
FUZZ_SECONDS ?= 600
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --root-user-action=ignore --constraint constraints.txt
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile
SOURCES := src tests benchmarks examples docs conftest.py
BUILT_OF := pyproject.toml constraints.txt hatch_build.py src/umbel/aggregation/_loops.c

.DELETE_ON_ERROR:
.PHONY: help demo demo-network test test-slow test-ray lint format types bench docs fuzz clean

help:
	@echo 'make demo       train one model over six real sites (seconds, once installed)'
	@echo 'make demo-network  the same app over a server and nodes, with the server killed on the way'
	@echo 'make test       every test but the slow ones; make test-slow: those; make test-ray: those of the engine over Ray'
	@echo 'make lint       formatting and lint rules; make format: apply them; make types: mypy'
	@echo 'make bench      every figure beside its target'
	@echo 'make docs       the documentation as HTML in site/'
	@echo 'make fuzz       each fuzz target for FUZZ_SECONDS (default $(FUZZ_SECONDS))'
	@echo 'make clean      remove environments and everything that was built'

demo: $(VENV)/.demo
	@$(BIN)/umbel run examples/rand_health

demo-network: $(VENV)/.demo
	@$(BIN)/python examples/network/demo.py

test: $(VENV)/.dev
	$(PYTEST) -m 'not slow' $(PYTEST_ARGS)

test-slow: $(VENV)/.dev $(if $(RAY),test-ray)
	$(PYTEST) -m slow $(PYTEST_ARGS)

# Ray and what it brings, 400 MB, live in an environment of their own.
test-ray: $(VENV)-ray/.ray
	$(VENV)-ray/bin/python -m pytest tests/conformance/test_ray_*.py docs/howto/engines.md $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/run.py

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -d $(VENV)/doctrees docs site

fuzz: $(VENV)/.fuzz
	$(BIN)/python tests/fuzz/run.py $(FUZZ_SECONDS)

clean:
	rm -rf $(VENV) $(VENV)-ray .bench site build dist runs .pytest_cache .mypy_cache .ruff_cache .hypothesis \
	  src/umbel/aggregation/_loops.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that works is kept, whoever made it. Debian ships `venv` without `ensurepip`; pip, which it packages
# apart, can fill an environment from outside.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'Umbel needs Python 3.11 or newer; name one: make PYTHON=python3.11' >&2; exit 1; }
	@$(PIP) --version >/dev/null 2>&1 \
	  || { rm -rf $(VENV) && $(PYTHON) -m venv $(VENV) >/dev/null 2>&1; } \
	  || { rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV) \
	       && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; } \
	  || { echo 'no environment could be made; install pip (Debian: python3-pip) or venv (python3-venv)' >&2; exit 1; }
	@touch $@

$(VENV)/.demo: $(VENV)/.made $(BUILT_OF)
	@echo 'installing Umbel and the data of the demo into $(VENV) (once)'
	@$(INSTALL) --editable '.[examples]'
	@touch $@

# PyTorch first and exact: a range would bring the newest build and gigabytes of accelerator libraries.
$(VENV)/.dev: $(VENV)/.made $(BUILT_OF)
	@echo 'installing Umbel and what its tests need into $(VENV) (once)'
	@$(if $(TORCH),$(INSTALL) $(TORCH))
	@$(INSTALL) --editable '.[dev,examples]'
	@$(if $(XGBOOST),$(INSTALL) --no-deps $(XGBOOST))
	@touch $@

$(VENV)/.docs: $(VENV)/.made $(BUILT_OF)
	@$(INSTALL) --editable '.[docs]'
	@touch $@

$(VENV)/.fuzz: $(VENV)/.made $(BUILT_OF)
	@$(INSTALL) --editable '.[fuzz]'
	@touch $@

$(VENV)-ray/.ray: $(BUILT_OF)
	@echo 'installing Umbel and Ray into $(VENV)-ray (once)'
	@$(MAKE) --no-print-directory VENV=$(VENV)-ray $(VENV)-ray/.made
	@$(VENV)-ray/bin/python -m pip --disable-pip-version-check install --quiet --root-user-action=ignore \
	  --constraint constraints.txt --editable '.[ray]' pytest pytest-xdist hypothesis sybil
	@touch $@
