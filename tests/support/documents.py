"""The pages of documentation, their fenced blocks and commands, and which commands no test runs as they stand."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "scheduler/README.md",
    "scheduler/DECISIONS.md",
    "scheduler/COMPARISONS.md",
    "scheduler/PLANNING.md",
    "scheduler/ARCHITECTURE.md",
    "scheduler/CHANGELOG.md",
    "edge_server/README.md",
    "serverless_fn/README.md",
    "models/README.md",
    "scripts/README.md",
    "tests/README.md",
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class NotRun:
    """Why a documented command is not run, and the test that checks what can be checked instead."""

    reason: str
    instead: str


_DEMO = NotRun("minutes", "tests/acceptance/test_demo.py")
_SUITE = NotRun("runs the tests themselves", "tests/unit/test_pins.py")
_INSTALLS = NotRun("downloads packages", "tests/unit/test_documents.py")
_UNIT = NotRun("systemctl, or files of root", "tests/unit/test_systemd_units.py")
_INSTALLER = NotRun("files of root", "tests/install/test_fresh_root.py")
_MONITORING = NotRun("systemctl, or files of root", "tests/integration/test_monitoring.py")
_DOCKER = NotRun("docker", "tests/unit/test_dockerfiles.py")
_ACCESS = NotRun("a token and a certificate of the reader", "tests/integration/test_edge_access.py")
_RAY = NotRun("an environment with Ray", "tests/peers/test_ray.py")
_MPS = NotRun("an NVIDIA GPU", "tests/unit/test_gpu_share.py")
_SHADOW = NotRun("a second file of the reader", "tests/integration/test_serve_shadow.py")
_EVALUATION = NotRun("minutes", "tests/unit/test_evaluate.py")
_LIMITS = NotRun("minutes", "tests/simulation/test_limits_table.py")
_FAULTS = NotRun("half an hour", "tests/unit/test_fault_table.py")
_WORLDS = NotRun("minutes", "tests/simulation/test_shell_worlds.py")
_MLPERF = NotRun("minutes", "tests/integration/test_mlperf.py")
_PEERS = NotRun("minutes, and servers of others", "tests/unit/test_bench_peers.py")
_RECORDED = NotRun("what a daemon of the reader has recorded", "tests/unit/test_what_if.py")
NOT_RUN: Mapping[str, NotRun] = {
    "edgeburst simulate --recorded arrivals/ --config edgeburst.toml --from 2026-11-29 --to 2026-11-30": _RECORDED,
    "edgeburst simulate --recorded arrivals/ --config edgeburst.toml --slo-s 0.6 --compare --plot if.png": _RECORDED,
    "edgeburst simulate --recorded arrivals/ --config edgeburst.toml --changed cheaper.toml --compare": _RECORDED,
    "edgeburst simulate --trace requests.csv --config edgeburst.toml": _RECORDED,
    "edgeburst serve --config edgeburst.toml --shadow what-if.toml": _SHADOW,
    "make demo": _DEMO,
    "make demo EMULATE=none": _DEMO,
    "make demo OPEN=1": NotRun("minutes", "tests/unit/test_demo_alternatives.py"),
    "make demo-failures": NotRun("a minute and a half", "tests/acceptance/test_demo_failures.py"),
    ".venv/bin/python -m scripts.demo --provisioned 12": _DEMO,
    "make test": _SUITE,
    "make unit PYTHON=python3.12": _SUITE,
    ".venv/bin/python -m pytest tests/oracles": _SUITE,
    ".venv/bin/python -m pytest tests/unit/test_wire.py -k malformed": _SUITE,
    ".venv/bin/python -m pytest -n 2 --dist loadgroup": _SUITE,
    "make faults": _FAULTS,
    ".venv/bin/python -m scripts.fault_table NaN": _FAULTS,
    ".venv/bin/python -m pytest -rs tests/integration/test_gpu.py": _SUITE,
    "make soak WORLDS=10000": _WORLDS,
    ".venv/bin/python -m scripts.soak --seed 7": _WORLDS,
    ".venv/bin/python -m scripts.soak --planted": _WORLDS,
    "python3 -m venv /opt/edgeburst && . /opt/edgeburst/bin/activate": _INSTALLS,
    "python3 -m venv --system-site-packages /opt/edgeburst": _INSTALLS,
    "pip install '.[client]'": _INSTALLS,
    "/opt/edgeburst/bin/pip install --constraint scripts/requirements/jetpack-6.txt '.[edge]'": _INSTALLS,
    "install -D -m 644 edgeburst.toml /etc/edgeburst/edgeburst.toml": _UNIT,
    "install -m 600 KEYS /etc/default/edgeburst": _UNIT,
    "scripts/install.sh client --secrets keys "
    "-- --edge http://192.168.1.20:8700 --model digits --slo-s 0.5": _INSTALLER,
    "scripts/install.sh edge -- --model digits": _INSTALLER,
    "edgeburst doctor --config /etc/edgeburst/edgeburst.toml": _INSTALLER,
    "edgeburst explain --last-miss --config edgeburst.toml": NotRun(
        "nothing has missed there", "tests/integration/test_explain_command.py"
    ),
    "edgeburst doctor --config edgeburst.toml": NotRun(
        "it finds what is not set up on the reader's hosts", "tests/integration/test_doctor.py"
    ),
    "install -m 640 -g prometheus edgeburst.token /etc/prometheus/edgeburst.token": _MONITORING,
    "cp scripts/monitoring/edgeburst.rules.yml /etc/prometheus/": _MONITORING,
    "cp scripts/monitoring/prometheus.example.yml /etc/prometheus/prometheus.yml": _MONITORING,
    "systemctl restart prometheus": _MONITORING,
    "cp scripts/systemd/edgeburst.service scripts/systemd/edgeburst.socket /etc/systemd/system/": _UNIT,
    "systemctl enable --now edgeburst.socket edgeburst": _UNIT,
    "cp scripts/systemd/edgeburst-edge.service scripts/systemd/edgeburst-edge.socket /etc/systemd/system/": _UNIT,
    "systemctl enable --now edgeburst-edge.socket edgeburst-edge": _UNIT,
    "docker build -f edge_server/Dockerfile -t edgeburst-edge .": _DOCKER,
    "docker run --runtime nvidia -p 8700:8700 -e EDGE_TOKEN edgeburst-edge": _DOCKER,
    "docker build --platform linux/amd64 -f serverless_fn/Dockerfile "
    "-t REGISTRY/NAMESPACE/edgeburst-function:1-cpu --build-arg MODELS=my-models --build-arg MODEL=detector .": _DOCKER,
    "export EDGE_TOKEN=$(openssl rand -hex 32)": _ACCESS,
    "edgeburst-edge --host 0.0.0.0 --port 8700 --model digits --token-env EDGE_TOKEN": _ACCESS,
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN=EDGE "
    "-addext subjectAltName=DNS:EDGE -keyout key.pem -out certificate.pem": _ACCESS,
    "edgeburst-edge --host 0.0.0.0 --token-env EDGE_TOKEN --certificate certificate.pem --key key.pem": _ACCESS,
    'curl --cacert certificate.pem --oauth2-bearer "$EDGE_TOKEN" https://EDGE:8700/v2/models/digits': _ACCESS,
    "pip install --require-hashes -r scripts/requirements/ray.txt && pip install --no-deps .": _RAY,
    "export RAY_SERVE_ENABLE_HA_PROXY=1 RAY_SERVE_THROUGHPUT_OPTIMIZED=1": _RAY,
    "ray start --head --disable-usage-stats": _RAY,
    "serve run edge_server/serve.yaml": _RAY,
    "nvidia-cuda-mps-control -d": _MPS,
    "edgeburst-edge --port 8701 --model my-models/detector --mps-percentage 30 --mps-memory 0=4G": _MPS,
    "edgeburst-edge --port 8702 --model my-models/classifier --mps-percentage 70": _MPS,
    "edgeburst-function --forward http://127.0.0.1:8000 -- tritonserver --model-repository /models": NotRun(
        "Triton", "tests/integration/test_function_forwards.py"
    ),
    "docker push REGISTRY/NAMESPACE/edgeburst-function:1-cpu": _DOCKER,
    "s deploy -t serverless_fn/s.yaml": NotRun("a real account", "tests/unit/test_fc_deployment.py"),
    ".venv/bin/python -m scripts.evaluate --suite load --policy edgeburst,static --quick": _EVALUATION,
    ".venv/bin/python -m scripts.evaluate --suite load,noise,varied --scales 2,2.4,3,4 --markdown": _EVALUATION,
    ".venv/bin/python -m scripts.evaluate --suite noise --traces DIR --traffic trace --first 20000 --scales 2.4,3": (
        _EVALUATION
    ),
    ".venv/bin/python -m scripts.evaluate --suite figures --traces DIR": _EVALUATION,
    ".venv/bin/python -m scripts.evaluate --suite edges --traces DIR --traffic trace --markdown": _EVALUATION,
    ".venv/bin/python -m scripts.evaluate --suite learning": NotRun("minutes", "tests/unit/test_evaluate_learning.py"),
    ".venv/bin/python -m scripts.simulator_speed --requests 1000000": NotRun(
        "minutes", "tests/unit/test_simulator_speed.py"
    ),
    ".venv/bin/python -m scripts.simulator_speed --against CHECKOUT": NotRun(
        "minutes", "tests/unit/test_simulator_speed.py"
    ),
    ".venv/bin/python -m scripts.evaluate --suite engine --against WORKTREE": _EVALUATION,
    ".venv/bin/python -m scripts.evaluate --suite figures --traces DIR "
    "--policy edgeburst,oracle-laws --out NEW --beside OLD": _EVALUATION,
    "EDGEBURST_TRACES=DIR .venv/bin/python -m scripts.limits": _LIMITS,
    ".venv/bin/python -m scripts.limits --rows 0.6x2.4,1x3 --requests 5000": _LIMITS,
    ".venv/bin/python -m scripts.limits --lookahead": _LIMITS,
    ".venv/bin/python -m scripts.bench_peers --json peers.json --plot peers.png": _PEERS,
    ".venv/bin/python -m scripts.bench_peers --peer LitServe --peer mosec --turns 9": _PEERS,
    ".venv/bin/python -m scripts.mlperf": _MLPERF,
    ".venv/bin/python -m scripts.mlperf --seconds 5 --edge digits --rps 100 --offline-rps 1500": _MLPERF,
    ".venv/bin/python -m scripts.mlperf --url http://127.0.0.1:8600 --scenario Server --rps 50": _MLPERF,
    ".venv/bin/python -m scripts.sensitivity": NotRun("minutes", "tests/unit/test_sensitivity.py"),
    ".venv/bin/python -m scripts.train_digits --out FOLDER": NotRun("minutes", "tests/integration/test_models.py"),
    ".venv/bin/python -m scripts.config_reference --write": NotRun(
        "writes into the source tree", "tests/unit/test_documents.py"
    ),
}

_SERVED = "edgeburst-edge --port 8700 --model resnet50 --weights resnet50=FILE --weights-sha256 resnet50=HEX"
ELSEWHERE: Mapping[str, Collection[str]] = {
    "scheduler/PLANNING.md": {"kill -HUP PID"},
    "models/README.md": {_SERVED},
}
"""Commands that a page repeats, and that are run on another page."""


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in this language, in order."""
    return [body for named, body in _FENCE.findall(text_of(page)) if named == language]


def commands(page: str) -> Iterator[str]:
    """The commands of a page in order, without comments; a continued line is one command."""
    for block in blocks(page, "sh"):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            if command := re.sub(r"(^|\s+)# .*$", "", line).strip():
                yield command


def run_commands(page: str) -> list[str]:
    """The commands of a page that a test runs there, in order."""
    return [command for command in commands(page) if command not in NOT_RUN and command not in ELSEWHERE.get(page, ())]
