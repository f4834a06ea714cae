"""Metrics of money that is borrowed from another daemon, and lent to others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


def money_metrics(status: Mapping[str, Any]) -> Iterator[Metric]:
    """Yields the metrics of a borrower, or of a lender.

    Args:
        status: as /v1/status shows it.
    """
    lender = status.get("lender")
    if isinstance(lender, Mapping):
        text = "1 while the daemon that this one borrows money from lends."
        yield GaugeMetricFamily("edgeburst_lender_up", text, value=lender["up"])
        text = "Times that it was asked in vain."
        yield CounterMetricFamily("edgeburst_lender_failures", text, value=lender["failures"])
    state = status.get("state")
    borrowers = state.get("borrowers") if isinstance(state, Mapping) else None
    if borrowers:
        lent: dict[str, float] = {}
        for row in (row for row in borrowers if not row["silent"]):
            lent[row["name"]] = lent.get(row["name"], 0.0) + row["held"]
        family = GaugeMetricFamily(
            "edgeburst_lent", "Money lent to another daemon and not spent, by its last report.", labels=["borrower"]
        )
        for name, held in lent.items():
            family.add_metric([name], held)
        yield family
