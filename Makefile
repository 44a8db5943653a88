# The two commands of the README: `make demo` and `make test`. Both set up .venv on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test test-gpu lint clean

install: $(VENV)/installed

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	@sh tools/system_packages.sh $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@# The official nuScenes evaluator, which tests compare with, asks for numpy < 2 but runs on 2.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps nuscenes-devkit==1.2.0
	@touch $@

demo: install
	$(BIN)/python tools/demo.py

test: install
	$(BIN)/python -m pytest

test-gpu: install
	$(BIN)/python -m pytest -m gpu

lint:
	ruff check .

clean:
	rm -rf $(VENV) demo build *.egg-info
