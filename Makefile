# All targets use one .venv. It is made again only when a file requirements* changes.

PYTHON ?= python3
CORES ?= 2
SEED ?= 1
COUNT ?= 60
MUTATIONS ?= 1000
VENV := .venv
BIN := $(VENV)/bin
# One thread per test process, because the processes use all cores already.
# All tests of a file run in one process, because they share studies that take long to make.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(CORES) --dist loadfile

.PHONY: demo test test-slow test-slurm faults lint format bench site document lock venv clean

venv:
	@$(PYTHON) scripts/environment.py $(VENV)

demo: venv  ## run config.yaml: draw scenes, train, write the summary; takes less than 5 minutes
	$(BIN)/snakemake --cores $(CORES)
	@cat results/demo/summary.md results/demo/recommendation.md

test: venv  ## run all tests except the slow ones
	$(PYTEST) -m "not slow"

test-slow: venv  ## run the slow tests: whole studies, faults, damaged files (HOSTILE=10000)
	$(PYTEST) -m slow

faults: venv  ## kill jobs, fill disks (SEED=1 COUNT=60), change and delete files (MUTATIONS=1000)
	FAULTS_SEED=$(SEED) FAULTS_COUNT=$(COUNT) FAULTS_TABLE=docs/results/faults.csv \
	  FAULTS_MUTATIONS=$(MUTATIONS) FAULTS_DAMAGE=docs/results/damage.csv $(PYTEST) tests/faults

test-slurm: venv  ## run the demo on a real one-node SLURM with interruptions; must give the same bytes; needs root
	$(BIN)/python tests/slurm/run.py $(if $(TABLE),--table $(TABLE))

lint: venv
	$(BIN)/ruff check scripts tests benchmarks
	$(BIN)/ruff format --check scripts tests benchmarks
	$(BIN)/basedpyright
	PYTHONPATH=scripts $(BIN)/lint-imports
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint
	$(BIN)/python scripts/document.py --check
	$(BIN)/zensical build --strict

format: venv
	$(BIN)/ruff check --fix scripts tests benchmarks
	$(BIN)/ruff format scripts tests benchmarks
	$(BIN)/snakefmt Snakefile workflow

bench: venv  ## compare each time with its lower bound: prints a table, writes results/bench.csv
	$(BIN)/python benchmarks/table.py

site: venv  ## build the documentation site; then open site/index.html
	$(BIN)/zensical build --strict

document: venv  ## generate the schema, conda environment, reference pages and diagrams again
	$(BIN)/python scripts/document.py

# RENEW=--upgrade takes the newest versions; RENEW="--upgrade-package numpy" those of one package.
COMPILE = $(BIN)/uv pip compile --quiet --generate-hashes --custom-compile-command "make lock" \
  --python-version 3.11.5 --python-platform linux $(RENEW)
# CUDA packages are left to torch, which pins them itself.
CUDA = $$($(COMPILE) --no-annotate requirements-torch.txt | sed -nE 's/^((cuda|nvidia)-[^=]+|triton)==.*/\1/p')

lock: venv  ## write the lock files: the versions of pyproject.toml's ranges, the hashes of all their files
	$(COMPILE) --group build --output-file requirements-build.lock
	$(COMPILE) pyproject.toml --all-extras --output-file requirements.lock \
	  --constraint requirements-build.lock --constraint requirements-torch.txt \
	  $$(printf -- '--no-emit-package %s ' torch torchvision $(CUDA))

clean:  ## remove the environment, caches and the built site; keep results
	rm -rf $(VENV) .snakemake .pytest_cache .ruff_cache .hypothesis .import_linter_cache .cache site
