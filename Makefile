# make demo      a clip through a local SFU, from one process to another
# make test      lint, types, tests: what continuous integration runs
# make quick     the tests that need no browser and no other program, in two minutes
# make docs      the documentation as a site, in build/docs
# make long      what takes longer: other Pythons, oldest dependencies, soaks, more of the fuzzing
# make soak      an application in trouble for MINUTES=60: what it holds, and a plot of it
# make dist      what is released: wheel and source distribution, checked, in dist
# make images    the pictures of the local cloud's pages in docs/images, taken anew
# make coverage  the tests once more, and which branches none of them takes
# make clean     removes what these made
#
# All set up their own virtual environment in .venv. PYTHON chooses the interpreter.

PYTHON ?= python3
# Three processes, for most tests wait more than they compute; a file's tests stay together.
PYTEST_ARGS ?= --numprocesses 3 --dist loadfile
MINUTES ?= 60
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo images test quick docs dist long soak coverage lint types pytest clean

demo: $(VENV)/.demo
	@$(BIN)/metered-sync demo

test: lint types pytest

quick: $(VENV)/.dev
	$(BIN)/pytest $(PYTEST_ARGS) -m quick

docs: $(VENV)/.dev
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --jobs auto \
		--conf-dir docs --doctree-dir build/doctrees . build/docs

dist: $(VENV)/.dev
	rm -rf dist
	git clone --quiet --depth 1 "file://$(CURDIR)" dist/source
	$(BIN)/python -m build --outdir dist dist/source
	rm -rf dist/source
	$(BIN)/twine check --strict dist/*

long: $(VENV)/.dev
	$(BIN)/pytest --numprocesses 1 -m slow
	$(BIN)/pytest $(PYTEST_ARGS) --hypothesis-profile=explore --timeout 1800 \
		tests/wire/test_properties.py tests/local/test_fuzz.py tests/engine/rooms/test_negotiation.py

soak: $(VENV)/.dev
	$(BIN)/python benchmarks/soak.py --minutes $(MINUTES) --plot soak.png

coverage: $(VENV)/.dev
	$(BIN)/pytest $(PYTEST_ARGS) -p no:metered_sync.testing.pytest_plugin --cov --cov-report term-missing:skip-covered

images: $(VENV)/.dev
	$(BIN)/python -m tests.support.console_scene docs/images
	$(BIN)/python -m tests.support.join_scene docs/images

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

pytest: $(VENV)/.dev
	$(BIN)/pytest $(PYTEST_ARGS) --durations 25

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is needed; try  make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "no virtual environment could be made (Debian: apt install python3-venv)"; exit 1; }

$(VENV)/.demo: $(VENV)/pyvenv.cfg setup.cfg pyproject.toml
	@echo "setting up $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[webrtc,local,cli]'
	@touch $@

$(VENV)/.dev: $(VENV)/pyvenv.cfg setup.cfg pyproject.toml
	@echo "setting up $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build dist *.egg-info metered-sync-demo.png soak.png .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .interop
