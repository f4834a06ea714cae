"""Latency of a backend as a function of the batch size, and the price of its work."""

import math
from bisect import bisect_left
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """Latency model of one backend: seconds by items in the batch, as a measured table, a fitted line, or both.

    Within the measured range the table is interpolated, because fits are too low for small batches (the published Orin
    fit by a factor of 1.3 to 2.8 below 8 items). Beyond it the last row is extended with the slope of the fit.
    """

    alpha_s: float
    beta_s: float
    max_batch: int
    rows: tuple[tuple[int, float], ...] = ()
    """(batch, median seconds), ascending in batch; empty where only a fit is known."""
    decode_s: float = 0.0
    """Seconds a batch is decoded before the device serves it, which serves others; in no row and no prediction."""

    def __post_init__(self) -> None:
        """Checks the values; ValueError where they are no latency model."""
        if self.max_batch < 1:
            raise ValueError(f"max_batch must be at least 1, not {self.max_batch}")
        if not all(math.isfinite(x) and x >= 0 for x in (self.alpha_s, self.beta_s)) or self.alpha_s + self.beta_s <= 0:
            raise ValueError(
                f"a latency model needs alpha_s and beta_s >= 0, not both 0: {self.alpha_s}, {self.beta_s}"
            )
        if not (math.isfinite(self.decode_s) and self.decode_s >= 0):
            raise ValueError(f"decode_s must be at least 0, not {self.decode_s}")
        if any(b2 <= b1 for (b1, _), (b2, _) in zip(self.rows, self.rows[1:], strict=False)):
            raise ValueError("the rows of a latency model must ascend in batch size")
        if any(batch < 1 or not math.isfinite(s) or s <= 0 for batch, s in self.rows):
            raise ValueError("the rows of a latency model need batch >= 1 and latencies above 0")

    def predict_s(self, items: int) -> float:
        """Returns the expected seconds of a batch of `items` (>= 1)."""
        if not self.rows:
            return self.alpha_s + self.beta_s * items
        sizes = [batch for batch, _ in self.rows]
        i = bisect_left(sizes, items)
        if i < len(sizes) and sizes[i] == items:
            return self.rows[i][1]
        if i == 0:
            return self.rows[0][1]
        low, low_s = self.rows[i - 1]
        if i == len(sizes):
            return low_s + self.beta_s * (items - low)
        high, high_s = self.rows[i]
        return low_s + (high_s - low_s) * (items - low) / (high - low)

    def slower(self, factor: float) -> "LatencyModel":
        """Returns the latency model of a backend that takes `factor` (above 0) times as long for every batch."""
        if factor == 1.0:
            return self
        rows = tuple((batch, factor * seconds) for batch, seconds in self.rows)
        return LatencyModel(factor * self.alpha_s, factor * self.beta_s, self.max_batch, rows, self.decode_s)


@dataclass(frozen=True, slots=True)
class Price:
    """Price of an invocation: a rate for its duration, rounded up to the grain, and a fee for each call.

    `sheet` names the price sheet that it comes from; sheets are data with source and date (scheduler/planner/prices).
    """

    per_s: float
    per_call: float
    grain_s: float = 0.001
    currency: str = "CNY"
    sheet: str = "none"

    def __post_init__(self) -> None:
        """Checks the values; ValueError where a rate is negative or the grain is not above 0."""
        if min(self.per_s, self.per_call, self.grain_s) < 0 or self.grain_s == 0:
            raise ValueError(f"price sheet {self.sheet!r}: rates must not be negative and the grain must be above 0")

    def billed_s(self, duration_s: float) -> float:
        """Returns the seconds that the provider bills for a run of `duration_s`."""
        # The 1e-9 keeps 0.003 s at a grain of 1 ms from becoming 4 ms through its binary representation.
        return math.ceil(duration_s / self.grain_s - 1e-9) * self.grain_s

    def cost(self, duration_s: float) -> float:
        """Returns the money for one call that runs `duration_s`, in the price's currency."""
        return self.per_s * self.billed_s(duration_s) + self.per_call


ANY_BYTES = 2**62
"""Where no limit is known."""


@dataclass(frozen=True, slots=True)
class FunctionTier:
    """A function configuration: the function to invoke, its latency model and its price."""

    name: str
    function_name: str
    latency: LatencyModel
    price: Price
    qualifier: str = "LATEST"
    max_in_flight: int = 32
    max_body_bytes: int = ANY_BYTES
    """Most bytes of the requests of one call: what the provider's limit leaves beside encoding and frame."""
    provisioned: int = 0
    """Instances that the provider always keeps warm, as deployed: no batch meets a cold start while fewer are busy."""
    idle_per_s: float = 0.0
    """Money a second for each of them without a call, in the price's currency."""
