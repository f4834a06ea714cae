"""Bandwidth and round-trip time of the uplink."""

import math
from collections import deque
from dataclasses import dataclass

from scheduler.domain.memory import entries, finite, finites, rows
from scheduler.estimators.changepoint import NATIVE, Change, Detector, Detectors

WINDOW = 8
"""Busy periods whose median is the bandwidth. Judgement: twice as many follow a change half as fast while no change is
reported; half as many scatter by a factor of 1.4 more."""
RTT_WINDOW = 16
"""Round trips whose lower quartile is the round-trip time. Judgement: the quartile is then the fourth smallest, which
neither one short nor one long round trip moves."""
MAX_AGE_S = 60.0
"""Age above which a measurement does not count beside a new one. Judgement: a link that was unused for a minute is
measured by the next transfer; half or twice the time changes only what is assumed until then."""
FRESH_S = 3.0
"""Age above which measurements count only to make up MIN_KEPT of them. Judgement: a mobile link changes within seconds;
twice the time follows half as fast."""
AWAY_S = 10.0
"""Age up to which measurements that were saved are as fresh as they were: a restart is no sign of another link.
Judgement: a restart takes a few seconds."""
MIN_KEPT = 4
"""Measurements that are kept whatever their age. Judgement: the median of four survives one stalled transfer."""
COUNTED_WINDOW = 4
"""Counted times whose median is the bandwidth while the uplink is under load. Judgement: of a quarter of a second each,
along logs of mobile links twice as many are three times as far off, half as many scatter more."""
RESOLUTION_S = 0.002
"""Shortest upload time that is measured: it is a difference of the clocks of two machines. Judgement: clocks set by NTP
agree to about a millisecond; twice the time leaves more of the transfers on fast links unmeasured."""
MAX_BUSY_S = 0.5
"""Length of the pieces in which an uplink that is never idle is measured. Judgement: twice the length delays the
detection of a change under load by half a second; half of it scatters more."""
MIN_BYTES_PER_S = 1.0
"""Bandwidth that replaces 0 where its logarithm is taken."""
SIGMA = 0.3
"""Expected scatter of the logarithm of bandwidth within a regime, before any is observed. With 0.15 or 0.6 a halved
bandwidth is detected as soon (scripts/changepoint_figures.py); with 0.15 one of 60 runs has a false alarm."""


@dataclass(slots=True)
class _Busy:
    """A time in which the uplink was never idle, and the bytes that it carried."""

    start_s: float
    end_s: float
    carried_bytes: int
    watched: bool = False
    counted: bool = False
    """Whether the bytes were counted as they left, so that it is complete; no transfer is added to it."""

    @property
    def measurable(self) -> bool:
        return self.end_s - self.start_s >= RESOLUTION_S

    @property
    def full(self) -> bool:
        return self.end_s - self.start_s >= MAX_BUSY_S

    @property
    def bytes_per_s(self) -> float:
        """Bandwidth; a lower bound of it if the time was too short to be measured."""
        return self.carried_bytes / max(self.end_s - self.start_s, RESOLUTION_S)

    def overlaps(self, start_s: float, end_s: float) -> bool:
        return self.start_s <= end_s and start_s <= self.end_s


class Bandwidth:
    """Uplink bandwidth and round-trip time from finished transfers and probes.

    Transfers overlap on one uplink. Whether they share it fairly or wait for each other, the uplink is busy as long as
    there is any transfer. So a sample is the bytes of a busy period divided by its length, never the speed of one
    transfer. Bytes count where their transfer ends, so a growing backlog on a fairly shared uplink makes it look
    slower. The bandwidth is the median of the last samples, which one stalled transfer does not move. A busy period
    counts at once, grows when transfers turn out to overlap it, and goes to the changepoint detector when a newer one
    follows. Where the bytes of a time are counted as they leave (`carried`), those of transfers that are given up or
    still under way included, its transfers tell nothing more and are left out.

    >>> bandwidth = Bandwidth()
    >>> bandwidth.bytes_per_s is None
    True
    >>> for upload_end_s in (1.0, 2.0):  # the second transfer waits for the first
    ...     change = bandwidth.update(sent_at_s=0.0, upload_end_s=upload_end_s, sent_bytes=1_000_000)
    >>> for upload_end_s in (5.0, 5.0):  # both get half
    ...     change = bandwidth.update(sent_at_s=3.0, upload_end_s=upload_end_s, sent_bytes=1_000_000)
    >>> bandwidth.bytes_per_s
    1000000.0
    """

    def __init__(self, detectors: Detectors = NATIVE) -> None:
        """Starts without measurements; `detectors` makes the one that watches for changes."""
        self._detectors = detectors
        self._watching = False
        self._reset()

    def _reset(self) -> None:
        self._busy: list[_Busy] = []
        self._rtts_s: deque[float] = deque(maxlen=RTT_WINDOW)
        self._bytes_per_s: float | None = None
        self._rtt_s: float | None = None
        self._detector: Detector | None = None
        self._counted_s: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        """Begin and end of the last times without a pause whose bytes were counted."""

    def watch(self) -> None:
        """Reports changes from now on, and measures afresh after each."""
        self._watching = True

    @property
    def bytes_per_s(self) -> float | None:
        """Bandwidth; None: unknown, or too fast to be measured, so ample."""
        return self._bytes_per_s

    @property
    def rtt_s(self) -> float | None:
        """Round trip: the lower quartile of the last ones, since queues on the path only add time; None: unknown."""
        return self._rtt_s

    def snapshot(self, now_s: float) -> dict[str, object]:
        """Returns what is known, for `restore`."""
        return {
            "busy": [[now_s - busy.start_s, now_s - busy.end_s, busy.carried_bytes] for busy in self._busy],
            "rtts_s": list(self._rtts_s),
            "bytes_per_s": self._bytes_per_s,
            "rtt_s": self._rtt_s,
        }

    def restore(self, content: object, *, age_s: float, now_s: float) -> None:
        """Takes up what a snapshot of that age knew. As ever, what is old does not count beside a new measurement.

        Raises:
            KeyError, TypeError, ValueError: the content is no snapshot; nothing is taken up.
        """
        given, saved_at_s = entries(content), now_s - (age_s if age_s > AWAY_S else 0.0)
        busy = []
        for period in rows(given["busy"]):
            start_ago_s, end_ago_s, carried = finites(period)
            busy.append(_Busy(saved_at_s - start_ago_s, saved_at_s - end_ago_s, int(carried), watched=True))
        bytes_per_s, rtt_s = (None if given[name] is None else finite(given[name]) for name in ("bytes_per_s", "rtt_s"))
        rtts_s = finites(given["rtts_s"]) if age_s <= MAX_AGE_S or rtt_s is None else [rtt_s]
        self._busy, self._bytes_per_s, self._rtt_s = busy, bytes_per_s, rtt_s
        self._rtts_s = deque(rtts_s, maxlen=RTT_WINDOW)

    def update_rtt(self, rtt_s: float) -> None:
        """Learns a round trip."""
        self._rtts_s.append(rtt_s)
        self._rtt_s = sorted(self._rtts_s)[(len(self._rtts_s) - 1) // 4]

    def update(
        self, *, sent_at_s: float, upload_end_s: float, sent_bytes: int, open_since_s: float = math.inf
    ) -> Change | None:
        """Learns a transfer or a probe; the order does not matter.

        Args:
            sent_at_s: when its first byte was handed to the network.
            upload_end_s: when its last byte had arrived.
            sent_bytes: its size; 0 for a time in which nothing arrived.
            open_since_s: when the oldest transfer was sent that is not learned yet. The bytes since then are not all
                known: answers come back in another order than batches were sent.

        Returns:
            The change that was detected, if changes are reported; its means are natural logarithms of bytes per second.
        """
        if any(sent_at_s < end_s and begin_s < upload_end_s for begin_s, end_s in self._counted_s):
            return None
        self._place(sent_at_s, max(upload_end_s, sent_at_s), sent_bytes)
        return self._taken_in(open_since_s)

    def carried(self, *, start_s: float, end_s: float, carried_bytes: int) -> Change | None:
        """Learns what the uplink carried in a time in which something was under way on it throughout.

        Args:
            start_s: of that time, not before the end of the one that was learned before it.
            end_s: of that time.
            carried_bytes: of all transfers together; 0 for a time in which nothing arrived.

        Returns:
            The change that was detected, as by `update`.

        >>> bandwidth = Bandwidth()
        >>> for start_s in (0.0, 0.25, 0.5):
        ...     change = bandwidth.carried(start_s=start_s, end_s=start_s + 0.25, carried_bytes=250_000)
        >>> bandwidth.bytes_per_s
        1000000.0
        """
        if self._counted_s and start_s <= self._counted_s[-1][1]:
            self._counted_s[-1] = (self._counted_s[-1][0], end_s)
        else:
            self._counted_s.append((start_s, end_s))
        apart = [busy for busy in self._busy if busy.counted or not busy.overlaps(start_s, end_s)]
        counted = _Busy(start_s, end_s, carried_bytes, counted=True)
        self._busy = sorted([*apart, counted], key=lambda busy: busy.end_s)
        return self._taken_in(math.inf)

    def _taken_in(self, open_since_s: float) -> Change | None:
        """Forgets what is old, measures anew, and watches."""
        newest_s = self._busy[-1].end_s
        recent = [busy for busy in self._busy[-WINDOW:] if newest_s - busy.end_s <= MAX_AGE_S]
        stale = sum(newest_s - busy.end_s > FRESH_S for busy in recent)
        self._busy = recent[min(stale, max(0, len(recent) - MIN_KEPT)) :]
        self._measure(open_since_s)
        return self._watch(open_since_s) if self._watching else None

    def _place(self, start_s: float, end_s: float, sent_bytes: int) -> None:
        """Adds a transfer to the busy periods; its bytes count where it ends."""
        for busy in self._busy:
            if busy.full and not busy.counted and busy.start_s < end_s and start_s < busy.end_s:
                if end_s <= busy.end_s:
                    busy.carried_bytes += sent_bytes
                    return
                start_s = busy.end_s
        joined = _Busy(start_s, end_s, sent_bytes)
        apart = []
        for busy in self._busy:
            if busy.full or busy.counted or not busy.overlaps(joined.start_s, joined.end_s):
                apart.append(busy)
                continue
            joined.start_s, joined.end_s = min(joined.start_s, busy.start_s), max(joined.end_s, busy.end_s)
            joined.carried_bytes += busy.carried_bytes
            joined.watched |= busy.watched
        self._busy = sorted([*apart, joined], key=lambda busy: busy.end_s)

    def _measure(self, open_since_s: float) -> None:
        known = [busy for busy in self._busy if busy.counted or busy.end_s < open_since_s] or self._busy
        if known[-1].counted:
            known = known[-COUNTED_WINDOW:]
        measured = [busy.bytes_per_s for busy in known if busy.measurable]
        bounds = [busy.bytes_per_s for busy in known if not busy.measurable]
        if measured:
            median = _median_low(measured)
            # A transfer too short to be measured tells something only if it must have been fast.
            self._bytes_per_s = _median_low(measured + [bound for bound in bounds if bound > median])
        elif self._bytes_per_s is not None and max(bounds) >= self._bytes_per_s:
            self._bytes_per_s = None

    def _watch(self, open_since_s: float) -> Change | None:
        """Gives the detector the busy periods that are over and that it has not had yet."""
        for position, busy in enumerate(self._busy[:-1]):
            if busy.watched or (busy.end_s >= open_since_s and not busy.counted):
                continue
            busy.watched = True
            change = self._detect(busy)
            if change is not None:
                fresh = len(self._busy) - position - 1 + change.run_length
                self._busy = self._busy[-fresh:]
                self._measure(open_since_s)
                return change
        return None

    def _detect(self, busy: _Busy) -> Change | None:
        if not busy.measurable and (self._bytes_per_s is None or busy.bytes_per_s <= self._bytes_per_s):
            return None
        log_bytes_per_s = math.log(max(busy.bytes_per_s, MIN_BYTES_PER_S))
        if self._detector is None:
            self._detector = self._detectors.levels(mean=log_bytes_per_s, sigma=SIGMA)
        return self._detector.update(log_bytes_per_s)


def _median_low(values: list[float]) -> float:
    """Returns the median; of an even number of values the lower of the two in the middle, which is the safe side."""
    return sorted(values)[(len(values) - 1) // 2]
