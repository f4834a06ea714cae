"""Messages go into the engine, commands come out. All are frozen; the engine never performs anything itself."""

from dataclasses import dataclass

from scheduler.domain.batches import Batch, BatchReport, Failure
from scheduler.domain.errors import Refusal
from scheduler.domain.plans import EngineSettings, Limits, Plan, Snapshot
from scheduler.domain.requests import Backend, Request


@dataclass(frozen=True, slots=True)
class RequestArrived:
    """A request was read to its last byte."""

    request: Request


@dataclass(frozen=True, slots=True)
class RequestCancelled:
    """The client went away; nobody waits for an answer."""

    request_id: int


@dataclass(frozen=True, slots=True)
class BatchFinished:
    """A batch was answered."""

    batch_id: int
    report: BatchReport


@dataclass(frozen=True, slots=True)
class BatchFailed:
    """A whole batch came back without answers."""

    batch_id: int
    failure: Failure
    report: BatchReport


@dataclass(frozen=True, slots=True)
class BillArrived:
    """A batch that was given up came back after all: nobody gets its answer, but what it costs is known."""

    batch_id: int
    billed_duration_s: float
    """Before rounding, measured in the container."""


@dataclass(frozen=True, slots=True)
class ProbeMeasured:
    """A probe came back: whether the backend answers, and what the way there looks like."""

    backend: Backend
    ok: bool
    rtt_s: float | None = None
    sent_bytes: int = 0
    transfer_s: float | None = None
    """Seconds that `sent_bytes` took, round trip excluded."""


@dataclass(frozen=True, slots=True)
class PlanComputed:
    """The planner's answer to ComputePlan."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class LimitsChanged:
    """An operator narrowed or widened a model's limits."""

    model: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class SettingsChanged:
    """The configuration was reloaded."""

    settings: EngineSettings


@dataclass(frozen=True, slots=True)
class DrainStarted:
    """No further request is admitted; what is queued leaves at once."""


Message = (
    RequestArrived
    | RequestCancelled
    | BatchFinished
    | BatchFailed
    | BillArrived
    | ProbeMeasured
    | PlanComputed
    | LimitsChanged
    | SettingsChanged
    | DrainStarted
)


@dataclass(frozen=True, slots=True)
class SendBatch:
    """Send these requests together, now."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """Hand this request its part of that batch's answer."""

    request_id: int
    batch_id: int


@dataclass(frozen=True, slots=True)
class RefuseRequest:
    """Tell this request's client why it gets no answer."""

    request_id: int
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class ComputePlan:
    """Run planner.best_plan(snapshot, ...) beside the data plane and bring the plan back as PlanComputed."""

    snapshot: Snapshot
    plan_id: int
    cause: str
    detail: str


@dataclass(frozen=True, slots=True)
class SendProbe:
    """Find out whether a backend answers and how the way there is."""

    backend: Backend


@dataclass(frozen=True, slots=True)
class PlanAdopted:
    """From now on this plan is obeyed; a fact for records and people."""

    plan: Plan


Command = SendBatch | AnswerRequest | RefuseRequest | ComputePlan | SendProbe | PlanAdopted
