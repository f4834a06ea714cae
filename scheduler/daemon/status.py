"""The daemon's state as JSON, for GET /v1/status."""

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any

from scheduler.daemon.engine_alarms import EngineAlarms
from scheduler.domain.plans import Limits, Plan
from scheduler.domain.statistics import EngineStatistics

PLANS_KEPT = 256


@dataclass(frozen=True, slots=True)
class RunnerStatistics:
    """A snapshot of the calls and batches that the runner holds."""

    now_s: float
    uptime_s: float
    draining: bool
    waiting_requests: int
    """Calls without an answer or a refusal."""
    waiting_bytes: int
    """Bytes of their inputs."""
    batches_under_way: int
    late_answers: int
    """Answers that arrived after their batch was given up."""
    placements: Sequence[Mapping[str, object]] = ()
    """Requests sent to each place for each reason."""
    batches_left: Sequence[Mapping[str, object]] = ()
    """Batches sent to each place, by why they left when they did."""
    disbelieved: Sequence[Mapping[str, object]] = ()
    """Reports of functions that contradict what was measured, by tier and field."""


class PlanHistory:
    """The latest plans that the engine adopted."""

    def __init__(self, kept: int = PLANS_KEPT) -> None:
        """Keeps at most `kept` plans."""
        self._plans: deque[Plan] = deque(maxlen=kept)
        self.causes: Counter[str] = Counter()
        """How many plans were adopted, by cause."""

    def add(self, plan: Plan) -> None:
        """Appends a plan; the oldest is dropped when the history is full."""
        self._plans.append(plan)
        self.causes[plan.cause] += 1

    def latest(self) -> Plan | None:
        """Returns the plan that the engine follows; None before the first."""
        return self._plans[-1] if self._plans else None

    def all(self) -> list[Plan]:
        """Returns the plans, oldest first."""
        return list(self._plans)

    def rows(self) -> list[dict[str, object]]:
        """Returns the plans as JSON shows them, oldest first."""
        return [
            {"plan_id": plan.plan_id, "at_s": plan.made_at_s, "cause": plan.cause, "detail": plan.detail}
            for plan in self._plans
        ]


class DaemonStatus:
    """The state of the daemon, collected from its parts when it is asked for."""

    def __init__(
        self,
        *,
        runner: Callable[[], RunnerStatistics],
        engine: Callable[[], EngineStatistics],
        limits: Callable[[], Mapping[str, Limits]],
        plans: PlanHistory,
        explanations: Callable[[], Mapping[str, object]],
        own_latency: Callable[[], Mapping[str, object]],
        state: Callable[[], Mapping[str, object]],
        models: Callable[[], Mapping[str, Mapping[str, Any]]] = dict,
        edges: Callable[[], Sequence[Mapping[str, object]]] = tuple,
        lender: Callable[[], Mapping[str, object] | None] = lambda: None,
        recording: Callable[[], Mapping[str, object]] = dict,
        shadow: Callable[[], Mapping[str, Any] | None] = lambda: None,
    ) -> None:
        """Stores what to ask.

        Args:
            runner: returns the runner's statistics.
            engine: returns the engine's statistics.
            limits: returns the limits by model.
            plans: the latest plans.
            explanations: returns the state of the explanations and their file.
            own_latency: returns the daemon's own latency.
            state: returns what is kept beyond the process.
            models: returns which card and files each place serves, by model.
            edges: returns what is known of each edge server, with its name.
            recording: returns what is recorded of arrivals, and where.
            lender: returns the daemon that money is borrowed from, and whether it lends; None: none is.
            shadow: returns the figures of another configuration beside the live ones; None: there is none.
        """
        self._runner = runner
        self.engine = engine
        self._limits = limits
        self.plans = plans
        self._explanations = explanations
        self.own_latency = own_latency
        self.state = state
        self.models = models
        self.edges = edges
        self._lender = lender
        self._recording = recording
        self.alarms = EngineAlarms()
        """Is shown the engine once a second."""
        self.shadow = shadow

    def report(self) -> dict[str, object]:
        """Returns the state as GET /v1/status shows it."""
        runner, edges = self._runner(), list(self.edges())
        return {
            **{field.name: getattr(runner, field.name) for field in fields(runner)},
            "engine": jsonable(self.engine()),
            "limits": jsonable(self._limits()),
            "plans": self.plans.rows(),
            "plans_adopted": dict(self.plans.causes),
            "circuits_opened": [
                {"place": place, "model": model, "times": times} for (place, model), times in self.alarms.opened.items()
            ],
            "explanations": self._explanations(),
            "own_latency": jsonable(self.own_latency()),
            "state": self.state(),
            "lender": self._lender(),
            "recording": self._recording(),
            "shadow": self.shadow(),
            "models": self.models(),
            "edge": next(iter(edges), None),
            "edges": edges,
        }


def jsonable(value: object) -> object:
    """Returns a value in the types of JSON: a dataclass becomes an object, an enum its value, an infinity null.

    >>> from scheduler.domain.requests import Attempt, Backend
    >>> jsonable({"attempt": Attempt(Backend.EDGE, 7, math.inf)})
    {'attempt': {'backend': 'edge', 'batch_id': 7, 'sent_at_s': None, 'edge': 'main'}}
    """
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if is_dataclass(value):
        return {field.name: jsonable(getattr(value, field.name)) for field in fields(value) if field.init}
    if isinstance(value, Mapping):
        return {_key(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(item) for item in value]
    return value if value is None or isinstance(value, (bool, int)) else str(value)


def _key(key: object) -> str:
    return str(key.value) if isinstance(key, Enum) else str(key)
