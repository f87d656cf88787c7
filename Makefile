PYTHON ?= python3
PIP_OPTIONS ?=
LAB_OPTIONS ?=
WORKERS ?= 2
READY := .venv/.ready
SITE_READY := .venv/.site
CLASSROOM_READY := .venv/.classroom
BIN := .venv/bin
# a thread each, since more threads than cores wait for each other
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.PHONY: help lab style check test notebooks bench site test-site python-of-site classroom load-test clean

help:  ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## /make \1: /p' Makefile

lab: $(READY)  ## open the lessons in JupyterLab
	$(BIN)/jupyter lab --config=tools/jupyter_lab_config.py $(LAB_OPTIONS) notebooks/00_start_here.ipynb

style: $(READY)  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check: style  ## check style, then run the unit tests but the slow ones: for every save
	$(PYTEST) tests/unit -m "not slow"

test: style  ## check style, then run all tests and every lesson
	$(PYTEST) --no-loadscope-reorder --nbval

notebooks: $(READY)  ## run every lesson and store its outputs
	$(BIN)/ruff format notebooks
	$(BIN)/python -m tools.make_pictures
	$(BIN)/python tools/refresh_notebooks.py

bench: $(READY)  ## measure how fast the labs answer and the networks train
	$(BIN)/python -m pytest tests/benchmarks -s -o python_files='bench_*.py'

site: python-of-site $(SITE_READY)  ## build the web site, in site/
	$(BIN)/python -m tools.build_site site

test-site: site  ## build the web site, then test it
	GAP_SITE=site $(PYTEST) tests/site

classroom: $(CLASSROOM_READY)  ## install what serves the lessons to a class: docs/classroom.md

load-test: $(CLASSROOM_READY)  ## try a class of two on this machine, as root
	$(BIN)/python -m pytest tests/classroom

clean:  ## remove the environment
	rm -rf .venv

# made again when the requirements change
$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "expected Python 3.10 or newer, got " + sys.version.split()[0] + "; name another with: make lab PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_OPTIONS) -r requirements.txt
	touch $@

# added to the same environment
$(SITE_READY): $(READY) requirements-site.txt
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_OPTIONS) -r requirements-site.txt -c requirements.txt
	touch $@

# added to the same environment; the proxy is a program of Node.js
$(CLASSROOM_READY): $(READY) requirements-classroom.txt
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_OPTIONS) -r requirements-classroom.txt -c requirements.txt
	npm install --global --prefix .venv --no-fund --no-audit configurable-http-proxy@5.3.0
	touch $@

# asked of the environment where there is one, and before one is made
python-of-site:
	@python=$(BIN)/python; [ -x $$python ] || python=$(PYTHON); $$python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "expected Python 3.11 for the web site, got " + sys.version.split()[0] + "; run: make clean site PYTHON=python3.11")'
