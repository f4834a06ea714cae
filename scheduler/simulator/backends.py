"""Simulated edge and functions. What becomes of a batch is settled when it is sent: nothing later can change it."""

import math
from bisect import bisect_right, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from scheduler.domain.batches import Batch, BatchReport, Failure, FailureKind
from scheduler.domain.latency import FunctionTier, LatencyModel
from scheduler.domain.messages import BatchFailed, BatchFinished, BillArrived, ProbeMeasured
from scheduler.domain.requests import Backend
from scheduler.simulator.faults import Faults
from scheduler.simulator.network import Uplink

PROBE_BYTES = 32 * 1024
PROBE_LIMIT_S = 5.0
REFUSED_AFTER_S = 0.001
"""A machine on the LAN that is off, or whose port is closed, is noticed so soon."""
LATE_LIMIT_S = 30.0
"""How long after it was given up an invocation may still come back with its bill, as in the daemon."""
WARMING_S = 0.001
"""A warming call finds the model loaded and returns: the container bills a grain."""
_CHUNK = 1024


def noise(sigma: float, rng: np.random.Generator) -> Iterator[float]:
    """Yields factors on a service time: lognormal with median 1. Drawn in chunks, one generator call for many."""
    while True:
        if sigma <= 0:
            yield 1.0
        else:
            yield from rng.lognormal(0.0, sigma, _CHUNK).tolist()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a batch.

    Attributes:
        at_s: when the shell learns of it.
        message: which the engine then gets.
        cost: what the provider bills for it.
        cold_start: whether an instance had to be started for it.
        bill: of a batch that was given up, when it comes and what it says; None where it never does.
    """

    at_s: float
    message: BatchFinished | BatchFailed
    cost: float = 0.0
    cold_start: bool = False
    bill: tuple[float, BillArrived] | None = None


class SimulatedEdge:
    """One batch at a time, first come, first served; free."""

    def __init__(self, *, laws: Mapping[str, LatencyModel], faults: Faults, noise: Iterator[float]) -> None:
        """Stores its parts.

        Args:
            laws: true service time by model.
            faults: windows in which it is slow or down.
            noise: factors on the service time.
        """
        self._laws = laws
        self._faults = faults
        self._noise = noise
        self._free_at_s = 0.0

    def send(self, batch: Batch, *, now_s: float) -> Outcome:
        """Returns what becomes of a batch that is sent now."""
        if self._faults.is_down(now_s):
            return _failed(batch, FailureKind.UNREACHABLE, "the edge is down", at_s=now_s + REFUSED_AFTER_S)
        start_s = max(now_s, self._free_at_s)
        finish_s = self._faults.finish_s(start_s, self._laws[batch.model].predict_s(batch.items) * next(self._noise))
        down_s = self._faults.next_down_s(now_s)
        self._free_at_s = min(finish_s, down_s)
        if down_s < min(finish_s, batch.give_up_at_s):
            return _failed(batch, FailureKind.BROKEN, "the edge went down", at_s=down_s)
        if finish_s > batch.give_up_at_s:
            return _failed(batch, FailureKind.TIMEOUT, "no answer from the edge", at_s=batch.give_up_at_s)
        report = BatchReport(elapsed_s=finish_s - now_s, service_s=finish_s - start_s)
        return Outcome(finish_s, BatchFinished(batch.batch_id, report))

    def probe(self, *, now_s: float) -> tuple[float, ProbeMeasured]:
        """Returns when a probe comes back and what it says."""
        return now_s + REFUSED_AFTER_S, ProbeMeasured(Backend.EDGE, ok=not self._faults.is_down(now_s))


@dataclass(frozen=True, slots=True)
class ColdStarts:
    """How functions start.

    Attributes:
        start_s: seconds that a new instance needs before it serves.
        idle_s: seconds without a request after which an instance is taken away.
    """

    start_s: float = 0.0
    idle_s: float = math.inf


class InstancePool:
    """The instances of one tier, by the time at which each is free."""

    def __init__(self, cold_starts: ColdStarts) -> None:
        """Begins without an instance."""
        self._cold_starts = cold_starts
        self._free_at_s: list[float] = []

    def running(self, at_s: float) -> int:
        """Returns how many instances serve at that time."""
        return len(self._free_at_s) - bisect_right(self._free_at_s, at_s)

    def start_s(self, at_s: float) -> float:
        """Takes an instance for a request that comes at `at_s`, the one last used first, and returns the wait for it.

        Times must not descend from call to call; the caller then says by `release` when the instance is free.
        """
        del self._free_at_s[: bisect_right(self._free_at_s, at_s - self._cold_starts.idle_s)]
        last_used = bisect_right(self._free_at_s, at_s) - 1
        if last_used >= 0:
            del self._free_at_s[last_used]
            return 0.0
        return self._cold_starts.start_s

    def release(self, free_at_s: float) -> None:
        """Notes when the instance just taken is free again."""
        insort(self._free_at_s, free_at_s)


class SimulatedFunctions:
    """All function tiers behind one uplink."""

    def __init__(
        self,
        *,
        tiers: Mapping[str, FunctionTier],
        uplink: Uplink,
        faults: Faults,
        noise: Iterator[float],
        cold_starts: ColdStarts,
        concurrency: int,
    ) -> None:
        """Stores its parts.

        Args:
            tiers: true laws and prices by tier name.
            uplink: the way there.
            faults: windows in which they are down or throttled.
            noise: factors on the service time.
            cold_starts: how instances start; no start time means always warm.
            concurrency: instances of a tier above which a call is refused with 429.
        """
        self._tiers = tiers
        self._uplink = uplink
        self._faults = faults
        self._noise = noise
        self._concurrency = concurrency
        self._pools = {name: InstancePool(cold_starts) for name in tiers}

    def send(self, batch: Batch, *, now_s: float) -> Outcome:
        """Returns what becomes of a batch that is sent now."""
        rtt_s = self._uplink.rtt_s
        if self._faults.is_down(now_s):
            return _failed(batch, FailureKind.UNREACHABLE, "the functions are down", at_s=now_s + rtt_s)
        _, sent_s = self._uplink.send(batch.body_bytes, now_s=now_s, give_up_at_s=batch.give_up_at_s)
        broken = self._broken(batch, now_s=now_s, finish_s=sent_s)
        if broken is not None:
            return Outcome(broken[0], broken[1])
        arrived_s = sent_s + rtt_s / 2
        pool = self._pools[batch.tier]
        if self._faults.is_throttled(arrived_s) or pool.running(arrived_s) >= self._concurrency:
            return _failed(batch, FailureKind.THROTTLED, "429 from the functions", at_s=arrived_s + rtt_s / 2)
        return self._run(batch, pool, now_s=now_s, arrived_s=arrived_s)

    def _run(self, batch: Batch, pool: InstancePool, *, now_s: float, arrived_s: float) -> Outcome:
        tier = self._tiers[batch.tier]
        service_s = WARMING_S if batch.warming else tier.latency.predict_s(batch.items) * next(self._noise)
        start_s = pool.start_s(arrived_s)
        pool.release(arrived_s + start_s + service_s)
        finish_s = arrived_s + start_s + service_s + self._uplink.rtt_s / 2
        cost, cold_start = tier.price.cost(service_s), start_s > 0
        broken = self._broken(batch, now_s=now_s, finish_s=finish_s)
        if broken is not None:
            # Who gave up still hears of the bill; a connection that broke tells nothing any more.
            gave_up = broken[1].failure.kind is FailureKind.TIMEOUT and self._faults.next_down_s(now_s) >= finish_s
            heard = gave_up and finish_s <= broken[0] + LATE_LIMIT_S
            bill = (finish_s, BillArrived(batch.batch_id, service_s)) if heard else None
            return Outcome(broken[0], broken[1], cost, cold_start, bill)
        report = BatchReport(
            elapsed_s=finish_s - now_s,
            service_s=service_s,
            billed_duration_s=service_s,
            rtt_s=self._uplink.rtt_s,
            cold_start=cold_start,
        )
        return Outcome(finish_s, BatchFinished(batch.batch_id, report), cost, cold_start)

    def _broken(self, batch: Batch, *, now_s: float, finish_s: float) -> tuple[float, BatchFailed] | None:
        """When and why the shell hears of a failure before `finish_s`, if it does."""
        down_s = self._faults.next_down_s(now_s)
        if min(down_s, batch.give_up_at_s) >= finish_s:
            return None
        if down_s < batch.give_up_at_s:
            outcome = _failed(batch, FailureKind.BROKEN, "the functions went down", at_s=down_s)
        else:
            outcome = _failed(batch, FailureKind.TIMEOUT, "no answer from the functions", at_s=batch.give_up_at_s)
        assert isinstance(outcome.message, BatchFailed)
        return outcome.at_s, outcome.message

    def probe(self, *, now_s: float) -> tuple[float, ProbeMeasured]:
        """Returns when a probe comes back and what it says; it uses the pipe like any transfer."""
        rtt_s = self._uplink.rtt_s
        if self._faults.is_down(now_s):
            return now_s + rtt_s, ProbeMeasured(Backend.FUNCTION, ok=False)
        start_s, end_s = self._uplink.send(PROBE_BYTES, now_s=now_s, give_up_at_s=now_s + PROBE_LIMIT_S)
        if math.isinf(end_s):
            return now_s + PROBE_LIMIT_S, ProbeMeasured(Backend.FUNCTION, ok=False)
        measured = ProbeMeasured(
            Backend.FUNCTION, ok=True, rtt_s=rtt_s, sent_bytes=PROBE_BYTES, transfer_s=end_s - start_s
        )
        return end_s + rtt_s, measured


def _failed(batch: Batch, kind: FailureKind, message: str, *, at_s: float) -> Outcome:
    report = BatchReport(elapsed_s=at_s - batch.sent_at_s)
    return Outcome(at_s, BatchFailed(batch.batch_id, Failure(kind, message), report))
