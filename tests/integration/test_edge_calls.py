"""Calls of an edge over kept connections: what a server does with them decides what is kept, and what fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from scheduler.daemon.backends.edge_calls import ConnectTimeoutError, Disconnected, EdgeAnswer, EdgeCalls

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def asked(work: Callable[[EdgeCalls, list[bytes]], Awaitable[Any]], serve: Serve | bytes) -> tuple[Any, list[bytes]]:
    """Runs work before a server that answers each call with these bytes, or as told; returns what it heard too."""
    heard: list[bytes] = []

    async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if callable(serve):
                await serve(reader, writer)
                return
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                heard.append(head + await reader.readexactly(int(head.rpartition(b"Content-Length: ")[2])))
                writer.write(serve)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def main() -> Any:
        server = await asyncio.start_server(answering, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        url, headers = f"http://a:b@127.0.0.1:{port}/under", {"X-Of-All": "1"}
        calls = EdgeCalls(url, headers=headers, tls=True, connect_timeout_s=5, clock=time.monotonic)
        try:
            return await asyncio.wait_for(work(calls, heard), 20)
        finally:
            await calls.close()
            server.close()

    return asyncio.run(main()), heard


def post(calls: EdgeCalls, **changes: Any) -> Awaitable[EdgeAnswer]:
    given: dict[str, Any] = {"limit_bytes": 1000, "written": lambda: None, **changes}
    return calls.post("/under/infer", [b"{}", memoryview(b"data")], {"X-Own": "2"}, **given)


def test_a_call_is_written_whole_and_its_connection_kept() -> None:
    async def work(calls: EdgeCalls, _: list[bytes]) -> list[int]:
        return [(await post(calls)).status for _ in range(3)] + [len(calls._open)]

    found, heard = asked(work, OK)
    assert found == [200, 200, 200, 1]
    head, _, body = heard[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert (lines[0], body) == (b"POST /under/infer HTTP/1.1", b"{}data")
    assert {b"X-Of-All: 1", b"X-Own: 2", b"Content-Length: 6", b"Authorization: Basic YTpi"} <= set(lines)


@pytest.mark.parametrize(
    "answer",
    [
        OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        OK.replace(b"1.1", b"1.0"),
        OK + b"more",
    ],
)
def test_one_that_cannot_be_kept_is_closed(answer: bytes) -> None:
    async def work(calls: EdgeCalls, _: list[bytes]) -> int:
        assert bytes((await post(calls)).body) == b"ok"
        await asyncio.sleep(0.05)
        return len(calls._open)

    assert asked(work, answer)[0] == 0


def test_a_fresh_one_is_used_beside_a_kept_one_and_kept_as_well() -> None:
    async def work(calls: EdgeCalls, _: list[bytes]) -> int:
        await post(calls)
        await post(calls, fresh=True)
        await post(calls)
        return len(calls._open)

    assert asked(work, OK)[0] == 2


def test_an_answer_ends_with_its_connection_where_it_has_no_length() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"data")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\npart ")
        await writer.drain()
        writer.write(b"and part")

    assert bytes(asked(lambda calls, _: post(calls), serve)[0].body) == b"part and part"


@pytest.mark.parametrize("half", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
def test_a_connection_that_ends_breaks_the_call_and_only_before_a_byte_may_it_be_sent_again(half: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"data")
        writer.write(OK)
        await reader.readuntil(b"data")
        writer.write(half)

    async def work(calls: EdgeCalls, _: list[bytes]) -> ConnectionError:
        await post(calls)
        with pytest.raises(ConnectionError) as caught:
            await post(calls)
        return caught.value

    error = asked(work, serve)[0]
    assert (isinstance(error, Disconnected) and error.kept) == (half == b"")


def test_a_call_that_is_cancelled_closes_its_connection() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:  # noqa: ARG001
        await reader.read()

    async def work(calls: EdgeCalls, _: list[bytes]) -> int:
        call = asyncio.ensure_future(post(calls))
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.wait([call])
        await asyncio.sleep(0.05)
        return len(calls._open)

    assert asked(work, serve)[0] == 0


def test_closing_fails_what_is_under_way() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:  # noqa: ARG001
        await reader.read()

    async def work(calls: EdgeCalls, _: list[bytes]) -> None:
        call = asyncio.ensure_future(post(calls))
        await asyncio.sleep(0.05)
        await calls.close()
        with pytest.raises(ConnectionError):
            await call

    asked(work, serve)


def test_a_connection_that_is_not_made_in_time_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(self: EdgeCalls) -> None:  # noqa: ARG001
        await asyncio.sleep(3600)

    async def work(calls: EdgeCalls, _: list[bytes]) -> None:
        calls._connect_timeout_s = 0.01
        with pytest.raises(ConnectTimeoutError):
            await post(calls)

    monkeypatch.setattr(EdgeCalls, "_connected", never)
    asked(work, OK)


def test_one_that_has_waited_too_long_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(calls: EdgeCalls, heard: list[bytes]) -> int:
        await post(calls)
        monkeypatch.setattr("scheduler.daemon.backends.edge_calls.KEEP_ALIVE_S", 0.0)
        await post(calls)
        await asyncio.sleep(0.05)
        return len(heard)

    assert asked(work, OK)[0] == 2
