# Run `make help` for a list of targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := python -m pytest -n auto --dist loadfile --no-loadscope-reorder
OUT ?= demo
BENCH ?= bench.json
DATA ?=
# Series of DATA to hold out for testing. Any other data: every fifth series is held out.
TEST ?= earthnet-29SQC-2873-1465,ns-forest,greenearthnet-34TET

# Test selections. pyproject.toml describes the markers; `slow` tests run only in `make slow`.
NOT_UNIT := integration or legacy or docs or browser
UNIT := not ($(NOT_UNIT) or slow)
REST := ($(NOT_UNIT)) and not slow

# The newest Python that TensorFlow supports, and an interpreter of that version if there is one.
NEWEST := 3.13
NEWEST_PYTHON ?= $(shell for python in python$(NEWEST) "$$(pyenv root 2>/dev/null)"/versions/$(NEWEST)*/bin/python; do \
	"$$python" -c '' 2>/dev/null && echo "$$python" && break; done)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-lowest test-newest environments coverage slow bench lint format notebook docs dist clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

demo: $(VENV)/demo.stamp ## run the whole workflow on procedural series or DATA=folder; OUT=demo
	@$(BIN)/python examples/demo.py --out $(OUT) $(if $(DATA),--data $(DATA) --test $(TEST))

test: $(VENV)/dev.stamp ## run the unit tests
	$(BIN)/$(PYTEST) -m "$(UNIT)"

test-all: test ## run the unit tests, then all others except the slow ones
	$(BIN)/$(PYTEST) -m "$(REST)"

# SELECT limits the next two targets to some files and folders.
test-lowest: $(VENV)-lowest/stamp ## run the unit tests on the lowest versions that setup.cfg allows
	$(VENV)-lowest/bin/$(PYTEST) -m "$(UNIT)" $(SELECT)

ifneq ($(NEWEST_PYTHON),)
test-newest: $(VENV)-newest/stamp ## run the unit tests on the newest Python that TensorFlow supports
	$(VENV)-newest/bin/$(PYTEST) -m "$(UNIT)" $(SELECT)
else
test-newest:
	@echo "Skipped: no Python $(NEWEST) found. Set NEWEST_PYTHON to its path to run these tests."
endif

environments: $(VENV)-lowest/stamp $(if $(NEWEST_PYTHON),$(VENV)-newest/stamp)

coverage: $(VENV)/dev.stamp ## run all tests except the slow ones with coverage (minimum 95 %)
	$(BIN)/$(PYTEST) --cov --cov-report=term

slow: $(VENV)/dev.stamp ## run the slow tests
	$(BIN)/python -m pytest -m slow

bench: $(VENV)/dev.stamp ## run a short form of the benchmarks (under ten minutes); BENCH=bench.json
	$(BIN)/python benchmarks/compare.py --out $(BENCH) $(if $(RENDER),--render $(RENDER))

lint: $(VENV)/dev.stamp ## check format, lint rules, types, imports, spelling and wording
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/python .ci/check_words.py

format: $(VENV)/dev.stamp ## format the code and apply safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/dev.stamp ## build the documentation into site/; open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

dist: $(VENV)/dev.stamp ## build the source archive and the wheel into dist/, and check them
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*

notebook: $(VENV)/dev.stamp ## execute examples/story.ipynb in place (about three minutes)
	$(BIN)/python tests/notebooks.py examples/story.ipynb

clean: ## remove the output of all other targets
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest demo site build dist *.egg-info
	rm -rf .coverage .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("sits_keras needs Python 3.11 or newer, this is %d.%d: make PYTHON=python3.11" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: setup.cfg pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV): about 1 GB, a minute or two."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[hub]'
	@touch $@

$(VENV)/dev.stamp: setup.cfg pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV): about 1 GB, a minute or two."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[dev]'
	@touch $@ $(VENV)/demo.stamp

# pip is slower, and cannot resolve to the lowest versions.
$(VENV)-lowest/stamp: setup.cfg | $(VENV)/dev.stamp
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)-lowest
	@$(BIN)/uv pip install --quiet --python $(VENV)-lowest/bin/python --resolution lowest-direct -e '.[unit]'
	@touch $@

$(VENV)-newest/stamp: setup.cfg | $(VENV)/dev.stamp
	@$(BIN)/uv venv --quiet --clear --python $(NEWEST_PYTHON) $(VENV)-newest
	@$(BIN)/uv pip install --quiet --python $(VENV)-newest/bin/python -e '.[unit]'
	@touch $@
