"""The head of a request, read by httptools; only one whose end and meaning are beyond doubt is taken.

Whatever is unusual is left to aiohttp, which refuses what is wrong and says why: another version of HTTP, chunks,
`Expect`, an upgrade, a header that is there twice or is not ASCII, a connection that shall end. So two readers of HTTP
never have to agree on anything else than the plain case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import httptools

LARGEST_HEAD = 4096
"""Bytes of a head that is read here; aiohttp's limits are more, and its own refusals."""
MOST_FIELDS = 48
END = b"\r\n\r\n"

_LENGTH = re.compile(r"0|[1-9][0-9]{0,14}")
# Digits that stand for a length whatever they are; the rest of such a head decides whether it is plain.
_LENGTH_LINE = re.compile(rb"\r\nContent-Length: ([1-9][0-9]{0,14})\r\n", re.IGNORECASE)
_DOUBTFUL = ("transfer-encoding", "expect", "upgrade", "te", "trailer", "http2-settings")
_INFER = re.compile(rb"/v2/models/([A-Za-z0-9._~-]+)(?:/versions/([A-Za-z0-9._~-]+))?/infer")
_CLASSIFY = re.compile(rb"/v1/classify/([A-Za-z0-9._~-]+)(?:\?([!-\"$-~]*))?")


class HeadFields(Mapping[str, str]):
    """Headers that each occur once, by name in any case."""

    __slots__ = ("_by_name",)

    def __init__(self, by_name: dict[str, str]) -> None:
        """Stores them by name in small letters."""
        self._by_name = by_name

    def __getitem__(self, key: str) -> str:
        """Returns a value; KeyError where it is absent."""
        return self._by_name[key.lower()]

    def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
        """Returns a value, or the default where it is absent."""
        return self._by_name.get(key.lower(), default)

    def __iter__(self) -> Iterator[str]:
        """Yields the names."""
        return iter(self._by_name)

    def __len__(self) -> int:
        """Returns how many there are."""
        return len(self._by_name)


@dataclass(slots=True)
class Head:
    """A plain head."""

    method: str
    target: bytes
    by_name: dict[str, str]
    """Values by name in small letters, without Content-Length."""
    length: int
    """Bytes of the body; 0 where there is none."""
    size: int
    """Bytes of the head itself, with the empty line."""

    @property
    def path(self) -> str:
        """The path, for the log."""
        return self.target.partition(b"?")[0].decode("ascii")


class _Reader:
    """What httptools tells of one head."""

    __slots__ = ("fields", "target", "whole")

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.target = b""
        self.whole = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        self.whole = True


def plain_head(head: bytes) -> Head | None:
    """Returns a head that is plain, None for any other one.

    Args:
        head: all bytes up to and with the empty line.
    """
    # A single line feed ends a line for some readers and not for others.
    if len(head) > LARGEST_HEAD or not head.isascii() or head.count(b"\n") != head.count(b"\r\n"):
        return None
    reader = _Reader()
    parser = httptools.HttpRequestParser(reader)
    try:
        parser.feed_data(head)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    if not reader.whole or parser.get_http_version() != "1.1" or len(reader.fields) > MOST_FIELDS:
        return None
    by_name = {name.decode().lower(): value.strip(b" \t").decode() for name, value in reader.fields}
    if len(by_name) != len(reader.fields) or "host" not in by_name or not _is_plain(by_name):
        return None
    text = by_name.pop("content-length", None)
    if text is None:
        length = 0
    elif _LENGTH.fullmatch(text):
        length = int(text)
    else:
        return None
    return Head(parser.get_method().decode(), reader.target, by_name, length, len(head))


class HeadReader:
    """Reads the heads of one connection; most are those before them but for their length, and are not read again."""

    __slots__ = ("_head", "_rest", "_target")

    def __init__(self) -> None:
        """Has read none."""
        self._rest = b""
        """The latest head of a request for inference without the digits of its length; empty: there was none."""
        self._head: Head | None = None
        self._target: Target | None = None

    def read(self, head: bytes) -> tuple[Head | None, Target | None]:
        """Returns what `plain_head` and `target_of` do."""
        found = _LENGTH_LINE.search(head)
        if found is not None:
            start, end = found.span(1)
            rest = head[:start] + head[end:]
            known = self._head
            if known is not None and rest == self._rest:
                return Head(known.method, known.target, known.by_name, int(found[1]), len(head)), self._target
        read = plain_head(head)
        target = None if read is None else target_of(read)
        if found is not None and target is not None:
            self._rest, self._head, self._target = rest, read, target
        return read, target


def _is_plain(by_name: Mapping[str, str]) -> bool:
    if any(name in by_name for name in _DOUBTFUL):
        return False
    kept = by_name.get("connection")
    return kept is None or kept.lower() == "keep-alive"


@dataclass(slots=True)
class Target:
    """The model of a request for inference; `query` is None for the Open Inference Protocol."""

    model: str
    version: str = ""
    query: str | None = None


def target_of(head: Head) -> Target | None:
    """Returns the model that a request is for; None where it is for anything else than inference with a body.

    >>> target_of(Head("POST", b"/v2/models/digits/infer", {}, 3, 0)).model
    'digits'
    """
    if head.method != "POST" or not head.length or "content-encoding" in head.by_name or "origin" in head.by_name:
        return None
    found = _INFER.fullmatch(head.target)
    if found is not None:
        return Target(found[1].decode(), (found[2] or b"").decode())
    found = _CLASSIFY.fullmatch(head.target)
    return None if found is None else Target(found[1].decode(), query=(found[2] or b"").decode())
