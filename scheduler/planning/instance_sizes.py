"""Resources of a function instance, in the steps in which the provider sells them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from scheduler.domain.errors import EdgeburstError

# Steps and ratios: the provider's limits-of-usage and instance-types-and-specifications, read 2026-11. They serve to
# round up and to fill in missing values; the provider decides in the end.
_VCPU_STEP = 0.05
_MEMORY_STEP_MB = 64
_VCPU_MAX = 16.0
_MEMORY_GB_PER_VCPU_MAX = 4.0
_VCPU_PER_GPU_GB = 0.5
_MEMORY_GB_PER_GPU_GB = 2.0
_DISK_SMALL_GB, _DISK_LARGE_GB = 0.5, 10.0
_EXACT = 1e-6
"""Rounding of a size in the steps of the provider that does not count as another step."""


class SizeError(EdgeburstError):
    """The provider sells no instance of this size. The message names the tier and the sizes that are sold."""


@dataclass(frozen=True, slots=True)
class Size:
    """Resources of an instance; vCPU and memory are 0 where they are not given.

    Attributes:
        vcpu: vCPUs.
        memory_gb: memory.
        gpu_gb: share of a card's memory; 0 without GPU.
        gpu_type: the provider's name of the card; "" without GPU.
        disk_gb: disk.
    """

    vcpu: float
    memory_gb: float
    gpu_gb: float = 0.0
    gpu_type: str = ""
    disk_gb: float = _DISK_SMALL_GB

    @property
    def label(self) -> str:
        """A name of the size that can be an alias.

        >>> Size(vcpu=0.35, memory_gb=0.5).label
        'cpu-0_35v-512mb'
        """
        card = f"gpu-{self.gpu_gb:g}gb" if self.gpu_gb else "cpu"
        return f"{card}-{self.vcpu:g}v-{round(self.memory_gb * 1024)}mb".replace(".", "_")

    def configuration(self) -> dict[str, Any]:
        """Returns the size in the provider's fields."""
        fields: dict[str, Any] = {
            "cpu": self.vcpu,
            "memorySize": round(self.memory_gb * 1024),
            "diskSize": round(self.disk_gb * 1024),
        }
        if self.gpu_gb:
            fields["gpuConfig"] = {"gpuType": self.gpu_type, "gpuMemorySize": round(self.gpu_gb * 1024)}
        return fields


def fitted(size: Size, *, where: str) -> Size:
    """Returns the size rounded up to the provider's steps, with missing values filled in.

    A missing value is 1 GB for each vCPU, so that a size with memory alone is as fast as possible. With a GPU it is the
    most that comes with its share.

    Args:
        size: size as configured or planned.
        where: name of its owner, for the message.

    Raises:
        SizeError: vCPU and memory do not go together.

    >>> fitted(Size(vcpu=0, memory_gb=1.0), where="tier 1gb").vcpu
    1.0
    """
    if not size.vcpu and not size.memory_gb and not size.gpu_gb:
        raise SizeError(f"{where} has neither vCPU nor memory; give it at least one of `vcpu` and `memory_gb`")
    sized = _with_gpu(size, where) if size.gpu_gb else _without_gpu(size, where)
    return replace(sized, disk_gb=_DISK_SMALL_GB if size.disk_gb <= _DISK_SMALL_GB + _EXACT else _DISK_LARGE_GB)


def size_in(configuration: Mapping[str, Any]) -> str:
    """Returns a phrase for the resources in a function's configuration."""
    words = f"{configuration.get('cpu', 0):g} vCPU, {configuration.get('memorySize', 0)} MB"
    card = configuration.get("gpuConfig") or {}
    return f"{words}, GPU {card['gpuMemorySize']} MB" if card.get("gpuMemorySize") else words


def _without_gpu(size: Size, where: str) -> Size:
    memory_gb = _memory_gb(size.memory_gb or size.vcpu)
    vcpu = _vcpu(size.vcpu) if size.vcpu else _max_vcpu(memory_gb)
    if not vcpu - _EXACT <= memory_gb <= _MEMORY_GB_PER_VCPU_MAX * vcpu + _EXACT:
        raise SizeError(
            f"{where} has {vcpu:g} vCPU with {memory_gb:g} GB; the provider sells 1 to"
            f" {_MEMORY_GB_PER_VCPU_MAX:g} GB for each vCPU"
        )
    return replace(size, vcpu=vcpu, memory_gb=memory_gb, gpu_type="")


def _with_gpu(size: Size, where: str) -> Size:
    gpu_gb = math.ceil(size.gpu_gb - _EXACT)
    max_vcpu, max_gb = gpu_gb * _VCPU_PER_GPU_GB, gpu_gb * _MEMORY_GB_PER_GPU_GB
    sized = replace(
        size,
        gpu_gb=float(gpu_gb),
        vcpu=_vcpu(size.vcpu or max_vcpu),
        memory_gb=_memory_gb(size.memory_gb or max_gb),
    )
    if sized.vcpu > max_vcpu + _EXACT or sized.memory_gb > max_gb + _EXACT:
        raise SizeError(
            f"{where} has {sized.vcpu:g} vCPU and {sized.memory_gb:g} GB with {gpu_gb} GB of a GPU; the provider sells"
            f" at most {max_vcpu:g} vCPU and {max_gb:g} GB with it"
        )
    return sized


def _vcpu(vcpu: float) -> float:
    return round(math.ceil(vcpu / _VCPU_STEP - _EXACT) * _VCPU_STEP, 2)


def _max_vcpu(memory_gb: float) -> float:
    return min(_VCPU_MAX, round(math.floor(memory_gb / _VCPU_STEP + _EXACT) * _VCPU_STEP, 2))


def _memory_gb(memory_gb: float) -> float:
    return max(2, math.ceil(memory_gb * 1024 / _MEMORY_STEP_MB - _EXACT)) * _MEMORY_STEP_MB / 1024
