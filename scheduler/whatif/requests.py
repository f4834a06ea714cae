"""From traffic to the requests of a simulation: models and classes by name, deadlines by what is configured now."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.domain.plans import EngineSettings, ModelSettings
from scheduler.domain.requests import Request
from scheduler.recordings.layout import Kind, RecordingError
from scheduler.recordings.traffic import Traffic

START_S = 1e-3
"""Of the first request, so that the engine has begun."""


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests of a simulation.

    Attributes:
        requests: by arrival, with ids from 1.
        give_ups: when clients give up, and which request.
        notes: sentences about what was changed.
    """

    requests: Sequence[Request]
    give_ups: Sequence[tuple[float, int]] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Known:
    model: str
    class_name: str
    slo_s: float
    priority: int
    max_items: int


def make_requests(
    traffic: Traffic, settings: EngineSettings, *, reserve_s: float, request_bytes: int, rate_scale: float = 1.0
) -> Requests:
    """Returns the requests of traffic under these settings.

    Args:
        traffic: as recorded.
        settings: models and classes. An empty name in the traffic stands for the first.
        reserve_s: part of each deadline for the daemon's own work, of which at most half is used.
        request_bytes: size where that is not known.
        rate_scale: every gap is divided by it.

    Raises:
        RecordingError: the traffic has a model or a class that is not configured.
    """
    # Kinds that only came at another time need not be configured.
    known = {int(index): _known(traffic.kinds[index], settings) for index in np.unique(traffic.kind)}
    first_s = float(traffic.times_s[0])
    times_s = (START_S + (traffic.times_s - first_s) / rate_scale).tolist()
    requests, give_ups, cut = [], [], 0
    columns = (times_s, traffic.kind, traffic.body_bytes, traffic.items, traffic.shapes, traffic.timeouts_s)
    rows = zip(*(column if isinstance(column, list) else column.tolist() for column in columns), strict=True)
    cancelled = traffic.cancelled_s.tolist()
    for number, (at_s, kind, body_bytes, items, shape_id, timeout_s) in enumerate(rows, start=1):
        of = known[kind]
        limit_s = of.slo_s if math.isnan(timeout_s) else timeout_s
        kept_s = min(reserve_s, limit_s / 2)
        cut += items > of.max_items
        requests.append(
            Request(
                request_id=number,
                model=of.model,
                arrived_at_s=at_s,
                deadline_s=at_s + limit_s - kept_s,
                items=min(items, of.max_items),
                body_bytes=body_bytes or request_bytes,
                class_name=of.class_name,
                priority=of.priority,
                tenant=traffic.kinds[kind].tenant,
                reserve_s=kept_s,
                shape_id=shape_id,
            )
        )
        if not math.isnan(cancelled[number - 1]):
            give_ups.append((at_s + cancelled[number - 1], number))
    notes = (f"{cut} requests have more items than `max_items` and are taken with so many",) if cut else ()
    return Requests(requests, give_ups, notes)


def _known(kind: Kind, settings: EngineSettings) -> _Known:
    models = {model.name: model for model in settings.models}
    model = models.get(kind.model) if kind.model else settings.models[0]
    if model is None:
        raise RecordingError(
            f"the traffic has requests of model {kind.model!r}, which is not configured, only {', '.join(models)}; give"
            " the configuration that it came under, or other requests"
        )
    name = kind.class_name or model.classes[0].name
    try:
        found = model.service_class(name)
    except KeyError:
        raise RecordingError(_no_class(name, model)) from None
    return _Known(model.name, name, found.slo_s, kind.priority or model.default_priority, model.max_items)


def _no_class(name: str, model: ModelSettings) -> str:
    known = ", ".join(each.name for each in model.classes)
    return f"the traffic has requests of class {name!r} of model {model.name}, only {known}; add it there"
