# make demo: environment, installation, and the whole way once, ending in report.html
# make test: every check (lint, types, imports, all tests); make quick leaves the slow tests out
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 2

.PHONY: demo test quick lint clean

demo: .venv/ready
	$(BIN)/quickstudy demo --out demo --report report.html

test: .venv/ready lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

quick: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not slow"

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

# torch first and pinned: a range would bring a build for another machine
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --upgrade pip
	$(BIN)/pip install -q $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build demo report.html
