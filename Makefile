# The one task file. PYTHON is any interpreter that has the project with its test and dev extras.
PYTHON ?= python

.PHONY: check test lint types docs docs-check accuracy bench slow

check: lint types test docs-check

test:
	$(PYTHON) -m pytest

slow:
	$(PYTHON) -m pytest -m slow

lint:
	$(PYTHON) -m ruff check .

types:
	$(PYTHON) -m mypy

docs:
	$(PYTHON) docs/generate.py

docs-check:
	$(PYTHON) docs/generate.py --check

accuracy:
	$(PYTHON) docs/accuracy.py

bench:
	$(PYTHON) docs/benchmark.py
