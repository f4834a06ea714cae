"""The daemon's books against the platform's meter: what was booked, beside what is billed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Books:
    """Money up to some time, in the price sheet's currency; idle instances apart.

    Attributes:
        metered: what calls and initializers cost by the meter of the local Function Compute endpoint.
        metered_idle: what provisioned instances cost idle by it.
        booked: what the daemon has booked for calls, starts and warming, by purpose.
        booked_idle: what it has booked for idle instances.
        invocations: calls by the meter, initializers not counted.
        initializers: calls of initializers by it.
    """

    metered: float
    metered_idle: float
    booked: Mapping[str, float]
    booked_idle: float
    invocations: int
    initializers: int

    @property
    def total(self) -> float:
        """What the daemon has booked without idle instances."""
        return sum(self.booked.values())

    @property
    def ratio(self) -> float | None:
        """Booked over metered, idle instances in both; None if nothing was metered."""
        metered = self.metered + self.metered_idle
        return (self.total + self.booked_idle) / metered if metered else None

    def since(self, before: Books) -> Books:
        """Returns what was added since `before`."""
        return Books(
            metered=self.metered - before.metered,
            metered_idle=self.metered_idle - before.metered_idle,
            booked={what: amount - before.booked.get(what, 0.0) for what, amount in self.booked.items()},
            booked_idle=self.booked_idle - before.booked_idle,
            invocations=self.invocations - before.invocations,
            initializers=self.initializers - before.initializers,
        )


def books(meter: Mapping[str, Any], status: Mapping[str, Any], *, sheet: str) -> Books:
    """Returns the books at one moment, when no batch is in flight.

    Args:
        meter: the answer of the endpoint's GET /admin/meter.
        status: the answer of the daemon's GET /v1/status.
        sheet: name of the daemon's price sheet, one of those that the endpoint bills by.

    >>> account = {"cost": {"s": {"active": 3.0, "calls": 1.0, "provisioned_idle": 2.0}}}
    >>> meter = {"total": {**account, "invocations": 7, "hook_invocations": 2}}
    >>> rows = [{"what": "call", "amount": 1.0}, {"what": "start", "amount": 3.0}, {"what": "idle", "amount": 2.0}]
    >>> found = books(meter, {"engine": {"spending": rows}}, sheet="s")
    >>> found.total, found.metered, found.ratio
    (4.0, 4.0, 1.0)
    """
    account = meter["total"]
    cost = account["cost"][sheet]
    booked: dict[str, float] = {}
    for row in status["engine"]["spending"]:
        booked[row["what"]] = booked.get(row["what"], 0.0) + row["amount"]
    return Books(
        metered=cost["active"] + cost["calls"],
        metered_idle=cost["provisioned_idle"],
        booked={what: amount for what, amount in booked.items() if what != IDLE},
        booked_idle=booked.get(IDLE, 0.0),
        invocations=account["invocations"],
        initializers=account["hook_invocations"],
    )
