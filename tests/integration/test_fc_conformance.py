"""The provider's unmodified SDK against the local endpoint: every operation, every error, every trap of its own."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from alibabacloud_fc20230330 import models as m
from alibabacloud_tea_openapi.exceptions import (
    AlibabaCloudException,
    ClientException,
    ServerException,
    ThrottlingException,
)
from darabonba.exceptions import UnretryableException
from darabonba.runtime import RuntimeOptions
from support.local_fc_process import BASE_CONFIG, LocalFc, eventually, running

SLOW_UPDATES = BASE_CONFIG + "[account]\nupdate_s = 0.5\n"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def fc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFc]:
    with running(tmp_path_factory.mktemp("fc"), BASE_CONFIG, "--seed", "7") as endpoint:
        endpoint.create("echo", timeout=30, instanceConcurrency=20)
        yield endpoint


@pytest.fixture
def faults(fc: LocalFc) -> Iterator[Any]:
    """Sets a fault on the function `echo`; all are gone after the test."""
    yield lambda **fault: fc.admin("POST", "faults", {"function": "echo", **fault})
    fc.admin("DELETE", "faults")


def refusal(call: Any, *arguments: Any, **given: Any) -> tuple[int, str]:
    """Return status and code of what the SDK raises; check that the rest of the error is there too."""
    with pytest.raises(AlibabaCloudException) as caught:
        call(*arguments, **given)
    error = caught.value
    assert isinstance(error, ClientException if error.status_code < 500 else ServerException)
    assert error.request_id.startswith("1-")
    assert error.data["RequestId"] == error.request_id
    assert error.message
    return error.status_code, error.code


def cause(call: Any, *arguments: Any) -> BaseException:
    """Return what really happened below the SDK's catch-all exception."""
    with pytest.raises(UnretryableException) as caught:
        call(*arguments)
    inner = caught.value.inner_exception
    return inner.__context__ or inner


def test_functions_are_created_shown_listed_changed_and_deleted(fc: LocalFc) -> None:
    client = fc.client()
    environment = {"WHO": "Müller & Söhne"}
    created = fc.create("alpha", environmentVariables=environment, description="first", tags=[])
    assert (created.function_name, created.state, created.last_update_status) == ("alpha", "Active", "Successful")
    assert created.function_arn == "acs:fc:cn-hangzhou:1234567890123456:functions/alpha"
    assert created.environment_variables == environment
    for name in ("alpha-2", "alpha-3"):
        fc.create(name)
    update = m.UpdateFunctionInput(timeout=42, description="changed")
    client.update_function("alpha", m.UpdateFunctionRequest(body=update))
    shown = client.get_function("alpha", m.GetFunctionRequest()).body
    assert (shown.timeout, shown.description, shown.memory_size, shown.cpu) == (42, "changed", 1024, 1)
    assert shown.custom_container_config.image == "echo"
    first = client.list_functions(m.ListFunctionsRequest(prefix="alpha", limit=2)).body
    second = client.list_functions(m.ListFunctionsRequest(prefix="alpha", limit=2, next_token=first.next_token)).body
    assert [each.function_name for each in first.functions + second.functions] == ["alpha", "alpha-2", "alpha-3"]
    assert second.next_token is None
    code = client.get_function_code("alpha", m.GetFunctionCodeRequest()).body
    assert code.url
    assert code.checksum == shown.code_checksum
    for name in ("alpha", "alpha-2", "alpha-3"):
        assert client.delete_function(name).status_code == 204
    assert client.list_functions(m.ListFunctionsRequest(prefix="alpha")).body.functions == []


def test_versions_and_aliases(fc: LocalFc) -> None:
    client = fc.client()
    fc.create("versions")
    ids = [
        client.publish_function_version(
            "versions", m.PublishFunctionVersionRequest(body=m.PublishVersionInput(description=word))
        ).body.version_id
        for word in ("one", "two")
    ]
    assert ids == ["1", "2"]
    alias = m.CreateAliasInput(alias_name="prod", version_id="1", additional_version_weight={"2": 0.1})
    created = client.create_alias("versions", m.CreateAliasRequest(body=alias)).body
    assert (created.alias_name, created.version_id, created.additional_version_weight) == ("prod", "1", {"2": 0.1})
    update = m.UpdateAliasInput(version_id="2", additional_version_weight={})
    updated = client.update_alias("versions", "prod", m.UpdateAliasRequest(body=update)).body
    assert (updated.version_id, updated.additional_version_weight) == ("2", {})
    assert fc.invoke("versions", qualifier="prod").body.read() == b"hello"


def test_provision_scaling_and_concurrency_configs(fc: LocalFc) -> None:
    client = fc.client()
    fc.create("kept")
    body = m.PutProvisionConfigInput(default_target=1, always_allocate_cpu=False)
    put = client.put_provision_config("kept", m.PutProvisionConfigRequest(body=body, qualifier="LATEST")).body
    assert (put.target, put.default_target, put.always_allocate_cpu) == (1, 1, False)
    assert put.function_arn.endswith(":functions/kept")

    def current() -> m.ProvisionConfig:
        return client.get_provision_config("kept", m.GetProvisionConfigRequest(qualifier="LATEST")).body

    eventually(lambda: current().current == 1)
    assert current().current_error == ""
    scaling = m.PutScalingConfigRequest(body=m.PutScalingConfigInput(min_instances=2), qualifier="LATEST")
    assert refusal(client.put_scaling_config, "kept", scaling) == (409, "ProvisionConfigExist")
    gone = m.PutProvisionConfigInput(default_target=0)
    client.put_provision_config("kept", m.PutProvisionConfigRequest(body=gone))
    # What a Put leaves out is gone: the SDK sends empty lists, so it replaces everything.
    assert (current().target, current().always_allocate_cpu) == (0, True)
    assert client.put_scaling_config("kept", scaling).body.min_instances == 2
    request = m.GetScalingConfigRequest(qualifier="LATEST")
    eventually(lambda: client.get_scaling_config("kept", request).body.current_instances == 2)
    again = m.PutProvisionConfigRequest(body=body, qualifier="LATEST")
    assert refusal(client.put_provision_config, "kept", again) == (409, "ResidentScalingConfigExists")
    reserved = m.PutConcurrencyConfigRequest(body=m.PutConcurrencyInput(reserved_concurrency=4))
    assert client.put_concurrency_config("kept", reserved).body.reserved_concurrency == 4
    assert client.get_concurrency_config("kept").body.reserved_concurrency == 4


def test_a_provision_that_cannot_start_says_why(fc: LocalFc) -> None:
    client = fc.client()
    fc.create("broken", environmentVariables={"EXIT_AT_START": "1"})
    body = m.PutProvisionConfigInput(target=1)
    client.put_provision_config("broken", m.PutProvisionConfigRequest(body=body))
    request = m.GetProvisionConfigRequest()
    error = eventually(lambda: client.get_provision_config("broken", request).body.current_error)
    assert "no such model" in error
    client.delete_provision_config("broken", m.DeleteProvisionConfigRequest())


def test_instances_are_listed_by_id_status_and_time(fc: LocalFc) -> None:
    client = fc.client()
    fc.create("listed")
    instance_id = fc.invoke("listed").headers["x-fc-instance-id"]

    def listed(**query: Any) -> list[m.InstanceInfo]:
        body = client.list_instances("listed", m.ListInstancesRequest(**query)).body
        assert body.request_id
        return list(body.instances)

    (only,) = listed()
    assert (only.instance_id, only.version_id, only.qualifier) == (instance_id, "0", "LATEST")
    assert only.created_time_ms > 10**12
    assert [each.instance_id for each in listed(instance_ids=[instance_id, "c-x"], limit=10)] == [instance_id]
    assert listed(instance_ids=["c-x", "c-y"]) == []
    assert listed(qualifier="prod") == []
    fc.invoke("listed", {"do": "crash"})
    eventually(lambda: fc.instances("listed", "Destroyed"))
    assert listed(with_all_active=True) == []
    gone = listed(start_time_ms=1, end_time_ms=9 * 10**12, instance_status=["Destroyed"])
    assert [each.instance_id for each in gone] == [instance_id]
    assert gone[0].destroyed_time_ms >= gone[0].created_time_ms


def test_triggers_are_kept(fc: LocalFc) -> None:
    client = fc.client()
    fc.create("triggered")
    config = json.dumps({"authType": "function", "methods": ["POST"]})
    trigger = m.CreateTriggerInput(trigger_name="web", trigger_type="http", trigger_config=config)
    created = client.create_trigger("triggered", m.CreateTriggerRequest(body=trigger)).body
    shown = client.get_trigger("triggered", "web").body
    assert shown.trigger_id == created.trigger_id
    assert shown.trigger_config == config
    assert shown.http_trigger.url_internet
    assert shown.http_trigger.url_intranet
    again = m.CreateTriggerRequest(body=trigger)
    assert refusal(client.create_trigger, "triggered", again) == (409, "TriggerAlreadyExists")


def test_an_invocation_returns_the_body_a_request_id_and_an_instance_id(fc: LocalFc) -> None:
    answer = fc.invoke("echo", bytes(range(256)) * 1000)
    assert answer.status_code == 200
    assert answer.body.read() == bytes(range(256)) * 1000
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-fc-request-id"].startswith("1-")
    assert answer.headers["x-fc-instance-id"].startswith("c-")
    assert "x-fc-error-type" not in answer.headers


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ({"do": "fail"}, "it failed"),
        ({"do": "fail_with_200"}, "it failed"),
        ({"do": "crash"}, "Process exited unexpectedly before completing request (duration: "),
        ({"s": 3}, "timed out after 1 seconds"),
    ],
)
def test_a_function_that_fails_is_status_200_with_an_error_type(fc: LocalFc, order: dict[str, Any], said: str) -> None:
    name = "failing-" + str(order.get("do", "slow")).replace("_", "-")
    fc.create(name, timeout=1)
    answer = fc.invoke(name, order)
    assert answer.status_code == 200
    assert answer.headers["x-fc-error-type"] == "UnhandledInvocationError"
    assert said in answer.body.read().decode()
    if order.get("do") == "crash" or "s" in order:
        eventually(lambda: fc.instances(name, "Destroyed"))
    # It is billed, and the next call is served.
    assert fc.usage(name)["invocations"] == 1
    assert fc.invoke(name).body.read() == b"hello"


def test_invalid_arguments(fc: LocalFc) -> None:
    assert refusal(fc.create, "1st") == (400, "InvalidArgument")
    assert refusal(fc.create, "odd", memorySize=1000, cpu=0.5) == (400, "InvalidArgument")
    update = m.UpdateFunctionRequest(body=m.UpdateFunctionInput(timeout=0))
    assert refusal(fc.client().update_function, "echo", update) == (400, "InvalidArgument")


def test_what_does_not_exist(fc: LocalFc) -> None:
    client = fc.client()
    assert refusal(fc.invoke, "nobody") == (404, "FunctionNotFound")
    assert refusal(fc.invoke, "na/me o%f") == (404, "FunctionNotFound")
    assert refusal(fc.invoke, "echo", qualifier="a b*~ü&=") == (404, "AliasNotFound")
    assert refusal(fc.invoke, "echo", qualifier="99") == (404, "VersionNotFound")
    assert refusal(client.get_trigger, "echo", "none") == (404, "TriggerNotFound")
    for name, call in (("Function", client.delete_function), ("Function", client.get_concurrency_config)):
        assert refusal(call, "nobody") == (404, f"{name}NotFound")
    alias = m.UpdateAliasRequest(body=m.UpdateAliasInput(version_id="1"))
    assert refusal(client.update_alias, "echo", "none", alias) == (404, "AliasNotFound")
    new = m.CreateAliasRequest(body=m.CreateAliasInput(alias_name="new", version_id="9"))
    assert refusal(client.create_alias, "echo", new) == (404, "VersionNotFound")


def test_what_exists_already(fc: LocalFc) -> None:
    client = fc.client()
    fc.create("twice")
    assert refusal(fc.create, "twice") == (409, "FunctionAlreadyExists")
    client.publish_function_version("twice", m.PublishFunctionVersionRequest(body=m.PublishVersionInput()))
    alias = m.CreateAliasRequest(body=m.CreateAliasInput(alias_name="prod", version_id="1"))
    client.create_alias("twice", alias)
    assert refusal(client.create_alias, "twice", alias) == (409, "AliasAlreadyExists")


def test_an_operation_that_is_not_there(fc: LocalFc) -> None:
    assert refusal(fc.client().list_layers, m.ListLayersRequest()) == (400, "PathNotSupported")


def test_bodies_over_the_limit(fc: LocalFc) -> None:
    assert refusal(fc.invoke, "echo", bytes(32 * 2**20 + 1)) == (400, "EntityTooLarge")
    assert refusal(fc.invoke, "echo", bytes(128 * 2**10 + 1), kind="Async") == (400, "EntityTooLarge")
    assert fc.invoke("echo", bytes(128 * 2**10), kind="Async").status_code == 202


def test_a_wrong_secret_and_an_unknown_key(fc: LocalFc) -> None:
    request = m.InvokeFunctionRequest(body=b"x")
    wrong = fc.client(secret="wrong")
    assert refusal(wrong.invoke_function, "echo", request) == (403, "SignatureNotMatch")
    assert refusal(wrong.get_function, "echo", m.GetFunctionRequest()) == (403, "SignatureNotMatch")
    unknown = fc.client(key="stranger")
    assert refusal(unknown.invoke_function, "echo", request) == (403, "InvalidAccessKeyID")


def signed_by_the_sdk(fc: LocalFc, monkeypatch: pytest.MonkeyPatch) -> requests.PreparedRequest:
    """Return what the SDK sends for an invocation."""
    sent: list[requests.PreparedRequest] = []
    send = requests.Session.send

    def record(self: requests.Session, request: requests.PreparedRequest, **given: Any) -> requests.Response:
        sent.append(request)
        return send(self, request, **given)

    monkeypatch.setattr(requests.Session, "send", record)
    fc.invoke("echo", b"genuine")
    monkeypatch.undo()
    return sent[0]


def test_a_tampered_body_a_missing_header_and_a_missing_signature(fc: LocalFc, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = signed_by_the_sdk(fc, monkeypatch)

    def answer(body: bytes = b"genuine", without: str = "", **changes: str) -> tuple[int, str]:
        headers = {
            name: value for name, value in genuine.headers.items() if name.lower() not in (without, "content-length")
        }
        got = fc.http.post(str(genuine.url), data=body, headers={**headers, **changes}, timeout=10)
        assert got.headers["X-Fc-Request-Id"].startswith("1-")
        return got.status_code, "" if got.status_code == 200 else got.json()["Code"]

    assert answer() == (200, "")
    assert answer(b"tampered") == (403, "SignatureNotMatch")
    assert answer(**{"x-acs-action": "DeleteFunction"}) == (403, "SignatureNotMatch")
    assert answer(without="authorization") == (400, "MissingRequiredHeader")
    assert answer(without="x-acs-date") == (400, "MissingRequiredHeader")


def test_a_container_that_breaks_the_connection_or_talks_too_much_is_a_bad_response(fc: LocalFc) -> None:
    assert refusal(fc.invoke, "echo", {"do": "hang_up"}) == (502, "BadResponse")
    assert refusal(fc.invoke, "echo", {"do": "long_headers"}) == (502, "BadResponse")


def test_a_container_that_does_not_start(fc: LocalFc) -> None:
    fc.create("exits", environmentVariables={"EXIT_AT_START": "1"})
    assert refusal(fc.invoke, "exits") == (502, "FunctionNotStarted")
    fc.create("absent", container={"entrypoint": ["/no/such/program"]})
    assert refusal(fc.invoke, "absent") == (502, "FunctionNotStarted")


def test_an_unknown_image_makes_a_failed_function(fc: LocalFc) -> None:
    created = fc.create("imageless", image="registry/nothing:1")
    assert created.state == "Failed"
    assert "registry/nothing:1" in created.state_reason
    assert refusal(fc.invoke, "imageless") == (502, "FunctionNotStarted")
    container = m.CustomContainerConfig(image="echo")
    update = m.UpdateFunctionRequest(body=m.UpdateFunctionInput(custom_container_config=container))
    assert fc.client().update_function("imageless", update).body.state == "Active"
    assert fc.invoke("imageless").body.read() == b"hello"
    container = m.CustomContainerConfig(image="registry/nothing:2")
    update = m.UpdateFunctionRequest(body=m.UpdateFunctionInput(custom_container_config=container))
    after = fc.client().update_function("imageless", update).body
    assert (after.state, after.last_update_status) == ("Active", "Failed")
    assert fc.invoke("imageless").body.read() == b"hello"


def test_creation_and_update_take_their_time(tmp_path: Any) -> None:
    with running(tmp_path, SLOW_UPDATES) as fc:
        client = fc.client()
        assert fc.create("slow").state == "Pending"
        assert refusal(fc.invoke, "slow") == (503, "ResourceThrottled")
        update = m.UpdateFunctionRequest(body=m.UpdateFunctionInput(timeout=7))
        assert refusal(client.update_function, "slow", update) == (409, "ConcurrentUpdateError")
        eventually(lambda: client.get_function("slow", m.GetFunctionRequest()).body.state == "Active")
        assert client.update_function("slow", update).body.last_update_status == "InProgress"
        assert fc.invoke("slow").body.read() == b"hello"
        eventually(lambda: client.get_function("slow", m.GetFunctionRequest()).body.last_update_status == "Successful")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "MissingRequiredHeader"),
        (403, "AccessDenied"),
        (412, "PreconditionFailed"),
        (413, "EntityTooLarge"),
        (429, "ResourceExhausted"),
        (499, "ClientClosedRequest"),
        (500, "InternalServerError"),
        (502, "BadResponse"),
        (503, "ResourceThrottled"),
    ],
)
def test_every_error_can_be_played_and_reaches_the_caller_as_such(
    fc: LocalFc, faults: Any, status: int, code: str
) -> None:
    before = fc.usage("echo")["invocations"] if fc.instances("echo") else 0
    faults(kind="status", status=status, code=code)
    assert refusal(fc.invoke, "echo") == (status, code)
    after = fc.usage("echo")["invocations"] if fc.instances("echo") else 0
    assert after == before, "an error in place of the run is not billed"


def test_a_retry_after_makes_it_a_throttling_error(fc: LocalFc, faults: Any) -> None:
    faults(kind="status", status=503, code="ResourceThrottled", retry_after_ms=1500)
    with pytest.raises(ThrottlingException) as caught:
        fc.invoke("echo")
    assert (caught.value.status_code, caught.value.retry_after) == (503, 1500)


@pytest.mark.parametrize("body", ["html", "empty"])
def test_a_body_that_is_no_json_loses_the_status_in_the_sdk(fc: LocalFc, faults: Any, body: str) -> None:
    faults(kind="status", status=502, body=body)
    with pytest.raises(UnretryableException):
        fc.invoke("echo")


def test_an_error_type_can_be_played(fc: LocalFc, faults: Any) -> None:
    faults(kind="error_type", error_type="HandledInvocationError", message="as told")
    answer = fc.invoke("echo")
    assert answer.headers["x-fc-error-type"] == "HandledInvocationError"
    assert json.loads(answer.body.read())["errorMessage"] == "as told"


@pytest.mark.parametrize(
    ("kind", "sign"), [("reset", "Connection reset by peer"), ("close", "closed connection without response")]
)
def test_a_connection_cut_before_and_after_the_run(fc: LocalFc, faults: Any, kind: str, sign: str) -> None:
    fc.invoke("echo")
    before = fc.usage("echo")["invocations"]
    faults(kind=kind)
    error = cause(fc.invoke, "echo")
    assert isinstance(error, requests.exceptions.ConnectionError)
    assert sign in str(error)
    assert fc.usage("echo")["invocations"] == before
    fc.admin("DELETE", "faults")
    faults(kind=kind, after=True)
    assert isinstance(cause(fc.invoke, "echo"), requests.exceptions.ConnectionError)
    assert fc.usage("echo")["invocations"] == before + 1


def test_a_truncated_body_is_noticed(fc: LocalFc, faults: Any) -> None:
    faults(kind="truncate", fraction=0.3)
    assert isinstance(cause(fc.invoke, "echo", b"x" * 10_000), requests.exceptions.ChunkedEncodingError)


def invoke_with_read_timeout(fc: LocalFc, read_timeout_ms: int, body: bytes = b"hello") -> Any:
    request, headers = m.InvokeFunctionRequest(body=body), m.InvokeFunctionHeaders()
    options = RuntimeOptions(read_timeout=read_timeout_ms)
    return fc.client().invoke_function_with_options("echo", request, headers, options)


def test_a_stall_runs_into_the_read_timeout_and_a_drip_does_not(fc: LocalFc, faults: Any) -> None:
    stalled = faults(kind="stall", delay_s=5)
    assert isinstance(cause(invoke_with_read_timeout, fc, 200), requests.exceptions.ReadTimeout)
    fc.admin("DELETE", f"faults?id={stalled['id']}")
    faults(kind="drip", bytes_per_s=10)
    # Eight bytes take 0.8 s: the timeout is for each read, not for the whole.
    assert invoke_with_read_timeout(fc, 500, b"12345678").body.read() == b"12345678"


def test_a_delay_and_a_script_hit_the_calls_that_they_name(fc: LocalFc, faults: Any) -> None:
    fc.create("scripted")
    fc.admin("POST", "faults", {"function": "scripted", "kind": "status", "status": 500, "calls": [2]})
    faults(kind="delay", delay_s=0.01, function="scripted")
    statuses = []
    for _ in range(3):
        try:
            statuses.append(fc.invoke("scripted").status_code)
        except AlibabaCloudException as error:
            statuses.append(error.status_code)
    assert statuses == [200, 500, 200]
    log = [each for each in fc.admin("GET", "faults")["log"] if each.get("function") == "scripted"]
    assert [(each["kind"], each["number"]) for each in log] == [
        ("delay", 1), ("status", 2), ("delay", 3)
    ]  # fmt: skip


def test_a_capacity_outage_refuses_new_instances_only(fc: LocalFc, faults: Any) -> None:
    fc.create("cold")
    faults(kind="capacity", function="cold")
    assert refusal(fc.invoke, "cold") == (429, "ResourceExhausted")
    fc.admin("DELETE", "faults")
    faults(kind="cold_start", function="cold", delay_s=0.3)
    fc.invoke("cold")
    faults(kind="capacity", function="cold")
    assert fc.invoke("cold").body.read() == b"hello"
    assert [each["kind"] for each in fc.admin("GET", "faults")["log"]][-1] == "cold_start"


def test_the_asynchronous_half_of_the_sdk_is_understood_too(fc: LocalFc) -> None:
    async def use() -> tuple[bytes, str]:
        client = fc.client()
        answer = await client.invoke_function_async("echo", m.InvokeFunctionRequest(body=b"from asyncio"))
        shown = await client.get_function_async("echo", m.GetFunctionRequest())
        return answer.body.read(), shown.body.function_name

    assert asyncio.run(use()) == (b"from asyncio", "echo")


def test_a_stream_as_body_and_headers_of_the_callers_own_are_signed_and_taken(fc: LocalFc) -> None:
    client = fc.client()
    streamed = client.invoke_function("echo", m.InvokeFunctionRequest(body=io.BytesIO(b"s" * 5000)))
    assert streamed.body.read() == b"s" * 5000
    own = m.InvokeFunctionHeaders(common_headers={"x-batch-id": "b 7", "x-other": "ü"})
    request = m.InvokeFunctionRequest(body=b"x")
    with_own = client.invoke_function_with_options("echo", request, own, RuntimeOptions())
    assert with_own.body.read() == b"x"


def test_a_content_type_of_the_callers_own_breaks_the_signature(fc: LocalFc) -> None:
    own = m.InvokeFunctionHeaders(common_headers={"Content-Type": "text/plain"})
    request = m.InvokeFunctionRequest(body=b"x")
    call = fc.client().invoke_function_with_options
    assert refusal(call, "echo", request, own, RuntimeOptions()) == (403, "SignatureNotMatch")


def test_many_threads_on_one_client_get_each_their_own_answer(fc: LocalFc) -> None:
    client = fc.client()
    client.invoke_function("echo", m.InvokeFunctionRequest(body=b"prime"))

    def one(number: int) -> bool:
        body = str(number).encode() * 100
        return bool(client.invoke_function("echo", m.InvokeFunctionRequest(body=body)).body.read() == body)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(200)))


def test_every_answer_but_a_deletion_is_a_json_object_with_the_request_id(fc: LocalFc) -> None:
    answer = fc.http.get(f"{fc.url}/anything", timeout=10, allow_redirects=False)
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["RequestId"] == answer.headers["X-Fc-Request-Id"]
