# `make demo` runs the whole loop on real data; `make test` runs every test. Both set up .venv first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Compiled modules halve the start of every Ray process.
RUN := env -u PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint scan lock clean

demo: .venv/.installed
	$(RUN) $(BIN)/matinee demo $(ARGS)

# Units side by side, a file in one process; then what shares the machine with real servers, one by one.
test: .venv/.installed
ifdef ARGS
	$(RUN) $(BIN)/python -m pytest $(ARGS)
else
	$(RUN) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --ignore=tests/integration --ignore=tests/e2e
	$(RUN) $(BIN)/python -m pytest tests/integration tests/e2e
endif

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

scan: .venv/.installed
	$(BIN)/python tools/scan.py

lock: .venv/.installed
	$(BIN)/uv pip compile --quiet --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--python-version 3.11 --all-extras pyproject.toml -o constraints.txt
	sed -i "s/+cpu$$//; /^\(nvidia-[cn]\|cuda-\|triton==\)/d" constraints.txt

.venv/.installed: pyproject.toml constraints.txt tools/install.py
	$(PYTHON) tools/install.py dev

clean:
	rm -rf .venv build dist *.egg-info platform/*.egg-info
