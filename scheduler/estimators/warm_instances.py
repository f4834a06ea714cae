"""Which instances of a function tier are warm, and what it costs in seconds to meet none."""

import math
from bisect import insort
from dataclasses import dataclass

from scheduler.domain.batches import BatchReport, FailureKind
from scheduler.estimators.idle_time import IdleTime
from scheduler.estimators.residuals import ResidualWindow

MAX_IDLE = 512
"""Idle instances kept in mind; of more the longest idle are forgotten."""
STARTS = 64
START_SIGMA = 0.5
"""Scatter of log seconds of cold starts before any is seen."""
STRANGER_MEMORY = 0.97
"""What earlier starts on unknown instances still count for after one more: about thirty are remembered."""
NOT_EXPECTED = 0.05
"""An instance that was as unlikely as this to be still there was not: another one answered warm."""
KILLED = frozenset({FailureKind.TIMEOUT, FailureKind.FUNCTION})
"""Failures after which the platform ends the instance, or may have."""


@dataclass(frozen=True, slots=True, order=True)
class Idle:
    """An instance without a request."""

    since_s: float
    instance_id: str = ""
    """Empty where the backend does not tell."""


@dataclass(frozen=True, slots=True)
class Underway:
    """A batch in flight, as the instances looked when it was sent."""

    at_s: float
    busy: int
    """Other batches in flight."""
    taken: Idle | None
    """The idle instance that it is believed to have met; None where none was known."""


class WarmInstances:
    """The instances of one tier, as far as batches tell of them.

    A batch takes the instance that was last used, as long as one is there; otherwise it waits for a new one to start.
    What is learned: when each instance was last used (by name, where the backend tells), after what idle time they are
    taken away, how many are always there (provisioned), whether a batch for which no instance is known meets a cold
    start at all, and how long one takes.

    Args:
        prior_idle_s: idle time after which instances go, taken for granted before anything is seen.
        prior_start_s: median seconds of a cold start, likewise.

    >>> warm = WarmInstances(prior_idle_s=240.0, prior_start_s=2.0)
    >>> for batch_id, cold in enumerate((True, False, False), start=1):
    ...     warm.sent(batch_id, now_s=60.0 * batch_id)
    ...     report = BatchReport(elapsed_s=3.2 if cold else 0.7, service_s=0.6, cold_start=cold)
    ...     warm.came_back(batch_id, report, now_s=60.0 * batch_id + 1.0, way_s=0.1)
    >>> warm.cold_probability(190.0) < 0.01, warm.cold_probability(1000.0) > 0.7
    (True, True)
    >>> 2.0 < warm.start_s(0.5) < 2.6
    True
    """

    def __init__(self, *, prior_idle_s: float = 240.0, prior_start_s: float = 3.0) -> None:
        """Stores the parameters."""
        self._prior_start_s = prior_start_s
        self.idle_time = IdleTime(prior_s=prior_idle_s)
        self._reset()

    def _reset(self) -> None:
        self.always_warm = 0
        """Instances that answer warm without having been used: provisioned, or kept warm by somebody else."""
        self._hint = 0
        """What `always_warm` becomes if a second batch says so before another meets a cold start."""
        self._idle: list[Idle] = []
        self._busy: dict[int, Underway] = {}
        self._starts = ResidualWindow(size=STARTS, prior_sigma=START_SIGMA)
        # Half a cold and half a warm start: nothing is known of a platform before its first answer.
        self._stranger_cold, self._strangers = 0.5, 1.0

    @property
    def busy(self) -> int:
        """Batches in flight, each on an instance of its own."""
        return len(self._busy)

    @property
    def stranger_cold(self) -> float:
        """Probability that a batch for which no instance is known to be warm meets a cold start."""
        return self._stranger_cold / self._strangers

    def idle_since_s(self) -> list[float]:
        """Returns since when each idle instance has been so, the one last used first."""
        return [idle.since_s for idle in reversed(self._idle)]

    def cold_probability(self, at_s: float) -> float:
        """Returns the probability that a batch sent at that time would meet a cold start."""
        if self.busy < self.always_warm:
            return 0.0
        gone = 1.0 - self.idle_time.survives(at_s - self._idle[-1].since_s) if self._idle else 1.0
        return gone * self.stranger_cold

    def start_s(self, percentile: float) -> float:
        """Returns the seconds within which a cold start is over with this probability (in (0, 1))."""
        return self._prior_start_s * math.exp(self._starts.quantile(percentile))

    def wait_s(self, at_s: float, percentile: float) -> float:
        """Returns the seconds within which a batch sent at that time has its instance with this probability.

        Zero where a cold start is less probable than what the percentile leaves to chance.
        """
        cold, chance = self.cold_probability(at_s), 1.0 - percentile
        return 0.0 if cold <= chance else self.start_s(1.0 - chance / cold)

    def sent(self, batch_id: int, *, now_s: float) -> None:
        """Notes that a batch, or a warming call, was sent."""
        taken = self._idle.pop() if self._idle else None
        self._busy[batch_id] = Underway(now_s, self.busy, taken)

    def came_back(
        self,
        batch_id: int,
        report: BatchReport,
        *,
        now_s: float,
        failure: FailureKind | None = None,
        way_s: float = 0.0,
    ) -> None:
        """Learns from a batch that came back; one that was never noted is passed over.

        Args:
            batch_id: of the batch.
            report: what came back.
            now_s: the present: since then its instance is idle.
            failure: why it failed; None where it was answered.
            way_s: seconds expected for slot, uplink and round trip, without start and service.
        """
        underway = self._busy.pop(batch_id, None)
        if underway is None:
            return
        if failure is not None and report.cold_start is None:
            if failure not in KILLED and underway.taken is not None:
                self._keep(underway.taken)
            return
        met = self._met(underway, report)
        if report.cold_start is not None:
            self._learn(underway, met, cold=report.cold_start)
        if report.cold_start:
            # Whoever was idle at the send would have been taken.
            self._idle = [idle for idle in self._idle if idle.since_s > underway.at_s]
            if report.service_s is not None:
                self._note_start(report.elapsed_s - report.service_s - way_s)
        self._keep(Idle(now_s, report.instance_id))

    def _met(self, underway: Underway, report: BatchReport) -> Idle | None:
        """Returns the idle instance that the batch met, or, of a cold start, that it did not meet any more."""
        taken, name = underway.taken, report.instance_id
        if report.cold_start or not name or (taken is not None and taken.instance_id in ("", name)):
            return taken
        other = next((idle for idle in self._idle if idle.instance_id == name), None)
        if other is not None:
            self._idle.remove(other)
        if taken is not None:
            self._keep(taken)
        return other

    def _learn(self, underway: Underway, met: Idle | None, *, cold: bool) -> None:
        covered = underway.busy < self.always_warm
        gap_s = None if met is None else underway.at_s - met.since_s
        expected = 0.0 if gap_s is None else self.idle_time.survives(gap_s)
        if cold:
            self.always_warm, self._hint = min(self.always_warm, underway.busy), 0
            self._note_stranger(cold=True)
        elif covered:
            return
        elif expected < NOT_EXPECTED:
            # Once is nothing: an instance may have been free again while its answer was still on its way.
            self.always_warm = max(self.always_warm, min(self._hint, underway.busy + 1))
            self._hint = underway.busy + 1
            self._note_stranger(cold=False)
        if gap_s is not None:
            self.idle_time.update(gap_s, stayed_warm=not cold)

    def _note_stranger(self, *, cold: bool) -> None:
        self._stranger_cold = STRANGER_MEMORY * self._stranger_cold + cold
        self._strangers = STRANGER_MEMORY * self._strangers + 1.0

    def _note_start(self, start_s: float) -> None:
        # A start that was over within what the way varies by is no more than that.
        if start_s > 0:
            self._starts.update(math.log(start_s / self._prior_start_s))

    def _keep(self, instance: Idle) -> None:
        same = [idle for idle in self._idle if idle.instance_id == instance.instance_id != ""]
        if same and same[0].since_s >= instance.since_s:
            return
        for older in same:
            self._idle.remove(older)
        insort(self._idle, instance)
        del self._idle[:-MAX_IDLE]
