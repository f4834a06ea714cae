"""The servers that are compared: bare ones, this checkout's daemon and another one's, all on one core."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scheduler.domain.errors import EdgeburstError
from scripts.support.stub_function import endpoint_config

ROOT = Path(__file__).resolve().parents[2]
_KEY, _SECRET = "bench-key", "bench-secret"
_CONFIG = """
[daemon]
port = 0
body_limit_bytes = 10000000
[edge]
url = "http://127.0.0.1:{edge}"
{function}
[engine]
queue_max_requests = 4000
[[model]]
name = "digits"
edge_profile = "{profile}"
[[model.class]]
slo_s = {slo_s}
{tier}
"""
_CARD_CONFIG = """
[daemon]
port = 0
[edge]
url = "http://127.0.0.1:{edge}"
[[model]]
card = "digits"
[[model.class]]
slo_s = {slo_s}
"""
_FUNCTION = """
[function]
endpoint = "127.0.0.1:{port}"
protocol = "http"
access_key_id_env = "BENCH_KEY_ID"
access_key_secret_env = "BENCH_KEY_SECRET"
"""
_TIER = """
[[model.tier]]
name = "1gb"
function = "digits"
profile = "fc-resnet50-1gb"
memory_gb = 1.0
"""


@dataclass(frozen=True, slots=True)
class Service:
    """Service times of the stub behind a server: alpha_s + beta_s * b seconds for a batch of b, one after the other."""

    alpha_s: float
    beta_s: float
    max_batch: int

    @property
    def max_rps(self) -> float:
        """Items a second in batches of the largest size."""
        return self.max_batch / (self.alpha_s + self.beta_s * self.max_batch)

    def profile(self, folder: Path) -> Path:
        """Writes an edge profile of these times; returns its file."""
        path = folder / "stub.json"
        said = {
            "name": "stub",
            "backend": "edge",
            "model": "digits",
            "device": "stub",
            "source": "scripts/daemon_bench",
            "date": "2026-11-30",
            "note": "Made up.",
            "rows": [],
            "alpha_s": self.alpha_s,
            "beta_s": self.beta_s,
            "max_batch": self.max_batch,
            "environment": {},
        }
        path.write_text(json.dumps(said))
        return path


@dataclass(frozen=True, slots=True)
class Server:
    """A process that serves."""

    name: str
    port: int
    pid: int

    def cpu_s(self) -> float:
        """Returns the processor seconds that it has used, of all its threads."""
        # The clock of another process, as clock_getcpuclockid makes its number.
        return time.clock_gettime((~self.pid << 3) | 2)

    def resident_mb(self) -> float:
        """Returns its resident memory in 10^6 bytes."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024 / 1e6


@contextlib.contextmanager
def bare(kind: str) -> Iterator[Server]:
    """Starts one of the bare servers: aiohttp or protocol."""
    with started([sys.executable, "-m", "scripts.daemon_bench.bare", kind], core=0) as (process, port):
        yield Server(f"bare {kind}", port, process.pid)


@contextlib.contextmanager
def daemon(
    name: str,
    checkout: Path,
    folder: Path,
    *,
    both: bool = False,
    stages: Path | None = None,
    service: Service | None = None,
    slo_s: float = 2.0,
) -> Iterator[Server]:
    """Starts a checkout's daemon with an edge of its own, and with functions too.

    Args:
        name: of the contender.
        checkout: whose code runs.
        folder: for its files.
        both: whether it has functions.
        stages: where to write in which stages its time goes, of this checkout; None: it is not looked at.
        service: times of the edge; None: it answers at once.
        slo_s: of its requests.
    """
    folder.mkdir(exist_ok=True)
    environ = {"BENCH_KEY_ID": _KEY, "BENCH_KEY_SECRET": _SECRET}
    with contextlib.ExitStack() as stack:
        stub = [sys.executable, "-m", "scripts.daemon_bench.edge"]
        profile = "orin-resnet50"
        if service is not None:
            stub += [str(service.alpha_s), str(service.beta_s)]
            profile = str(service.profile(folder))
        _, edge = stack.enter_context(started(stub, core=1))
        function = ""
        if both:
            local = folder / "local-fc.toml"
            local.write_text(endpoint_config(key=_KEY, secret=_SECRET))
            command = [sys.executable, "-m", "serverless_fn.local_fc", "--config", str(local), "--port", "0"]
            _, port = stack.enter_context(started(command, core=1))
            function = _FUNCTION.format(port=port)
        config = folder / "bench.toml"
        config.write_text(
            _CONFIG.format(edge=edge, function=function, tier=_TIER if both else "", profile=profile, slo_s=slo_s)
        )
        watched = ["scheduler.cli"] if stages is None else ["scripts.daemon_bench.stages", str(stages)]
        command = [sys.executable, "-m", *watched, "serve", "--config", str(config)]
        process, port = stack.enter_context(started(command, core=0, cwd=checkout, environ=environ))
        yield Server(name, port, process.pid)


@contextlib.contextmanager
def real_edge(folder: Path, *, slo_s: float) -> Iterator[Server]:
    """Starts this checkout's daemon with edgeburst-edge, which serves the shipped network for digits."""
    command = [sys.executable, "-m", "edge_server", "--port", "0", "--model", "digits", "--log-level", "warning"]
    with contextlib.ExitStack() as stack:
        _, edge = stack.enter_context(started(command, core=1))
        config = folder / "bench.toml"
        config.write_text(_CARD_CONFIG.format(edge=edge, slo_s=slo_s))
        command = [sys.executable, "-m", "scheduler.cli", "serve", "--config", str(config)]
        process, port = stack.enter_context(started(command, core=0))
        yield Server("daemon", port, process.pid)


@contextlib.contextmanager
def started(
    command: Sequence[str], *, core: int, cwd: Path = ROOT, environ: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Starts a process on one core; gives it and the port that it listens on, and ends it after the block."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=cwd,
        env={**os.environ, **(environ or {}), "PYTHONPATH": str(cwd)},
        preexec_fn=lambda: pin(core),  # noqa: PLW1509 - this program has no thread when it starts processes
    )
    try:
        assert process.stdout is not None
        yield process, int(json.loads(process.stdout.readline())["port"])
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def pin(core: int) -> None:
    """Keeps this process on one core, where there are several."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core % len(cores)]})


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """Keeps this process on one core meanwhile, where there are several."""
    before = os.sched_getaffinity(0)
    pin(core)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def checkout_of(named: str, folder: Path) -> Path:
    """Returns a folder with the code that is named: a folder itself, or a commit, which is unpacked.

    Raises:
        EdgeburstError: it is neither, or has none of this project.
    """
    if Path(named).is_dir():
        if not (Path(named) / "scheduler" / "engine.py").is_file():
            raise EdgeburstError(f"{named} has no scheduler/engine.py; name a checkout of edgeburst, or a commit")
        return Path(named).resolve()
    packed = subprocess.run(["git", "archive", named], cwd=ROOT, capture_output=True, check=False)
    if packed.returncode:
        raise EdgeburstError(f"{named} is neither a folder nor a commit; `git log --oneline` shows commits")
    into = folder / "there"
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(into, filter="data")
    return into
