"""Converts usage to money with the price sheets of `scheduler/planner/prices`, JSON files with source and date."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from serverless_fn.local_fc.meter import Usage

BILLED_BY = ("cny-gbs-2023", "fc3-cu-usd")
"""Sheets of event functions as the daemon uses them. Those of other providers and of prototypes are for planning."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Resources of an instance: vCPUs, and GB of memory, disk and GPU memory."""

    vcpu: float
    memory_gb: float
    disk_gb: float
    gpu_gb: float = 0.0
    gpu_type: str = ""


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices of one configuration, in the unit of the sheet (its currency, or compute units)."""

    active_per_s: float
    idle_per_s: float
    per_call: float


@dataclass(frozen=True, slots=True)
class Bill:
    """Bill by purpose, in the currency of the sheet."""

    active: float
    calls: float
    provisioned_idle: float
    compute_units: float | None = None

    @property
    def total(self) -> float:
        """Total of the bill."""
        return self.active + self.calls + self.provisioned_idle


class Sheet:
    """Price sheet, as in its JSON file."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = content

    @property
    def provenance(self) -> dict[str, str]:
        """The sheet's name, currency, source and date."""
        return {key: self._content[key] for key in ("name", "currency", "source", "date")}

    def bill(self, usage: Usage, resources: Resources) -> Bill | None:
        """Returns the bill for a usage of instances; None if the sheet has no price for their GPU."""
        rates = self._rates(resources)
        if rates is None:
            return None
        # Volume steps count by the month; the usage here never exceeds the first one.
        steps = self._content.get("price_per_cu")
        price = steps[0]["price"] if steps else 1.0
        active = usage.billed_ms / 1e3 * rates.active_per_s
        calls = (usage.invocations + usage.hooks) * rates.per_call
        idle = usage.allocated_idle_ns / 1e9 * rates.active_per_s + usage.hibernated_idle_ns / 1e9 * rates.idle_per_s
        return Bill(active * price, calls * price, idle * price, active + calls + idle if steps else None)

    def _rates(self, resources: Resources) -> Rates | None:
        return self._unit_rates(resources) if self._content["meter"] == "cu" else self._memory_rates(resources)

    def _memory_rates(self, resources: Resources) -> Rates | None:
        if resources.gpu_gb:
            return None
        per_gb, idle_per_gb = self._content["per_memory_gb_s"], self._content["idle_per_memory_gb_s"]
        return Rates(
            resources.memory_gb * per_gb, resources.memory_gb * idle_per_gb, per_call=self._content["per_call"]
        )

    def _unit_rates(self, resources: Resources) -> Rates | None:
        sheet = self._content
        if resources.gpu_gb and resources.gpu_type not in sheet["cu_per_gpu_gb_s"]:
            return None
        kept = resources.memory_gb * sheet["cu_per_memory_gb_s"] + resources.disk_gb * sheet["cu_per_disk_gb_s"]
        gpu = resources.gpu_gb * sheet["cu_per_gpu_gb_s"].get(resources.gpu_type, 0.0)
        idle_gpu = resources.gpu_gb * sheet["idle_cu_per_gpu_gb_s"].get(resources.gpu_type, 0.0)
        active = kept + gpu + resources.vcpu * sheet["cu_per_vcpu_s"]
        idle = kept + idle_gpu + resources.vcpu * sheet["idle_cu_per_vcpu_s"]
        return Rates(active, idle, per_call=sheet["cu_per_call"])


@cache
def shipped_sheets() -> tuple[Sheet, ...]:
    """Returns the sheets with which this endpoint bills, by name."""
    folder = files("scheduler") / "planner" / "prices"
    found = [(folder / f"{name}.json").read_text(encoding="utf-8") for name in BILLED_BY]
    return tuple(Sheet(json.loads(text)) for text in found)
