"""Predicted service times by batch size, as tables."""

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from scheduler.domain.scatter import Scatter


@dataclass(frozen=True, slots=True, eq=False)
class ServiceTimes:
    """Tables of predicted service times by batch size; each request reads them several times.

    Index = items; index 0 is 0 s, so that an empty batch costs nothing.

    >>> times = service_times([0.1, 0.15], margin=1.2)
    >>> times.largest_within(0.15, safe=False), times.largest_within(0.15, safe=True)
    (2, 1)
    """

    median_s: tuple[float, ...]
    safe_s: tuple[float, ...]
    """The medians multiplied by `margin`."""
    margin: float = 1.0
    """Factor on the median that a batch does not exceed, with the wanted probability."""
    scatter: Scatter = Scatter()
    """Distribution of services around the median."""
    forecast: Scatter = Scatter()
    """The same of the next service: wider while few have shown how they vary."""
    max_batch: int = 0
    """Largest batch in the tables."""
    others: tuple[float, float] = (0.0, 0.0)
    """Of a median: seconds of any batch that are the wait behind other daemons' batches, and the part that is."""

    def others_s(self, items: int) -> float:
        """Returns the part of the median that is the wait behind other daemons' batches at a shared edge server."""
        median_s, (any_s, part) = self.median_s[items], self.others
        return min(median_s, any_s + part * median_s)

    def largest_within(self, seconds: float, *, safe: bool) -> int:
        """Returns the largest batch that takes at most `seconds`; 0 if no batch does."""
        return bisect_right(self.safe_s if safe else self.median_s, seconds) - 1 if seconds >= 0 else 0

    def late_probability(self, items: int, time_left_s: float) -> float:
        """Returns the probability that a batch of `items` takes longer than `time_left_s`."""
        if time_left_s <= 0:
            return 1.0
        part = time_left_s / self.median_s[items]
        # The smallest of floats divided by more than 1 is 0.
        return self.forecast.exceeds(math.log(part)) if part > 0.0 else 1.0


def service_times(
    predicted_s: Iterable[float],
    *,
    margin: float,
    scatter: Scatter | None = None,
    forecast: Scatter | None = None,
    others: tuple[float, float] = (0.0, 0.0),
) -> ServiceTimes:
    """Tabulates predictions for batches of 1, 2, ... items.

    A larger batch is never predicted to be faster than a smaller one, whatever noise the model was learned from:
    the tables are searched by bisection.
    """
    median = tuple(accumulate(predicted_s, max, initial=0.0))
    safe = tuple([s * margin for s in median])
    scatter = Scatter(sigma=0.0) if scatter is None else scatter
    forecast = scatter if forecast is None else forecast
    return ServiceTimes(median, safe, margin, scatter, forecast, len(median) - 1, others)
