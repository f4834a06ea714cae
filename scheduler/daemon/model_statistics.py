"""Counts and durations of each model, as the JSON of Triton's extension "statistics".

Reference: https://github.com/triton-inference-server/server, docs/protocol/extension_statistics.md. What its
words mean here:

| Triton | here |
|---|---|
| `success` | answers: from a request's last byte to its answer |
| `fail` | refused, rejected and cancelled requests, for as long as they were held |
| `queue` | from a request's last byte until its batch was sent |
| `compute_input` | the batch's way to the backend and back, and its wait there: its call less the service |
| `compute_infer` | the service of the batch, as the backend measured it; the whole call where it reports none |
| `compute_output` | from the batch's answer to the request's own |
| `cache_hit`, `cache_miss` | always 0: there is no cache |

The durations of `queue` and of the three `compute_...` add up to that of `success`. In `batch_stats` each answered
batch of edge or function counts once, whatever became of its requests; its output is not counted there, because the
answers of a batch are written one by one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

VERSION = "1"
"""The only version of every model."""


@dataclass(slots=True)
class _Duration:
    """How often, and for how long in all."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.ns += max(0, round(seconds * 1e9))

    def values(self) -> dict[str, int]:
        return {"count": self.count, "ns": self.ns}


@dataclass(slots=True)
class _Batches:
    """The answered batches of one size."""

    way: _Duration = field(default_factory=_Duration)
    service: _Duration = field(default_factory=_Duration)


@dataclass(slots=True)
class _Model:
    """What was counted of one model."""

    last_at_s: float | None = None
    items: int = 0
    success: _Duration = field(default_factory=_Duration)
    fail: _Duration = field(default_factory=_Duration)
    queue: _Duration = field(default_factory=_Duration)
    way: _Duration = field(default_factory=_Duration)
    service: _Duration = field(default_factory=_Duration)
    output: _Duration = field(default_factory=_Duration)
    batches: dict[int, _Batches] = field(default_factory=dict)
    """By items."""

    def ended(self, now_s: float) -> None:
        self.last_at_s = now_s if self.last_at_s is None else max(self.last_at_s, now_s)

    def values(self, name: str, wall_ahead_s: float) -> dict[str, Any]:
        nothing = _Duration().values()
        return {
            "name": name,
            "version": VERSION,
            "last_inference": 0 if self.last_at_s is None else round((self.last_at_s + wall_ahead_s) * 1000),
            "inference_count": self.items,
            "execution_count": sum(batches.service.count for batches in self.batches.values()),
            "inference_stats": {
                "success": self.success.values(),
                "fail": self.fail.values(),
                "queue": self.queue.values(),
                "compute_input": self.way.values(),
                "compute_infer": self.service.values(),
                "compute_output": self.output.values(),
                "cache_hit": nothing,
                "cache_miss": nothing,
            },
            "response_stats": {},
            "batch_stats": [
                {
                    "batch_size": items,
                    "compute_input": batches.way.values(),
                    "compute_infer": batches.service.values(),
                    "compute_output": nothing,
                }
                for items, batches in sorted(self.batches.items())
            ],
            "memory_usage": [],
        }


class InferenceCounters:
    """What was counted of every model since the start. It reads no clock: the caller gives the time."""

    def __init__(self) -> None:
        """Starts with no counts."""
        self._models: dict[str, _Model] = {}

    def answered(
        self,
        model: str,
        *,
        items: int,
        latency_s: float,
        wait_s: float,
        elapsed_s: float,
        service_s: float | None,
        now_s: float,
    ) -> None:
        """Counts an answered request.

        Args:
            model: its model.
            items: how many it had.
            latency_s: from its last byte to its answer.
            wait_s: the part of it until its batch was sent.
            elapsed_s: the part of it from there to the batch's answer.
            service_s: the part of that in which the backend worked; None: not known.
            now_s: the present, monotonic.
        """
        counts = self._of(model)
        if service_s is None or service_s > elapsed_s:
            service_s = elapsed_s
        if counts.last_at_s is None or counts.last_at_s < now_s:
            counts.last_at_s = now_s
        counts.items += items
        # Written out without calls: it is done for each request.
        for duration, seconds in (
            (counts.success, latency_s),
            (counts.queue, wait_s),
            (counts.way, elapsed_s - service_s),
            (counts.service, service_s),
            (counts.output, latency_s - wait_s - elapsed_s),
        ):
            duration.count += 1
            if seconds > 0.0:
                duration.ns += round(seconds * 1e9)

    def failed(self, model: str, *, latency_s: float, now_s: float) -> None:
        """Counts a request that ended without an answer, `latency_s` after its last byte."""
        counts = self._of(model)
        counts.ended(now_s)
        counts.fail.add(latency_s)

    def executed(self, model: str, *, items: int, elapsed_s: float, service_s: float | None) -> None:
        """Counts an answered batch; the durations are those of `answered`."""
        of_model = self._of(model)
        batches = of_model.batches.get(items)
        if batches is None:
            batches = of_model.batches[items] = _Batches()
        service_s = _service_s(elapsed_s, service_s)
        batches.way.add(elapsed_s - service_s)
        batches.service.add(service_s)

    def report(self, models: Iterable[str], *, wall_ahead_s: float) -> dict[str, Any]:
        """Returns the statistics of these models as Triton shows them.

        Args:
            models: their names; one that had no request yet has only zeros.
            wall_ahead_s: what the wall clock, in seconds since 1970, is ahead of the clock of `now_s`.
        """
        nothing = _Model()
        return {"model_stats": [self._models.get(name, nothing).values(name, wall_ahead_s) for name in models]}

    def _of(self, model: str) -> _Model:
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = _Model()
        return found


def _service_s(elapsed_s: float, service_s: float | None) -> float:
    """Returns the seconds of the service within those of the call."""
    return elapsed_s if service_s is None else min(service_s, elapsed_s)
