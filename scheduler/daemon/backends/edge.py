"""The edge server as a backend: Open Inference Protocol v2, one batch per call, kept-alive connections."""

import asyncio
import logging
import ssl
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import quote

import aiohttp
import orjson
from yarl import URL

from scheduler import wire
from scheduler.client_access import NO_ACCESS, ClientAccess
from scheduler.daemon.backends.batch_send import BatchSend, Clock, Reply, SendFailed, checked_outputs
from scheduler.daemon.backends.bounded_reading import TooLarge, read_within
from scheduler.daemon.backends.claims import believed, beside_device_s, waited_s
from scheduler.daemon.backends.edge_calls import KEEP_ALIVE_S, Disconnected, EdgeAnswer, EdgeCalls
from scheduler.daemon.backends.edge_description import describe
from scheduler.daemon.backends.edge_refusals import about_form, refused
from scheduler.daemon.backends.edge_servers import EdgeServers
from scheduler.daemon.backends.edge_statistics import EXTENSION, ServerStatistics
from scheduler.daemon.logs import log
from scheduler.daemon.model_outputs import HEADER_BYTES
from scheduler.domain.batches import BatchReport, Failure, FailureKind
from scheduler.domain.failures import lost
from scheduler.domain.messages import ProbeMeasured
from scheduler.domain.requests import EDGE_NAME, Place
from scheduler.wire import InferRequest, InferResponse, Tensor, WireError
from scheduler.wire.servers import TensorForm, encoded_in, said_of_model

_OF_A_DEVICE = frozenset(("queue_s", "decode_s"))
"""Parameters in which a server says what its batch waited for, and what was done beside its device."""
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
        """For all but batches."""
        self._calls: EdgeCalls | None = None
        self._infer_urls: dict[str, URL] = {}
        self._statistics = ServerStatistics()
        self._has_statistics = False

    async def open(self) -> None:
        """Creates the connection pools."""
        tls = self._access.context()
        self._session = self._new_session(aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S, ssl=tls))
        self._calls = self._new_calls(tls)

    def _new_calls(self, tls: ssl.SSLContext | bool) -> EdgeCalls:
        # The engine bounds the batches in flight, so the pool needs no limit.
        return EdgeCalls(
            self._url,
            headers=self._access.headers,
            tls=tls,
            connect_timeout_s=self._connect_timeout_s,
            clock=self._clock,
        )

    def _new_session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            headers=self._access.headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding"),
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
        try:
            try:
                answer = await self._posted(batch_send, encoded)
            except Disconnected as error:
                if not error.kept:
                    raise
                # The server had closed a kept connection, as some do after an error or a few seconds: it has read
                # nothing, or else the edge computes the batch twice, which is free. Other kept ones may be closed too.
                batch_send.written_at_s = None
                answer = await self._posted(batch_send, encoded, fresh=True)
        except TooLarge as error:
            sentence = f"the edge server's answer to batch {batch.batch_id} cannot be used: {error}"
            raise SendFailed(Failure(FailureKind.BROKEN, sentence), self._report(since_s)) from None
        except (OSError, asyncio.TimeoutError) as error:
            self._lost()
            raise SendFailed(self._no_answer(batch_send, error), self._report(since_s)) from None
        read_at_s, report = answer.read_at_s, self._report(since_s, answer)
        if answer.status != 200:
            body = bytes(answer.body)
            raise SendFailed(refused(answer.status, answer.get("Retry-After"), body, items=batch.items), report)
        parsed, outputs = self._parse(answer, batch_send, report)
        not_finite = batch_send.outputs.not_finite(outputs, batch.items)
        report = self._with_claims(report, parsed.parameters)
        if report.beside_s is None and self._has_statistics:
            beside_s = self._statistics.answered(
                self._pool(), self._infer_url(batch.model).parent, batch.model, report.elapsed_s
            )
            report = replace(report, beside_s=beside_s)
        identity = parsed.parameters.get("identity")
        said = identity if isinstance(identity, str) else ""
        return Reply(outputs, report, read_at_s, identity=said, not_finite=not_finite)

    def _with_claims(self, report: BatchReport, parameters: Mapping[str, object]) -> BatchReport:
        """Returns the report with the seconds that the server says it worked, unless they exceed what was measured."""
        said_s = parameters.get("service_s")
        if type(said_s) is float and 0.0 <= said_s <= report.elapsed_s and parameters.keys().isdisjoint(_OF_A_DEVICE):
            # That is all that most servers say of it, and it is believed as it is.
            return BatchReport(report.elapsed_s, said_s, rtt_s=report.rtt_s)
        claims = believed({"service_s": said_s}, elapsed_s=report.elapsed_s)
        if claims.disbelieved and not self._told_claims:
            self._told_claims = True
            message = (
                f"the edge server at {self._url} reports service_s = {str(parameters['service_s'])[:40]} for a batch"
                f" that took {report.elapsed_s:.3f} s; what was measured here is used instead; check the server"
            )
            log(logging.WARNING, "report_not_believed", field="service_s", message=message)
        left_s = report.elapsed_s - (claims.service_s or 0.0)
        queue_s = waited_s(parameters.get("queue_s"), at_most_s=left_s)
        beside_s = beside_device_s(parameters.get("decode_s"), claims.service_s, queue_s, elapsed_s=report.elapsed_s)
        told = claims.disbelieved
        return replace(report, service_s=claims.service_s, queue_s=queue_s, beside_s=beside_s, disbelieved=told)

    async def _posted(self, batch_send: BatchSend, encoded: wire.EncodedParts, *, fresh: bool = False) -> EdgeAnswer:
        """Returns the answer to a batch; see `EdgeCalls.post`."""
        assert self._calls is not None, "call open() first"
        batch = batch_send.batch

        def written() -> None:
            # From here on, the time is the network's.
            batch_send.written_at_s = self._clock()

        headers = encoded.headers
        if batch_send.trace is not None:
            headers |= batch_send.trace.headers()
        return await self._calls.post(
            self._infer_url(batch.model).raw_path,
            encoded.parts,
            headers,
            limit_bytes=batch_send.outputs.limit_bytes(batch.items),
            written=written,
            fresh=fresh,
        )

    def _encoded(self, model: str, request: InferRequest, form: TensorForm) -> wire.EncodedParts:
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
            self._has_statistics = EXTENSION in said.extensions
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
        await self._statistics.close()
        if self._session is not None:
            await self._session.close()
        if self._calls is not None:
            await self._calls.close()

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
        self, answer: EdgeAnswer, batch_send: BatchSend, report: BatchReport
    ) -> tuple[InferResponse, tuple[Tensor, ...]]:
        """Returns the answer as the server wrote it, and the outputs that the model has."""
        try:
            parsed = wire.parse_response(answer.body, wire.json_length_of(answer))
            outputs = checked_outputs(parsed, batch_send, parsed.parameters.get(wire.ITEM_CRC32))
            if parsed.id not in ("", str(batch_send.batch.batch_id)):
                raise WireError(f"the answer is to batch {parsed.id!r}")
        except WireError as error:
            sentence = f"the edge server's answer to batch {batch_send.batch.batch_id} cannot be used: {error}"
            raise SendFailed(Failure(FailureKind.BROKEN, sentence), report) from None
        return parsed, outputs

    def _report(self, since_s: float, answer: EdgeAnswer | None = None) -> BatchReport:
        ended_at_s = self._clock() if answer is None else answer.read_at_s
        return BatchReport(elapsed_s=max(0.0, ended_at_s - since_s), rtt_s=None if answer is None else answer.rtt_s)


def _cause(error: Exception) -> str:
    """Returns the operating system's description of an error, or else the error's type."""
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return getattr(inner, "strerror", None) or type(inner).__name__
