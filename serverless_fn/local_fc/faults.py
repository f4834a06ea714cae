"""Injected faults: which ones, when and how often. They are seeded, so that a run can be repeated, and logged.

Whether a fault acts on a call depends only on the seed, the fault and the number of the call to its function, not on
which calls overlap.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from serverless_fn.local_fc.errors import invalid_argument
from serverless_fn.local_fc.fields import Fields
from serverless_fn.local_fc.routes import OPERATIONS

INVOKE = "invoke_function"
_LOG_LENGTH = 10_000
_FAULTS_MAX = 1000

KINDS: Mapping[str, frozenset[str]] = {
    "status": frozenset({"status", "code", "message", "retry_after_ms", "body", "after"}),
    "error_type": frozenset({"error_type", "message", "after"}),
    "reset": frozenset({"after"}),
    "close": frozenset({"after"}),
    "stall": frozenset({"delay_s", "after"}),
    "delay": frozenset({"delay_s", "sigma", "after"}),
    "truncate": frozenset({"fraction"}),
    "drip": frozenset({"bytes_per_s"}),
    "cold_start": frozenset({"delay_s", "sigma"}),
    "capacity": frozenset(),
}
_COMMON = frozenset({"kind", "function", "operation", "rate", "calls", "window_s"})
_OF_INSTANCES = {"cold_start": "start", "capacity": "capacity"}
_AFTER_BY_NATURE = frozenset({"truncate", "drip"})


@dataclass(frozen=True, slots=True)
class Fault:
    """Fault that acts on some calls.

    Attributes:
        id: number of the fault, from 1.
        kind: a key of KINDS.
        function: name of the function whose calls it acts on; "*" for all.
        operation: the calls it acts on, as a method of the SDK's client; not for instance starts.
        rate: share of the calls that it acts on.
        calls: numbers of the calls of the operation to the function that it may act on, from 1, counted since the
            endpoint's start; None for all.
        window_s: start and end of its effect, seconds since it was added; None for always.
        added_s: time at which it was added.
        after: whether it acts after the function has run (and is billed) or instead of running it.
        status, code, message, retry_after_ms, body: parameters of "status"; body is "json", "html" or "empty".
        error_type: parameter of "error_type".
        delay_s: median delay of "delay" and "cold_start"; seconds for which "stall" holds the connection.
        sigma: sigma of the lognormal delay; 0 for a constant delay.
        fraction: fraction of the body that "truncate" sends.
        bytes_per_s: rate at which "drip" sends the body.
    """

    id: int
    kind: str
    function: str
    operation: str
    rate: float
    calls: frozenset[int] | None
    window_s: tuple[float, float] | None
    added_s: float
    after: bool
    status: int
    code: str
    message: str
    retry_after_ms: int
    body: str
    error_type: str
    delay_s: float
    sigma: float
    fraction: float
    bytes_per_s: float
    given: Mapping[str, Any]

    def in_force(self, function: str, now_s: float) -> bool:
        """Returns whether the fault applies to a function now."""
        since_s = now_s - self.added_s
        inside = self.window_s is None or self.window_s[0] <= since_s < self.window_s[1]
        return self.function in ("*", function) and inside


@dataclass(frozen=True, slots=True)
class Hit:
    """Fault that acts on one call, with the delay drawn for it."""

    fault: Fault
    delay_s: float
    function: str
    number: int


class Faults:
    """Faults in force, and the log of their effects.

    Args:
        seed: seed of all draws.
        clock_s: returns monotonic seconds.
    """

    def __init__(self, *, seed: int, clock_s: Callable[[], float]) -> None:
        self._seed = seed
        self._clock_s = clock_s
        self._faults: dict[int, Fault] = {}
        self._added = 0
        self._calls: dict[tuple[str, str], int] = {}
        self._started_s = clock_s()
        self._log: deque[dict[str, Any]] = deque(maxlen=_LOG_LENGTH)

    def add(self, content: object) -> Fault:
        """Adds a fault.

        Raises:
            FcError: 400 InvalidArgument; the message names the field.
        """
        if len(self._faults) >= _FAULTS_MAX:
            raise invalid_argument(f"{_FAULTS_MAX} faults are set; delete some")
        fault = _read(content, self._added + 1, self._clock_s())
        self._added += 1
        self._faults[fault.id] = fault
        return fault

    def remove(self, fault_id: int | None) -> int:
        """Removes one fault or all faults; returns how many were removed."""
        gone = [each for each in self._faults if fault_id in (None, each)]
        for each in gone:
            del self._faults[each]
        return len(gone)

    def strike(self, function: str, operation: str = INVOKE) -> list[Hit]:
        """Counts a call of an operation and returns the faults that act on it, in the order in which they were added.

        The caller reports each fault that has acted with `happened`: after a fault that ends the call, the following
        ones do not act.
        """
        return self._draw(function, operation)

    def happened(self, hit: Hit) -> None:
        """Logs that a fault has acted."""
        self.note(hit.fault.kind, fault=hit.fault.id, function=hit.function, number=hit.number)

    def cold_start_delay_s(self, function: str) -> float:
        """Counts a start of an instance and returns its additional delay, seconds."""
        return sum(hit.delay_s for hit in self._acting(function, "start"))

    def capacity_is_out(self, function: str) -> bool:
        """Counts an attempt to add an instance and returns whether a fault lets it fail for lack of capacity."""
        return bool(self._acting(function, "capacity"))

    def note(self, what: str, **details: object) -> None:
        """Logs a change that is no fault, for instance of the uplink."""
        self._log.append({"at_s": self._clock_s() - self._started_s, "kind": what, **details})

    def report(self) -> dict[str, Any]:
        """Returns seed, faults and log."""
        rules = [{"id": fault.id, **fault.given} for fault in self._faults.values()]
        return {"seed": self._seed, "faults": rules, "log": list(self._log)}

    def _acting(self, function: str, occasion: str) -> list[Hit]:
        hits = self._draw(function, occasion)
        for hit in hits:
            self.happened(hit)
        return hits

    def _draw(self, function: str, occasion: str) -> list[Hit]:
        number = self._calls[function, occasion] = self._calls.get((function, occasion), 0) + 1
        now_s, hits = self._clock_s(), []
        for fault in self._faults.values():
            if _OF_INSTANCES.get(fault.kind, fault.operation) != occasion or not fault.in_force(function, now_s):
                continue
            # Seeding with text is stable across processes and versions (SHA-512 of it).
            random = Random(f"{self._seed}/{fault.id}/{function}/{number}")
            chosen = fault.calls is None or number in fault.calls
            if chosen and random.random() < fault.rate:
                delay_s = fault.delay_s * math.exp(random.gauss(0.0, fault.sigma))
                hits.append(Hit(fault, delay_s, function, number))
        return hits


def _read(content: object, fault_id: int, now_s: float) -> Fault:
    fields = Fields(content)
    kind = fields.text("kind")
    if kind not in KINDS:
        raise invalid_argument(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
    for key in fields.unknown((*_COMMON, *KINDS[kind])):
        known = ", ".join(sorted(_COMMON | KINDS[kind]))
        raise invalid_argument(f"a fault of kind {kind!r} has no field {key!r}; it has {known}")
    operation = fields.text("operation", INVOKE)
    if operation not in OPERATIONS or (kind in _OF_INSTANCES and fields.has("operation")):
        raise invalid_argument(
            f"operation is {operation!r}; faults of calls take one of {', '.join(sorted(OPERATIONS))}"
        )
    calls = fields.wholes("calls")
    window = fields.numbers("window_s")
    if window is not None and (len(window) != 2 or not 0 <= window[0] < window[1]):
        raise invalid_argument("window_s must be [from, to] in seconds from now")
    body = fields.text("body", "json")
    if body not in ("json", "html", "empty"):
        raise invalid_argument(f"body is {body!r}; it must be 'json', 'html' or 'empty'")
    return Fault(
        id=fault_id,
        kind=kind,
        function=fields.text("function", "*"),
        operation=operation,
        rate=fields.number("rate", 0, 1, 1.0),
        calls=None if calls is None else frozenset(calls),
        window_s=None if window is None else (window[0], window[1]),
        added_s=now_s,
        after=kind in _AFTER_BY_NATURE or fields.flag("after", default=False),
        status=fields.whole("status", 400, 599, 500),
        code=fields.text("code", "InternalServerError"),
        message=fields.text("message", "a fault was set"),
        retry_after_ms=fields.whole("retry_after_ms", 0, 86_400_000, 0),
        body=body,
        error_type=fields.text("error_type", "UnhandledInvocationError"),
        delay_s=fields.number("delay_s", 0, 86_400, 3600.0 if kind == "stall" else 1.0),
        sigma=fields.number("sigma", 0, 5, 0.0),
        fraction=fields.number("fraction", 0, 0.999, 0.5),
        bytes_per_s=fields.number("bytes_per_s", 0.1, 1e9, 10.0),
        given=fields.content,
    )
