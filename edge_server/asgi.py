"""The server's WSGI application behind servers of ASGI: their requests as our own server would give them to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from edge_server.infer_path import FAULT
from edge_server.wsgi import limits_of
from scheduler.wsgi.answer import Answer, error_content
from scheduler.wsgi.body import Body
from scheduler.wsgi.buffers import Buffers
from scheduler.wsgi.environment import environment
from scheduler.wsgi.errors import Refused
from scheduler.wsgi.request_head import RequestHead

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_log = logging.getLogger("edge_server")
_PATH_CHARACTERS = "/:@!$&'()*+,;=~"


class AsgiInterface:
    """ASGI application that gives each request to a WSGI application, on a thread of its own.

    The server in front reads requests and connections, and has its own limits for them; the largest body, gzip and all
    that follows are as behind our own server.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        body_limit_bytes: int,
        threads: int,
        refused: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Stores its parts.

        Args:
            app: answers the requests.
            body_limit_bytes: the largest body of a request, unpacked too.
            threads: number of requests that the application has at once; others wait.
            refused: is told the status of each request that the application never saw.
        """
        self._app = app
        self._limits = limits_of(body_limit_bytes)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="request")
        self._refused = refused
        self._buffers = Buffers()

    def close(self) -> None:
        """Ends the threads that have nothing to do; the others end after their requests."""
        self._threads.shutdown(wait=False)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers one request; or start and end of the server."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not served, only HTTP")
        headers = _headers(scope["headers"])
        content = await self._content(headers, receive)
        if content is None:
            return  # the client has left
        answer = self._answered_on_a_thread(scope, headers, content)
        status, fields, body = await asyncio.get_running_loop().run_in_executor(self._threads, answer)
        said = {name.lower(): value for name, value in fields}
        if scope["method"] == "HEAD":
            body = b""  # and the length that the application says
        else:
            said["content-length"] = str(len(body))
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in said.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})

    async def _content(self, headers: MutableMapping[bytes, bytes], receive: Receive) -> bytes | bytearray | int | None:
        """Returns the body as it is sent; its length, where that is over the limit; None if the client has left."""
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self._limits.body_bytes:
            return int(length)
        content = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part: bytes = message.get("body", b"")
            if not message.get("more_body", False):
                return content + part if content else part
            content += part
            if len(content) > self._limits.body_bytes:
                return len(content)

    def _answered_on_a_thread(
        self, scope: Message, headers: MutableMapping[bytes, bytes], content: bytes | bytearray | int
    ) -> Callable[[], tuple[int, Sequence[tuple[str, str]], bytes]]:
        def answered() -> tuple[int, Sequence[tuple[str, str]], bytes]:
            try:
                return self._answered(scope, headers, content)
            except Refused as error:
                self._refused(error.status)
                return error.status, *error_content(str(error), error.headers)
            except Exception:  # noqa: BLE001 - the application may raise anything
                _log.exception("The application failed on a request")
                return 500, *error_content(FAULT)

        return answered

    def _answered(
        self, scope: Message, headers: MutableMapping[bytes, bytes], content: bytes | bytearray | int
    ) -> tuple[int, Sequence[tuple[str, str]], bytes]:
        length = content if isinstance(content, int) else len(content)
        head = RequestHead(scope["method"], _target(scope), 1, headers, length, chunked=False)
        source = _Received(b"" if isinstance(content, int) else content)
        body = Body(head, source, self._limits, self._buffers, lambda _: None)
        answer = Answer()
        whole = answer.body(self._app(environment(_of_connection(scope), head, body), answer.start))
        # Only now: an application may begin its answer when its first part is asked for.
        return int(answer.status.split()[0]), answer.headers, whole


class _Received:
    """A body that has arrived: a source of `Body`."""

    def __init__(self, content: bytes | bytearray) -> None:
        self._left = memoryview(content)

    def read_into(self, target: memoryview) -> None:
        target[:] = self._left[: len(target)]
        self._left = self._left[len(target) :]

    def read_line(self, most: int) -> bytes:  # noqa: ARG002
        raise AssertionError("the server in front has put the chunks together")


async def _live(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def _headers(fields: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    for name, value in fields:
        headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


def _target(scope: Message) -> str:
    """Returns path and query, percent-encoded, without what the server in front has put before the path."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"], safe=_PATH_CHARACTERS).encode()
    path = raw.decode("latin-1").removeprefix(scope.get("root_path", "")) or "/"
    query = scope.get("query_string", b"").decode("latin-1")
    return f"{path}?{query}" if query else path


def _of_connection(scope: Message) -> dict[str, Any]:
    client, server = scope.get("client") or ("", 0), scope.get("server") or ("", 0)
    return {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "SCRIPT_NAME": "",
        "SERVER_NAME": str(server[0]),
        "SERVER_PORT": str(server[1]),
        "REMOTE_ADDR": str(client[0]),
    }
