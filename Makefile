# Every target sets up what it needs, in .venv, and nothing outside this folder.
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
REPOSITORY ?= model-repository
# podman or docker, and what to build on: PYTHON_IMAGE=... where the Dockerfile's own can't be pulled.
CONTAINERS ?= podman
BUILD_FLAGS ?=
TARGET ?= serve
RUNTIME ?= $(if $(filter train,$(TARGET)),cuda,cpu)
# The image for GPUs has a name of its own, and so has the trainer's without: building one leaves the other alone.
TAG ?= latest$(if $(filter serve/cuda,$(TARGET)/$(RUNTIME)),-cuda)$(if $(filter train/cpu,$(TARGET)/$(RUNTIME)),-cpu)
ARGS ?=
# Tests at once, for two cores: many wait for processes. Those marked `alone` run when no other does (tests/conftest.py).
JOBS ?= 3
# So many that failed among others are tried once more, alone; with more, something is broken.
AGAIN ?= 10
# Every file of an image is of this second, the first that a zip can tell: two builds give the same layers, and
# a commit that leaves the locks alone leaves the large layer as it was.
SOURCE_DATE_EPOCH ?= 315532800
export PYTHON_IMAGE TRAIN_IMAGE BUILD_FLAGS
# Bytecode is kept, whatever the environment says: without it every process compiles torch's sources again, which
# doubles the time of the tests.
export PYTHONDONTWRITEBYTECODE :=

VENV := .venv
BIN := $(VENV)/bin
# Tools that pin what the project doesn't, each set in an environment of its own.
CHECKERS := .build/checkers
TYPESCRIPT := 7.0.2
TSC := $(if $(shell command -v npm),$(CHECKERS)/node_modules/.bin/tsc)
SUPPLY := .build/supply
LOCK = requirements/$(TARGET)-$(RUNTIME).txt
# Where to publish, unless ARGS say it; a run that is resumed knows its own, so the default is left unsaid.
INTO = $(if $(or $(filter file,$(origin REPOSITORY)),$(findstring --repository,$(ARGS))),,--repository '$(REPOSITORY)')
PIP := $(BIN)/python -m pip --disable-pip-version-check
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install serve train test lint format bench coverage figures image image-test k8s-local checkers sbom audit lock clean

help: ## this list
	@sed -nE 's/^([a-z0-9-]+):[^#]*## (.*)/  make \1\t\2/p' Makefile | expand -t 22

install: $(VENV)/.serve ## what training, serving and the client need, into .venv

serve: $(VENV)/.serve ## train the default if no model is published yet, then serve on PORT
	@compgen -G '$(REPOSITORY)/*/CURRENT' >/dev/null || $(MAKE) --no-print-directory train ARGS=
	@exec $(BIN)/python -m serving.run --repository '$(REPOSITORY)' --host $(HOST) --port $(PORT) $(ARGS)

train: $(VENV)/.serve ## train and publish into REPOSITORY; ARGS='mnist --help' for another recipe or its options
	@$(BIN)/python -m training.run $(or $(ARGS),digits) $(INTO)

test: $(VENV)/.dev ## every test that needs no container engine, JOBS at once; ARGS='-k words' for some, alone
ifeq ($(ARGS),)
# A few that fail beside others run once more, alone, and must pass then. Both runs print their names: a machine that is
# shared with strangers can hold a real server up longer than any deadline, and a fault fails twice.
	@$(BIN)/pytest -n $(JOBS) --dist worksteal || { code=$$?; \
	  failed=$$($(BIN)/python -c 'import json; print(len(json.load(open(".pytest_cache/v/cache/lastfailed"))))'); \
	  ((code == 1 && failed > 0 && failed <= $(AGAIN))) || exit $$code; \
	  echo "$$failed failed beside others: again, alone"; $(BIN)/pytest -v --last-failed --last-failed-no-failures none; }
else
	@$(BIN)/pytest $(ARGS)
endif

lint: $(VENV)/.dev ## what pre-commit and CI check: style, types, import laws
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pytest -q -p no:randomly tests/test_laws.py

format: $(VENV)/.dev ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.dev ## every benchmark, a line per figure; ARGS=--quick for a short look
	@failed=; for script in $$(git ls-files ':(glob)benchmarks/*/*.py' ':!benchmarks/*/_*'); do \
	  echo "== $$script"; $(BIN)/python $$script $(ARGS) || failed+=" $$script"; done; \
	  [[ -z $$failed ]] || { echo "failed:$$failed" >&2; exit 1; }

coverage: $(VENV)/.dev ## modes of ring-8 and grid-25 by every method, a night of two cores; resumable
	@$(BIN)/python benchmarks/training/modes.py --workers 2 --write docs/coverage.md $(ARGS)

figures: $(VENV)/.dev ## draw docs/pictures that are computed: the paths of the Dirac-GAN
	@$(BIN)/python -m training.stability games --trajectory docs/pictures/games.svg >/dev/null

image: sbom ## build saddlepoint-serve; RUNTIME=cuda for GPUs, TARGET=train for the trainer, RUNTIME=cpu for a smaller one
	@$(CONTAINERS) build --target $(TARGET) --tag localhost/saddlepoint-$(TARGET):$(TAG) \
	  $(if $(findstring podman,$(CONTAINERS)),--format docker --timestamp $(SOURCE_DATE_EPOCH)) \
	  $(if $(PYTHON_IMAGE),--build-arg PYTHON_IMAGE=$(PYTHON_IMAGE)) --build-arg RUNTIME=$(RUNTIME) \
	  --build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) \
	  --build-arg REVISION=$$(git rev-parse HEAD) --build-arg CREATED=$$(git log -1 --format=%cI) \
	  $(BUILD_FLAGS) .

sbom: $(SUPPLY)/.done ## what the image holds, as CycloneDX, from its lock: .build/sbom/
	@mkdir -p .build/sbom
	@$(SUPPLY)/bin/cyclonedx-py requirements $(LOCK) --pyproject pyproject.toml --mc-type application \
	  --of JSON --sv 1.6 --output-reproducible --short-PURLs \
	  -o .build/sbom/saddlepoint-$(basename $(notdir $(LOCK))).cdx.json 2>&1 | { grep -i error || true; }

audit: $(SUPPLY)/.done ## known vulnerabilities in the locks; asks a service on the Internet
	@failed=; for lock in requirements/*.txt; do echo "== $$lock"; \
	  $(SUPPLY)/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off -r $$lock \
	  || failed=1; done; [[ -z $$failed ]]

checkers: $(CHECKERS)/.done $(TSC) ## install what checks manifests, Dockerfile and, where npm is, the pages' scripts

image-test: $(VENV)/.dev ## build and run the image as a cluster would; TRAIN_IMAGE=1 with the trainer; root, podman
	@$(if $(TRAIN_IMAGE),$(MAKE) --no-print-directory image TARGET=train)
	@$(MAKE) --no-print-directory image TARGET=serve
	@RUNTIME=$(RUNTIME) TAG=$(TAG) $(BIN)/pytest -m containers -p no:randomly $(or $(ARGS),tests/containers)

k8s-local: ## run k8s/overlays/local with podman, without a cluster: from the training to the drain
	@$(MAKE) --no-print-directory image-test ARGS='tests/containers/test_local.py'

# What torch asks for and doesn't load where there is no GPU; onnxruntime stands in for the last. `--unsafe-package`
# leaves a package out, and replaces pip-compile's own list, in which setuptools is: torch imports it.
UNLOADED := cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cusolver nvidia-nvtx triton onnxruntime-gpu
lock: $(VENV)/.lock ## write requirements/*.txt anew from pyproject.toml
	@compile() { env -u PIP_FIND_LINKS PIP_CONFIG_FILE=/dev/null CUSTOM_COMPILE_COMMAND='make lock' \
	  $(BIN)/pip-compile --quiet --upgrade --generate-hashes --strip-extras \
	  --no-emit-index-url --no-emit-find-links -o requirements/$$1.txt pyproject.toml "$${@:2}"; }; \
	compile build --allow-unsafe --all-build-deps --only-build-deps; \
	compile serve-cpu --extra serve --extra trace --unsafe-package onnxruntime-gpu requirements/serve-cpu.in; \
	compile serve-cuda --extra serve --extra trace requirements/serve-cuda.in; \
	compile train-cuda --extra train --allow-unsafe requirements/train-cuda.in; \
	compile train-cpu --extra train $(UNLOADED:%=--unsafe-package %) requirements/train-cpu.in

clean: ## remove .venv and caches; runs/ and model-repository/ stay
	@rm -rf $(VENV) .build .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	@find . -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Saddlepoint needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1 || true)." >&2; \
	  echo "Install one, or name it: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "'$(PYTHON)' can't make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }

# The stamps: what is installed, as of which pyproject.toml. The development set includes the other.
$(VENV)/.serve: pyproject.toml | $(BIN)/python
	@echo "Installing Saddlepoint into $(VENV): a few minutes the first time, torch is large."
	@$(PIP) install --no-compile -e '.[train,serve,client]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "Installing Saddlepoint and its tools into $(VENV): a few minutes the first time, torch is large."
	@$(PIP) install --no-compile -e '.[dev]'
	@touch $(VENV)/.serve $@

$(CHECKERS)/.done $(SUPPLY)/.done: .build/%/.done: requirements/%.in
	@echo "Installing $< into $(@D)"
	@rm -rf $(@D)
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip --disable-pip-version-check install --quiet --no-compile -r $<
	@touch $@

$(CHECKERS)/node_modules/.bin/tsc: $(CHECKERS)/.done
	@npm install --silent --no-audit --no-fund --prefix $(CHECKERS) typescript@$(TYPESCRIPT) >/dev/null
	@touch $@

$(VENV)/.lock: | $(BIN)/python
	@$(PIP) install pip-tools
	@touch $@
