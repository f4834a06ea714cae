"""The provider's unmodified SDK against the local endpoint: what a deployment lists, deletes and waits for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from alibabacloud_fc20230330 import models as m
from alibabacloud_tea_openapi.exceptions import AlibabaCloudException
from darabonba.exceptions import UnretryableException
from support.local_fc_process import BASE_CONFIG, LocalFc, eventually, running


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def fc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFc]:
    with running(tmp_path_factory.mktemp("fc"), BASE_CONFIG) as endpoint:
        yield endpoint


@pytest.fixture
def faults(fc: LocalFc) -> Iterator[Any]:
    """Sets a fault; all are gone after the test."""
    yield lambda **fault: fc.admin("POST", "faults", fault)
    fc.admin("DELETE", "faults")


def refusal(call: Any, *arguments: Any) -> tuple[int, str]:
    """Return status and code of what the SDK raises."""
    with pytest.raises(AlibabaCloudException) as caught:
        call(*arguments)
    return caught.value.status_code, caught.value.code


def publish(client: Any, function: str, description: str = "") -> str:
    body = m.PublishVersionInput(description=description)
    return str(client.publish_function_version(function, m.PublishFunctionVersionRequest(body=body)).body.version_id)


def point(client: Any, function: str, alias: str, version_id: str) -> None:
    body = m.CreateAliasInput(alias_name=alias, version_id=version_id)
    client.create_alias(function, m.CreateAliasRequest(body=body))


def provision(client: Any, function: str, target: int, qualifier: str = "LATEST") -> None:
    body = m.PutProvisionConfigInput(default_target=target)
    client.put_provision_config(function, m.PutProvisionConfigRequest(body=body, qualifier=qualifier))


def test_versions_are_listed_from_either_end_by_pages_and_deleted_for_good(fc: LocalFc) -> None:
    client = fc.client()
    fc.create("versioned")
    assert [publish(client, "versioned", word) for word in ("one", "two", "three")] == ["1", "2", "3"]

    def listed(**query: Any) -> Any:
        return client.list_function_versions("versioned", m.ListFunctionVersionsRequest(**query)).body

    first = listed(limit=2)
    second = listed(limit=2, next_token=first.next_token)
    assert [each.version_id for each in first.versions + second.versions] == ["3", "2", "1"]
    assert (first.versions[0].description, first.direction, second.next_token) == ("three", "BACKWARD", None)
    assert [each.version_id for each in listed(direction="FORWARD").versions] == ["1", "2", "3"]
    assert client.delete_function_version("versioned", "3").status_code == 204
    assert refusal(client.delete_function_version, "versioned", "3") == (404, "VersionNotFound")
    assert publish(client, "versioned") == "4", "a number is not given twice"
    wrong = m.ListFunctionVersionsRequest(direction="SIDEWAYS")
    assert refusal(client.list_function_versions, "versioned", wrong) == (400, "InvalidArgument")


def test_a_version_keeps_its_configuration_while_latest_moves_on(fc: LocalFc) -> None:
    client = fc.client()
    fc.create("frozen", timeout=10)
    publish(client, "frozen")
    client.update_function("frozen", m.UpdateFunctionRequest(body=m.UpdateFunctionInput(timeout=20)))
    shown = {
        qualifier: client.get_function("frozen", m.GetFunctionRequest(qualifier=qualifier)).body.timeout
        for qualifier in ("1", "LATEST")
    }
    assert shown == {"1": 10, "LATEST": 20}


def test_aliases_are_shown_listed_and_deleted_before_their_versions(fc: LocalFc) -> None:
    client = fc.client()
    fc.create("aliased")
    version = publish(client, "aliased")
    for alias in ("prod", "cpu-1", "cpu-2"):
        point(client, "aliased", alias, version)
    assert client.get_alias("aliased", "prod").body.version_id == version
    request = m.ListAliasesRequest(prefix="cpu", limit=1)
    first = client.list_aliases("aliased", request).body
    again = m.ListAliasesRequest(prefix="cpu", limit=1, next_token=first.next_token)
    second = client.list_aliases("aliased", again).body
    assert [each.alias_name for each in first.aliases + second.aliases] == ["cpu-1", "cpu-2"]
    assert refusal(client.delete_function_version, "aliased", version) == (409, "VersionInUse")
    for alias in ("prod", "cpu-1", "cpu-2"):
        assert client.delete_alias("aliased", alias).status_code == 204
    assert refusal(client.get_alias, "aliased", "prod") == (404, "AliasNotFound")
    assert refusal(client.delete_alias, "aliased", "prod") == (404, "AliasNotFound")
    assert client.delete_function_version("aliased", version).status_code == 204


def test_triggers_are_listed_and_deleted(fc: LocalFc) -> None:
    client = fc.client()
    fc.create("rung")
    config = json.dumps({"authType": "function", "methods": ["POST"]})
    for name in ("web", "web-2", "other"):
        body = m.CreateTriggerInput(trigger_name=name, trigger_type="http", trigger_config=config)
        client.create_trigger("rung", m.CreateTriggerRequest(body=body))
    listed = client.list_triggers("rung", m.ListTriggersRequest(prefix="web")).body.triggers
    assert [each.trigger_name for each in listed] == ["web", "web-2"]
    assert client.delete_trigger("rung", "web").status_code == 204
    assert refusal(client.delete_trigger, "rung", "web") == (404, "TriggerNotFound")
    left = client.list_triggers("rung", m.ListTriggersRequest()).body.triggers
    assert [each.trigger_name for each in left] == ["other", "web-2"]


def test_provision_configs_are_listed_with_their_qualifier_and_deleted(fc: LocalFc) -> None:
    client = fc.client()
    fc.create("warm")
    point(client, "warm", "prod", publish(client, "warm"))
    provision(client, "warm", 0)
    provision(client, "warm", 1, "prod")

    def listed(**query: Any) -> dict[str, int]:
        body = client.list_provision_configs(m.ListProvisionConfigsRequest(**query)).body
        return {each.function_arn.partition("functions/")[2]: each.target for each in body.provision_configs}

    assert listed(function_name="warm") == {"warm/LATEST": 0, "warm/prod": 1}
    assert listed() == listed(function_name="warm"), "no other function of this module keeps instances"
    assert client.delete_provision_config("warm", m.DeleteProvisionConfigRequest(qualifier="prod")).status_code == 204
    assert listed(function_name="warm") == {"warm/LATEST": 0}
    # Once more is no error: a client whose answer was lost may repeat it.
    assert client.delete_provision_config("warm", m.DeleteProvisionConfigRequest(qualifier="prod")).status_code == 204
    eventually(lambda: not fc.instances("warm", "Ready", "Starting"))
    client.delete_provision_config("warm", m.DeleteProvisionConfigRequest(qualifier="LATEST"))


def test_scaling_configs_are_listed_and_deleted(fc: LocalFc) -> None:
    client = fc.client()
    fc.create("scaled")
    body = m.PutScalingConfigInput(min_instances=0, enable_on_demand_scaling=True)
    client.put_scaling_config("scaled", m.PutScalingConfigRequest(body=body, qualifier="LATEST"))
    listed = client.list_scaling_configs(m.ListScalingConfigsRequest(function_name="scaled")).body.scaling_configs
    assert [each.function_arn.endswith("scaled/LATEST") for each in listed] == [True]
    assert client.delete_scaling_config("scaled", m.DeleteScalingConfigRequest(qualifier="LATEST")).status_code == 204
    assert not client.list_scaling_configs(m.ListScalingConfigsRequest(function_name="scaled")).body.scaling_configs


def test_reserved_concurrencies_are_listed_and_deleted(fc: LocalFc) -> None:
    client = fc.client()
    for name, reserved in (("few", 2), ("many", 20)):
        fc.create(name)
        body = m.PutConcurrencyInput(reserved_concurrency=reserved)
        client.put_concurrency_config(name, m.PutConcurrencyConfigRequest(body=body))

    def listed(**query: Any) -> list[int]:
        body = client.list_concurrency_configs(m.ListConcurrencyConfigsRequest(**query)).body
        return [each.reserved_concurrency for each in body.configs]

    assert listed() == [2, 20]
    assert listed(function_name="many") == [20]
    assert client.delete_concurrency_config("many").status_code == 204
    assert listed() == [2]
    assert client.get_concurrency_config("many").body.reserved_concurrency is None


def test_what_keeps_instances_cannot_be_deleted_until_they_are_gone(fc: LocalFc) -> None:
    client = fc.client()
    fc.create("kept-alive")
    point(client, "kept-alive", "prod", publish(client, "kept-alive"))
    provision(client, "kept-alive", 1, "prod")
    assert refusal(client.delete_function, "kept-alive") == (409, "ProvisionConfigExist")
    assert refusal(client.delete_alias, "kept-alive", "prod") == (409, "ProvisionConfigExist")
    client.delete_provision_config("kept-alive", m.DeleteProvisionConfigRequest(qualifier="prod"))
    client.delete_alias("kept-alive", "prod")
    eventually(lambda: fc.is_deleted("kept-alive"))


def test_a_fault_hits_the_operation_that_it_names_and_no_other(fc: LocalFc, faults: Any) -> None:
    client = fc.client()
    faults(kind="status", status=503, code="ResourceThrottled", operation="create_function", function="unlucky")
    fc.create("lucky")
    assert refusal(fc.create, "unlucky") == (503, "ResourceThrottled")
    fc.admin("DELETE", "faults")
    fc.create("unlucky")
    faults(kind="status", status=500, operation="publish_function_version", function="unlucky", calls=[2])
    assert publish(client, "unlucky") == "1"
    assert refusal(publish, client, "unlucky") == (500, "InternalServerError")
    assert publish(client, "unlucky") == "2"
    assert fc.invoke("unlucky").body.read() == b"hello"


def test_an_answer_that_is_lost_leaves_its_work_done(fc: LocalFc, faults: Any) -> None:
    client = fc.client()
    fc.create("lossy")
    faults(kind="close", after=True, operation="publish_function_version", function="lossy", calls=[1])
    with pytest.raises(UnretryableException):
        publish(client, "lossy", "lost")
    versions = client.list_function_versions("lossy", m.ListFunctionVersionsRequest()).body.versions
    assert [(each.version_id, each.description) for each in versions] == [("1", "lost")]


def test_a_fault_of_an_operation_that_is_none_is_refused(fc: LocalFc) -> None:
    answer = fc.http.post(f"{fc.url}/admin/faults", json={"kind": "reset", "operation": "fly"}, timeout=10)
    assert (answer.status_code, answer.json()["Code"]) == (400, "InvalidArgument")
    assert "fly" in answer.json()["Message"]
    assert "publish_function_version" in answer.json()["Message"]


def test_a_creation_is_pending_before_it_fails(tmp_path: Any) -> None:
    with running(tmp_path, BASE_CONFIG + "[account]\nupdate_s = 0.3\n") as fc:
        created = fc.create("doomed", image="registry/nothing:1")
        assert (created.state, created.last_update_status) == ("Pending", "InProgress")
        client = fc.client()

        def settled() -> Any:
            shown = client.get_function("doomed", m.GetFunctionRequest()).body
            return shown if shown.state != "Pending" else None

        assert eventually(settled).state == "Failed"
