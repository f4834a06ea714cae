"""Faults: intervals of time in which a backend is slow, down or throttled."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.domain.errors import EdgeburstError

_WITH_FACTOR = ("slow", "slow-start")


class FaultError(EdgeburstError):
    """Error: a fault cannot be read; the message shows the correct form."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Interval in which a backend fails or is slow.

    Attributes:
        kind: "slow", "slow-start", "down" or "throttle".
        start_s: time at which it begins.
        end_s: time at which it ends; excluded.
        factor: factor on the service time of a slow backend, or on the time that its instances take to start.
        tier: the only function tier that is slow or slow to start; empty: all.
    """

    kind: str
    start_s: float
    end_s: float
    factor: float = 1.0
    tier: str = ""


def parse_fault(text: str, kinds: Sequence[str]) -> Fault:
    """Reads `slow:START,END,FACTOR`, `slow-start:START,END,FACTOR`, `down:START,END` or `throttle:START,END`.

    >>> parse_fault("slow:10,20,2", ("slow", "down"))
    Fault(kind='slow', start_s=10.0, end_s=20.0, factor=2.0, tier='')
    """
    kind, _, numbers = text.partition(":")
    forms = " or ".join(f"{k}:START,END{',FACTOR' if k in _WITH_FACTOR else ''}" for k in kinds)
    try:
        values = [float(word) for word in numbers.split(",")]
    except ValueError:
        values = []
    if kind not in kinds or len(values) != (3 if kind in _WITH_FACTOR else 2) or not all(map(math.isfinite, values)):
        raise FaultError(f"a fault is written {forms}, in seconds, not {text!r}")
    start_s, end_s, factor = (*values, 1.0)[:3]
    fault = Fault(kind, start_s, end_s, factor)
    if not 0 <= fault.start_s < fault.end_s or fault.factor <= 0:
        raise FaultError(f"the fault {text!r} must start at 0 or later, end after that, and have a factor above 0")
    return fault


class Faults:
    """Faults of one backend."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        """Sorts the faults by kind and start."""
        self._all = tuple(faults)
        ordered = sorted(faults, key=lambda fault: fault.start_s)
        self._slow = [fault for fault in ordered if fault.kind == "slow"]
        self._down = [fault for fault in ordered if fault.kind == "down"]
        self._throttle = [fault for fault in ordered if fault.kind == "throttle"]
        self._slow_start = [fault for fault in ordered if fault.kind == "slow-start"]

    def of_tier(self, tier: str) -> "Faults":
        """Returns the faults of one function tier."""
        return Faults([fault for fault in self._all if fault.tier in ("", tier)])

    def is_down(self, at_s: float) -> bool:
        """Returns whether the backend is down at `at_s`."""
        return any(fault.start_s <= at_s < fault.end_s for fault in self._down)

    def is_throttled(self, at_s: float) -> bool:
        """Returns whether the backend refuses calls with status 429 at `at_s`."""
        return any(fault.start_s <= at_s < fault.end_s for fault in self._throttle)

    def start_factor(self, at_s: float) -> float:
        """Returns the factor on the time that an instance takes to start at `at_s`; 1 without a fault."""
        return math.prod(fault.factor for fault in self._slow_start if fault.start_s <= at_s < fault.end_s)

    def slowdown(self, at_s: float) -> float:
        """Returns the factor on the service time at `at_s`; 1 without a fault."""
        return self._speed(at_s)[0]

    def next_down_s(self, after_s: float) -> float:
        """Returns the time at which the next outage begins after `after_s`; infinite if there is none."""
        return min((fault.start_s for fault in self._down if fault.start_s > after_s), default=math.inf)

    def finish_s(self, start_s: float, work_s: float) -> float:
        """Returns the time at which `work_s` seconds of work end that begin at `start_s`, slow intervals included."""
        if not self._slow:
            return start_s + work_s
        now_s = start_s
        while True:
            factor, until_s = self._speed(now_s)
            if now_s + work_s * factor <= until_s:
                return now_s + work_s * factor
            work_s -= (until_s - now_s) / factor
            now_s = until_s

    def _speed(self, at_s: float) -> tuple[float, float]:
        """Returns the factor at `at_s` and the time at which it changes; the factors of overlapping faults multiply."""
        factor, until_s = 1.0, math.inf
        for fault in self._slow:
            if fault.start_s <= at_s < fault.end_s:
                factor *= fault.factor
                until_s = min(until_s, fault.end_s)
            elif fault.start_s > at_s:
                until_s = min(until_s, fault.start_s)
        return factor, until_s
