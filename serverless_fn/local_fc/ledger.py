"""Usage of all instances, running and ended, in the provider's units and in money."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from serverless_fn.local_fc.meter import Usage, total
from serverless_fn.local_fc.prices import Bill, Resources, Sheet


class Ledger:
    """Usage by function and configuration; its size depends on the number of configurations only."""

    def __init__(self) -> None:
        self._closed: dict[tuple[str, Resources], Usage] = {}

    def close(self, function: str, resources: Resources, usage: Usage) -> None:
        """Adds the usage of an instance that has ended."""
        key = (function, resources)
        self._closed[key] = total([self._closed.get(key, Usage()), usage])

    def report(self, live: Iterable[tuple[str, Resources, Usage]], sheets: Iterable[Sheet]) -> dict[str, Any]:
        """Returns usage and money by function and in total.

        Args:
            live: function, resources and usage of each running instance.
            sheets: price sheets to bill by.
        """
        entries = [(function, resources, usage) for (function, resources), usage in self._closed.items()]
        entries.extend(live)
        sheets = list(sheets)
        names = sorted({function for function, _, _ in entries})
        return {
            "functions": {
                name: _account([entry[1:] for entry in entries if entry[0] == name], sheets) for name in names
            },
            "total": _account([entry[1:] for entry in entries], sheets),
            "sheets": {sheet.provenance["name"]: sheet.provenance for sheet in sheets},
        }


def instance_report(resources: Resources, usage: Usage, sheets: Iterable[Sheet]) -> dict[str, Any]:
    """Returns usage and money of one instance."""
    return _account([(resources, usage)], list(sheets))


def _account(used: list[tuple[Resources, Usage]], sheets: list[Sheet]) -> dict[str, Any]:
    usage = total(each for _, each in used)
    return {
        "invocations": usage.invocations,
        "hook_invocations": usage.hooks,
        "active_s": usage.active_ns / 1e9,
        "billed_s": usage.billed_ms / 1e3,
        "provisioned_idle_s": usage.provisioned_idle_s,
        "hibernated_idle_s": usage.hibernated_idle_ns / 1e9,
        "cost": {sheet.provenance["name"]: _money([sheet.bill(each, what) for what, each in used]) for sheet in sheets},
    }


def _money(bills: list[Bill | None]) -> Mapping[str, float] | None:
    """Returns the sum of the bills; None if one of them is unknown, since a partial sum would mislead."""
    known = [bill for bill in bills if bill is not None]
    if len(known) < len(bills):
        return None
    money = {
        "active": sum(bill.active for bill in known),
        "calls": sum(bill.calls for bill in known),
        "provisioned_idle": sum(bill.provisioned_idle for bill in known),
        "total": sum(bill.total for bill in known),
    }
    units = [bill.compute_units for bill in known if bill.compute_units is not None]
    return {**money, "compute_units": sum(units)} if units else money
