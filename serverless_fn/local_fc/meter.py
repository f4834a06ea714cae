"""Meter of the quantities that the provider bills: active time, number of calls, idle time of each instance.

Duration is the union of the intervals in which an instance has at least one request in flight: three overlapping
requests of 10 s on one instance are 10 s. Each such interval is rounded up to a multiple of 1 ms. Hooks are billed as
invocations. Sources: functioncompute/fc/configure-the-concurrency-of-a-single-instance (2026) and
functioncompute/fc/user-guide/lifecycle-hooks-for-function-instances-in-a-custom-runtime.

Times are integer nanoseconds, so that the only rounding is that of the provider.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import Enum

GRAIN_NS = 1_000_000


class Residence(Enum):
    """Kind of billing of an instance that serves no request."""

    ON_DEMAND = "on-demand"
    ALLOCATED = "allocated"
    HIBERNATED = "hibernated"


@dataclass(frozen=True, slots=True)
class Usage:
    """Usage of one or several instances.

    Attributes:
        invocations: calls of the function.
        hooks: calls of /initialize and /pre-stop, billed like invocations.
        active_ns: time with at least one call in flight.
        billed_ms: the same with each interval rounded up to 1 ms.
        allocated_idle_ns: provisioned time without a call and with allocated CPU, billed at the active rate.
        hibernated_idle_ns: provisioned time without a call and without CPU, billed at the idle rate.
    """

    invocations: int = 0
    hooks: int = 0
    active_ns: int = 0
    billed_ms: int = 0
    allocated_idle_ns: int = 0
    hibernated_idle_ns: int = 0

    @property
    def provisioned_idle_s(self) -> float:
        """Provisioned seconds without a call."""
        return (self.allocated_idle_ns + self.hibernated_idle_ns) / 1e9


def total(usages: Iterable[Usage]) -> Usage:
    """Returns the sum, field by field."""
    usages = list(usages)
    return Usage(**{field.name: sum(getattr(usage, field.name) for usage in usages) for field in fields(Usage)})


class ActivityMeter:
    """Meter of one instance. Its methods must be called in the order of time."""

    def __init__(self) -> None:
        self._used = Usage()
        self._in_flight = 0
        self._residence = Residence.ON_DEMAND
        self._since_ns = 0

    def begin(self, now_ns: int, *, hook: bool = False) -> None:
        """Counts a call that starts now."""
        if self._in_flight == 0:
            self._close(now_ns)
        self._in_flight += 1
        self._used = total([self._used, Usage(hooks=1) if hook else Usage(invocations=1)])

    def end(self, now_ns: int) -> None:
        """Counts a call that ends now."""
        if self._in_flight == 1:
            self._close(now_ns)
        self._in_flight -= 1

    def reside(self, residence: Residence, now_ns: int) -> None:
        """Sets the kind of billing of idle time from now on."""
        if self._in_flight == 0:
            self._close(now_ns)
        self._residence = residence

    def used(self, now_ns: int) -> Usage:
        """Returns the usage up to now, with a current call."""
        return total([self._used, self._stretch(now_ns)])

    def _close(self, now_ns: int) -> None:
        self._used, self._since_ns = self.used(now_ns), now_ns

    def _stretch(self, now_ns: int) -> Usage:
        """Returns the usage since the last change of state."""
        length_ns = now_ns - self._since_ns
        if self._in_flight:
            return Usage(active_ns=length_ns, billed_ms=-(-length_ns // GRAIN_NS))
        if self._residence is Residence.ALLOCATED:
            return Usage(allocated_idle_ns=length_ns)
        if self._residence is Residence.HIBERNATED:
            return Usage(hibernated_idle_ns=length_ns)
        return Usage()
