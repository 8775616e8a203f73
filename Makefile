# Everything runs in .venv, which every target sets up when it is missing or out of date.
# PYTHON       the interpreter that makes .venv (3.11 or newer)
# ARGS         options for pytest, for instance ARGS="-k options"
# WORKERS      processes that run the tests
# AG_NEWS_PATH  a folder with AG News's train.csv and test.csv, for make agnews
# TORCH_INDEX  an extra package index for torch, for instance https://download.pytorch.org/whl/cpu

PYTHON ?= python3
TORCH_INDEX ?=
ARGS ?=
WORKERS ?= 3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install -qq
REST := --constraint requirements.lock --editable '.[dev]'
TORCH := torch==2.13.0
UV := uv==0.13.9
# What the suite covers at least, in percent.
COVERAGE := --cov --cov-report term:skip-covered --cov-fail-under 85
# Of torch alone, which brings them itself where its build needs them.
CUDA := ^(nvidia-|cuda-|triton=)
SHELL_FILES = .ci/run $(wildcard *.sh demo/*.sh utils/jobs/*.sh)

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-ipa demo-slurm lock test coverage docs test-fast test-slurm test-gpu lint format bench bench-masking bench-predict bench-figures agnews registers clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv and install the dependencies

# torch goes first and alone: the package index decides between its CPU and CUDA builds. uv installs the rest ten times as
# fast as pip, which is asked where uv finds no index.
$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "Python 3.11 or newer is needed, $(PYTHON) is %d.%d: make PYTHON=python3.11 ..." % v[:2])'
	@echo "setting up $(VENV): some minutes, most of them for PyTorch"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) $(TORCH) $(UV) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	@$(BIN)/uv pip install --quiet --python $(BIN)/python $(REST) || $(PIP) $(REST)
	@touch $@

lock: ## write requirements.lock anew: the versions of everything that pyproject.toml asks for
	$(BIN)/uv pip compile --quiet --all-extras --universal --python-version 3.11 --no-annotate --no-header \
	    --no-emit-package torch pyproject.toml | grep -Ev '$(CUDA)' > requirements.lock.new
	mv requirements.lock.new requirements.lock

demo: $(READY) ## fine-tune, evaluate and draw the figures on the embedded corpus
	PATH="$(CURDIR)/$(BIN):$$PATH" bash demo/run.sh

demo-ipa: $(READY) ## build the small nanoGPT models of config/ipa-models.json, for texts and for phonemes
	$(BIN)/python -m demo.nanogpt demo/checkpoints

demo-slurm: $(READY) ## the same as job arrays on a Slurm of two nodes, started on this machine for it
	PATH="$(CURDIR)/$(BIN):$$PATH" bash demo/slurm.sh

test: $(READY) ## run the whole test suite
	$(BIN)/python -m pytest --numprocesses $(WORKERS) $(ARGS)

coverage: $(READY) ## run it and say what part of utils/ and the scripts it covers; a fifth slower
	$(BIN)/python -m pytest --numprocesses $(WORKERS) $(COVERAGE) $(ARGS)

docs: $(READY) ## build the site of docs/ in site/, for a browser, without network
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site  site/index.html"

test-fast: $(READY) ## run what needs no training, no Slurm and no browser: under a minute on two cores
	$(BIN)/python -m pytest --numprocesses $(WORKERS) -m "not slow" --ignore tests/slurm $(ARGS)

test-slurm: $(READY) ## run the tests on a real Slurm alone (needs slurm-wlm and munge)
	$(BIN)/python -m pytest tests/slurm $(ARGS)

test-gpu: $(READY) ## run the tests that need a GPU
	$(BIN)/python -m pytest tests/gpu $(ARGS)

lint: $(READY) ## check style, types, layers and shell files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	shellcheck --external-sources $(SHELL_FILES)

format: $(READY) ## format the Python files
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## measure speed against an expert's Trainer and the earlier loop (needs CORPUS_PATH)
	$(BIN)/python benchmarks/finetune_throughput.py

bench-masking: $(READY) ## measure the token-masking functions against the training steps that they prepare
	$(BIN)/python benchmarks/masking_cost.py

bench-predict: $(READY) ## measure predict.py against a pipeline and a loop over sorted batches (needs CORPUS_PATH)
	$(BIN)/python benchmarks/predict_throughput.py

bench-figures: $(READY) ## measure how long the figures of 42 models take
	$(BIN)/python benchmarks/figures.py

agnews: $(READY) ## compare full fine-tuning, LoRA and a baseline on AG News (needs AG_NEWS_PATH; under 40 minutes)
	@test -n "$(AG_NEWS_PATH)" || { echo "AG_NEWS_PATH must name a folder with train.csv and test.csv of AG News" >&2; exit 2; }
	$(BIN)/python -m demo.minilm demo/build/minilm.json
	MODEL_REGISTRY=demo/build/minilm.json $(BIN)/python run_pipeline.py config/agnews-minilm.yaml --dataset "$(AG_NEWS_PATH)"

registers: $(READY) ## fine-tune and evaluate multilingual-e5-small on real registers (needs CORPUS_PATH; hours on two cores)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash demo/registers.sh

clean: ## remove caches and the demo's files, never outputs/ or models/
	rm -rf demo/build demo/checkpoints .cache .pytest_cache .ruff_cache .hypothesis .mypy_cache .import_linter_cache .coverage site
