"""The parts of the daemon that requests reach."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

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
    explain: Callable[[str, str | None, int | None], list[dict[str, object]]]
    """Returns the explanations of the newest requests with that number or client id, newest first: those that were sent
    with a token of that name (empty: without one), or for None all; those before a number, or for None all."""
    why_unmeasured: Callable[[str], str] = lambda _: ""
    """Returns why the edge could not be measured for a model, in words; empty: nothing is known against it."""
    lend: Callable[[Report, Caps], Awaitable[Leased | None]] | None = None
    """Lends money of the ledger to another daemon, None where it cannot be written; without: there is no ledger."""
    feed: Feed = field(default_factory=Feed)
    """What the page at `/` shows, and its history."""
    identities: Identities = field(default_factory=Identities)
    """Which card and files each model is expected to have."""
