"""The panels of the dashboard for Grafana: titles, units, and queries for Prometheus.

A query holds `$instance` and `$model`, the dashboard's variables, and `$__rate_interval`, which Grafana chooses.
"""

from __future__ import annotations

from dataclasses import dataclass

DAEMON = 'instance=~"$instance"'
MODEL = f'{DAEMON},model=~"$model"'


@dataclass(frozen=True, slots=True)
class Query:
    """A query, and the name of its lines: `{{label}}` stands for a label's value."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel."""

    title: str
    unit: str
    """As Grafana names it: "s", "reqps", "percentunit", "none"."""
    queries: tuple[Query, ...]
    width: int = 8
    """Of 24."""
    kind: str = "lines"
    """"lines", "areas" (stacked), "value" (the last one, large) or "states" (a band by state)."""
    description: str = ""
    top: float | None = None
    """The largest value of its axis; None: as it comes."""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels below a heading."""

    title: str
    panels: tuple[Panel, ...]


def per_s(name: str, by: str, labels: str = MODEL) -> str:
    """Returns the rate of a counter, added up by labels.

    >>> per_s("edgeburst_items_total", "place", 'model="m"')
    'sum by (place) (rate(edgeburst_items_total{model="m"}[$__rate_interval]))'
    """
    return f"sum by ({by}) (rate({name}{{{labels}}}[$__rate_interval]))"


def quantile(fraction: float, name: str, by: str, labels: str = MODEL) -> str:
    """Returns a quantile of a histogram, by labels."""
    rates = f"rate({name}_bucket{{{labels}}}[$__rate_interval])"
    return f"histogram_quantile({fraction:g}, sum by ({by}, le) ({rates}))"


def mean(name: str, by: str, labels: str = MODEL) -> str:
    """Returns the mean of a histogram, by labels."""
    return f"{per_s(f'{name}_sum', by, labels)} / {per_s(f'{name}_count', by, labels)}"


def of(name: str, labels: str = MODEL) -> str:
    """Returns a metric within the dashboard's variables."""
    return f"{name}{{{labels}}}"


CLASS, PLACE, TIER = "{{model}} {{class}}", "{{model}} {{place}}", "{{model}} {{tier}}"
"""Names of lines."""
