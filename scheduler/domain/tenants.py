"""Tenants: between which the edge's time and the money are shared, and what each one used."""

from collections.abc import Container, Sequence
from dataclasses import dataclass

OTHER = "other"
"""Stands for all tenants that are not configured, and for requests that name none."""


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """One configured tenant."""

    name: str
    share: float = 1.0
    """Weight beside the other tenants; above 0."""
    per_hour: float | None = None
    """Largest cost of its functions in any hour, in the prices' currency; None: no cap of its own."""
    per_day: float | None = None


@dataclass(frozen=True, slots=True)
class TenantStatistics:
    """What one tenant holds and used, at one moment."""

    name: str
    share: float
    """Of the whole, among all configured tenants and `other`."""
    open_requests: int
    """Its requests that wait or are in flight."""
    edge_s: float
    """Seconds of the edge since the start."""
    spent: float
    """Money since the start: its part of each function batch by items, batches in flight as expected."""
    spent_hour: float
    """At most this in the last hour: batches in flight count with what they are unlikely to exceed."""
    spent_day: float
    costs: tuple[tuple[str, str, float], ...] = ()
    """(model, class, money) since the start, without batches in flight."""


def shares_of(tenants: Sequence[TenantSettings]) -> dict[str, float]:
    """Returns the shares of the configured tenants and of `other`, which has the least of them; empty without any.

    >>> shares_of([TenantSettings("a", 3.0), TenantSettings("b", 1.0)])
    {'a': 0.6, 'b': 0.2, 'other': 0.2}
    """
    weights = {tenant.name: tenant.share for tenant in tenants}
    if weights:
        weights[OTHER] = min(weights.values())
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def tenant_label(name: str, configured: Container[str]) -> str:
    """Returns the tenant that a request counts as: its own if that is configured, else `other`.

    >>> tenant_label("lab", {"lab"}), tenant_label("elsewhere", {"lab"}), tenant_label("", {"lab"})
    ('lab', 'other', 'other')
    """
    return name if name in configured else OTHER
