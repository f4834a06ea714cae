"""Caps that are reached and circuits that open, as log lines: one when it begins, one when it ends; and how often."""

import logging
from collections.abc import Iterator, Mapping

from scheduler.daemon.logs import log
from scheduler.domain.requests import Place
from scheduler.domain.statistics import EngineStatistics

_CAPS = ("hour", "day")


class EngineAlarms:
    """Compares successive statistics of the engine."""

    def __init__(self) -> None:
        """Begins with every circuit closed and money left."""
        self._closed_by = ""
        self._open: Mapping[tuple[str, str], None] = {}
        """Place and model, empty for all of the place's, whose circuits are open."""
        self.opened: dict[tuple[str, str], int] = {}
        """How often each was seen to open; 0 for places that never did."""

    def look(self, seen: EngineStatistics) -> EngineStatistics:
        """Logs what has changed since the last look; returns what it was given."""
        self._look_at_caps(seen)
        found = dict.fromkeys(_open_circuits(seen))
        for circuit in _circuits(seen):
            self.opened.setdefault(circuit, 0)
        for place, model in found:
            if (place, model) not in self._open:
                self.opened[(place, model)] = self.opened.get((place, model), 0) + 1
                what = f"model {model} gets no batches at {place}" if model else f"{place} gets no batches"
                message = f"{what} until a probe of it succeeds; the lines before this one say what failed"
                log(logging.WARNING, "circuit_open", place=place, **_named(model), message=message)
        for place, model in self._open:
            if (place, model) not in found:
                log(logging.INFO, "circuit_closed", place=place, **_named(model))
        self._open = found
        return seen

    def _look_at_caps(self, seen: EngineStatistics) -> None:
        closed_by = seen.closed_by if seen.closed_by in _CAPS else ""
        if closed_by == self._closed_by:
            return
        if closed_by:
            cap = next((each for each in seen.caps if each.window == closed_by), None)
            money = {} if cap is None else {"cap": cap.cap, "spent": cap.spent}
            again = {} if seen.opens_in_s is None else {"opens_in_s": seen.opens_in_s}
            message = f"no function is called until less is spent in the {closed_by}; `per_{closed_by}` in [spend]"
            log(logging.WARNING, "cap_reached", window=closed_by, **money, **again, message=message)
        else:
            log(logging.INFO, "cap_reopened", window=self._closed_by)
        self._closed_by = closed_by


def _named(model: str) -> Mapping[str, str]:
    return {"model": model} if model else {}


def _circuits(seen: EngineStatistics) -> Iterator[tuple[str, str]]:
    """Yields place and model of each circuit that there is; of the place as a whole, no model."""
    for edge in seen.edges:
        yield str(Place.edge(edge.name)), ""
    if any(model.function_up is not None for model in seen.models_up):
        yield "functions", ""
    for model in seen.models_up:
        for name, _ in model.edges:
            yield str(Place.edge(name)), model.model
        if model.function_up is not None:
            yield "functions", model.model


def _open_circuits(seen: EngineStatistics) -> Iterator[tuple[str, str]]:
    """Yields place and model of each open circuit; of a place that is open as a whole, no models."""
    down = {edge.name for edge in seen.edges if not edge.up}
    for name in sorted(down):
        yield str(Place.edge(name)), ""
    by_function = [model for model in seen.models_up if model.function_up is not None]
    if by_function and not seen.function_up:
        yield "functions", ""
    for model in seen.models_up:
        for name, up in model.edges:
            if not up and name not in down:
                yield str(Place.edge(name)), model.model
        if model.function_up is False and seen.function_up:
            yield "functions", model.model
