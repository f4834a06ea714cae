"""The HTTP servers of edge and function on the socket: nothing ambiguous, slow or endless gets through or stays."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.wsgi_servers import (
    BODY_LIMIT_BYTES,
    HOSTS,
    LIMIT_S,
    Served,
    answer_on,
    connect,
    limits_for,
    refused,
    serving,
)

from scheduler.wsgi.connection import KNOWN_PEER
from scripts.wsgi_bench.hostile import REFUSED

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answers with what it was given; leaves the body of /unread where it is."""
    unread = environ["PATH_INFO"] == "/unread"
    body = b"" if unread else environ["wsgi.input"].read()
    environ[KNOWN_PEER]()
    said: dict[str, Any] = {
        "path": environ["PATH_INFO"],
        "query": environ["QUERY_STRING"],
        "length": len(body),
        "crc": zlib.crc32(body),
        "headers": {name: value for name, value in environ.items() if name.startswith(("HTTP_", "CONTENT_"))},
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(said).encode()]


@pytest.fixture(scope="module", params=HOSTS)
def host(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def served(host: str) -> Iterator[Served]:
    with serving(echo, limits_for(host)) as running:
        yield running


def head(*lines: bytes, first: bytes = b"POST /x HTTP/1.1") -> bytes:
    return b"\r\n".join([first, b"Host: x", *lines, b"", b""])


def asked(port: int, sent: bytes) -> tuple[int, dict[str, Any]]:
    with connect(port) as connection:
        connection.sendall(sent)
        status, _, body = answer_on(connection)
        return status, json.loads(body)


class TestMessages:
    @pytest.mark.parametrize("kind", REFUSED)
    def test_what_can_be_read_in_two_ways_is_refused(self, served: Served, kind: str) -> None:
        status, _ = refused(served.port, REFUSED[kind])
        assert status in (400, 501)
        assert served.refused[-1] == status

    @pytest.mark.parametrize(
        ("sent", "status", "words"),
        [
            (head(b"Content-Encoding: br", b"Content-Length: 1") + b"a", 415, "Content-Encoding can only be gzip"),
            (head(b"Content-Encoding: gzip, gzip", b"Content-Length: 1") + b"a", 415, "Content-Encoding"),
            (head(b"Expect: much", b"Content-Length: 1") + b"a", 417, "Expect"),
            (head(b"Content-Length: %d" % (BODY_LIMIT_BYTES + 1)), 413, "over the limit of 100000 bytes"),
            (head(b"X-A: " + b"a" * 70_000), 431, "max_header"),
            (head(*[b"X-%d: a" % number for number in range(200)]), 431, "headers"),
            (b"\x16\x03\x01\x02\x00\x01\x00", 400, "speaks HTTP without TLS"),
            (b"\x00\x00", 400, "method"),
            (head(first=b"GET x HTTP/1.1"), 400, "must be a path"),
            (head(first=b"CONNECT x:1 HTTP/1.1"), 400, "must be a path"),
        ],
        ids=["br", "twice", "expect", "large", "header", "headers", "tls", "zeros", "path", "connect"],
    )
    def test_what_is_not_for_this_server_is_named(self, served: Served, sent: bytes, status: int, words: str) -> None:
        found, sentence = refused(served.port, sent)
        assert (found, words in sentence) == (status, True), sentence

    def test_the_application_gets_what_was_sent(self, served: Served) -> None:
        sent = (
            head(b"X-A: 1", b"x-a:  2 ", b"X_A: 3", b"Content-Length: 2", first=b"POST /a%20b?c=%20 HTTP/1.1") + b"ab"
        )
        status, said = asked(served.port, sent)
        assert status == 200
        assert (said["path"], said["query"], said["length"]) == ("/a b", "c=%20", 2)
        # A name with an underscore would read like the one with a hyphen: it is left out.
        assert said["headers"] == {"HTTP_HOST": "x", "HTTP_X_A": "1, 2", "CONTENT_LENGTH": "2"}

    def test_an_absolute_address_is_its_path(self, served: Served) -> None:
        status, said = asked(served.port, head(first=b"GET http://x:1/a?b HTTP/1.1"))
        assert (status, said["path"], said["query"]) == (200, "/a", "b")

    def test_requests_that_are_sent_ahead_are_answered_in_their_order(self, served: Served) -> None:
        with connect(served.port) as connection:
            sent = [head(b"Content-Length: %d" % size, first=b"POST /%d HTTP/1.1" % size) for size in range(5)]
            connection.sendall(b"".join(each + b"a" * size for size, each in enumerate(sent)))
            found = [json.loads(answer_on_kept(connection)) for _ in sent]
        assert [(said["path"], said["length"]) for said in found] == [(f"/{size}", size) for size in range(5)]

    def test_http_1_0_ends_the_connection_unless_it_wants_to_keep_it(self, served: Served) -> None:
        with connect(served.port) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            first = answer_on_kept(connection, "connection: keep-alive")
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            second = answer_on(connection)[2]
            assert connection.recv(1) == b""
        assert json.loads(first) == json.loads(second) | {"headers": {"HTTP_CONNECTION": "keep-alive", **NONE}}

    def test_a_client_that_has_closed_its_sending_side_gets_its_answers(self, served: Served) -> None:
        with connect(served.port) as connection:
            connection.sendall(head(b"Content-Length: 1") + b"a" + head())
            connection.shutdown(socket.SHUT_WR)
            assert json.loads(answer_on_kept(connection))["length"] == 1
            assert json.loads(answer_on_kept(connection))["length"] == 0
            assert connection.recv(1) == b""

    def test_head_has_no_body(self, served: Served) -> None:
        with connect(served.port) as connection:
            connection.sendall(head(b"Connection: close", first=b"HEAD / HTTP/1.1"))
            status, headers, body = answer_on(connection, "HEAD")
            assert (status, body) == (200, b"")
            assert int(headers["content-length"]) > 0
            assert connection.recv(1) == b""


NONE = {"CONTENT_LENGTH": "0"}


def answer_on_kept(connection: socket.socket, header: str = "") -> bytes:
    """Reads one answer byte by byte, so that nothing of the next one is taken."""
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        part = connection.recv(1)
        assert part, "the connection has ended"
        received += part
    said = received.decode("latin-1").lower()
    assert header in said
    left = int(said.partition("content-length: ")[2].partition("\r\n")[0])
    return connection.recv(left, socket.MSG_WAITALL) if left else b""


class TestBodies:
    def test_chunks_and_gzip_are_read(self, served: Served) -> None:
        content = bytes(range(256)) * 50
        packed = gzip.compress(content)
        chunks = b"".join(b"%x;a=b\r\n%s\r\n" % (len(part), part) for part in (packed[:7], packed[7:]))
        end = b"0\r\nX-Sum: 1\r\n\r\n"
        status, said = asked(served.port, head(b"Transfer-Encoding: chunked", b"Content-Encoding: gzip") + chunks + end)
        assert (status, said["length"], said["crc"]) == (200, len(content), zlib.crc32(content))
        assert said["headers"] == {"HTTP_HOST": "x"}

    def test_a_body_that_unpacks_to_more_than_the_limit_is_413(self, served: Served) -> None:
        bomb = gzip.compress(bytes(50_000_000))
        assert len(bomb) < BODY_LIMIT_BYTES
        sent = head(b"Content-Encoding: gzip", b"Content-Length: %d" % len(bomb)) + bomb
        assert refused(served.port, sent)[0] == 413

    @pytest.mark.parametrize(
        "broken",
        [b"abc", gzip.compress(b"abc")[:-1], gzip.compress(b"a") + b"b"],
        ids=["plain", "cut", "more"],
    )
    def test_what_is_not_one_gzip_stream_is_400(self, served: Served, broken: bytes) -> None:
        sent = head(b"Content-Encoding: gzip", b"Content-Length: %d" % len(broken)) + broken
        assert refused(served.port, sent)[0] == 400

    def test_chunks_without_end_are_413(self, served: Served) -> None:
        with connect(served.port) as connection:
            connection.sendall(head(b"Transfer-Encoding: chunked"))
            try:
                for _ in range(2 * BODY_LIMIT_BYTES // 1000):
                    connection.sendall(b"3e8\r\n" + bytes(1000) + b"\r\n")
            except OSError:
                pass  # the server no longer listens to it
            assert answer_on(connection)[0] == 413

    @pytest.mark.parametrize(
        "chunks",
        [b"1" * 5000, b"1\r\na\r\n0\r\n" + b"X-A: b\r\n" * 5000 + b"\r\n", b"0\r\n b: c\r\n\r\n", b"\r\n"],
        ids=["length", "trailers", "trailer", "empty"],
    )
    def test_chunks_that_are_none_are_400(self, served: Served, chunks: bytes) -> None:
        assert refused(served.port, head(b"Transfer-Encoding: chunked") + chunks)[0] == 400

    def test_the_body_is_asked_for_when_the_client_waits_for_that(self, served: Served) -> None:
        with connect(served.port) as connection:
            connection.sendall(head(b"Expect: 100-continue", b"Content-Length: 2"))
            assert connection.recv(25, socket.MSG_WAITALL) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(b"ab")
            assert json.loads(answer_on(connection)[2])["length"] == 2

    @pytest.mark.parametrize("path", [b"/unread", b"/x"])
    def test_a_body_that_is_too_large_or_left_does_not_hide_the_answer(self, served: Served, path: bytes) -> None:
        with connect(served.port) as connection:
            sent = head(b"Content-Length: 5000000", first=b"POST " + path + b" HTTP/1.1") + bytes(5_000_000)
            with ThreadPoolExecutor(1) as sender:
                sending = sender.submit(connection.sendall, sent)
                assert answer_on(connection)[0] == 413
                sending.exception(LIMIT_S)

    def test_a_short_body_that_the_application_leaves_keeps_the_connection(self, served: Served) -> None:
        with connect(served.port) as connection:
            connection.sendall(head(b"Content-Length: 4", first=b"POST /unread HTTP/1.1") + b"GET " + head())
            assert json.loads(answer_on_kept(connection))["path"] == "/unread"
            assert json.loads(answer_on_kept(connection))["path"] == "/x"

    def test_a_view_of_a_body_outlives_its_request(self, host: str) -> None:
        views: list[memoryview] = []

        def keeps(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            views.append(environ["wsgi.input"].whole())
            start_response("200 OK", [])
            return [b""]

        with serving(keeps, limits_for(host)) as running, connect(running.port) as connection:
            for letter in (b"a", b"b", b"c"):
                connection.sendall(head(b"Content-Length: 70000") + letter * 70_000)
                answer_on_kept(connection)
                if letter == b"b":
                    views.pop()
        assert [bytes(view[:3]) for view in views] == [b"aaa", b"ccc"]

    @pytest.mark.parametrize(
        "rest",
        [b"zz\r\n", b"fffff\r\n" + bytes(300_000)],
        ids=["broken", "long"],
    )
    def test_chunks_that_the_application_leaves_end_the_connection_after_the_answer(
        self, served: Served, rest: bytes
    ) -> None:
        with connect(served.port) as connection:
            connection.sendall(head(b"Transfer-Encoding: chunked", first=b"POST /unread HTTP/1.1") + rest)
            assert json.loads(answer_on_kept(connection))["path"] == "/unread"
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""


class TestDeadlines:
    @pytest.mark.parametrize(
        ("begun", "status"),
        [
            (b"GET / HTT", 408),
            (head()[:-2], 408),
            (head(b"Content-Length: 9") + b"a", 408),
            (head(b"Transfer-Encoding: chunked"), 408),
        ],
        ids=["line", "header", "body", "chunks"],
    )
    def test_a_request_that_does_not_end_is_given_up(self, host: str, begun: bytes, status: int) -> None:
        with serving(echo, replace(limits_for(host), header_s=0.1, body_s=0.1)) as running:
            found, sentence = refused(running.port, begun)
            assert (found, "did not arrive in time" in sentence) == (status, True)

    def test_neither_does_one_that_comes_byte_by_byte(self, host: str) -> None:
        with serving(echo, replace(limits_for(host), header_s=0.3)) as running, connect(running.port) as slow:
            slow.settimeout(0.02)
            received = b""
            for _ in range(500):
                try:
                    slow.sendall(b"G")
                    received = slow.recv(100)
                    break
                except TimeoutError:
                    continue
            assert received.startswith(b"HTTP/1.1 408 ")

    def test_an_idle_connection_ends_quietly(self, host: str) -> None:
        with serving(echo, replace(limits_for(host), idle_s=0.1)) as running, connect(running.port) as connection:
            connection.sendall(head())
            answer_on_kept(connection)
            assert connection.recv(1) == b""
            assert running.refused == []

    def test_a_client_that_does_not_read_is_given_up(self, host: str) -> None:
        def large(_: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [])
            return [bytes(20_000_000)]

        limits = replace(limits_for(host), answer_s=0.2, body_bytes_per_s=1e12)
        with serving(large, limits) as running, connect(running.port) as connection:
            connection.sendall(head())
            assert connection.recv(1) == b"H"
            # Its thread is free again: nothing is in hand.
            assert running.server.wait_until_answered(limit_s=LIMIT_S)


HALVES = {"idle": b"", "line": b"G", "header": head()[:-2], "body": head(b"Content-Length: 90000") + b"a"}


class TestConnections:
    @pytest.mark.parametrize("kind", HALVES)
    def test_a_hundred_that_wait_keep_no_newcomer_out(self, host: str, kind: str) -> None:
        with serving(echo, replace(limits_for(host), connections=20)) as running, ExitStack() as stack:
            own = stack.enter_context(connect(running.port))
            own.sendall(head())
            answer_on_kept(own)
            for _ in range(100):
                stack.enter_context(connect(running.port)).sendall(HALVES[kind])
            for _ in range(3):
                assert asked(running.port, head())[0] == 200
            # The address is known, and its connection that was served last is never given away.
            own.sendall(head())
            answer_on_kept(own)

    def test_where_all_have_a_request_in_hand_one_more_is_told(self, host: str) -> None:
        may_end, begun = threading.Event(), threading.Semaphore(0)

        def waits(_: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            begun.release()
            assert may_end.wait(LIMIT_S)
            start_response("200 OK", [])
            return [b"done"]

        limits = replace(limits_for(host), connections=4)
        with serving(waits, limits) as running, ThreadPoolExecutor(4) as clients:
            answers = [clients.submit(_whole, running.port, head()) for _ in range(4)]
            assert all(begun.acquire(timeout=LIMIT_S) for _ in answers)
            with connect(running.port) as connection:
                status, headers, body = answer_on(connection)
            may_end.set()
            assert [answer.result(LIMIT_S) for answer in answers] == [b"done"] * 4
        assert (status, headers["retry-after"], list(json.loads(body))) == (503, "1", ["error"])
        assert running.refused == [503]

    def test_a_fault_of_the_application_is_500_and_the_next_request_is_served(
        self, host: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fails(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/x":
                raise ValueError("secret words")
            start_response("200 OK", [("X-A", "b\r\nX-C: d")])
            return [b""]

        with serving(fails, limits_for(host)) as running:
            for first in (b"GET /x HTTP/1.1", b"GET /y HTTP/1.1"):
                status, said = asked(running.port, head(first=first))
                assert (status, said) == (500, {"error": "the server failed on this request; its log says why"})
        assert len(caplog.records) == 2

    def test_no_thread_and_no_descriptor_stays(self, host: str) -> None:
        before = threading.active_count()
        with serving(echo, limits_for(host)) as running, connect(running.port) as kept:
            kept.sendall(head())
            answer_on_kept(kept)
            assert threading.active_count() > before
        assert threading.active_count() == before


def _whole(port: int, sent: bytes) -> bytes:
    with connect(port) as connection:
        connection.sendall(sent)
        return answer_on(connection)[2]
