"""The daemon's state as JSON, and the parts of it that have a memory: plans and limits."""

import json
import math
from dataclasses import asdict

from scheduler.daemon.limits import ModelLimits
from scheduler.daemon.status import DaemonStatus, PlanHistory, RunnerStatistics
from scheduler.domain.messages import LimitsChanged
from scheduler.domain.plans import Limits, Plan
from scheduler.domain.requests import Attempt, Backend

STATISTICS = RunnerStatistics(
    now_s=112.0,
    uptime_s=12.0,
    draining=False,
    waiting_requests=3,
    waiting_bytes=72_000,
    batches_under_way=2,
    late_answers=1,
)


def a_plan(plan_id: int) -> Plan:
    return Plan(plan_id, 100.0 + plan_id, 600.0, "rate", f"change {plan_id}", ())


def test_the_report_has_the_state_of_every_part_and_is_json() -> None:
    limits, plans = ModelLimits(lambda changed: None), PlanHistory()
    limits.set("digits", Limits(edge_batch_cap=4))
    plans.add(a_plan(1))
    status = DaemonStatus(
        runner=lambda: STATISTICS,
        engine=lambda: Attempt(Backend.EDGE, 7, math.inf),
        limits=limits.by_model,
        plans=plans,
        explanations=lambda: {"ring": 10, "file": None},
        own_latency=lambda: {"count": 0},
        state=lambda: {"folder": None},
        models=lambda: {"digits": {"agree": True}},
        edges=lambda: [{"name": name, "url": f"http://{name}"} for name in ("a", "b")],
    )
    status.alarms.opened[("edge:a", "")] = 2
    report = status.report()
    assert json.loads(json.dumps(report)) == {
        **asdict(STATISTICS),
        "placements": [],
        "batches_left": [],
        "disbelieved": [],
        "engine": {"backend": "edge", "batch_id": 7, "sent_at_s": None, "edge": "main"},
        "limits": {"digits": {"window_s": None, "edge_batch_cap": 4, "function_batch_cap": None}},
        "plans": [{"plan_id": 1, "at_s": 101.0, "cause": "rate", "detail": "change 1"}],
        "plans_adopted": {"rate": 1},
        "circuits_opened": [{"place": "edge:a", "model": "", "times": 2}],
        "explanations": {"ring": 10, "file": None},
        "own_latency": {"count": 0},
        "state": {"folder": None},
        "lender": None,
        "recording": {},
        "shadow": None,
        "models": {"digits": {"agree": True}},
        "edge": {"name": "a", "url": "http://a"},
        "edges": [{"name": "a", "url": "http://a"}, {"name": "b", "url": "http://b"}],
    }


def test_the_plan_history_keeps_the_latest_plans() -> None:
    history = PlanHistory(kept=2)
    for plan_id in (1, 2, 3):
        history.add(a_plan(plan_id))
    assert [row["plan_id"] for row in history.rows()] == [2, 3]


def test_limits_reach_the_engine_when_they_are_set_and_are_remembered() -> None:
    posted: list[LimitsChanged] = []
    limits = ModelLimits(posted.append)
    assert limits.of("digits") == Limits()
    limits.set("digits", Limits(window_s=0.2))
    limits.set("digits", Limits(edge_batch_cap=4))
    assert limits.of("digits") == Limits(edge_batch_cap=4)
    assert limits.of("other") == Limits()
    assert posted == [LimitsChanged("digits", Limits(window_s=0.2)), LimitsChanged("digits", Limits(edge_batch_cap=4))]
