"""Warm instances of a function tier, and the seconds of a cold start."""

import math
from bisect import insort
from dataclasses import dataclass
from itertools import islice

from scheduler.domain.batches import BatchReport, FailureKind
from scheduler.domain.memory import entries, finite, rows
from scheduler.domain.scatter import Scatter
from scheduler.estimators.idle_time import IdleTime
from scheduler.estimators.residuals import ResidualWindow

MAX_IDLE = 512
"""Largest number of idle instances that are remembered; of more, the longest idle ones are forgotten."""
STARTS = 64
"""Cold starts whose seconds are remembered. Judgement: the 0.98 quantile is then one of the two longest."""
START_SIGMA = 0.5
"""Prior scatter of the logarithm of a cold start's seconds, before any is observed. Judgement: a factor of 1.6 either
way covers what platforms are known for; a dozen starts outweigh it."""
UNKNOWN_MEMORY = 0.97
"""Weight of earlier starts on unknown instances after one more: about 1 / (1 - 0.97) = 33 are remembered. Judgement:
half as many follow a change of the platform twice as fast and scatter 1.4 times as much."""
MIN_SURVIVAL = 0.05
"""Probability of survival below which an instance counts as gone: a warm answer then came from another instance.
Judgement: one in twenty warm answers of an old instance is misread."""
BESIDE_WEIGHT = 1 / 64
"""Of an invocation in the mean of what is billed beside its service. Judgement: it varies by milliseconds; of sixty
the mean is known to a tenth of that."""
FORESEEN = 8
"""Batches in flight, the oldest first, whose return is foreseen. Bounds the work of a forecast: of eight that should be
back one is."""
_SHORTEST_S = 1e-9
"""Seconds of a start below which nothing is learned from it: no clock resolves them."""
KILLED = frozenset({FailureKind.TIMEOUT, FailureKind.FUNCTION})
"""Failures after which the platform ends the instance, or may have ended it."""


@dataclass(frozen=True, slots=True, order=True)
class Idle:
    """An instance without a request."""

    since_s: float
    instance_id: str = ""
    """Name of the instance; empty if the backend does not give it."""


@dataclass(frozen=True, slots=True)
class Underway:
    """A batch in flight, with the state of the instances when it was sent."""

    at_s: float
    busy: int
    """Number of other batches in flight."""
    taken: Idle | None
    """The idle instance that the batch is assumed to use; None if none was known."""
    back_s: float
    """When it is back at the latest if its instance was warm; inf where that is not known."""
    cold: float
    """Probability that its instance was not."""


class WarmInstances:
    """Instances of one tier, as far as batches reveal them.

    A batch uses the instance that was last used, if there is one; otherwise it waits for a new one to start. What is
    learned: when each instance was last used (by name, if the backend gives it), after what idle time instances are
    taken away, how many are always warm (provisioned), whether a batch for which no instance is known meets a cold
    start at all, and how long one takes.

    Args:
        prior_idle_s: prior median of the idle time after which instances are taken away.
        prior_start_s: prior median of the seconds of a cold start.

    >>> warm = WarmInstances(prior_idle_s=240.0, prior_start_s=2.0)
    >>> for batch_id, cold in enumerate((True, False, False), start=1):
    ...     warm.sent(batch_id, now_s=60.0 * batch_id)
    ...     report = BatchReport(elapsed_s=3.2 if cold else 0.7, service_s=0.6, cold_start=cold)
    ...     warm.came_back(batch_id, report, now_s=60.0 * batch_id + 1.0, expected_path_s=0.1)
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
        """Number of instances that answer warm without having been used: they are provisioned, or other clients keep
        them warm."""
        self._hint = 0
        """Next value of `always_warm`, if a second batch confirms it before another batch meets a cold start."""
        self._idle: list[Idle] = []
        self._busy: dict[int, Underway] = {}
        self._starts = ResidualWindow(size=STARTS, prior_sigma=START_SIGMA)
        self.starts_seen = 0
        """Number of cold starts, at most `STARTS`, whose seconds are known."""
        self._quantiles_s: tuple[float, ...] = ()
        self.changes = 0
        """Counts what happened to the pool: as long as it is the same, so is every forecast."""
        self._inits = ResidualWindow(size=STARTS, prior_sigma=START_SIGMA)
        self.billed_beside_s = 0.0
        """Mean seconds of an invocation that are billed and are no service: reading the request, writing the answer."""
        self._bills = 0
        # A cold and a warm start, half each: nothing is known of a platform before its first answer.
        self._unknown_cold, self._unknown_starts = 0.5, 1.0

    @property
    def busy(self) -> int:
        """Number of batches in flight, each on its own instance."""
        return len(self._busy)

    @property
    def unknown_cold(self) -> float:
        """Probability that a batch for which no instance is known to be warm meets a cold start."""
        return self._unknown_cold / self._unknown_starts

    def idle_since_s(self) -> list[float]:
        """Returns since when each idle instance has been idle, the last used one first."""
        return [idle.since_s for idle in reversed(self._idle)]

    def cold_probability(self, at_s: float, *, now_s: float | None = None, behind: int = 0) -> float:
        """Returns the probability that a batch sent at a time meets a cold start.

        Args:
            at_s: when it is sent.
            now_s: the present, where that is earlier: instances may be idle again until then, if no other batch is sent
                before. None: at that time.
            behind: batches that are sent just before it.
        """
        if self.busy + behind < self.always_warm:
            return 0.0
        idle = self._idle[-1 - behind] if len(self._idle) > behind else None
        gone = 1.0 - self.idle_time.survives(at_s - idle.since_s) if idle is not None else 1.0
        if now_s is not None and gone > 0.0 and self._busy:
            gone *= self._none_back(at_s, now_s)
        return gone * self.unknown_cold

    def _none_back(self, at_s: float, now_s: float) -> float:
        """Returns the probability that none of the batches in flight now is back at a time."""
        none = 1.0
        for sent in islice(self._busy.values(), FORESEEN):
            if sent.back_s < at_s:
                still = self._away(sent, now_s)
                # One that should be back whatever its instance was may never be.
                none *= self._away(sent, at_s) / still if still > 0.0 else 1.0
        return none

    def _away(self, sent: Underway, at_s: float) -> float:
        """Returns the probability that a batch is not back at a time, as seen from its send."""
        longer_s = at_s - sent.back_s
        return 1.0 if longer_s <= 0.0 else sent.cold * self.start_exceeds(longer_s)

    def start_s(self, percentile: float) -> float:
        """Returns the seconds within which a cold start ends with a given probability (in (0, 1))."""
        return self._prior_start_s * math.exp(self._starts.quantile(percentile))

    def keep_starts(self, count: int) -> None:
        """Forgets the seconds of all cold starts but the last `count`: those before belong to another regime."""
        self.changes += 1
        self._starts.keep_newest(count)
        self.starts_seen = len(self._starts)
        self._inits.keep_newest(count)
        self._quantiles_s = ()

    def starts(self) -> tuple[Scatter, float]:
        """Returns the distribution of the logarithm of a cold start's seconds, and the seconds whose logarithm is 0."""
        return self._starts.scatter(), self._prior_start_s

    def start_exceeds(self, seconds: float) -> float:
        """Returns the probability that a cold start takes longer than so many seconds (above 0)."""
        part = seconds / self._prior_start_s
        # The smallest of floats divided by more than 1 is 0.
        return self._starts.scatter().exceeds(math.log(part)) if part > 0.0 else 1.0

    def start_quantiles_s(self, percentiles: tuple[float, ...]) -> tuple[float, ...]:
        """Returns the seconds within which a cold start ends with each of these probabilities; always the same ones."""
        if len(self._quantiles_s) != len(percentiles):
            self._quantiles_s = tuple([self.start_s(percentile) for percentile in percentiles])
        return self._quantiles_s

    def init_s(self, percentile: float) -> float:
        """Returns the seconds within which an initializer, the billed part of a start, ends with a probability."""
        return self._prior_start_s * math.exp(self._inits.quantile(percentile))

    def wait_s(self, at_s: float, percentile: float) -> float:
        """Returns the seconds within which a batch sent at a time has its instance with a given probability.

        It is zero if a cold start is less probable than the percentile leaves to chance.
        """
        cold, chance = self.cold_probability(at_s), 1.0 - percentile
        return 0.0 if cold <= chance else self.start_s(1.0 - chance / cold)

    def sent(self, batch_id: int, *, now_s: float, back_s: float = math.inf) -> None:
        """Records that a batch or a warming call was sent.

        Args:
            batch_id: its number.
            now_s: the present.
            back_s: when it is back at the latest if its instance is warm.
        """
        cold = self.cold_probability(now_s)
        taken = self._idle.pop() if self._idle else None
        self._busy[batch_id] = Underway(now_s, self.busy, taken, back_s, cold)
        self.changes += 1

    def came_back(
        self,
        batch_id: int,
        report: BatchReport,
        *,
        now_s: float,
        failure: FailureKind | None = None,
        expected_path_s: float = 0.0,
    ) -> None:
        """Learns from a batch that came back; a batch that was not recorded is ignored.

        Args:
            batch_id: number of the batch.
            report: what came back.
            now_s: the present; from now on its instance is idle.
            failure: why it failed; None if it was answered.
            expected_path_s: seconds expected for slot, uplink and round trip, without start and service.
        """
        underway = self._busy.pop(batch_id, None)
        if underway is None:
            return
        self.changes += 1
        if failure is not None and report.cold_start is None:
            if failure not in KILLED and underway.taken is not None:
                self._keep(underway.taken)
            return
        if failure is None and report.billed_duration_s is not None and report.service_s is not None:
            self._note_bill(report.billed_duration_s - report.service_s)
        met = self._met(underway, report)
        if report.cold_start is not None:
            self._learn(underway, met, cold=report.cold_start)
        if report.cold_start:
            # An instance that was idle at the send would have been used.
            self._idle = [idle for idle in self._idle if idle.since_s > underway.at_s]
            if report.service_s is not None:
                self._note_start(report.elapsed_s - report.service_s - expected_path_s, report.init_s)
        self._keep(Idle(now_s, report.instance_id))

    def snapshot(self, now_s: float) -> dict[str, object]:
        """Returns what is known, for `restore`; an instance that is busy just now is forgotten."""
        return {
            "always_warm": self.always_warm,
            "idle": [[now_s - idle.since_s, idle.instance_id] for idle in self._idle],
            "starts": self._starts.snapshot(),
            "inits": self._inits.snapshot(),
            "unknown": [self._unknown_cold, self._unknown_starts],
            "idle_time": self.idle_time.snapshot(),
            "billed_beside": [self.billed_beside_s, self._bills],
        }

    def restore(self, content: object, *, age_s: float, now_s: float) -> None:
        """Takes up what a snapshot of that age knew; its instances have been idle since.

        Raises:
            KeyError, TypeError, ValueError: the content is no snapshot; nothing is taken up.
        """
        given = entries(content)
        idle = []
        for pair in rows(given["idle"]):
            ago_s, instance_id = rows(pair)
            idle.append(Idle(now_s - age_s - finite(ago_s), str(instance_id)))
        starts = self._starts.restored(given["starts"], age_s=age_s)
        # Not in snapshots of earlier versions: an initializer takes a start's time at most.
        inits = self._inits.restored(given.get("inits", given["starts"]), age_s=age_s)
        idle_time = self.idle_time.restored(given["idle_time"])
        # Nor this.
        beside_s, bills = (finite(item) for item in rows(given.get("billed_beside", [0.0, 0])))
        cold, seen = (finite(item) for item in rows(given["unknown"]))
        always_warm = int(finite(given["always_warm"]))
        if not 0 < cold <= seen or always_warm < 0 or beside_s < 0.0 or bills < 0:
            raise ValueError("a snapshot of no instances")
        self.always_warm, self._idle, self.idle_time = always_warm, sorted(idle), idle_time
        self._starts, self._inits, self.starts_seen = starts, inits, len(starts)
        self._unknown_cold, self._unknown_starts = cold, seen
        self.billed_beside_s, self._bills = beside_s, int(bills)

    def _note_bill(self, beside_s: float) -> None:
        if 0.0 <= beside_s < math.inf:
            self._bills += 1
            self.billed_beside_s += max(BESIDE_WEIGHT, 1.0 / self._bills) * (beside_s - self.billed_beside_s)

    def _met(self, underway: Underway, report: BatchReport) -> Idle | None:
        """Returns the idle instance that the batch used, or that a cold start shows to be gone."""
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
            self._note_unknown(cold=True)
        elif covered:
            return
        elif expected < MIN_SURVIVAL:
            # One is not enough: an instance may have been free again while its answer was still in transit.
            self.always_warm = max(self.always_warm, min(self._hint, underway.busy + 1))
            self._hint = underway.busy + 1
            self._note_unknown(cold=False)
        if gap_s is not None:
            self.idle_time.update(gap_s, stayed_warm=not cold)

    def _note_unknown(self, *, cold: bool) -> None:
        self._unknown_cold = UNKNOWN_MEMORY * self._unknown_cold + cold
        self._unknown_starts = UNKNOWN_MEMORY * self._unknown_starts + 1.0

    def _note_start(self, start_s: float, init_s: float | None = None) -> None:
        # A start shorter than the variation of the path is no start.
        if start_s > _SHORTEST_S:
            self._starts.update(math.log(start_s / self._prior_start_s))
            self.starts_seen = len(self._starts)
            self._quantiles_s = ()
        # A container that does not report its initializer may be billed for the whole start.
        billed_s = start_s if init_s is None else init_s
        if billed_s > _SHORTEST_S:
            self._inits.update(math.log(billed_s / self._prior_start_s))

    def _keep(self, instance: Idle) -> None:
        same = [idle for idle in self._idle if idle.instance_id == instance.instance_id != ""]
        if same and same[0].since_s >= instance.since_s:
            return
        for older in same:
            self._idle.remove(older)
        insort(self._idle, instance)
        del self._idle[:-MAX_IDLE]
