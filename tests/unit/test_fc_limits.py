"""The provider's limits on a function's configuration, each with the field named."""

from __future__ import annotations

from typing import Any

import pytest

from serverless_fn.local_fc.errors import FcError
from serverless_fn.local_fc.function_spec import FunctionSpec, read_spec

BASE: dict[str, Any] = {
    "functionName": "infer",
    "runtime": "custom-container",
    "handler": "index.handler",
    "cpu": 2,
    "memorySize": 4096,
    "diskSize": 512,
    "timeout": 60,
    "customContainerConfig": {"image": "echo"},
}
CARD = {"cpu": 8, "memorySize": 32768, "gpuConfig": {"gpuType": "fc.gpu.tesla.1", "gpuMemorySize": 16384}}


def spec(**changes: Any) -> FunctionSpec:
    return read_spec({**BASE, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cpu": 0.05, "memorySize": 128},
        {"cpu": 16, "memorySize": 32768},
        {"cpu": 1, "memorySize": 1024},
        {"cpu": 1, "memorySize": 4096},
        {"cpu": 0.35, "memorySize": 512},
        {"cpu": None, "memorySize": None},
        {"timeout": 86400, "diskSize": 10240, "instanceConcurrency": 200},
        {"functionName": "_" + "a-1" * 21},
        CARD,
        {**CARD, "cpu": 0.05, "memorySize": 128},
        {"cpu": 4, "memorySize": 16384, "gpuConfig": {"gpuType": "fc.gpu.ada.1", "gpuMemorySize": 49152}},
        {"cpu": 4, "memorySize": 16384, "gpuConfig": {"gpuType": "fc.gpu.hopper.9", "gpuMemorySize": 49152}},
        {"environmentVariables": {"A": "x" * 4095}},
        {"vpcConfig": {"vpcId": "v"}, "tags": [], "internetAccess": False},
    ],
)
def test_what_is_within_the_limits_is_taken(changes: dict[str, Any]) -> None:
    assert spec(**changes).image == "echo"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"functionName": "1st"}, "functionName"),
        ({"functionName": "a" * 65}, "functionName"),
        ({"functionName": "a.b"}, "functionName"),
        ({"functionName": None}, "functionName must be"),
        ({"runtime": "python3.10"}, "runtime"),
        ({"handler": None}, "handler"),
        ({"customContainerConfig": None}, "customContainerConfig.image"),
        ({"customContainerConfig": {"image": "echo", "port": 0}}, "customContainerConfig.port"),
        ({"customContainerConfig": {"image": "echo", "command": "python"}}, "customContainerConfig.command"),
        ({"cpu": 0.07, "memorySize": 128}, "cpu"),
        ({"cpu": 16.05}, "cpu"),
        ({"cpu": True}, "cpu"),
        ({"cpu": 1, "memorySize": 4160}, "memorySize 4160"),
        ({"cpu": 2, "memorySize": 1984}, "memorySize 1984"),
        ({"memorySize": 4100}, "multiple of 64"),
        ({"memorySize": 64}, "memorySize"),
        ({"memorySize": 32832}, "memorySize"),
        ({"memorySize": "4096"}, "memorySize"),
        ({"diskSize": 1024}, "diskSize"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": 86401}, "timeout"),
        ({"instanceConcurrency": 0}, "instanceConcurrency"),
        ({"instanceConcurrency": 201}, "instanceConcurrency"),
        ({**CARD, "cpu": 8.05}, "cpu"),
        ({**CARD, "gpuConfig": {"gpuType": "fc.gpu.tesla.1", "gpuMemorySize": 8192}}, "with 8192 MB of GPU memory"),
        ({**CARD, "gpuConfig": {"gpuType": "fc.gpu.tesla.1", "gpuMemorySize": 17408}}, "gpuMemorySize"),
        ({**CARD, "gpuConfig": {"gpuType": "fc.gpu.tesla.1", "gpuMemorySize": 1500}}, "gpuMemorySize"),
        ({**CARD, "gpuConfig": {"gpuType": "fc.gpu.ampere.1", "gpuMemorySize": 25600}}, "gpuMemorySize"),
        ({**CARD, "gpuConfig": {"gpuType": "T4", "gpuMemorySize": 16384}}, "gpuType"),
        ({"environmentVariables": {"FC_REGION": "x"}}, "FC_REGION"),
        ({"environmentVariables": {"A": "x" * 4096}}, "4097 bytes"),
        ({"environmentVariables": {"A": 1}}, "environmentVariables"),
        ({"instanceLifecycleConfig": {"initializer": {"handler": "i", "timeout": 301}}}, "initializer.timeout"),
        ({"instanceLifecycleConfig": {"preStop": {"handler": "p", "timeout": 91}}}, "preStop.timeout"),
        (
            {"customContainerConfig": {"image": "echo", "healthCheckConfig": {"httpGetUrl": "/", "timeoutSeconds": 4}}},
            "healthCheckConfig.timeoutSeconds",
        ),
        (
            {"customContainerConfig": {"image": "echo", "healthCheckConfig": {"httpGetUrl": "x"}}},
            "healthCheckConfig.httpGetUrl",
        ),
    ],
)
def test_what_is_beyond_a_limit_is_refused_with_its_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(FcError) as caught:
        spec(**changes)
    assert (caught.value.status, caught.value.code) == (400, "InvalidArgument")
    assert named in caught.value.message


def test_absent_cpu_is_the_least_that_goes_with_the_memory() -> None:
    assert spec(cpu=None, memorySize=4096).vcpu == 1.0
    assert spec(cpu=None, memorySize=128).vcpu == 0.05


def test_hooks_and_health_are_only_there_where_they_are_set() -> None:
    bare = spec()
    assert (bare.initializer, bare.pre_stop, bare.health) == (None, None, None)
    hooks = {"initializer": {"handler": "i", "timeout": 300}, "preStop": {"handler": "p"}}
    health = {"httpGetUrl": "/healthz", "periodSeconds": 1}
    full = spec(instanceLifecycleConfig=hooks, customContainerConfig={"image": "echo", "healthCheckConfig": health})
    assert full.initializer is not None
    assert full.pre_stop is not None
    assert full.health is not None
    assert (full.initializer.timeout_s, full.pre_stop.timeout_s) == (300, 3)
    assert (full.health.path, full.health.period_s, full.health.failure_threshold) == ("/healthz", 1, 3)
