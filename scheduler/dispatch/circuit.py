"""Leave a failing backend alone until a probe finds it well again."""

from dataclasses import dataclass

from scheduler.domain.batches import FailureKind

FIRST_FAILURE_OPENS = frozenset({FailureKind.UNREACHABLE, FailureKind.TIMEOUT, FailureKind.FORBIDDEN})
"""Kinds that the next batch would meet as well: nobody there, nobody answering, nobody who knows us."""

LONGEST_PAUSE_S = 30.0
"""Whatever a backend asks for, and however often probes fail: then it is tried again."""


@dataclass(slots=True)
class Circuit:
    """Closed while batches may be sent; opened by failures, closed by a successful probe or batch.

    closed --failures--> open --pause over: probe--> closed (probe ok) or open again with twice the pause.
    """

    failures_to_open: int
    first_pause_s: float
    failures: int = 0
    pause_s: float = 0.0
    probe_at_s: float | None = None
    """When open: the moment of the next probe. None: closed."""
    not_before_s: float = 0.0
    """A throttled backend asked for silence until then; the circuit stays closed."""

    @property
    def closed(self) -> bool:
        """Whether the backend is believed to be well."""
        return self.probe_at_s is None

    def usable(self, now_s: float) -> bool:
        """Whether a batch may be sent now."""
        return self.probe_at_s is None and now_s >= self.not_before_s

    def succeeded(self) -> None:
        """Notes an answer."""
        self.failures, self.pause_s, self.probe_at_s = 0, 0.0, None

    def failed(self, kind: FailureKind, *, now_s: float, retry_after_s: float | None) -> None:
        """Notes a whole batch's failure. What the content is to blame for says nothing about the backend."""
        if kind in (FailureKind.REJECTED, FailureKind.FUNCTION):
            return
        if kind is FailureKind.THROTTLED:
            silence_s = self.first_pause_s if retry_after_s is None else retry_after_s
            self.not_before_s = max(self.not_before_s, now_s + min(silence_s, LONGEST_PAUSE_S))
            return
        self.failures += 1
        # Many batches may fail of one and the same cause; only a probe that fails makes the pause longer.
        if self.closed and (kind in FIRST_FAILURE_OPENS or self.failures >= self.failures_to_open):
            self._open(now_s)

    def probe_failed(self, now_s: float) -> None:
        """Notes that nobody answered a probe."""
        self._open(now_s)

    def _open(self, now_s: float) -> None:
        self.pause_s = min(max(self.first_pause_s, 2 * self.pause_s), LONGEST_PAUSE_S)
        self.probe_at_s = now_s + self.pause_s
