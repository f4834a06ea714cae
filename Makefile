# Two targets do everything, set-up included: `make demo` and `make test`. Both make and reuse .venv.
PYTHON ?= python3
EMULATE ?= orin-resnet50
VENV := .venv
BIN := $(VENV)/bin
# A matched pair of torch and torchvision comes from the default index; TORCH_INDEX_URL may name another,
# for instance a CPU-only pair for a small laptop.
TORCH_INDEX := $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL))
PYTEST_WORKERS ?= 2

.PHONY: demo test lint bench clean

$(VENV)/.installed: setup.cfg pyproject.toml
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH_INDEX) torch torchvision
	$(BIN)/python -m pip install --quiet --editable '.[client,edge,function,torch,dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python -m scripts.demo --emulate $(EMULATE) --out out/demo

test: $(VENV)/.installed lint
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadgroup

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed
	$(BIN)/python -m scripts.bench_daemon

clean:
	rm -rf $(VENV) out build *.egg-info .mypy_cache .ruff_cache .pytest_cache
