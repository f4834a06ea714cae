"""The edge server as a backend: Open Inference Protocol v2, binary, one batch per call, kept-alive connections."""

import asyncio
import logging
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter
from yarl import URL

from scheduler import wire
from scheduler.daemon.backends.batch_send import BatchSend, Clock, Reply, SendFailed, check_response
from scheduler.daemon.backends.tcp_info import smoothed_rtt_s
from scheduler.daemon.logs import log
from scheduler.domain.batches import BatchReport, Failure, FailureKind
from scheduler.domain.messages import ProbeMeasured
from scheduler.domain.requests import Backend
from scheduler.http_failures import failure_kind
from scheduler.wire import InferRequest, InferResponse, WireError

KEEP_ALIVE_S = 30.0
"""Shorter than the idle limits of servers (120 s for ours), so that no batch uses a connection that is being closed."""

PROBE_LIMIT_S = 2.0


class EdgeBackend:
    """An Open Inference Protocol v2 server as a backend: ours, Triton, KServe, MLServer."""

    def __init__(self, *, url: str, connect_timeout_s: float, clock: Clock) -> None:
        """Stores its parts.

        Args:
            url: of the form `http://HOST:PORT`.
            connect_timeout_s: longest wait for a TCP connection.
            clock: monotonic seconds.
        """
        self._url = url.rstrip("/")
        self._connect_timeout_s = connect_timeout_s
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._infer_urls: dict[str, URL] = {}

    async def open(self) -> None:
        """Creates the connection pool."""
        # The engine bounds the batches in flight, so the pool needs no limit.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            # No total limit: the batch sender gives batches up, so a second timer for each would be wasted.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding"),
        )

    async def send(self, batch_send: BatchSend, request: InferRequest) -> Reply:
        """Sends a batch; see `InferenceBackend.send`."""
        batch = batch_send.batch
        encoded = wire.encode_request(request)
        body = _StampedBody(encoded.body, batch_send, self._clock)
        traced = batch_send.trace.headers() if batch_send.trace is not None else {}
        headers = {**encoded.headers, **traced}
        try:
            target = self._infer_url(batch.model)
            async with self._pool().post(target, data=body, headers=headers, allow_redirects=False) as response:
                answer = await response.read()
                read_at_s = self._clock()
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            raise SendFailed(self._no_answer(batch_send, error), self._report(batch_send, body)) from None
        report = self._report(batch_send, body, read_at_s=read_at_s)
        if response.status != 200:
            raise SendFailed(_refused(response.status, response.headers.get("Retry-After"), answer), report)
        parsed = self._parse(response, answer, batch_send, report)
        service_s = _seconds(parsed.parameters.get("service_s"))
        return Reply(parsed.outputs, replace(report, service_s=service_s), read_at_s)

    async def probe(self) -> ProbeMeasured:
        """Asks the server whether it is ready, and measures the round trip."""
        asked_at_s = self._clock()
        limit = aiohttp.ClientTimeout(total=PROBE_LIMIT_S)
        try:
            async with self._pool().get(f"{self._url}/v2/health/ready", timeout=limit) as response:
                await response.read()
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            return self._down(f"the edge server at {self._url} cannot be reached: {_cause(error)}")
        if response.status != 200:
            return self._down(f"the edge server at {self._url} is not ready: it answered {response.status}")
        return ProbeMeasured(Backend.EDGE, ok=True, rtt_s=self._clock() - asked_at_s)

    async def identity(self, model: str) -> object:
        """Returns the identity of a model's card and files in the server's metadata; None where there is none."""
        limit = aiohttp.ClientTimeout(total=PROBE_LIMIT_S)
        try:
            async with self._pool().get(self._infer_url(model).parent, timeout=limit) as response:
                metadata = orjson.loads(await response.read()) if response.status == 200 else None
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError):
            return None
        parameters = metadata.get("parameters") if isinstance(metadata, dict) else None
        return parameters.get("identity") if isinstance(parameters, dict) else None

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    def _down(self, message: str) -> ProbeMeasured:
        log(logging.WARNING, "edge_check", message=f"{message}; the daemon will ask again")
        return ProbeMeasured(Backend.EDGE, ok=False)

    def _pool(self) -> aiohttp.ClientSession:
        assert self._session is not None, "call open() first"
        return self._session

    def _infer_url(self, model: str) -> URL:
        if model not in self._infer_urls:
            self._infer_urls[model] = URL(f"{self._url}/v2/models/{quote(model, safe='')}/infer", encoded=True)
        return self._infer_urls[model]

    def _no_answer(self, batch_send: BatchSend, error: Exception) -> Failure:
        if batch_send.written_at_s is None:
            return Failure(
                FailureKind.UNREACHABLE, f"the edge server at {self._url} cannot be reached: {_cause(error)}"
            )
        return Failure(FailureKind.BROKEN, f"the edge server at {self._url} broke the connection: {_cause(error)}")

    def _parse(
        self, response: aiohttp.ClientResponse, answer: bytes, batch_send: BatchSend, report: BatchReport
    ) -> InferResponse:
        try:
            parsed = wire.parse_response(answer, wire.json_length_of(response.headers))
            check_response(parsed, batch_send)
            if parsed.id not in ("", str(batch_send.batch.batch_id)):
                raise WireError(f"the answer is to batch {parsed.id!r}")
        except WireError as error:
            sentence = f"the edge server's answer to batch {batch_send.batch.batch_id} cannot be used: {error}"
            raise SendFailed(Failure(FailureKind.BROKEN, sentence), report) from None
        return parsed

    def _report(self, batch_send: BatchSend, body: "_StampedBody", *, read_at_s: float | None = None) -> BatchReport:
        ended_at_s = self._clock() if read_at_s is None else read_at_s
        return BatchReport(
            elapsed_s=max(0.0, ended_at_s - batch_send.batch.sent_at_s),
            rtt_s=body.rtt_s() if read_at_s is not None else None,
        )


class _StampedBody(aiohttp.Payload):
    """A request body that records when it was written, and on which connection."""

    _value: bytes

    def __init__(self, value: bytes, batch_send: BatchSend, clock: Clock) -> None:
        super().__init__(value, content_type="application/octet-stream")
        self._size = len(value)
        self._batch_send = batch_send
        self._clock = clock
        self._socket: Any = None

    async def write(self, writer: AbstractStreamWriter) -> None:
        assert isinstance(writer, StreamWriter)
        if writer.transport is not None:
            self._socket = writer.transport.get_extra_info("socket")
        await writer.write(self._value, drain=False)
        # Before the drain: from here on, the time is the network's.
        self._batch_send.written_at_s = self._clock()
        await writer.drain()

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._value.decode(encoding, errors)

    def rtt_s(self) -> float | None:
        """Returns the kernel's round-trip time of the connection, seconds; None if unknown."""
        return smoothed_rtt_s(self._socket)


def _cause(error: Exception) -> str:
    """Returns the operating system's description of an error, or else the error's type."""
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return getattr(inner, "strerror", None) or type(inner).__name__


def _refused(status: int, retry_after: str | None, answer: bytes) -> Failure:
    message = f"the edge server answered {status}: {_error_sentence(answer)}"
    return Failure(failure_kind(status), message, _seconds(retry_after))


def _error_sentence(answer: bytes) -> str:
    """Returns the protocol's error text, or else the beginning of the body."""
    try:
        error = orjson.loads(answer)["error"]
    except (ValueError, KeyError, TypeError):
        error = answer[:200].decode(errors="replace") or "no reason given"
    return str(error)[:500]


def _seconds(value: object) -> float | None:
    """Returns a plausible number of seconds, None for anything else."""
    try:
        seconds = float(str(value))
    except ValueError:
        return None
    return seconds if 0 <= seconds < 1e6 else None
