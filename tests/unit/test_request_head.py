"""Heads of requests: what ours accepts, an independent parser accepts too, and reads as the same."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp.http_parser import HttpRequestParser
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.wsgi.errors import Refused
from scheduler.wsgi.request_head import RequestHead, parse_head
from scripts.wsgi_bench.hostile import REFUSED

PIECES = (
    *(
        b"GET",
        b"POST",
        b"OPTIONS",
        b" ",
        b"  ",
        b"\t",
        b"/",
        b"/v2/models/a/infer?b=c",
        b"*",
        b"http://x:1/a",
        b"x:443",
    ),
    *(b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"\r\n", b"\n", b"\r", b"\0", b"\x7f", b"\xe4", b":", b": "),
    *(
        b"Host",
        b"host",
        b"Content-Length",
        b"Transfer-Encoding",
        b"chunked",
        b"gzip, chunked",
        b"3",
        b"03",
        b"+3",
        b"3, 3",
    ),
    *(b"X-A", b"X_A", b"Connection", b"close", b"keep-alive", b"Expect", b"100-continue", b"\x0b", b"#", b"%zz", b'"'),
)
LINE = st.sampled_from(PIECES).map(bytes) | st.binary(max_size=3)
HEADS = st.one_of(
    st.lists(LINE, max_size=30).map(b"".join),
    st.lists(st.lists(LINE, max_size=5).map(b"".join), max_size=4).map(
        lambda lines: b"POST / HTTP/1.1\r\nHost: x\r\n" + b"".join(line + b"\r\n" for line in lines)
    ),
    st.lists(
        st.sampled_from(
            [b"Content-Length: 3", b"Transfer-Encoding: chunked", b"X: y", b"Connection: close", b"content-length:4"]
        ),
        max_size=4,
    ).map(lambda lines: b"POST /a HTTP/1.1\r\nHost: x\r\n" + b"".join(line + b"\r\n" for line in lines)),
)


def theirs(head: bytes) -> tuple[str, str, tuple[int, int], dict[str, str], bool]:
    """Returns what the parser of aiohttp, which the daemon uses, reads in a head.

    Raises:
        aiohttp.http_exceptions.HttpProcessingError: it refuses it.
    """
    loop = asyncio.new_event_loop()
    try:
        parser = HttpRequestParser(_Protocol(), loop, 2**16)
        messages, _, _ = parser.feed_data(head + b"\r\n")
        [(message, _)] = messages
        headers = {name.lower(): value for name, value in message.headers.items()}
        return message.method, message.path, tuple(message.version), headers, message.chunked
    finally:
        loop.close()


class _Protocol:
    """What that parser asks of a connection."""

    _reading_paused = False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def compare(head: bytes) -> RequestHead | None:
    try:
        ours = parse_head(head, most_headers=64)
    except Refused as refused:
        told = str(refused)
    else:
        told = ""
    if told:
        assert "\n" not in told
        return None
    method, path, version, headers, chunked = theirs(head)
    assert (ours.method, (1, ours.minor), ours.chunked) == (method, version, chunked)
    assert path.endswith(ours.target) or (ours.target == "/" and "://" in path)
    assert headers.get("content-length") == (None if ours.length is None else ours.headers[b"content-length"].decode())
    assert headers.get("host") == (
        ours.headers[b"host"].decode("utf-8", "surrogateescape") if b"host" in ours.headers else None
    )
    return ours


@settings(max_examples=400, deadline=None)
@given(HEADS)
def test_what_ours_accepts_theirs_accepts_and_reads_alike(head: bytes) -> None:
    compare(head)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"GET /v2 HTTP/1.0\r\n",
        b"POST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\nX-A: \xe4\t b\r\n",
        b"POST http://x/a HTTP/1.1\r\nHost:x\r\ntransfer-encoding: Chunked\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n",
    ],
)
def test_what_is_right_is_accepted(head: bytes) -> None:
    assert compare(head) is not None


@pytest.mark.parametrize("kind", REFUSED)
def test_no_hostile_head_is_accepted_but_for_what_is_wrong_in_its_body(kind: str) -> None:
    head = REFUSED[kind].partition(b"\r\n\r\n")[0] + b"\r\n"
    accepted = compare(head) is not None
    assert accepted == (kind in ("a chunk's length with a sign", "a chunk longer than its length"))


def test_long_values_take_no_long_time() -> None:
    # One pass over each: nothing that tries again and again where a line does not fit.
    for filler in (b" ", b"\t", b"a", b"a:", b": "):
        with pytest.raises(Refused):
            parse_head(b"GET / HTTP/1.1\r\nX:" + filler * 400_000 + b"\0\r\n", most_headers=64)
