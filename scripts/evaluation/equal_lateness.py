"""Costs at equal lateness: what a run costs once it is charged for what it saved by more late answers than allowed.

A policy that is late less often than it may be has left money unspent, and one that is late more often has saved money
that was not its own. So costs are compared at one lateness: cost + w* (late - allowed), with late as the fraction that
was not answered within the SLO. w* is what one late answer fewer costs the best policy that knows no arrival, in units
of a request's cheapest price by function; it is 0 where the percentile holds without spending anything for it.

The values with noise are those that `python -m scripts.limits` measures on a trace (the table in scripts/README.md);
where its maximum is flat, at 0.6 s x 4 and 1 s x 3, they are known to a factor of two. Those with which the required
figures were worked out were 2.5, 2.5 and 2.5 at 0.6 s x 2.4, 3 and 4, and 1.4, 1.4 and 7 at 1 s.
"""

from bisect import bisect_right
from collections.abc import Mapping

ALLOWED = 0.01
"""Fraction of late answers at which costs are compared."""
LATEST = 0.05
"""Fraction of late answers beyond which w* says nothing: it is a price at the margin."""
Multipliers = tuple[tuple[float, float], ...]
"""(factor on the rate, w*) in ascending order; between two factors w* is interpolated, beyond the last it stays."""
NOISY: Mapping[float, Multipliers] = {
    0.6: ((2.2, 0.0), (2.4, 2.6), (3.0, 2.4), (4.0, 4.1)),
    1.0: ((2.2, 0.0), (2.4, 1.6), (3.0, 2.9), (4.0, 6.5)),
}
"""By SLO in seconds, with edge noise 0.1 and function noise 0.25, at about 46.6 requests a second times the factor."""
CALM: Mapping[float, Multipliers] = {
    0.6: ((2.0, 0.0), (2.2, 1.0), (4.0, 1.0)),
    1.0: ((2.2, 0.0), (2.4, 1.0), (4.0, 1.0)),
}
"""The same without noise: there a late answer saves what one request costs."""


def multiplier(slo_s: float, scale: float, *, noisy: bool) -> float | None:
    """Returns w* of an SLO and a factor on the rate; None for an SLO that there is none for."""
    known = (NOISY if noisy else CALM).get(slo_s)
    if known is None:
        return None
    at = bisect_right([factor for factor, _ in known], scale)
    if at in (0, len(known)):
        return known[max(0, at - 1)][1]
    (below, low), (above, high) = known[at - 1], known[at]
    return low + (high - low) * (scale - below) / (above - below)


def at_equal_lateness(cost: float, within: float, multiplier: float) -> float | None:
    """Returns the cost at the allowed lateness; None if too many are late for that, or more than allowed at no price.

    Args:
        cost: as a fraction of serving everything by function.
        within: fraction answered within the SLO.
        multiplier: w*.
    """
    late = 1.0 - within
    return None if late > (LATEST if multiplier else ALLOWED) else cost + multiplier * (late - ALLOWED)
