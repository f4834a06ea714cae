"""The latest batches that ended: a bounded ring, which GET /v1/batches reads."""

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from itertools import islice

from scheduler.daemon.backends.batch_send import BatchSend
from scheduler.daemon.calls import InferenceCall
from scheduler.daemon.model_statistics import InferenceCounters
from scheduler.domain.batches import Batch, BatchReport, Failure
from scheduler.domain.bills import Bill, bill_of, purpose_of
from scheduler.domain.tenants import tenant_label


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
            "cost": bill.total,
            "call_cost": bill.call,
            "start_cost": bill.start,
            "start_estimate_cost": bill.start_estimate,
            "provisioning_cost": bill.provisioning,
            "error": self.error,
            "tenants": self.tenants,
            "log_tail": self.log_tail,
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
        self._records: OrderedDict[int, tuple[int, BatchRecord]] = OrderedDict()
        self._last_number = 0
        self._placements: Counter[tuple[str, str]] = Counter()
        self._left: Counter[tuple[str, str]] = Counter()
        self._disbelieved: Counter[tuple[str, str]] = Counter()

    def sent(self, batch: Batch) -> None:
        """Counts a batch that leaves, and its requests, by its place and by why it left and what decided for each."""
        place = str(batch.place)
        if batch.why_left is not None:
            self._left[(place, batch.why_left.value)] += 1
        self._placements.update([(place, reason.value) for reason in batch.reasons])

    def placements(self) -> list[dict[str, object]]:
        """Returns how many requests were sent to each place for each reason, hedged ones once for each copy."""
        counted = sorted(self._placements.items())
        return [{"place": place, "reason": reason, "requests": requests} for (place, reason), requests in counted]

    def left(self) -> list[dict[str, object]]:
        """Returns how many batches left for each place, by why they left when they did."""
        return [
            {"place": place, "why": why, "batches": batches} for (place, why), batches in sorted(self._left.items())
        ]

    def disbelieved(self) -> list[dict[str, object]]:
        """Returns how many reports of each tier had a field that contradicts what was measured."""
        counted = sorted(self._disbelieved.items())
        return [{"tier": tier, "field": name, "reports": reports} for (tier, name), reports in counted]

    def add(self, record: BatchRecord) -> None:
        """Appends a record, which replaces an earlier one of the same batch; drops the oldest one of a full ring."""
        place = record.batch.tier or str(record.batch.place)
        self._disbelieved.update([(place, name) for name in record.report.disbelieved])
        self._count(record)
        self._last_number += 1
        self._records.pop(record.batch.batch_id, None)
        self._records[record.batch.batch_id] = (self._last_number, record)
        if len(self._records) > self._limit:
            self._records.popitem(last=False)

    def _count(self, record: BatchRecord) -> None:
        batch, report = record.batch, record.report
        if self._counters is not None and not record.error and not batch.warming:
            self._counters.executed(
                batch.model, items=batch.items, elapsed_s=report.elapsed_s, service_s=report.service_s
            )

    def correct(self, batch_id: int, bill: Bill) -> None:
        """Replaces a batch's bill by one that a later answer has shown, under a new number; none if it is the same."""
        _, record = self._records.get(batch_id, (0, None))
        if record is None or record.bill == bill:
            return
        self._last_number += 1
        del self._records[batch_id]
        self._records[batch_id] = (self._last_number, replace(record, bill=bill))

    def newest(self, after: int, limit: int) -> list[tuple[int, BatchRecord]]:
        """Returns the latest records with a number above `after`, at most `limit`, with their numbers, oldest first."""
        found: list[tuple[int, BatchRecord]] = []
        for number, record in reversed(self._records.values()):
            if number <= after or len(found) == limit:
                break
            found.append((number, record))
        return found[::-1]

    def rows(self, after: int, limit: int) -> list[dict[str, object]]:
        """Returns up to `limit` rows with a `record` number above `after`, oldest first."""
        newest_first = []
        for number, record in reversed(self._records.values()):
            if number <= after:
                break
            newest_first.append((number, record))
        return [{"record": number, **record.row()} for number, record in islice(reversed(newest_first), limit)]
