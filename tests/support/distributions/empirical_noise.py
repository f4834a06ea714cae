"""Factors on service times that were measured, as a distribution: the test double of smooth noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.planner.queueing.map_process import ArrivalError
from scheduler.planner.queueing.matrices import Array
from scheduler.planner.queueing.service_noise import Slack


@dataclass(frozen=True, slots=True)
class EmpiricalNoise:
    """Measured factors, all equally probable.

    Attributes:
        factors: at least one, all above 0.
    """

    factors: tuple[float, ...]

    def __post_init__(self) -> None:
        """Checks the factors."""
        if not self.factors or not all(math.isfinite(factor) and factor > 0 for factor in self.factors):
            raise ArrivalError("the factors of a noise must be above 0, and at least one")

    @property
    def longest(self) -> float:
        """The largest factor."""
        return max(self.factors)

    def slack(self, latency_s: float, services_s: Array, timeout_s: float) -> Slack:
        """Returns the rest of the bound at every factor."""
        waits_s = latency_s - services_s[:, None] * np.array(self.factors)
        return Slack(np.zeros(len(services_s)), waits_s, np.full(waits_s.shape, 1 / len(self.factors)))


def measured_noise(seen_s: Sequence[float], predicted_s: Sequence[float]) -> EmpiricalNoise:
    """Returns the factors by which measured service times differ from predicted ones."""
    return EmpiricalNoise(tuple(seen / predicted for seen, predicted in zip(seen_s, predicted_s, strict=True)))
