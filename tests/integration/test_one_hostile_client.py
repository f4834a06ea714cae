"""One client that asks for more than its share gives way; another one is answered as if it were alone."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fake_runner import FakeRunner
from support.ingress_server import READERS, IngressServer

from scheduler.daemon.config.config import load_config
from scheduler.daemon.ingress import large_json

GREEDY, HONEST = "127.0.0.1", "127.0.0.2"
CONFIG = """
[daemon]
body_limit_bytes = 2000000
trusted_proxies = ["127.0.0.9"]
[engine]
queue_max_requests = 6
[edge]
[[model]]
name = "digits"
edge_profile = "orin-resnet50"
"""


@pytest.fixture(params=READERS)
def running(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[IngressServer, FakeRunner]]:
    path = tmp_path / "edgeburst.toml"
    path.write_text(CONFIG)
    runner = FakeRunner()
    with IngressServer(runner.parts(), load_config(path, {}), {}, hot=READERS[request.param]) as server:
        yield server, runner
        server.on_loop(server.ingress.service.large_json.close)


def ask(port: int, address: str, body: bytes = b"a picture", **headers: str) -> tuple[int, Any, str | None]:
    """Sends a picture from an address; returns status, JSON and Retry-After."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30, source_address=(address, 0))
    try:
        given = {"Content-Type": "image/png", **{name.replace("_", "-"): value for name, value in headers.items()}}
        connection.request("POST", "/v1/classify/digits", body, given)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), answer.getheader("Retry-After")
    finally:
        connection.close()


def until(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(0.005)


class Asking:
    """Requests that are sent at the same time, each in a thread."""

    def __init__(self, port: int, address: str, count: int, **headers: str) -> None:
        self.answers: list[tuple[int, Any, str | None]] = []

        def one() -> None:
            self.answers.append(ask(port, address, **headers))

        self.threads = [threading.Thread(target=one, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def end(self) -> list[int]:
        for thread in self.threads:
            thread.join(30)
        return sorted(status for status, _, _ in self.answers)


def test_in_a_full_queue_the_greedy_one_gives_its_place_to_a_newcomer(
    running: tuple[IngressServer, FakeRunner],
) -> None:
    server, runner = running
    runner.hold = True
    greedy = Asking(server.port, GREEDY, 6)
    until(lambda: runner.held == 6)
    honest = Asking(server.port, HONEST, 2)
    until(lambda: len(greedy.answers) == 2 and runner.held == 6)
    refused = ask(server.port, GREEDY)
    assert refused[0] == 429
    assert refused[1]["error"].startswith("the queue is full, and this client holds 4 of its 6 places")
    assert refused[2] == "1"
    assert honest.answers == []
    server.on_loop(runner.let_go)
    assert honest.end() == [200, 200]
    assert greedy.end() == [200, 200, 200, 200, 429, 429]


def test_behind_a_trusted_proxy_each_client_has_its_own_share(running: tuple[IngressServer, FakeRunner]) -> None:
    server, runner = running
    runner.hold = True
    greedy = Asking(server.port, "127.0.0.9", 6, X_Forwarded_For="203.0.113.1")
    until(lambda: runner.held == 6)
    honest = Asking(server.port, "127.0.0.9", 1, X_Forwarded_For="203.0.113.1, 198.51.100.7")
    until(lambda: len(greedy.answers) == 1 and runner.held == 6)
    server.on_loop(runner.let_go)
    assert honest.end() == [200]
    assert greedy.end() == [200] * 5 + [429]


def test_large_json_of_one_client_holds_up_neither_the_loop_nor_the_json_of_another(
    running: tuple[IngressServer, FakeRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = running
    monkeypatch.setattr(large_json, "WAITING_OF_CLIENT", 1)
    values = ",".join(["1"] * 300_000)
    text = f'{{"inputs":[{{"name":"image","shape":[300000],"datatype":"FP32","data":[{values}]}}]}}'.encode()

    def send(address: str, found: list[tuple[int, str]]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60, source_address=(address, 0))
        connection.request("POST", "/v2/models/digits/infer", text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        found.append((answer.status, json.loads(answer.read())["error"]))
        connection.close()

    of_greedy: list[tuple[int, str]] = []
    greedy = [threading.Thread(target=send, args=(GREEDY, of_greedy), daemon=True) for _ in range(4)]
    for thread in greedy:
        thread.start()
    of_honest: list[tuple[int, str]] = []
    send(HONEST, of_honest)
    assert ask(server.port, HONEST)[0] == 200
    for thread in greedy:
        thread.join(60)
    assert "image" in of_honest[0][1]
    # What is valid JSON and no picture is refused by the model's card, in both processes alike.
    assert {status for status, _ in of_greedy + of_honest} == {400}


def test_idle_connections_and_unfinished_bodies_hold_up_nothing(running: tuple[IngressServer, FakeRunner]) -> None:
    server, _ = running
    begun = b"POST /v1/classify/digits HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1999999\r\n\r\n" + b"x" * 1000
    texts = [b"", b"POST /v1/classify/digits HTTP/1.1\r\nHost: loc", begun] * 34
    with_text = [(socket.create_connection(("127.0.0.1", server.port), timeout=10), text) for text in texts]
    for connection, text in with_text:
        connection.sendall(text)
    assert Asking(server.port, HONEST, 5).end() == [200] * 5
    for connection, _ in with_text:
        connection.close()


class ManyBatches(FakeRunner):
    """Has many batches to tell of, each in a row of a kilobyte."""

    count = 9_990

    def batches(self, after_id: int, limit: int) -> list[dict[str, object]]:
        last = min(self.count, after_id + limit)
        return [{"record": number, "pad": "x" * 1000} for number in range(after_id + 1, last + 1)]


@pytest.fixture
def telling(tmp_path: Path) -> Iterator[tuple[IngressServer, ManyBatches]]:
    path = tmp_path / "edgeburst.toml"
    path.write_text(CONFIG)
    runner = ManyBatches()
    with IngressServer(runner.parts(), load_config(path, {}), {}) as server:
        yield server, runner


def read(server: IngressServer, path: str, address: str = HONEST) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30, source_address=(address, 0))
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_batches_come_in_pages_with_a_cursor_or_all_at_once(telling: tuple[IngressServer, ManyBatches]) -> None:
    server, runner = telling
    whole = read(server, "/v1/batches?limit=10000")[1]
    assert [row["record"] for row in whole["batches"]] == list(range(1, runner.count + 1))
    assert whole["next"] is None
    found, cursor = [], 0
    while cursor is not None:
        page = read(server, f"/v1/batches?after={cursor}&limit=4000")[1]
        found += page["batches"]
        cursor = page["next"]
    assert found == whole["batches"]
    assert read(server, "/v1/batches?after=9990")[1] == {"batches": [], "next": None}
    assert read(server, "/v1/batches?limit=10001")[0] == 400


def test_a_client_that_reads_nothing_of_what_it_asks_for_keeps_nothing_from_others(
    telling: tuple[IngressServer, ManyBatches],
) -> None:
    server, _ = telling
    ask_all = b"GET /v1/batches?limit=10000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    connections = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(30)]
    for connection in connections:
        connection.sendall(ask_all * 4)
    assert len(read(server, "/v1/batches?limit=500")[1]["batches"]) == 500
    assert read(server, "/v1/status")[1]["ready"]
    assert Asking(server.port, HONEST, 5).end() == [200] * 5
    turned_away = [connection for connection in connections if b" 429 " in peeked(connection)]
    assert len(turned_away) >= 30 - 16 - 4
    for connection in connections:
        connection.close()


def peeked(connection: socket.socket) -> bytes:
    connection.setblocking(False)
    try:
        return connection.recv(64)
    except BlockingIOError:
        return b""


def test_explanations_of_one_id_come_in_pages(running: tuple[IngressServer, FakeRunner]) -> None:
    server, _ = running
    for _ in range(45):
        assert ask(server.port, HONEST, X_Request_Id="again")[0] == 200
    found, following = [], ""
    while True:
        page = read(server, f"/v1/explain/again{following}")[1]
        found += [each["request_id"] for each in page["explanations"]]
        if page["next"] is None:
            break
        following = f"?before={page['next']}"
    assert found == list(range(45, 0, -1))
    assert read(server, "/v1/explain/again?before=x")[0] == 400


def test_the_rest_of_a_packed_body_that_is_too_large_is_not_unpacked(running: tuple[IngressServer, FakeRunner]) -> None:
    server, _ = running
    packed = gzip.compress(bytes(50_000_000))
    fields = f"Host: localhost\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}"
    head = f"POST /v1/classify/digits HTTP/1.1\r\n{fields}"
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        # The last bytes never come: a server that reads on would wait for them.
        connection.sendall(f"{head}\r\n\r\n".encode() + packed[:-9])
        found = b""
        while chunk := connection.recv(65536):
            found += chunk
    assert found.startswith(b"HTTP/1.1 413 ")
