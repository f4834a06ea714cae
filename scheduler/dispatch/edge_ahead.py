"""Whether a batch is sent to an edge server before the one on its device is back, and how long before.

Between two batches the device stands idle while the answer travels, and while the next batch travels and is decoded:
what a batch takes besides the device is the lead. It is learned of batches that waited for nothing: of others part of
it may be a wait that their server does not see. Where the lead is a small part of a batch, sending ahead gains little;
and it loses where batches wait before the device for longer than the device would have stood idle, because what is sent
is closed to requests that come later.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from scheduler.domain.batches import BatchReport
from scheduler.domain.plans import EdgeSettings

FEWEST = 2
"""Batches of which the lead is known before it is used. Judgement: the first one opens connections."""
WEIGHT = 0.125
"""Of a batch in all means. Judgement: eight batches."""
DEVIATIONS = 1.0
"""Mean deviations of the lead by which a batch leaves earlier than its mean. Judgement: one that comes late costs as
much of the device's time as it is late."""
BEGIN_SHARE = 0.03
"""Part of a batch's seconds that the lead is from which on sending ahead pays. Derived: it is the most that the device
can gain."""
END_SHARE = 0.02
"""The same below which it does not any more."""
MEASURED_EACH = 32
"""Batches of which one is not sent ahead, so that the lead stays known where only such batches show it."""
BLIND_SHARE = 0.1
"""Part of a batch's seconds taken for the lead where it is to be sent ahead to a server that reports nothing."""
FEWEST_TRIED = 8
"""Batches sent ahead before it is judged whether that pays. Judgement: their mean is worth something."""
WAIT_COST = 0.2
"""Seconds of the device that are worth as much as a second for which a batch waits before it. Judgement: it is smaller
by what its deadline then no longer allows, and a smaller batch costs the device little more an item."""
PAUSE_S = 10.0
"""Seconds for which nothing is sent ahead after that did not pay; twice as long each time. Judgement: as for the
number of batches at once."""
LONGEST_PAUSE_S = 640.0
PROVEN = 64
"""Batches sent ahead after which the next pause is a short one again."""


@dataclass(slots=True)
class Ahead:
    """What is known of one edge server."""

    wanted: int | None = None
    """By the configuration: 0 or 1 batch is sent ahead; None: as it pays."""
    in_force: bool = False
    measured: int = 0
    """Batches of which the lead is known."""
    lead_s: float = 0.0
    """Mean seconds of a batch besides the device."""
    deviation_s: float = 0.0
    """Mean distance from that mean."""
    device_s: float = 0.0
    """Mean seconds of a batch on the device."""
    tried: int = 0
    """Batches sent ahead since that began."""
    saved_s: float = 0.0
    """Mean seconds for which the device did not stand idle before a batch, because that was sent ahead."""
    waited_s: float = 0.0
    """Mean seconds for which such a batch waited before the device."""
    pause_s: float = PAUSE_S
    off_until_s: float = -math.inf
    elapsed_s: float = 0.0
    """Mean seconds of a batch, its wait apart, where nothing more is reported."""
    unmeasured: int = 0
    """Batches sent ahead since the last one that was not."""

    used_lead_s: float = 0.0
    """How long before the end of a batch the next one leaves; 0: not before."""
    measures_next: bool = False
    """Whether the next batch of a slot is not to be sent ahead, so that the lead is measured."""

    def waited(self, report: BatchReport, behind_s: float) -> float:
        """Returns the seconds for which a batch waited for the one before it.

        Args:
            report: of the batch.
            behind_s: seconds for which it was in flight behind that one.
        """
        if report.queue_s:
            return min(report.queue_s, behind_s)
        return min(max(0.0, behind_s - self.used_lead_s), 0.5 * report.elapsed_s)

    def answered(self, report: BatchReport, *, behind_s: float, now_s: float) -> tuple[float, bool]:
        """Learns from a batch that is back.

        Args:
            report: of the batch.
            behind_s: seconds for which it was in flight behind the one before it; 0: it was not sent ahead.
            now_s: the present.

        Returns:
            Seconds for which it waited for the one before it; whether lead or `measures_next` are others now.
        """
        beside_s, queue_s = report.beside_s, report.queue_s
        waited_s = self.waited(report, behind_s) if behind_s else 0.0
        self.elapsed_s += (WEIGHT if self.elapsed_s else 1.0) * (report.elapsed_s - waited_s - self.elapsed_s)
        # A server that sees no wait may have one before it, as a router's: that would be taken for the lead.
        shown = not behind_s or queue_s != 0.0
        if beside_s is not None and shown:
            self._measure(beside_s, report.elapsed_s - (queue_s or 0.0) - beside_s)
        self.unmeasured = 0 if not behind_s or (beside_s is not None and shown) else self.unmeasured + 1
        if behind_s:
            self._judge(behind_s=behind_s, waited_s=waited_s, now_s=now_s)
        return waited_s, self._decide(now_s)

    def _measure(self, beside_s: float, device_s: float) -> None:
        self.measured += 1
        weight = max(WEIGHT, 1.0 / self.measured)
        error_s = beside_s - self.lead_s
        self.lead_s += weight * error_s
        self.deviation_s += weight * ((abs(error_s) if self.measured > 1 else 0.0) - self.deviation_s)
        self.device_s += weight * (device_s - self.device_s)

    def _judge(self, *, behind_s: float, waited_s: float, now_s: float) -> None:
        """Compares what the device gained with what the batch lost."""
        if not self.measured:
            return
        self.tried += 1
        weight = max(WEIGHT, 1.0 / self.tried)
        self.saved_s += weight * (min(behind_s, self.lead_s) - self.saved_s)
        self.waited_s += weight * (waited_s - self.waited_s)
        if self.wanted is None and self.tried >= FEWEST_TRIED and WAIT_COST * self.waited_s > self.saved_s:
            self.refused(now_s)
        elif self.tried >= PROVEN:
            self.pause_s = PAUSE_S

    def refused(self, now_s: float) -> None:
        """Sends nothing ahead for a while: it did not pay, or the server takes one batch at a time."""
        self.in_force, self.used_lead_s, self.measures_next = False, 0.0, False
        self._forget_trial()
        self.off_until_s = now_s + self.pause_s
        self.pause_s = min(2.0 * self.pause_s, LONGEST_PAUSE_S)

    def _forget_trial(self) -> None:
        self.tried, self.saved_s, self.waited_s = 0, 0.0, 0.0

    def _decide(self, now_s: float) -> bool:
        if self.wanted is not None:
            self.in_force = now_s >= self.off_until_s
        elif self.in_force:
            self.in_force = self.lead_s >= END_SHARE * (self.lead_s + self.device_s)
            if not self.in_force:
                self._forget_trial()
        elif self.measured >= FEWEST and self.lead_s >= BEGIN_SHARE * (self.lead_s + self.device_s) > 0.0:
            self.in_force = now_s >= self.off_until_s
        lead_s = 0.0
        if self.in_force:
            lead_s = self.lead_s + DEVIATIONS * self.deviation_s if self.measured else BLIND_SHARE * self.elapsed_s
        measures_next = self.in_force and self.unmeasured >= MEASURED_EACH
        changed = lead_s != self.used_lead_s or measures_next != self.measures_next
        self.used_lead_s, self.measures_next = lead_s, measures_next
        return changed


@dataclass(slots=True)
class AheadOfEdges:
    """What is known of all edge servers."""

    known: dict[str, Ahead] = field(default_factory=dict)
    """By edge server; only those to which something may be sent ahead."""

    def configure(self, settings: Sequence[EdgeSettings]) -> None:
        """Takes over to which edge servers batches may be sent ahead; what is known of those that stay is kept."""
        known = self.known
        self.known = {edge.name: known.get(edge.name) or Ahead() for edge in settings if edge.ahead != 0}
        for edge in settings:
            if edge.ahead != 0:
                self.known[edge.name].wanted = edge.ahead

    def lead_s(self, edge: str) -> float:
        """Returns how long before the end of a batch on an edge server the next one leaves; 0: not before."""
        known = self.known.get(edge)
        return 0.0 if known is None else known.used_lead_s

    def beside_s(self) -> dict[str, float]:
        """Returns the mean seconds of a batch besides the device, by edge server to which batches are sent ahead."""
        return {name: one.lead_s for name, one in self.known.items() if one.in_force and one.measured}

    def refused(self, edge: str, now_s: float) -> None:
        """Learns from a batch that was refused as one too many."""
        known = self.known.get(edge)
        if known is not None and known.in_force:
            known.refused(now_s)
