"""Malformed HTTP gets one sentence as JSON, from the daemon, the edge server and the function's container."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterable, Iterator
from http.client import HTTPResponse
from typing import TYPE_CHECKING, cast

import pytest
from support.fake_runner import FakeRunner
from support.ingress_server import READERS, IngressServer
from support.wsgi_servers import limits_for, serving

from scheduler.daemon.config.config import load_config
from scheduler.daemon.http import malformed
from serverless_fn.app import create_app as create_function
from serverless_fn.backend import Backend
from serverless_fn.inference import Inference

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

LIMIT_S = 30
LARGE = b"a" * 9000

CONFIG = """
[daemon]
cors_origins = ["*"]
[edge]
[[model]]
name = "digits"
edge_profile = "orin-resnet50"
"""


def get(*lines: bytes, path: bytes = b"/v2", version: bytes = b" HTTP/1.1") -> bytes:
    return (
        b"GET " + path + version + b"\r\n" + b"".join(line + b"\r\n" for line in (b"Host: localhost", *lines)) + b"\r\n"
    )


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return get(*lines, path=b"/v2/models/digits/infer").replace(b"GET", b"POST", 1) + body


MALFORMED = {
    "HTTP/2 without TLS": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "another version": get(version=b" HTTP/3.7"),
    "HTTP/0.9": b"GET /v2\r\n\r\n",
    "no request line": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
    "an umlaut in the path": get(path="/v2/models/zähler".encode()),
    "the same in latin-1": get(path="/v2/models/zähler".encode("latin-1")),
    "half an address": get(path=b"http://[::1/"),
    "a header's name in UTF-8": get("X-Ä: a".encode()),
    "two lengths": post(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "a negative length": post(b"Content-Length: -3"),
    "a length of 5000 digits": post(b"Content-Length: " + b"9" * 5000),
    "a chunk without length": post(b"Transfer-Encoding: chunked", body=b"zz\r\n"),
}
TO_THE_DAEMON = MALFORMED | {
    "a header in latin-1": get(b"X-A: \xe4\xff"),
    "a type in latin-1": post(b"Content-Type: \xe4", b"Content-Length: 2", body=b"{}"),
    "a length in latin-1": post(b"Inference-Header-Content-Length: \xb2", b"Content-Length: 2", body=b"{}"),
    "an origin in latin-1": get(b"Origin: http://a\xe4").replace(b"GET", b"OPTIONS", 1),
    "a NUL in a header": get(b"X-A: a\0b"),
    "no host": b"GET / HTTP/1.1\r\n\r\n",
}


def asked(port: int, request: bytes) -> tuple[int, dict[str, str]]:
    """Sends bytes; returns the status and the body, which must be JSON."""
    with socket.create_connection(("127.0.0.1", port), LIMIT_S) as connection:
        connection.sendall(request)
        response = HTTPResponse(connection)
        response.begin()
        assert response.headers["Content-Type"].startswith("application/json")
        return response.status, json.loads(response.read())


def refused(port: int, request: bytes, status: int = 400) -> str:
    """Returns the sentence with which a request is refused."""
    found, body = asked(port, request)
    assert (found, list(body)) == (status, ["error"])
    return body["error"]


@pytest.fixture(scope="module", params=READERS)
def daemon(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[IngressServer]:
    path = tmp_path_factory.mktemp("daemon") / "edgeburst.toml"
    path.write_text(CONFIG)
    config = load_config(path, {})
    with IngressServer(FakeRunner().parts(), config, {}, hot=READERS[request.param]) as server:
        yield server


@pytest.fixture(scope="module")
def edge() -> Iterator[int]:
    with serving(_app, limits_for("edge")) as served:
        yield served.port


@pytest.fixture(scope="module")
def function() -> Iterator[int]:
    with serving(_app, limits_for("function")) as served:
        yield served.port


@pytest.fixture(scope="module")
def hosts(edge: int, function: int) -> dict[str, int]:
    return {"edge": edge, "function": function}


def _app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [b'{"served": true}']


class TestDaemon:
    @pytest.mark.parametrize("kind", TO_THE_DAEMON)
    def test_what_is_malformed_gets_one_sentence_and_one_quiet_line(
        self, daemon: IngressServer, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        sentence = refused(daemon.port, TO_THE_DAEMON[kind])
        assert "\n" not in sentence
        assert not sentence.endswith(".")
        lines = [record for record in caplog.records if record.name != "asyncio"]
        assert [record.levelno for record in lines] == [logging.DEBUG]

    @pytest.mark.parametrize(
        "request_bytes",
        [get(b"Cookie: " + LARGE), get(path=b"/" + LARGE), get(*(b"X-%d: a" % number for number in range(200)))],
        ids=["cookie", "path", "many"],
    )
    def test_headers_beyond_the_limits_are_431(self, daemon: IngressServer, request_bytes: bytes) -> None:
        assert "8190 bytes" in refused(daemon.port, request_bytes, 431)

    def test_they_are_counted_by_status(self, daemon: IngressServer) -> None:
        def count() -> float | None:
            registry = daemon.ingress.service.telemetry.registry
            return registry.get_sample_value("edgeburst_http_errors_total", {"code": "431"})

        before = count() or 0
        refused(daemon.port, get(b"Cookie: " + LARGE), 431)
        assert count() == before + 1

    def test_a_header_in_utf8_is_text(self, daemon: IngressServer) -> None:
        status, body = asked(daemon.port, get("X-A: ä".encode()))
        assert (status, body["name"]) == (200, "edgeburst")

    def test_a_header_that_does_not_end_is_408_and_an_idle_connection_stays(
        self, daemon: IngressServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(malformed, "HEADER_LIMIT_S", 0.2)
        with socket.create_connection(("127.0.0.1", daemon.port), LIMIT_S) as idle:
            assert "did not arrive in time" in refused(daemon.port, get()[:-2], 408)
            idle.sendall(get())
            response = HTTPResponse(idle)
            response.begin()
            assert response.status == 200


class TestEdgeAndFunction:
    @pytest.mark.parametrize("host", ["edge", "function"])
    @pytest.mark.parametrize("kind", MALFORMED)
    def test_what_is_malformed_gets_one_sentence_and_no_line(
        self, hosts: dict[str, int], host: str, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        sentence = refused(hosts[host], MALFORMED[kind])
        assert "\n" not in sentence
        assert caplog.records == []

    @pytest.mark.parametrize("host", ["edge", "function"])
    def test_headers_beyond_the_limit_are_431(self, hosts: dict[str, int], host: str) -> None:
        assert "max_header" in refused(hosts[host], get(*[b"X-A: " + LARGE] * 30)[:262144], 431)

    @pytest.mark.parametrize("host", ["edge", "function"])
    def test_a_large_cookie_is_no_fault(self, hosts: dict[str, int], host: str) -> None:
        assert asked(hosts[host], get(b"Cookie: " + LARGE, path=b"/x")) == (200, {"served": True})

    def test_an_unknown_path_of_the_function_is_one_sentence(self) -> None:
        answer = create_function(Inference(cast(Backend, None), instance_id="i", log_tail=None)).test_client().get("/x")
        assert (answer.status_code, list(answer.json)) == (404, ["error"])
