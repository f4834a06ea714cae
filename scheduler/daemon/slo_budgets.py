"""The SLO budgets of the classes, as metrics."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

LABELS = ("model", "class")


def budget_metrics(budgets: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
    """Yields the balances and what was missed on purpose, from the budgets as GET /v1/status shows them."""
    balance = GaugeMetricFamily(
        "edgeburst_slo_budget_balance_requests",
        "Misses that a class may still have; below 0, misses more than its percentile allows.",
        labels=LABELS,
    )
    missed = CounterMetricFamily(
        "edgeburst_missed_on_purpose",
        "Requests refused or answered late on purpose, because being in time would have cost more.",
        labels=LABELS,
    )
    saved = CounterMetricFamily(
        "edgeburst_missed_on_purpose_saved", "Money that being in time would have cost them, in CNY.", labels=LABELS
    )
    for budget in budgets:
        labels = budget["model"], budget["class_name"]
        balance.add_metric(labels, budget["balance"])
        missed.add_metric(labels, budget["missed_on_purpose"])
        saved.add_metric(labels, budget["saved"])
    yield from (balance, missed, saved)
