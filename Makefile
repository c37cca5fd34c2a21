# Everything runs in .venv, which `make install` creates. Only Python 3.11 or newer and make are needed beforehand.
# NEWEST=1 installs the newest version of every dependency instead of the versions in constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
# Extras whose tests are skipped where they do not install; each has the name of its package.
OPTIONAL := gymnax craftax xminigrid brax mujoco

.PHONY: install quickstart smoke test test-slow docs docs-test lint gpu-check clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(if $(NEWEST),--upgrade,--constraint constraints.txt) --editable '.[dev,docs]'
	for extra in $(OPTIONAL); do \
	    $(BIN)/python -m pip install --quiet $(if $(NEWEST),,--constraint constraints.txt) $$extra \
	    || echo "$$extra does not install here: its tests are skipped"; \
	done
	touch $@

quickstart: install
	$(BIN)/plasticity run configs/quickstart.yaml --out runs/quickstart --force

smoke: install
	$(BIN)/plasticity run configs/atari/smoke.yaml --out runs/atari-smoke --force

# The tests of a file stay in one process (loadfile), so what they share is compiled only once.
test: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m 'not slow'

test-slow: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m slow

# Builds the site: open build/site/index.html. A broken link is an error.
docs: install
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/python docs/make_reference.py
	$(BIN)/python -m mkdocs build --strict

# Runs every command and code block in README.md and docs/, including those that take minutes.
docs-test: install
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/python -m pytest tests/test_documented_commands.py tests/test_examples.py tests/test_pages.py tests/test_site.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini

# For a machine with one GPU, after `pip install -e '.[cuda]'`: at most eight minutes. PYTHON=... sets the interpreter.
gpu-check:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m plasticity.bench.gpu --out gpu.json

clean:
	rm -rf .venv
