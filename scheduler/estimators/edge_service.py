"""How long an edge server takes, and of that the wait behind batches of other daemons where they share it.

A batch that waits behind another daemon's looks like a slow one. A server that reports the wait lets both be learned
apart: the service from the seconds without it, the wait as a mean of the latest batches, which follows within eight of
them while the service's own level needs 64. What is learned from the whole seconds goes on beside it. It decides again
when predictions by the reports turn out worse, when the server reports no more, or when the others are gone: a server
that reports what is not so shifts seconds between the two, and their sum stays what was measured.
"""

import copy
import math
from collections import deque

from scheduler.domain.scatter import Scatter
from scheduler.domain.statistics import SharedWait
from scheduler.estimators.changepoint import Change
from scheduler.estimators.residuals import ResidualWindow
from scheduler.estimators.service_time import ServiceTime

WEIGHT = 0.125
"""Of a batch in all means here. Judgement: eight batches; in simulations of two daemons half and double are alike."""
FEWEST = 8
"""Batches that are compared before the reports decide, and after which a server that reports none reports no more."""
BEGIN_SHARE = 0.02
"""Part of its seconds that batches wait for others from which on these count. Judgement: below, nothing is won, and a
server's own bookkeeping looks alike."""
END_SHARE = 0.005
"""The same below which the others are gone. Judgement: some forty batches without any wait say so."""
WORSE = 1.1
"""Mean error of predictions by the reports, over that without them, above which they do not decide."""
HALF_LIFE_S = 10.0
"""Seconds without a batch after which half of the wait is forgotten. Judgement: a daemon that shares a cap is taken for
gone when it is silent for as long."""
STEP = 0.02
"""Part of a batch's seconds by which the wait must move before tables are made anew."""
FEW_BATCHES, SHORT_WAIT, PREDICTS_WORSE = "few-batches", "short-wait", "predicts-worse"
"""Why the reports do not decide: too few batches, too short a wait, or predictions by the reports were worse."""
WINDOW = 512
"""Batches from which the scatter about the predictions is read, as for services."""


class _Apart:
    """Service and wait, each for itself.

    Args:
        service: what is known of the service so far.
        grows: see `EdgeService`.
        since_s: when others were first seen.
    """

    def __init__(self, service: ServiceTime, *, grows: bool, since_s: float) -> None:
        self.service, self.grows, self.since_s = service, grows, since_s
        self.batches = 0
        self.unsaid = 0
        """Batches since the last one of which the wait is known."""
        self.wait_s = self.served_s = 0.0
        """Mean seconds of the wait, and of the service beside it."""
        self.held_wait_s = self.held_served_s = 0.0
        """The same as predicted with: they move in steps."""
        self.error = self.error_of_whole = 0.0
        """Mean distance of the logarithm of what was predicted from what came, by the reports and without them."""
        self.residuals = ResidualWindow(size=WINDOW, prior_sigma=0.1)
        self.seen_at_s = -math.inf
        self.recent: deque[tuple[float, float]] = deque(maxlen=FEWEST)
        """Wait and service of the last batches."""

    @property
    def decides(self) -> bool:
        """Whether predictions are made by the reports."""
        return not self.doubt

    @property
    def doubt(self) -> str:
        """Why predictions are not made by the reports; empty: they are."""
        if self.batches < FEWEST:
            return FEW_BATCHES
        if self.wait_s < BEGIN_SHARE * (self.wait_s + self.served_s):
            return SHORT_WAIT
        return "" if self.error <= WORSE * self.error_of_whole else PREDICTS_WORSE

    @property
    def gone(self) -> bool:
        """Whether others are not there any more, or the server says nothing of them."""
        waits = self.wait_s >= END_SHARE * (self.wait_s + self.served_s)
        return self.unsaid >= FEWEST or (self.batches >= FEWEST and not waits)

    def with_wait_s(self, service_s: float) -> float:
        """Returns the seconds of a batch from those of its service."""
        if self.grows and self.held_served_s:
            return service_s * (1.0 + self.held_wait_s / self.held_served_s)
        return service_s + self.held_wait_s

    def update(self, items: int, observed_s: float, wait_s: float, *, of_whole_s: float, now_s: float) -> Change | None:
        predicted_s = self.with_wait_s(self.service.predict_s(items))
        residual = math.log(observed_s / predicted_s)
        self.batches += 1
        self.unsaid, self.seen_at_s = 0, now_s
        weight = max(WEIGHT, 1.0 / self.batches)
        self.error += weight * (abs(residual) - self.error)
        self.error_of_whole += weight * (abs(math.log(observed_s / of_whole_s)) - self.error_of_whole)
        self.residuals.update(residual)
        change = self.service.update(items, observed_s - wait_s)
        self.recent.append((wait_s, observed_s - wait_s))
        self.wait_s += weight * (wait_s - self.wait_s)
        self.served_s += weight * (observed_s - wait_s - self.served_s)
        if abs(self.wait_s - self.held_wait_s) > STEP * (self.held_wait_s + self.held_served_s):
            self.held_wait_s, self.held_served_s = self.wait_s, self.served_s
        return change

    def restart(self, run_length: int) -> None:
        """Starts from the last batches where the whole seconds show that others began, stopped, or send other ones."""
        since = list(self.recent)[-max(1, run_length) :]
        if since:
            self.wait_s = self.held_wait_s = sum([wait_s for wait_s, _ in since]) / len(since)
            self.served_s = self.held_served_s = sum([served_s for _, served_s in since]) / len(since)
            self.error = self.error_of_whole = 0.0

    def forget(self, now_s: float) -> None:
        """Forgets a part of the wait, as of a time since which no batch came back."""
        self.wait_s *= 0.5 ** ((now_s - self.seen_at_s) / HALF_LIFE_S)
        self.held_wait_s, self.held_served_s, self.seen_at_s = self.wait_s, self.served_s, now_s


class EdgeService:
    """Median seconds of a batch on one edge server by its size, and their scatter; waits for other daemons included.

    Args:
        whole: learns from whole seconds; it is the prior of the service too.
        grows: whether the wait is taken to be longer for a larger batch, in proportion to its service. Others gather
            requests while a batch of ours is served, so that a larger one of ours is followed by a larger one of
            theirs. Without functions that caution costs throughput which nothing replaces, with functions it keeps
            daemons from outbidding each other: `python -m scripts.shared_edge` has rows of both.

    >>> from scheduler.domain.latency import LatencyModel
    >>> edge = EdgeService(ServiceTime(LatencyModel(alpha_s=0.04, beta_s=0.01, max_batch=32)), grows=False)
    >>> for number in range(64):
    ...     _ = edge.update(6, 0.1 + 0.05, others_s=0.05, now_s=float(number))
    >>> edge.shared, round(edge.predict_s(6), 2), round(edge.predict_s(16), 2)
    (True, 0.15, 0.25)
    """

    def __init__(self, whole: ServiceTime, *, grows: bool) -> None:
        """Stores the parameters."""
        self._whole = whole
        self._grows = grows
        self._apart: _Apart | None = None
        self._waits = 0.0
        """Mean part of a batch's seconds that it waited for others, while that is not learned apart."""
        self.shared = False
        """Whether predictions are made by what the server reports of waits for others."""
        self.lessons = whole.lessons
        """While it stays the same, no prediction has changed."""

    @property
    def wait_s(self) -> float:
        """Mean seconds for which a batch waits for those of other daemons, as far as that decides."""
        return self._apart.held_wait_s if self._apart is not None and self.shared else 0.0

    @property
    def others(self) -> SharedWait | None:
        """What is known of the wait for other daemons; None: none was seen, or they are gone."""
        apart = self._apart
        if apart is None:
            return None
        doubt = "" if self.shared else apart.doubt or FEW_BATCHES
        return SharedWait(apart.since_s, apart.wait_s, self.wait_s, doubt)

    @property
    def wait_terms(self) -> tuple[float, float]:
        """Seconds of a predicted batch that are such a wait at any size, and the part of it that grows with it."""
        wait_s, apart = self.wait_s, self._apart
        if apart is None or not (wait_s and apart.grows and apart.held_served_s):
            return wait_s, 0.0
        return 0.0, wait_s / (wait_s + apart.held_served_s)

    @property
    def times_profile(self) -> float:
        """Seconds of a service over the profile's, without the model's error at single sizes."""
        return self._service.times_profile

    @property
    def _service(self) -> ServiceTime:
        return self._apart.service if self._apart is not None and self.shared else self._whole

    def predict_s(self, items: int) -> float:
        """Returns the median seconds for a batch of `items` (>= 1)."""
        return self._with_wait_s(self._service.predict_s(items))

    def predict_all_s(self, max_batch: int) -> list[float]:
        """Returns the median seconds for batches of 1, 2, ... `max_batch` items, faster than one by one."""
        if not self.shared:
            return self._whole.predict_all_s(max_batch)
        return [self._with_wait_s(service_s) for service_s in self._service.predict_all_s(max_batch)]

    def _with_wait_s(self, service_s: float) -> float:
        return self._apart.with_wait_s(service_s) if self._apart is not None and self.shared else service_s

    def log_factors(self) -> list[float]:
        """Returns the logarithm of prediction over latency model by band of sizes, and how much the wait adds."""
        if not self.shared:
            return [*self._whole.log_factors(), 0.0]
        service_s = self._service.predict_s(1)
        return [*self._service.log_factors(), math.log(self._with_wait_s(service_s) / service_s)]

    def quantile_factor(self, percentile: float) -> float:
        """Returns the factor on `predict_s` within which a batch stays with a given probability, in (0, 1)."""
        return math.exp(self.scatter().quantile(percentile))

    def scatter(self) -> Scatter:
        """Returns the distribution of log(observed / predicted) over all batch sizes."""
        return self._apart.residuals.scatter() if self._apart is not None and self.shared else self._whole.scatter()

    def forecast(self) -> Scatter:
        """Returns the distribution for the next answer: wider than the scatter while few have shown how they vary."""
        return self._apart.residuals.forecast() if self._apart is not None and self.shared else self._whole.forecast()

    def update(self, items: int, observed_s: float, *, others_s: float | None, now_s: float) -> Change | None:
        """Learns from an answered batch.

        Args:
            items: batch size.
            observed_s: its seconds, waits for others included; it is ignored if they are not positive and finite.
            others_s: those for which it waited behind batches of other daemons; None: not known.
            now_s: the present.

        Returns:
            The change of level that this batch revealed, or None.
        """
        if not (math.isfinite(observed_s) and observed_s > 0.0):
            return None
        of_service = None
        if self._apart is None and others_s is not None:
            # The mean: to begin takes a copy of all that is known, which a rare wait is not worth.
            self._waits += WEIGHT * (others_s / observed_s - self._waits)
            if self._waits > BEGIN_SHARE:
                self._apart, self._waits = self._begin(now_s), 0.0
        if (apart := self._apart) is not None:
            if others_s is None:
                apart.unsaid += 1
            elif others_s < observed_s:
                of_whole_s = self._whole.predict_s(items)
                of_service = apart.update(items, observed_s, others_s, of_whole_s=of_whole_s, now_s=now_s)
        before = self._whole.lessons
        change = self._whole.update(items, observed_s)
        self.lessons += self._whole.lessons - before
        if apart is not None:
            if change is not None:
                apart.restart(change.run_length)
            if apart.gone:
                self._apart = None
            self.shared = self._apart is not None and apart.decides
        return change if of_service is None else of_service

    def _begin(self, now_s: float) -> _Apart:
        return _Apart(copy.deepcopy(self._whole), grows=self._grows, since_s=now_s)

    def forgets(self, now_s: float) -> bool:
        """Forgets a part of the wait where no batch came back for long; returns whether predictions changed."""
        apart = self._apart
        if apart is None or now_s - apart.seen_at_s < HALF_LIFE_S:
            return False
        apart.forget(now_s)
        self.lessons += 1
        return True

    def restart(self, run_length: int) -> None:
        """Computes levels from the last `run_length` batches: older ones belong to another regime."""
        before = self._whole.lessons
        self._whole.restart(run_length)
        self.lessons += self._whole.lessons - before
        if self._apart is not None:
            self._apart.service.restart(run_length)

    def snapshot(self) -> dict[str, object]:
        """Returns what is known, for `restore`: the waits are a matter of seconds."""
        return self._whole.snapshot()

    def restore(self, content: object, *, age_s: float) -> None:
        """Takes up what a snapshot of that age knew.

        Raises:
            KeyError, TypeError, ValueError: the content is no snapshot of a service with as many bands; nothing is
                taken up.
        """
        self._whole.restore(content, age_s=age_s)
        self._apart, self.shared, self.lessons = None, False, self.lessons + 1
