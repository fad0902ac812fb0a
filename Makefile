# From a fresh clone, with python3 (3.11 or later) and make alone:  make check

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
DEMO ?= $(PY) -m stillwatch demo

.PHONY: help check lint types imports test test-api test-spark test-litellm test-protect format demo gateway models clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

check: lint types imports test test-api test-spark test-litellm test-protect  ## all that must hold before a change is merged

lint: $(READY)  ## style and format
	$(PY) -m ruff check
	$(PY) -m ruff format --check

types: $(READY)  ## types
	$(PY) -m mypy

imports: $(READY)  ## imports go down only
	$(PY) -m pytest tests/test_imports.py

test: $(READY)  ## tests on the embedded engine; finds PostgreSQL, or gets it
	VENV=$(VENV) .ci/with-postgres $(PY) -m pytest -m "not spark and not litellm and not protect"

test-api: $(READY)  ## every route as its OpenAPI document says, tried by schemathesis, which it gets
	PYTHON=$(PYTHON) .ci/with-schemathesis $(PY) -m pytest -m api

test-spark: $(READY)  ## tests on Spark; finds Java, or gets it
	VENV=$(VENV) .ci/with-java $(PY) -m pytest -m spark

# A lane of its own: the proxy alone is 116 packages.
test-litellm: $(READY)  ## tests behind a real LiteLLM proxy, which it gets
	PYTHON=$(PYTHON) .ci/with-litellm $(PY) -m pytest -m litellm

test-protect: $(READY)  ## watermarks and proof on small models trained on the spot; gets PyTorch
	VENV=$(VENV) .ci/with-torch $(PY) -m pytest -m protect

format: $(READY)  ## put the code into format
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

# Public prompts to train on and to be judged by: one Parquet file a source (docs/model-card.md).
PROMPTS ?= ../shared/data/prompts
MODELS := .venv-models

models: $(MODELS)/.ready  ## train the reader anew from PROMPTS, and measure it
	PYTHONPATH=src $(MODELS)/bin/python -m training fit $(PROMPTS)
	PYTHONPATH=src $(MODELS)/bin/python -m training.floors $(PROMPTS)
	PYTHONPATH=src $(MODELS)/bin/python -m training card $(PROMPTS)

$(MODELS)/.ready: training/requirements.txt
	@.ci/venv $(PYTHON) $(MODELS)
	$(MODELS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement training/requirements.txt
	@touch $@

# QUICK=--quick ends by itself.
gateway: $(READY)  ## serve beside a real LiteLLM proxy, which it gets: traffic, a campaign, and what is done about it
	PYTHON=$(PYTHON) .ci/with-litellm $(PY) -m stillwatch gateway-demo $(QUICK)

demo: $(READY)  ## a log with planted campaigns, judged, and its report
	$(DEMO)

clean:  ## remove what make has made
	rm -rf $(VENV) $(MODELS) .venv-litellm .venv-schemathesis build dist src/*.egg-info .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Made anew when pyproject.toml changes.
$(READY): pyproject.toml
	@.ci/venv $(PYTHON) $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
