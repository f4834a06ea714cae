"""An answer as bytes, with the headers that HTTP adds: those of aiohttp, so that both servers say the same."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE

from scheduler.daemon.http.rendered import Rendered

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_SERVER = f"\r\nServer: {SERVER_SOFTWARE}\r\n"


def written(rendered: Rendered, *, close: bool, marks: Iterable[tuple[str, str]] = ()) -> bytes:
    """Returns an answer as it goes over the wire.

    Args:
        rendered: the answer.
        close: whether its connection ends with it.
        marks: further headers, which may repeat names.
    """
    head = _STATUS_LINES[rendered.status]
    for name, value in rendered.headers.items():
        head += f"{name}: {value}\r\n"
    head += f"Content-Length: {len(rendered.body)}\r\nDate: {rfc822_formatted_time()}{_SERVER}"
    if close:
        head += "Connection: close\r\n"
    for name, value in marks:
        head += f"{name}: {value}\r\n"
    return b"".join((head.encode(), b"\r\n", rendered.body))
