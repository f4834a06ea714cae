"""A server behind MLPerf's LoadGen: what LoadGen issues is sent over HTTP, and what it writes of a run is read.

LoadGen (`mlcommons-loadgen`, with the extra `dev`) decides when which sample is sent, measures, and judges the run;
here is only what it calls the system under test.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from scheduler.domain.errors import EdgeburstError

SCENARIOS = ("Server", "Offline")
_START = ":::MLLOG "
_NS_PER_S = 1_000_000_000


class NoLoadGen(EdgeburstError):
    """LoadGen is not installed."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run is asked for.

    Attributes:
        scenario: Server: a Poisson process of `rps`; Offline: all samples at once.
        rps: requests a second; Offline: so many are expected, which decides how many samples there are.
        latency_s: Server: the bound of the percentile.
        percentile: Server: fraction of the requests that must be within it.
        duration_s: the least that a run must take to be valid.
    """

    scenario: str
    rps: float
    latency_s: float = 0.1
    percentile: float = 0.99
    duration_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What LoadGen says of a run, and what it cannot know.

    Attributes:
        valid: whether LoadGen found the run valid.
        rps: completed samples a second.
        p50_ms, p99_ms: latencies, from when a sample was due.
        samples: how many.
        reason: why it is not valid; empty otherwise.
        failed: samples that were answered with an error or not at all, by what came instead.
    """

    valid: bool
    rps: float
    p50_ms: float
    p99_ms: float
    samples: int
    reason: str
    failed: Mapping[str, int]


def library() -> ModuleType:
    """Returns LoadGen's module.

    Raises:
        NoLoadGen: it is not installed.
    """
    try:
        import mlperf_loadgen
    except ImportError:
        raise NoLoadGen(
            "LoadGen is not installed: pip install mlcommons-loadgen (elsewhere than on Linux on x86_64 it compiles)"
        ) from None
    return cast(ModuleType, mlperf_loadgen)


def run(asked: Asked, port: int, requests: Sequence[bytes], folder: Path, *, connections: int) -> Verdict:
    """Lets LoadGen test the server on a port of this host; its logs stay in the folder.

    Args:
        asked: of the run.
        port: of the server.
        requests: as they go over the wire; LoadGen draws which is sent.
        folder: for its logs, which begin with the scenario.
        connections: the most that are open at once; what is issued beyond waits in this process, and its time counts.
    """
    lg = library()
    folder.mkdir(parents=True, exist_ok=True)
    sender = _Sender(lg, port, requests, connections)
    with sender:
        sut = lg.ConstructSUT(sender.issue, lambda: None)
        qsl = lg.ConstructQSL(len(requests), len(requests), lambda _: None, lambda _: None)
        # A file with settings of an audit would be read from there.
        lg.StartTestWithLogSettings(
            sut, qsl, _settings(lg, asked), _logs(lg, asked, folder), str(folder / "audit.config")
        )
        lg.DestroyQSL(qsl)
        lg.DestroySUT(sut)
    return verdict(folder / f"{asked.scenario}_detail.txt", sender.failed)


def verdict(detail: Path, failed: Mapping[str, int]) -> Verdict:
    """Reads what LoadGen has written of a run."""
    said: dict[str, Any] = {}
    for line in detail.read_text(encoding="utf-8").splitlines():
        if line.startswith(_START):
            entry = json.loads(line.removeprefix(_START))
            said[entry["key"]] = entry["value"]
    server = "result_completed_samples_per_sec" in said
    reasons = [said.get("result_invalid_reason", ""), said.get("early_stopping_result", "")]
    reason = " ".join(" ".join(reasons).replace("*", " ").split())
    valid = said["result_validity"] == "VALID"
    return Verdict(
        valid=valid,
        rps=said["result_completed_samples_per_sec" if server else "result_samples_per_second"],
        p50_ms=said["result_50.00_percentile_latency_ns"] / 1e6,
        p99_ms=said["result_99.00_percentile_latency_ns"] / 1e6,
        samples=said["result_query_count"] if server else said["generated_samples_per_query"],
        reason="" if valid else reason,
        failed=dict(failed),
    )


def _settings(lg: ModuleType, asked: Asked) -> Any:
    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, asked.scenario)
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms = round(asked.duration_s * 1000)
    settings.server_target_qps = asked.rps
    settings.server_target_latency_ns = round(asked.latency_s * _NS_PER_S)
    settings.server_target_latency_percentile = asked.percentile
    settings.offline_expected_qps = asked.rps
    return settings


def _logs(lg: ModuleType, asked: Asked, folder: Path) -> Any:
    output = lg.LogOutputSettings()
    output.outdir, output.prefix, output.copy_summary_to_stdout = str(folder), f"{asked.scenario}_", False
    settings = lg.LogSettings()
    settings.log_output, settings.enable_trace = output, False
    return settings


class _Sender:
    """Sends what LoadGen issues from a loop in a thread of its own, each connection one request after the other."""

    def __init__(self, lg: ModuleType, port: int, requests: Sequence[bytes], connections: int) -> None:
        self._lg = lg
        self.port = port
        self._requests = requests
        self._room = connections
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._idle: list[_Connection] = []
        self.failed: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sender")

    def __enter__(self) -> _Sender:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        for connection in tuple(self._idle):
            connection.close()
        await asyncio.sleep(0)

    def issue(self, samples: Sequence[Any]) -> None:
        """Takes samples; LoadGen calls it in a thread of its own."""
        taken = [(sample.id, self._requests[sample.index]) for sample in samples]
        self._loop.call_soon_threadsafe(self._take, taken)

    def _take(self, taken: list[tuple[int, bytes]]) -> None:
        self._waiting.extend(taken)
        while self._waiting and self._idle:
            self._idle.pop().send(*self._waiting.popleft())
        for _ in range(min(self._room, len(self._waiting))):
            self._room -= 1
            self._loop.create_task(self._connect(*self._waiting.popleft()))

    async def _connect(self, sample: int, request: bytes) -> None:
        try:
            _, connection = await self._loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.port)
        except OSError as error:
            self.closed()
            self.complete(sample, f"no connection: {error.strerror or error}")
        else:
            connection.send(sample, request)

    def complete(self, sample: int, failure: str = "") -> None:
        """Tells LoadGen that a sample has an answer, or none will come: LoadGen knows no failures."""
        if failure:
            self.failed[failure] += 1
        self._lg.QuerySamplesComplete([self._lg.QuerySampleResponse(sample, 0, 0)])

    def rest(self, connection: _Connection) -> None:
        """Takes back a connection whose request is answered."""
        if self._waiting:
            connection.send(*self._waiting.popleft())
        else:
            self._idle.append(connection)

    def closed(self, connection: _Connection | None = None) -> None:
        """Leaves room for another connection than this, or than one that was not made."""
        self._room += 1
        if connection is not None and connection in self._idle:
            self._idle.remove(connection)
        if self._waiting:
            self._loop.call_soon(self._take, [])


class _Connection(asyncio.Protocol):
    """A connection with at most one request under way."""

    def __init__(self, sender: _Sender) -> None:
        self._sender = sender
        self._sample: int | None = None
        self._found = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, sample: int, request: bytes) -> None:
        """Sends a request."""
        self._sample = sample
        self._transport.write(request)

    def close(self) -> None:
        """Closes it."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._found += data
        end = self._found.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._found[:end]).lower()
        length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        if len(self._found) < end + 4 + length or self._sample is None:
            return
        status, body = head[9:12], bytes(self._found[end + 4 : end + 4 + length])
        self._found.clear()
        sample, self._sample = self._sample, None
        said = "" if status == b"200" else f"{status.decode()} {body[:200].decode(errors='replace')}"
        self._sender.complete(sample, said)
        self._sender.rest(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._sender.closed(self)
        if self._sample is not None:
            self._sender.complete(self._sample, f"connection lost: {exc or 'closed by the server'}")
