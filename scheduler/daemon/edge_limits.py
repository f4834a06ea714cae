"""The largest batches that edge servers take, as learned: log lines and a metric."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from scheduler.daemon.logs import log
from scheduler.domain.edge_limits import EdgeLimit, LimitSource
from scheduler.domain.requests import EDGE_NAME

_HOW = {
    LimitSource.SAID: "as it says itself",
    LimitSource.NAMED: "as its refusal says",
    LimitSource.SEARCHED: "as its refusals have shown",
}


def log_edge_limit(limit: EdgeLimit) -> None:
    """Writes a line: the largest batch is known, or is another one than before."""
    server = "the edge" if limit.edge == EDGE_NAME else f"edge {limit.edge}"
    message = (
        f"{server} takes at most {limit.items} items of model {limit.model} in a batch, {_HOW[limit.source]}; larger"
        f" ones are not sent to it. To say so from the start, set max_items = {limit.items} in the model's table"
    )
    log(
        logging.INFO,
        "edge_batch_learned",
        model=limit.model,
        edge=limit.edge,
        items=limit.items,
        source=limit.source.value,
        message=message,
    )


def edge_limit_metric(limits: Iterable[Mapping[str, Any]]) -> Metric:
    """Returns the learned limits, as GET /v1/status shows them."""
    learned = "Most items in a batch that the edge takes, as it says or has shown; absent: it has refused none."
    family = GaugeMetricFamily("edgeburst_edge_batch_limit", learned, labels=["model", "edge"])
    for limit in limits:
        family.add_metric([limit["model"], limit["edge"]], limit["items"])
    return family
