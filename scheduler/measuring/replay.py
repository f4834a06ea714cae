"""Open-loop replay: each request goes out at its time, whatever has become of those before it.

A client that waits for answers before it sends more measures the queue it has itself kept short ("coordinated
omission"). So latency counts from the intended send time, and the client's own lag is measured and told.
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

from scheduler.measuring.errors import MeasuringError
from scheduler.measuring.exchange import Reply, Target, exchange, number, open_session
from scheduler.measuring.payloads import Payload
from scheduler.workloads import Seconds

GIVE_UP_S = 120.0
"""Longer than a daemon holds a batch that is not answered, so that it is the daemon who says what went wrong."""
MAX_OUTSTANDING = 10_000
LAG_TOLD_S = 0.02
"""The client says that it fell behind where the 99th percentile of its lag is above this."""


@dataclass(frozen=True, slots=True, eq=False)
class ReplayedRequest:
    """One request and what became of it; times are seconds from the replay's start.

    Parameters:
        index: its place in the schedule, from 0.
        payload: index of the payload it carried.
        arrival_s: when the workload has it arrive, which is the intended send time.
        sent_s: when the client began to send it.
        answered_s: when the answer, the refusal or the failure was there.
        within_slo: whether it was answered, and within the SLO from `arrival_s`.
        reply: what came back.
    """

    index: int
    payload: int
    arrival_s: float
    sent_s: float
    answered_s: float
    within_slo: bool
    reply: Reply

    @property
    def latency_s(self) -> float:
        """From the intended send time to the answer, so that a client's lag counts."""
        return self.answered_s - self.arrival_s

    @property
    def answered(self) -> bool:
        """Whether there was an answer."""
        return self.reply.status == 200 and not self.reply.error

    @property
    def wait_s(self) -> float | None:
        """Time in the daemon's queue; None where it did not tell."""
        return number(self.reply.parameters, "wait_s")

    @property
    def output(self) -> npt.NDArray[Any] | None:
        """The first output, flat, if it was to be kept."""
        return self.reply.output


@dataclass(frozen=True, slots=True, eq=False)
class ReplayResult:
    """A replay that is over.

    Parameters:
        requests: in the order of the schedule.
        slo_s: what `within_slo` was judged by.
        started_at_s: the monotonic clock (of this host, in any process) at time 0 of the requests.
        wall_s: from the start to the last answer.
    """

    requests: tuple[ReplayedRequest, ...]
    slo_s: float
    started_at_s: float
    wall_s: float

    @property
    def lags_s(self) -> Seconds:
        """How late the client itself sent each request."""
        return np.array([request.sent_s - request.arrival_s for request in self.requests])

    @property
    def lag_warning(self) -> str:
        """One sentence if the client fell behind; empty if it kept up."""
        if not self.requests:
            return ""
        p99_s = float(np.quantile(self.lags_s, 0.99))
        if p99_s <= LAG_TOLD_S:
            return ""
        return (
            f"the client itself fell behind: 1 request in 100 went out {p99_s:.3f} s late or later, which counts as"
            " latency; replay from a machine with more cores, or at a lower rate"
        )


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """How a replay is run.

    Parameters:
        slo_s: latency objective, seconds.
        give_up_s: longest wait for one answer, seconds.
        keep_outputs: whether each answer's first output is kept.
        max_outstanding: with so many requests unanswered, further ones are not sent but counted as failed.
    """

    slo_s: float = 1.0
    give_up_s: float = GIVE_UP_S
    keep_outputs: bool = False
    max_outstanding: int = MAX_OUTSTANDING


async def replay(
    times_s: Seconds,
    payloads: Sequence[Payload],
    target: Target,
    *,
    options: ReplayOptions,
    on_sent: Callable[[int], None] | None = None,
    on_answer: Callable[[ReplayedRequest], None] | None = None,
) -> ReplayResult:
    """Sends one request at each time and collects what becomes of all of them.

    Parameters:
        times_s: ascending arrival times, seconds from the start, shape (requests,).
        payloads: request i carries payload i modulo their number.
        target: where to.
        options: see there.
        on_sent: is told the number of requests sent so far.
        on_answer: is told each request that has ended. Both are called on the event loop and must be quick.

    Returns:
        each request exactly once, also those refused, failed or never sent.

    Raises:
        MeasuringError: there is no request, or no payload.
    """
    if len(times_s) == 0:
        raise MeasuringError("there is no request to replay: the arrivals are empty; choose another trace or pattern")
    if not payloads:
        raise MeasuringError("there is nothing to send: name at least one picture")
    async with open_session(give_up_s=options.give_up_s) as session:
        run = _Replay(session, payloads, target, options, on_answer)
        return await run.run(times_s, on_sent)


class _Replay:
    """One replay under way."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        payloads: Sequence[Payload],
        target: Target,
        options: ReplayOptions,
        on_answer: Callable[[ReplayedRequest], None] | None,
    ) -> None:
        self._session = session
        self._payloads = payloads
        self._target = target
        self._options = options
        self._on_answer = on_answer
        self._under_way: set[asyncio.Task[None]] = set()
        self._ended: dict[int, ReplayedRequest] = {}
        self._start_s = 0.0

    async def run(self, times_s: Seconds, on_sent: Callable[[int], None] | None) -> ReplayResult:
        """Sends all, waits for all."""
        self._start_s = time.monotonic()
        try:
            await self._send_all(times_s.tolist(), on_sent)
            await asyncio.gather(*self._under_way)
        finally:
            for task in self._under_way:
                task.cancel()
        requests = tuple(self._ended[index] for index in range(len(times_s)))
        wall_s = max(request.answered_s for request in requests)
        return ReplayResult(requests, self._options.slo_s, self._start_s, wall_s)

    async def _send_all(self, times_s: list[float], on_sent: Callable[[int], None] | None) -> None:
        for index, arrival_s in enumerate(times_s):
            ahead_s = arrival_s - self._now_s()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            elif index % 64 == 0:
                # A burst is sent without a pause, but answers that are there meanwhile get their time stamp.
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
        reply = await send(self._session, self._target, payload.data)
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
        )
        self._ended[index] = request
        if self._on_answer is not None:
            self._on_answer(request)

    def _now_s(self) -> float:
        return time.monotonic() - self._start_s
