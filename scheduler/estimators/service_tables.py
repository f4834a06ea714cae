"""Service tables that are made anew when what is learned has moved enough to matter."""

import math
from dataclasses import dataclass, field
from operator import sub

from scheduler.domain.scatter import Scatter
from scheduler.domain.service_times import ServiceTimes, service_times
from scheduler.estimators.edge_service import EdgeService
from scheduler.estimators.service_time import ServiceTime

MARGIN_STEP = 0.002
"""A margin that moves by less than this is not worth new tables. Judgement: halved or doubled, cost and lateness stay
within noise."""
STILL = 1e-3
"""Nor are predictions whose logarithm moves by less. Derived: it is below any noise; with 0 no simulation differs."""
STILL_SIGMAS = 0.02
"""The same as a part of what answers stray by anyway. Judgement: halved or doubled, cost and lateness stay within
noise."""
STALE_PART = 64
"""The distribution of the scatter may lag by one answer in so many: no probability in it is off by more than that.
Judgement: halved or doubled, cost and lateness stay within noise."""


@dataclass(slots=True)
class TimesCache:
    """Service tables of one backend, made anew when predictions, the margin or the scatter have moved enough to matter.

    New tables cost more than themselves: all that was worked out from the old ones is worked out anew.
    """

    estimator: ServiceTime | EdgeService
    max_batch: int
    size_factor: float = 1.0
    """On every prediction."""
    forecasts: bool = False
    """Whether lateness follows the forecast. An edge's first dozen answers come before much is decided by them."""
    times: ServiceTimes | None = None
    percentile: float = 0.0
    looked_at: int = 0
    """The estimator's lessons when the tables were last compared with it."""
    made_at: int = 0
    """The same when they were made."""
    log_factors: list[float] = field(default_factory=list)
    """The factors on the latency model that they were made with."""

    def get(self, percentile: float) -> ServiceTimes:
        """Returns the tables for what the estimator knows now."""
        times, estimator = self.times, self.estimator
        lessons = estimator.lessons
        if times is not None and self.looked_at == lessons and self.percentile == percentile:
            return times
        self.looked_at, self.percentile = lessons, percentile
        scatter = estimator.scatter()
        margin = max(1.0, math.exp(scatter.quantile(percentile)))
        if times is None or abs(margin - times.margin) > MARGIN_STEP or self._outdated(scatter):
            self.made_at, self.log_factors = lessons, estimator.log_factors()
            predicted_s = [self.size_factor * seconds for seconds in estimator.predict_all_s(self.max_batch)]
            forecast = estimator.forecast() if self.forecasts else scatter
            others = estimator.wait_terms if isinstance(estimator, EdgeService) else (0.0, 0.0)
            times = service_times(predicted_s, margin=margin, scatter=scatter, forecast=forecast, others=others)
            self.times = times
        return times

    def _outdated(self, scatter: Scatter) -> bool:
        lag = self.estimator.lessons - self.made_at
        if lag == 0:
            return False
        moved = max(map(abs, map(sub, self.estimator.log_factors(), self.log_factors)))
        return moved > max(STILL, STILL_SIGMAS * scatter.sigma) or lag * STALE_PART >= len(scatter.ordered)
