# Everything a person or CI runs. `make` alone prints what there is.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -u -m pip --disable-pip-version-check --no-input
PACKAGES := $(shell grep -c '==' constraints.txt)
# Shows progress and size. pip's output is appended to $(VENV)/pip.log; its errors go to the terminal.
FOLLOW := $(PYTHON) .ci/follow.py $(VENV)/pip.log
TORCH := $(shell sed -n 's/^ *"\(torch[<>=].*\)",$$/\1/p' pyproject.toml)

# Tests make thousands of small SQLite and Delta commits: in memory, where it has 4 GB of room and runs programs, not in /tmp.
MEMORY := $(shell [ -w /dev/shm ] && ! grep -q ' /dev/shm .*noexec' /proc/mounts && [ "$$(df --output=avail /dev/shm | tail -1)" -ge 4000000 ] && echo TMPDIR=/dev/shm)

.PHONY: help setup demo test test-fast flaky coverage cluster cluster-test dev lint format typecheck count taste reference words validate images images-twice bench chaos proof lock clean

help: ## Print this list.
	@echo "usage: make TARGET [VARIABLE=...]"; echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  %-12s %s\n' "$$name" "$$text"; done

setup: $(READY) ## Set up .venv from constraints.txt. TORCH_INDEX=... takes torch from that index (PyTorch's CPU builds).

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: there is no $(PYTHON); install Python 3.11 or newer (on Debian: apt-get install python3 python3-venv)."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is $$($(PYTHON) --version); Driftline needs 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.13"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) cannot make virtual environments; on Debian: apt-get install $$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])') (or python3-venv)."; exit 1; }
	@echo "Setting up $(VENV) with $(PACKAGES) pinned packages: about 730 MB to download, 2.8 GB on disk, of which PyTorch's CPU build is 160 MB and 0.6 GB. Its CUDA build adds some gigabytes."
	@echo "  1/3 creating the virtual environment"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/pip.log; date +%s >$(VENV)/.started
	@echo "  2/3 resolving and downloading (details: $(VENV)/pip.log)"
ifdef TORCH_INDEX
	@$(PIP) install --progress-bar off --no-deps --index-url '$(TORCH_INDEX)' '$(TORCH)' | $(FOLLOW) 1
endif
	@$(PIP) install --progress-bar off --constraint constraints.txt --editable '.[all,dev]' | $(FOLLOW) $(PACKAGES)
	@echo "Ready after $$(($$(date +%s) - $$(cat $(VENV)/.started))) s: $$(du -sm $(VENV) | cut -f1) MB in $(VENV)."
	@touch $@

demo: setup ## Land, train, serve, then replay weeks with an injected fault. PRODUCT=... KEYS=... SEED=... STAY=1 keeps the servers up.
	@$(BIN)/driftline demo $(PRODUCT) $(if $(KEYS),--keys $(KEYS)) $(if $(SEED),--seed $(SEED)) $(if $(STAY),--stay)

# Tests start hundreds of processes; where Python is told to write no bytecode, each would compile every module again,
# and each of pytest's processes would rewrite every assertion again.
COMPILE := $(BIN)/python -m compileall -q driftline platform_assets resources sensors tests proof
PYTEST := $(MEMORY) PYTHONDONTWRITEBYTECODE= $(BIN)/pytest $(if $(RESULTS),--junitxml=$(RESULTS))

# If a process of tests dies, the run ends and names the test: pytest-xdist 3.8 fails or waits forever if it starts another.
SHARED := --numprocesses=2 --dist=loadfile --no-loadscope-reorder --max-worker-restart=0

test: setup ## Run the tests that cost less than a second, two files at a time. ALL=1 runs all, as `.ci/run` and `make proof` do. ARGS=... goes to pytest instead.
	@$(COMPILE)
	@$(if $(ALL),TEST_ALL=1) $(PYTEST) $(or $(ARGS),$(SHARED) $(if $(ALL),,-m 'not thorough and not costly'))

test-fast: setup ## Run the tests that start no process, train nothing and run no Dagster graph. ARGS=... goes to pytest too.
	@$(COMPILE)
	@$(PYTEST) -m 'not slow and not costly' --numprocesses=2 --dist=loadfile $(ARGS)

flaky: setup ## Run the tests of `.ci/run` three times, once at a load of 20, and name what differed. PHASES="test costly" of .ci/run.
	@$(PYTHON) .ci/flaky.py $(PHASES)

coverage: setup ## Run what `make test` runs and print its coverage by package. ARGS=... goes to pytest instead.
	@rm -f $(VENV)/coverage*
	@$(MEMORY) PYTHONDONTWRITEBYTECODE= COVERAGE_FILE=$(CURDIR)/$(VENV)/coverage $(BIN)/coverage run -m pytest $(or $(ARGS),$(SHARED) -m 'not thorough')
	@COVERAGE_FILE=$(CURDIR)/$(VENV)/coverage $(BIN)/coverage combine --quiet
	@COVERAGE_FILE=$(CURDIR)/$(VENV)/coverage $(BIN)/coverage json --quiet -o $(VENV)/coverage.json
	@$(BIN)/python .ci/coverage_by_package.py $(VENV)/coverage.json

cluster-test: setup ## Run the tests that need a Kubernetes cluster, on one of their own. ARGS=... goes to pytest instead.
	@$(BIN)/pytest $(or $(ARGS),tests/cluster) $(if $(RESULTS),--junitxml=$(RESULTS))

cluster: setup ## Start a Kubernetes cluster of two nodes to look at, until Ctrl-C. Needs root and KUBEBUILDER_ASSETS.
	@exec $(BIN)/python -m tests.cluster

dev: setup ## Open Dagster's UI on the same data as the demo's.
	@exec $(BIN)/driftline dev

lint: setup ## Check style, formatting, import contracts and declared dependencies.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/deptry .

format: setup ## Format and fix what can be fixed.
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

typecheck: setup ## Check the types of the three packages.
	@$(BIN)/mypy

count: ## Print how much code there is by package. CHECK=1 holds the newest order to what it may add, by .ci/budgets.json; DONE=1 to its budget, at its end.
	@$(PYTHON) .ci/count.py $(if $(CHECK),--check) $(if $(DONE),--done)

reference: setup ## Write what is generated: pages of docs/ from the code, and deploy/monitoring/.
	@$(BIN)/python .ci/reference.py
	@$(BIN)/python .ci/steps.py
	@$(BIN)/python .ci/monitoring.py
	@$(BIN)/python -m proof.benchmarks --page

taste: ## Print where the code departs from conventions of taste: lengths, the README's tree, names that are not nouns.
	@$(PYTHON) .ci/taste.py

GENERATED := $(patsubst %,docs/%.md,alerts benchmarks reference rights settings steps)
words: ## Print the words of the pages that are written by hand: rows and generated pages apart.
	@wc -w $(filter-out $(GENERATED),$(wildcard *.md docs/*.md)) | sort -n

validate: setup ## Validate what deploy/ holds.
	@deploy/validate.sh

images: ## Build the images with podman and print each by digest, with its size. IMAGES=trainer; BASE=NAME@sha256:...; TORCH_INDEX=...
	@BASE='$(BASE)' TORCH_INDEX='$(TORCH_INDEX)' exec deploy/images/build.sh $(IMAGES)

images-twice: ## Build the images twice without cache; print whether they are equal, or which files differ. IMAGES=service.
	@$(PYTHON) deploy/images/twice.py $(IMAGES)

bench: setup ## Measure. ROWS=P11,Q1 names rows; all without it. Updates docs/benchmarks.md.
	@$(BIN)/python -m proof.benchmarks $(ROWS) $(if $(STRICT),--strict)

chaos: setup ## Break things on purpose. ROWS=R1 names rows; all without it. Updates docs/benchmarks.md.
	@$(BIN)/python -m proof.chaos $(ROWS) $(if $(STRICT),--strict)

proof: ## Run what proves rows and takes longer than `.ci/run`: demos, chaos, images, clusters. Needs root.
	@.ci/run proof

lock: ## Rewrite constraints.txt from what .venv holds, and the images' locks from constraints.txt.
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable --disable-pip-version-check | grep -v '^torch=='; } > constraints.txt.new
	@mv constraints.txt.new constraints.txt; touch $(READY)
	@PYTHONPATH=. $(BIN)/python deploy/images/lock.py

clean: ## Remove .venv and caches, never data (.driftline).
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
