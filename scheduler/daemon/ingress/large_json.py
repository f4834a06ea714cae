"""Reads JSON bodies of many values beside the event loop: in processes, a few at a time, the clients in turn."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, BinaryIO, cast

from scheduler.daemon.ingress.errors import RETRY_HEADER, Rejected
from scheduler.daemon.ingress.turns import Turns
from scheduler.daemon.json_parser import read_request, write_body
from scheduler.daemon.logs import log
from scheduler.daemon.threads import DaemonThreads
from scheduler.wire import InferRequest

VALUES_BESIDE = 8192
"""Commas in a JSON text from which it is read in a process: fewer values take at most a millisecond of the loop."""
BYTES_BESIDE = 2**20
"""Length of a JSON text from which it is: a shorter one of few values, as a picture in base64, takes no longer."""
PROCESSES = 2
OF_CLIENT = 1
"""Bodies of one client that are read at a time."""
WAITING_OF_CLIENT = 16
TIME_LIMIT_S = 20.0
"""Longest time for one body. Judgement: the largest that the default limit allows takes 2 s on a core of 2020."""


def is_large(body: bytes | memoryview, json_length: int | None) -> bool:
    """Returns whether a body's JSON takes so long to read that requests would wait."""
    end = len(body) if json_length is None else min(json_length, len(body))
    if end >= BYTES_BESIDE or end <= VALUES_BESIDE:
        return end >= BYTES_BESIDE
    text = bytes(body[:end]) if isinstance(body, memoryview) else body
    return text.count(b",", 0, end) >= VALUES_BESIDE


_ROOT = Path(__file__).parents[3]
"""The process starts here, so that it runs the same program, whatever the daemon's own working directory holds."""


class LargeJson:
    """The processes that read large JSON, which are started when they are needed and then kept."""

    def __init__(self) -> None:
        """Starts nothing yet."""
        self._turns = Turns(
            at_once=PROCESSES, of_client=OF_CLIENT, waiting_of_client=WAITING_OF_CLIENT, what="large JSON to be read"
        )
        self._threads = DaemonThreads(limit=PROCESSES, name="large-json")
        self._idle: list[_Reader] = []
        self._closed = False

    async def parse(
        self, client: str, body: bytes, json_length: int | None, *, base64: tuple[str, ...] = ()
    ) -> InferRequest:
        """Returns the request in a body.

        Args:
            client: the key of the client's shares.
            body: the body.
            json_length: as in `wire.parse_request`.
            base64: names of the inputs whose texts are base64, which is decoded.

        Raises:
            WireError: the body violates the protocol.
            Rejected: its client has too many that wait, it takes too long, or no process can be started.
            MemoryError: there is no memory for it.
        """
        await self._turns.begin(client)

        def ended(work: asyncio.Future[InferRequest]) -> None:
            self._turns.end(client)
            if not work.cancelled():
                work.exception()  # of a client that has gone, nothing else looks at it

        # The turn lasts as long as the work, even if its client goes: otherwise it could begin ever more of it.
        work = asyncio.ensure_future(self._threads.run(lambda: self._read(body, json_length, base64)))
        work.add_done_callback(ended)
        return await asyncio.shield(work)

    def close(self) -> None:
        """Ends the processes, and their threads after what they do now."""
        self._closed = True
        self._threads.close()
        while self._idle:
            self._idle.pop().end()

    def _read(self, body: bytes, json_length: int | None, base64: tuple[str, ...]) -> InferRequest:
        reader = self._idle.pop() if self._idle else _Reader()
        try:
            return reader.read(body, json_length, base64)
        finally:
            if reader.is_alive and not self._closed:
                self._idle.append(reader)
            else:
                reader.end()


class _Reader:
    """One process; used by one thread at a time."""

    def __init__(self) -> None:
        """Starts it; Rejected if that fails."""
        self._late = False
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "scheduler.daemon.json_parser"],
                cwd=_ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        except OSError as error:
            message = f"no process can be started to read large JSON ({error.strerror})"
            log(logging.WARNING, "large_json_failed", message=message)
            sentence = f"{message}; send the tensors in binary form, or this request again later"
            raise Rejected(503, sentence, {RETRY_HEADER: "1"}) from None

    @property
    def is_alive(self) -> bool:
        """Whether it can read another body."""
        return not self._late and self._process.poll() is None

    def read(self, body: bytes, json_length: int | None, base64: tuple[str, ...]) -> InferRequest:
        """Returns the request in a body; see `LargeJson.parse`."""
        timer = threading.Timer(TIME_LIMIT_S, self._give_up)
        timer.daemon = True
        timer.start()
        try:
            write_body(body, json_length, base64, _open(self._process.stdin))
            return read_request(_open(self._process.stdout))
        except (EOFError, OSError):
            raise self._lost() from None
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        self._late = True
        self._process.kill()

    def _lost(self) -> Rejected:
        self._process.kill()
        if self._late:
            return Rejected(
                413, f"the JSON takes longer than {TIME_LIMIT_S:g} s to read; send the tensors in binary form"
            )
        status = self._process.wait()
        log(
            logging.WARNING, "large_json_failed", message=f"the process that read large JSON ended with status {status}"
        )
        sentence = (
            "the process that read this JSON has ended, perhaps for want of memory; send the tensors in binary form"
        )
        return Rejected(503, sentence, {RETRY_HEADER: "1"})

    def end(self) -> None:
        """Ends it."""
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                _open(pipe).close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


def _open(pipe: IO[bytes] | None) -> BinaryIO:
    assert pipe is not None
    return cast(BinaryIO, pipe)
