# make setup   system packages (through apt when root) and a .venv with pinned versions
# make demo    the main job: posteriors of a mock SKA-Low observation, in runs/demo
# make quick   unit tests, within a minute: for work
# make test    all tests, as CI runs them; JOBS= and a number for other than two at a time
# make docs    the documentation, at http://127.0.0.1:8000
# make wheel   a wheel in dist/, tried in clean environments of Python 3.11 and 3.12
# make coverage what no test reaches, in coverage/index.html

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: setup demo quick test docs wheel coverage browser lint clean

setup: $(VENV)/.ready

demo: setup
	$(BIN)/eorinfer run examples/demo.toml --out runs/demo

quick: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quick -n $(JOBS) --dist loadfile

# A file's tests run in one process, since they share what they made; torch takes one thread of each.
test: setup browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

# In an environment of its own, from an empty folder: what is not in the wheel is missing there.
wheel: setup
	rm -rf build dist
	$(BIN)/python -m pip wheel -q --no-deps -w dist .
	@for version in 3.11 3.12; do \
		python=$$(command -v python$$version || true); \
		[ -n "$$python" ] && "$$python" -c '' 2>/dev/null || { echo "make wheel: there is no python$$version; not tried"; continue; }; \
		place=$$(mktemp -d) && "$$python" -m venv $$place/env \
		&& $$place/env/bin/python -m pip install -q -c constraints.txt torch==2.13.0 \
		&& $$place/env/bin/python -m pip install -q -c constraints.txt dist/eorinfer-*.whl \
		&& (cd $$place && env/bin/eorinfer init own && env/bin/eorinfer check own.toml && env/bin/eorinfer init 21cm && env/bin/eorinfer check 21cm.toml) \
		&& echo "make wheel: works with Python $$version" || exit 1; \
		rm -rf $$place; \
	done

coverage: setup browser
	OMP_NUM_THREADS=1 $(BIN)/python -m coverage run -m pytest
	$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage html -q
	$(BIN)/python -m coverage report --skip-covered

# What the tests of the page look at it with; without it they are skipped.
browser:
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
		command -v $$name >/dev/null && exit 0; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -q \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends chromium; then exit 0; fi; \
	echo "make test: there is no Chromium, so that the tests of the report page are skipped (sudo apt-get install chromium)"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) runs site dist build coverage .coverage*

# What the sources of 21cmFAST and its dependencies are built with: package names, each with the test for it.
$(VENV)/.ready: constraints.txt pyproject.toml
	@missing=""; \
	command -v $(PYTHON) >/dev/null || missing="$$missing python3"; \
	command -v cc >/dev/null || missing="$$missing gcc"; \
	command -v c++ >/dev/null || missing="$$missing g++"; \
	command -v gsl-config >/dev/null || missing="$$missing libgsl-dev"; \
	{ [ -e /usr/include/fftw3.h ] || [ -e /usr/local/include/fftw3.h ]; } || missing="$$missing libfftw3-dev"; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing="$$missing python3-venv"; \
	$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' \
		2>/dev/null || missing="$$missing python3-dev"; \
	if [ -n "$$missing" ]; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing; \
		else \
			echo "make setup: these Debian packages are missing:$$missing"; \
			echo "Install them (sudo apt-get install$$missing), then run make again."; \
			exit 2; \
		fi; \
	fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "make setup: Python 3.11 or later is needed; make PYTHON=/path/to/python3.11 setup"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	# torch by itself first: an open range would choose a build for GPUs, which is gigabytes larger
	$(BIN)/python -m pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@
