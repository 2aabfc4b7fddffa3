# cogguided: everything starts from a fresh clone; `.venv` is made on first use and kept.
#   make demo      guided images with the embedded model, in out/demo/
#   make test      the test suite (offline, CPU), in JOBS=2 processes
#   make test-browser  the page in a real browser; needs Chromium and its driver
#   make docs      the documentation as a site, in out/site/; make docs-serve shows it on http://127.0.0.1:8100/
#   make check     ruff and mypy --strict
#   make dev       install the tools for working on the code
#   make embedded  train the embedded model again, from the raw artwork (hours on a CPU)

PYTHON ?= python3
JOBS ?= 2
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test test-browser docs docs-serve docs-keep check dev embedded clean

help:
	@sed -n 's/^#   //p' Makefile

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "cogguided needs Python 3.10 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# A stamp per set of dependencies: a second `make` installs nothing.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable '.[test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-browser: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable '.[browser-test]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test

$(VENV)/.installed-docs: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable '.[docs]'
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/cogguided generate "a face" "a heart" --target emotional_valence --search best_of_n --n 8 --seed 0 \
		--out out/demo --overwrite

test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

test-browser: $(VENV)/.installed-browser
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest tests/browser -m browser $(ARGS)

docs: $(VENV)/.installed-docs
	$(BIN)/python docs/site/build_site.py

docs-serve: $(VENV)/.installed-docs
	$(BIN)/python docs/site/build_site.py --serve

# The pictures and printed lines of tutorials, and the figures, are kept beside the pages, which are read on GitHub too.
docs-keep: $(VENV)/.installed-docs
	$(BIN)/python docs/site/build_site.py --keep

check: $(VENV)/.installed-dev .typing/cogguided
	$(BIN)/ruff check .
	$(BIN)/mypy

dev: $(VENV)/.installed-dev .typing/cogguided

# Type checkers see the package, whose root is this folder, through a link.
.typing/cogguided:
	mkdir -p .typing
	ln -sfn .. .typing/cogguided

embedded: $(VENV)/.installed-dev
	$(PIP) install --quiet --editable '.[embedded]'
	$(MAKE) -C examples/embedded PYTHON=$(abspath $(BIN)/python)

clean:
	rm -rf build dist out .typing *.egg-info
