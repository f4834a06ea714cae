"""What batches waited at an edge server for those of other daemons: what it reports, less the wait for own ones.

It is known only of batches of which all that was before them is known: not after one was given up, which the server may
serve all the same, and not of several at once where their number is still learned, as one too many waits too.
"""

from dataclasses import dataclass, field, replace

from scheduler.domain.batches import Batch, BatchReport, FailureKind
from scheduler.domain.requests import Backend

MAY_GO_ON = frozenset({FailureKind.TIMEOUT, FailureKind.BROKEN})
"""Failures of batches that their server may still serve."""


@dataclass(slots=True)
class EdgeSharing:
    """Of which batches the wait for others is known."""

    unclear: dict[str, int] = field(default_factory=dict)
    """By edge server: batches to come back before which an own one may be that was given up."""

    def failed(self, batch: Batch, kind: FailureKind, *, slots: int) -> None:
        """Notes a batch that failed on an edge server of so many slots."""
        if kind in MAY_GO_ON and batch.backend is Backend.EDGE:
            self.unclear[batch.place.name] = max(1, slots)

    def without_own_waits(self, batch: Batch, report: BatchReport, *, waited_s: float, clear: bool) -> BatchReport:
        """Returns the report of a batch that is back without its wait for own ones, and with that for others.

        Args:
            batch: as it was sent.
            report: what came back.
            waited_s: seconds for which it waited behind an own batch.
            clear: whether no other own batch may have been before it.
        """
        others_s = None
        if report.queue_s and batch.backend is Backend.EDGE:
            if left := self.unclear.get(batch.place.name, 0):
                self.unclear[batch.place.name] = left - 1
            elif clear:
                others_s = max(0.0, report.queue_s - waited_s)
        if not waited_s and others_s is None:
            return report
        return replace(report, elapsed_s=report.elapsed_s - waited_s, others_s=others_s)
