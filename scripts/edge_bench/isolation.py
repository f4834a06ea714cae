"""What a loaded neighbour costs: two edge servers on one device, with and without shares of the GPU by MPS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event, Thread

import numpy as np

from models.card import Card
from models.catalogue import card_of
from scheduler.measuring.errors import MeasuringError
from scripts.edge_bench.servers import Calls, Connection, called, options_for, running

COLUMNS = ("case", "batches /s", "p50 ms", "p99 ms", "neighbour /s")
_NEIGHBOUR_CONNECTIONS = 3
_WARM_UP_S = 0.5


@dataclass(frozen=True, slots=True)
class Case:
    """Latencies of the measured server in one case.

    Attributes:
        name: the case, in words.
        calls: the calls, one after the other.
        neighbour_per_s: batches a second that the neighbour answered meanwhile.
    """

    name: str
    calls: Calls
    neighbour_per_s: float

    def cells(self) -> tuple[str, ...]:
        """Returns the row of the table."""
        p50_s, p99_s = np.quantile(self.calls.latencies_s, [0.5, 0.99])
        return (
            self.name,
            f"{self.calls.per_s:.1f}",
            f"{p50_s * 1e3:.1f}",
            f"{p99_s * 1e3:.1f}",
            f"{self.neighbour_per_s:.1f}",
        )


def shares_of(text: str) -> tuple[float, float] | None:
    """Returns the percentages of the measured server and its neighbour, None for "off".

    Raises:
        MeasuringError: it is neither.
    """
    if text == "off":
        return None
    try:
        measured, neighbour = (float(part) for part in text.split(","))
    except ValueError:
        raise MeasuringError(f"--mps is {text!r}; write off, or two percentages like 30,70") from None
    return measured, neighbour


def cases(
    model: str,
    neighbour: str,
    options: Sequence[str],
    *,
    items: int,
    neighbour_items: int,
    seconds: float,
    shares: tuple[float, float] | None,
) -> Iterator[Case]:
    """Measures one server alone and beside its loaded neighbour, then again with shares if there are any.

    Args:
        model: what the measured server serves: a shipped model or a folder.
        neighbour: what the loaded server serves.
        options: further options of both servers.
        items: items in a batch of the measured server, which gets one after the other.
        neighbour_items: items in a batch of the loaded server.
        seconds: seconds of each case.
        shares: percentages of both by MPS; None: without MPS.

    Raises:
        MeasuringError: a server does not start, or a batch was refused.
        ModelError: there is no such model.
    """
    cards = card_of(model), card_of(neighbour)
    for share in [None] if shares is None else [None, shares]:
        percentages = [()] * 2 if share is None else [("--mps-percentage", f"{part:g}") for part in share]
        words = "" if share is None else f", {share[0]:g} % and {share[1]:g} %"
        with ExitStack() as stack:
            measured, loaded = (
                stack.enter_context(running([*options_for(card, name, options), *percentage]))
                for card, name, percentage in zip(cards, (model, neighbour), percentages, strict=True)
            )
            calls = stack.enter_context(_Closing([Connection(measured, cards[0], items)]))
            load = stack.enter_context(
                _Closing([Connection(loaded, cards[1], neighbour_items) for _ in range(_NEIGHBOUR_CONNECTIONS)])
            )
            called(calls, _WARM_UP_S)
            yield Case(f"alone{words}", called(calls, seconds), 0.0)
            with _Load(load) as busy:
                called(calls, _WARM_UP_S)
                answered = busy.answered
                found = called(calls, seconds)
                yield Case(f"beside a loaded one{words}", found, (busy.answered - answered) / found.elapsed_s)


class _Closing(list[Connection]):
    """Connections that are closed at the end."""

    def __enter__(self) -> _Closing:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self:
            connection.close()


class _Load:
    """Calls on all connections until the end."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self.answered = 0
        self._stop = Event()
        self._failed: MeasuringError | None = None
        self._threads = [Thread(target=self._call, args=(connection,), daemon=True) for connection in connections]

    def __enter__(self) -> _Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._failed is not None and kind is None:
            raise self._failed

    def _call(self, connection: Connection) -> None:
        try:
            while not self._stop.is_set():
                connection.call()
                self.answered += 1
        except MeasuringError as error:
            self._failed = error


def describe(card: Card, neighbour: Card, items: int, neighbour_items: int) -> str:
    """Returns a sentence that says what is measured."""
    return (
        f"{card.name}, batches of {items} one after the other; its neighbour is {neighbour.name}, batches of"
        f" {neighbour_items} without a pause"
    )
