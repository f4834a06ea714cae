"""What `log-oracle` is told: the truth of a scenario over time, in place of what an engine must estimate.

Rates are read off the arrivals themselves, since a trace has no other truth: where the scenario declares rate steps,
the mean from one change to the next; else the mean over a window around the moment, cut where a burst begins or ends.
No single arrival to come is told.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

from scheduler.domain.requests import Request
from scheduler.simulator.faults import Fault, Faults
from scheduler.simulator.network import Bandwidth
from scheduler.simulator.scenario import Scenario

RATE_WINDOW_S = 2.0
"""Where no step is declared. Wide enough for some two hundred requests at a hundred a second: 7 % of scatter."""


class Truth:
    """True rate, bandwidth, slowdown and fault windows of one run, as functions of time in seconds."""

    def __init__(self, scenario: Scenario, requests: Sequence[Request]) -> None:
        """Stores the scenario and, by model, the times of its requests.

        Args:
            scenario: that is run.
            requests: that will arrive, in order.
        """
        self._scenario = scenario
        self._edge = Faults(scenario.edge_faults)
        self._functions = Faults(scenario.function_faults)
        self._steps_s = rate_changes_s(scenario)
        self._arrivals_s: dict[str, list[float]] = {}
        for request in requests:
            self._arrivals_s.setdefault(request.model, []).append(request.arrived_at_s)

    def rate_rps(self, model: str, at_s: float) -> float:
        """Returns the model's requests a second around a moment."""
        arrivals_s = self._arrivals_s.get(model, [])
        start_s, end_s = self._stretch(at_s)
        if not self._scenario.rate_steps or not math.isfinite(end_s):
            start_s, end_s = max(start_s, at_s - RATE_WINDOW_S / 2), min(end_s, at_s + RATE_WINDOW_S / 2)
        return (bisect_left(arrivals_s, end_s) - bisect_left(arrivals_s, start_s)) / (end_s - start_s)

    def _stretch(self, at_s: float) -> tuple[float, float]:
        """From the last declared change of rate to the next; without an end after the last, and where none is."""
        index = bisect_right(self._steps_s, at_s)
        start_s = self._steps_s[index - 1] if index else 0.0
        return start_s, self._steps_s[index] if index < len(self._steps_s) else math.inf

    def bytes_per_s(self, at_s: float) -> float:
        """Returns the uplink's bandwidth; infinite where it is ample."""
        return self._scenario.bandwidth.rate_at(at_s)

    def edge_slowdown(self, at_s: float) -> float:
        """Returns the factor by which the edge's work takes longer."""
        return self._edge.slowdown(at_s)

    def function_slowdown(self, at_s: float) -> float:
        """Returns the factor by which a function's work takes longer."""
        return self._functions.slowdown(at_s)

    def edge_back_s(self, at_s: float) -> float:
        """Returns from when on the edge answers; that very moment where it does."""
        return _back_s(self._scenario.edge_faults, at_s)

    def functions_back_s(self, at_s: float) -> float:
        """Returns from when on the functions answer and take calls: neither an outage nor throttling."""
        return _back_s(self._scenario.function_faults, at_s)

    def edge_speed_changes_s(self) -> list[float]:
        """Returns when the edge becomes slow or well again, ascending."""
        return sorted(_ends_s([fault for fault in self._scenario.edge_faults if fault.kind == "slow"]))

    def rate_changes_s(self) -> list[float]:
        """Returns when the declared rate changes, ascending."""
        return list(self._steps_s)

    def cause_of(self, change_s: float) -> str:
        """Returns what a plan for one of `changes_s` is asked for, in the words of the engine's own causes."""
        if change_s in self._steps_s:
            return "rate"
        if change_s in self.edge_speed_changes_s():
            return "edge-service"
        # A link that never rests is no news; one that steps is.
        bandwidth = self._scenario.bandwidth
        steps = math.isinf(bandwidth.period_s) and change_s in bandwidth.starts_s
        return "bandwidth" if steps else "told"

    def changes_s(self, until_s: float) -> list[float]:
        """Returns every moment up to `until_s` at which anything of this changes by a step, ascending.

        A trace's rate wanders without steps: none of it is among them.
        """
        scenario = self._scenario
        faults = (*scenario.edge_faults, *scenario.function_faults)
        moments = {*self._steps_s, *_bandwidth_changes_s(scenario.bandwidth, until_s), *_ends_s(faults)}
        return sorted(moment for moment in moments if 0 < moment <= until_s)


def rate_changes_s(scenario: Scenario) -> list[float]:
    """Returns when the declared rate changes: at the end of each step, and where a burst begins and ends."""
    steps_s = accumulate(seconds for seconds, _ in scenario.rate_steps)
    bursts_s = {moment for b in scenario.bursts for moment in (b.start_s, b.start_s + b.duration_s)}
    return sorted({*steps_s, *bursts_s})


def _back_s(faults: Sequence[Fault], at_s: float) -> float:
    """When the windows that follow on each other from a moment on are over."""
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
