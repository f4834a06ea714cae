"""What an application is told of a request: the environment of WSGI (PEP 3333)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from scheduler.wsgi.body import Body
from scheduler.wsgi.request_head import RequestHead

_NOT_HEADERS = frozenset({b"content-type", b"content-length", b"content-encoding", b"transfer-encoding", b"expect"})
_MOST_KEYS = 1024
_keys: dict[bytes, str] = {}


def environment(of_connection: Mapping[str, Any], head: RequestHead, body: Body) -> dict[str, Any]:
    """Returns the environment of one request.

    Args:
        of_connection: what is the same for all requests of its connection.
        head: request line and headers.
        body: the body, unpacked when it is read.
    """
    path, _, query = head.target.partition("?")
    environ = dict(of_connection)
    environ["REQUEST_METHOD"] = head.method
    environ["SERVER_PROTOCOL"] = f"HTTP/1.{head.minor}"
    environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1") if "%" in path else path
    environ["QUERY_STRING"] = query
    environ["wsgi.input"] = body
    for name, value in head.headers.items():
        if name not in _NOT_HEADERS:
            key = _keys.get(name) or _key(name)
            if key:
                environ[key] = value.decode("latin-1")
    kind = head.headers.get(b"content-type")
    if kind is not None:
        environ["CONTENT_TYPE"] = kind.decode("latin-1")
    if not body.is_packed and not head.chunked:
        environ["CONTENT_LENGTH"] = str(head.length or 0)
    return environ


def _key(name: bytes) -> str:
    """Returns a header's key in the environment; empty for a name that reads like another one's."""
    key = "" if b"_" in name else "HTTP_" + name.decode("ascii").upper().replace("-", "_")
    if len(_keys) < _MOST_KEYS:
        _keys[name] = key
    return key
