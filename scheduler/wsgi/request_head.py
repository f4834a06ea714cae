"""Request line and headers: bytes to values. What two servers in a row could read differently is refused.

References:
    RFC 9110 and RFC 9112 (HTTP semantics; HTTP/1.1). Refused though the RFC allows it: Content-Length given twice, and
    Transfer-Encoding other than `chunked` alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.wsgi.errors import Refused

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.([01])")
_FIELDS = re.compile(rb"(?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*")
_ANY_VERSION = re.compile(rb"[^ ]+ [^ ]+ HTTP/[0-9.]+")
_ABSOLUTE = re.compile(rb"https?://(?:[0-9A-Za-z.\-_~%]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?(?=[/?]|$)", re.IGNORECASE)
_LENGTH = re.compile(rb"[0-9]{1,18}")
HEAD_END = re.compile(rb"\n\r?\n")
"""End of the headers, be it with or without the carriage returns that belong there."""
_ONCE = frozenset({b"host", b"content-length", b"transfer-encoding", b"authorization", b"expect", b"content-type"})

ENCRYPTED = "this port speaks HTTP without TLS; use http:// in the address"
_VERSION = "this port speaks HTTP/1.1; let the client use it, as with curl --http1.1"


@dataclass(frozen=True, slots=True)
class RequestHead:
    """Request line and headers.

    Attributes:
        method: as sent.
        target: path and query as sent, percent-encoded; "*" of OPTIONS.
        minor: 0 or 1, the version after "HTTP/1.".
        headers: values by name in lower case; those of several headers of one name with commas between.
        length: Content-Length; None where there is none.
        chunked: whether the body comes in chunks.
    """

    method: str
    target: str
    minor: int
    headers: Mapping[bytes, bytes]
    length: int | None
    chunked: bool

    @property
    def keeps_connection(self) -> bool:
        """Whether the client wants to go on with this connection."""
        wishes = {wish.strip() for wish in self.headers.get(b"connection", b"").lower().split(b",")}
        return b"close" not in wishes and (self.minor == 1 or b"keep-alive" in wishes)

    @property
    def expects_continue(self) -> bool:
        """Whether the client sends its body only after it was asked to."""
        return self.minor == 1 and b"expect" in self.headers

    @property
    def has_body(self) -> bool:
        """Whether a body of at least a byte follows, as far as is known."""
        return self.chunked or bool(self.length)


def parse_head(head: bytes, *, most_headers: int) -> RequestHead:
    r"""Reads request line and headers.

    Args:
        head: up to the line break of the last header; the empty line is left out.
        most_headers: number of headers that are allowed.

    Raises:
        Refused: they are not those of a request of HTTP/1.0 or 1.1, or can be read in two ways.

    >>> parsed = parse_head(b"POST /v2?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n", most_headers=9)
    >>> parsed.method, parsed.target, parsed.length, parsed.keeps_connection
    ('POST', '/v2?a=b', 3, True)
    """
    first, _, fields = head.partition(b"\r\n")
    line = _LINE.fullmatch(first)
    if line is None:
        raise Refused(400, _VERSION if _ANY_VERSION.match(first) else _wrong_line(first))
    if _FIELDS.fullmatch(fields) is None:
        raise Refused(400, _wrong_field(fields))
    headers = _headers(fields, most_headers)
    minor = int(line[3])
    if minor and b"host" not in headers:
        raise Refused(400, "the request has no Host header, which HTTP/1.1 requires")
    length, chunked = _framing(headers, minor)
    if headers.get(b"expect", b"100-continue").lower() != b"100-continue":
        raise Refused(417, "the header Expect can only be 100-continue: leave it out")
    return RequestHead(line[1].decode("ascii"), _target(line[1], line[2]), minor, headers, length, chunked)


def _headers(fields: bytes, most: int) -> dict[bytes, bytes]:
    lines = fields.split(b"\r\n")[:-1]
    if len(lines) > most:
        raise Refused(431, f"the request has {len(lines)} headers; the limit is {most}")
    headers: dict[bytes, bytes] = {}
    for each in lines:
        name, _, value = each.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if name in headers:
            if name in _ONCE:
                raise Refused(400, f"the header {name.decode().title()} is there twice: send it once")
            value = headers[name] + (b"; " if name == b"cookie" else b", ") + value
        headers[name] = value
    return headers


def _framing(headers: Mapping[bytes, bytes], minor: int) -> tuple[int | None, bool]:
    """Returns Content-Length, and whether the body comes in chunks."""
    length, coding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
    if coding is not None:
        if length is not None:
            raise Refused(400, "Content-Length and Transfer-Encoding exclude each other: send one of them")
        if not minor:
            raise Refused(400, "Transfer-Encoding needs HTTP/1.1")
        if coding.lower() != b"chunked":
            raise Refused(501, "Transfer-Encoding can only be chunked")
        return None, True
    if length is None:
        return None, False
    if _LENGTH.fullmatch(length) is None:
        raise Refused(400, "Content-Length must be a whole number of bytes")
    return int(length), False


def _target(method: bytes, target: bytes) -> str:
    absolute = _ABSOLUTE.match(target)
    if absolute is not None:
        target = target[absolute.end() :]
        target = target if target.startswith(b"/") else b"/" + target
    if b"#" in target or not (target.startswith(b"/") or (target == b"*" and method == b"OPTIONS")):
        raise Refused(400, "the address in the request line is not valid: it must be a path that begins with /")
    return target.decode("ascii")


def _wrong_line(line: bytes) -> str:
    if any(byte > 0x7E for byte in line):
        return "the path holds bytes that must be percent-encoded, as in /v2/models/z%C3%A4hler"
    if b"\n" in line or b"\r" in line:
        return "a line of the request does not end with carriage return and line feed"
    return "the request line is not valid HTTP/1.1: it must be METHOD PATH HTTP/1.1"


def _wrong_field(fields: bytes) -> str:
    for line in fields.split(b"\r\n")[:-1]:
        if line.startswith((b" ", b"\t")):
            return "a header goes on in a second line: put its value into one line"
        if b"\n" in line or b"\r" in line:
            return "a header holds a line break: each line must end with carriage return and line feed"
        name, colon, value = line.partition(b":")
        if not colon:
            return "a header has no colon"
        if re.fullmatch(_TOKEN, name) is None:
            return "the name of a header holds a character that is not allowed, such as a space before the colon"
        if re.search(rb"[^\t\x20-\x7e\x80-\xff]", value):
            return "the value of a header holds a control character"
    return "the headers are not valid HTTP/1.1"
