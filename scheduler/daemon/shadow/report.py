"""The shadow's figures beside the live ones, for /v1/status, the page and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scheduler.daemon.history.buckets import short
from scheduler.daemon.history.latency_bins import BINS, IN_AN_OCTAVE, LEAST_S
from scheduler.daemon.shadow.tally import Group, Tally

_PERCENTILES = {"p50_s": 0.5, "p95_s": 0.95, "p99_s": 0.99}


def side(tally: Tally, *, spent: float, currency: str) -> dict[str, object]:
    """Returns the counts of one engine as JSON shows them.

    Args:
        tally: of the requests that both heard.
        spent: money since the comparison began; batches in flight count as expected.
        currency: of it.
    """
    return {**_group(tally.total()), "places": dict(tally.places), "spent": spent, "currency": currency}


def class_rows(live: Tally, shadow: Tally) -> list[dict[str, object]]:
    """Returns the counts by model and class; one that only one of the configurations has is empty in the other."""
    keys = dict.fromkeys([*live.groups, *shadow.groups])
    return [
        {
            "model": model,
            "class": name,
            "live": _group(live.groups.get((model, name), Group())),
            "shadow": _group(shadow.groups.get((model, name), Group())),
        }
        for model, name in keys
    ]


def page_values(report: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns what the page shows of a report, as one of its values; none where there is no shadow."""
    if report is None:
        return {}
    sides = {
        name: {
            "share": each["within_slo"] if each["within_slo"] is None else round(each["within_slo"], 5),
            "p99_ms": None if each["p99_s"] is None else round(1000 * each["p99_s"]),
            "spent": short(each["spent"], 4),
            "currency": each["currency"],
            "places": each["places"],
            "refused": each["refused"],
            "ended": each["answered"] + each["refused"],
        }
        for name in ("live", "shadow")
        if (each := report.get(name)) is not None
    }
    told = {name: report[name] for name in ("state", "message", "refused", "config")}
    return {"shadow": {**told, "counted_s": round(report["counted_s"]), **sides}}


def _group(group: Group) -> dict[str, object]:
    return {
        "requests": group.arrived,
        "answered": group.answered,
        "in_time": group.within_slo,
        "refused": group.refused,
        "rejected": group.rejected,
        "cancelled": group.cancelled,
        "within_slo": group.share,
        **{name: group.percentile_s(fraction) for name, fraction in _PERCENTILES.items()},
        "latency_s": {"sum": group.latency_s, "buckets": _buckets(group)},
    }


def _buckets(group: Group) -> list[list[float]]:
    """Returns how many answers took at most so many seconds, by octave."""
    found, below = [], 0
    for index in range(BINS - 1):
        below += group.latencies.get(index, 0)
        if index % IN_AN_OCTAVE == 0:
            found.append([LEAST_S * 2 ** (index // IN_AN_OCTAVE), below])
    return found
