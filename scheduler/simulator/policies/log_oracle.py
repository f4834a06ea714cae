"""True values of a scenario over time, which `log-oracle` and `oracle-laws` use in place of estimates.

`log-oracle` counts the true rate in the arrivals. If the scenario declares rate steps, it is the mean from one change
to the next; otherwise the mean over a short window around the moment, which ends where a burst begins or ends. So it
looks a second ahead: where many requests are about to come, it knows.

`oracle-laws` knows the rate that the arrivals were drawn from, and no arrival. A trace was drawn from no known rate.
There it is the mean over a long window around the moment, in which the requests that come before the edge is free are
too few to show.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

from scheduler.domain.requests import EDGE_NAME, Request
from scheduler.simulator.faults import Fault, Faults
from scheduler.simulator.network import Bandwidth
from scheduler.simulator.scenario import Scenario
from scheduler.workloads import RateSteps

RATE_WINDOW_S = 2.0
"""Window where no rate step is declared: about 200 requests at 100 a second, a standard error of 7 %."""
LAWS_WINDOW_S = 60.0
"""The same of `oracle-laws`, where no rate is known: 6,000 requests at 100 a second, a standard error of 1.3 %."""


class Truth:
    """True rate, bandwidth, slowdown and faults of one run, as functions of time in seconds."""

    def __init__(self, scenario: Scenario, requests: Sequence[Request]) -> None:
        """Stores the scenario and, by model, the times of its requests.

        Args:
            scenario: the scenario of the run.
            requests: the requests that will arrive, in order.
        """
        self._scenario = scenario
        self._edge_faults = {server.name: server.faults for server in scenario.edge_servers()}
        self._edges = {name: Faults(faults) for name, faults in self._edge_faults.items()}
        self._functions = Faults(scenario.function_faults)
        self._steps_s = rate_changes_s(scenario)
        self._arrivals_s: dict[str, list[float]] = {}
        for request in requests:
            self._arrivals_s.setdefault(request.model, []).append(request.arrived_at_s)

    def rate_rps(self, model: str, at_s: float) -> float:
        """Returns the true rate of a model at `at_s`, requests a second."""
        start_s, end_s = self._stretch(at_s)
        if not self._scenario.rate_steps or not math.isfinite(end_s):
            start_s, end_s = max(start_s, at_s - RATE_WINDOW_S / 2), min(end_s, at_s + RATE_WINDOW_S / 2)
        return self._counted_rps(model, start_s, end_s)

    def _counted_rps(self, model: str, start_s: float, end_s: float) -> float:
        arrivals_s = self._arrivals_s.get(model, [])
        return (bisect_left(arrivals_s, end_s) - bisect_left(arrivals_s, start_s)) / (end_s - start_s)

    def _stretch(self, at_s: float) -> tuple[float, float]:
        """Returns the interval between two declared rate changes; its end is infinite after the last change."""
        index = bisect_right(self._steps_s, at_s)
        start_s = self._steps_s[index - 1] if index else 0.0
        return start_s, self._steps_s[index] if index < len(self._steps_s) else math.inf

    def bytes_per_s(self, at_s: float) -> float:
        """Returns the bandwidth of the uplink, bytes a second; infinite for a link without limit."""
        return self._scenario.bandwidth.rate_at(at_s)

    def edge_slowdown(self, at_s: float, edge: str = EDGE_NAME) -> float:
        """Returns the factor on an edge server's service time."""
        return self._edges[edge].slowdown(at_s)

    def function_slowdown(self, at_s: float) -> float:
        """Returns the factor on a function's service time."""
        return self._functions.slowdown(at_s)

    def edge_back_s(self, at_s: float, edge: str = EDGE_NAME) -> float:
        """Returns the end of an edge server's outage; `at_s` itself if there is none."""
        return _back_s(self._edge_faults[edge], at_s)

    def functions_back_s(self, at_s: float) -> float:
        """Returns the end of the functions' outage or throttling; `at_s` itself if there is none."""
        return _back_s(self._scenario.function_faults, at_s)

    def edge_speed_changes_s(self, edge: str = EDGE_NAME) -> list[float]:
        """Returns the times at which an edge server's speed changes, ascending."""
        return sorted(_ends_s([fault for fault in self._edge_faults[edge] if fault.kind == "slow"]))

    def rate_changes_s(self) -> list[float]:
        """Returns the times at which the declared rate changes, ascending."""
        return list(self._steps_s)

    def cause_of(self, change_s: float) -> str:
        """Returns the cause of a plan for one of `changes_s`, one of the engine's own causes where it applies."""
        if change_s in self._steps_s:
            return "rate"
        if any(change_s in self.edge_speed_changes_s(edge) for edge in self._edges):
            return "edge-service"
        # A step of the bandwidth is a change; a log in which every second differs is not.
        bandwidth = self._scenario.bandwidth
        steps = math.isinf(bandwidth.period_s) and change_s in bandwidth.starts_s
        return "bandwidth" if steps else "told"

    def changes_s(self, until_s: float) -> list[float]:
        """Returns the times up to `until_s` at which a true value changes in a step, ascending.

        The rate of a trace varies without steps and adds no times.
        """
        scenario = self._scenario
        faults = (*(fault for each in self._edge_faults.values() for fault in each), *scenario.function_faults)
        moments = {*self._steps_s, *_bandwidth_changes_s(scenario.bandwidth, until_s), *_ends_s(faults)}
        return sorted(moment for moment in moments if 0 < moment <= until_s)


class Laws(Truth):
    """The truth with the rate that the arrivals were drawn from; their times show only in means over a minute."""

    def __init__(self, scenario: Scenario, requests: Sequence[Request], rate: RateSteps | None) -> None:
        """Stores the scenario, its requests and their rate.

        Args:
            scenario: the scenario of the run.
            requests: the requests that will arrive, in order.
            rate: of the workload, without the bursts of single tenants; None if it is not known.
        """
        super().__init__(scenario, requests)
        self._rate = rate
        self._last_s = requests[-1].arrived_at_s if requests else 0.0
        self._bursts = [burst for tenant in scenario.tenants for burst in tenant.bursts]
        shares = {model.name: model.share for model in scenario.served()}
        self._part = {name: share / sum(shares.values()) for name, share in shares.items()}

    def rate_rps(self, model: str, at_s: float) -> float:
        """Returns the rate of a model at `at_s`, requests a second."""
        if self._rate is not None:
            bursts = sum(b.rate_rps for b in self._bursts if b.start_s <= at_s < b.start_s + b.duration_s)
            return self._part[model] * (self._rate.at(at_s) + bursts)
        # The window keeps its length at both ends of the arrivals; it is no longer than they are.
        length_s = min(LAWS_WINDOW_S, max(self._last_s, RATE_WINDOW_S))
        start_s = max(0.0, min(at_s - length_s / 2, self._last_s - length_s))
        return self._counted_rps(model, start_s, start_s + length_s)


def rate_changes_s(scenario: Scenario) -> list[float]:
    """Returns the times at which the declared rate changes: ends of steps, starts and ends of bursts."""
    steps_s = accumulate(seconds for seconds, _ in scenario.rate_steps)
    bursts_s = {moment for b in scenario.bursts for moment in (b.start_s, b.start_s + b.duration_s)}
    return sorted({*steps_s, *bursts_s})


def _back_s(faults: Sequence[Fault], at_s: float) -> float:
    """Returns the end of the consecutive faults that include `at_s`; `at_s` itself if there is none."""
    for fault in sorted(faults, key=lambda fault: fault.start_s):
        if fault.kind != "slow" and fault.start_s <= at_s < fault.end_s:
            at_s = fault.end_s
    return at_s


def _ends_s(faults: Sequence[Fault]) -> set[float]:
    return {moment for fault in faults for moment in (fault.start_s, fault.end_s)}


def _bandwidth_changes_s(bandwidth: Bandwidth, until_s: float) -> set[float]:
    if not math.isfinite(bandwidth.period_s):
        return set(bandwidth.starts_s)
    laps = math.ceil(until_s / bandwidth.period_s)
    return {lap * bandwidth.period_s + start_s for lap in range(laps) for start_s in bandwidth.starts_s}
