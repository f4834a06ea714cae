"""A head that is read here means to aiohttp what it means here; what is unusual is not taken, nor what it is for."""

from __future__ import annotations

import asyncio
from unittest import mock

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser
from hypothesis import given
from hypothesis import strategies as st

from scheduler.daemon.http.request_head import LARGEST_HEAD, Head, HeadFields, HeadReader, plain_head, target_of

PLAIN = b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"


def with_line(line: bytes) -> bytes:
    return PLAIN[:-2] + line + b"\r\n\r\n"


UNUSUAL = {
    "another version": PLAIN.replace(b"1.1", b"1.0"),
    "a version of the future": PLAIN.replace(b"1.1", b"3.7"),
    "no version": b"GET /v2\r\n\r\n",
    "no host": b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
    "two hosts": with_line(b"Host: localhost"),
    "two lengths": with_line(b"Content-Length: 9"),
    "two unlike lengths": with_line(b"content-length: 8"),
    "a length and chunks": with_line(b"Transfer-Encoding: chunked"),
    "another transfer": with_line(b"Transfer-Encoding: identity"),
    "a length with a sign": PLAIN.replace(b": 9", b": +9"),
    "a negative length": PLAIN.replace(b": 9", b": -9"),
    "a length with a zero before it": PLAIN.replace(b": 9", b": 09"),
    "a hexadecimal length": PLAIN.replace(b": 9", b": 0x9"),
    "a list of lengths": PLAIN.replace(b": 9", b": 9, 9"),
    "an empty length": PLAIN.replace(b": 9", b":"),
    "a length of 40 digits": PLAIN.replace(b": 9", b": " + b"9" * 40),
    "a question before the body": with_line(b"Expect: 100-continue"),
    "an upgrade": with_line(b"Upgrade: h2c"),
    "trailers": with_line(b"TE: trailers"),
    "the end of the connection": with_line(b"Connection: close"),
    "a list in Connection": with_line(b"Connection: keep-alive, X-A"),
    "a line feed alone": PLAIN.replace(b"localhost\r\n", b"localhost\n"),
    "a carriage return alone": with_line(b"X-A: a\rX-B: b"),
    "a folded line": with_line(b"X-A: a\r\n b"),
    "a space before the colon": with_line(b"X-A : a"),
    "a line without a colon": with_line(b"X-A"),
    "a NUL": with_line(b"X-A: a\0b"),
    "a control character": with_line(b"X-A: a\x01b"),
    "a byte that is not ASCII": with_line(b"X-A: \xe4"),
    "UTF-8": with_line("X-A: ä".encode()),
    "a name of UTF-8": with_line("X-Ä: a".encode()),
    "more bytes than are read here": with_line(b"X-A: " + b"a" * LARGEST_HEAD),
    "many headers": with_line(b"\r\n".join(b"X-%d: a" % number for number in range(60))),
    "CONNECT": b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "no HTTP": b"hello\r\n\r\n",
    "nothing": b"\r\n\r\n",
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_what_is_unusual_is_not_taken(kind: str) -> None:
    assert plain_head(UNUSUAL[kind]) is None


def test_a_plain_head_is_read() -> None:
    head = plain_head(with_line(b"X-Edgeburst-Class: \t gold \t"))
    assert head is not None
    assert (head.method, head.path, head.length, head.size) == ("POST", "/v2/models/digits/infer", 9, len(PLAIN) + 29)
    fields = HeadFields(head.by_name)
    assert (fields["x-edgeburst-CLASS"], fields.get("X-Absent"), fields.get("HOST")) == ("gold", None, "localhost")


@pytest.mark.parametrize(
    ("target", "model"),
    [
        (b"/v2/models/digits/infer", "digits"),
        (b"/v2/models/a.b_c-d~1/versions/1/infer", "a.b_c-d~1"),
        (b"/v1/classify/digits", "digits"),
        (b"/v1/classify/digits?top=3&timeout_s=%31", "digits"),
        (b"/v1/classify/digits?", "digits"),
        (b"/v2/models/di%67its/infer", None),
        (b"/v2/models/digits/infer?a=b", None),
        (b"/v2/models/digits/infer/", None),
        (b"/v2/models//infer", None),
        (b"/v1/classify/digits#a", None),
        (b"/v1/classify/digits?a#b", None),
        (b"/v2/models/digits", None),
        (b"http://a/v1/classify/digits", None),
    ],
)
def test_only_inference_is_served_here(target: bytes, model: str | None) -> None:
    found = target_of(Head("POST", target, {}, 9, 0))
    assert (found.model if found else None) == model


@pytest.mark.parametrize(
    "head",
    [
        Head("PUT", b"/v2/models/digits/infer", {}, 9, 0),
        Head("POST", b"/v2/models/digits/infer", {}, 0, 0),
        Head("POST", b"/v2/models/digits/infer", {"content-encoding": "gzip"}, 9, 0),
        Head("POST", b"/v2/models/digits/infer", {"origin": "http://a.example"}, 9, 0),
    ],
)
def test_what_needs_more_is_not_served_here(head: Head) -> None:
    assert target_of(head) is None


LINES = st.lists(
    st.sampled_from(
        [
            b"Host: a",
            b"host:b:80",
            b"Content-Length: 9",
            b"Content-Length:\t12 ",
            b"content-length: 0",
            b"Connection: keep-alive",
            b"Connection: Upgrade",
            b"Accept: */*",
            b"X-A:",
            b"X-A: a, b",
            b"Transfer-Encoding: chunked",
            b"X-Forwarded-For: 10.0.0.1",
            b" folded",
            b"X-B: b\n",
        ]
    )
    | st.binary(max_size=12),
    max_size=6,
)
FIRST = st.sampled_from(
    [b"POST /v1/classify/a HTTP/1.1", b"GET /v2 HTTP/1.1", b"POST * HTTP/1.1", b"GET  /v2 HTTP/1.1"]
)


@given(FIRST | st.binary(max_size=30), LINES)
def test_what_is_taken_means_the_same_to_aiohttp(first: bytes, lines: list[bytes]) -> None:
    sent = b"\r\n".join([first, *lines]) + b"\r\n\r\n"
    sent = sent[: sent.index(b"\r\n\r\n") + 4]
    head = plain_head(sent)
    if head is None:
        return
    loop = mock.create_autospec(asyncio.AbstractEventLoop, instance=True)
    parser = HttpRequestParser(BaseProtocol(loop), loop, 2**16)
    try:
        [(message, payload)], upgraded, tail = parser.feed_data(sent)
    except HttpProcessingError:
        assert target_of(head) is None, "aiohttp gets the others, and says why it refuses them"
        return
    assert (message.method, message.path, upgraded, tail) == (head.method, head.target.decode(), False, b"")
    said = {name.lower(): value for name, value in message.headers.items()}
    assert len(message.headers) == len(said)
    assert int(said.pop("content-length", "0")) == head.length
    assert said == head.by_name
    assert not message.should_close
    assert payload.is_eof() == (head.length == 0)
    if head.length:
        parser.feed_data(b"x" * head.length)
        assert payload.is_eof()


LENGTHS = st.sampled_from(["9", "10", "0", "09", "1" * 20, "+9", "9 ", "9\r\nContent-Length: 8", "9\r\nX: y", ""])
NAMES = st.sampled_from(["Content-Length", "content-length", "X-Content-Length"])
TARGETS = st.sampled_from(["/v1/classify/a", "/v1/classify/a?top=2", "/v2/models/a/infer", "/v2"])


@given(st.lists(st.tuples(TARGETS, NAMES, LENGTHS, st.sampled_from(["", "\r\nHost: b", "\r\nTE: x"])), max_size=8))
def test_heads_one_after_the_other_are_read_as_each_alone(drawn: list[tuple[str, str, str, str]]) -> None:
    reader = HeadReader()
    for target, name, length, more in drawn:
        sent = f"POST {target} HTTP/1.1\r\nHost: a{more}\r\n{name}: {length}\r\nAccept: */*\r\n\r\n".encode()
        alone = plain_head(sent)
        assert reader.read(sent) == (alone, None if alone is None else target_of(alone))
