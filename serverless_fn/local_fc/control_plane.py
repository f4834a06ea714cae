"""The operations that change or show functions and what hangs on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from serverless_fn.local_fc import views
from serverless_fn.local_fc.config import Account
from serverless_fn.local_fc.errors import FcError, exists, invalid_argument, not_found
from serverless_fn.local_fc.fields import Fields
from serverless_fn.local_fc.fleet import Fleet
from serverless_fn.local_fc.messages import Call, Reply, json_reply
from serverless_fn.local_fc.meter import Residence
from serverless_fn.local_fc.registry import Alias, Provision, Registry

_TARGET_MAX = 10_000


class ControlPlane:
    """Each method is one operation of the provider's API.

    Parameters:
        registry: what is changed and shown.
        fleet: follows what is changed.
        account: whose functions they are.
    """

    def __init__(self, registry: Registry, fleet: Fleet, account: Account) -> None:
        self._registry = registry
        self._fleet = fleet
        self._account = account

    def create_function(self, call: Call) -> Reply:
        """CreateFunction."""
        record = self._registry.create(call.json(), call.now)
        return json_reply(views.function_view(record, record.latest, self._account, call.now))

    def get_function(self, call: Call) -> Reply:
        """GetFunction."""
        version = self._registry.resolve(call.function, call.qualifier, 1.0).version
        record = self._registry.get(call.function)
        return json_reply(views.function_view(record, version, self._account, call.now))

    def update_function(self, call: Call) -> Reply:
        """UpdateFunction: new instances take the new configuration, old ones drain."""
        record = self._registry.update(call.function, call.json(), call.now)
        self._fleet.sync(call.function)
        return json_reply(views.function_view(record, record.latest, self._account, call.now))

    def delete_function(self, call: Call) -> Reply:
        """DeleteFunction, with its instances."""
        self._registry.delete(call.function)
        self._fleet.sync(call.function)
        return Reply(204)

    def list_functions(self, call: Call) -> Reply:
        """ListFunctions, by pages in the order of names."""
        prefix, after = call.query.get("prefix", ""), call.query.get("nextToken", "")
        limit = _whole(call, "limit", 100, 1, 100)
        records = self._registry.functions()
        names = [name for name in sorted(records) if name.startswith(prefix) and name > after]
        page = names[:limit]
        shown = [views.function_view(records[name], records[name].latest, self._account, call.now) for name in page]
        more = {"nextToken": page[-1]} if len(names) > limit else {}
        return json_reply({"functions": shown, **more})

    def get_function_code(self, call: Call) -> Reply:
        """GetFunctionCode: a container has none; the checksum stands for its image."""
        image = self._registry.resolve(call.function, call.qualifier, 1.0).version.spec.image
        url = f"http://{call.headers.get('host', 'localhost')}/code/{call.function}"
        return json_reply({"url": url, "checksum": views.checksum(image)})

    def publish_function_version(self, call: Call) -> Reply:
        """PublishFunctionVersion."""
        version = self._registry.publish(call.function, Fields(call.json()).text("description", ""), call.now)
        return json_reply(views.version_view(version))

    def create_alias(self, call: Call) -> Reply:
        """CreateAlias."""
        name = Fields(call.json()).text("aliasName")
        if name.isdecimal() or name == "LATEST":
            raise invalid_argument(f"aliasName {name!r} would be taken for a version")
        alias = self._read_alias(call, Alias(name, "", {}, "", call.now, call.now))
        return json_reply(views.alias_view(self._registry.put_alias(call.function, alias, create=True)))

    def update_alias(self, call: Call) -> Reply:
        """UpdateAlias."""
        alias = self._read_alias(call, self._registry.alias(call.function, call.item))
        self._registry.put_alias(call.function, alias, create=False)
        self._fleet.sync(call.function)
        return json_reply(views.alias_view(alias))

    def put_provision_config(self, call: Call) -> Reply:
        """PutProvisionConfig."""
        self.provision(call.function, call.qualifier, call.json())
        return self.get_provision_config(call)

    def provision(self, function: str, qualifier: str, content: Mapping[str, Any]) -> None:
        """Keep so many instances, as the body of PutProvisionConfig says.

        Raises:
            FcError: 400, 404, or 409 where a scaling config is in force.
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
        return json_reply(self._provision(call, views.provision_view, scaling=False))

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
        return json_reply(self._provision(call, views.scaling_view, scaling=True))

    def put_concurrency_config(self, call: Call) -> Reply:
        """PutConcurrencyConfig."""
        record = self._registry.get(call.function)
        record.reserved = Fields(call.json()).whole("reservedConcurrency", 0, _TARGET_MAX)
        return self.get_concurrency_config(call)

    def get_concurrency_config(self, call: Call) -> Reply:
        """GetConcurrencyConfig."""
        reserved = self._registry.get(call.function).reserved
        limit = {} if reserved is None else {"reservedConcurrency": reserved}
        return json_reply({"functionArn": views.arn(self._account, call.function), **limit})

    def list_instances(self, call: Call) -> Reply:
        """ListInstances: the live ones, and with a time window those that are gone."""
        self._registry.get(call.function)
        found = self._fleet.live(call.function)
        if call.query.get("withAllActive", "").lower() != "true" and "startTimeMs" in call.query:
            found += [each for each in self._fleet.history if each.function == call.function]
        ids, statuses = _texts(call, "instanceIds"), _texts(call, "instanceStatus")
        shown = (
            view
            for view in map(views.instance_view, found)
            if (not ids or view["instanceId"] in ids)
            and (not statuses or view["status"] in statuses)
            and call.query.get("qualifier", view["qualifier"]) == view["qualifier"]
            and _within(call, view)
        )
        page = list(islice(shown, _whole(call, "limit", 100, 1, 1000)))
        return json_reply({"requestId": call.request_id, "instances": page})

    def create_trigger(self, call: Call) -> Reply:
        """CreateTrigger: kept and shown; no listener serves it."""
        record, fields = self._registry.get(call.function), Fields(call.json())
        name, kind, config = fields.text("triggerName"), fields.text("triggerType"), fields.text("triggerConfig")
        if kind != "http":
            raise invalid_argument(f"triggerType is {kind!r}; it must be 'http'")
        if name in record.triggers:
            raise exists("Trigger", name)
        host = f"{call.function}-{record.function_id}.{self._account.region}"
        record.triggers[name] = {
            "triggerId": f"tr-{record.function_id}-{len(record.triggers) + 1}",
            "triggerName": name,
            "triggerType": kind,
            "triggerConfig": config,
            "qualifier": fields.text("qualifier", "LATEST"),
            "httpTrigger": {"urlInternet": f"http://{host}.invalid", "urlIntranet": f"http://{host}-vpc.invalid"},
            "createdTime": views.time_text(call.now),
            "lastModifiedTime": views.time_text(call.now),
        }
        return json_reply(record.triggers[name])

    def get_trigger(self, call: Call) -> Reply:
        """GetTrigger."""
        trigger = self._registry.get(call.function).triggers.get(call.item)
        if trigger is None:
            raise not_found("Trigger", call.item, call.function)
        return json_reply(trigger)

    def _read_alias(self, call: Call, before: Alias) -> Alias:
        content = call.json()
        fields, weights = Fields(content), before.weights
        if fields.has("additionalVersionWeight"):
            shares = fields.inside("additionalVersionWeight")
            weights = {version_id: shares.number(version_id, 0, 1) for version_id in shares.content}
        return replace(
            before,
            version_id=fields.text("versionId", before.version_id or None),
            weights=weights,
            description=fields.text("description", before.description),
            modified=call.now,
        )

    def _put(self, function: str, qualifier: str, provision: Provision, *, conflict: str) -> None:
        """Set how many instances are kept; the two ways of doing so exclude each other."""
        self._registry.resolve(function, qualifier, 1.0)
        provisions = self._registry.get(function).provisions
        before = provisions.get(qualifier)
        if before is not None and before.target and before.scaling is not provision.scaling:
            raise FcError(
                409, conflict, f"{qualifier} of {function!r} has the other kind of config; set that to 0 first"
            )
        provisions[qualifier] = provision
        self._fleet.sync(function)

    def _provision(self, call: Call, view: Callable[..., dict[str, Any]], *, scaling: bool) -> dict[str, Any]:
        provision = self._registry.get(call.function).provisions.get(call.qualifier)
        ours = provision if provision is not None and provision.scaling is scaling else None
        return view(
            ours,
            arn=views.arn(self._account, call.function),
            current=self._fleet.provisioned(call.function, call.qualifier) if ours else 0,
            problem=self._fleet.problem(call.function, call.qualifier) if ours else "",
        )


def _whole(call: Call, key: str, default: int, low: int, high: int) -> int:
    text = call.query.get(key)
    if text is None:
        return default
    if not text.isdecimal() or not low <= int(text) <= high:
        raise invalid_argument(f"{key} must be a whole number from {low} to {high}; it is {text!r}")
    return int(text)


def _texts(call: Call, key: str) -> list[str]:
    """A list in the query, which the SDK writes as JSON."""
    try:
        content = json.loads(call.query.get(key, "[]"))
    except ValueError as error:
        raise invalid_argument(f"{key} must be a JSON list: {error}") from error
    if not isinstance(content, list):
        raise invalid_argument(f"{key} must be a JSON list")
    return [str(each) for each in content]


def _within(call: Call, view: dict[str, Any]) -> bool:
    """Whether an instance lived in the window of time that is asked for."""
    forever = 10**15
    start, end = _whole(call, "startTimeMs", 0, 0, forever), _whole(call, "endTimeMs", forever, 0, forever)
    return bool(view["createdTimeMs"] <= end and view.get("destroyedTimeMs", forever) >= start)
