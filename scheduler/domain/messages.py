"""Messages to the engine, and commands from it. All are frozen; the shell performs the commands."""

from dataclasses import dataclass, field

from scheduler.domain.batches import Batch, BatchReport, Failure, FailureKind
from scheduler.domain.bills import Bill
from scheduler.domain.edge_limits import EdgeLimit
from scheduler.domain.errors import Refusal
from scheduler.domain.plans import EngineSettings, Limits, Plan, Snapshot
from scheduler.domain.requests import Place, Request


@dataclass(frozen=True, slots=True)
class RequestArrived:
    """Arrival of a request, which was read to its last byte."""

    request: Request


@dataclass(frozen=True, slots=True)
class RequestCancelled:
    """Cancellation of a request: its client went away."""

    request_id: int


@dataclass(frozen=True, slots=True)
class BatchFinished:
    """End of a batch that was answered."""

    batch_id: int
    report: BatchReport
    unusable: frozenset[int] = frozenset()
    """Members whose part of the answer cannot be used; the others have their answers."""


@dataclass(frozen=True, slots=True)
class BatchFailed:
    """End of a whole batch without an answer."""

    batch_id: int
    failure: Failure
    report: BatchReport


@dataclass(frozen=True, slots=True)
class BillArrived:
    """Bill of a batch that was given up: it was answered after all, or will never be.

    The answer is not used, the cost counts.
    """

    batch_id: int
    report: BatchReport
    """What came back; without a billed duration the connection has ended and the bill stays unknown."""
    failure: FailureKind | None = None
    """How the wait for the answer ended; None: with an answer."""


@dataclass(frozen=True, slots=True)
class ModelBarred:
    """Notice that a place serves another model under this name than is expected, or no longer does."""

    model: str
    place: Place
    """An edge server, or FUNCTIONS."""
    barred: bool


@dataclass(frozen=True, slots=True)
class ProbeMeasured:
    """Result of a probe: whether a place answers, and measurements of the path to it."""

    place: Place
    """An edge server, or FUNCTIONS."""
    ok: bool
    rtt_s: float | None = None
    sent_bytes: int = 0
    transfer_s: float | None = None
    """Seconds that `sent_bytes` took, round trip excluded."""
    largest_batches: tuple[tuple[str, int], ...] = ()
    """By model: most items in a batch, as the server says; models of which it says nothing are absent."""
    server: str = ""
    """Distinguishes the server from others: one that is another was never refused anything. Empty: not known."""
    broken: tuple[str, ...] = ()
    """Models of which it did not answer a small batch of made-up items as their cards say."""
    unasked: tuple[str, ...] = ()
    """Models that were to be asked for and were not, because another kept it busy."""
    parallel: int | None = None
    """Batches that the server says it serves at once; None: it says nothing, or said it before."""
    asked_at_s: float | None = field(default=None, compare=False)
    """When it began, for what is known since to outweigh it; None: as the engine asked for it."""


@dataclass(frozen=True, slots=True)
class UplinkCarried:
    """What the way to the functions carried while something was under way on it all the time, as the kernel counted."""

    start_s: float
    end_s: float
    carried_bytes: int


@dataclass(frozen=True, slots=True)
class PlanComputed:
    """Plan that was made for a ComputePlan."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class LimitsChanged:
    """New limits of a model, set by an operator."""

    model: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class SettingsChanged:
    """Settings of a reloaded configuration."""

    settings: EngineSettings


@dataclass(frozen=True, slots=True)
class DrainStarted:
    """Start of the drain: no further request is admitted, and gathered function batches are sent at once."""


@dataclass(frozen=True, slots=True)
class SpendGranted:
    """Answer to RequestSpend: money that may be spent from now on, leased from a ledger that outlives the process."""

    amount: float
    """In the prices' currency; less than asked for where `closed_by` says why."""
    closed_by: str = ""
    """Why it is less: "hour" or "day" for a cap, "state" for a ledger that cannot be written, "lender" for
    one of another daemon that lends nothing; empty if it is not."""
    opens_in_s: float = 0.0
    """Seconds until it is worth asking again."""
    before: tuple[tuple[float, float], ...] = ()
    """Money of earlier processes, with the first answer only: seconds ago and amount, oldest first."""


Message = (
    RequestArrived
    | RequestCancelled
    | BatchFinished
    | BatchFailed
    | BillArrived
    | ModelBarred
    | ProbeMeasured
    | UplinkCarried
    | PlanComputed
    | LimitsChanged
    | SettingsChanged
    | DrainStarted
    | SpendGranted
)


@dataclass(frozen=True, slots=True)
class SendBatch:
    """Command to send a batch now."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """Command to answer a request with its part of a batch's answer."""

    request_id: int
    batch_id: int


@dataclass(frozen=True, slots=True)
class RefuseRequest:
    """Command to tell the client of a request why there is no answer."""

    request_id: int
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class ComputePlan:
    """Command to run `planner.site.plan.best_plan` beside the data plane; the plan returns as PlanComputed."""

    snapshot: Snapshot
    plan_id: int
    cause: str
    detail: str


@dataclass(frozen=True, slots=True)
class SendProbe:
    """Command to find out whether a place answers, and to measure the path to it."""

    place: Place
    """An edge server, or FUNCTIONS."""
    models: tuple[str, ...] = ()
    """Models to ask for, with a small batch of made-up items each where that costs nothing; in this order."""


@dataclass(frozen=True, slots=True)
class PlanAdopted:
    """Notice that a plan is in force from now on, for records and people."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class RequestSpend:
    """Command to lease money from the ledger, ahead of use; it is answered by SpendGranted."""

    amount: float
    left: float
    """What is left of earlier leases; negative: so much was spent beyond them, and must be booked whatever the caps."""
    per_hour: float | None
    """Cap on any hour; None: none."""
    per_day: float | None


@dataclass(frozen=True, slots=True)
class ReturnSpend:
    """Command to give leased money back that is not needed; it is not spent any more."""

    amount: float


@dataclass(frozen=True, slots=True)
class QuotaLearned:
    """Notice that the provider's refusals show a limit on concurrency, another one than before, or none any more."""

    model: str
    """Empty, with the tier: all tiers together."""
    tier: str
    granted: int | None
    """Batches that it runs at once; None: more than are ever in flight."""


@dataclass(frozen=True, slots=True)
class BillCorrected:
    """Notice that a later answer has shown what a batch that ended cost otherwise than its own outcome said."""

    batch_id: int
    bill: Bill


@dataclass(frozen=True, slots=True)
class EdgeBatchLearned:
    """Notice that the largest batch is known that the edge takes, or that it is another one than before."""

    limit: EdgeLimit


Command = (
    SendBatch
    | AnswerRequest
    | RefuseRequest
    | ComputePlan
    | SendProbe
    | PlanAdopted
    | RequestSpend
    | ReturnSpend
    | QuotaLearned
    | BillCorrected
    | EdgeBatchLearned
)
