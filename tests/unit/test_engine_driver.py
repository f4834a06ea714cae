"""The engine driver on virtual time: one call for what happens together, wake-ups on time, no call after a stop."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from support.scripted_engine import Reaction, ScriptedEngine
from support.virtual_loop import run_virtual

from scheduler.daemon.engine_driver import EngineDriver
from scheduler.domain.messages import Command, Message, RequestCancelled, SendProbe
from scheduler.domain.requests import Place

START_S = 100.0


def nothing(message: Message, now_s: float) -> list[Command]:
    return []


class Driven:
    """A driver with a scripted engine, and what it performed and reported."""

    def __init__(self, react: Reaction = nothing) -> None:
        self.engine = ScriptedEngine(react)
        self.performed: list[tuple[int, list[Command], float]] = []
        self.failures: list[Exception] = []
        self.driver = EngineDriver(
            self.engine,  # type: ignore[arg-type]
            clock=asyncio.get_running_loop().time,
            perform=self.perform,
            fail=self.failures.append,
        )

    def perform(self, messages: Sequence[Message], commands: Sequence[Command], now_s: float) -> None:
        self.performed.append((len(messages), list(commands), now_s))

    @property
    def called_at_s(self) -> list[float]:
        return [now_s for now_s, _ in self.engine.heard]


def driven(script: Callable[[Driven], Awaitable[None]], react: Reaction = nothing) -> Driven:
    async def main() -> Driven:
        made = Driven(react)
        await script(made)
        return made

    return run_virtual(main(), start_s=START_S)


def test_all_messages_of_one_iteration_are_one_call_and_their_commands_are_performed_together() -> None:
    async def script(d: Driven) -> None:
        d.driver.wake()
        await asyncio.sleep(0)
        for request_id in range(5):
            d.driver.post(RequestCancelled(request_id))
        await asyncio.sleep(1.0)

    probe = SendProbe(Place.edge())
    d = driven(script, lambda message, now_s: [probe])
    assert d.performed == [(0, [], START_S), (5, [probe] * 5, START_S)]


def test_the_engine_is_woken_exactly_when_it_asked() -> None:
    async def script(d: Driven) -> None:
        d.engine.wakeups_s = [100.1, 100.3, 100.30000000000001, 104.0]
        d.driver.wake()
        await asyncio.sleep(5.0)

    assert driven(script).called_at_s == [100.0, 100.1, 100.3, 100.30000000000001, 104.0]


def test_time_never_runs_backwards_for_the_engine_when_a_timer_fires_early() -> None:
    async def script(d: Driven) -> None:
        d.engine.wakeups_s = [100.002]
        d.driver.wake()
        await asyncio.sleep(0)
        d.driver._wake_up()
        await asyncio.sleep(0.001)
        d.driver.post(RequestCancelled(1))
        await asyncio.sleep(1)

    assert driven(script).called_at_s == [100.0, 100.002, 100.002]


@pytest.mark.parametrize(("then_s", "called_at_s"), [(100.5, [100.5]), (100.07, [100.07]), (None, [])])
def test_the_engine_is_woken_at_the_time_that_it_asked_for_last(then_s: float | None, called_at_s: list[float]) -> None:
    async def script(d: Driven) -> None:
        d.engine.wakeups_s = [100.1]
        d.driver.wake()
        await asyncio.sleep(0.05)
        d.engine.wakeups_s = [] if then_s is None else [then_s]
        d.driver.post(RequestCancelled(1))
        await asyncio.sleep(0.25)
        assert all(at_s <= 100.3 for at_s in d.called_at_s)
        await asyncio.sleep(5.0)

    assert driven(script).called_at_s == [100.0, 100.05, *called_at_s]


def test_after_a_stop_the_engine_is_not_called_again() -> None:
    async def script(d: Driven) -> None:
        d.engine.wakeups_s = [101.0]
        d.driver.wake()
        await asyncio.sleep(0)
        d.driver.post(RequestCancelled(1))
        d.driver.stop()
        d.driver.post(RequestCancelled(2))
        await asyncio.sleep(5.0)

    assert driven(script).called_at_s == [100.0]


@pytest.mark.provokes_fault
def test_a_bug_in_the_engine_is_reported_and_not_raised_into_the_loop() -> None:
    def explode(message: Message, now_s: float) -> list[Command]:
        raise ZeroDivisionError

    async def script(d: Driven) -> None:
        d.driver.post(RequestCancelled(1))
        await asyncio.sleep(1.0)

    d = driven(script, explode)
    assert [type(error) for error in d.failures] == [ZeroDivisionError]
    assert d.performed == []


@pytest.mark.provokes_fault
def test_a_part_that_fails_to_hear_hears_nothing_more_and_the_engine_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[int] = []

    def broken(messages: Sequence[Message], now_s: float) -> None:
        raise KeyError("a bug")

    async def script(d: Driven) -> None:
        d.driver.hearers += [broken, lambda messages, now_s: heard.append(len(messages))]
        for request_id in range(3):
            d.driver.post(RequestCancelled(request_id))
            await asyncio.sleep(1.0)

    d = driven(script)
    assert (len(d.performed), d.failures, heard) == (3, [], [1, 1, 1])
    assert [record.message for record in caplog.records] == ["hearer_bug"]
