"""What a service time is multiplied by: nothing, a lognormal factor, or factors that were measured."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from scheduler.planner.queueing.map_process import ArrivalError
from scheduler.planner.queueing.matrices import Array

_NODES = 40
_FAR = 8.3
"""Standard deviations beyond which lies less than 1e-16."""


@dataclass(frozen=True, slots=True, eq=False)
class Slack:
    """What is left of a latency bound for the wait in the buffer.

    Attributes:
        whole: probability that every wait up to the timeout fits, by batch size, shape (sizes,).
        waits_s: the waits that fit at other factors, shape (sizes, nodes).
        weights: probability of those factors, shape (sizes, nodes).
    """

    whole: Array
    waits_s: Array
    weights: Array


class Noise(Protocol):
    """A distribution of factors on service times, independent from batch to batch."""

    def slack(self, latency_s: float, services_s: Array, timeout_s: float) -> Slack:
        """Returns what `latency_s` leaves for the wait after services of `services_s`, shape (sizes,)."""

    @property
    def longest(self) -> float:
        """A factor that is exceeded with probability below 1e-15."""


@dataclass(frozen=True, slots=True)
class Deterministic:
    """A service takes exactly the predicted time."""

    def slack(self, latency_s: float, services_s: Array, timeout_s: float) -> Slack:  # noqa: ARG002
        """Returns the rest of the bound."""
        shape = (len(services_s), 1)
        return Slack(np.zeros(len(services_s)), (latency_s - services_s)[:, None], np.ones(shape))

    @property
    def longest(self) -> float:
        """Always 1."""
        return 1.0


@dataclass(frozen=True, slots=True)
class LognormalNoise:
    """Factors whose logarithm is normal.

    Attributes:
        sigma: standard deviation of the logarithm, above 0.
        mean: mean factor.
    """

    sigma: float
    mean: float = 1.0

    def __post_init__(self) -> None:
        """Refuses what is no spread."""
        if not (math.isfinite(self.sigma) and self.sigma > 0 and math.isfinite(self.mean) and self.mean > 0):
            raise ArrivalError(f"sigma and mean of a noise must be above 0, not {self.sigma} and {self.mean}")

    @property
    def longest(self) -> float:
        """The factor that many standard deviations out."""
        return self.mean * math.exp(self.sigma * (_FAR - self.sigma / 2))

    def slack(self, latency_s: float, services_s: Array, timeout_s: float) -> Slack:
        """Returns the rest of the bound; the factors between all and none are met by Gauss-Legendre, split there."""
        low = self._normal(latency_s - timeout_s, services_s)
        high = self._normal(latency_s, services_s)
        nodes, weights = np.polynomial.legendre.leggauss(_NODES)
        half = (high - low)[:, None] / 2
        places = low[:, None] + half * (1 + nodes)
        density = np.exp(-(places**2) / 2) / math.sqrt(2 * math.pi)
        factors = self.mean * np.exp(self.sigma * (places - self.sigma / 2))
        below = np.array([0.5 * math.erfc(-place / math.sqrt(2)) for place in low.tolist()])
        return Slack(below, latency_s - services_s[:, None] * factors, half * weights * density)

    def _normal(self, room_s: float, services_s: Array) -> Array:
        """The standard normal number at which the service just fills `room_s`."""
        if room_s <= 0:
            return np.full(len(services_s), -_FAR)
        return np.clip(np.log(room_s / (services_s * self.mean)) / self.sigma + self.sigma / 2, -_FAR, _FAR)


NO_NOISE = Deterministic()
