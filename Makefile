# make frontier   install into .venv and make results/frontier.pdf
# make sweep      compare recipes on the validation split, with a CONFIG that has a block `sweep`
# make figures    draw every figure and table, the verdicts and the report again from STUDY's tables
# make test       install and run the tests
# make test-wheel build the wheel, install it, run the quick start and plan a study with it
# make test-saelens run the tests in SAELens, SAEDashboard, sparsify and dictionary_learning, installed apart
# make test-suite, test-slurm-here   the two that `make test` runs: on two cores, and on SLURM where there is one
# make saebench   measure autoencoders of the default run's results with SAEBench too (docs/howto/saebench.md)
# make test-slurm run a study on a SLURM of one node: Debian packages slurm-wlm and munge, and root
# make lint       style, types and the workflow's own checks
# make docs       build the documentation into site/
# make audit      ask for known holes in the pinned dependencies; needs the network
# make clean      remove results
#
# PYTHON=...       interpreter to make .venv with, 3.11 or newer
# TORCH_INDEX=...  package index for torch alone, for example that of its CPU-only wheels
# CONFIG=...       another configuration than config.yaml
# STUDY=...        what `make figures` reads: a study's folder, or results
# CORES=...        how many cores the workflow may use
# PROFILE=...      a Snakemake profile, for a cluster: profiles/slurm (docs/cluster.md)

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
TORCH_INDEX ?=
CONFIG ?= config.yaml
CORES ?= all
PROFILE ?=
STUDY ?= studies/smollm2-135m

BIN := .venv/bin
LOCK := requirements.lock
TORCH := $(shell sed -n 's/^torch==/torch==/p' $(LOCK))
HASH := $(shell cat $(LOCK) pyproject.toml | { sha256sum 2>/dev/null || shasum -a 256; } | cut -c 1-12)
# Named by content: a new checkout does not reinstall, a new lock does.
STAMP := .venv/installed-$(HASH)
TEST_STAMP := .venv/tests-$(HASH)
# Not compiled at once: that takes longer than the download, and Python compiles what it imports.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
TORCH_PIP = $(PIP) $(if $(TORCH_INDEX),--index-url "$$TORCH_INDEX")
WHEEL_PIP := $(PIP:$(BIN)/%=.venv/wheel/env/bin/%)

# What `make saebench` compares.
JUDGED := results/smollm2-135m-instruct
TRAINED := {expander-tied/n4608_d7,expander-tied/n4608_d30,dense-tied/n240_d576}_k64_int8_seed0

# Stops with a clear word where another run works in this folder; followed by the files to make.
RUN = $(BIN)/python workflow/start.py --configfile "$$CONFIG" $(if $(PROFILE),--profile "$$PROFILE",--cores "$$CORES")

# The shell has what was given, and folders, as variables of its own: no quote or blank in them is read as shell.
export PYTHON TORCH_INDEX CONFIG CORES PROFILE STUDY
# Container images often set it. Each job would then compile again what it imports: 3 to 5 seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: frontier sweep figures test test-suite test-slurm-here test-wheel test-saelens saebench test-slurm
.PHONY: lint docs install audit clean

frontier: $(STAMP)
	@$(RUN) results/frontier.pdf

sweep: $(STAMP)
	@$(RUN) results/sweep/sweep.pdf

figures: $(STAMP)
	@$(BIN)/python -m expander_sae.report "$$STUDY"

test: test-suite test-slurm-here
	@echo 'make test-saelens runs those in SAELens, sparsify and dictionary_learning'

test-suite: $(TEST_STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -m 'not slurm and not saelens' --durations=20 --durations-min=5

test-slurm-here: $(TEST_STAMP)
	@if command -v sbatch >/dev/null && [ "$$(id -u)" = 0 ]; then $(MAKE) --no-print-directory test-slurm; \
	else echo 'not run: those on SLURM (make test-slurm), which need sbatch and root'; fi

# As a user of the library alone has it, no extra, nothing of this checkout; then with the extra that brings
# the workflow.
test-wheel: $(STAMP)
	@rm -rf .venv/wheel
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir .venv/wheel .
	@"$$PYTHON" -m venv .venv/wheel/env
	@$(WHEEL_PIP) --constraint $(LOCK) $(if $(TORCH_INDEX),--index-url "$$TORCH_INDEX") $(TORCH)
	@$(WHEEL_PIP) --constraint $(LOCK) .venv/wheel/*.whl
	.venv/wheel/env/bin/python -I tests/wheel.py
	@wheel=$$(ls .venv/wheel/*.whl); \
	$(WHEEL_PIP) --constraint $(LOCK) "$$wheel[workflow]"
	.venv/wheel/env/bin/python -I tests/wheel.py workflow

test-saelens: .venv/saelens/installed
	PYTHONPATH="$$PWD/.venv/saelens" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m saelens tests/interop tests/docs/test_python.py

.venv/saelens/installed: requirements-saelens.lock | $(TEST_STAMP)
	@rm -rf .venv/saelens
	@$(PIP) --no-deps --target .venv/saelens --requirement $<
	@touch $@

saebench: .venv/saebench/installed
	OMP_NUM_THREADS=1 .venv/saebench/bin/python -m tests.interop.saebench_agreement \
	$(JUDGED)/model.json $(JUDGED)/docstrings $(JUDGED)/docstrings/layer15/tuned_t122880_s1500/$(TRAINED)

# A whole environment, since SAEBench asks for numpy below 2: PYTHON is 3.11 or 3.12 for it.
.venv/saebench/installed: requirements-saebench.lock
	@rm -rf .venv/saebench
	@"$$PYTHON" -m venv .venv/saebench
	@.venv/saebench/bin/python -m pip install --quiet --disable-pip-version-check --no-compile $(if $(TORCH_INDEX),--index-url "$$TORCH_INDEX") "$$(grep ^torch== $<)"
	@.venv/saebench/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --requirement $<
	@touch $@

# The executor lies apart: where it is installed, every start of snakemake asks SLURM.
test-slurm: $(TEST_STAMP) .venv/slurm/installed
	PYTHONPATH="$$PWD/.venv/slurm" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slurm tests/cluster

.venv/slurm/installed: requirements-slurm.lock | $(STAMP)
	@rm -rf .venv/slurm
	@$(PIP) --no-deps --target .venv/slurm --requirement $<
	@touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	PATH="$$PWD/$(BIN):$$PATH" snakemake --lint
	$(BIN)/mypy

docs: $(STAMP)
	@$(BIN)/python -c 'import mkdocs' 2>/dev/null || $(PIP) --no-deps --requirement requirements-docs.lock
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# In an environment of its own: the tool is no dependency of the project.
audit:
	"$$PYTHON" -m venv .venv/audit
	.venv/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	.venv/audit/bin/pip-audit --requirement $(LOCK) --no-deps --disable-pip

install: $(STAMP)

$(STAMP):
	@command -v "$$PYTHON" >/dev/null || { echo "make: found no $$PYTHON; install Python 3.11 or newer, or say PYTHON=/path/to/python" >&2; exit 2; }
	@"$$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $$PYTHON is $$("$$PYTHON" --version 2>&1), expected Python 3.11 or newer; say PYTHON=/path/to/python" >&2; exit 2; }
	@echo "installing into .venv (exact versions: $(LOCK))"
	@"$$PYTHON" -m venv .venv
	@$(TORCH_PIP) --no-deps $(TORCH) & torch=$$!; \
	{ grep -v '^torch==' $(LOCK) | $(PIP) --no-deps --requirement /dev/stdin && wait $$torch; } || { kill $$torch 2>/dev/null; false; }
	@# What a build for CUDA brings with it.
	@$(TORCH_PIP) --constraint $(LOCK) $(TORCH)
	@$(PIP) --no-deps --no-build-isolation --editable .
	@rm -f .venv/installed-*
	@touch $@

# CUDA builds of torch bring the triton that they need; elsewhere its interpreter serves the tests.
$(TEST_STAMP): $(STAMP)
	@! $(BIN)/python -c 'import triton' 2>/dev/null || own='^triton=='; \
	grep -Ev "$${own:-^$$}" requirements-test.lock > .venv/requirements-test.txt
	@$(PIP) --no-deps --requirement .venv/requirements-test.txt
	@rm -f .venv/tests-*
	@touch $@

clean:
	find results -mindepth 1 ! -name .gitkeep -delete
