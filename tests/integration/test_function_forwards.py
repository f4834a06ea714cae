"""The function in front of another server: started by it, waited for, and its errors passed on in the frame."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from support.hygiene import python_path

from scheduler import wire
from serverless_fn.forwarding import _started

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Function:
    """A running function, and the address of the server behind it."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self._port = port

    def post(self, path: str, body: bytes = b"") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=LIMIT_S)
        connection.request("POST", path, body)
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        return response.status, answer

    def invoke(self, model: str | None, *tensors: wire.Tensor, **header: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the frame's header, and the outputs by name."""
        request = wire.encode_request(wire.InferRequest("r-1", tensors)) if tensors else wire.Encoded(b"", None)
        named = {} if model is None else {"model": model}
        frame = wire.pack_frame({"batch_id": "b-1", **named, **header}, request)
        head, payload = wire.unpack_frame(self.post("/invoke", frame)[1])
        if not payload.body:
            return head, {}
        answer = wire.parse_response(payload.body, payload.json_length)
        return head, {tensor.name: tensor.to_numpy().tolist() for tensor in answer.outputs}


@contextmanager
def running(
    server_options: Sequence[str] = (), options: Sequence[str] = (), *, starts: bool = True
) -> Iterator[Function]:
    port, behind = free_port(), free_port()
    server = [sys.executable, "-m", "support.foreign_oip_server", str(behind), *server_options]
    command = [sys.executable, "-m", "serverless_fn", "--forward", f"http://127.0.0.1:{behind}", *options]
    environ = {
        **os.environ,
        "FC_CUSTOM_LISTEN_PORT": str(port),
        "EDGEBURST_LISTEN_HOST": "127.0.0.1",
        "PYTHONPATH": python_path(ROOT, ROOT / "tests"),
    }
    process = subprocess.Popen(
        [*command, "--", *server] if starts else command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True
    )
    try:
        end_s = time.monotonic() + LIMIT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert time.monotonic() < end_s
                time.sleep(0.02)
        yield Function(process, port)
    finally:
        process.terminate()
        process.communicate(timeout=LIMIT_S)


def numbers(*values: float) -> wire.Tensor:
    return wire.Tensor.from_numpy("x", np.array(values, np.float32))


def elements(*values: bytes) -> wire.Tensor:
    return wire.Tensor.from_elements("x", values)


@pytest.fixture(scope="module", params=["binary", "json"])
def function(request: pytest.FixtureRequest) -> Iterator[Function]:
    only_json = request.param == "json"
    with running(("--json-only",) if only_json else (), ("--forward-tensors", request.param)) as started:
        assert started.post("/initialize")[0] == 200
        yield started


def test_a_batch_goes_there_and_its_answer_comes_back(function: Function) -> None:
    header, outputs = function.invoke("doubling", numbers(1, 2.5))

    assert outputs == {"y": [2, 5]}
    assert (header["status"], header["batch_id"]) == (200, "b-1")
    assert 0 < header["service_s"] <= header["duration_s"]
    assert header["runtime"].startswith("forwarded to http://127.0.0.1:")
    assert header["memory_bytes"] > 2**23


def test_pictures_and_texts_go_there_as_they_are(function: Function) -> None:
    assert function.invoke("lengths", elements(b"\x89PNG\x00\xff", b"x"))[1] == {"n": [6, 1]}
    assert function.invoke("lengths", elements("süß".encode(), b""))[1] == {"n": [5, 0]}


@pytest.mark.parametrize(
    ("model", "status", "words"),
    [
        ("bad", 400, "the server answered 400: wrong shape"),
        ("missing", 404, "the server answered 404: no such model"),
        ("busy", 500, "the server answered 503: queue full"),
        (None, 400, "names no model"),
        ("crumbs", 500, "the server's answer cannot be read"),
    ],
)
def test_its_errors_become_the_frames(function: Function, model: str | None, status: int, words: str) -> None:
    header, outputs = function.invoke(model, numbers(1))

    assert (header["status"], outputs) == (status, {})
    assert words in header["error"]


def test_the_trace_of_a_batch_goes_there_too(function: Function) -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    x = wire.Tensor.from_numpy("x", np.ones(1, np.float32))
    for trace, words in (
        ({"traceparent": parent, "tracestate": "a=1"}, f"traceparent={parent} tracestate=a=1"),
        ({"traceparent": "x\r\ny: z"}, "the server answered 400: "),
    ):
        header, _ = function.invoke("traced", x, **trace)
        assert header["error"].endswith(words)


def test_the_server_outlives_the_thread_that_starts_it() -> None:
    started: list[subprocess.Popen[bytes]] = []
    thread = threading.Thread(target=lambda: started.append(_started(("sleep", "60"))))
    thread.start()
    thread.join()
    with pytest.raises(subprocess.TimeoutExpired):
        started[0].wait(timeout=0.3)
    started[0].kill()
    started[0].wait(timeout=LIMIT_S)


def test_a_warming_call_reaches_no_model(function: Function) -> None:
    assert function.invoke("busy", warm=True)[0]["status"] == 200


def test_the_initializer_waits_until_the_server_is_ready() -> None:
    with running(("--ready-after-s", "0.5")) as function:
        assert function.post("/initialize")[0] == 200
        assert function.invoke("doubling", numbers(1))[0]["init_s"] >= 0.5


def test_a_server_that_is_not_ready_in_time_fails_the_initializer() -> None:
    with running(options=("--forward-limit-s", "0.3"), starts=False) as function:
        status, answer = function.post("/initialize")

    assert status == 404
    assert b"is not ready after 0.3 s" in answer


def test_a_server_that_ends_at_once_fails_the_initializer_with_its_status() -> None:
    with running(("--end-with", "7")) as function:
        status, answer = function.post("/initialize")

    assert status == 404
    assert b"has ended with status 7 before it was ready" in answer


@pytest.mark.parametrize("how", ["die", "die-slowly"])
def test_a_server_that_dies_fails_its_batch_and_is_started_again_for_the_next(how: str) -> None:
    with running() as function:
        assert function.invoke("doubling", numbers(1))[1] == {"y": [2]}
        header, _ = function.invoke(how, numbers(1))
        assert header["status"] == 500
        assert "does not answer" in header["error"]
        assert function.invoke("doubling", numbers(3))[1] == {"y": [6]}


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_the_server_ends_with_the_function(sent: signal.Signals) -> None:
    with running() as function:
        assert function.post("/initialize")[0] == 200
        [server] = psutil.Process(function.process.pid).children()
        function.process.send_signal(sent)
        function.process.wait(timeout=LIMIT_S)

        server.wait(timeout=LIMIT_S)


def test_a_command_without_forward_is_one_sentence() -> None:
    command = [sys.executable, "-m", "serverless_fn", "--", "server"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)

    assert (done.returncode, done.stderr) == (
        2,
        "a command after -- starts the server that --forward names: add --forward\n",
    )


def test_a_command_that_is_not_there_fails_the_initializer() -> None:
    with running(options=("--", "/nowhere/server"), starts=False) as function:
        status, answer = function.post("/initialize")

    assert status == 404
    assert b"the server '/nowhere/server' cannot be started (No such file or directory)" in answer
