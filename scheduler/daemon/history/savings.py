"""What the edge's answers would have cost by function, and what was spent since midnight."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from scheduler.daemon.history.buckets import Bucket
from scheduler.daemon.records import BatchRecord
from scheduler.domain.bills import Purpose
from scheduler.domain.plans import ModelSettings, Plan

WEIGHT = 0.05
"""Of a new batch in the mean cost of an item: the last twenty or so count."""
SAVED = "saved"
PARTS: Mapping[Purpose, str] = {
    Purpose.CALL: "calls",
    Purpose.HEDGE: "hedges",
    Purpose.WARMING: "warming",
    Purpose.START: "cold starts",
    Purpose.START_ESTIMATE: "cold starts",
    Purpose.PROVISIONING: "provisioned",
    Purpose.IDLE: "provisioned",
}
"""How the page names what money is spent on."""


class ItemCosts:
    """What an item costs by function: as the last batches were billed, and before any as planned."""

    def __init__(self) -> None:
        """Knows nothing."""
        self._measured: dict[str, float] = {}
        self._settings: Mapping[str, ModelSettings] = {}

    def reload(self, models: Iterable[ModelSettings]) -> None:
        """Takes over the models with the prices of their tiers."""
        self._settings = {model.name: model for model in models}

    def note(self, record: BatchRecord) -> None:
        """Learns from a batch that a function answered."""
        batch = record.batch
        if not batch.tier or record.error or batch.warming or record.report.billed_duration_s is None:
            return
        cost, before = record.bill.total / batch.items, self._measured.get(batch.model)
        self._measured[batch.model] = cost if before is None else before + WEIGHT * (cost - before)

    def of(self, model: str, plan: Plan | None) -> float:
        """Returns the money for an item; 0 where no function serves the model."""
        measured = self._measured.get(model)
        return self._planned(model, plan) if measured is None else measured

    def _planned(self, model: str, plan: Plan | None) -> float:
        """Returns the least by profile: in batches as planned, or as large as they may be."""
        settings = self._settings.get(model)
        if settings is None:
            return 0.0
        groups = [] if plan is None else [group for group in plan.groups if group.model == model]
        targets = {buffer.tier: buffer.target_batch for group in groups for buffer in group.buffers}
        costs = []
        for tier in settings.tiers:
            items = targets.get(tier.name) or min(tier.latency.max_batch, settings.max_items)
            costs.append(tier.price.cost(tier.latency.predict_s(items)) / items)
        return min(costs, default=0.0)


class Today:
    """What was spent, by what, and saved since midnight.

    >>> today = Today(lambda at_s: 86_400.0 * (at_s // 86_400))
    >>> today.add(Bucket(money={"calls": 1.0}), at_s=86_399)
    >>> today.add(Bucket(money={"calls": 0.25, SAVED: 1.0}), at_s=86_400)
    >>> today.amounts
    {'calls': 0.25, 'saved': 1.0}
    """

    def __init__(self, midnight_s: Callable[[float], float]) -> None:
        """Stores what returns when the day of a moment began, both in seconds since 1970."""
        self._midnight_s = midnight_s
        self._began_s = -math.inf
        self._ends_s = -math.inf
        self.amounts: dict[str, float] = {}

    def add(self, bucket: Bucket, at_s: float) -> None:
        """Adds a bucket; a new day begins with nothing."""
        if at_s >= self._ends_s or at_s < self._began_s:
            self._began_s = self._midnight_s(at_s)
            self._ends_s = self._midnight_s(self._began_s + 30 * 3600)
            self.amounts = {}
        for name, amount in bucket.money.items():
            self.amounts[name] = self.amounts.get(name, 0.0) + amount
