# make demo: the main job. make test (= make check): style, types, tests. Each makes the environment it needs, once.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
INSTALL = $(RUN) -m pip install --quiet --disable-pip-version-check -c .ci/constraints.txt -e

.PHONY: demo test check bench clean

demo: $(VENV)/.demo-installed
	$(RUN) -m fusedmix demo

test check: $(VENV)/.test-installed
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(RUN) -m pytest -q -n 2 --dist loadfile

bench: $(VENV)/.bench-installed
	$(RUN) -m pytest -q bench --benchmark-only

$(RUN):
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo-installed: pyproject.toml .ci/constraints.txt | $(RUN)
	$(INSTALL) '.[demo]'
	@touch $@

$(VENV)/.test-installed: pyproject.toml .ci/constraints.txt | $(RUN)
	$(INSTALL) '.[test]'
	@touch $@

# torch first: resolved together, the peers may pull in another build of it.
$(VENV)/.bench-installed: pyproject.toml .ci/constraints.txt | $(RUN)
	$(INSTALL) '.[test]'
	$(INSTALL) '.[bench]'
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
