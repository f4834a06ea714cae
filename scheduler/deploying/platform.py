"""The provider's control plane through its SDK: plain values, retries of temporary errors, no step done twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from scheduler.deploying.errors import DeployError
from scheduler.deploying.observed import Provisioned, Version
from scheduler.domain.batches import FailureKind
from scheduler.fc_client import Account, CallFailed, Invoked, called, load_sdk, make_client, runtime

_READ_TIMEOUT_S = 30.0
_ATTEMPTS = 6
_MAX_PAUSE_S = 16.0
_PAGE = 100
_MAX_PAGES = 100
_TEMPORARY = (
    FailureKind.THROTTLED,
    FailureKind.SERVER,
    FailureKind.UNREACHABLE,
    FailureKind.TIMEOUT,
    FailureKind.BROKEN,
)
# The provider is still busy with an earlier change.
_BUSY_CODES = ("ConcurrentUpdateError",)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, and the clock.

    Attributes:
        limit_s: longest wait for a state of a function or its instances.
        first_pause_s: pause after the first failed attempt of a call; it doubles.
        clock: returns monotonic seconds.
        sleep: waits for so many seconds.
    """

    limit_s: float
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    first_pause_s: float = 0.5


@dataclass(slots=True)
class Platform:
    """One account. Every method raises DeployError if the provider refuses a call, or does not answer repeatedly.

    Attributes:
        account: endpoint and access key.
        patience: how calls with temporary errors are repeated.
    """

    account: Account
    patience: Patience
    _client: Any = field(default=None, init=False)

    def function(self, name: str, qualifier: str = "LATEST") -> Mapping[str, Any] | None:
        """Returns a function's configuration at a qualifier, None if it does not exist."""
        request = self._model("GetFunctionRequest", qualifier=qualifier)
        body = self._read(f"ask for {name}:{qualifier}", "get_function_with_options", name, request)
        return None if body is None else dict(body.to_map())

    def functions(self) -> list[Mapping[str, Any]]:
        """Returns the configurations of all functions of the account."""
        request = self._model("ListFunctionsRequest", limit=_PAGE)
        found = self._pages("list functions", "list_functions_with_options", "functions", request=request)
        return [dict(each.to_map()) for each in found]

    def create_function(self, name: str, configuration: Mapping[str, Any]) -> None:
        """Creates a function. If it already exists with the same description, an earlier attempt lost its answer."""
        content = {"functionName": name, **configuration}
        request = self._request("CreateFunctionRequest", "CreateFunctionInput", content)
        try:
            self._call(f"create function {name}", "create_function_with_options", request)
        except CallFailed as failed:
            found = self.function(name) if failed.code == "FunctionAlreadyExists" else None
            if found is None or found.get("description") != configuration.get("description"):
                raise _told(f"create function {name}", failed) from None

    def update_function(self, name: str, configuration: Mapping[str, Any]) -> None:
        """Changes LATEST of a function."""
        request = self._request("UpdateFunctionRequest", "UpdateFunctionInput", configuration)
        self._done(f"update function {name}", "update_function_with_options", name, request)

    def delete_function(self, name: str) -> bool:
        """Deletes a function; returns False while the provider still has provisioned instances of it."""
        try:
            self._deleted(f"delete function {name}", "delete_function_with_options", name)
        except CallFailed as failed:
            if failed.code in ("ProvisionConfigExist", "ResidentScalingConfigExists"):
                return False
            raise _told(f"delete function {name}", failed) from None
        return True

    def versions(self, name: str) -> tuple[Version, ...]:
        """Returns the published versions of a function, the newest first."""
        request = self._model("ListFunctionVersionsRequest", limit=_PAGE)
        what = f"list versions of {name}"
        found = self._pages(what, "list_function_versions_with_options", "versions", name, request=request)
        return tuple(Version(str(each.version_id), each.description or "") for each in found)

    def publish(self, name: str, description: str) -> str:
        """Publishes LATEST and returns the version; if an answer is lost, it is not published twice."""
        before = {version.version_id for version in self.versions(name)}

        def published() -> str | None:
            new = (each for each in self.versions(name) if each.version_id not in before)
            return next((each.version_id for each in new if each.description == description), None)

        body = {"description": description}
        request = self._request("PublishFunctionVersionRequest", "PublishVersionInput", body)
        what, operation = f"publish a version of {name}", "publish_function_version_with_options"
        try:
            answer = self._call(what, operation, name, request, already=published)
        except CallFailed as failed:
            raise _told(what, failed) from None
        return answer if isinstance(answer, str) else str(answer.body.version_id)

    def delete_version(self, name: str, version_id: str) -> None:
        """Deletes a version."""
        self._gone(f"delete version {name}:{version_id}", "delete_function_version_with_options", name, version_id)

    def aliases(self, name: str) -> list[Mapping[str, Any]]:
        """Returns the aliases of a function, in the provider's fields."""
        request = self._model("ListAliasesRequest", limit=_PAGE)
        found = self._pages(f"list aliases of {name}", "list_aliases_with_options", "aliases", name, request=request)
        return [dict(each.to_map()) for each in found]

    def point_alias(
        self, name: str, alias: str, version_id: str, *, weights: Mapping[str, float], description: str, exists: bool
    ) -> None:
        """Creates or moves an alias: from now on all its calls go to this version, except the shares in `weights`."""
        content = {"versionId": version_id, "additionalVersionWeight": dict(weights), "description": description}
        what = f"point {name}:{alias} to version {version_id}"
        if not exists:
            named = {"aliasName": alias, **content}
            request = self._request("CreateAliasRequest", "CreateAliasInput", named)
            try:
                self._call(what, "create_alias_with_options", name, request)
                return
            except CallFailed as failed:
                # It exists if an earlier answer was lost; then it is updated, which is harmless.
                if failed.code != "AliasAlreadyExists":
                    raise _told(what, failed) from None
        request = self._request("UpdateAliasRequest", "UpdateAliasInput", content)
        self._done(what, "update_alias_with_options", name, alias, request)

    def delete_alias(self, name: str, alias: str) -> None:
        """Deletes an alias."""
        self._gone(f"delete alias {name}:{alias}", "delete_alias_with_options", name, alias)

    def reserved(self, name: str) -> int | None:
        """Returns a function's reserved concurrency, None without one."""
        body = self._read(f"ask for the limit of {name}", "get_concurrency_config_with_options", name)
        return None if body is None else body.reserved_concurrency

    def reserve(self, name: str, instances: int) -> None:
        """Sets a function's reserved concurrency."""
        body = {"reservedConcurrency": instances}
        request = self._request("PutConcurrencyConfigRequest", "PutConcurrencyInput", body)
        self._done(f"limit {name} to {instances} instances", "put_concurrency_config_with_options", name, request)

    def unreserve(self, name: str) -> None:
        """Removes a function's reserved concurrency."""
        self._gone(f"lift the limit of {name}", "delete_concurrency_config_with_options", name)

    def provisioned(self, name: str) -> dict[str, Provisioned]:
        """Returns a function's provisioned instances by qualifier."""
        request = self._model("ListProvisionConfigsRequest", function_name=name, limit=_PAGE)
        what = f"list provisioned instances of {name}"
        found = self._pages(what, "list_provision_configs_with_options", "provision_configs", request=request)
        return {str(each.function_arn).rpartition("/")[2]: _provisioned(each) for each in found}

    def provisioned_for(self, name: str, qualifier: str) -> Provisioned:
        """Returns the provisioned instances of one qualifier."""
        request = self._model("GetProvisionConfigRequest", qualifier=qualifier)
        what = f"ask for provisioned instances of {name}:{qualifier}"
        body = self._read(what, "get_provision_config_with_options", name, request)
        return Provisioned() if body is None else _provisioned(body)

    def provision(self, name: str, qualifier: str, instances: int) -> None:
        """Provisions instances for a qualifier; they hibernate while idle, which costs least."""
        body = {"defaultTarget": instances, "alwaysAllocateCPU": False, "alwaysAllocateGPU": False}
        request = self._request("PutProvisionConfigRequest", "PutProvisionConfigInput", body, qualifier=qualifier)
        what = f"provision {instances} instances of {name}:{qualifier}"
        self._done(what, "put_provision_config_with_options", name, request)

    def unprovision(self, name: str, qualifier: str) -> None:
        """Ends the provisioning of instances for a qualifier."""
        request = self._model("DeleteProvisionConfigRequest", qualifier=qualifier)
        what = f"end provisioning for {name}:{qualifier}"
        self._gone(what, "delete_provision_config_with_options", name, request)

    def triggers(self, name: str) -> tuple[str, ...]:
        """Returns the names of a function's triggers."""
        request = self._model("ListTriggersRequest", limit=_PAGE)
        found = self._pages(f"list triggers of {name}", "list_triggers_with_options", "triggers", name, request=request)
        return tuple(str(each.trigger_name) for each in found)

    def invoke(self, name: str, qualifier: str, frame: bytes, *, limit_s: float) -> Invoked:
        """Invokes a function; repeats the invocation after a temporary error."""
        request = self._model("InvokeFunctionRequest", body=frame, qualifier=qualifier)
        headers = self._model("InvokeFunctionHeaders", x_fc_invocation_type="Sync")
        what, operation = f"invoke {name}:{qualifier}", "invoke_function_with_options"
        try:
            response = self._call(what, operation, name, request, headers=headers, read_timeout_s=limit_s, attempts=3)
        except CallFailed as failed:
            raise _told(what, failed) from None
        return Invoked(response.body.read(), response.headers.get("x-fc-error-type") or "")

    def _model(self, model: str, **fields: Any) -> Any:
        return getattr(load_sdk().models, model)(**{key: value for key, value in fields.items() if value != ""})

    def _request(self, request: str, body: str, content: Mapping[str, Any], **beside: Any) -> Any:
        # from_map takes the provider's own names; lists that are not set are sent empty.
        filled = getattr(load_sdk().models, body)().from_map(dict(content))
        return getattr(load_sdk().models, request)(body=filled, **beside)

    def _read(self, what: str, operation: str, *arguments: Any) -> Any:
        """Returns the body of an answer, None if the requested object does not exist."""
        try:
            return self._call(what, operation, *arguments).body
        except CallFailed as failed:
            if failed.status == 404:
                return None
            raise _told(what, failed) from None

    def _done(self, what: str, operation: str, *arguments: Any) -> None:
        try:
            self._call(what, operation, *arguments)
        except CallFailed as failed:
            raise _told(what, failed) from None

    def _gone(self, what: str, operation: str, *arguments: Any) -> None:
        try:
            self._deleted(what, operation, *arguments)
        except CallFailed as failed:
            raise _told(what, failed) from None

    def _deleted(self, what: str, operation: str, *arguments: Any) -> None:
        try:
            self._call(what, operation, *arguments)
        except CallFailed as failed:
            # An earlier attempt, whose answer was lost, has deleted it.
            if failed.status != 404:
                raise

    def _pages(self, what: str, operation: str, key: str, *arguments: Any, request: Any) -> Iterator[Any]:
        for _ in range(_MAX_PAGES):
            body = self._read(what, operation, *arguments, request)
            if body is None:
                return
            yield from getattr(body, key) or ()
            if not body.next_token:
                return
            request.next_token = body.next_token
        raise DeployError(f"cannot {what}: there are more than {_MAX_PAGES * _PAGE}; delete some first")

    def _call(
        self,
        what: str,
        operation: str,
        *arguments: Any,
        headers: Any = None,
        read_timeout_s: float = _READ_TIMEOUT_S,
        attempts: int = _ATTEMPTS,
        already: Callable[[], Any] | None = None,
    ) -> Any:
        """Repeats a call until it is answered, with growing pauses; `already` returns the result of a lost attempt."""
        client = self._client = self._client or make_client(self.account, connections=1)
        call = partial(called, getattr(client, operation))
        for attempt in range(_ATTEMPTS):
            try:
                return call(*arguments, {} if headers is None else headers, runtime(read_timeout_s))
            except CallFailed as failed:
                temporary = failed.failure.kind in _TEMPORARY or failed.code in _BUSY_CODES
                # Refusals for lack of capacity are free and immediate, so all attempts are made.
                max_attempts = _ATTEMPTS if failed.failure.kind is FailureKind.THROTTLED else attempts
                if not temporary or attempt >= max_attempts - 1:
                    raise
                self.patience.sleep(self._pause_s(failed, attempt))
            if already is not None and (done := already()) is not None:
                return done
        raise DeployError(f"cannot {what}")

    def _pause_s(self, failed: CallFailed, attempt: int) -> float:
        pause_s = max(self.patience.first_pause_s * 2.0**attempt, failed.failure.retry_after_s or 0.0)
        return min(pause_s, _MAX_PAUSE_S)


def _provisioned(config: Any) -> Provisioned:
    target = config.default_target if config.default_target is not None else config.target
    return Provisioned(int(target or 0), int(config.current or 0), str(config.current_error or ""))


def _told(what: str, failed: CallFailed) -> DeployError:
    """Returns the error with the provider's own message, which names the field, and never with the signed request."""
    said = f" ({failed.said.rstrip('.')})" if failed.said else ""
    advice = ""
    if failed.status in (401, 403):
        # The provider's message about a wrong signature repeats parts of the request.
        said, advice = "", "; check the access key that [function] refers to, and its permissions for Function Compute"
    elif failed.status == 0:
        advice = "; check `endpoint`, `region` and `protocol` in [function]"
    reason = f"{failed.status} {failed.code}" if failed.status else failed.failure.message
    return DeployError(f"cannot {what}: {reason}{said}{advice}")
