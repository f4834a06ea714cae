"""The edge server as a backend: Open Inference Protocol v2, one batch per call, kept-alive connections."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter
from yarl import URL

from scheduler import wire
from scheduler.client_access import NO_ACCESS, ClientAccess
from scheduler.daemon.backends.batch_send import BatchSend, Clock, Reply, SendFailed, checked_outputs
from scheduler.daemon.backends.bounded_reading import TooLarge, read_within
from scheduler.daemon.backends.claims import believed, waited_s
from scheduler.daemon.backends.edge_description import describe
from scheduler.daemon.backends.edge_refusals import about_form, refused
from scheduler.daemon.backends.edge_servers import EdgeServers
from scheduler.daemon.backends.tcp_info import smoothed_rtt_s
from scheduler.daemon.logs import log
from scheduler.daemon.model_outputs import HEADER_BYTES
from scheduler.domain.batches import BatchReport, Failure, FailureKind
from scheduler.domain.failures import lost
from scheduler.domain.messages import ProbeMeasured
from scheduler.domain.requests import EDGE_NAME, Place
from scheduler.wire import InferRequest, InferResponse, WireError
from scheduler.wire.servers import TensorForm, encoded_in, said_of_model

KEEP_ALIVE_S = 30.0
"""Shorter than the idle limits of servers (120 s for ours), so that no batch uses a connection that is being closed."""

PROBE_LIMIT_S = 1.0
"""Longest wait for the answer to a probe: an edge that falls silent is noticed within 2 s of the batch that it has."""


class EdgeBackend:
    """An Open Inference Protocol v2 server as a backend: ours, Triton, KServe, MLServer."""

    def __init__(
        self,
        *,
        url: str,
        connect_timeout_s: float,
        clock: Clock,
        tensors: str = "auto",
        models: Mapping[str, frozenset[str]] | None = None,
        servers: EdgeServers | None = None,
        access: ClientAccess = NO_ACCESS,
        name: str = EDGE_NAME,
    ) -> None:
        """Stores its parts.

        Args:
            url: of the form `http://HOST:PORT` or `https://HOST:PORT`.
            connect_timeout_s: longest wait for a TCP connection.
            clock: monotonic seconds.
            tensors: "binary" or "json", or "auto" to learn which of them the server takes.
            models: by name of the models to ask the server for: their inputs that are pictures.
            servers: what is known of edge servers.
            access: what the server is shown of this client.
            name: of the server.
        """
        self._place = Place.edge(name)
        self._url = url.rstrip("/")
        self._connect_timeout_s = connect_timeout_s
        self._clock = clock
        self._fixed = None if tensors == "auto" else TensorForm(tensors)
        self._models = dict(models or {})
        self._servers = EdgeServers() if servers is None else servers
        self._access = access
        self._told_claims = False
        """Whether it was logged that the server says of itself what cannot be true."""
        self._asked = False
        """Whether the server was asked what it is, since it was last away."""
        self._server = ""
        self._session: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None
        """Opens a connection for each call."""
        self._infer_urls: dict[str, URL] = {}

    async def open(self) -> None:
        """Creates the connection pool."""
        # The engine bounds the batches in flight, so the pool needs no limit.
        tls = self._access.context()
        self._session = self._new_session(aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S, ssl=tls))
        self._fresh = self._new_session(aiohttp.TCPConnector(limit=0, force_close=True, ssl=tls))

    def _new_session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        reuse = aiohttp.TraceConfig()
        reuse.on_connection_reuseconn.append(_note_reuse)
        return aiohttp.ClientSession(
            connector=connector,
            headers=self._access.headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            # No total limit: the batch sender gives batches up, so a second timer for each would be wasted.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding"),
            trace_configs=[reuse],
        )

    async def send(self, batch_send: BatchSend, request: InferRequest) -> Reply:
        """Sends a batch; see `InferenceBackend.send`.

        As long as it is not known which form of tensors the server takes, a batch that fails in one form is sent again
        in the other one, at once: it was lost to the question, not to a fault.
        """
        batch, servers = batch_send.batch, self._servers
        if self._fixed is not None:
            return await self._exchange(batch_send, request, self._fixed, since_s=batch.sent_at_s)
        form = servers.form(self._url, batch.model)
        try:
            reply = await self._exchange(batch_send, request, form, since_s=batch.sent_at_s)
        except SendFailed as failed:
            if servers.sure(self._url, batch.model) or not about_form(failed.failure):
                raise
            reply = await self._in_the_other(batch_send, request, form.other, failed)
            form = form.other
        servers.answered(self._url, batch.model, form)
        return reply

    async def _in_the_other(
        self, batch_send: BatchSend, request: InferRequest, form: TensorForm, first: SendFailed
    ) -> Reply:
        try:
            return await self._exchange(batch_send, request, form, since_s=self._clock())
        except SendFailed as second:
            # Of two failures the one that says more about the batch: it has met a server that could read it.
            told = second.failure.kind is FailureKind.REJECTED and first.failure.kind is not FailureKind.REJECTED
            raise (second if told else first) from None

    async def _exchange(
        self, batch_send: BatchSend, request: InferRequest, form: TensorForm, *, since_s: float
    ) -> Reply:
        batch = batch_send.batch
        try:
            encoded = self._encoded(batch.model, request, form)
        except WireError as error:
            bare = BatchReport(elapsed_s=max(0.0, self._clock() - since_s))
            raise SendFailed(Failure(FailureKind.REJECTED, str(error)), bare) from None
        traced = batch_send.trace.headers() if batch_send.trace is not None else {}
        headers = {**encoded.headers, **traced}
        body = _StampedBody(encoded.body, batch_send, self._clock)
        limit_bytes = batch_send.outputs.limit_bytes(batch.items)
        try:
            try:
                response, answer, read_at_s = await self._posted(self._pool(), batch.model, body, headers, limit_bytes)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if not body.reused:
                    raise
                # The server had closed a kept connection, as some do after an error or a few seconds: it has read
                # nothing, or else the edge computes the batch twice, which is free. Other kept ones may be closed too.
                batch_send.written_at_s = None
                body = _StampedBody(encoded.body, batch_send, self._clock)
                fresh = self._fresh_pool()
                response, answer, read_at_s = await self._posted(fresh, batch.model, body, headers, limit_bytes)
        except TooLarge as error:
            sentence = f"the edge server's answer to batch {batch.batch_id} cannot be used: {error}"
            raise SendFailed(Failure(FailureKind.BROKEN, sentence), self._report(since_s, body)) from None
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            self._lost()
            raise SendFailed(self._no_answer(batch_send, error), self._report(since_s, body)) from None
        report = self._report(since_s, body, read_at_s=read_at_s)
        if response.status != 200:
            retry_after = response.headers.get("Retry-After")
            raise SendFailed(refused(response.status, retry_after, answer, items=batch.items), report)
        parsed = self._parse(response, answer, batch_send, report)
        not_finite = batch_send.outputs.not_finite(parsed.outputs, batch.items)
        report = self._with_claims(report, parsed.parameters)
        identity = parsed.parameters.get("identity")
        said = identity if isinstance(identity, str) else ""
        return Reply(parsed.outputs, report, read_at_s, identity=said, not_finite=not_finite)

    def _with_claims(self, report: BatchReport, parameters: Mapping[str, object]) -> BatchReport:
        """Returns the report with the seconds that the server says it worked, unless they exceed what was measured."""
        claims = believed({"service_s": parameters.get("service_s")}, elapsed_s=report.elapsed_s)
        if claims.disbelieved and not self._told_claims:
            self._told_claims = True
            message = (
                f"the edge server at {self._url} reports service_s = {str(parameters['service_s'])[:40]} for a batch"
                f" that took {report.elapsed_s:.3f} s; what was measured here is used instead; check the server"
            )
            log(logging.WARNING, "report_not_believed", field="service_s", message=message)
        left_s = report.elapsed_s - (claims.service_s or 0.0)
        queue_s = waited_s(parameters.get("queue_s"), at_most_s=left_s)
        return replace(report, service_s=claims.service_s, queue_s=queue_s, disbelieved=claims.disbelieved)

    async def _posted(
        self,
        pool: aiohttp.ClientSession,
        model: str,
        body: "_StampedBody",
        headers: Mapping[str, str],
        limit_bytes: int,
    ) -> tuple[aiohttp.ClientResponse, bytes, float]:
        """Returns the response to a batch, its body, and when its last byte was read."""
        target = self._infer_url(model)
        post = pool.post(target, data=body, headers=headers, allow_redirects=False, trace_request_ctx=body)
        async with post as response:
            answer = await read_within(response, limit_bytes)
            return response, answer, self._clock()

    def _encoded(self, model: str, request: InferRequest, form: TensorForm) -> wire.Encoded:
        return encoded_in(request, form, as_base64=self._models.get(model, frozenset()))

    async def probe(self) -> ProbeMeasured:
        """Asks the server whether it is ready, and measures the round trip; the first time also what it is."""
        asked_at_s = self._clock()
        limit = aiohttp.ClientTimeout(total=PROBE_LIMIT_S)
        try:
            async with self._pool().get(
                f"{self._url}/v2/health/ready", timeout=limit, allow_redirects=False
            ) as response:
                await read_within(response, HEADER_BYTES)
        except TooLarge:
            return self._down(f"the edge server at {self._url} answers with {HEADER_BYTES} bytes whether it is ready")
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            return self._down(f"the edge server at {self._url} cannot be reached: {_cause(error)}")
        if response.status in (401, 403):
            return self._down(
                f"the edge server at {self._url} answered {response.status}: set `token_env` in [edge] to the variable"
                " with its token, or start it with --open"
            )
        if response.status != 200:
            return self._down(f"the edge server at {self._url} is not ready: it answered {response.status}")
        rtt_s = self._clock() - asked_at_s
        limits: tuple[tuple[str, int], ...] = ()
        parallel: int | None = None
        if not self._asked and (said := await describe(self._pool(), self._url, self._models)) is not None:
            self._servers.described(self._url, said)
            self._servers.back(self._place, said.identities(), asked_at_s)
            self._asked, self._server, limits = True, f"{self._url} {said.server}", said.largest_batches()
            parallel = said.parallel()
        return ProbeMeasured(
            self._place, ok=True, rtt_s=rtt_s, largest_batches=limits, server=self._server, parallel=parallel
        )

    def status(self) -> dict[str, object]:
        """Returns what is known of the server, as /v1/status shows it."""
        return self._servers.status(self._url, "auto" if self._fixed is None else self._fixed.value)

    async def identity(self, model: str) -> str | None:
        """Returns the identity of a model's card and files in the server's metadata; empty: it reports none.

        None: it does not describe the model now, which says nothing about what it serves.
        """
        limit = aiohttp.ClientTimeout(total=PROBE_LIMIT_S)
        try:
            async with self._pool().get(
                self._infer_url(model).parent, timeout=limit, allow_redirects=False
            ) as response:
                metadata = orjson.loads(await read_within(response, HEADER_BYTES)) if response.status == 200 else None
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError):
            return None
        if not isinstance(metadata, dict):
            return None
        if self._servers.says_other(self._url, model, said_of_model(metadata, {})):
            # It was started anew without a batch or probe that would have shown it: the next probe asks what it is.
            self._asked = False
        parameters = metadata.get("parameters")
        identity = parameters.get("identity") if isinstance(parameters, dict) else None
        return identity if isinstance(identity, str) else ""

    async def close(self) -> None:
        """Closes the connections."""
        for session in (self._session, self._fresh):
            if session is not None:
                await session.close()

    def _lost(self) -> None:
        """Notes that the server was away: another one may be there when it is back."""
        self._asked = False
        self._servers.doubt(self._url)

    def _down(self, message: str) -> ProbeMeasured:
        self._lost()
        log(logging.WARNING, "edge_check", message=f"{message}; the daemon will ask again")
        return ProbeMeasured(self._place, ok=False)

    def _pool(self) -> aiohttp.ClientSession:
        assert self._session is not None, "call open() first"
        return self._session

    def _fresh_pool(self) -> aiohttp.ClientSession:
        assert self._fresh is not None, "call open() first"
        return self._fresh

    def _infer_url(self, model: str) -> URL:
        if model not in self._infer_urls:
            self._infer_urls[model] = URL(f"{self._url}/v2/models/{quote(model, safe='')}/infer", encoded=True)
        return self._infer_urls[model]

    def _no_answer(self, batch_send: BatchSend, error: Exception) -> Failure:
        meaning, cause = lost(error), _cause(error)
        if batch_send.written_at_s is None:
            advice = f"; {meaning.mend}" if meaning is not None and meaning.mend else ""
            sentence = f"the edge server at {self._url} cannot be reached: {cause}{advice}"
            return Failure(FailureKind.UNREACHABLE, sentence)
        kind = FailureKind.BROKEN if meaning is None or meaning.kind is FailureKind.UNREACHABLE else meaning.kind
        how = "did not answer in time" if kind is FailureKind.TIMEOUT else "broke the connection"
        return Failure(kind, f"the edge server at {self._url} {how}: {cause}")

    def _parse(
        self, response: aiohttp.ClientResponse, answer: bytes, batch_send: BatchSend, report: BatchReport
    ) -> InferResponse:
        try:
            parsed = wire.parse_response(answer, wire.json_length_of(response.headers))
            outputs = checked_outputs(parsed, batch_send, parsed.parameters.get(wire.ITEM_CRC32))
            if parsed.id not in ("", str(batch_send.batch.batch_id)):
                raise WireError(f"the answer is to batch {parsed.id!r}")
        except WireError as error:
            sentence = f"the edge server's answer to batch {batch_send.batch.batch_id} cannot be used: {error}"
            raise SendFailed(Failure(FailureKind.BROKEN, sentence), report) from None
        return replace(parsed, outputs=outputs)

    def _report(self, since_s: float, body: "_StampedBody", *, read_at_s: float | None = None) -> BatchReport:
        ended_at_s = self._clock() if read_at_s is None else read_at_s
        return BatchReport(
            elapsed_s=max(0.0, ended_at_s - since_s),
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
        self.reused = False
        """Whether its connection had been used before."""

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


async def _note_reuse(session: object, context: SimpleNamespace, params: object) -> None:  # noqa: ARG001
    """Tells the body of a call that its connection was used before; a probe has none."""
    if isinstance(context.trace_request_ctx, _StampedBody):
        context.trace_request_ctx.reused = True


def _cause(error: Exception) -> str:
    """Returns the operating system's description of an error, or else the error's type."""
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return getattr(inner, "strerror", None) or type(inner).__name__
