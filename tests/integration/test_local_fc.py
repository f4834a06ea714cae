"""The local endpoint as it runs: real processes that come and go, money on the meter, a link that is shared."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alibabacloud_fc20230330 import models as m
from alibabacloud_tea_openapi.exceptions import AlibabaCloudException
from support.local_fc_process import BASE_CONFIG, ROOT, LocalFc, clean_environment, eventually, exists, launch, running

from scheduler import wire

QUICK = (
    BASE_CONFIG
    + """
[account]
max_instances = 6
burst_instances = 50
idle_s = 0.4
stop_limit_s = 0.3
"""
)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def fc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFc]:
    with running(tmp_path_factory.mktemp("fc"), QUICK) as endpoint:
        yield endpoint


@pytest.fixture
def name(fc: LocalFc, request: pytest.FixtureRequest) -> Iterator[str]:
    """A name for the test's own function, deleted with its instances after it."""
    name = "f-" + str(abs(hash(request.node.name)))[:12]
    yield name
    for each in fc.client().list_functions(m.ListFunctionsRequest(prefix=name)).body.functions:
        fc.remove(each.function_name)
    eventually(lambda: not fc.instances(name, "Starting", "Running", "Stopping"))


def describe(fc: LocalFc, name: str, **given: Any) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(fc.invoke(name, {"do": "describe", **given}).body.read())
    return about


def provision(fc: LocalFc, name: str, target: int, **given: Any) -> None:
    content = m.PutProvisionConfigInput(default_target=target, **given)
    fc.client().put_provision_config(name, m.PutProvisionConfigRequest(body=content))
    eventually(lambda: provision_of(fc, name).current == target)


def provision_of(fc: LocalFc, name: str) -> m.ProvisionConfig:
    return fc.client().get_provision_config(name, m.GetProvisionConfigRequest()).body


def at_once(fc: LocalFc, name: str, bodies: list[dict[str, Any]]) -> list[Any]:
    """Invoke in parallel; return results and exceptions in order."""

    def one(body: dict[str, Any]) -> Any:
        try:
            return fc.invoke(name, body)
        except AlibabaCloudException as error:
            return error

    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(one, bodies))


def test_a_cold_start_is_a_new_process_and_the_next_call_finds_it_warm(fc: LocalFc, name: str) -> None:
    fc.create(name, environmentVariables={"MINE": "1"}, timeout=9, idleTimeout=60)
    first, second = fc.invoke(name, {"do": "describe"}), fc.invoke(name, {"do": "describe"})
    instance_id = first.headers["x-fc-instance-id"]
    assert second.headers["x-fc-instance-id"] == instance_id
    about = json.loads(first.body.read())
    assert about["pid"] == fc.instances(name, "Running")[0]["pid"] != fc.process.pid
    assert about["env"]["FC_INSTANCE_ID"] == instance_id
    assert (about["env"]["MINE"], about["env"]["FC_FUNCTION_NAME"]) == ("1", name)
    assert about["headers"]["x-fc-request-id"] == first.headers["x-fc-request-id"]
    assert about["headers"]["x-fc-control-path"] == about["path"] == "/invoke"
    assert (about["headers"]["x-fc-function-memory"], about["headers"]["x-fc-function-timeout"]) == ("1024", "9")
    assert "authorization" not in about["headers"]
    assert "PYTEST_CURRENT_TEST" not in about["env"]


def test_an_idle_instance_is_reclaimed_after_its_pre_stop_hook(fc: LocalFc, name: str, tmp_path: Path) -> None:
    hooks = {"preStop": {"handler": "index.preStop", "timeout": 5}}
    fc.create(name, environmentVariables={"PRE_STOP_FILE": str(tmp_path / "told")}, instanceLifecycleConfig=hooks)
    instance_id = fc.invoke(name).headers["x-fc-instance-id"]
    pid = fc.instances(name)[0]["pid"]
    eventually(lambda: fc.instances(name, "Destroyed"))
    assert (tmp_path / "told").read_text(encoding="utf-8") == f"{instance_id}\n"
    assert not exists(pid)
    assert fc.usage(name)["hook_invocations"] == 1
    assert fc.invoke(name).headers["x-fc-instance-id"] != instance_id


def test_provisioned_instances_are_kept_and_used_first_and_billed_idle(fc: LocalFc, name: str) -> None:
    fc.create(name)
    provision(fc, name, 2)
    kept = {each["instanceId"] for each in fc.instances(name, "Running")}
    assert len(kept) == 2
    results = at_once(fc, name, [{"s": 0.5}] * 3)
    used = {result.headers["x-fc-instance-id"] for result in results}
    assert kept < used
    # The on-demand one goes after its idle time, the others stay.
    eventually(lambda: {each["instanceId"] for each in fc.instances(name, "Running")} == kept)
    usage = fc.usage(name)
    assert usage["provisioned_idle_s"] > 0.4
    money = usage["cost"]["cny-gbs-2023"]
    assert money["provisioned_idle"] == pytest.approx(usage["provisioned_idle_s"] * 1.27e-5)
    assert money["active"] == pytest.approx(usage["billed_s"] * 1.27e-5)
    assert money["calls"] == pytest.approx(3 * 9e-7)
    assert usage["active_s"] >= 1.5
    provision(fc, name, 0)
    eventually(lambda: not fc.instances(name, "Running"))


def test_a_provisioned_instance_comes_before_one_that_was_used_later(fc: LocalFc, name: str) -> None:
    fc.create(name, idleTimeout=60)
    provision(fc, name, 1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(describe, fc, name, s=0.5)
        eventually(lambda: any(each["inFlight"] for each in fc.instances(name, "Running")))
        on_demand = describe(fc, name, s=1.0)
    assert describe(fc, name)["pid"] == first.result()["pid"] != on_demand["pid"]


def test_a_provisioned_instance_that_dies_is_replaced(fc: LocalFc, name: str) -> None:
    fc.create(name)
    provision(fc, name, 1)
    pid = fc.instances(name, "Running")[0]["pid"]
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: [each for each in fc.instances(name, "Running") if each["pid"] != pid])


def test_idle_without_an_allocated_cpu_is_billed_at_the_idle_rate(fc: LocalFc, name: str) -> None:
    fc.create(name)
    provision(fc, name, 1, always_allocate_cpu=False)
    usage = fc.usage(name)
    assert usage["hibernated_idle_s"] == usage["provisioned_idle_s"] > 0
    # 1 GB of memory and 0.5 GB of disk; the vCPU is free while it sleeps.
    units = usage["hibernated_idle_s"] * (0.15 + 0.5 * 0.05)
    assert usage["cost"]["fc3-cu-usd"]["compute_units"] == pytest.approx(units)


def test_one_instance_takes_as_many_requests_as_its_concurrency_and_bills_them_once(fc: LocalFc, name: str) -> None:
    fc.create(name, instanceConcurrency=4)
    fc.invoke(name)
    results = at_once(fc, name, [{"s": 0.3}] * 4)
    assert len({result.headers["x-fc-instance-id"] for result in results}) == 1
    assert fc.usage(name)["invocations"] == 5
    # Billed one by one they would be 1.2 s.
    assert 0.3 <= fc.usage(name)["active_s"] < 1.2


def test_reserved_concurrency_caps_the_function_and_zero_blocks_it(fc: LocalFc, name: str) -> None:
    fc.create(name)
    client = fc.client()
    for reserved, served in ((1, 1), (0, 0)):
        body = m.PutConcurrencyInput(reserved_concurrency=reserved)
        client.put_concurrency_config(name, m.PutConcurrencyConfigRequest(body=body))
        results = at_once(fc, name, [{"s": 0.5}] * 2)
        refused = [result for result in results if isinstance(result, AlibabaCloudException)]
        assert len(results) - len(refused) == served
        assert {(error.status_code, error.code) for error in refused} == {(429, "ResourceExhausted")}


def test_the_account_limit_answers_429_and_a_reservation_elsewhere_counts_against_it(fc: LocalFc, name: str) -> None:
    fc.create(name)
    other = name + "x"
    fc.create(other)
    body = m.PutConcurrencyInput(reserved_concurrency=4)
    fc.client().put_concurrency_config(other, m.PutConcurrencyConfigRequest(body=body))
    results = at_once(fc, name, [{"s": 0.5}] * 3)
    errors = [result for result in results if isinstance(result, AlibabaCloudException)]
    assert [(error.status_code, error.code) for error in errors] == [(429, "ResourceExhausted")]


def test_growth_beyond_the_burst_answers_429(tmp_path: Path) -> None:
    config = BASE_CONFIG + "[account]\nburst_instances = 2\ngrowth_per_min = 0\n"
    with running(tmp_path, config) as fc:
        fc.create("f")
        results = at_once(fc, "f", [{"s": 0.5}] * 3)
        errors = [result for result in results if isinstance(result, AlibabaCloudException)]
        assert [error.code for error in errors] == ["ResourceExhausted"]


def test_without_on_demand_instances_only_provisioned_ones_serve(fc: LocalFc, name: str) -> None:
    fc.create(name)
    body = m.PutScalingConfigInput(min_instances=1, enable_on_demand_scaling=False)
    fc.client().put_scaling_config(name, m.PutScalingConfigRequest(body=body))
    request = m.GetScalingConfigRequest()
    eventually(lambda: fc.client().get_scaling_config(name, request).body.current_instances == 1)
    results = at_once(fc, name, [{"s": 0.5}] * 2)
    assert sum(isinstance(result, AlibabaCloudException) for result in results) == 1


def test_an_update_goes_to_new_instances_while_old_ones_drain(fc: LocalFc, name: str) -> None:
    fc.create(name, idleTimeout=60)
    with ThreadPoolExecutor(1) as pool:
        running_call = pool.submit(describe, fc, name, s=1.0)
        eventually(lambda: any(each["inFlight"] for each in fc.instances(name, "Running")))
        container = m.CustomContainerConfig(image="other")
        body = m.UpdateFunctionInput(custom_container_config=container, memory_size=2048)
        fc.client().update_function(name, m.UpdateFunctionRequest(body=body))
        after = describe(fc, name)
        before = running_call.result()
    assert "IMAGE_SAYS" not in before["env"]
    assert (after["env"]["IMAGE_SAYS"], after["env"]["FC_FUNCTION_MEMORY_SIZE"]) == ("hello", "2048")
    eventually(lambda: not exists(before["pid"]))


def test_a_failed_initializer_is_a_function_error_and_a_good_one_runs_once(fc: LocalFc, name: str) -> None:
    hooks = {"initializer": {"handler": "index.initialize", "timeout": 5}}
    environment = {"FAIL_INITIALIZE": "1"}
    fc.create(name, instanceLifecycleConfig=hooks, environmentVariables=environment, idleTimeout=60)
    failed = fc.invoke(name)
    assert failed.headers["x-fc-error-type"].startswith("Initializ")
    assert "the weights are missing" in json.loads(failed.body.read())["errorMessage"]
    body = m.UpdateFunctionInput(environment_variables={"INITIALIZE_S": "0.2"})
    fc.client().update_function(name, m.UpdateFunctionRequest(body=body))
    assert fc.invoke(name).body.read() == fc.invoke(name).body.read() == b"hello"
    usage = fc.usage(name)
    assert (usage["invocations"], usage["hook_invocations"]) == (2, 2)
    assert usage["active_s"] >= 0.2


def test_an_initializer_over_its_time_is_a_function_error(fc: LocalFc, name: str) -> None:
    hooks = {"initializer": {"handler": "index.initialize", "timeout": 1}}
    fc.create(name, instanceLifecycleConfig=hooks, environmentVariables={"INITIALIZE_S": "5"})
    failed = fc.invoke(name)
    assert failed.headers["x-fc-error-type"].startswith("Initializ")
    assert "over 1 s" in json.loads(failed.body.read())["errorMessage"]


def test_a_sick_instance_is_ended_by_its_health_check(fc: LocalFc, name: str, tmp_path: Path) -> None:
    check = {"httpGetUrl": "/healthz", "periodSeconds": 1, "failureThreshold": 1}
    environment = {"SICK_FILE": str(tmp_path / "sick")}
    fc.create(name, container={"healthCheckConfig": check}, environmentVariables=environment, idleTimeout=60)
    pid = describe(fc, name)["pid"]
    (tmp_path / "sick").touch()
    eventually(lambda: not exists(pid))
    (tmp_path / "sick").unlink()
    assert describe(fc, name)["pid"] != pid


def test_versions_and_alias_weights_choose_the_configuration(fc: LocalFc, name: str) -> None:
    fc.create(name, environmentVariables={"GENERATION": "1"}, instanceConcurrency=10)
    client = fc.client()
    client.publish_function_version(
        name, m.PublishFunctionVersionRequest(body=m.PublishVersionInput(description="one"))
    )
    body = m.UpdateFunctionInput(environment_variables={"GENERATION": "2"})
    client.update_function(name, m.UpdateFunctionRequest(body=body))
    client.publish_function_version(name, m.PublishFunctionVersionRequest(body=m.PublishVersionInput()))
    alias = m.CreateAliasInput(alias_name="prod", version_id="1", additional_version_weight={"2": 0.5})
    client.create_alias(name, m.CreateAliasRequest(body=alias))

    def generation(qualifier: str | None) -> str:
        answer = fc.invoke(name, {"do": "describe"}, qualifier=qualifier)
        return str(json.loads(answer.body.read())["env"]["GENERATION"])

    assert [generation(qualifier) for qualifier in ("1", "2", "LATEST", None)] == ["1", "2", "2", "2"]
    assert {generation("prod") for _ in range(20)} == {"1", "2"}


def test_an_asynchronous_call_is_accepted_at_once_and_runs(fc: LocalFc, name: str) -> None:
    fc.create(name)
    answer = fc.invoke(name, {"s": 0.3}, kind="Async")
    assert (answer.status_code, answer.headers["x-fc-async-task-id"]) == (202, answer.headers["x-fc-request-id"])
    eventually(lambda: fc.instances(name) and fc.usage(name)["active_s"] >= 0.3)


def test_stopping_leaves_no_process_even_where_sigterm_is_ignored(tmp_path: Path) -> None:
    with running(tmp_path, QUICK) as fc:
        fc.create("stubborn", environmentVariables={"IGNORE_SIGTERM": "1"})
        fc.create("polite")
        pids = [describe(fc, name)["pid"] for name in ("stubborn", "polite")]
        assert all(map(exists, pids))
        assert fc.stop() == 0
        assert not any(map(exists, pids))


def test_an_endpoint_that_is_killed_takes_its_instances_along(tmp_path: Path) -> None:
    with running(tmp_path, QUICK) as fc:
        fc.create("f")
        pid = describe(fc, "f")["pid"]
        fc.process.kill()
        eventually(lambda: not exists(pid))


def test_predefined_functions_are_there_and_warm_without_a_deployment(tmp_path: Path) -> None:
    function = """
[[function]]
functionName = "infer"
runtime = "custom-container"
handler = "index.handler"
cpu = 1
memorySize = 1024
customContainerConfig = { image = "echo" }
provisionConfig = { defaultTarget = 2 }
concurrencyConfig = { reservedConcurrency = 2 }
"""
    with running(tmp_path, BASE_CONFIG + function) as fc:
        eventually(lambda: provision_of(fc, "infer").current == 2)
        results = at_once(fc, "infer", [{"s": 0.5}] * 3)
        assert sum(isinstance(result, AlibabaCloudException) for result in results) == 1


def test_a_port_in_use_is_one_sentence_and_status_2(tmp_path: Path) -> None:
    (tmp_path / "fc.toml").write_text(BASE_CONFIG, encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "serverless_fn.local_fc", "--config", str(tmp_path / "fc.toml")]
        done = subprocess.run(
            [*command, "--port", str(port)], cwd=ROOT, env=clean_environment(), capture_output=True, text=True
        )
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_start_up_log_shows_nothing_of_the_keys(tmp_path: Path) -> None:
    process = launch(tmp_path, QUICK)
    assert process.stdout is not None
    ready = process.stdout.readline()
    process.terminate()
    assert process.wait(timeout=20) == 0
    assert set(json.loads(ready)) == {"event", "host", "port"}


def timed_upload(fc: LocalFc, name: str, size: int) -> float:
    start_s = time.monotonic()
    fc.invoke(name, b"x" * size)
    return time.monotonic() - start_s


def test_two_uploads_share_the_link_and_one_has_it_alone(tmp_path: Path) -> None:
    size = 250_000
    with running(tmp_path, BASE_CONFIG, "--uplink-mbit-per-s", "8") as fc:
        fc.create("f", timeout=60)
        at_once(fc, "f", [{"s": 0.2}] * 2)
        alone_s = timed_upload(fc, "f", size)
        with ThreadPoolExecutor(2) as pool:
            shared_s = max(pool.map(lambda _: timed_upload(fc, "f", size), range(2)))
        assert 0.75 * size / 1e6 < alone_s
        # Twice as long, but for what the machine itself takes; without sharing it would be once.
        assert 1.5 < shared_s / alone_s < 2.8
        carried = fc.admin("GET", "uplink")["carried_bytes"]
        assert 3 * size < carried < 3.2 * size
        # What is refused has used the link too.
        with pytest.raises(AlibabaCloudException):
            fc.client(secret="wrong").invoke_function("f", m.InvokeFunctionRequest(body=b"x" * size))
        assert fc.admin("GET", "uplink")["carried_bytes"] > carried + size


def test_the_uplink_can_be_changed_and_cut_and_restored(fc: LocalFc, name: str) -> None:
    fc.create(name)
    fc.invoke(name)
    try:
        fc.admin("POST", "uplink", {"mbit_per_s": 0})
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(fc.invoke, name)
            # The admin's own requests do not use the link, or nobody could ever lift this.
            assert fc.admin("GET", "uplink")["mbit_per_s"] == 0
            assert not held.done()
            fc.admin("POST", "uplink", {"mbit_per_s": None, "rtt_s": 0.2})
            assert held.result(timeout=20).body.read() == b"hello"
        start_s = time.monotonic()
        fc.invoke(name)
        assert time.monotonic() - start_s >= 0.2
    finally:
        fc.admin("POST", "uplink", {"mbit_per_s": None, "rtt_s": 0})
    assert [each["kind"] for each in fc.admin("GET", "faults")["log"]].count("uplink") == 3


def frame(images: list[bytes], model: str = "digits") -> bytes:
    tensor = wire.Tensor.from_elements("image", images)
    request = wire.InferRequest("r1", (tensor,), binary_by_default=True)
    return wire.pack_frame({"model": model, "batch_id": "b1"}, wire.encode_request(request))


def test_the_real_container_serves_digits_and_fails_by_item_and_by_batch(tmp_path: Path) -> None:
    from models import digits_data, digits_pictures

    function = """
[images."edgeburst/function:cpu"]
command = ["python", "-m", "serverless_fn"]

[[function]]
functionName = "infer"
runtime = "custom-container"
handler = "index.handler"
cpu = 1
memorySize = 1024
timeout = 60
customContainerConfig = { image = "edgeburst/function:cpu", healthCheckConfig = { httpGetUrl = "/healthz" } }
environmentVariables = { MODEL = "digits" }

[function.instanceLifecycleConfig]
initializer = { handler = "index.initialize", timeout = 120 }
preStop = { handler = "index.preStop", timeout = 5 }
"""
    images, labels = digits_data.held_out()
    pictures = [digits_pictures.encode(image, kind="png", index=i) for i, image in enumerate(images[:3])]
    with running(tmp_path, BASE_CONFIG + function) as fc:
        answer = fc.invoke("infer", frame([*pictures, b"not a picture"]))
        header, payload = wire.unpack_frame(answer.body.read())
        assert (header["status"], header["cold_start"], header["batch_id"]) == (200, True, "b1")
        assert header["instance_id"] == answer.headers["x-fc-instance-id"]
        assert 0 < float(str(header["service_s"])) <= float(str(header["duration_s"]))
        assert int(str(header["memory_bytes"])) > 2**20
        response = wire.parse_response(payload.body, payload.json_length)
        probabilities, errors = response.outputs[0].to_numpy(), response.outputs[1].elements()
        assert probabilities[:3].argmax(axis=1).tolist() == list(labels[:3])
        assert not probabilities[3].any()
        assert errors[:3] == [b""] * 3
        assert b"not a PNG or JPEG" in errors[3]
        alone = fc.invoke("infer", frame(pictures[:1]))
        header, payload = wire.unpack_frame(alone.body.read())
        assert header["cold_start"] is False
        row = wire.parse_response(payload.body, payload.json_length).outputs[0].to_numpy()[0]
        assert np.allclose(row, probabilities[0], atol=1e-3)
        for bad, status in ((frame(pictures, model="cats"), 404), (b"EBF1", 400), (frame([]), 400)):
            failed = fc.invoke("infer", bad)
            header, _ = wire.unpack_frame(failed.body.read())
            assert failed.headers["x-fc-error-type"] == "UnhandledInvocationError"
            assert header["status"] == status
            assert str(header["error"])
        assert fc.usage("infer")["hook_invocations"] == 1
