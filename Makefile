# The one task file. PYTHON is any interpreter that has the project with its test and dev extras.
PYTHON ?= python

.PHONY: check test lint types docs docs-check site accuracy bench slow slow-vllm browser screens

check: lint types test docs-check

test:
	$(PYTHON) -m pytest

# transformers itself: pip install -r tests/requirements-transformers.txt; llama-fit-params and real files where they are
slow:
	$(PYTHON) -m pytest -m slow --ignore tests/engines/test_vllm_real.py --ignore tests/browser

# vLLM's own code, 3 to 4 GB in an environment of its own: pip install -r tests/requirements-vllm.txt
slow-vllm:
	$(PYTHON) -m pytest -m slow -rs tests/engines/test_vllm_real.py

# the report in headless Chromium; VRAM_PLAN_SHOTS=FOLDER keeps the screenshots
browser:
	$(PYTHON) -m pytest -m slow -rs tests/browser

# the kept screens anew, after a change of how one looks
screens:
	VRAM_PLAN_SCREENS=write $(PYTHON) -m pytest tests/cli/test_screens.py

lint:
	$(PYTHON) -m ruff check .

types:
	$(PYTHON) -m mypy

docs:
	$(PYTHON) data/tools/build_messages.py
	$(PYTHON) docs/tools/generate.py

docs-check:
	$(PYTHON) data/tools/build_messages.py --check
	$(PYTHON) docs/tools/generate.py --check

accuracy:
	$(PYTHON) docs/tools/accuracy.py

bench:
	$(PYTHON) docs/tools/benchmark.py

# the site, into docs/_build; needs the docs extra
site:
	$(PYTHON) -m sphinx -q -W --keep-going -b html docs docs/_build/html
