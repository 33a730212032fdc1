# Each target is a command or two that you can copy; `make help` lists them.
# Only Python 3.11 or newer has to be there: `make sweep` and `make test` first set up .venv if they must.

PYTHON ?= python3
# Files start in the order of tests/conftest.py, the longest first: no worker waits long at the end.
PYTEST_ARGS ?= -n auto --dist loadscope --no-loadscope-reorder
# make quick ONLY=omsd: one system
ONLY ?=
PY := .venv/bin/python
LINT = $(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m pyright
# What `make quick` tests: the contract by tracing, rules of the house, units that compile little
QUICK := tests/contract/test_contract.py \
	$(patsubst %,tests/architecture/test_%.py,help levels lines registry shape_checks style ways_out) \
	$(patsubst %,tests/data/test_%.py,arrays dataset ends windows) \
	$(patsubst %,tests/results/test_%.py,intervals statistics tables)
STAMP := .venv/.installed
DOCS := .venv/.docs

.DEFAULT_GOAL := help
.PHONY: help setup sweep test quick test-long faults lint docs bench bench-peers bench-gpu card clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/make \1	\2/' | expand -t 16

setup: $(STAMP) ## Make .venv and install the package, editable, in the tested versions

sweep: $(STAMP) ## The main job: every default system on the built-in tasks, 16 seeds; run again to resume
	$(PY) -m experiments.sweep --seeds 16 --resume

test: $(STAMP) ## Lint, and all tests but the long ones beside it, on the CPU
	@began=$$(date +%s); ($(LINT)) & lint=$$!; \
	JAX_PLATFORMS=cpu $(PY) -m pytest $(PYTEST_ARGS); code=$$?; wait $$lint || code=$$?; \
	echo "make test took $$(($$(date +%s) - began)) s, lint and types included"; exit $$code

quick: $(STAMP) ## Lint, types and what needs no training; ONLY=omsd: one system and its numbers
ifeq ($(ONLY),)
	@began=$$(date +%s); ($(LINT)) & lint=$$!; \
	JAX_PLATFORMS=cpu $(PY) -m pytest -n auto --dist loadgroup -k 'by_tracing or not test_contract' $(QUICK); \
	code=$$?; wait $$lint || code=$$?; \
	echo "make quick took $$(($$(date +%s) - began)) s, lint and types included"; exit $$code
else
	JAX_PLATFORMS=cpu $(PY) -m pytest -n 2 --dist loadgroup --only $(ONLY) tests/contract/test_contract.py
endif

test-long: $(DOCS) ## The tests that take minutes
	JAX_PLATFORMS=cpu $(PY) -m pytest -m long

faults: $(STAMP) ## 200 kills, 50 signals, bit flips, full disks, ... : an hour; FAULTS_ARGS="--kills 20"
	JAX_PLATFORMS=cpu $(PY) tests/faults/campaign.py runs/faults --write runs/faults/table.md $(FAULTS_ARGS)

lint: $(STAMP) ## Style, format and types
	$(LINT)

docs: $(DOCS) ## The pages as HTML, in build/docs; a warning is an error
	JAX_PLATFORMS=cpu $(PY) -m sphinx -q -n -W --keep-going -d build/doctrees docs build/docs
	@echo "open build/docs/index.html"

bench: $(STAMP) ## All benchmarks on the CPU: lines, tables, targets and pictures in runs/bench
	JAX_PLATFORMS=cpu $(PY) -m benchmarks $(BENCH_ARGS)

bench-peers: $(STAMP) ## PyTorch and mpe2 into .venv (gigabytes), then what is measured beside them
	$(PY) -m pip install -q -c constraints.txt -e '.[bench]'
	JAX_PLATFORMS=cpu $(PY) -m benchmarks --parts peers environments

bench-gpu: $(STAMP) ## The accelerator's benchmarks and targets in runs/bench-gpu; JAX must see the card
	$(PY) -m benchmarks --card --out runs/bench-gpu $(BENCH_ARGS)

card: $(STAMP) ## What only a card can train, cell by cell; run again to continue; CARD_ARGS="--minutes 30"
	$(PY) -m benchmarks.card $(CARD_ARGS)

clean: ## Remove the environment and all caches; runs/ stays
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv installs the same versions in a third of pip's time. It does not read pip's settings: where they name an index of their own or
# none, and where uv fails, pip installs. `make setup UV=false` leaves uv out.
PIP = $(PY) -m pip install -q --no-compile -c constraints.txt
UV = $(PY) -m uv pip install -q --system-certs --python $(PY) -c constraints.txt
OWN_INDEX = $(PY) -m pip config list | grep -qE '[.](index-url|no-index|proxy)='
INSTALL = echo "installing $(EXTRAS) into .venv"; \
	(! $(OWN_INDEX) && $(PIP) uv && $(UV) -e '$(EXTRAS)') || (echo "pip installs"; $(PIP) -e '$(EXTRAS)')

# The stamp is removed before pip starts and written after it ends: an install that was cut short is done again,
# in a new environment. A change of the versions updates the environment that is there.
$(STAMP): EXTRAS = .[plot,dev]
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit("jaxomarl needs Python 3.11 or newer; $(PYTHON) is " + v + ". Try: make PYTHON=python3.12 $(MAKECMDGOALS)" if sys.version_info < (3, 11) else 0)'
	@test -f $@ || $(PYTHON) -m venv --clear .venv
	@rm -f $@
	@$(INSTALL)
	@touch $@

# What the pages and the notebook need besides.
$(DOCS): EXTRAS = .[docs]
$(DOCS): $(STAMP)
	@$(INSTALL)
	@touch $@
