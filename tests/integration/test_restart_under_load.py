"""A restart under load refuses no connection: the listening sockets outlive the daemon."""

import asyncio
import contextlib
import json
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp
import grpc
import pytest
from support.daemon_process import LIMIT_S, ROOT, Running, environment, serve_command, stub_edge_process

from scheduler.daemon.grpc.messages import INFERENCE, ModelInferRequest, ModelInferResponse

pytestmark = pytest.mark.xdist_group("serve")

CONFIG = """
[daemon]
port = {port}
late = "serve"
{more}
[edge]
url = "{edge}"
[[model]]
name = "digits"
edge_profile = "orin-resnet50"
[[model.class]]
slo_s = 20.0
"""
PICTURE = bytes(range(256)) * 8
RATE_RPS = 60
SECONDS = 4.0
RESTART_AT_S = 1.0


@pytest.fixture(scope="module")
def edge() -> Iterator[Running]:
    with stub_edge_process() as running:
        yield running


def written(folder: Path, edge: Running, *, port: int, more: str = "") -> Path:
    path = folder / "edgeburst.toml"
    path.write_text(CONFIG.format(edge=edge.url, port=port, more=more))
    return path


def listening() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.set_inheritable(True)
    return listener


class Daemons:
    """Starts daemons that print their ready line, and ends them all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "Daemons":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait(LIMIT_S)
            assert process.stdout is not None
            process.stdout.close()

    def start(self, config: Path, *options: str, passed: "dict[str, socket.socket] | None" = None) -> subprocess.Popen:
        """Starts one; `passed` are sockets that it gets as systemd passes them: from descriptor 3 on."""
        command = [*serve_command(config), *options]
        if passed:
            # Two steps, because a descriptor in the way must not be overwritten before it is moved.
            high = " ".join(f"{100 + i}<&{each.fileno()}" for i, each in enumerate(passed.values()))
            low = " ".join(f"{3 + i}<&{100 + i} {100 + i}<&-" for i in range(len(passed)))
            variables = f"LISTEN_PID=$$ LISTEN_FDS={len(passed)} LISTEN_FDNAMES={':'.join(passed)}"
            command = ["bash", "-c", f'exec {high}; exec {low}; {variables} exec "$@"', "daemon", *command]
        log = (self._folder / f"daemon-{len(self._started)}.log").open("w")
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment({}),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            pass_fds=[each.fileno() for each in (passed or {}).values()],
        )
        log.close()
        self._started.append(process)
        return process

    def logs(self) -> str:
        return "".join(path.read_text() for path in sorted(self._folder.glob("daemon-*.log")))


def ready(process: "subprocess.Popen[str]") -> "dict[str, int]":
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the daemon did not get ready"
    return json.loads(line)


async def load(url: str, restart: "Callable[[], Awaitable[None]]") -> "Counter[str]":
    """Sends requests at a steady rate on kept and on new connections; returns how they ended."""
    ends: Counter[str] = Counter()
    timeout = aiohttp.ClientTimeout(total=LIMIT_S)

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        headers = {"Connection": "close"} if number % 2 else {}
        try:
            async with session.post(url, data=PICTURE, headers=headers) as response:
                text = await response.text()
                ends["ok" if response.status == 200 else f"{response.status} {text[:80]}"] += 1
        except aiohttp.ClientError as error:
            ends[f"{type(error).__name__} {error}"] += 1

    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        await steadily(lambda number: one(session, number), restart)
    return ends


async def load_grpc(port: int, restart: "Callable[[], Awaitable[None]]") -> "Counter[str]":
    """The same over gRPC, on one connection, which the client opens again when it ends."""
    ends: Counter[str] = Counter()
    request = ModelInferRequest(model_name="digits")
    image = request.inputs.add(name="image", datatype="BYTES", shape=[1])
    image.contents.bytes_contents.append(PICTURE)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer = channel.unary_unary(
            f"/{INFERENCE}/ModelInfer",
            request_serializer=ModelInferRequest.SerializeToString,
            response_deserializer=ModelInferResponse.FromString,
        )

        async def one(_: int) -> None:
            try:
                await infer(request, timeout=LIMIT_S, wait_for_ready=False)
                ends["ok"] += 1
            except grpc.aio.AioRpcError as error:
                ends[f"{error.code()} {error.details()}"] += 1

        await steadily(one, restart)
    return ends


async def steadily(one: "Callable[[int], Awaitable[None]]", restart: "Callable[[], Awaitable[None]]") -> None:
    begun_s, tasks = time.monotonic(), []
    for number in range(int(RATE_RPS * SECONDS)):
        await asyncio.sleep(max(0.0, begun_s + number / RATE_RPS - time.monotonic()))
        tasks.append(asyncio.ensure_future(one(number)))
        if number == int(RATE_RPS * RESTART_AT_S):
            tasks.append(asyncio.ensure_future(restart()))
    await asyncio.gather(*tasks)


def classify(port: int) -> str:
    return f"http://127.0.0.1:{port}/v1/classify/digits?timeout_s=30"


def test_sockets_of_systemd_stay_open_over_a_restart(edge: Running, tmp_path: Path) -> None:
    with listening() as http, Daemons(tmp_path) as daemons:
        port = http.getsockname()[1]
        config = written(tmp_path, edge, port=1)  # systemd's socket counts
        first = daemons.start(config, passed={"http": http})
        assert ready(first)["port"] == port
        assert first.poll() is None

        async def restart() -> None:
            first.send_signal(signal.SIGTERM)
            status = await asyncio.to_thread(first.wait, LIMIT_S)
            assert status == 0
            await asyncio.to_thread(ready, daemons.start(config, passed={"http": http}))

        ends = asyncio.run(load(classify(port), restart))
        assert ends == {"ok": sum(ends.values())}, daemons.logs()
        assert daemons.logs().count("listeners_passed protocol=http by=systemd") == 2


def test_grpc_s_socket_stays_open_too(edge: Running, tmp_path: Path) -> None:
    with listening() as http, listening() as other, Daemons(tmp_path) as daemons:
        port, passed = other.getsockname()[1], {"http": http, "edgeburst-grpc.socket": other}
        config = written(tmp_path, edge, port=0)
        config.write_text(config.read_text() + "[grpc]\n")
        first = daemons.start(config, passed=passed)
        assert ready(first)["grpc_port"] == port

        async def restart() -> None:
            first.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(first.wait, LIMIT_S) == 0
            await asyncio.to_thread(ready, daemons.start(config, passed=passed))

        ends = asyncio.run(load_grpc(port, restart))
        assert ends == {"ok": sum(ends.values())}, daemons.logs()
        assert daemons.logs().count("listeners_passed protocol=grpc by=systemd") == 2


def test_a_successor_gets_the_sockets_with_the_folder(edge: Running, tmp_path: Path) -> None:
    with Daemons(tmp_path) as daemons:
        config = written(tmp_path, edge, port=0, more='state = "state"')
        first = daemons.start(config)
        port = ready(first)["port"]

        async def restart() -> None:
            second = daemons.start(config, "--wait-s", str(LIMIT_S))
            # As long as a process takes to start, so that it waits when the other stops.
            while "in use" not in daemons.logs() and not _waited_for(tmp_path / "state"):
                await asyncio.sleep(0.05)
            first.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(first.wait, LIMIT_S) == 0
            assert (await asyncio.to_thread(ready, second))["port"] == port

        ends = asyncio.run(load(classify(port), restart))
        assert ends == {"ok": sum(ends.values())}, daemons.logs()
        assert "listeners_passed protocol=http by=predecessor" in daemons.logs()


def _waited_for(folder: Path) -> bool:
    """Whether a connection to the folder's socket is open, as the kernel lists it."""
    connected = "03"
    path = str((folder / "handover").resolve())
    lines = Path("/proc/net/unix").read_text().splitlines()
    return any(line.endswith(path) and line.split()[5] == connected for line in lines)


def test_systemd_starts_the_daemon_at_the_first_connection(edge: Running, tmp_path: Path) -> None:
    activate = shutil.which("systemd-socket-activate")
    if activate is None:
        pytest.skip("systemd-socket-activate is not installed (Debian's package systemd has it)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = written(tmp_path, edge, port=1)
    command = [activate, "-l", f"127.0.0.1:{port}", "--fdname=http", *serve_command(config)]
    names = [f"--setenv={name}" for name in environment({}) if name != "PATH"]
    process = subprocess.Popen(
        [command[0], *names, *command[1:]],
        cwd=ROOT,
        env=environment({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:

        async def ask() -> int:
            deadline_s = time.monotonic() + LIMIT_S
            while True:
                try:
                    async with aiohttp.ClientSession() as session, session.post(classify(port), data=PICTURE) as answer:
                        return answer.status
                except aiohttp.ClientConnectorError:
                    assert time.monotonic() < deadline_s
                    await asyncio.sleep(0.05)

        assert asyncio.run(ask()) == 200
        assert ready(process)["port"] == port
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
    finally:
        process.kill()
        process.wait(LIMIT_S)
        assert process.stdout is not None
        process.stdout.close()
