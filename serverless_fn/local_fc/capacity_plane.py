"""Operations on the number of instances: provisioned instances, limits, and the list of running instances."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from serverless_fn.local_fc import views
from serverless_fn.local_fc.config import Account
from serverless_fn.local_fc.errors import FcError
from serverless_fn.local_fc.fields import Fields
from serverless_fn.local_fc.fleet import Fleet
from serverless_fn.local_fc.messages import Call, Reply, json_reply
from serverless_fn.local_fc.meter import Residence
from serverless_fn.local_fc.paging import page, texts, whole
from serverless_fn.local_fc.registry import Provision, Registry

_TARGET_MAX = 10_000


class CapacityPlane:
    """Operations of the provider's API, one for each method.

    Args:
        registry: the state to change and show.
        fleet: the instances, which follow the state.
        account: the account of the functions.
    """

    def __init__(self, registry: Registry, fleet: Fleet, account: Account) -> None:
        self._registry = registry
        self._fleet = fleet
        self._account = account

    def put_provision_config(self, call: Call) -> Reply:
        """PutProvisionConfig."""
        self.provision(call.function, call.qualifier, call.json())
        return self.get_provision_config(call)

    def provision(self, function: str, qualifier: str, content: Mapping[str, Any]) -> None:
        """Provisions instances as the body of PutProvisionConfig says.

        Raises:
            FcError: 400, 404, or 409 while a scaling config is in force.
        """
        fields = Fields(content)
        # `target` is the deprecated name.
        key = "defaultTarget" if fields.has("defaultTarget") else "target"
        allocated = fields.flag("alwaysAllocateCPU", default=True) and fields.flag("alwaysAllocateGPU", default=True)
        residence = Residence.ALLOCATED if allocated else Residence.HIBERNATED
        provision = Provision(fields.whole(key, 0, _TARGET_MAX), residence, True, content, scaling=False)
        self._put(function, qualifier, provision, conflict="ResidentScalingConfigExists")

    def get_provision_config(self, call: Call) -> Reply:
        """GetProvisionConfig."""
        return json_reply(self._provision(call.function, call.qualifier, views.provision_view, scaling=False))

    def delete_provision_config(self, call: Call) -> Reply:
        """DeleteProvisionConfig; succeeds also if there is none."""
        return self._delete(call, scaling=False)

    def list_provision_configs(self, call: Call) -> Reply:
        """ListProvisionConfigs, of one function or of all."""
        return self._list(call, "provisionConfigs", views.provision_view, scaling=False)

    def put_scaling_config(self, call: Call) -> Reply:
        """PutScalingConfig."""
        content = call.json()
        fields = Fields(content)
        target = fields.whole("minInstances", 0, _TARGET_MAX, 0)
        on_demand = fields.flag("enableOnDemandScaling", default=True)
        provision = Provision(target, Residence.ALLOCATED, on_demand, content, scaling=True)
        self._put(call.function, call.qualifier, provision, conflict="ProvisionConfigExist")
        return self.get_scaling_config(call)

    def get_scaling_config(self, call: Call) -> Reply:
        """GetScalingConfig."""
        return json_reply(self._provision(call.function, call.qualifier, views.scaling_view, scaling=True))

    def delete_scaling_config(self, call: Call) -> Reply:
        """DeleteScalingConfig; succeeds also if there is none."""
        return self._delete(call, scaling=True)

    def list_scaling_configs(self, call: Call) -> Reply:
        """ListScalingConfigs, of one function or of all."""
        return self._list(call, "scalingConfigs", views.scaling_view, scaling=True)

    def put_concurrency_config(self, call: Call) -> Reply:
        """PutConcurrencyConfig."""
        record = self._registry.get(call.function)
        record.reserved = Fields(call.json()).whole("reservedConcurrency", 0, _TARGET_MAX)
        return self.get_concurrency_config(call)

    def get_concurrency_config(self, call: Call) -> Reply:
        """GetConcurrencyConfig."""
        reserved = self._registry.get(call.function).reserved
        return json_reply(views.concurrency_view(reserved, arn=views.arn(self._account, call.function)))

    def delete_concurrency_config(self, call: Call) -> Reply:
        """DeleteConcurrencyConfig; succeeds also if there is none."""
        self._registry.get(call.function).reserved = None
        return Reply(204)

    def list_concurrency_configs(self, call: Call) -> Reply:
        """ListConcurrencyConfigs, of one function or of all."""
        limits = {name: record.reserved for name, record in self._registry.functions().items()}
        wanted = call.query.get("functionName")
        names = [name for name in sorted(limits) if limits[name] is not None and wanted in (None, name)]
        shown, more = page(call, names)
        configs = [views.concurrency_view(limits[name], arn=views.arn(self._account, name)) for name in shown]
        return json_reply({"configs": configs, **more})

    def list_instances(self, call: Call) -> Reply:
        """ListInstances: the running instances; with a time window also instances that have ended."""
        self._registry.get(call.function)
        found = self._fleet.live(call.function)
        if call.query.get("withAllActive", "").lower() != "true" and "startTimeMs" in call.query:
            found += [each for each in self._fleet.history if each.function == call.function]
        ids, statuses = texts(call, "instanceIds"), texts(call, "instanceStatus")
        shown = (
            view
            for view in map(views.instance_view, found)
            if (not ids or view["instanceId"] in ids)
            and (not statuses or view["status"] in statuses)
            and call.query.get("qualifier", view["qualifier"]) == view["qualifier"]
            and _within(call, view)
        )
        instances = list(islice(shown, whole(call, "limit", 100, 1, 1000)))
        return json_reply({"requestId": call.request_id, "instances": instances})

    def _put(self, function: str, qualifier: str, provision: Provision, *, conflict: str) -> None:
        """Sets the number of provisioned instances; a provision config and a scaling config exclude each other."""
        self._registry.resolve(function, qualifier, 1.0)
        provisions = self._registry.get(function).provisions
        before = provisions.get(qualifier)
        if before is not None and before.target and before.scaling is not provision.scaling:
            raise FcError(
                409, conflict, f"{qualifier} of {function!r} has the other kind of config; set that to 0 first"
            )
        provisions[qualifier] = provision
        self._fleet.sync(function)

    def _delete(self, call: Call, *, scaling: bool) -> Reply:
        provisions = self._registry.get(call.function).provisions
        kept = provisions.get(call.qualifier)
        if kept is not None and kept.scaling is scaling:
            del provisions[call.qualifier]
            self._fleet.sync(call.function)
        return Reply(204)

    def _list(self, call: Call, key: str, view: Callable[..., dict[str, Any]], *, scaling: bool) -> Reply:
        wanted = call.query.get("functionName")
        places = {
            f"{name}/{qualifier}": (name, qualifier)
            for name, record in sorted(self._registry.functions().items())
            for qualifier, provision in sorted(record.provisions.items())
            if wanted in (None, name) and provision.scaling is scaling
        }
        shown, more = page(call, list(places))
        configs = [self._provision(*places[each], view, scaling=scaling) for each in shown]
        # In a list only the resource name says which alias or version is meant.
        named = [
            {**config, "functionArn": views.arn(self._account, each)}
            for each, config in zip(shown, configs, strict=True)
        ]
        return json_reply({key: named, **more})

    def _provision(
        self, function: str, qualifier: str, view: Callable[..., dict[str, Any]], *, scaling: bool
    ) -> dict[str, Any]:
        provision = self._registry.get(function).provisions.get(qualifier)
        ours = provision if provision is not None and provision.scaling is scaling else None
        return view(
            ours,
            arn=views.arn(self._account, function),
            current=self._fleet.provisioned(function, qualifier) if ours else 0,
            problem=self._fleet.problem(function, qualifier) if ours else "",
        )


def _within(call: Call, view: dict[str, Any]) -> bool:
    """Returns whether an instance ran in the requested window of time."""
    forever = 10**15
    start, end = whole(call, "startTimeMs", 0, 0, forever), whole(call, "endTimeMs", forever, 0, forever)
    return bool(view["createdTimeMs"] <= end and view.get("destroyedTimeMs", forever) >= start)
