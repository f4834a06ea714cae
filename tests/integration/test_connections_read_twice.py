"""The daemon's own reader of HTTP and aiohttp alone answer alike, however requests are mixed and cut into pieces."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.certificates import Authority
from support.fake_runner import FakeRunner
from support.ingress_server import READERS, IngressServer

from scheduler import wire
from scheduler.daemon.config.config import load_config
from scheduler.daemon.http.connection import Connection, State

CONFIG = """
[daemon]
body_limit_bytes = 300000
cors_origins = ["https://shop.example"]
[edge]
[[model]]
name = "digits"
edge_profile = "orin-resnet50"
"""
LIMIT_S = 20

# Its first loop opens a pipe that the process keeps.
uvloop.new_event_loop().close()


def request(method: str, path: str, body: bytes = b"", *headers: str, version: str = "1.1") -> bytes:
    length = [f"Content-Length: {len(body)}"] if body else []
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", *headers, *length, "", ""]
    return "\r\n".join(lines).encode() + body


def infer(picture: bytes, *headers: str) -> bytes:
    tensor = wire.Tensor.from_elements("image", [picture])
    encoded = wire.encode_request(wire.InferRequest("r", (tensor,), binary_by_default=True))
    said = [f"{name}: {value}" for name, value in encoded.headers.items()]
    return request("POST", "/v2/models/digits/infer", encoded.body, *said, *headers)


CHUNKED = request("POST", "/v1/classify/digits", b"", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n"
REQUESTS = {
    "infer": infer(b"a picture"),
    "a large one": infer(bytes(range(256)) * 1000),
    "classify": request("POST", "/v1/classify/digits", b"a picture"),
    "classify with a query": request("POST", "/v1/classify/digits?top=2", b"a picture"),
    "a traced one": infer(b"x", "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    "packed": request("POST", "/v1/classify/digits?top=10", b"x", "Accept-Encoding: gzip"),
    "a wrong query": request("POST", "/v1/classify/digits?tops=2", b"a picture"),
    "a wrong type": request("POST", "/v1/classify/digits", b"a=b", "Content-Type: text/html"),
    "a body that is no request": request("POST", "/v2/models/digits/infer", b"{}"),
    "an unknown model": request("POST", "/v2/models/dogs/infer", b"{}"),
    "an unknown class": infer(b"x", "X-Edgeburst-Class: gold"),
    "another host": infer(b"x").replace(b"Host: localhost", b"Host: evil.example"),
    "a page that may ask": infer(b"x", "Origin: https://shop.example"),
    "a page that may not": infer(b"x", "Origin: https://evil.example"),
    "a body that is empty": request("POST", "/v2/models/digits/infer", b"", "Content-Length: 0"),
    "a body that is too large": request("POST", "/v1/classify/digits", b"x" * 300_001),
    "health": request("GET", "/v2/health/ready"),
    "metadata": request("GET", "/v2/models/digits"),
    "an unknown path": request("GET", "/v3"),
    "another method": request("DELETE", "/v2/models/digits/infer"),
    "a question with a body": request("GET", "/v2/health/live", b"why"),
    "chunks": CHUNKED,
}
LAST = {
    "nothing": b"",
    "the last of its connection": infer(b"x", "Connection: close"),
    "HTTP/1.0": request("POST", "/v1/classify/digits", b"x", version="1.0"),
}
MALFORMED = {
    "half a head": infer(b"x")[:60],
    "half a body": infer(b"a picture")[:-3],
    "no HTTP": b"hello\r\n\r\n",
    "a length and chunks": request("POST", "/v1/classify/digits", b"0\r\n\r\n", "Transfer-Encoding: chunked"),
    "two lengths": request("POST", "/v1/classify/digits", b"abc", "Content-Length: 4"),
    "a line feed alone": infer(b"x").replace(b"localhost\r\n", b"localhost\n"),
}
VARYING = re.compile(rb"Date: [^\r]*\r\n|Connection: [^\r]*\r\n|(?i:X-Edgeburst-Request-Id): [^\r]*\r\n")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, IngressServer]]:
    path = tmp_path_factory.mktemp("config") / "edgeburst.toml"
    path.write_text(CONFIG)
    config = load_config(path, {})
    with (
        IngressServer(FakeRunner(clock=lambda: 5.0).parts(), config, {}, hot=READERS["own"]) as own,
        IngressServer(FakeRunner(clock=lambda: 5.0).parts(), config, {}, hot=READERS["aiohttp"]) as aiohttp,
    ):
        yield {"own": own, "aiohttp": aiohttp}


def answers(server: IngressServer, pieces: list[bytes]) -> list[tuple[object, ...]]:
    """Returns the answers to pieces, without what differs from request to request: heads, and bodies."""
    with socket.create_connection(("127.0.0.1", server.port), LIMIT_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found = bytearray()
        try:
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(65536):
                found += more
        except ConnectionError:
            pass  # it has refused a request, and the rest of what was sent met a closed connection
    return list(parted(bytes(found)))


def parted(found: bytes) -> Iterator[tuple[object, ...]]:
    while found:
        head, _, rest = found.partition(b"\r\n\r\n")
        length = int(re.findall(rb"(?i)\r\ncontent-length: (\d+)", head)[-1]) if b" 100 " not in head[:14] else 0
        body, found = rest[:length], rest[length:]
        lines = sorted(VARYING.sub(b"", head + b"\r\n").split(b"\r\n"))
        yield (
            tuple(line for line in lines if not re.match(rb"(?i)(inference-header-)?content-length", line)),
            plain(body),
        )


def plain(body: bytes) -> object:
    """Returns a body without the number of its request."""
    try:
        said: Any = json.loads(body[: body.rfind(b"}") + 1])
    except ValueError:
        return body
    for entry in (said, said.get("parameters", {})):
        for name in ("request_id", "batch_id", "latency_s"):
            entry.pop(name, None)
    return said


@given(
    st.lists(st.sampled_from(sorted(REQUESTS)), max_size=5),
    st.sampled_from(sorted(LAST)),
    st.lists(st.integers(0, 2000), max_size=6),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_all_that_is_sent_at_once_is_answered_alike(
    servers: dict[str, IngressServer], names: list[str], last: str, cuts: list[int]
) -> None:
    sent = b"".join(REQUESTS[name] for name in names) + LAST[last]
    edges = [0, *sorted(min(cut, len(sent)) for cut in cuts), len(sent)]
    pieces = [sent[start:end] for start, end in zip(edges, edges[1:], strict=False)]
    assert answers(servers["own"], pieces) == answers(servers["aiohttp"], pieces)


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_refused_alike(servers: dict[str, IngressServer], name: str) -> None:
    """Alone: of several requests that arrive at once, aiohttp forgets those before a malformed one."""
    sent = MALFORMED[name]
    for pieces in ([sent], [sent[:20], sent[20:]]):
        assert answers(servers["own"], pieces) == answers(servers["aiohttp"], pieces)


@pytest.mark.parametrize("name", REQUESTS)
def test_one_after_the_other_is_answered_alike(servers: dict[str, IngressServer], name: str) -> None:
    def asked(server: IngressServer) -> list[tuple[object, ...]]:
        found: list[tuple[object, ...]] = []
        with socket.create_connection(("127.0.0.1", server.port), LIMIT_S) as connection:
            for each in (REQUESTS["health"], REQUESTS[name], REQUESTS["infer"]):
                connection.sendall(each)
                heard = b""
                while not heard or not whole(heard):
                    heard += connection.recv(65536)
                found += parted(heard)
        return found

    assert asked(servers["own"]) == asked(servers["aiohttp"])


def whole(heard: bytes) -> bool:
    head, end, body = heard.partition(b"\r\n\r\n")
    return bool(end) and len(body) >= int(re.findall(rb"(?i)\r\ncontent-length: (\d+)", head)[-1])


def test_a_connection_that_was_lent_is_taken_back(
    servers: dict[str, IngressServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Health checks and inference over one connection, as Triton's client sends them."""

    states: list[State] = []
    before = Connection._work

    def noted(self: Connection, *arguments: Any) -> None:
        states.append(self._state)
        before(self, *arguments)

    monkeypatch.setattr(Connection, "_work", noted)
    with socket.create_connection(("127.0.0.1", servers["own"].port), LIMIT_S) as connection:
        for each in (REQUESTS["metadata"], REQUESTS["infer"], REQUESTS["health"], REQUESTS["classify"]):
            connection.sendall(each)
            heard = b""
            while not whole(heard):
                heard += connection.recv(65536)
            assert heard.startswith(b"HTTP/1.1 200 OK")
            time.sleep(0.05)  # until aiohttp waits for its next request
    assert len(states) == 2


@pytest.mark.parametrize("sent", ["metadata", "infer", "chunks"])
def test_a_connection_that_waits_ends_when_the_process_takes_no_more(tmp_path: Path, sent: str) -> None:
    (tmp_path / "edgeburst.toml").write_text(CONFIG)
    config = load_config(tmp_path / "edgeburst.toml", {})
    with ExitStack() as stack:
        server = stack.enter_context(IngressServer(FakeRunner(clock=lambda: 5.0).parts(), config, {}))
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), LIMIT_S))
        connection.sendall(REQUESTS[sent])
        heard = b""
        while not whole(heard):
            heard += connection.recv(65536)
        time.sleep(0.05)  # until it waits for its next request
        server.on_loop(server.pre_shutdown)
        connection.settimeout(LIMIT_S)
        assert connection.recv(1) == b""


def test_a_chunked_request_gives_the_connection_away(servers: dict[str, IngressServer]) -> None:
    with socket.create_connection(("127.0.0.1", servers["own"].port), LIMIT_S) as connection:
        for _ in range(2):
            connection.sendall(CHUNKED)
            heard = b""
            while not whole(heard):
                heard += connection.recv(65536)
        [kept] = servers["own"].connections()
        assert kept._state is State.GIVEN


@pytest.mark.parametrize("over", ["tcp", "tls", "unix"])
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_bodies_of_all_sizes_arrive_over_each_kind_of_socket(
    tmp_path: Path, over: str, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    path = tmp_path / "edgeburst.toml"
    path.write_text(CONFIG)
    authority = Authority(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.server().pair)
    runner, unix = FakeRunner(), tmp_path / "s"
    served = IngressServer(
        runner.parts(), load_config(path, {}), {}, loop=loop(), tls=context if over == "tls" else None, unix=unix
    )
    pictures = [bytes([size % 251]) * size for size in (1, 1000, 60_000, 65_000, 70_000, 250_000)]
    with served as server, ExitStack() as stack:
        if over == "unix":
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(str(unix))
        else:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), LIMIT_S))
        if over == "tls":
            trusting = ssl.create_default_context(cafile=authority.ca_file)
            connection = stack.enter_context(trusting.wrap_socket(connection, server_hostname="localhost"))
        for picture in pictures:
            for sent in (infer(picture), request("POST", "/v1/classify/digits", picture)):
                connection.sendall(sent)
                heard = b""
                while not heard or not whole(heard):
                    heard += connection.recv(65536)
                assert heard.startswith(b"HTTP/1.1 200 OK")
        # Two pieces, with the head in the first.
        for picture in pictures:
            sent = infer(picture)
            cut = sent.index(b"\r\n\r\n") + 4 + min(len(picture), 500) // 2
            connection.sendall(sent[:cut])
            time.sleep(0.02)
            connection.sendall(sent[cut:])
            heard = b""
            while not heard or not whole(heard):
                heard += connection.recv(65536)
            assert heard.startswith(b"HTTP/1.1 200 OK")
        [kept] = server.connections()
        assert kept._lent is None, "aiohttp was needed for none of them"
    assert [call.inputs[0].elements()[0] for call in runner.calls] == [
        *(picture for picture in pictures for _ in range(2)),
        *pictures,
    ]


def test_a_client_that_takes_no_answers_holds_up_its_own_requests_only(servers: dict[str, IngressServer]) -> None:
    """What is written waits for it; what it sends is read up to a limit; nothing is lost when it reads again."""
    many, each = 400, REQUESTS["a large one"]
    with socket.create_connection(("127.0.0.1", servers["own"].port), LIMIT_S) as connection:
        sender = threading.Thread(target=connection.sendall, args=(REQUESTS["infer"] * many + each,))
        sender.start()
        time.sleep(0.2)
        assert answers(servers["own"], [REQUESTS["infer"]])
        heard = b""
        while heard.count(b"HTTP/1.1 200 OK") < many + 1:
            heard += connection.recv(65536)
        sender.join(LIMIT_S)
