"""The engine with as many requests waiting as are asked for: microseconds and calls of functions a request.

The backends answer exactly when the engine expects it, and as many requests arrive as have ended, so that the queue
keeps its length. Only the engine and values of `domain/` are used, so that this file also measures an older checkout:
its own process, with that checkout's folder in PYTHONPATH, prints [case, waiting, us a request, calls a request].

    PYTHONPATH=CHECKOUT python scripts/support/steady_queue.py CASE WAITING...
"""

import heapq
import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from types import FrameType
from typing import Any, TypeVar

from scheduler.domain import plans
from scheduler.domain.batches import Batch, BatchReport
from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.messages import (
    AnswerRequest,
    BatchFinished,
    Command,
    ComputePlan,
    Message,
    PlanComputed,
    RefuseRequest,
    RequestArrived,
    SendBatch,
)
from scheduler.domain.plans import EngineSettings, ModelSettings, ServiceClass
from scheduler.domain.requests import Request
from scheduler.engine import Engine
from scheduler.planner.site.plan import best_plan

T = TypeVar("T")
SIZES = (64, 1_000, 4_000)
REQUESTS = 1_500
"""That end while they are measured."""
WARM_UP = 300
"""That end before."""
RING = 256
"""Requests whose decisions are kept: few, so that the ring is full before anything is measured."""
BODY_BYTES = 24_000
EDGE = LatencyModel(0.04234, 0.008165, 64)
PRICE = Price(1.27e-5, 9e-7, 0.001, "CNY", "cny-gbs-2023")
TIER = FunctionTier("1gb", "f", LatencyModel(0.216, 0.141, 5), PRICE, max_in_flight=4, provisioned=4)


@dataclass(frozen=True, slots=True)
class Case:
    """Where the requests wait.

    Attributes:
        classes: of the model, with the seconds that a request of each has.
        has_edge: whether the model has an edge.
        has_functions: whether it has a function, which can hold 4 batches in flight.
        items: most items of a request.
        priorities: how many priorities there are.
        edge: how fast an edge server is.
        edges: how many there are.
        parallel: batches that each serves at once.
        learns: whether changes are looked for, and each answered batch is noted for that.
    """

    classes: tuple[tuple[ServiceClass, float], ...]
    has_edge: bool = True
    has_functions: bool = True
    items: int = 1
    priorities: int = 1
    edge: LatencyModel = EDGE
    edges: int = 1
    parallel: int = 1
    learns: bool = False


DEFAULT = ServiceClass("default", slo_s=1000.0)
LOCAL = ServiceClass("local", slo_s=1000.0, edge_only=True)
LATE = ServiceClass("late", slo_s=0.5, serve_late=True)
LOCAL_LATE = ServiceClass("late and local", slo_s=0.5, serve_late=True, edge_only=True)
PATIENT = ServiceClass("patient", slo_s=5000.0, deferrable=True)
FAST_EDGE = LatencyModel(0.0008, 0.0002, 1)
"""A thousand requests a second, one by one."""
CASES = {
    "edge only": Case(((DEFAULT, 1000.0),), has_functions=False),
    "edge only, sizes and priorities": Case(((DEFAULT, 1000.0),), has_functions=False, items=8, priorities=3),
    "edge-only class beside functions": Case(((LOCAL, 1000.0),)),
    "functions only": Case(((DEFAULT, 1000.0),), has_edge=False),
    "edge and functions": Case(((DEFAULT, 1000.0),)),
    "overdue": Case(((LATE, 0.5), (LOCAL_LATE, 0.5))),
    "deferrable": Case(((PATIENT, 5000.0),)),
    "single requests": Case(((DEFAULT, 1000.0),), edge=FAST_EDGE, learns=True),
    "sixteen slots": Case(((DEFAULT, 1000.0),), parallel=16),
    "four edge servers": Case(((DEFAULT, 1000.0),), edges=4),
}


@dataclass
class SteadyQueue:
    """Drives an engine in virtual time."""

    case: Case
    waiting: int
    now_s: float = 0.0
    spent_ns: int = 0
    calls: int = 0
    ended: int = 0
    events: list[tuple[float, int, Message]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Makes the engine and fills its queue."""
        case = self.case
        classes = tuple(named for named, _ in case.classes)
        tiers = (TIER,) if case.has_functions else ()
        model = ModelSettings("m", 64, classes, case.edge if case.has_edge else None, tiers)
        several: dict[str, Any] = {"edge_overhead_s": 0.0} if case.learns else {}
        if case.edges > 1 or case.parallel > 1:
            names = [f"edge-{number}" for number in range(case.edges)]
            several = {"edges": tuple(plans.EdgeSettings(name, parallel=case.parallel) for name in names)}
        settings = EngineSettings(
            (model,),
            queue_max_requests=10**6,
            queue_max_bytes=10**12,
            changepoints=case.learns,
            max_function_in_flight=4,
            explain_ring=RING,
            **several,
        )
        self.engine = Engine(settings)
        self._ids, self._random = itertools.count(1), Random(0)
        self._counting = self._timing = False
        self._run([RequestArrived(self._request()) for _ in range(self.waiting)])

    def serve(self, requests: int, *, timing: bool = False, counting: bool = False) -> None:
        """Lets so many requests end, and counts time or calls of the engine."""
        self._timing, self._counting = timing, counting
        until = self.ended + requests
        while self.ended < until:
            wakeup_s = self._measured(self.engine.next_wakeup_s)
            event_s = self.events[0][0] if self.events else float("inf")
            if wakeup_s is not None and wakeup_s <= event_s:
                self.now_s = max(self.now_s, wakeup_s)
                self._run([])
                continue
            self.now_s = max(self.now_s, event_s)
            messages = []
            while self.events and self.events[0][0] <= self.now_s:
                messages.append(heapq.heappop(self.events)[2])
            self._run(messages)
        self._timing = self._counting = False

    def _run(self, messages: Sequence[Message]) -> None:
        self._perform(self._handle(messages))

    def _perform(self, commands: Sequence[Command]) -> None:
        ends = 0
        for command in commands:
            if isinstance(command, SendBatch):
                self._send(command.batch)
            elif isinstance(command, (AnswerRequest, RefuseRequest)):
                ends += 1
            elif isinstance(command, ComputePlan) and not self._counting:
                plan = best_plan(command.snapshot, plan_id=command.plan_id, cause=command.cause, detail=command.detail)
                self._later(0.0, PlanComputed(plan))
        self.ended += ends
        for i in range(ends):
            # One after the other, as they come to a daemon.
            self._later(1e-6 * i, RequestArrived(self._request()))

    def _send(self, batch: Batch) -> None:
        took_s = max(0.0, batch.predicted_finish_s - self.now_s)
        service_s = batch.predicted_service_s
        self._later(took_s, BatchFinished(batch.batch_id, BatchReport(took_s, service_s)))

    def _later(self, seconds: float, message: Message) -> None:
        heapq.heappush(self.events, (self.now_s + seconds, next(self._ids), message))

    def _request(self) -> Request:
        request_id, case = next(self._ids), self.case
        named, slo_s = case.classes[request_id % len(case.classes)]
        items, priority = self._random.randint(1, case.items), 1 + self._random.randrange(case.priorities)
        return Request(
            request_id,
            "m",
            self.now_s,
            self.now_s + slo_s * self._random.uniform(0.9, 1.1),
            items=items,
            body_bytes=items * BODY_BYTES,
            class_name=named.name,
            priority=priority,
        )

    def _handle(self, messages: Sequence[Message]) -> list[Command]:
        return self._measured(lambda: self.engine.handle(messages, self.now_s))

    def _measured(self, do: Callable[[], T]) -> T:
        if self._counting:
            done, calls = counted_calls(do)
            self.calls += calls
            return done
        started_ns = time.process_time_ns() if self._timing else 0
        done = do()
        self.spent_ns += time.process_time_ns() - started_ns if self._timing else 0
        return done


def counted_calls(do: Callable[[], T]) -> tuple[T, int]:
    """Returns what `do` returns, and how many functions written in Python it called."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        done = do()
    finally:
        sys.setprofile(before)
    return done, calls


def measured(case: str, waiting: int, *, requests: int = REQUESTS) -> tuple[float, float]:
    """Returns microseconds (the lowest of five parts), and calls of functions, for each request that ends."""
    parts_us = []
    queue = SteadyQueue(CASES[case], waiting)
    queue.serve(WARM_UP)
    for _ in range(5):
        ended, spent_ns = queue.ended, queue.spent_ns
        queue.serve(requests // 5, timing=True)
        parts_us.append((queue.spent_ns - spent_ns) / (queue.ended - ended) / 1000)
    return min(parts_us), calls_a_request(queue, requests // 5)


def calls_a_request(queue: SteadyQueue, requests: int) -> float:
    """Returns how many functions written in Python the engine calls for each of so many requests that end.

    No plan is adopted meanwhile: that places all that wait again, once in a minute or so.
    """
    ended, calls = queue.ended, queue.calls
    queue.serve(requests, counting=True)
    return (queue.calls - calls) / (queue.ended - ended)


if __name__ == "__main__":
    for size in map(int, sys.argv[2:]):
        print(json.dumps([sys.argv[1], size, *measured(sys.argv[1], size)]), flush=True)
