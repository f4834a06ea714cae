"""The functions as a backend: one invocation per batch through the provider's SDK, in threads; answers are checked."""

import asyncio
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from scheduler import wire
from scheduler.daemon.backends.batch_send import BatchSend, Clock, Reply, SendFailed, checked_outputs
from scheduler.daemon.backends.claims import Prediction, believed
from scheduler.daemon.backends.uplink_meter import UplinkMeter
from scheduler.daemon.backends.uplink_probe import probe_uplink
from scheduler.daemon.logs import log
from scheduler.daemon.threads import DaemonThreads
from scheduler.domain.batches import BatchReport, Failure, FailureKind
from scheduler.domain.failures import TOO_LARGE, frame_kind
from scheduler.domain.messages import ProbeMeasured
from scheduler.domain.requests import FUNCTIONS
from scheduler.fc_client import Account, CallFailed, FunctionCaller, Invoked, proxy_variable
from scheduler.wire import Encoded, InferRequest, WireError

LATE_READ_S = 20.0
"""How long a connection stays open after its batch was given up. Closing it earlier cancels the invocation on the
platform, and its bill stays unknown."""

LOG_TAIL_CHARACTERS = 2048
"""Longest end of a container's log that is taken from its answer."""

_AMBIGUOUS_CODES = ("Denied", "RAM", "Permission")
"""In the code of a 403: the key is valid but may not read a function's description. It may still invoke it."""


class FunctionName(NamedTuple):
    """A function and the version or alias to invoke."""

    function: str
    qualifier: str


class FunctionBackend:
    """The functions of one account as a backend."""

    def __init__(
        self,
        *,
        account: Account,
        functions: Sequence[FunctionName],
        max_in_flight: int,
        clock: Clock,
        meter: UplinkMeter | None = None,
    ) -> None:
        """Stores its parts.

        Args:
            account: endpoint and access key.
            functions: the functions that will be called.
            max_in_flight: maximum of batches in flight.
            clock: monotonic seconds.
            meter: measures the uplink meanwhile; None: nothing does.
        """
        # Twice as many: batches that were given up still occupy their thread.
        threads = 2 * max_in_flight
        self._account = account
        self._functions = tuple(functions)
        self._clock = clock
        self._meter = UplinkMeter(sockets=tuple, clock=clock) if meter is None else meter
        self._caller = FunctionCaller(account, connections=threads)
        self._threads = DaemonThreads(limit=threads, name="function")
        self._run_id = secrets.token_hex(4)
        self._doubtful = set(functions)
        """Functions without a successful call yet, or forbidden at the last call: a probe asks for each by name."""
        self._told: set[tuple[str, str]] = set()
        """Tiers and fields of reports that were not believed and have been logged."""

    async def open(self) -> None:
        """Imports the SDK and creates its client."""
        _warn_of_proxies(self._account.host)
        await self._threads.run(self._caller.open)

    async def send(self, batch_send: BatchSend, request: InferRequest) -> Reply:
        """Invokes the tier's function with a batch; see `InferenceBackend.send`."""
        with self._meter.call():
            return await self._threads.run(lambda: self._exchange(batch_send, request))

    async def probe(self) -> ProbeMeasured:
        """Asks for doubtful functions by name, and measures the uplink with a request that is refused, hence free."""
        if self._functions and not await self._some_function_is_there():
            return ProbeMeasured(FUNCTIONS, ok=False)
        measured = await probe_uplink(host=self._account.host, tls=self._account.protocol == "https", clock=self._clock)
        if measured is None:
            log(
                logging.WARNING,
                "function_check",
                message=f"{self._account.host} does not answer; it is asked again",
            )
            return ProbeMeasured(FUNCTIONS, ok=False)
        return ProbeMeasured(
            FUNCTIONS,
            ok=True,
            rtt_s=measured.rtt_s,
            sent_bytes=measured.sent_bytes,
            transfer_s=measured.transfer_s,
        )

    def status(self) -> Mapping[str, object]:
        """Returns nothing: what is known of functions is the engine's."""
        return {}

    async def close(self) -> None:
        """Makes each thread end after its current call."""
        self._threads.close()

    async def _some_function_is_there(self) -> bool:
        # Calls in other threads change the set during the loop.
        doubtful = sorted(self._doubtful.copy())
        problems = await asyncio.gather(*(self._threads.run(partial(self._problem, name)) for name in doubtful))
        for name, problem in zip(doubtful, problems, strict=True):
            if problem is not None:
                what = {"function": name.function, "qualifier": name.qualifier, "said": self._at_host(problem).said}
                log(logging.ERROR, "function_check", **what, message=problem.message)
            else:
                self._doubtful.discard(name)
        return len(self._doubtful) < len(self._functions)

    def _at_host(self, failure: Failure) -> Failure:
        """Returns a failure of a call with the host in what is logged of it."""
        return replace(failure, said=f"{self._account.host}: {failure.said}" if failure.said else self._account.host)

    def _problem(self, name: FunctionName) -> Failure | None:
        """Returns the problem with key, endpoint or function; None without one."""
        self._caller.open()
        try:
            self._caller.check(function=name.function, qualifier=name.qualifier)
        except CallFailed as failed:
            may_only_invoke = any(word in failed.code for word in _AMBIGUOUS_CODES)
            return None if may_only_invoke else failed.failure
        return None

    def _exchange(self, batch_send: BatchSend, request: InferRequest) -> Reply:
        """Invokes the function and reads its answer; runs in a thread."""
        self._caller.open()
        batch, tier = batch_send.batch, batch_send.tier
        assert tier is not None
        batch_id = f"{self._run_id}-{batch.batch_id}"
        frame = _frame(batch_send, batch_id, request)
        left_s = batch.give_up_at_s - self._clock()
        if left_s <= 0:
            failure = Failure(
                FailureKind.UNREACHABLE,
                "every thread for function calls is busy; raise `max_function_in_flight`",
            )
            raise SendFailed(failure, self._report(batch_send, {}))
        batch_send.written_at_s = self._clock()
        try:
            invoked = self._caller.invoke(
                function=tier.function_name,
                qualifier=tier.qualifier,
                body=frame,
                read_timeout_s=left_s + LATE_READ_S,
                limit_bytes=batch_send.outputs.limit_bytes(batch.items),
            )
        except CallFailed as failed:
            if failed.failure.kind is FailureKind.FORBIDDEN:
                self._doubtful.add(FunctionName(tier.function_name, tier.qualifier))
            raise SendFailed(self._at_host(failed.failure), self._report(batch_send, {})) from None
        self._doubtful.discard(FunctionName(tier.function_name, tier.qualifier))
        return self._reply(batch_send, invoked, batch_id)

    def _reply(self, batch_send: BatchSend, invoked: Invoked, batch_id: str) -> Reply:
        read_at_s = self._clock()
        try:
            header, payload = wire.unpack_frame(invoked.body)
        except WireError as error:
            kind = FailureKind.FUNCTION if invoked.error_type else FailureKind.BROKEN
            failure = Failure(kind, invoked.without_frame(error))
            report = self._report(batch_send, {}, read_at_s, initializer_failed=invoked.initializer_failed)
            raise SendFailed(failure, report) from None
        batch_send.log_tail = str(header.get("log_tail") or "")[:LOG_TAIL_CHARACTERS]
        report = self._report(batch_send, header, read_at_s)
        if (reported := _failure_in(header, invoked.error_type, batch_id)) is not None:
            raise SendFailed(reported, report)
        outputs = () if batch_send.batch.warming else self._outputs(batch_send, payload, report, header)
        not_finite = batch_send.outputs.not_finite(outputs, batch_send.batch.items) if outputs else frozenset()
        identity = str(header.get("identity") or "")
        return Reply(outputs, report, read_at_s, identity=identity, not_finite=not_finite)

    def _outputs(
        self, batch_send: BatchSend, payload: Encoded, report: BatchReport, header: Mapping[str, object]
    ) -> tuple[wire.Tensor, ...]:
        try:
            response = wire.parse_response(payload.body, payload.json_length)
            outputs = checked_outputs(response, batch_send, header.get(wire.ITEM_CRC32))
        except WireError as error:
            sentence = f"the function's answer to batch {batch_send.batch.batch_id} cannot be used: {error}"
            raise SendFailed(Failure(FailureKind.BROKEN, sentence), report) from None
        return outputs

    def _report(
        self,
        batch_send: BatchSend,
        header: Mapping[str, object],
        read_at_s: float | None = None,
        *,
        initializer_failed: bool = False,
    ) -> BatchReport:
        ended_at_s = self._clock() if read_at_s is None else read_at_s
        batch, memory_bytes = batch_send.batch, header.get("memory_bytes")
        elapsed_s = max(0.0, ended_at_s - batch.sent_at_s)
        predicted = Prediction(batch.predicted_service_s, batch.predicted_init_s)
        claims = believed(header, elapsed_s=elapsed_s, predicted=predicted)
        for name in claims.disbelieved:
            self._tell_once(batch.tier, name, header[name], elapsed_s)
        return BatchReport(
            elapsed_s=elapsed_s,
            service_s=claims.service_s,
            billed_duration_s=claims.duration_s,
            cold_start=claims.cold_start,
            instance_id=str(header.get("instance_id") or "")[:128],
            memory_bytes=memory_bytes if isinstance(memory_bytes, int) else None,
            init_s=claims.init_s,
            initializer_failed=initializer_failed,
            disbelieved=claims.disbelieved,
        )

    def _tell_once(self, tier: str, name: str, said: object, elapsed_s: float) -> None:
        """Logs the first report of each kind and tier that cannot be true; all are counted."""
        if (tier, name) in self._told:
            return
        self._told.add((tier, name))
        message = (
            f"the function reports {name} = {str(said)[:40]} for a call that took {elapsed_s:.3f} s; the prediction is"
            " booked instead; check that the function runs this project's container"
        )
        log(logging.WARNING, "report_not_believed", tier=tier, field=name, message=message)


def _warn_of_proxies(host: str) -> None:
    """Logs a warning if calls of a host will go through a proxy."""
    if variable := proxy_variable(host):
        log(
            logging.WARNING,
            "proxy",
            variable=variable,
            message=f"function calls use this proxy; unset it, or name {host} in NO_PROXY, to avoid that",
        )


def _frame(batch_send: BatchSend, batch_id: str, request: InferRequest) -> bytes:
    batch = batch_send.batch
    header: dict[str, object] = {"model": batch.model, "batch_id": batch_id}
    if batch.warming:
        return wire.pack_frame({**header, "warm": True}, Encoded(b"", None))
    if batch_send.wants_log:
        header["log_tail"] = True
    if batch_send.trace is not None:
        header.update(batch_send.trace.headers())
    return wire.pack_frame(header, wire.encode_request(request))


def _failure_in(header: Mapping[str, object], error_type: str, batch_id: str) -> Failure | None:
    """Returns the failure that the frame's header or the platform's error type describes; None without one."""
    status, error = header.get("status"), str(header.get("error") or "no reason given")[:500]
    if header.get("batch_id") not in (None, batch_id):
        return Failure(FailureKind.BROKEN, f"the function answered to another batch, {str(header['batch_id'])[:64]}")
    if status == 200 and not error_type:
        return None
    kind = frame_kind(status)
    what = f"the function failed ({error_type or status})"
    if kind is not FailureKind.FUNCTION:
        what = f"the function answered {status}"
    return Failure(kind, f"{what}: {error}", by_size=status == TOO_LARGE)
