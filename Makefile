# make demo, make test: all in one .venv, made once, remade only when requirements.lock changes.

PYTHON ?= python3
CORES ?= 2
SEED ?= 1
COUNT ?= 60
VENV := .venv
BIN := $(VENV)/bin
# One thread a test process: more would only wait for each other.
# A file's tests stay in one process: they share studies that take their time.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(CORES) --dist loadfile

.PHONY: demo test test-slow test-slurm faults lint format bench document lock venv clean

venv:
	@$(PYTHON) scripts/environment.py $(VENV) requirements.lock

demo: venv  ## the embedded default: from drawn scenes to the summary, under 5 minutes
	$(BIN)/snakemake --cores $(CORES)
	@cat results/demo/summary.md

test: venv  ## every test but the slow ones
	$(PYTEST) -m "not slow"

test-slow: venv  ## the slow ones: whole studies, faults
	$(PYTEST) -m slow

faults: venv  ## SEED=1 COUNT=60: killed anywhere, disks full, files damaged; all ends in the same bytes
	FAULTS_SEED=$(SEED) FAULTS_COUNT=$(COUNT) FAULTS_TABLE=docs/results/faults.csv $(PYTEST) tests/faults

test-slurm: venv  ## the demo on a real SLURM of one node, disturbed: all goes on, same bytes; root
	$(BIN)/python tests/slurm/run.py $(if $(TABLE),--table $(TABLE))

lint: venv
	$(BIN)/ruff check scripts tests benchmarks
	$(BIN)/ruff format --check scripts tests benchmarks
	$(BIN)/basedpyright
	PYTHONPATH=scripts $(BIN)/lint-imports
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint
	$(BIN)/python scripts/document.py --check

format: venv
	$(BIN)/ruff check --fix scripts tests benchmarks
	$(BIN)/ruff format scripts tests benchmarks
	$(BIN)/snakefmt Snakefile workflow

bench: venv  ## every figure beside its lower bound, one table; results/bench.csv
	$(BIN)/python benchmarks/table.py

document: venv  ## what is generated: schema, conda environment, tables of the README
	$(BIN)/python scripts/document.py

lock:  ## requirements.lock anew, from the ranges of pyproject.toml
	rm -rf .lock-venv && $(PYTHON) -m venv .lock-venv
	.lock-venv/bin/pip install --quiet torch==2.14.1 torchvision==0.29.1
	.lock-venv/bin/pip install --quiet ".[demo,workflow,export,weights,dev]"
	(echo "# Made by 'make lock'. CUDA packages are left to torch, which pins them itself."; \
	 .lock-venv/bin/pip freeze --exclude dst-cbc | grep -vE "^(nvidia|cuda|triton)") > requirements.lock
	rm -rf .lock-venv build scripts/*.egg-info

clean:  ## everything but results
	rm -rf $(VENV) .snakemake .pytest_cache .ruff_cache .hypothesis .import_linter_cache
