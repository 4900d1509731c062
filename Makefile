# The two commands of the README work from a bare clone: each sets up what it needs.
PYTHON  ?= python3
DATASET ?= demo
ARGS    ?=
JOBS    ?= 2

VENV    := .venv
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready
DEV     := $(VENV)/.ready-dev

FLAGS = --dataset '$(DATASET)' \
	$(if $(MODEL),--model '$(MODEL)') \
	$(if $(CHECKPOINT),--checkpoint '$(CHECKPOINT)') \
	$(if $(DATA_ROOT),--data-root '$(DATA_ROOT)') \
	$(if $(OUT),--out '$(OUT)') \
	$(if $(DEVICE),--device '$(DEVICE)') \
	$(ARGS)

TRAIN_FLAGS = --dataset '$(DATASET)' \
	$(if $(MODEL),--model '$(MODEL)') \
	$(foreach root,$(DATA_ROOT),--data-root $(root)) \
	$(if $(OUT),--out '$(OUT)') \
	$(if $(DEVICE),--device '$(DEVICE)') \
	$(ARGS)

.PHONY: help setup audit certify train test lint type check bench docs messages clean
.DEFAULT_GOAL := help

help: ## Show this list
	@echo "make TARGET [VARIABLE=value …]"
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  \1|\2/' | column -t -s '|'
	@echo
	@echo "Variables: DATASET=demo|cifar10|coco|folder:PATH|…  MODEL  CHECKPOINT  DATA_ROOT  OUT  DEVICE"
	@echo "           ARGS='more flags' (see: $(BIN)/audit run --help)  PYTHON=python3.11"

setup: $(READY) ## Create .venv with pinned dependencies and this package

audit: $(READY) ## Audit a classifier: make audit DATASET=cifar10 DATA_ROOT=data
	@$(BIN)/audit run $(FLAGS)

certify: $(READY) ## Plant shortcuts, train on them, see what the audit finds
	@$(BIN)/audit certify $(FLAGS)

train: $(READY) ## Train a classifier: make train DATASET=cifar10 MODEL=cnn DATA_ROOT=data
	@$(BIN)/audit train $(TRAIN_FLAGS)

test: $(DEV) ## Run all tests, JOBS=2 at a time
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadscope --no-loadscope-reorder $(ARGS)

lint: $(DEV) ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(DEV) ## Check types
	$(BIN)/mypy

check: lint type test ## Everything that CI runs

bench: $(DEV) ## Measure speed and memory beside everyone: ONLY=step,peers,… QUICK=1 CIFAR=folder of cifar10/ DEVICE=cuda
	$(BIN)/python -m benchmarks.everything $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(if $(DEVICE),--device '$(DEVICE)') \
		$(if $(CIFAR),--data-root '$(CIFAR)') $(if $(CHECKPOINT),--checkpoint '$(CHECKPOINT)')
	$(if $(DATA_ROOT),$(BIN)/python -m benchmarks.masks --data $(DATA_ROOT) $(if $(COCO),--coco $(COCO)))
	$(if $(LABELS),$(BIN)/python -m benchmarks.labels --data-root $(LABELS))

docs: $(DEV) ## Rewrite the tables of columns in reports/README.md
	$(BIN)/python -m audit.report.columns reports/README.md

messages: $(DEV) ## Bring the report's catalogues up to date with its texts, and compile them
	$(BIN)/python -m tests.report.messages

clean: ## Remove what was built; reports and weights stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; name one with PYTHON=…" >&2; exit 2; }
	@echo "setting up $(VENV), once; torch is large"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(DEV): $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
