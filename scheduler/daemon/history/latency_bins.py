"""Latencies as counts in bins that grow by the same factor, from which percentiles are read."""

import math
from collections.abc import Mapping

LEAST_S = 0.001
"""Upper end of the first bin."""
IN_AN_OCTAVE = 5
"""Bins between a latency and twice that: a percentile is then off by a few percent at most."""
BINS = 81
"""The last one begins at about 60 s."""

_MOST_S = LEAST_S * 2 ** ((BINS - 1) / IN_AN_OCTAVE)


def bin_of(latency_s: float) -> int:
    """Returns the bin of a latency.

    >>> bin_of(0.0), bin_of(0.001), bin_of(0.0011), bin_of(0.5), bin_of(3600.0)
    (0, 0, 1, 45, 80)
    """
    if latency_s <= LEAST_S:
        return 0
    if latency_s >= _MOST_S:
        return BINS - 1
    return 1 + int(IN_AN_OCTAVE * math.log2(latency_s / LEAST_S))


def quantile_s(counts: Mapping[int, int], fraction: float) -> float | None:
    """Returns the latency below which that fraction lies, interpolated within its bin; None without any.

    >>> quantile_s({}, 0.5), round(quantile_s({bin_of(0.3): 100}, 0.5), 2)
    (None, 0.32)
    """
    left = fraction * sum(counts.values())
    if not counts:
        return None
    for index in sorted(counts):
        inside = counts[index]
        if left <= inside:
            if index == 0:
                return LEAST_S * left / inside
            return float(LEAST_S * 2 ** ((index - 1 + left / inside) / IN_AN_OCTAVE))
        left -= inside
    return _MOST_S
