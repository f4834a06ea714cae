"""Operations that the provider does not have: meter, instances, faults and uplink, under /admin."""

from __future__ import annotations

from typing import Any

from serverless_fn.local_fc.errors import FcError, invalid_argument
from serverless_fn.local_fc.faults import Faults
from serverless_fn.local_fc.fields import Fields
from serverless_fn.local_fc.fleet import Fleet
from serverless_fn.local_fc.instance import Instance
from serverless_fn.local_fc.ledger import Ledger, instance_report
from serverless_fn.local_fc.messages import Call, Reply, json_reply
from serverless_fn.local_fc.prices import shipped_sheets
from serverless_fn.local_fc.uplink import Uplink
from serverless_fn.local_fc.views import instance_view

ADMIN_PREFIX = "/admin/"


class Admin:
    """Server of the paths under /admin.

    Args:
        fleet: the instances to show.
        ledger: usage of the instances that have ended.
        faults: the faults to show, set and remove.
        uplink: the uplink to show and change.
    """

    def __init__(self, fleet: Fleet, ledger: Ledger, faults: Faults, uplink: Uplink) -> None:
        self._fleet = fleet
        self._ledger = ledger
        self._faults = faults
        self._uplink = uplink

    def answer(self, method: str, path: str, call: Call) -> Reply:
        """Serves one request.

        Raises:
            FcError: 400 for an unknown path or a wrong field.
        """
        handlers = {
            ("GET", "/admin/meter"): self._meter,
            ("GET", "/admin/instances"): self._instances,
            ("GET", "/admin/faults"): self._get_faults,
            ("POST", "/admin/faults"): self._post_faults,
            ("DELETE", "/admin/faults"): self._delete_faults,
            ("GET", "/admin/uplink"): self._get_uplink,
            ("POST", "/admin/uplink"): self._post_uplink,
        }
        if (method, path) not in handlers:
            raise FcError(400, "PathNotSupported", f"{method} {path} is no operation of this endpoint")
        return json_reply(handlers[method, path](call))

    def _meter(self, _call: Call) -> dict[str, Any]:
        live = [(each.function, each.version.spec.resources, each.used()) for each in self._fleet.live()]
        return self._ledger.report(live, shipped_sheets())

    def _instances(self, _call: Call) -> dict[str, Any]:
        shown = [*self._fleet.live(), *self._fleet.history]
        return {"instances": [_shown(each) for each in shown]}

    def _get_faults(self, _call: Call) -> dict[str, Any]:
        return self._faults.report()

    def _post_faults(self, call: Call) -> dict[str, Any]:
        return {"id": self._faults.add(call.json()).id}

    def _delete_faults(self, call: Call) -> dict[str, Any]:
        wanted = call.query.get("id")
        if wanted is not None and not wanted.isdecimal():
            raise invalid_argument(f"id must be a whole number; it is {wanted!r}")
        return {"removed": self._faults.remove(None if wanted is None else int(wanted))}

    def _get_uplink(self, _call: Call) -> dict[str, Any]:
        uplink = self._uplink
        return {"mbit_per_s": uplink.mbit_per_s, "rtt_s": uplink.rtt_s, "carried_bytes": uplink.carried_bytes}

    def _post_uplink(self, call: Call) -> dict[str, Any]:
        """Changes the uplink. A rate of null is unlimited, 0 carries nothing; absent fields stay unchanged."""
        content = call.json()
        fields, uplink = Fields(content), self._uplink
        for key in fields.unknown(("mbit_per_s", "rtt_s")):
            raise invalid_argument(f"there is no field {key!r}; there are mbit_per_s and rtt_s")
        rate = uplink.mbit_per_s
        if "mbit_per_s" in content:
            rate = fields.number("mbit_per_s", 0, 1e6) if fields.has("mbit_per_s") else None
        rtt_s = fields.number("rtt_s", 0, 60, uplink.rtt_s)
        uplink.set(mbit_per_s=rate, rtt_s=rtt_s)
        self._faults.note("uplink", mbit_per_s=rate, rtt_s=rtt_s)
        return self._get_uplink(call)


def _shown(instance: Instance) -> dict[str, Any]:
    return {
        **instance_view(instance),
        "function": instance.function,
        "pid": instance.container.pid,
        "port": instance.port,
        "inFlight": instance.in_flight,
        "served": instance.served,
        "meter": instance_report(instance.version.spec.resources, instance.used(), shipped_sheets()),
    }
