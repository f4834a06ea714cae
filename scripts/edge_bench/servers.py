"""Edge servers as processes, and a client that costs as little as possible of the machine it shares with them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from models.batch import rehearsal_request
from models.card import Card
from models.digits_pictures import encode
from scheduler import wire
from scheduler.measuring.errors import MeasuringError
from scheduler.wire import InferRequest, Tensor

ROOT = Path(__file__).parents[2]
_PICTURES = 8
_KINDS: tuple[Literal["jpeg", "png"], ...] = ("jpeg", "png")
_STOP_LIMIT_S = 40.0
_RECEIVE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Server:
    """A running edge server: its port on the loopback, and the number of its process."""

    port: int
    process_id: int


def options_for(card: Card, model: str, options: Sequence[str]) -> list[str]:
    """Returns the edge server's options for a model: random weights, if the card has none and none are named."""
    random = ["--random-weights", card.name] if card.format == "state-dict" and not card.file else []
    return ["--model", model, *options, *([] if "--weights" in options else random)]


def cpu_s(process_id: int) -> float:
    """Returns the CPU time that a process has taken so far, seconds; 0 where there is no /proc."""
    try:
        after_name = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2]
    except OSError:
        return 0.0
    user, system = after_name.split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Returns the lines of a table."""
    cells = [columns, *rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(columns))]
    for line in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


@contextmanager
def running(options: Sequence[str]) -> Iterator[Server]:
    """Starts an edge server, waits until it is ready, and ends it afterwards.

    Raises:
        MeasuringError: it does not start; its reason is on standard error.
    """
    command = [sys.executable, "-m", "edge_server", "--port", "0", "--log-level", "warning", *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise MeasuringError(f"the edge server has ended with status {process.wait()}; its line above says why")
        yield Server(int(json.loads(line)["port"]), process.pid)
    finally:
        process.terminate()
        try:
            process.wait(timeout=_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()


def batch_of(card: Card, items: int) -> InferRequest:
    """Returns a batch for a model: drawn pictures, JPEG and PNG, if it takes pictures, else made-up tensors."""
    made = rehearsal_request(card, items)
    ink = np.random.default_rng(0).uniform(0, 7, (_PICTURES, 8, 8))
    pictures = [encode(ink[index], _KINDS[index % 2], index) for index in range(_PICTURES)]
    inputs = [
        Tensor.from_elements(tensor.name, [pictures[index % len(pictures)] for index in range(items)])
        if spec.picture and not spec.shape
        else tensor
        for spec, tensor in zip(card.inputs, made.inputs, strict=True)
    ]
    return InferRequest("bench", tuple(inputs), binary_by_default=True)


class Connection:
    """A kept connection to a server that sends one request, made once, again and again."""

    def __init__(self, server: Server, card: Card, items: int) -> None:
        """Connects."""
        encoded = wire.encode_request(batch_of(card, items))
        lines = [f"POST /v2/models/{card.name}/infer HTTP/1.1", "Host: edge", f"Content-Length: {len(encoded.body)}"]
        lines += [f"{name}: {value}" for name, value in encoded.headers.items()]
        self._request = "\r\n".join([*lines, "", ""]).encode() + encoded.body
        self._socket = socket.create_connection(("127.0.0.1", server.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(self) -> float:
        """Sends the batch and reads its answer; returns the seconds that this took.

        Raises:
            MeasuringError: the server refused it.
        """
        started_s = time.perf_counter()
        self._socket.sendall(self._request)
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._more()
        head = received[:end].decode("latin-1").lower().split("\r\n")
        length = next(int(line.partition(":")[2]) for line in head if line.startswith("content-length:"))
        left = length - (len(received) - end - 4)
        while left > 0:
            part = self._more()
            received += part
            left -= len(part)
        if " 200 " not in head[0]:
            raise MeasuringError(f"the server refused a batch: {received[end + 4 :][:300].decode(errors='replace')}")
        return time.perf_counter() - started_s

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()

    def _more(self) -> bytes:
        part = self._socket.recv(_RECEIVE_BYTES)
        if not part:
            raise MeasuringError("the server has closed the connection; see its log")
        return part


@dataclass(frozen=True, slots=True)
class Calls:
    """Latencies of calls, and the time from the first one's start to the last one's end, all in seconds."""

    latencies_s: Sequence[float]
    elapsed_s: float

    @property
    def per_s(self) -> float:
        """Calls a second."""
        return len(self.latencies_s) / self.elapsed_s


class Caller(Protocol):
    """What sends one request and reads its answer."""

    def call(self) -> float:
        """Returns the seconds that it took."""
        ...


def called(connections: Sequence[Caller], seconds: float) -> Calls:
    """Calls on all connections at the same time, until so many seconds are over.

    Raises:
        MeasuringError: a batch was refused.
    """
    found: list[float] = []
    failed: list[MeasuringError] = []
    began_s = time.perf_counter()
    end_s = began_s + seconds

    def call(connection: Caller) -> None:
        try:
            while time.perf_counter() < end_s:
                found.append(connection.call())
        except MeasuringError as error:
            failed.append(error)

    threads = [threading.Thread(target=call, args=(connection,)) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return Calls(found, time.perf_counter() - began_s)
