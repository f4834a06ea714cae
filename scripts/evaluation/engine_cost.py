"""Processor time of the engine for each request, and of one update of a detector."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from scheduler.domain.messages import Command, Message, RequestArrived
from scheduler.engine import Engine
from scheduler.simulator.shell import Simulation
from scheduler.simulator.world import generators, make_backends, make_requests
from scripts.changepoint_figures import update_costs_us
from scripts.evaluation.case import Case, Result, Row

PART = 500
"""Number of requests in one sample of the median."""


class TimedEngine:
    """Engine that measures its own processor time."""

    def __init__(self, engine: Engine) -> None:
        """Stores the engine to measure."""
        self._engine = engine
        self._arrived = 0
        self._spent_ns = 0
        self.parts_us: list[float] = []
        """Microseconds a request, for each `PART` requests."""

    def handle(self, messages: Sequence[Message], now_s: float) -> list[Command]:
        """Calls the engine and adds the time of the call."""
        started_ns = time.process_time_ns()
        commands = self._engine.handle(messages, now_s)
        self._spent_ns += time.process_time_ns() - started_ns
        self._arrived += sum(isinstance(message, RequestArrived) for message in messages)
        if self._arrived >= PART:
            self.parts_us.append(self._spent_ns / self._arrived / 1000)
            self._arrived, self._spent_ns = 0, 0
        return commands

    def next_wakeup_s(self) -> float | None:
        """Calls the engine and adds the time of the call."""
        started_ns = time.process_time_ns()
        wakeup_s = self._engine.next_wakeup_s()
        self._spent_ns += time.process_time_ns() - started_ns
        return wakeup_s


def tasks(cases: Sequence[Case]) -> Iterator[Callable[[], Result]]:
    """Yields the tasks: the engine on each case, and an update of each kind of detector."""
    for case in cases:
        yield partial(_engine, case)
    yield from (partial(_update, kind) for kind in ("counts", "levels"))


def _engine(case: Case) -> Result:
    scenario, settings = case.scenario, case.scenario.engine_settings()
    requests = make_requests(scenario, case.traffic.workload(generators(scenario.seed)[0]))
    engine = TimedEngine(Engine(settings))
    edge, functions = make_backends(scenario, settings)
    Simulation(engine=engine, requests=requests, edge=edge, functions=functions).run()
    median_us = float(np.median(engine.parts_us)) if engine.parts_us else 0.0
    return Result({**_identity(f"engine, {case.name}"), "on_trace": case.on_trace, "engine_us_median": median_us})


def _update(kind: str) -> Result:
    return Result({**_identity(f"one update of a detector, {kind}"), "update_us_median": update_costs_us()[kind]})


def _identity(name: str) -> Row:
    return {"suite": "engine", "case": name, "policy": "edgeburst", "variant": "", "on_trace": False, "seed": 0}
