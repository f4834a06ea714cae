"""The provider's limits on concurrency, as its refusals have shown them: log lines and a metric."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from scheduler.daemon.logs import log
from scheduler.domain.messages import QuotaLearned

ACCOUNT = "account"
"""Stands for the tier where all functions together are meant; `model` is empty then."""


def log_quota(learned: QuotaLearned) -> None:
    """Writes a line: a quota is learned, is another one than before, or limits nothing any more."""
    where = {"model": learned.model, "tier": learned.tier} if learned.tier else {"tier": ACCOUNT}
    if learned.granted is None:
        log(logging.INFO, "quota_lifted", **where)
    else:
        log(logging.WARNING, "quota_learned", granted=learned.granted, **where)


def quota_metric(quotas: Iterable[Mapping[str, Any]]) -> Metric:
    """Returns the learned quotas, as GET /v1/status shows them."""
    learned = "Function calls that the provider runs at once, as its refusals have shown; absent: it has refused none."
    family = GaugeMetricFamily("edgeburst_function_concurrency_learned", learned, labels=["model", "tier"])
    for quota in quotas:
        family.add_metric([quota["model"], quota["tier"] or ACCOUNT], quota["granted"])
    return family
