"""A client that closes its side after its request gets its answer; one that has gone has its request cancelled."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest
from support.fake_runner import FakeRunner
from support.ingress_server import READERS, IngressServer

from scheduler.daemon.config.config import load_config

CONFIG = """
[edge]
[[model]]
name = "digits"
edge_profile = "orin-resnet50"
"""
BODY = b"a picture"
REQUEST = b"POST /v1/classify/digits HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


@pytest.fixture(scope="module", params=READERS)
def serving(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[tuple[IngressServer, FakeRunner]]:
    path = tmp_path_factory.mktemp("config") / "edgeburst.toml"
    path.write_text(CONFIG)
    runner = FakeRunner()
    with IngressServer(runner.parts(), load_config(path, {}), {}, hot=READERS[request.param]) as server:
        yield server, runner


@pytest.fixture
def running(serving: tuple[IngressServer, FakeRunner]) -> Iterator[tuple[IngressServer, FakeRunner]]:
    serving[1].calls.clear()
    serving[1].cancelled.clear()
    yield serving
    serving[0].on_loop(serving[1].let_go)


def sent(server: IngressServer, text: bytes) -> socket.socket:
    """Sends a text and closes this side."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    connection.sendall(text)
    connection.shutdown(socket.SHUT_WR)
    return connection


def answers(connection: socket.socket) -> bytes:
    """Returns all that comes until the server closes its side too."""
    found = b""
    while chunk := connection.recv(65536):
        found += chunk
    connection.close()
    return found


def until(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(0.005)


def test_it_gets_its_answer_and_then_the_end(running: tuple[IngressServer, FakeRunner]) -> None:
    for found in [answers(each) for each in [sent(running[0], REQUEST) for _ in range(20)]]:
        assert found.startswith(b"HTTP/1.1 200 OK\r\n")


def test_an_answer_that_takes_its_time_comes_after_an_interim_one(running: tuple[IngressServer, FakeRunner]) -> None:
    server, runner = running
    runner.hold = True
    connection = sent(server, REQUEST)
    assert connection.recv(25, socket.MSG_WAITALL) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert runner.cancelled == []
    server.on_loop(runner.let_go)
    assert answers(connection).startswith(b"HTTP/1.1 200 OK\r\n")


def test_an_old_client_gets_no_interim_answer(running: tuple[IngressServer, FakeRunner]) -> None:
    server, runner = running
    runner.hold = True
    connection = sent(server, REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"))
    until(lambda: runner.held == 1)
    connection.settimeout(0.4)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    connection.settimeout(20)
    server.on_loop(runner.let_go)
    assert answers(connection).startswith(b"HTTP/1.0 200 OK\r\n")


def test_several_requests_on_one_connection_are_all_answered(running: tuple[IngressServer, FakeRunner]) -> None:
    found = answers(sent(running[0], REQUEST * 3))
    assert found.count(b"HTTP/1.1 200 OK\r\n") == 3


def test_one_that_has_gone_has_its_request_cancelled(running: tuple[IngressServer, FakeRunner]) -> None:
    server, runner = running
    runner.hold = True
    sent(server, REQUEST).close()
    until(lambda: len(runner.cancelled) == 1)


def test_without_a_whole_request_the_connection_ends(running: tuple[IngressServer, FakeRunner]) -> None:
    for begun in (b"", REQUEST[:20], REQUEST[:-2]):
        assert answers(sent(running[0], begun)) == b""
    assert running[1].calls == []
