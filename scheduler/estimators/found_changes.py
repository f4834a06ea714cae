"""The changes of the world that were found since the start: counted, and the latest in words."""

from collections import Counter, deque

from scheduler.domain.statistics import Changes, FoundChange
from scheduler.estimators.findings import Finding

CHANGES = frozenset({"rate", "bandwidth", "edge-service", "function-service", "function-start"})
"""Causes of plans that say that the world has changed."""
KEPT = 64
"""Of the latest changes. A bound of memory."""


class FoundChanges:
    """What findings of changes add up to.

    >>> found = FoundChanges()
    >>> found.note(Finding("rate", "digits: 10.0 -> 20.0 requests/s, 1.00 s ago"), at_s=5.0)
    >>> found.note(Finding("expiry", "plan 3 is 600 s old"), at_s=6.0)
    >>> dict(found.statistics().found), [change.at_s for change in found.statistics().latest]
    ({'rate': 1}, [5.0])
    """

    def __init__(self) -> None:
        """Knows none."""
        self._counts: Counter[str] = Counter()
        self._slower: set[tuple[tuple[str, str], str]] = set()
        """Model, tier and cause of findings that a tier is slower, until one says that it is faster."""
        self._latest: deque[FoundChange] = deque(maxlen=KEPT)

    def note(self, finding: Finding, *, at_s: float) -> None:
        """Takes up a finding; one that is no change of the world is ignored."""
        if finding.cause in CHANGES:
            self._counts[finding.cause] += 1
            self._latest.append(FoundChange(at_s, finding.cause, finding.detail))
        if finding.tier is not None:
            self._slower.discard((finding.tier, finding.cause))
            if finding.slower:
                self._slower.add((finding.tier, finding.cause))

    def statistics(self) -> Changes:
        """Returns the changes that were found since the start."""
        slower = tuple(sorted({tier for tier, _ in self._slower}))
        return Changes(dict(self._counts), slower, tuple(self._latest))
