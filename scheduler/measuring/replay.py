"""Open-loop replay: each request is sent at its time, independently of the answers to earlier ones.

A client that waits for answers before it sends more keeps the measured queue short itself ("coordinated omission").
Latency therefore counts from the intended send time, and the client's own lag is measured and reported.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp
import numpy as np
import numpy.typing as npt

from scheduler.client_access import NO_ACCESS, ClientAccess
from scheduler.measuring.errors import MeasuringError
from scheduler.measuring.exchange import Reply, Target, exchange, number, open_session
from scheduler.measuring.payloads import Payload
from scheduler.workloads import Seconds

GIVE_UP_S = 120.0
"""Longer than a daemon waits for a batch, so that the error comes from the daemon and not from the client."""
MAX_OUTSTANDING = 10_000
LAG_TOLD_S = 0.02
"""Lag above which, at the 99th percentile, the client reports that it fell behind."""


@dataclass(frozen=True, slots=True, eq=False)
class ReplayedRequest:
    """One request and its outcome; times are seconds from the start of the replay.

    Attributes:
        index: number in the schedule, from 0.
        payload: index of its payload.
        arrival_s: arrival time of the workload, which is the intended send time.
        sent_s: when the client began to send the request.
        answered_s: when the client had the answer, the refusal or the failure.
        within_slo: whether the request was answered within the SLO from `arrival_s`.
        reply: the outcome.
        tenant: for which it was sent; empty: it named none.
    """

    index: int
    payload: int
    arrival_s: float
    sent_s: float
    answered_s: float
    within_slo: bool
    reply: Reply
    tenant: str = ""

    @property
    def latency_s(self) -> float:
        """From the intended send time to the answer, the client's lag included."""
        return self.answered_s - self.arrival_s

    @property
    def answered(self) -> bool:
        """Whether the request was answered."""
        return self.reply.status == 200 and not self.reply.error

    @property
    def wait_s(self) -> float | None:
        """Time in the daemon's queue; None if it was not reported."""
        return number(self.reply.parameters, "wait_s")

    @property
    def output(self) -> npt.NDArray[Any] | None:
        """The first output, flat; None if it was not kept."""
        return self.reply.output


@dataclass(frozen=True, slots=True, eq=False)
class ReplayResult:
    """The result of a replay.

    Attributes:
        requests: the requests in the order of the schedule.
        slo_s: the SLO for `within_slo`.
        started_at_s: this host's monotonic clock at time 0 of the requests.
        wall_s: time from the start to the last answer.
    """

    requests: tuple[ReplayedRequest, ...]
    slo_s: float
    started_at_s: float
    wall_s: float

    @property
    def lags_s(self) -> Seconds:
        """How late the client sent each request."""
        return np.array([request.sent_s - request.arrival_s for request in self.requests])

    @property
    def lag_warning(self) -> str:
        """One sentence if the client fell behind; empty if not."""
        if not self.requests:
            return ""
        p99_s = float(np.quantile(self.lags_s, 0.99))
        if p99_s <= LAG_TOLD_S:
            return ""
        return (
            f"the client itself fell behind: 1 request in 100 was sent at least {p99_s:.3f} s late, which counts as"
            " latency; replay from a machine with more cores, or at a lower rate"
        )


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """The options of a replay.

    Attributes:
        slo_s: latency objective, seconds.
        give_up_s: longest wait for one answer, seconds.
        keep_outputs: whether each answer's first output is kept.
        max_outstanding: maximum of unanswered requests; further ones are not sent and count as failed.
        access: what the server is shown.
    """

    slo_s: float = 1.0
    give_up_s: float = GIVE_UP_S
    keep_outputs: bool = False
    max_outstanding: int = MAX_OUTSTANDING
    access: ClientAccess = NO_ACCESS


async def replay(
    times_s: Seconds,
    payloads: Sequence[Payload],
    target: Target,
    *,
    options: ReplayOptions,
    tenants: Sequence[str] = (),
    on_sent: Callable[[int], None] | None = None,
    on_answer: Callable[[ReplayedRequest], None] | None = None,
    stop: asyncio.Event | None = None,
) -> ReplayResult:
    """Sends one request at each time and collects the outcomes.

    Args:
        times_s: ascending arrival times, seconds from the start, shape (requests,).
        payloads: request i has payload i modulo their number.
        target: the server and the model.
        options: the options.
        tenants: for which each request is sent; empty: they name none.
        on_sent: called with the number of requests sent so far.
        on_answer: called with each request that has ended. Both are called on the event loop and must be quick.
        stop: ends the replay when it is set; None: nothing does.

    Returns:
        Each request exactly once, also if it was refused, failed or not sent; of one that was stopped, those that had
        ended.

    Raises:
        MeasuringError: there are no requests or no payloads.
    """
    if len(times_s) == 0:
        raise MeasuringError("there are no requests to replay; choose another trace or pattern")
    if not payloads:
        raise MeasuringError("there are no payloads to send; name at least one")
    async with open_session(give_up_s=options.give_up_s, access=options.access) as session:
        run = _Replay(session, payloads, target, options, on_answer, tenants)
        return await run.run(times_s, on_sent, asyncio.Event() if stop is None else stop)


class _Replay:
    """A running replay."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        payloads: Sequence[Payload],
        target: Target,
        options: ReplayOptions,
        on_answer: Callable[[ReplayedRequest], None] | None,
        tenants: Sequence[str],
    ) -> None:
        self._session = session
        self._payloads = payloads
        self._target = target
        self._options = options
        self._on_answer = on_answer
        self._tenants = tenants
        self._under_way: set[asyncio.Task[None]] = set()
        self._ended: dict[int, ReplayedRequest] = {}
        self._start_s = 0.0

    async def run(self, times_s: Seconds, on_sent: Callable[[int], None] | None, stop: asyncio.Event) -> ReplayResult:
        """Sends all requests and waits for all outcomes, or until it is stopped."""
        self._start_s = time.monotonic()
        work = asyncio.create_task(self._send_and_wait(times_s.tolist(), on_sent), name="replay")
        stopped = asyncio.create_task(stop.wait(), name="replay-stop")
        try:
            await asyncio.wait((work, stopped), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
        finally:
            ends = [work, stopped, *self._under_way]
            for task in ends:
                task.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
        requests = tuple(self._ended[index] for index in sorted(self._ended))
        wall_s = max((request.answered_s for request in requests), default=0.0)
        return ReplayResult(requests, self._options.slo_s, self._start_s, wall_s)

    async def _send_and_wait(self, times_s: list[float], on_sent: Callable[[int], None] | None) -> None:
        await self._send_all(times_s, on_sent)
        await asyncio.gather(*self._under_way)

    async def _send_all(self, times_s: list[float], on_sent: Callable[[int], None] | None) -> None:
        for index, arrival_s in enumerate(times_s):
            ahead_s = arrival_s - self._now_s()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            elif index % 64 == 0:
                # A burst is sent without pauses, except one from time to time in which answers get their time stamp.
                await asyncio.sleep(0)
            self._begin(index, arrival_s)
            if on_sent is not None:
                on_sent(index + 1)

    def _begin(self, index: int, arrival_s: float) -> None:
        if len(self._under_way) >= self._options.max_outstanding:
            limit = self._options.max_outstanding
            self._end(index, arrival_s, self._now_s(), Reply(0, f"not sent: {limit} requests were unanswered"))
            return
        task = asyncio.create_task(self._send(index, arrival_s))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _send(self, index: int, arrival_s: float) -> None:
        send = partial(exchange, request_id=str(index), keep_output=self._options.keep_outputs)
        payload = self._payloads[index % len(self._payloads)]
        sent_s = self._now_s()
        reply = await send(self._session, self._target, payload, tenant=self._tenant(index))
        self._end(index, arrival_s, sent_s, reply)

    def _end(self, index: int, arrival_s: float, sent_s: float, reply: Reply) -> None:
        answered_s = self._now_s()
        kept = reply.status == 200 and not reply.error and answered_s - arrival_s <= self._options.slo_s
        request = ReplayedRequest(
            index=index,
            payload=index % len(self._payloads),
            arrival_s=arrival_s,
            sent_s=sent_s,
            answered_s=answered_s,
            within_slo=kept,
            reply=reply,
            tenant=self._tenant(index),
        )
        self._ended[index] = request
        if self._on_answer is not None:
            self._on_answer(request)

    def _tenant(self, index: int) -> str:
        return self._tenants[index] if self._tenants else ""

    def _now_s(self) -> float:
        return time.monotonic() - self._start_s
