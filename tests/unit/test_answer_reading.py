"""An answer of HTTP is read alike however it is cut, within its limit; what is no answer of HTTP breaks the call."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.daemon.backends.answer_reading import LARGEST_HEAD, AnswerReading
from scheduler.daemon.backends.bounded_reading import TooLarge

BODY = bytes(range(256)) * 3


def answer(*lines: bytes, body: bytes = BODY, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([status, *lines, b"", b""]) + body


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


LENGTH = b"Content-Length: %d" % len(BODY)
WHOLE = {
    "of a length": answer(LENGTH, b"X-A: \t a "),
    "in chunks": answer(b"Transfer-Encoding: chunked", body=chunked(BODY, 100)),
    "after interim ones": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + answer(LENGTH),
    "an error": answer(LENGTH, status=b"HTTP/1.1 503 Busy"),
    "of the last call": answer(LENGTH, b"Connection: close"),
    "without a body": answer(b"Content-Length: 0", body=b""),
    "without content": answer(status=b"HTTP/1.1 204 No Content", body=b""),
}
BROKEN = {
    "no HTTP": b"<html>no</html>\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "two lengths": answer(LENGTH, b"Content-Length: 5"),
    "a length and chunks": answer(LENGTH, b"Transfer-Encoding: chunked"),
    "a length that is none": answer(b"Content-Length: many"),
    "a negative length": answer(b"Content-Length: -1"),
    "a chunk without length": answer(b"Transfer-Encoding: chunked", body=b"zz\r\n"),
    "a head without end": b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * LARGEST_HEAD,
    "interim ones without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 5000,
}


def read(sent: bytes, cuts: list[int], limit_bytes: int = 10**6) -> AnswerReading:
    """Reads an answer in pieces; it is whole with the last one, and not before."""
    reading = AnswerReading(limit_bytes)
    edges = [0, *sorted(cut % len(sent) for cut in cuts), len(sent)]
    pieces = [sent[start:end] for start, end in zip(edges, edges[1:], strict=False) if end > start]
    ended = [reading.feed(piece) for piece in pieces]
    assert ended == [False] * (len(pieces) - 1) + [True]
    return reading


@pytest.mark.parametrize("kind", WHOLE)
@given(cuts=st.lists(st.integers(0, 2000), max_size=8))
def test_it_is_read_alike_however_it_is_cut(kind: str, cuts: list[int]) -> None:
    reading = read(WHOLE[kind], cuts)
    assert reading.status == {"an error": 503, "without content": 204}.get(kind, 200)
    assert bytes(reading.body()) == (b"" if kind.startswith("without") else BODY)
    assert reading.keeps == (kind != "of the last call")
    if kind == "of a length":
        assert reading.by_name["x-a"] == "a"


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_answer_breaks_the_call(kind: str) -> None:
    with pytest.raises(ConnectionError):
        AnswerReading(10**6).feed(BROKEN[kind])


@pytest.mark.parametrize("kind", ["of a length", "in chunks"])
def test_one_that_is_too_large_is_not_read_to_its_end(kind: str) -> None:
    with pytest.raises(TooLarge):
        read(WHOLE[kind], [200], limit_bytes=len(BODY) - 1)


def test_one_without_a_length_ends_with_its_connection() -> None:
    reading = AnswerReading(10**6)
    assert not reading.feed(answer())
    assert (reading.ends_with_connection, reading.keeps, bytes(reading.body())) == (True, False, BODY)


def test_bytes_behind_an_answer_end_its_connection() -> None:
    reading = AnswerReading(10**6)
    assert reading.feed(WHOLE["of a length"] + b"HTTP/1.1 200 OK")
    assert (bytes(reading.body()), reading.keeps) == (BODY, False)


def test_interim_answers_that_come_one_by_one_without_end_break_the_call() -> None:
    reading = AnswerReading(10**6)
    with pytest.raises(ConnectionError, match="too long"):
        any(reading.feed(b"HTTP/1.1 100 Continue\r\n\r\n") for _ in range(5000))


def test_trailers_without_end_are_not_kept() -> None:
    reading = AnswerReading(1000)
    reading.feed(answer(b"Transfer-Encoding: chunked", body=b"1\r\nx\r\n0\r\n"))
    with pytest.raises(TooLarge):
        any(reading.feed(b"X-%d: %s\r\n" % (number, b"a" * 100)) for number in range(10_000))
    assert "x-0" not in reading.by_name


def test_chunks_of_a_byte_each_are_an_answer_too() -> None:
    assert bytes(read(answer(b"Transfer-Encoding: chunked", body=chunked(BODY, 1)), [7, 300], len(BODY)).body()) == BODY
