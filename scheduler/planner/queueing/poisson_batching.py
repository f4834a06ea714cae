"""Exact batch sizes of a buffer fed by Poisson arrivals: opened by a request, closed by a size or a timeout."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoissonBatchSizes:
    """Batch sizes of a buffer that closes at `max_batch` requests or `timeout_s` after its first request.

    By renewal-reward, the cost of a request is E[C(b)] / E[b] over batches. The mean of C(b) / b would weigh small
    batches too much.

    Attributes:
        rate_rps: requests a second; 0 is allowed.
        max_batch: size at which the buffer closes at once, at least 1.
        timeout_s: longest wait of the first request, at least 0; infinite: only the size closes the buffer.

    Ten requests a second for a timeout of 0.1 s are one further request on average. None comes with probability 1/e,
    one with 1/e, and more with 1 - 2/e. The mean batch is (1 + 2 + 3 (e - 2)) / e = 1.8964, and a price of 5 for every
    batch is 5 / 1.8964 for a request:

    >>> batches = PoissonBatchSizes(rate_rps=10.0, max_batch=3, timeout_s=0.1)
    >>> [round(p, 4) for p in batches.sizes]
    [0.3679, 0.3679, 0.2642]
    >>> round(batches.mean_size, 4), round(batches.cost_per_request([5.0, 5.0, 5.0]), 4)
    (1.8964, 2.6366)
    """

    rate_rps: float
    max_batch: int
    timeout_s: float

    def __post_init__(self) -> None:
        """Checks the parameters."""
        if self.max_batch < 1:
            raise ValueError(f"max_batch must be at least 1, not {self.max_batch}")
        if not (math.isfinite(self.rate_rps) and self.rate_rps >= 0 and self.timeout_s >= 0):
            raise ValueError(f"rate and timeout must be at least 0, not {self.rate_rps} and {self.timeout_s}")

    @property
    def expected_arrivals(self) -> float:
        """Mean number of arrivals in one timeout."""
        return self.rate_rps * self.timeout_s if self.rate_rps > 0 else 0.0

    @property
    def sizes(self) -> tuple[float, ...]:
        """Probability of a batch of 1, 2, ... `max_batch` requests."""
        below = [_poisson(k, self.expected_arrivals) for k in range(self.max_batch - 1)]
        return (*below, max(0.0, 1.0 - math.fsum(below)))

    @property
    def mean_size(self) -> float:
        """Mean requests in a batch."""
        return math.fsum(b * p for b, p in enumerate(self.sizes, start=1))

    def cost_per_request(self, costs: Sequence[float]) -> float:
        """Returns E[C(b)] / E[b].

        Args:
            costs: C(1), C(2), ... for every size up to `max_batch`.
        """
        sizes = self.sizes
        paid = math.fsum(p * cost for p, cost in zip(sizes, costs, strict=True))
        return paid / math.fsum(b * p for b, p in enumerate(sizes, start=1))


def _poisson(count: int, mean: float) -> float:
    """Returns the probability of `count` arrivals; computed in logarithms, so that large means do not overflow."""
    if mean == 0:
        return float(count == 0)
    if math.isinf(mean):
        return 0.0
    return math.exp(count * math.log(mean) - mean - math.lgamma(count + 1))
