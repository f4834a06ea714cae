"""Tables of function configurations to choose from: the service time of each batch size, and its cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.planner.catalogue.function_path import AT_ONCE, FunctionPath
from scheduler.planner.catalogue.latency_models import ConfigurationLatency, Resources, ServiceTable
from scheduler.planner.catalogue.prices import PriceSheet
from scheduler.planner.queueing.matrices import Array


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """Configurations of one kind that share a latency model.

    Attributes:
        kind: "cpu" or "gpu".
        latency: their latency model.
        vcpu: vCPUs of each, shape (n,).
        gpu_gb: GPU memory of each, shape (n,); 0 without a GPU.
        memory_gb: memory of each that batches of up to 1, 2, ... B items need, shape (n, B).
        largest: largest batch that each can process, shape (n,).
        gpu_type: the provider's name of the card; empty: the default card of the price sheet.
        disk_gb: disk of each.
    """

    kind: str
    latency: ConfigurationLatency
    vcpu: Array
    gpu_gb: Array
    memory_gb: Array
    largest: Array
    gpu_type: str = ""
    disk_gb: float = 0.5

    def tabulated(self, sheet: PriceSheet, path: FunctionPath = AT_ONCE) -> "Configurations":
        """Returns the service times and prices of all configurations of the family.

        Args:
            sheet: what the provider charges.
            path: uplink and cold starts; neither by default.

        Raises:
            PriceSheetError: the sheet has no price for this kind.
        """
        rates = sheet.rates(gpu=self.kind == "gpu", disk_gb=self.disk_gb, gpu_type=self.gpu_type)
        max_batch = self.memory_gb.shape[1]
        resources = Resources(self.vcpu, self.memory_gb[:, 0], self.gpu_gb)
        services = self.latency.table(resources, max_batch=max_batch, grain_s=rates.grain_s)
        per_s = (
            rates.fixed_per_s
            + rates.per_vcpu_s * self.vcpu[:, None]
            + rates.per_gpu_gb_s * self.gpu_gb[:, None]
            + rates.per_memory_gb_s * self.memory_gb
        )
        return Configurations(
            kind=self.kind,
            vcpu=self.vcpu,
            gpu_gb=self.gpu_gb,
            memory_gb=self.memory_gb,
            allowed=np.arange(1, max_batch + 1)[None, :] <= self.largest[:, None],
            services=path.lengthened(services),
            per_s=per_s,
            per_call=rates.per_call,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Configurations:
    """Tables of n configurations of one kind, for caps and batches of 1 to B items.

    Attributes:
        kind: "cpu" or "gpu".
        vcpu: vCPUs, shape (n,).
        gpu_gb: GPU memory, shape (n,).
        memory_gb: memory by cap, shape (n, B).
        allowed: whether a configuration may have this cap, shape (n, B).
        services: service times by batch size.
        per_s: money a second by cap, shape (n, B).
        per_call: money a call.
    """

    kind: str
    vcpu: Array
    gpu_gb: Array
    memory_gb: Array
    allowed: "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]"
    services: ServiceTable
    per_s: Array
    per_call: float

    @property
    def max_batch(self) -> int:
        """The largest cap of any configuration."""
        return int(self.allowed.shape[1])

    def cost(self, index: int, cap: int) -> Array:
        """Returns the expected money for a batch of 1, 2, ... `cap` items, shape (cap,)."""
        return np.asarray(self.per_s[index, cap - 1] * self.services.billed_s[index, :cap] + self.per_call)


def fastest_s(families: Sequence[Configurations]) -> float:
    """Returns the shortest worst-case service of a single request over all configurations, seconds."""
    return min(
        float(family.services.worst_s[:, 0].min(where=family.allowed[:, 0], initial=np.inf)) for family in families
    )
