PYTHON ?= python3
PIP_OPTIONS ?=
LAB_OPTIONS ?=
WORKERS ?= 2
# a build of PyTorch, such as cpu or cu126; otherwise the usual one
TORCH ?=
TORCH_INDEX ?= https://download.pytorch.org/whl
READY := .venv/.ready
BIN := .venv/bin
PIP = $(BIN)/python -m pip install --disable-pip-version-check $(PIP_OPTIONS)
# a thread each, since more threads than cores wait for each other
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-colab: .venv/.tests  ## run every lesson among packages as Colab has them
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/colab

clean:  ## remove the environment
	rm -rf .venv

# made again when the requirements change
$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "expected Python 3.10 or newer, got " + sys.version.split()[0] + "; name another with: make lab PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv
ifneq ($(TORCH),)
	$(PIP) $(shell grep -o '^torch[a-z]*==[0-9.]*' requirements.txt) --index-url $(TORCH_INDEX)/$(TORCH) || \
		{ echo 'expected PyTorch at $(TORCH_INDEX)/$(TORCH), and pip got none; is there a network? Without TORCH=$(TORCH) the usual build is taken' >&2; exit 1; }
endif
	$(PIP) -r requirements.txt
	touch $@

# .venv/.tests, .venv/.site: added to the same environment
.venv/.%: requirements-%.txt $(READY)
	$(PIP) -r $< -c requirements.txt
	touch $@

# asked of the environment where there is one, and before one is made
python-of-site:
	@python=$(BIN)/python; [ -x $$python ] || python=$(PYTHON); $$python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "expected Python 3.11 for the web site, got " + sys.version.split()[0] + "; run: make clean site PYTHON=python3.11")'
