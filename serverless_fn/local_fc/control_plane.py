"""Operations that change or show functions, their versions, aliases and triggers."""

from __future__ import annotations

from dataclasses import replace

from serverless_fn.local_fc import views
from serverless_fn.local_fc.config import Account
from serverless_fn.local_fc.errors import FcError, exists, invalid_argument, not_found
from serverless_fn.local_fc.fields import Fields
from serverless_fn.local_fc.fleet import Fleet
from serverless_fn.local_fc.messages import Call, Reply, json_reply
from serverless_fn.local_fc.paging import page
from serverless_fn.local_fc.registry import Alias, Registry


class ControlPlane:
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
        """UpdateFunction: new instances get the new configuration, old instances finish their requests and end."""
        record = self._registry.update(call.function, call.json(), call.now)
        self._fleet.sync(call.function)
        return json_reply(views.function_view(record, record.latest, self._account, call.now))

    def delete_function(self, call: Call) -> Reply:
        """DeleteFunction, with its on-demand instances; provisioned instances must have ended before."""
        if self._fleet.keeps(call.function):
            raise FcError(409, "ProvisionConfigExist", f"function {call.function!r} has provisioned instances")
        self._registry.delete(call.function)
        self._fleet.sync(call.function)
        return Reply(204)

    def list_functions(self, call: Call) -> Reply:
        """ListFunctions, in the order of names."""
        records = self._registry.functions()
        names, more = page(call, sorted(records))
        shown = [views.function_view(records[name], records[name].latest, self._account, call.now) for name in names]
        return json_reply({"functions": shown, **more})

    def get_function_code(self, call: Call) -> Reply:
        """GetFunctionCode: a container has no code; the checksum stands for its image."""
        image = self._registry.resolve(call.function, call.qualifier, 1.0).version.spec.image
        url = f"http://{call.headers.get('host', 'localhost')}/code/{call.function}"
        return json_reply({"url": url, "checksum": views.checksum(image)})

    def publish_function_version(self, call: Call) -> Reply:
        """PublishFunctionVersion."""
        version = self._registry.publish(call.function, Fields(call.json()).text("description", ""), call.now)
        return json_reply(views.version_view(version))

    def list_function_versions(self, call: Call) -> Reply:
        """ListFunctionVersions, the newest first unless `direction` is FORWARD."""
        versions = self._registry.get(call.function).versions
        direction = call.query.get("direction", "BACKWARD")
        if direction not in ("BACKWARD", "FORWARD"):
            raise invalid_argument(f"direction is {direction!r}; it must be 'BACKWARD' or 'FORWARD'")
        ids, more = page(call, sorted(versions, key=int, reverse=direction == "BACKWARD"))
        shown = [views.version_view(versions[version_id]) for version_id in ids]
        return json_reply({"versions": shown, "direction": direction, **more})

    def delete_function_version(self, call: Call) -> Reply:
        """DeleteFunctionVersion; no alias may point to the version."""
        self._registry.delete_version(call.function, call.item)
        self._fleet.sync(call.function)
        return Reply(204)

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

    def get_alias(self, call: Call) -> Reply:
        """GetAlias."""
        return json_reply(views.alias_view(self._registry.alias(call.function, call.item)))

    def list_aliases(self, call: Call) -> Reply:
        """ListAliases, in the order of names."""
        aliases = self._registry.get(call.function).aliases
        names, more = page(call, sorted(aliases))
        return json_reply({"aliases": [views.alias_view(aliases[name]) for name in names], **more})

    def delete_alias(self, call: Call) -> Reply:
        """DeleteAlias; no instances may be provisioned for the alias."""
        self._registry.delete_alias(call.function, call.item)
        self._fleet.sync(call.function)
        return Reply(204)

    def create_trigger(self, call: Call) -> Reply:
        """CreateTrigger: the trigger is stored and shown, but not served."""
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

    def list_triggers(self, call: Call) -> Reply:
        """ListTriggers, in the order of names."""
        triggers = self._registry.get(call.function).triggers
        names, more = page(call, sorted(triggers))
        return json_reply({"triggers": [triggers[name] for name in names], **more})

    def delete_trigger(self, call: Call) -> Reply:
        """DeleteTrigger."""
        self.get_trigger(call)
        del self._registry.get(call.function).triggers[call.item]
        return Reply(204)

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
