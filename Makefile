# Two commands set everything up on a fresh machine with Python 3.11 or later:
#   make demo    environment, then the main job on real text
#   make test    environment, then the tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# torch's threads otherwise spin at barriers and starve each other on busy machines (docs/explanation/threads.md)
export OMP_WAIT_POLICY = passive

.PHONY: demo test slow bench page screenshots docs reference notebooks lint types imports check clean

$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.main: pyproject.toml constraints.txt | $(VENV)/pyvenv.cfg
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/pyvenv.cfg
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@ $(VENV)/.main

demo: $(VENV)/.main
	$(BIN)/crucible demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses auto

slow: $(VENV)/.readers tests/zarrita/node_modules
	$(BIN)/python -m pytest -m slow --numprocesses auto

$(VENV)/.readers: pyproject.toml constraints.txt | $(VENV)/.dev
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,readers]'
	touch $@ $(VENV)/.main $(VENV)/.dev

tests/zarrita/node_modules: tests/zarrita/package-lock.json # the tests of this reader skip where there is no node
	command -v npm >/dev/null || exit 0; cd tests/zarrita && npm ci --no-audit --no-fund && touch node_modules

bench: $(VENV)/.dev # writes docs/reference/peers.md and its picture, too
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	$(BIN)/python -m pytest -m benchmark -s

page: # needs node; writes crucible/viewer/built
	cd crucible/viewer/page && npm ci --no-audit --no-fund && npm run types && npm run build

screenshots: $(VENV)/.dev # needs Chromium and its driver; RUN=... takes another run than that of the demo
	test -n "$(RUN)" || test -d crucible-demo || $(BIN)/crucible demo --out crucible-demo
	$(BIN)/python tests/screenshots.py "$(or $(RUN),crucible-demo/run)"

docs: $(VENV)/.dev # the site, in build/site
	$(BIN)/sphinx-build -W --keep-going -n -q -b html docs build/site
	@echo build/site/index.html

reference: $(VENV)/.dev # the pages of docs/reference that are made from the code
	PYTHONPATH=docs $(BIN)/python -m pages_from_code

notebooks: $(VENV)/.dev # docs/examples as notebooks, in build/notebooks
	PYTHONPATH=docs $(BIN)/python -m pages_from_code.notebooks build/notebooks

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

imports: $(VENV)/.dev
	$(BIN)/lint-imports

check: lint types imports

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
