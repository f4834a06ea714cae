"""What is to go wrong, when and how often: seeded, so that a run can be repeated, and logged, so that it can be read.

Whether a fault hits depends only on the seed, the fault and the number of the call to its function, not on which
calls overlap.
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
    """One rule.

    Attributes:
        id: counted from 1.
        kind: a key of KINDS.
        function: whose calls it hits; "*" for all.
        operation: which calls it hits, as a method of the SDK's client; not for instance starts.
        rate: share of the calls that it hits.
        calls: numbers of the calls of that operation to the function that it may hit, from 1, counted since the
            endpoint's start; None for all.
        window_s: from when to when it is in force, seconds since it was set; None for always.
        added_s: when it was set.
        after: whether it hits after the function has run (and is billed) or instead of running it.
        status, code, message, retry_after_ms, body: of the kind "status"; body is "json", "html" or "empty".
        error_type: of the kind "error_type".
        delay_s: median of "delay" and "cold_start"; how long "stall" holds the connection.
        sigma: of the lognormal distribution of the delay; 0 is constant.
        fraction: of the body that "truncate" sends.
        bytes_per_s: at which "drip" sends the body.
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
        """Whether it applies to this function now."""
        since_s = now_s - self.added_s
        inside = self.window_s is None or self.window_s[0] <= since_s < self.window_s[1]
        return self.function in ("*", function) and inside


@dataclass(frozen=True, slots=True)
class Hit:
    """A fault that is to hit one call: which, and the delay drawn for it."""

    fault: Fault
    delay_s: float
    function: str
    number: int


class Faults:
    """The rules in force, and what they did.

    Attributes:
        seed: of all draws.
        clock_s: monotonic seconds.
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
        """Sets a rule.

        Raises:
            FcError: 400 InvalidArgument, naming the field.
        """
        if len(self._faults) >= _FAULTS_MAX:
            raise invalid_argument(f"{_FAULTS_MAX} faults are set; delete some")
        fault = _read(content, self._added + 1, self._clock_s())
        self._added += 1
        self._faults[fault.id] = fault
        return fault

    def remove(self, fault_id: int | None) -> int:
        """Removes one rule, or all; returns how many."""
        gone = [each for each in self._faults if fault_id in (None, each)]
        for each in gone:
            del self._faults[each]
        return len(gone)

    def strike(self, function: str, operation: str = INVOKE) -> list[Hit]:
        """Counts a call of an operation and return what is to hit it, in the order in which the rules were set.

        Whoever lets a hit act says so with `happened`: one that ends the call leaves nothing for the next to act on.
        """
        return self._draw(function, operation)

    def happened(self, hit: Hit) -> None:
        """Logs that a hit has acted."""
        self.note(hit.fault.kind, fault=hit.fault.id, function=hit.function, number=hit.number)

    def cold_start_delay_s(self, function: str) -> float:
        """Counts a start of an instance and return by how much it is delayed."""
        return sum(hit.delay_s for hit in self._acting(function, "start"))

    def capacity_is_out(self, function: str) -> bool:
        """Counts an attempt to add an instance and return whether there is no capacity for it."""
        return bool(self._acting(function, "capacity"))

    def note(self, what: str, **details: object) -> None:
        """Logs a change that is no rule, like the uplink's."""
        self._log.append({"at_s": self._clock_s() - self._started_s, "kind": what, **details})

    def report(self) -> dict[str, Any]:
        """Returns seed, rules and log."""
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
