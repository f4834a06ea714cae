"""Windows in which a backend is slow, down or throttled."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.domain.errors import EdgeburstError


class FaultError(EdgeburstError):
    """A fault window cannot be read; the message shows its form."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One window.

    Attributes:
        kind: "slow", "down" or "throttle".
        start_s: when it begins.
        end_s: when it is over.
        factor: by which a slow backend's work takes longer.
    """

    kind: str
    start_s: float
    end_s: float
    factor: float = 1.0


def parse_fault(text: str, kinds: Sequence[str]) -> Fault:
    """Reads `slow:START,END,FACTOR`, `down:START,END` or `throttle:START,END`.

    >>> parse_fault("slow:10,20,2", ("slow", "down"))
    Fault(kind='slow', start_s=10.0, end_s=20.0, factor=2.0)
    """
    kind, _, numbers = text.partition(":")
    forms = " or ".join(f"{k}:START,END{',FACTOR' if k == 'slow' else ''}" for k in kinds)
    try:
        values = [float(word) for word in numbers.split(",")]
    except ValueError:
        values = []
    if kind not in kinds or len(values) != (3 if kind == "slow" else 2) or not all(map(math.isfinite, values)):
        raise FaultError(f"a fault is written {forms}, in seconds, not {text!r}")
    fault = Fault(kind, *values)
    if not 0 <= fault.start_s < fault.end_s or fault.factor <= 0:
        raise FaultError(f"the fault {text!r} must start at 0 or later, end after that, and have a factor above 0")
    return fault


class Faults:
    """All windows of one backend."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        """Sorts the windows by kind and time."""
        ordered = sorted(faults, key=lambda fault: fault.start_s)
        self._slow = [fault for fault in ordered if fault.kind == "slow"]
        self._down = [fault for fault in ordered if fault.kind == "down"]
        self._throttle = [fault for fault in ordered if fault.kind == "throttle"]

    def is_down(self, at_s: float) -> bool:
        """Whether the backend is out at that time."""
        return any(fault.start_s <= at_s < fault.end_s for fault in self._down)

    def is_throttled(self, at_s: float) -> bool:
        """Whether the backend refuses for lack of capacity at that time."""
        return any(fault.start_s <= at_s < fault.end_s for fault in self._throttle)

    def slowdown(self, at_s: float) -> float:
        """Returns the factor by which work takes longer at that time."""
        return self._speed(at_s)[0]

    def next_down_s(self, after_s: float) -> float:
        """Returns when the next outage begins after that time; infinite if there is none."""
        return min((fault.start_s for fault in self._down if fault.start_s > after_s), default=math.inf)

    def finish_s(self, start_s: float, work_s: float) -> float:
        """Returns when work of `work_s` is done that begins at `start_s`, slowed down where windows say so."""
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
        """The factor at a time, and until when it holds. Overlapping windows multiply."""
        factor, until_s = 1.0, math.inf
        for fault in self._slow:
            if fault.start_s <= at_s < fault.end_s:
                factor *= fault.factor
                until_s = min(until_s, fault.end_s)
            elif fault.start_s > at_s:
                until_s = min(until_s, fault.start_s)
        return factor, until_s
