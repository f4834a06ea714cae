"""Faults that are planted in shell and engine on purpose, to see that the worlds find them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from scheduler import wire
from scheduler.daemon import in_flight
from scheduler.daemon.bodies import BodyStore
from scheduler.daemon.engine_driver import EngineDriver
from scheduler.daemon.identities import Identities
from scheduler.daemon.model_outputs import ModelOutputs
from scheduler.daemon.runner import Runner
from scheduler.daemon.state.money import Money
from scheduler.dispatch.endings import Endings
from scheduler.dispatch.ledger import Ledger
from scheduler.dispatch.queue import QueuedRequest
from scheduler.dispatch.request_table import RequestTable
from scheduler.domain.messages import AnswerRequest
from scheduler.engine import Engine

Change = tuple[Any, str, Callable[[Any], Any]]
"""An owner, a name in it, and what makes the changed value of the original one."""


def _answered_twice(original: Any) -> Any:
    def answer(self: RequestTable, queued: Any, batch_id: int) -> None:
        number = queued.request.request_id
        original(self, queued, batch_id)
        if number % 7 == 0:
            self.outbox.command(AnswerRequest(number, batch_id))

    return answer


def _released_early(original: Any) -> Any:
    def send(self: Any, batch: Any, now_s: float) -> None:
        original(self, batch, now_s)
        if batch.tier and len(batch.request_ids) > 1:
            self._bodies.pop(batch.request_ids[-1])

    return send


def _never_released(original: Any) -> Any:
    def pop(self: Any, request_id: int) -> Any:
        return original(self, request_id) if request_id % 7 else self._pending.get(request_id)

    return pop


def _uncounted(original: Any) -> Any:
    def try_again(self: Any, elsewhere: Any, *, counts: bool) -> None:
        del counts
        original(self, elsewhere, counts=False)

    return try_again


def _left_in_queue(original: Any) -> Any:
    def cancelled(self: Any, request_id: int) -> None:
        queued = self.table.open.get(request_id)
        if queued is not None and queued.state.value == "function":
            queued.cancel()
        else:
            original(self, request_id)

    return cancelled


def _booked_twice(original: Any) -> Any:
    def bill(self: Any, batch_id: int, report: Any, *, failure: Any = None) -> Any:
        booking = self.unbilled.get(batch_id)
        found = original(self, batch_id, report, failure=failure)
        if booking is not None:
            self._add(booking, booking.bill, 1.0)
        return found

    return bill


def _crossed(original: Any) -> Any:
    def part_outputs(outputs: Any, counts: Sequence[int], ragged: Any = ()) -> Any:
        parts = original(outputs, counts, ragged)
        if len(parts) > 2 and counts[0] == counts[1]:
            parts[0], parts[1] = parts[1], parts[0]
        return parts

    return part_outputs


def _unguarded(_: Any) -> Any:
    def watch_anew(self: Any, longest_s: float) -> None:
        self.longest_s = longest_s
        self._due = []

    return watch_anew


def _half_asleep(original: Any) -> Any:
    """A wake-up is dropped where a timer of the one before was still armed."""

    def arm(self: Any, due_s: float | None) -> None:
        original(self, None if self._timer is not None else due_s)

    return arm


def _never_given_up(_: Any) -> Any:
    def give_up(self: Any, pending: Any, task: Any) -> None:
        del self, pending, task

    return give_up


def _wakeup_moves(original: Any) -> Any:
    """Asking for the next wake-up takes what is due off the list."""

    def next_wakeup_s(self: Any) -> Any:
        found = original(self)
        if self._lessons:
            self._lessons.clear()
        return found

    return next_wakeup_s


def _lent_for_nothing(original: Any) -> Any:
    def lease(self: Any, amount: float, **options: Any) -> Any:
        granted = original(self, amount, **options)
        self._take(sum(self._own.values()))
        return granted

    return lease


def _any_identity(_: Any) -> Any:
    return lambda *_, **__: ""


def _any_items(_: Any) -> Any:
    return lambda said, expected: ""  # noqa: ARG005


def _any_values(_: Any) -> Any:
    return lambda self, outputs, items: frozenset()  # noqa: ARG005


FAULTS: Mapping[str, Sequence[Change]] = {
    "answer-delivered-twice": ((RequestTable, "answer", _answered_twice),),
    "body-released-early": ((Runner, "_send", _released_early),),
    "body-never-released": ((BodyStore, "pop", _never_released),),
    "second-try-not-counted": ((QueuedRequest, "try_again", _uncounted),),
    "cancelled-left-in-queue": ((Endings, "cancelled", _left_in_queue),),
    "late-bill-booked-twice": ((Ledger, "bill", _booked_twice),),
    "outputs-crossed": ((wire, "part_outputs", _crossed),),
    "timeouts-forgotten-at-reload": ((Endings, "watch_anew", _unguarded),),
    "wake-up-lost": ((EngineDriver, "_arm", _half_asleep),),
    "hung-batch-never-given-up": ((in_flight.BatchSender, "_give_up", _never_given_up),),
    "next-wakeup-forgets-lessons": ((Engine, "next_wakeup_s", _wakeup_moves),),
    "lease-not-kept": ((Money, "lease", _lent_for_nothing),),
    "identity-not-compared": ((Identities, "heard", _any_identity),),
    "items-not-compared": ((wire, "mixed_up", _any_items),),
    "values-not-checked": ((ModelOutputs, "not_finite", _any_values),),
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Plants a fault for as long as the block runs; empty: none."""
    changes = FAULTS[name] if name else ()
    before = [(owner, attribute, getattr(owner, attribute)) for owner, attribute, _ in changes]
    try:
        for owner, attribute, change in changes:
            setattr(owner, attribute, change(getattr(owner, attribute)))
        yield
    finally:
        for owner, attribute, original in before:
            setattr(owner, attribute, original)
