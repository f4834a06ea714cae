"""The shadow's figures beside the live ones, as metrics: of the requests that both engines heard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

_SIDES = ("live", "shadow")
_ENDS = ("answered", "refused", "rejected", "cancelled")


def shadow_metrics(status: Mapping[str, Any]) -> Iterator[Metric]:
    """Yields the metrics of `shadow` in GET /v1/status; none where the daemon has no shadow."""
    shadow = status.get("shadow")
    if not isinstance(shadow, Mapping):
        return
    text = "1 while a shadow hears what the daemon hears; 0 while it is paused, refused or stopped."
    yield GaugeMetricFamily("edgeburst_shadow_up", text, value=float(shadow["state"] == "hearing"))
    text = "Seconds that the shadow took of the event loop's time."
    yield CounterMetricFamily("edgeburst_shadow_loop_seconds", text, value=shadow["loop_s"])
    text = "Times that the shadow was paused, because it took too much of the event loop's time."
    yield CounterMetricFamily("edgeburst_shadow_pauses", text, value=shadow["pauses"])
    if "live" not in shadow:
        return
    text = "Seconds over which the live engine and its shadow are compared."
    yield GaugeMetricFamily("edgeburst_shadow_compared_seconds", text, value=shadow["counted_s"])
    yield from _by_class(shadow)
    yield _answers(shadow)
    yield _latencies(shadow)
    text = "Money since the comparison began, as the live engine spent it and as its shadow would have."
    spent = GaugeMetricFamily("edgeburst_shadow_spent", text, labels=["engine", "currency"])
    for name in _SIDES:
        spent.add_metric([name, shadow[name]["currency"]], shadow[name]["spent"])
    yield spent


def _by_class(shadow: Mapping[str, Any]) -> Iterator[Metric]:
    text = "Requests that the live engine and its shadow both heard, by how they ended in each."
    ends = CounterMetricFamily("edgeburst_shadow_requests", text, labels=["engine", "model", "class", "end"])
    text = "Answers in time in the live engine and in its shadow, each by its own SLO."
    within = CounterMetricFamily("edgeburst_shadow_within_slo", text, labels=["engine", "model", "class"])
    for row in shadow["classes"]:
        for name in _SIDES:
            labels = [name, row["model"], row["class"]]
            for end in _ENDS:
                ends.add_metric([*labels, end], row[name][end])
            within.add_metric(labels, row[name]["in_time"])
    yield ends
    yield within


def _answers(shadow: Mapping[str, Any]) -> Metric:
    text = "Answers by place, in the live engine and in its shadow."
    answers = CounterMetricFamily("edgeburst_shadow_answers", text, labels=["engine", "place"])
    for name in _SIDES:
        for place, number in shadow[name]["places"].items():
            answers.add_metric([name, place], number)
    return answers


def _latencies(shadow: Mapping[str, Any]) -> Metric:
    text = "From a request's last byte to its answer, in the live engine and in its shadow."
    family = HistogramMetricFamily("edgeburst_shadow_request_seconds", text, labels=["engine"])
    for name in _SIDES:
        told = shadow[name]["latency_s"]
        buckets = [(repr(float(limit_s)), number) for limit_s, number in told["buckets"]]
        family.add_metric([name], [*buckets, ("+Inf", shadow[name]["answered"])], told["sum"])
    return family
