# make help says what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo
DATA ?=
# Never trained on where DATA has them; of other data, every fifth series is held out.
TEST ?= earthnet-29SQC-2873-1465,ns-forest,greenearthnet-34TET

.DEFAULT_GOAL := help
.PHONY: help demo test coverage slow lint format notebook docs dist clean

help: ## say what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-8s %s\n", $$1, $$2}'

demo: $(VENV)/demo.stamp ## run the whole path on procedural series, or on DATA=folder; OUT=demo
	@$(BIN)/python examples/demo.py --out $(OUT) $(if $(DATA),--data $(DATA) --test $(TEST))

test: $(VENV)/dev.stamp ## run all tests but the slow ones
	$(BIN)/python -m pytest -n auto --dist loadfile

coverage: $(VENV)/dev.stamp ## run the same with coverage, of which 95 % is asked: half as long again
	$(BIN)/python -m pytest -n auto --dist loadfile --cov --cov-report=term

slow: $(VENV)/dev.stamp ## run the slow tests, which the others leave out
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/dev.stamp ## check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/dev.stamp ## put the code into form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/dev.stamp ## build the pages into site/; open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

dist: $(VENV)/dev.stamp ## build the source archive and the wheel into dist/, and check them
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*

notebook: $(VENV)/dev.stamp ## execute examples/story.ipynb in place: two or three minutes
	$(BIN)/python tests/notebooks.py examples/story.ipynb

clean: ## remove what the other targets made
	rm -rf $(VENV) demo site build dist .coverage .mypy_cache .pytest_cache .ruff_cache *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("sits_keras needs Python 3.11 or newer, this is %d.%d: make PYTHON=python3.11" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: setup.cfg pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV): about 1 GB, a minute or two."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[hub]'
	@touch $@

$(VENV)/dev.stamp: setup.cfg pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV): about 1 GB, a minute or two."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/demo.stamp
