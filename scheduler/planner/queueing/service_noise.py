"""Distributions of the factor by which a service time differs from its prediction: none, or lognormal."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from scheduler.planner.queueing.map_process import ArrivalError
from scheduler.planner.queueing.matrices import Array

_NODES = 40
"""Nodes of the quadrature over a lognormal factor. Judgement: the oracle holds the result to 2e-5 against 20,000 equal
parts of the distribution; half as many nodes would save time that no plan spends."""
_FAR = 8.3
"""Standard deviations beyond which a normal distribution has less than 1e-16."""


@dataclass(frozen=True, slots=True, eq=False)
class Slack:
    """The part of a latency bound that is left for the wait in the buffer.

    Attributes:
        whole: probability that every wait up to the timeout fits, by batch size, shape (sizes,).
        waits_s: longest waits that fit at the other factors, shape (sizes, nodes).
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
    """No noise: a service takes exactly the predicted time."""

    def slack(self, latency_s: float, services_s: Array, timeout_s: float) -> Slack:  # noqa: ARG002
        """Returns the bound less the service times."""
        shape = (len(services_s), 1)
        return Slack(np.zeros(len(services_s)), (latency_s - services_s)[:, None], np.ones(shape))

    @property
    def longest(self) -> float:
        """The factor 1."""
        return 1.0


@dataclass(frozen=True, slots=True)
class LognormalNoise:
    """Factors whose logarithm is normally distributed.

    Attributes:
        sigma: standard deviation of the logarithm, above 0.
        mean: mean factor.
    """

    sigma: float
    mean: float = 1.0

    def __post_init__(self) -> None:
        """Checks the parameters."""
        if not (math.isfinite(self.sigma) and self.sigma > 0 and math.isfinite(self.mean) and self.mean > 0):
            raise ArrivalError(f"sigma and mean of a noise must be above 0, not {self.sigma} and {self.mean}")

    @property
    def longest(self) -> float:
        """The factor at 8.3 standard deviations."""
        return self.mean * math.exp(self.sigma * (_FAR - self.sigma / 2))

    def slack(self, latency_s: float, services_s: Array, timeout_s: float) -> Slack:
        """Returns the rest of the bound, by Gauss-Legendre quadrature over the factor.

        The quadrature runs from the factor that leaves time for every wait to the factor that leaves time for none.
        """
        low = self._normal(latency_s - timeout_s, services_s)
        high = self._normal(latency_s, services_s)
        nodes, weights = np.polynomial.legendre.leggauss(_NODES)
        half = (high - low)[:, None] / 2
        places = low[:, None] + half * (1 + nodes)
        density = np.exp(-(places**2) / 2) / math.sqrt(2 * math.pi)
        factors = self.mean * np.exp(self.sigma * (places - self.sigma / 2))
        below = np.array([0.5 * math.erfc(-place / math.sqrt(2)) for place in low.tolist()])
        return Slack(below, latency_s - services_s[:, None] * factors, half * weights * density)

    def _normal(self, service_s: float, services_s: Array) -> Array:
        """Returns the standard normal number at which the service takes exactly `service_s`."""
        if service_s <= 0:
            return np.full(len(services_s), -_FAR)
        return np.clip(np.log(service_s / (services_s * self.mean)) / self.sigma + self.sigma / 2, -_FAR, _FAR)


NO_NOISE = Deterministic()
