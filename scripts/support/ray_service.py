"""A real Ray Serve with our edge application, alone on this machine: its files in a folder of its own, on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT_S = 150.0
"""For Ray, its controller and the replicas; a machine that does other work takes most of it."""
END_LIMIT_S = 20.0
_GRACE_S = 3.0
"""For Ray to end by itself, which takes it half a minute where HAProxy has replicas."""
_OBJECT_STORE_BYTES = 80_000_000
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
_REPLICA = "ray::ServeReplica"


class RayFailed(Exception):
    """Error: Ray or the application does not start; the message has the end of its log."""


@dataclass(frozen=True)
class RayService:
    """A running application.

    Attributes:
        url: of HAProxy, or of Serve's own proxy.
        folder: all files of Ray; `home` in it is the home folder of its processes.
        token: which the application asks for; empty: none.
    """

    url: str
    folder: Path
    token: str = ""

    @property
    def home(self) -> Path:
        """The home folder of all its processes."""
        return self.folder / "home"

    def processes(self) -> dict[int, str]:
        """Returns the processes that run, by their id, with their titles."""
        return processes_of(self.folder)

    def replicas(self) -> list[int]:
        """Returns the processes of the replicas."""
        return sorted(number for number, title in self.processes().items() if title.startswith(_REPLICA))

    def parallel(self) -> int:
        """Returns how many batches at once the service says it serves; 0 if it does not answer."""
        return _parallel(self.url, self.token)


@contextmanager
def ray_service(
    python: Path,
    options: str,
    *,
    replicas: int,
    haproxy: bool = True,
    token: str = "",
    application: Mapping[str, Any] | None = None,
) -> Iterator[RayService]:
    """Starts Ray and the application, hands it over once all replicas run, and ends all its processes.

    Args:
        python: of the environment that has the extras `edge` and `ray`.
        options: of each replica, as for `python -m edge_server`.
        replicas: their number.
        haproxy: whether HAProxy leads requests to replicas, in throughput mode; else Serve's own proxy.
        token: is in the variable EDGE_TOKEN of all processes; empty: it is not set.
        application: another application than ours, as Serve's configuration has it; it is handed over once Ray runs it,
            and the options are not looked at.

    Raises:
        RayFailed: it does not start.
    """
    python = python.absolute()
    # Directly below: the paths of Ray's sockets are nearly as long as such a path can be.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    try:
        gcs, port, *more = _free_ports(8)
        service = RayService(f"http://127.0.0.1:{port}", folder, token)
        service.home.mkdir()
        environ = _environment(folder, python, more, haproxy=haproxy)
        environ |= {"EDGE_TOKEN": token} if token else {}
        config = folder / "serve.json"  # JSON is YAML
        content = serve_config(options, port=port, replicas=replicas)
        if application is not None:
            content["applications"] = [application]
        config.write_text(json.dumps(content))
        with _head(folder, python, gcs, more, environ):
            command = [str(python.with_name("serve")), "run", "--non-blocking", str(config)]
            _run(command, {**environ, "RAY_ADDRESS": f"127.0.0.1:{gcs}"}, folder)
            if application is None:
                _until_served(service, replicas)
            yield service
    finally:
        _end(folder)
        shutil.rmtree(folder, ignore_errors=True)


def serve_config(options: str, *, port: int, replicas: int) -> dict[str, Any]:
    """Returns edge_server/serve.yaml for loopback, with these options and that many replicas."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "edge_server" / "serve.yaml").read_text(encoding="utf-8"))
    content["http_options"] = {"host": "127.0.0.1", "port": port}
    [application] = content["applications"]
    application["args"] = {"options": options}
    [deployment] = application["deployments"]
    deployment["num_replicas"] = replicas
    return content


def processes_of(folder: Path) -> dict[int, str]:
    """Returns the processes whose files of Ray lie in a folder, by their id, with their titles."""
    mark = os.fsencode(folder)
    found = {}
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            # Ray's processes write their titles over the first of their variables.
            if path.name.isdigit() and (mark in (path / "environ").read_bytes() or _is_in(path / "cwd", folder)):
                found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    # What has ended, and was not asked about yet, has no command line any more.
    return {number: title.strip() for number, title in found.items() if title.strip() and number != os.getpid()}


def _is_in(link: Path, folder: Path) -> bool:
    return str(link.readlink()).startswith(str(folder))


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _environment(folder: Path, python: Path, ports: Sequence[int], *, haproxy: bool) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _PROXIES}
    found = {
        **kept,
        "PATH": f"{python.parent}{os.pathsep}{kept.get('PATH', '')}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder / "home"),
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        # So that nodes speak over loopback; Ray has it for systems that it does not run clusters on.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports[3]),
    }
    if not haproxy:
        return found
    return {
        **found,
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy" / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "haproxy" / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "haproxy" / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder / "haproxy"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "haproxy" / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports[4]),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports[5]),
    }


@contextmanager
def _head(
    folder: Path, python: Path, gcs: int, ports: Sequence[int], environ: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    client, agent, dashboard = ports[:3]
    command = [str(python.with_name("ray")), "start", "--head", "--block", f"--port={gcs}", f"--temp-dir={folder}"]
    command += ["--node-ip-address=127.0.0.1", "--num-cpus=4", f"--object-store-memory={_OBJECT_STORE_BYTES}"]
    command += ["--include-dashboard=false", "--include-log-monitor=false", "--disable-usage-stats"]
    command += ["--min-worker-port=0", "--max-worker-port=0", f"--ray-client-server-port={client}"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--dashboard-port={dashboard}"]
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(command, env=environ, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            _until_listening(gcs, process, folder)
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_GRACE_S)
            if process.poll() is None:
                process.kill()
                process.wait()


def _until_listening(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    # Its own word that all of it has started: the port is there earlier.
    log = folder / "head.log"
    give_up_s = time.monotonic() + START_LIMIT_S
    while b"--block" not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > give_up_s:
            raise RayFailed(f"ray start on port {port} does not get ready: {_end_of(log)}")
        time.sleep(0.1)


def _run(command: Sequence[str], environ: dict[str, str], folder: Path) -> None:
    log = folder / "serve.log"
    with log.open("wb") as out:
        try:
            subprocess.run(command, env=environ, cwd=folder, stdout=out, stderr=out, timeout=START_LIMIT_S, check=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            raise RayFailed(f"{' '.join(command)} fails: {_end_of(log)}") from None


def _until_served(service: RayService, replicas: int) -> None:
    give_up_s = time.monotonic() + START_LIMIT_S
    while service.parallel() < replicas:
        if time.monotonic() > give_up_s:
            raise RayFailed(f"the replicas do not get ready: {_end_of(_newest_log(service.folder))}")
        time.sleep(0.2)


def _parallel(url: str, token: str) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    opener.addheaders = [("Authorization", f"Bearer {token}")] if token else []
    try:
        with opener.open(f"{url}/v2", timeout=5) as response:
            [model, *_] = json.loads(response.read())["models"]
        with opener.open(f"{url}/v2/models/{model}", timeout=5) as response:
            return int(json.loads(response.read())["parameters"]["parallel"])
    except (OSError, ValueError):
        return 0


def _newest_log(folder: Path) -> Path:
    logs = [path for path in folder.rglob("*.log") if path.stat().st_size]
    named = [path for path in logs if path.name.startswith(("controller", "replica"))]
    return max(named or logs, key=lambda path: path.stat().st_mtime)


def _end_of(log: Path) -> str:
    return f"{log.name}: {log.read_text(errors='replace')[-2000:]}"


def _end(folder: Path) -> None:
    """Ends what is left of the processes: HAProxy outlives the process that started it."""
    give_up_s = time.monotonic() + END_LIMIT_S
    while left := processes_of(folder):
        for number in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        if time.monotonic() > give_up_s:
            raise RayFailed(f"these processes do not end: {left}")
        time.sleep(0.1)
