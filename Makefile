# `make demo`, `make test` and `make lint` do everything, set-up included. Each environment they make is reused.
# Releases are pinned (scripts/requirements, .ci/constraints.txt): what passes today passes tomorrow.
PYTHON ?= python3
EMULATE ?= orin-resnet50
VENV := .venv
BIN := $(VENV)/bin
LINT := .venv-lint
LATEST := .venv-latest
# The unit level without torch; .ci/run names one environment for each Python.
UNIT ?= .venv-unit
# Servers and clients of others, which need other releases than we do.
PEERS := .venv-peers
# The edge server as a Ray Serve application, from its locked releases.
RAY := .venv-ray
# What builds the dashboard for Grafana, on Python 3.11 and later.
MONITORING := .venv-monitoring
# Fuzzing: atheris and schemathesis.
FUZZ := .venv-fuzz
PINS := scripts/requirements
# A matched pair of torch and torchvision comes from the default index; TORCH_INDEX_URL may name another,
# for instance a CPU-only pair for a small laptop. Where that index lacks the pinned pair, TORCH_PINS may name another file.
TORCH_INDEX := $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL))
TORCH_PINS ?= $(PINS)/torch.txt
PYTEST_WORKERS ?= 2
PYTEST := -m pytest -n $(PYTEST_WORKERS) --dist loadgroup

# Once pip itself is the pinned one, setuptools is pinned in the builds of packages that have no wheel, too.
PIP := -m pip install --quiet --build-constraint $(PINS)/build.txt

define fresh
	$(1)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(1)
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(PINS)/build.txt pip setuptools
endef

.PHONY: demo demo-failures test test-slow test-page soak-page unit lint test-latest test-peers test-install testbed fuzz fuzz-ci soak soak-ci faults faults-ci bench dashboard pins locked audit clean

$(VENV)/.installed: setup.cfg pyproject.toml $(PINS)/build.txt $(PINS)/test.txt $(TORCH_PINS)
	$(call fresh,$(VENV))
	$(BIN)/python $(PIP) --constraint $(PINS)/test.txt --editable '.[client,edge,function,plots,dev]'
	$(BIN)/python $(PIP) $(or $(TORCH_INDEX),--constraint $(PINS)/test.txt) --constraint $(TORCH_PINS) torch torchvision
	$(BIN)/python $(PIP) --constraint $(PINS)/test.txt timm safetensors
	touch $@

$(UNIT)/.installed: setup.cfg pyproject.toml $(PINS)/build.txt $(PINS)/test.txt
	$(call fresh,$(UNIT))
	$(UNIT)/bin/python $(PIP) --constraint $(PINS)/test.txt --editable '.[client,edge,function,plots,dev]'
	touch $@

$(LINT)/.installed: setup.cfg pyproject.toml $(PINS)/build.txt .ci/constraints.txt
	$(call fresh,$(LINT))
	$(LINT)/bin/python $(PIP) --constraint .ci/constraints.txt --editable '.[client,edge,function,plots,lint]'
	touch $@

$(PEERS)/.installed: $(PINS)/build.txt $(PINS)/peers.txt
	$(call fresh,$(PEERS))
	$(PEERS)/bin/python $(PIP) --constraint $(PINS)/peers.txt kserve mlserver
	touch $@

$(RAY)/.installed: setup.cfg pyproject.toml $(PINS)/build.txt $(PINS)/ray.txt
	$(call fresh,$(RAY))
	$(RAY)/bin/python $(PIP) --require-hashes --requirement $(PINS)/ray.txt
	$(RAY)/bin/python $(PIP) --no-deps --editable .
	touch $@

$(MONITORING)/.installed: $(PINS)/build.txt $(PINS)/monitoring.txt
	$(call fresh,$(MONITORING))
	$(MONITORING)/bin/python $(PIP) --constraint $(PINS)/monitoring.txt grafana-foundation-sdk
	touch $@

$(FUZZ)/.installed: setup.cfg pyproject.toml $(PINS)/build.txt $(PINS)/test.txt $(PINS)/fuzz.txt
	$(call fresh,$(FUZZ))
	$(FUZZ)/bin/python $(PIP) --constraint $(PINS)/test.txt --editable '.[client,edge,function,grpc,onnx]'
	$(FUZZ)/bin/python $(PIP) --constraint $(PINS)/test.txt --constraint $(PINS)/fuzz.txt \
		atheris schemathesis pillow pytest-timeout psutil
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python -m scripts.demo --emulate $(EMULATE) --out out/demo $(if $(OPEN),--open)

# An edge killed, an uplink cut, a cap reached, a tenant's flood: what the daemon's page shows of each, as a checklist.
demo-failures: $(VENV)/.installed
	$(BIN)/python -m scripts.demo_failures --out out/demo-failures $(if $(OPEN),--open)

test: $(VENV)/.installed
	$(BIN)/python $(PYTEST) -m 'not slow'

# The demo, restarts, the longest simulations, and the alert rules and dashboard before a Prometheus.
test-slow: $(VENV)/.installed
	EDGEBURST_MONITORING=$(abspath $(wildcard $(MONITORING)/bin/python)) $(BIN)/python $(PYTEST) -m slow

unit: $(UNIT)/.installed
	$(UNIT)/bin/python $(PYTEST) tests/unit

lint: $(LINT)/.installed
	$(LINT)/bin/ruff check .
	$(LINT)/bin/ruff format --check .
	$(LINT)/bin/mypy
	$(LINT)/bin/mypy --config-file .ci/mypy-tests.ini
	$(LINT)/bin/lint-imports
	$(LINT)/bin/shellcheck scripts/install.sh scripts/requirements/*.sh .ci/run

test-peers: $(VENV)/.installed $(PEERS)/.installed $(RAY)/.installed
	EDGEBURST_PEERS=$(abspath $(PEERS))/bin/python EDGEBURST_RAY=$(abspath $(RAY))/bin/python \
		$(BIN)/python $(PYTEST) tests/peers

# The installer in a fresh Debian root made by debootstrap; as root, skipped with a sentence otherwise.
test-install: $(VENV)/.installed
	EDGEBURST_INSTALL=1 $(BIN)/python -m pytest tests/install

# TARGET: wire, frame, grpc, images, config, traces, state, explain, cards, sheets or profiles; N inputs.
fuzz: $(FUZZ)/.installed
	PYTHONPATH=.:tests $(FUZZ)/bin/python -m fuzz $(if $(TARGET),--target $(TARGET)) $(if $(N),--inputs $(N))

# 100,000 inputs in all, and the HTTP interfaces against their descriptions.
fuzz-ci: $(FUZZ)/.installed
	PYTHONPATH=.:tests $(FUZZ)/bin/python -m fuzz
	PYTHONPATH=.:tests $(FUZZ)/bin/python -m fuzz.http

# The page at `/` in headless Chromium (apt-get install chromium; a part of test-slow), and half an hour before it.
test-page: $(VENV)/.installed
	$(BIN)/python -m pytest tests/page -m slow

soak-page: $(VENV)/.installed
	EDGEBURST_PAGE_MINUTES=30 $(BIN)/python -m pytest -s tests/page/test_page_load.py

# Real processes around shaped links, in network namespaces; as root, skipped with a sentence otherwise.
testbed: $(VENV)/.installed
	EDGEBURST_TESTBED=1 $(BIN)/python -m pytest tests/testbed

# Random worlds for the whole daemon: `make soak WORLDS=10000`, `make soak HOURS=8`; SEED=N begins with that one.
soak: $(VENV)/.installed
	$(BIN)/python -m scripts.soak $(if $(HOURS),--hours $(HOURS),--worlds $(or $(WORLDS),10000)) $(if $(SEED),--seed $(SEED))

# Fresh seeds at each run.
soak-ci: $(VENV)/.installed
	$(BIN)/python -m scripts.soak --worlds 2000

# The newest release of everything, as a user's `pip install` brings it.
test-latest:
	$(LATEST)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(LATEST)
	$(LATEST)/bin/python -m pip install --quiet --upgrade pip setuptools
	$(LATEST)/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager $(TORCH_INDEX) torch torchvision
	$(LATEST)/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager --editable '.[client,edge,function,torch,plots,dev]'
	$(LATEST)/bin/python $(PYTEST)

# Real processes under traffic while something fails: all rows of the table (tests/README.md), or a handful.
faults: $(VENV)/.installed
	$(BIN)/python -m scripts.fault_table

faults-ci: $(VENV)/.installed
	$(BIN)/python -m scripts.fault_table --quick

bench: $(VENV)/.installed
	$(BIN)/python -m scripts.bench_daemon

# The dashboard for Grafana, from its source.
dashboard: $(MONITORING)/.installed
	$(MONITORING)/bin/python -m scripts.monitoring.build_dashboard --write

pins: $(LINT)/.installed
	$(PINS)/pin.sh
	$(PINS)/lock.sh

# What the services are installed from where nothing may change; `pins` does this too.
locked: $(LINT)/.installed
	$(PINS)/lock.sh

# Whether they can be installed with these hashes, and whether a release among them has a known vulnerability; the second
# is skipped with a sentence where it cannot be asked.
audit: $(LINT)/.installed
	for service in client edge edge-host function ray; do \
		$(LINT)/bin/uv pip install --quiet --dry-run --require-hashes --python $(LINT) --requirement $(PINS)/$$service.txt || exit 1; \
	done
	$(LINT)/bin/python -m scripts.audit

clean:
	rm -rf $(VENV) .venv-* out build *.egg-info .mypy_cache .ruff_cache .pytest_cache
