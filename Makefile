# Every target does the set-up it needs. A machine needs make and Python 3.11 or newer; PYTHON names another one.
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := all,dev,docs

# What the environment was made from: the dependencies are installed again when pyproject.toml changes, the links of the
# editable install (2 s) when a file was added or renamed.
DEPENDENCIES := .venv/dependencies-$(shell cksum < pyproject.toml | tr ' ' -)
LINKS := .venv/links-$(shell (cat pyproject.toml; find core plugins adapters -name '*.py' -o -name '*.yaml' | LC_ALL=C sort) | cksum | tr ' ' -)

# Two test processes share two cores: one thread each.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -n 2 -q

.PHONY: help setup demo test test-all test-wheel check format docs bench golden
help:
	@echo "make demo        SimCLR on digits: a table and a picture, a minute and a half"
	@echo "make test        the tests; test-all: the slow ones too; test-wheel: on the built wheel"
	@echo "make check       formatting, lint, types; format: mend what can be mended"
	@echo "make docs        the documentation, as a site in site/"
	@echo "make bench       the benchmarks behind our figures"
	@echo "make golden      record the golden curves anew, after a change of maths"

setup: $(LINKS)

$(DEPENDENCIES): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kontrast needs Python 3.11 or newer; set PYTHON=python3.x")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'
	rm -f .venv/dependencies-*
	touch $@

$(LINKS): $(DEPENDENCIES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	rm -f .venv/links-*
	touch $@

demo: setup
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python examples/simclr.py

test: setup
	$(PYTEST) -m "not slow"

test-all: setup
	$(PYTEST)

test-wheel: setup
	rm -rf dist .venv-wheel
	$(BIN)/python -m build --quiet --wheel --no-isolation .
	$(PYTHON) -m venv .venv-wheel
	# The wheel alone in an environment of its own; what it depends on is read from the first one.
	echo "import site; site.addsitedir('$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" \
		> $$(.venv-wheel/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/stacked.pth
	.venv-wheel/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall dist/*.whl
	.venv-wheel/bin/python -c 'import sys; sys.path.pop(0); import kontrast; assert ".venv-wheel" in kontrast.__file__, kontrast.__file__'
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE .venv-wheel/bin/python -P -m pytest -n 2 -q -m "not slow"

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy tests
	$(BIN)/mypy examples
	$(BIN)/pyright --pythonpath $(BIN)/python

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The theme's note on MkDocs 2 is not about these pages.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

bench: setup
	for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

golden: setup
	$(BIN)/python tests/plugins/golden.py
