"""How many batches an edge server serves at once, where the configuration does not say it.

The server may say it. Otherwise it is searched as a link's bandwidth is: one batch more after each so many seconds in
which all slots were busy and more waited; half as many when batches come back clearly later than their services say, or
are refused as too many. After that the number that was too many is tried again less and less often, and what lies below
it at once, so that a server that grows is followed and one that does not is left alone.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from scheduler.domain.batches import Batch
from scheduler.domain.memory import Remembered, entries, finite, rows
from scheduler.domain.plans import EdgeSettings
from scheduler.domain.service_times import ServiceTimes

VERSION = 1
USE_S = 10.0
"""Seconds of use after which one batch more at once is tried. Derived: asked for; a hundred services or so."""
REGAINED_S = 1.0
"""The same below what was too many: that much was served before. Judgement: a batch or two of each slot."""
LONGEST_USE_S = 640.0
"""The same at most, where one batch more was too many again and again. Judgement: a try costs a few late batches."""
MOST = 64
"""Batches at once, at most."""
LATER = math.log(1.15)
"""Logarithm of time over expected time from which on batches come back clearly later. Derived: with one batch too many
for K servers it is 1 / K; where K is above six, a batch more costs less than it is worth."""
SURELY = 3.0
"""The same in deviations of that mean, where services scatter much. Judgement: one false alarm in a thousand."""
WEIGHT = 0.125
"""Of a batch in that mean. Judgement: eight batches."""
RENEWED = 64
"""Batches after which present services are what later ones are compared with: a number that is too many shows before.
Judgement: ten times the fewest."""
FEWEST = 6
"""Batches before the mean is believed. Judgement: a mean of fewer is of one or two."""


@dataclass(slots=True)
class Parallel:
    """What is known of one edge server."""

    slots: int = 1
    said: int | None = None
    """By the server; None: it says nothing."""
    too_many: int = MOST + 1
    """The least number that was too many; above `MOST`: none was."""
    pause_s: float = USE_S
    """Seconds of use after which that is tried again."""
    used_s: float = 0.0
    """Seconds of use since the number has changed."""
    later: float = 0.0
    """Mean logarithm of time over expected time, of batches beside which all other slots were busy."""
    counted: int = 0
    tables: dict[str, ServiceTimes] = field(default_factory=dict)
    """By model: service tables as they were when the number changed. Present ones soon hold for too many."""
    changed_at_s: float = -math.inf
    """Batches that were sent before say nothing of the present number."""
    answered_s: float = -math.inf
    """When the last batch came back."""

    @property
    def wanted(self) -> int:
        """How many batches it is to be given at once."""
        return max(1, min(self.slots if self.said is None else self.said, MOST))

    def answered(self, batch: Batch, times: ServiceTimes, *, needed: bool, now_s: float, waited_s: float = 0.0) -> None:
        """Learns from a batch beside which all other slots were busy.

        Args:
            batch: as it was sent.
            times: the server's present service tables for its model.
            needed: whether more requests wait for this server.
            now_s: the present.
            waited_s: seconds for which it waited behind another one, because it was sent ahead.
        """
        sent_at_s, known = batch.sent_at_s, self.tables.setdefault(batch.model, times)
        since_s, self.answered_s = max(sent_at_s, self.answered_s), now_s
        if self.said is not None or sent_at_s < self.changed_at_s:
            return
        if self.slots > 1:
            self.counted += 1
            weight = max(WEIGHT, 1.0 / self.counted)
            expected_s = known.median_s[min(batch.items, known.max_batch)]
            self.later += weight * (
                math.log(max(now_s - sent_at_s - waited_s, 1e-9) / max(expected_s, 1e-9)) - self.later
            )
            scatter = known.scatter.sigma * math.sqrt(WEIGHT / (2.0 - WEIGHT))
            if self.counted >= FEWEST and self.later > max(LATER, SURELY * scatter):
                self.refused(now_s)
                return
            if self.counted >= RENEWED:
                self.counted, self.later, self.tables = 0, 0.0, {}
        else:
            self.tables = {}
        if needed and self.slots < MOST:
            self.used_s += now_s - since_s
            if self.used_s >= (REGAINED_S if self.slots + 1 < self.too_many <= MOST else self.pause_s):
                self._set(self.slots + 1, now_s)

    def refused(self, now_s: float) -> None:
        """Learns that there were too many at once: it is given half as many."""
        if self.slots <= 1:
            return
        self.pause_s = min(2.0 * self.pause_s, LONGEST_USE_S) if self.slots == self.too_many else USE_S
        self.too_many = self.slots
        self._set(max(1, self.slots // 2), now_s)

    def _set(self, slots: int, now_s: float) -> None:
        self.slots, self.used_s, self.later, self.counted, self.changed_at_s = slots, 0.0, 0.0, 0, now_s
        if slots == 1:
            self.tables = {}


@dataclass(slots=True)
class LearnedParallel:
    """What is known of all edge servers."""

    known: dict[str, Parallel] = field(default_factory=dict)
    """By edge server."""
    open: frozenset[str] = frozenset()
    """Those of which the configuration does not say it."""
    listener: Callable[[], None] | None = None
    """Is told when what is remembered is taken up."""

    def slots(self, settings: Sequence[EdgeSettings]) -> Mapping[str, int]:
        """Returns how many batches each edge server is to be given at once, by the settings or as learned."""
        self.open = frozenset([edge.name for edge in settings if edge.parallel is None])
        return {edge.name: max(1, edge.parallel or self.of(edge.name).wanted) for edge in settings}

    def of(self, edge: str) -> Parallel:
        """Returns what is known of an edge server."""
        return self.known.setdefault(edge, Parallel())

    def said(self, edge: str, parallel: int) -> None:
        """Notes what an edge server says."""
        self.of(edge).said = parallel

    def refused(self, batch: Batch, now_s: float) -> None:
        """Learns from a batch that was refused as one too many."""
        known = self.of(batch.place.name)
        if batch.sent_at_s >= known.changed_at_s and known.said is None:
            known.refused(now_s)

    def remembered(self) -> Remembered:
        """Returns what is known as a part of what is remembered."""

        def snapshot(now_s: float) -> object:  # noqa: ARG001
            return {
                "edges": [
                    {"edge": name, "slots": k.slots, "too_many": k.too_many, "pause_s": k.pause_s}
                    for name, k in sorted(self.known.items())
                ]
            }

        def restore(content: object, age_s: float, now_s: float) -> None:  # noqa: ARG001
            found = {}
            for row in rows(entries(content)["edges"]):
                given = entries(row)
                slots, too_many = int(finite(given["slots"])), int(finite(given["too_many"]))
                pause_s = finite(given["pause_s"])
                if not 1 <= slots <= MOST or too_many < 2 or not USE_S <= pause_s <= LONGEST_USE_S:
                    raise ValueError("no numbers of batches at once")
                found[str(given["edge"])] = Parallel(slots, too_many=too_many, pause_s=pause_s)
            self.known = found
            if self.listener is not None:
                self.listener()

        return Remembered("edge-parallel", VERSION, "", snapshot, restore)
