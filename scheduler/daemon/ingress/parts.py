"""The parts of the daemon that requests reach."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from scheduler.daemon.batch_metrics import BatchMetrics
from scheduler.daemon.calls import Answer, InferenceCall
from scheduler.daemon.history.feed import Feed
from scheduler.daemon.identities import Identities
from scheduler.daemon.limits import ModelLimits
from scheduler.daemon.model_statistics import InferenceCounters
from scheduler.daemon.own_latency import OwnLatency
from scheduler.daemon.state.lending import Report
from scheduler.daemon.state.loans import Caps
from scheduler.daemon.state.money import Leased
from scheduler.domain.plans import Plan


class CallRunner(Protocol):
    """The runner, as requests reach it; see `runner.Runner`."""

    @property
    def draining(self) -> bool:
        """Whether the daemon stops and accepts no more calls."""
        ...

    def now(self) -> float:
        """Returns monotonic seconds."""
        ...

    async def submit(self, call: InferenceCall) -> Answer:
        """Returns the call's answer, or raises Refused; when it is cancelled, the call ends without an answer."""
        ...


class Explainer(Protocol):
    """Explains requests: to a caller those sent with the token of its name (empty: without one), to None all."""

    def find(self, name: str, owner: str | None, before: int | None) -> list[dict[str, object]]:
        """Returns the request with that number, then the newest with that client id; `before` a number, if given."""
        ...

    def find_client(self, name: str, owner: str | None, before: int | None) -> list[dict[str, object]]:
        """Returns the newest with that client id alone."""
        ...

    def last(self, owner: str | None, *, missed: bool) -> list[dict[str, object]]:
        """Returns the newest, or the newest that was refused or late."""
        ...


@dataclass(frozen=True, slots=True)
class DaemonParts:
    """What the handlers of requests use of a daemon."""

    runner: CallRunner
    limits: ModelLimits
    own_latency: OwnLatency
    counters: InferenceCounters
    plan: Callable[[], Plan | None]
    """Returns the plan that the engine follows; None before the first."""
    status: Callable[[], dict[str, object]]
    """Returns the state that GET /v1/status shows."""
    batches: Callable[[int, int], list[dict[str, object]]]
    """Returns up to so many (second) ended batches with a record number above the first, oldest first."""
    explain: Explainer
    why_unmeasured: Callable[[str], str] = lambda _: ""
    """Returns why the edge could not be measured for a model, in words; empty: nothing is known against it."""
    lend: Callable[[Report, Caps], Awaitable[Leased | None]] | None = None
    """Lends money of the ledger to another daemon, None where it cannot be written; without: there is no ledger."""
    batch_metrics: BatchMetrics = field(default_factory=BatchMetrics)
    """Counts batches, for Prometheus."""
    feed: Feed = field(default_factory=Feed)
    """What the page at `/` shows, and its history."""
    identities: Identities = field(default_factory=Identities)
    """Which card and files each model is expected to have."""
