"""An engine with the published laws, and the few words that tests of it need."""

from collections.abc import Sequence

from scheduler.domain.batches import Batch, BatchReport, Failure, FailureKind
from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.messages import (
    AnswerRequest,
    BatchFailed,
    BatchFinished,
    Command,
    RefuseRequest,
    RequestArrived,
    SendBatch,
)
from scheduler.domain.plans import EngineSettings, ModelSettings, ServiceClass
from scheduler.domain.requests import FUNCTIONS, Backend, Place, Request
from scheduler.engine import Engine

ORIN = LatencyModel(0.04234, 0.008165, 64)
FUNCTION = LatencyModel(0.216, 0.141, 5)
PRICE = Price(1.27e-5, 9e-7, 0.001, "CNY", "cny-gbs-2023")
TIER = FunctionTier("1gb", "digits", FUNCTION, PRICE, provisioned=64)
"""Always warm, as deployed; instances cost nothing idle here."""


def settings(
    *,
    edge: bool = True,
    function: bool = True,
    slo_s: float = 1.0,
    serve_late: bool = False,
    **engine: object,
) -> EngineSettings:
    """Returns settings for one model `m`."""
    model = ModelSettings(
        "m",
        max_items=64,
        classes=(ServiceClass("default", slo_s=slo_s, serve_late=serve_late),),
        edge_latency=ORIN if edge else None,
        tiers=(TIER,) if function else (),
    )
    return EngineSettings(models=(model,), **engine)  # type: ignore[arg-type]


def request(request_id: int, at_s: float, *, slo_s: float = 1.0, items: int = 1, body_bytes: int = 10_000) -> Request:
    """Returns a request for model `m`."""
    return Request(request_id, "m", at_s, at_s + slo_s, items=items, body_bytes=body_bytes)


def arrive(engine: Engine, at_s: float, *ids: int, **kwargs: float | int) -> list[Command]:
    """Lets requests arrive together."""
    return engine.handle([RequestArrived(request(i, at_s, **kwargs)) for i in ids], at_s)  # type: ignore[arg-type]


def sent(commands: Sequence[Command], backend: Backend | None = None) -> list[Batch]:
    """Returns the batches of requests among commands; warming calls are none."""
    batches = [c.batch for c in commands if isinstance(c, SendBatch) and not c.batch.warming]
    return [b for b in batches if backend is None or b.backend is backend]


def answered(commands: Sequence[Command]) -> list[int]:
    """Returns the ids of answered requests."""
    return [c.request_id for c in commands if isinstance(c, AnswerRequest)]


def refused(commands: Sequence[Command]) -> dict[int, RefuseRequest]:
    """Returns refusals by request id."""
    return {c.request_id: c for c in commands if isinstance(c, RefuseRequest)}


def finish(engine: Engine, batch: Batch, at_s: float) -> list[Command]:
    """Answers a batch."""
    elapsed_s = at_s - batch.sent_at_s
    report = BatchReport(elapsed_s, service_s=batch.predicted_service_s, billed_duration_s=batch.predicted_service_s)
    return engine.handle([BatchFinished(batch.batch_id, report)], at_s)


def fail(
    engine: Engine, batch: Batch, at_s: float, kind: FailureKind, retry_after_s: float | None = None
) -> list[Command]:
    """Fails a batch."""
    failure = Failure(kind, f"made to fail ({kind.value})", retry_after_s)
    return engine.handle([BatchFailed(batch.batch_id, failure, BatchReport(at_s - batch.sent_at_s))], at_s)


def run_until_idle(engine: Engine, commands: list[Command], now_s: float, limit_s: float) -> list[Command]:
    """Answers every batch at its predicted finish and lets time pass; returns all commands, the given ones first."""
    done = list(commands)
    open_batches = sent(commands)
    while True:
        due = min(open_batches, key=lambda b: b.predicted_finish_s, default=None)
        wakeup_s = engine.next_wakeup_s()
        if due is not None and (wakeup_s is None or due.predicted_finish_s <= wakeup_s):
            open_batches.remove(due)
            now_s = max(now_s, due.predicted_finish_s)
            new = finish(engine, due, now_s)
        elif wakeup_s is not None and wakeup_s <= limit_s:
            now_s = max(now_s, wakeup_s)
            new = engine.handle([], now_s)
        else:
            return done
        done += new
        open_batches += sent(new)


def endpoint_of(backend: Backend) -> Place:
    """Returns the edge server, or the functions."""
    return Place.edge() if backend is Backend.EDGE else FUNCTIONS
