"""Starts each server of others in an environment of its own, on the core that the daemon has."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from scheduler.domain.errors import EdgeburstError
from scripts.daemon_bench.contenders import ROOT, Service, pin
from scripts.support.environments import Environment, python_of
from scripts.support.ray_service import ray_service

START_LIMIT_S = 90.0
_APPS = "scripts.peer_bench"
_SHOWN = 2000


class PeerFailed(EdgeburstError):
    """A server does not start."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A server of others.

    Attributes:
        name: as it calls itself, with what it runs with.
        environment: what is installed for it.
        path: of a request.
        form: binary, or json for a server that reads no binary bodies; the daemon gets the same.
        command: returns how it is started, from its interpreter, a port and a folder; None: by Ray.
        haproxy: of Ray Serve, whether HAProxy is before the replica, in throughput mode.
        settle_s: load before anything counts, in which some open connections to their workers, and Ray starts the rest.
    """

    name: str
    environment: Environment
    path: str
    form: str = "binary"
    command: Callable[[Path, int, Path], Sequence[str]] | None = None
    haproxy: bool = False
    settle_s: float = 3.0

    @property
    def release(self) -> str:
        """The release that is measured."""
        return self.environment.release(self.environment.name)


def _mosec(python: Path, port: int, _folder: Path) -> Sequence[str]:
    options = ["--address", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    return [str(python), "-m", f"{_APPS}.mosec_app", *options]


def _litserve(python: Path, port: int, _folder: Path) -> Sequence[str]:
    return [str(python), "-m", f"{_APPS}.litserve_app", str(port)]


def _bentoml(python: Path, port: int, _folder: Path) -> Sequence[str]:
    program = str(python.with_name("bentoml"))
    return [program, "serve", f"{_APPS}.bentoml_app:Front", "--host", "127.0.0.1", "--port", str(port)]


def _mlserver(python: Path, port: int, folder: Path) -> Sequence[str]:
    model = {"name": "digits", "implementation": f"{_APPS}.mlserver_app.Stub"}
    (folder / "model-settings.json").write_text(json.dumps({**model, "max_batch_size": 64, "max_batch_time": 0.001}))
    grpc_port, metrics_port = free_port(), free_port()
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": grpc_port, "metrics_port": metrics_port}
    (folder / "settings.json").write_text(json.dumps({**settings, "parallel_workers": 0, "debug": False}))
    return [str(python.with_name("mlserver")), "start", str(folder)]


_RAY = Environment("ray", (), "ray.txt")
PEERS = (
    Peer("LitServe", Environment("litserve", ("litserve",), "litserve.txt"), "/predict", command=_litserve),
    Peer("BentoML", Environment("bentoml", ("bentoml",), "bentoml.txt"), "/predict", command=_bentoml),
    Peer("Ray Serve", _RAY, "/", settle_s=15.0),
    Peer("Ray Serve, HAProxy and throughput mode", _RAY, "/", haproxy=True, settle_s=15.0),
    Peer("mosec", Environment("mosec", ("mosec",), "mosec.txt"), "/inference", command=_mosec),
    Peer(
        "MLServer",
        Environment("mlserver", ("mlserver",), "peers.txt"),
        "/v2/models/digits/infer",
        form="json",
        command=_mlserver,
    ),
)


@contextlib.contextmanager
def started_peer(
    peer: Peer, service: Service, folder: Path, request: bytes
) -> Iterator[tuple[int, Callable[[], float]]]:
    """Starts a server, on one core with all its processes.

    Gives its port once it has answered the request, and what returns the processor seconds that all its processes used.
    """
    python = python_of(peer.environment)
    environ = {
        **os.environ,
        "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(ROOT),
        "STUB_ALPHA_S": str(service.alpha_s),
        "STUB_BETA_S": str(service.beta_s),
        "STUB_MAX_BATCH": str(service.max_batch),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(folder / "bentoml"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    own = _by_ray if peer.command is None else _by_command
    with own(peer, python, environ, folder) as (port, log, pids):
        _until_answered(peer, port, request, log)
        running = pids()
        yield port, lambda: sum(map(_cpu_s, running))


@contextlib.contextmanager
def _by_command(
    peer: Peer, python: Path, environ: Mapping[str, str], folder: Path
) -> Iterator[tuple[int, Callable[[], str], Callable[[], Sequence[int]]]]:
    assert peer.command is not None
    port, log = free_port(), folder / "log"
    command = peer.command(python, port, folder)
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environ),
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=lambda: pin(0),  # noqa: PLW1509 - this program has no thread when it starts processes
        )
    try:
        yield port, lambda: log.read_text(errors="replace")[-_SHOWN:], lambda: _descendants(process.pid)
    finally:
        _end(process)


@contextlib.contextmanager
def _by_ray(
    peer: Peer, python: Path, environ: Mapping[str, str], _folder: Path
) -> Iterator[tuple[int, Callable[[], str], Callable[[], Sequence[int]]]]:
    stub = {name: value for name, value in environ.items() if name.startswith("STUB_")}
    application = {
        "name": "stub",
        "route_prefix": "/",
        "import_path": f"{_APPS}.ray_app:application",
        "runtime_env": {"env_vars": stub},
    }
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(_all_cores())})  # inherited by all that Ray starts
    try:
        with contextlib.ExitStack() as stack:
            service = stack.enter_context(
                ray_service(python, "", replicas=1, haproxy=peer.haproxy, application=application)
            )
            os.sched_setaffinity(0, cores)
            yield urlsplit(service.url).port or 0, lambda: "its logs are gone", lambda: list(service.processes())
    finally:
        os.sched_setaffinity(0, cores)


def _all_cores() -> set[int]:
    return set(range(os.cpu_count() or 1))


def _until_answered(peer: Peer, port: int, request: bytes, log: Callable[[], str]) -> None:
    give_up_s = time.monotonic() + START_LIMIT_S
    status = 0
    while status != http.client.OK:
        if time.monotonic() > give_up_s:
            raise PeerFailed(f"{peer.name} does not answer (HTTP {status}); leave it out with --peer: {log()}")
        time.sleep(0.2)
        with contextlib.suppress(OSError, http.client.HTTPException):
            status = _status_of(port, request)


def _status_of(port: int, request: bytes) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        response = http.client.HTTPResponse(connection)
        response.begin()
        response.read()
        return response.status


def _descendants(of: int) -> list[int]:
    """Returns a process and all that it, and they, have started."""
    parents = {}
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            parents[int(path.name)] = int(fields[1])
    found = [of]
    for parent in found:
        found += [pid for pid, started_by in parents.items() if started_by == parent]
    return found


def _cpu_s(pid: int) -> float:
    """Returns the processor seconds of a process, 0 once it has ended."""
    try:
        # The clock of another process, as clock_getcpuclockid makes its number.
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def free_port() -> int:
    """Returns a port of this host that is free now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and what it has started."""
    for sent, limit_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(limit_s)
