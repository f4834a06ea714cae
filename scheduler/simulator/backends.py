"""Simulated edge and functions. The outcome of a batch is computed when it is sent; nothing later changes it."""

import math
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heapreplace
from itertools import repeat
from typing import Protocol

import numpy as np

from scheduler.domain.batches import Batch, BatchReport, Failure, FailureKind
from scheduler.domain.latency import Price
from scheduler.domain.messages import BatchFailed, BatchFinished, BillArrived, ProbeMeasured
from scheduler.domain.requests import EDGE_NAME, FUNCTIONS, Place
from scheduler.simulator.faults import Faults

PROBE_BYTES = 32 * 1024
PROBE_LIMIT_S = 5.0
REFUSED_AFTER_S = 0.001
"""Seconds until the client notices that the edge is down: a closed port on the LAN answers within a millisecond."""
LATE_LIMIT_S = 30.0
"""Seconds after a timeout during which the bill of the invocation is still received, as in the daemon."""
WARMING_S = 0.001
"""Seconds of service of a warming call: the model is loaded already, so the provider bills its smallest unit."""
MANY = 2**31
"""Instances of a tier that are never too many."""
_CHUNK = 1024


def noise(sigma: float, rng: np.random.Generator, *, tail: float = 0.0) -> Iterator[float]:
    """Yields factors with median 1 for service times. Drawn in chunks, which is faster.

    Args:
        sigma: of lognormal factors; 0: all are 1.
        rng: generator of the random numbers.
        tail: where above 0, factors are Pareto's instead: one exceeds x (at least 2^(-1/tail)) with x^(-tail) / 2.
    """
    while True:
        if tail > 0.0:
            yield from ((2.0 * (1.0 - rng.random(_CHUNK))) ** (-1.0 / tail)).tolist()
        elif sigma <= 0:
            yield 1.0
        else:
            yield from rng.lognormal(0.0, sigma, _CHUNK).tolist()


class ServiceLaw(Protocol):
    """How long a backend works on a batch; a latency model is one."""

    @property
    def decode_s(self) -> float:
        """Seconds that a batch is decoded, while the device may serve another."""
        ...

    def predict_s(self, items: int) -> float:
        """Returns the seconds of a batch of `items` on the device, before noise."""
        ...


class ServedTier(Protocol):
    """How a function tier serves, and at what price."""

    @property
    def latency(self) -> ServiceLaw:
        """How long a batch takes."""
        ...

    @property
    def price(self) -> Price:
        """Price of an invocation."""
        ...


class Link(Protocol):
    """The way to the functions; see `network.Uplink`."""

    @property
    def rtt_s(self) -> float:
        """Round trip, seconds."""
        ...

    def send(self, sent_bytes: int, *, now_s: float, give_up_at_s: float) -> tuple[float, float]:
        """Occupies the way with a transfer and returns its start and end; an end that is infinite was given up."""
        ...


def drawn(values: Sequence[float], rng: np.random.Generator) -> Iterator[float]:
    """Yields values drawn with replacement from those that were observed; zeros where none were."""
    observed = np.array(values or (0.0,))
    while True:
        yield from rng.choice(observed, _CHUNK).tolist()


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a batch.

    Attributes:
        at_s: time at which the shell receives the outcome.
        message: the message that the engine receives at this time.
        cost: amount billed by the provider, in the currency of the price.
        cold_start: whether an instance was started for the batch.
        busy_s: seconds for which a server of the edge worked on it.
        bill: after a timeout, the time and the message of a bill that arrives later; None if none arrives.
    """

    at_s: float
    message: BatchFinished | BatchFailed
    cost: float = 0.0
    cold_start: bool = False
    bill: tuple[float, BillArrived] | None = None
    busy_s: float = 0.0


class SimulatedEdge:
    """Simulated edge server: serves a few batches at a time, first come, first served, at no cost.

    A batch takes time to get there and to be decoded, while the device serves others; any number is decoded at once.
    """

    def __init__(
        self,
        *,
        latencies: Mapping[str, ServiceLaw],
        faults: Faults,
        noise: Iterator[float],
        parallel: int = 1,
        name: str = EDGE_NAME,
        lan_s: float = 0.0,
        silent: bool = False,
    ) -> None:
        """Stores its parts.

        Args:
            latencies: the true latency model of each model, with what is decoded beside it.
            faults: times at which the edge is slow or down.
            noise: factors on the service time.
            parallel: batches that it serves at once.
            name: its name.
            lan_s: seconds that a batch takes to get there.
            silent: whether it reports nothing of what a batch took.
        """
        self.name = name
        self._silent = silent
        self._lan_s = lan_s
        self._latencies = latencies
        self._faults = faults
        self._noise = noise
        self._free_at_s = [0.0] * parallel
        """When each of its servers is free, as a heap: a batch takes the one that is free first."""

    def send(self, batch: Batch, *, now_s: float) -> Outcome:
        """Returns the outcome of a batch sent at `now_s`."""
        if self._faults.is_down(now_s):
            return _failed(batch, FailureKind.UNREACHABLE, "the edge is down", at_s=now_s + REFUSED_AFTER_S)
        law = self._latencies[batch.model]
        decoded_s = now_s + self._lan_s + law.decode_s
        start_s = max(decoded_s, self._free_at_s[0])
        finish_s = self._faults.finish_s(start_s, law.predict_s(batch.items) * next(self._noise))
        down_s = self._faults.next_down_s(now_s)
        heapreplace(self._free_at_s, min(finish_s, down_s))
        busy_s = max(0.0, min(finish_s, down_s) - start_s)
        if down_s < min(finish_s, batch.give_up_at_s):
            return _failed(batch, FailureKind.BROKEN, "the edge went down", at_s=down_s, busy_s=busy_s)
        if finish_s > batch.give_up_at_s:
            return _failed(
                batch, FailureKind.TIMEOUT, "no answer from the edge", at_s=batch.give_up_at_s, busy_s=busy_s
            )
        report = BatchReport(elapsed_s=finish_s - now_s)
        if not self._silent:
            service_s, queue_s = finish_s - start_s + law.decode_s, start_s - decoded_s
            report = replace(report, service_s=service_s, queue_s=queue_s, beside_s=decoded_s - now_s)
        return Outcome(finish_s, BatchFinished(batch.batch_id, report), busy_s=busy_s)

    def probe(self, *, now_s: float) -> tuple[float, ProbeMeasured]:
        """Returns the time at which a probe ends, and its result."""
        return now_s + REFUSED_AFTER_S, ProbeMeasured(Place.edge(self.name), ok=not self._faults.is_down(now_s))


class SimulatedEdges:
    """All simulated edge servers, by name."""

    def __init__(self, servers: Sequence[SimulatedEdge]) -> None:
        """Stores the servers."""
        self._servers = {server.name: server for server in servers}

    def send(self, batch: Batch, *, now_s: float) -> Outcome:
        """Returns the outcome of a batch sent at `now_s` to the server that it names.

        Raises:
            KeyError: there is no such server.
        """
        return self._servers[batch.place.name].send(batch, now_s=now_s)

    def probe(self, place: Place, *, now_s: float) -> tuple[float, ProbeMeasured]:
        """Returns the time at which a probe of one server ends, and its result; KeyError if there is no such server."""
        return self._servers[place.name].probe(now_s=now_s)


@dataclass(frozen=True, slots=True)
class ColdStarts:
    """Start-up behaviour of function instances.

    Attributes:
        start_s: seconds from the start of an instance to its first service.
        idle_s: seconds without a request after which the provider stops an instance.
    """

    start_s: float = 0.0
    idle_s: float = math.inf


class InstancePool:
    """Instances of one tier, by the time at which each becomes free."""

    def __init__(self, cold_starts: ColdStarts, *, concurrency: int = MANY, provisioned: int = 0) -> None:
        """Creates a pool of the provisioned instances.

        Args:
            cold_starts: start-up behaviour.
            concurrency: busy instances at which further calls are refused.
            provisioned: instances that are there from the start and never end.
        """
        self._cold_starts = cold_starts
        self._concurrency = concurrency
        self._provisioned = provisioned
        self._free_at_s = [0.0] * provisioned

    def running(self, at_s: float) -> int:
        """Returns the number of instances that are busy at `at_s`."""
        return len(self._free_at_s) - bisect_right(self._free_at_s, at_s)

    def is_full(self, at_s: float) -> bool:
        """Whether a call at `at_s` is refused for lack of instances."""
        return self.running(at_s) >= self._concurrency

    def start_s(self, at_s: float) -> float:
        """Takes the free instance used last, or a new one, for a call at `at_s`; returns the start-up time in seconds.

        Times must not decrease from call to call. The caller then reports by `release` when the instance is free.
        """
        ended = bisect_right(self._free_at_s, at_s - self._cold_starts.idle_s)
        del self._free_at_s[: min(ended, max(0, len(self._free_at_s) - self._provisioned))]
        last_used = bisect_right(self._free_at_s, at_s) - 1
        if last_used >= 0:
            del self._free_at_s[last_used]
            return 0.0
        return self._cold_starts.start_s

    def init_s(self, start_s: float) -> float:
        """Returns the billed seconds of a start: the whole of it is taken for the initializer."""
        return start_s

    def release(self, free_at_s: float) -> None:
        """Stores the time at which the instance taken last is free again."""
        insort(self._free_at_s, free_at_s)


class SimulatedFunctions:
    """Simulated functions: all tiers, behind one uplink."""

    def __init__(
        self,
        *,
        tiers: Mapping[str, ServedTier],
        uplink: Link,
        faults: Faults,
        noise: Iterator[float],
        cold_starts: ColdStarts | None = None,
        concurrency: int = MANY,
        pools: Mapping[str, InstancePool] | None = None,
        excess_s: Iterator[float] | None = None,
        billed_beside_s: Callable[[str], float] = lambda _: 0.0,
    ) -> None:
        """Stores its parts.

        Args:
            tiers: the tiers by name, with their true latency models and prices.
            uplink: the link that carries all calls.
            faults: times at which the functions are slow, slow to start, down or throttled.
            noise: factors on the service time.
            cold_starts: start-up behaviour; with a start-up time of 0 every instance is warm. None: the same.
            concurrency: busy instances of a tier at which further calls are refused with status 429.
            pools: the instances of each tier, in place of both; None: pools by them.
            excess_s: seconds that each call's way takes besides upload and round trip, negative where it is faster;
                None: none.
            billed_beside_s: returns the seconds of each call of a tier that are billed and are no service. How much
                longer answers take for that is a part of what their way takes.
        """
        self._billed_beside_s = billed_beside_s
        self._tiers = tiers
        self._uplink = uplink
        self._faults = faults
        self._noise = noise
        self._excess_s = repeat(0.0) if excess_s is None else excess_s
        starts = cold_starts or ColdStarts()
        self._pools = pools or {name: InstancePool(starts, concurrency=concurrency) for name in tiers}
        self._slow_of_tier = {name: faults.of_tier(name) for name in tiers}

    def send(self, batch: Batch, *, now_s: float) -> Outcome:
        """Returns the outcome of a batch sent at `now_s`."""
        rtt_s = self._uplink.rtt_s
        if self._faults.is_down(now_s):
            return _failed(batch, FailureKind.UNREACHABLE, "the functions are down", at_s=now_s + rtt_s)
        _, sent_s = self._uplink.send(batch.body_bytes, now_s=now_s, give_up_at_s=batch.give_up_at_s)
        broken = self._broken(batch, now_s=now_s, finish_s=sent_s)
        if broken is not None:
            return Outcome(broken[0], broken[1])
        arrived_s = max(now_s, sent_s + rtt_s / 2 + next(self._excess_s))
        pool = self._pools[batch.tier]
        if self._faults.is_throttled(arrived_s) or pool.is_full(arrived_s):
            return _failed(batch, FailureKind.THROTTLED, "429 from the functions", at_s=arrived_s + rtt_s / 2)
        return self._run(batch, pool, now_s=now_s, arrived_s=arrived_s)

    def _run(self, batch: Batch, pool: InstancePool, *, now_s: float, arrived_s: float) -> Outcome:
        tier = self._tiers[batch.tier]
        service_s = WARMING_S if batch.warming else tier.latency.predict_s(batch.items) * next(self._noise)
        slow = self._slow_of_tier[batch.tier]
        start_s = pool.start_s(arrived_s) * slow.start_factor(arrived_s)
        begins_s = arrived_s + start_s
        if not batch.warming:
            service_s = slow.finish_s(begins_s, service_s) - begins_s
        billed_s = service_s + self._billed_beside_s(batch.tier)
        pool.release(begins_s + billed_s)
        finish_s = arrived_s + start_s + service_s + self._uplink.rtt_s / 2
        cost, cold_start, init_s = tier.price.cost(billed_s), start_s > 0, pool.init_s(start_s)
        if cold_start:
            # The initializer is billed like an invocation.
            cost += tier.price.cost(init_s)
        report = BatchReport(
            elapsed_s=finish_s - now_s,
            service_s=service_s,
            billed_duration_s=billed_s,
            rtt_s=self._uplink.rtt_s,
            cold_start=cold_start,
            init_s=init_s if cold_start else None,
        )
        broken = self._broken(batch, now_s=now_s, finish_s=finish_s)
        if broken is not None:
            # After a timeout the connection stays open and the bill is received; a broken connection carries no bill.
            timed_out = broken[1].failure.kind is FailureKind.TIMEOUT and self._faults.next_down_s(now_s) >= finish_s
            billed = timed_out and finish_s <= broken[0] + LATE_LIMIT_S
            bill = (finish_s, BillArrived(batch.batch_id, report)) if billed else None
            return Outcome(broken[0], broken[1], cost, cold_start, bill)
        return Outcome(finish_s, BatchFinished(batch.batch_id, report), cost, cold_start)

    def _broken(self, batch: Batch, *, now_s: float, finish_s: float) -> tuple[float, BatchFailed] | None:
        """Returns the time and the message of a failure before `finish_s`, or None if there is none."""
        down_s = self._faults.next_down_s(now_s)
        if min(down_s, batch.give_up_at_s) >= finish_s:
            return None
        if down_s < batch.give_up_at_s:
            return down_s, _failure(batch, FailureKind.BROKEN, "the functions went down", at_s=down_s)
        at_s = batch.give_up_at_s
        return at_s, _failure(batch, FailureKind.TIMEOUT, "no answer from the functions", at_s=at_s)

    def probe(self, *, now_s: float) -> tuple[float, ProbeMeasured]:
        """Returns the time at which a probe ends, and its result; the probe occupies the uplink like any transfer."""
        rtt_s = self._uplink.rtt_s
        if self._faults.is_down(now_s):
            return now_s + rtt_s, ProbeMeasured(FUNCTIONS, ok=False)
        start_s, end_s = self._uplink.send(PROBE_BYTES, now_s=now_s, give_up_at_s=now_s + PROBE_LIMIT_S)
        if math.isinf(end_s):
            return now_s + PROBE_LIMIT_S, ProbeMeasured(FUNCTIONS, ok=False)
        measured = ProbeMeasured(FUNCTIONS, ok=True, rtt_s=rtt_s, sent_bytes=PROBE_BYTES, transfer_s=end_s - start_s)
        return end_s + rtt_s, measured


def _failed(batch: Batch, kind: FailureKind, message: str, *, at_s: float, busy_s: float = 0.0) -> Outcome:
    return Outcome(at_s, _failure(batch, kind, message, at_s=at_s), busy_s=busy_s)


def _failure(batch: Batch, kind: FailureKind, message: str, *, at_s: float) -> BatchFailed:
    report = BatchReport(elapsed_s=at_s - batch.sent_at_s)
    return BatchFailed(batch.batch_id, Failure(kind, message), report)
