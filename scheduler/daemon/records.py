"""The latest batches that ended: a bounded ring, which GET /v1/batches reads."""

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from math import isnan, nan
from struct import Struct
from typing import Any

from scheduler.daemon.backends.batch_send import BatchSend
from scheduler.daemon.batch_metrics import BatchMetrics
from scheduler.daemon.calls import InferenceCall
from scheduler.daemon.model_statistics import InferenceCounters
from scheduler.domain.batches import Batch, BatchReport, Failure
from scheduler.domain.bills import Bill, bill_of, purpose_of
from scheduler.domain.tenants import tenant_label

FRESH = 1024
"""The latest records are kept as they are, a second's worth, for the history. Those before are packed."""
WORDS_KNOWN = 256
"""Sets of words that packed records have in common: they are places, models and reasons. A bound of memory."""


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One batch that ended, answered or failed."""

    batch: Batch
    finished_at_s: float
    wait_max_s: float
    """Longest wait of its requests before the send."""
    report: BatchReport
    billed_s: float | None
    """Seconds that the provider bills for `report.billed_duration_s`, rounded; None on the edge and where unknown."""
    bill: Bill
    error: str = ""
    """Kind and message of the failure; empty for an answered batch."""
    tenants: str = ""
    """Items of each tenant, as "lab 3, other 1"; empty without tenants."""
    log_tail: str = ""
    """End of the container's log, where a request of the batch asked for it."""

    def row(self) -> dict[str, object]:
        """Returns the record as JSON shows it."""
        batch, report, bill = self.batch, self.report, self.bill
        return {
            "batch_id": batch.batch_id,
            "backend": batch.backend.value,
            "tier": batch.tier,
            "place": str(batch.place),
            "reason": "" if batch.reason is None else batch.reason.value,
            "why_left": "" if batch.why_left is None else batch.why_left.value,
            "model": batch.model,
            "requests": len(batch.request_ids),
            "items": batch.items,
            "body_bytes": batch.body_bytes,
            "sent_at_s": batch.sent_at_s,
            "finished_at_s": self.finished_at_s,
            "wait_max_s": self.wait_max_s,
            "predicted_service_s": batch.predicted_service_s,
            "service_s": report.service_s,
            "queue_s": report.queue_s,
            "elapsed_s": report.elapsed_s,
            "start_kind": start_kind(report),
            "duration_s": report.billed_duration_s,
            "billed_s": self.billed_s,
            "memory_bytes": report.memory_bytes,
            "instance_id": report.instance_id,
            "init_s": report.init_s,
            "what": purpose_of(batch).value if batch.tier else "",
            **bill_row(bill),
            "error": self.error,
            "tenants": self.tenants,
            "log_tail": self.log_tail,
        }


def bill_row(bill: Bill) -> dict[str, object]:
    """Returns a bill as JSON shows it."""
    return {
        "cost": bill.total,
        "call_cost": bill.call,
        "start_cost": bill.start,
        "start_estimate_cost": bill.start_estimate,
        "provisioning_cost": bill.provisioning,
    }


def start_kind(report: BatchReport) -> str:
    """Returns "cold", "warm", or "" if the backend does not report it."""
    return {True: "cold", False: "warm", None: ""}[report.cold_start]


def billed_s(batch_send: BatchSend, report: BatchReport) -> float | None:
    """Returns the seconds that the provider bills; None on the edge and if the container reported no duration."""
    if batch_send.tier is None or report.billed_duration_s is None:
        return None
    return batch_send.tier.price.billed_s(report.billed_duration_s)


def batch_bill(
    batch_send: BatchSend, report: BatchReport, failure: Failure | None = None, *, final: bool = False
) -> Bill:
    """Returns what a batch cost, as the ledger books it; nothing on the edge.

    Args:
        batch_send: the batch.
        report: what came back.
        failure: why it failed; None where it was answered.
        final: whether no answer is awaited any more.
    """
    if batch_send.tier is None:
        return Bill()
    kind = None if failure is None else failure.kind
    return bill_of(batch_send.batch, batch_send.tier.price, report, kind, final=final)


def items_by_tenant(calls: Iterable[InferenceCall], configured: Collection[str]) -> str:
    """Returns the items of each configured tenant and of all others together; empty where none is configured."""
    if not configured:
        return ""
    items: Counter[str] = Counter()
    for call in calls:
        items[tenant_label(call.tenant, configured)] += call.items
    return ", ".join(f"{name} {count}" for name, count in sorted(items.items()))


NUMBERS = (
    *("batch_id", "requests", "items", "body_bytes", "memory_bytes", "sent_at_s", "finished_at_s", "wait_max_s"),
    *("predicted_service_s", "service_s", "queue_s", "elapsed_s", "duration_s", "billed_s", "init_s"),
)
"""The fields of a row that are numbers or unknown, but for its bill; the first five are whole."""
WORDS = (
    *("backend", "tier", "place", "reason", "why_left", "model", "instance_id", "start_kind", "what", "error"),
    *("tenants", "log_tail"),
)
ORDER = (
    *("batch_id", "backend", "tier", "place", "reason", "why_left", "model", "requests", "items", "body_bytes"),
    *("sent_at_s", "finished_at_s", "wait_max_s", "predicted_service_s", "service_s", "queue_s", "elapsed_s"),
    *("start_kind", "duration_s", "billed_s", "memory_bytes", "instance_id", "init_s", "what", "cost", "call_cost"),
    *("start_cost", "start_estimate_cost", "provisioning_cost", "error", "tenants", "log_tail"),
)
"""Of the fields in a row."""
WHOLE = frozenset(NUMBERS[:5])
_NUMBERS = Struct(f"{len(NUMBERS)}d")
_BILL = Struct("4d")
Words = tuple[str, ...]


class PackedRecord:
    """A record as it is kept: its numbers in one piece, its bill, and its words, of which most are those of others too.

    A batch has the numbers of all its requests, and what decided for each. Kept by the thousand, that would be most of
    what a daemon holds of requests that have ended; a row says only how many they were.
    """

    __slots__ = ("_bill", "_numbers", "_words", "number")

    def __init__(self, number: int, record: BatchRecord, known: dict[Words, Words]) -> None:
        """Stores a record, and its number.

        Args:
            number: of the record.
            record: what is stored.
            known: words of records before, which are taken where they are the same.
        """
        row: dict[str, Any] = record.row()
        self.number = number
        self.correct(record.bill)
        self._numbers = _NUMBERS.pack(*[nan if (value := row[name]) is None else value for name in NUMBERS])
        words = tuple([row[name] for name in WORDS])
        if len(known) >= WORDS_KNOWN:
            known.clear()
        self._words = known.setdefault(words, words)

    @property
    def bill(self) -> Bill:
        """What the batch cost."""
        return Bill(*_BILL.unpack(self._bill))

    def correct(self, bill: Bill) -> None:
        """Takes over another bill."""
        self._bill = _BILL.pack(bill.call, bill.start, bill.start_estimate, bill.provisioning)

    def row(self) -> dict[str, object]:
        """Returns what the record's own `row` is, with its number."""
        values: dict[str, object] = {"record": self.number, **dict.fromkeys(ORDER), **bill_row(self.bill)}
        values.update(zip(WORDS, self._words, strict=True))
        for name, value in zip(NUMBERS, _NUMBERS.unpack(self._numbers), strict=True):
            values[name] = None if isnan(value) else int(value) if name in WHOLE else value
        return values


class BatchRing:
    """The latest batches, each with a rising record number.

    A batch that is answered after it was given up is recorded again: a new record with a new number replaces its first
    one. A reader that follows the numbers and keeps rows by batch id therefore ends with what was really billed.
    """

    def __init__(self, limit: int, counters: InferenceCounters | None = None) -> None:
        """Keeps at most `limit` records, and tells the counters, if there are any, of every answered batch."""
        self.tenants: frozenset[str] = frozenset()
        """Names of the configured tenants."""
        self._limit = limit
        self._counters = counters
        self._packed: OrderedDict[int, PackedRecord] = OrderedDict()
        self._fresh: OrderedDict[int, tuple[int, BatchRecord] | PackedRecord] = OrderedDict()
        """By batch, ascending by number, and all after those in `_packed`."""
        self._words: dict[Words, Words] = {}
        self._last_number = 0
        self.metrics = BatchMetrics()
        """Counts what is sent and what ends, however few records are kept."""

    def sent(self, batch: Batch, classes: Sequence[str] = ()) -> None:
        """Counts a batch that leaves, and its requests, whose classes these are; empty: not known."""
        self.metrics.sent(batch, classes)

    def placements(self) -> list[dict[str, object]]:
        """Returns how many requests were sent to each place for each reason, hedged ones once for each copy."""
        return self.metrics.placements()

    def left(self) -> list[dict[str, object]]:
        """Returns how many batches left for each place, by why they left when they did."""
        return self.metrics.left()

    def disbelieved(self) -> list[dict[str, object]]:
        """Returns how many reports of each tier had a field that contradicts what was measured."""
        counted = sorted(self.metrics.disbelieved.items())
        return [{"tier": tier, "field": name, "reports": reports} for (tier, name), reports in counted]

    def add(self, record: BatchRecord, *, late: bool = False) -> None:
        """Appends a record, which replaces an earlier one of the same batch; drops the oldest one of a full ring.

        Args:
            record: the record.
            late: whether the batch was recorded before, when it was given up.
        """
        self.metrics.ended(record, late=late)
        self._count(record)
        self._last_number += 1
        self._put(record.batch.batch_id, (self._last_number, record))

    def _put(self, batch_id: int, entry: "tuple[int, BatchRecord] | PackedRecord") -> None:
        """Appends an entry with the highest number; packs or drops what there is no room for any more."""
        fresh, packed = self._fresh, self._packed
        packed.pop(batch_id, None)
        fresh.pop(batch_id, None)
        fresh[batch_id] = entry
        if len(fresh) > min(FRESH, self._limit):
            oldest_id, oldest = fresh.popitem(last=False)
            packed[oldest_id] = oldest if isinstance(oldest, PackedRecord) else PackedRecord(*oldest, self._words)
        if len(fresh) + len(packed) > self._limit:
            packed.popitem(last=False)

    def _count(self, record: BatchRecord) -> None:
        batch, report = record.batch, record.report
        if self._counters is not None and not record.error and not batch.warming:
            self._counters.executed(
                batch.model, items=batch.items, elapsed_s=report.elapsed_s, service_s=report.service_s
            )

    def correct(self, batch_id: int, bill: Bill) -> None:
        """Replaces a batch's bill by one that a later answer has shown, under a new number; none if it is the same."""
        entry = self._fresh.get(batch_id) or self._packed.get(batch_id)
        if entry is None or _bill_of(entry) == bill:
            return
        self._last_number += 1
        if isinstance(entry, PackedRecord):
            entry.number = self._last_number
            entry.correct(bill)
            self._put(batch_id, entry)
        else:
            self._put(batch_id, (self._last_number, replace(entry[1], bill=bill)))

    def newest(self, after: int, limit: int) -> list[tuple[int, BatchRecord]]:
        """Returns the latest records with a number above `after`, at most `limit`, with their numbers, oldest first.

        There are FRESH of them at most.
        """
        found: list[tuple[int, BatchRecord]] = []
        for entry in reversed(self._fresh.values()):
            if _number_of(entry) <= after or len(found) == limit:
                break
            if not isinstance(entry, PackedRecord):
                found.append(entry)
        return found[::-1]

    def rows(self, after: int, limit: int) -> list[dict[str, object]]:
        """Returns up to `limit` rows with a `record` number above `after`, oldest first."""
        newest_first = []
        for entry in chain(reversed(self._fresh.values()), reversed(self._packed.values())):
            if _number_of(entry) <= after:
                break
            newest_first.append(entry)
        return [_row_of(entry) for entry in islice(reversed(newest_first), limit)]


def _number_of(entry: tuple[int, BatchRecord] | PackedRecord) -> int:
    return entry.number if isinstance(entry, PackedRecord) else entry[0]


def _bill_of(entry: tuple[int, BatchRecord] | PackedRecord) -> Bill:
    return entry.bill if isinstance(entry, PackedRecord) else entry[1].bill


def _row_of(entry: tuple[int, BatchRecord] | PackedRecord) -> dict[str, object]:
    return entry.row() if isinstance(entry, PackedRecord) else {"record": entry[0], **entry[1].row()}
