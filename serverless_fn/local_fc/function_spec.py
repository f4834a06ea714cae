"""A function's configuration, checked against the provider's limits.

Source: fc-3-0/product-overview/limits-of-usage, instance-types-and-specifications, and the SDK's model (2023-03-30),
read 2026-11. Where two documents differ, the stricter one is used, so that what works here works on the platform.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serverless_fn.local_fc.errors import invalid_argument
from serverless_fn.local_fc.fields import Fields
from serverless_fn.local_fc.prices import Resources

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_ENVIRONMENT_BYTES_MAX = 4096
_DISKS_MB = (512, 10240)
_VCPU_STEP = 0.05
# Largest share of a card's memory, MB; for a card that is not listed, the largest known value is used.
_GPU_MB_MAX = {"fc.gpu.tesla.1": 16_384, "fc.gpu.ampere.1": 24_576, "fc.gpu.ada.1": 49_152}
_GPU_MB_STEP = 1024


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """Health check of an instance: path, period, time limit, and the failures after which the instance is ended."""

    path: str
    period_s: int
    timeout_s: int
    failure_threshold: int


@dataclass(frozen=True, slots=True)
class Hook:
    """Lifecycle hook with its time limit."""

    timeout_s: int


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """Specification of the instances of a function.

    Attributes:
        name: name of the function.
        handler: passed on to containers, which ignore it.
        vcpu: number of vCPUs.
        memory_mb: memory, MB.
        disk_mb: disk, MB.
        gpu_mb: share of a card's memory, MB; 0 without GPU.
        gpu_type: type of the card.
        timeout_s: time limit of one invocation, seconds.
        concurrency: number of requests that one instance serves at a time.
        environment: the user's variables.
        image: name of the image in the endpoint's configuration.
        entrypoint: replaces the command of the image if not empty.
        command: arguments after it.
        health: the health check; None without one.
        initializer: the initializer hook; None without one.
        pre_stop: the pre-stop hook; None without one.
        on_demand: whether instances may be started for requests.
        idle_s: seconds that an on-demand instance is kept without a request; None for the endpoint's default.
        content: the JSON object as it was sent, for the answer of GetFunction.
    """

    name: str
    handler: str
    vcpu: float
    memory_mb: int
    disk_mb: int
    gpu_mb: int
    gpu_type: str
    timeout_s: int
    concurrency: int
    environment: Mapping[str, str]
    image: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    health: HealthCheck | None
    initializer: Hook | None
    pre_stop: Hook | None
    on_demand: bool
    idle_s: int | None
    content: Mapping[str, Any]

    @property
    def resources(self) -> Resources:
        """Resources of an instance, as they are priced."""
        gb = 1024
        return Resources(self.vcpu, self.memory_mb / gb, self.disk_mb / gb, self.gpu_mb / gb, self.gpu_type)


def read_spec(content: Mapping[str, Any]) -> FunctionSpec:
    """Returns the specification of a body of CreateFunction, or of a body of UpdateFunction merged with the old one.

    Raises:
        FcError: 400 InvalidArgument; the message names the field.
    """
    fields = Fields(content)
    container = _container(fields)
    gpu = fields.inside("gpuConfig")
    gpu_mb, gpu_type = _gpu(gpu) if fields.has("gpuConfig") else (0, "")
    memory_mb = fields.whole("memorySize", 128, 32_768, 512)
    return FunctionSpec(
        name=_name(fields.text("functionName")),
        handler=fields.text("handler"),
        vcpu=_vcpu(fields, memory_mb=memory_mb, gpu_mb=gpu_mb),
        memory_mb=_memory(memory_mb, gpu_mb=gpu_mb),
        disk_mb=_one_of("diskSize", fields.whole("diskSize", 0, 10_240, 512), _DISKS_MB),
        gpu_mb=gpu_mb,
        gpu_type=gpu_type,
        timeout_s=fields.whole("timeout", 1, 86_400, 3),
        concurrency=fields.whole("instanceConcurrency", 1, 200, 1),
        environment=_environment(fields.text_map("environmentVariables")),
        image=container.text("image"),
        entrypoint=container.texts("entrypoint"),
        command=container.texts("command"),
        health=_health(container.inside("healthCheckConfig")),
        initializer=_hook(fields.inside("instanceLifecycleConfig").inside("initializer"), longest_s=300),
        pre_stop=_hook(fields.inside("instanceLifecycleConfig").inside("preStop"), longest_s=90),
        on_demand=not fields.flag("disableOndemand", default=False),
        idle_s=fields.whole("idleTimeout", 1, 86_400) if fields.has("idleTimeout") else None,
        content={key: value for key, value in content.items() if value is not None},
    )


def _container(fields: Fields) -> Fields:
    runtime = fields.text("runtime")
    if runtime != "custom-container":
        raise invalid_argument(f"runtime is {runtime!r}; this endpoint runs 'custom-container' only")
    container = fields.inside("customContainerConfig")
    container.whole("port", 1, 65_535, 9000)
    return container


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise invalid_argument(
            f"functionName {name!r} must be 1 to 64 letters, digits, '_' or '-', the first a letter or '_'"
        )
    return name


def _vcpu(fields: Fields, *, memory_mb: int, gpu_mb: int) -> float:
    memory_gb = memory_mb / 1024
    # If absent, it is the smallest number that the memory allows.
    least = round(math.ceil(memory_gb / 4 / _VCPU_STEP - 1e-9) * _VCPU_STEP, 2)
    vcpu = fields.number("cpu", 0.05, 16, default=least)
    if abs(vcpu / _VCPU_STEP - round(vcpu / _VCPU_STEP)) > 1e-6:
        raise invalid_argument(f"cpu is {vcpu:g}; it must be a multiple of {_VCPU_STEP}")
    if gpu_mb:
        if vcpu > gpu_mb / 1024 / 2:
            raise invalid_argument(f"cpu is {vcpu:g}; with {gpu_mb} MB of GPU memory it is at most {gpu_mb / 2048:g}")
    elif not vcpu - 1e-6 <= memory_gb <= 4 * vcpu + 1e-6:
        raise invalid_argument(f"cpu {vcpu:g} and memorySize {memory_mb} do not go together: 1 to 4 GB a vCPU")
    return vcpu


def _memory(memory_mb: int, *, gpu_mb: int) -> int:
    if memory_mb % 64:
        raise invalid_argument(f"memorySize is {memory_mb}; it must be a multiple of 64")
    if gpu_mb and memory_mb > 2 * gpu_mb:
        raise invalid_argument(f"memorySize is {memory_mb}; with {gpu_mb} MB of GPU memory it is at most {2 * gpu_mb}")
    return memory_mb


def _gpu(gpu: Fields) -> tuple[int, str]:
    kind = gpu.text("gpuType")
    if not kind.startswith("fc.gpu."):
        raise invalid_argument(f"gpuConfig.gpuType is {kind!r}; cards are named fc.gpu.<card>, like fc.gpu.tesla.1")
    size_mb = gpu.whole("gpuMemorySize", _GPU_MB_STEP, _GPU_MB_MAX.get(kind, max(_GPU_MB_MAX.values())))
    if size_mb % _GPU_MB_STEP:
        raise invalid_argument(f"gpuConfig.gpuMemorySize is {size_mb}; it must be a multiple of {_GPU_MB_STEP}")
    return size_mb, kind


def _one_of(key: str, value: int, allowed: tuple[int, ...]) -> int:
    if value not in allowed:
        raise invalid_argument(f"{key} is {value}; it must be one of {', '.join(map(str, allowed))}")
    return value


def _environment(variables: dict[str, str]) -> dict[str, str]:
    size = sum(len(name.encode()) + len(value.encode()) for name, value in variables.items())
    if size > _ENVIRONMENT_BYTES_MAX:
        raise invalid_argument(f"environmentVariables take {size} bytes; at most {_ENVIRONMENT_BYTES_MAX} fit")
    for name in variables:
        if name.startswith("FC_") or not name or "=" in name:
            raise invalid_argument(f"environmentVariables: {name!r} cannot be set (FC_* belongs to the platform)")
    return variables


def _health(health: Fields) -> HealthCheck | None:
    period_s = health.whole("periodSeconds", 1, 120, 3)
    timeout_s = health.whole("timeoutSeconds", 1, 3, 1)
    failures = health.whole("failureThreshold", 1, 120, 3)
    if not health.has("httpGetUrl"):
        return None
    path = health.text("httpGetUrl")
    if not path.startswith("/"):
        raise invalid_argument(f"customContainerConfig.healthCheckConfig.httpGetUrl is {path!r}; begin it with '/'")
    return HealthCheck(path, period_s, timeout_s, failures)


def _hook(hook: Fields, *, longest_s: int) -> Hook | None:
    timeout_s = hook.whole("timeout", 1, longest_s, 3)
    return Hook(timeout_s) if hook.has("handler") else None
