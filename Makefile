# The verbs of this repository. Each works on a fresh clone: the first one called sets up .venv.

PYTHON ?= python3
BIN := .venv/bin
STUDY ?= search_spaces/kernel_size.yaml

# Each process would otherwise compile every module anew where this variable is set, as in many containers: importing
# torch, Ray and this package takes twice as long then.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: study test check format bench torture setup lock clean

study: setup
	$(BIN)/python run_study.py $(STUDY)

# The tests write thousands of small databases, and a busy disk takes about 0.1 s to flush one: in memory where 4 GiB are free.
# Tests that run alone have the usual temporary folder, whose locks keep trainings and measurements of this machine apart.
MEMORY := $(shell df -P -k /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 4194304 {print "TMPDIR=/dev/shm"}')
# A process that has run its tests takes half of those that another has left.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
PARALLEL := --numprocesses auto --dist worksteal

test: setup
	$(MEMORY) $(PYTEST) $(PARALLEL) -m "not long and not alone" --hypothesis-profile brief

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --num-workers 2
	$(MEMORY) $(PYTEST) $(PARALLEL) -m "not alone"
	$(PYTEST) -m alone

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python -m harness.cli bench certainty
	$(BIN)/python -m harness.cli bench
	$(BIN)/python -m harness.cli bench dwconv
	$(BIN)/python -m harness.cli bench network replknet_31b --resolution 224 384

# Hours: drivers, workers and clusters are killed at random moments, 30 times each.
torture: setup
	$(BIN)/python -m harness.cli bench torture

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml harness/system/install.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11'; exit 2; }
	@$(PYTHON) harness/system/install.py
	@touch $@

# Resolves pyproject.toml for every platform and Python from 3.11 on.
lock: setup
	@$(PYTHON) harness/system/install.py compile --quiet --universal --upgrade --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--python-version 3.11 --extra dev pyproject.toml --output-file requirements.lock

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
