"""Metrics of money: what was spent, by purpose, and what is left under the caps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from scheduler.daemon.counts import gauge

_LABELS = ("what", "tier", "model", "tenant", "currency")
CLOSED_BY = ("hour", "day", "state", "lender")
"""What may let no money be spent: a cap, or that none can be leased."""


class SpendMetrics:
    """Makes them from the engine as GET /v1/status shows it."""

    def __init__(self) -> None:
        """Has seen no money."""
        self._highest: dict[tuple[str, ...], float] = {}
        """Of the money spent, by its labels."""

    def metrics(self, engine: Mapping[str, Any]) -> Iterator[Metric]:
        """Yields the metrics; of caps only where there are some."""
        yield self._spent(engine)
        currency = (engine.get("plan") or {}).get("currency", "")
        rows = [((row["window"], currency), row["cap"], row["spent"]) for row in engine.get("caps") or ()]
        labels = ("window", "currency")
        text = "Most money that functions may cost in any such window."
        yield gauge("edgeburst_spend_cap", text, labels, ((key, cap) for key, cap, _ in rows))
        text = "Money in the present window, at most: batches in flight count with what they are unlikely to exceed."
        yield gauge("edgeburst_spend_cap_used", text, labels, ((key, spent) for key, _, spent in rows))
        text = "Money that is left of the cap."
        yield gauge("edgeburst_spend_cap_left", text, labels, ((key, cap - spent) for key, cap, spent in rows))
        if "closed_by" in engine:
            text = "1 while no money may be spent, by what forbids it: a cap, or no money leased from folder or lender."
            closed = (((what,), float(engine["closed_by"] == what)) for what in CLOSED_BY)
            yield gauge("edgeburst_spend_closed", text, ("by",), closed)
        if engine.get("opens_in_s") is not None:
            text = "Until money may be spent again; absent: it may, or that is not known."
            yield GaugeMetricFamily("edgeburst_spend_opens_in_seconds", text, value=engine["opens_in_s"])

    def _spent(self, engine: Mapping[str, Any]) -> Metric:
        text = "Money spent on functions, in the label's currency; corrected downwards only in /v1/status."
        family = CounterMetricFamily("edgeburst_spent", text, labels=_LABELS)
        for row in engine.get("spending", ()):
            labels = tuple(row[name] for name in _LABELS)
            # A counter must not fall: a correction downwards is made up for by what is spent later.
            self._highest[labels] = max(self._highest.get(labels, 0.0), row["amount"])
            family.add_metric(labels, self._highest[labels])
        return family
