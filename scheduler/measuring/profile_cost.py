"""What the invocations of `edgeburst profile function` will cost, before they are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models.profile import Profile, load_profile
from scheduler.planner.catalogue.prices import PriceSheet

ASSUMED_PROFILE = "fc-resnet50-1gb"
"""The service times that are assumed before any is measured: a 1 GB function with a model of usual size."""


@dataclass(frozen=True, slots=True)
class ProfileCost:
    """Expected cost of a measurement.

    Attributes:
        invocations: number of calls, without repetitions for cold starts.
        seconds: their seconds, if services take as long as the assumed profile says.
        cost: money for them.
        currency: currency of the money.
        sheet: name of the price sheet.
        memory_gb: memory that was priced, GB.
        memory_given: whether the user gave it.
    """

    invocations: int
    seconds: float
    cost: float
    currency: str
    sheet: str
    memory_gb: float
    memory_given: bool

    def sentence(self) -> str:
        """Returns the cost as one sentence, with what it assumes.

        >>> ProfileCost(165, 96.5, 0.00137, "CNY", "cny-gbs-2023", 1.0, memory_given=False).sentence()
        '165 invocations will be billed, about 0.00137 CNY by price sheet cny-gbs-2023 if an instance has 1 GB (give \
--memory-mb) and a batch takes as long as with profile fc-resnet50-1gb, 96 s in all; cold starts are billed in addition'
        """
        memory = f"an instance has {self.memory_gb:g} GB{'' if self.memory_given else ' (give --memory-mb)'}"
        return (
            f"{self.invocations} invocations will be billed, about {self.cost:.3g} {self.currency} by price sheet"
            f" {self.sheet} if {memory} and a batch takes as long as with profile {ASSUMED_PROFILE},"
            f" {self.seconds:.0f} s in all; cold starts are billed in addition"
        )


def profile_cost(
    batches: Sequence[int],
    *,
    calls_of_each: int,
    sheet: PriceSheet,
    memory_mb: float | None,
    vcpu: float | None = None,
    gpu_gb: float | None = None,
) -> ProfileCost:
    """Returns what measuring batches of these sizes will cost.

    Args:
        batches: batch sizes.
        calls_of_each: calls of each size, warm-up included.
        sheet: prices.
        memory_mb: memory of an instance; None: 1 GB is assumed.
        vcpu: its vCPUs; None: one for each GB.
        gpu_gb: its GPU memory; None: none.

    Raises:
        PriceSheetError: the sheet has no price for such an instance.
    """
    memory_gb = 1.0 if memory_mb is None else memory_mb / 1024
    price = sheet.tier_price(memory_gb=memory_gb, vcpu=memory_gb if vcpu is None else vcpu, gpu_gb=gpu_gb or 0.0)
    assumed = load_profile(ASSUMED_PROFILE)
    services_s = [_service_s(assumed, items) for items in batches]
    return ProfileCost(
        invocations=len(batches) * calls_of_each,
        seconds=calls_of_each * sum(services_s),
        cost=calls_of_each * sum(price.cost(service_s) for service_s in services_s),
        currency=sheet.currency,
        sheet=sheet.name,
        memory_gb=memory_gb,
        memory_given=memory_mb is not None,
    )


def _service_s(profile: Profile, items: int) -> float:
    return profile.alpha_s + profile.beta_s * items
