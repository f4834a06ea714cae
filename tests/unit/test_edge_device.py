"""The device's queue: one at a time, in order, never more than two waiting."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest
from support.edge_fakes import FakeClock

from edge_server.device import Device
from edge_server.errors import Unavailable


class Gate:
    """Work that goes on until it is let through."""

    def __init__(self, name: str, log: list[str]) -> None:
        self._name = name
        self._log = log
        self.running = threading.Event()
        self.open = threading.Event()

    def __call__(self) -> str:
        self._log.append(f"{self._name} begins")
        self.running.set()
        assert self.open.wait(timeout=30)
        self._log.append(f"{self._name} ends")
        return self._name


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def device(clock: FakeClock) -> Iterator[Device]:
    device = Device(depth=2, clock=clock)
    yield device
    device.close()


def test_work_is_done_one_at_a_time_and_in_order(device: Device) -> None:
    log: list[str] = []
    gates = [Gate(name, log) for name in "abc"]
    futures = [device.submit(gate) for gate in gates]
    for gate in reversed(gates):
        gate.open.set()

    assert [future.result(timeout=30) for future in futures] == ["a", "b", "c"]
    assert log == ["a begins", "a ends", "b begins", "b ends", "c begins", "c ends"]


def test_a_third_waiting_batch_is_refused_and_changes_nothing(device: Device) -> None:
    gate = Gate("a", [])
    first = device.submit(gate)
    assert gate.running.wait(timeout=30)
    waiting = [device.submit(lambda: "b"), device.submit(lambda: "c")]
    prepared: list[str] = []

    with pytest.raises(Unavailable, match="queue of 2 is full"):
        device.submit(lambda: "d", prepare=lambda: prepared.append("d"))

    assert prepared == []
    assert device.in_hand == 3
    gate.open.set()
    assert [first.result(30), *(future.result(30) for future in waiting)] == ["a", "b", "c"]
    assert device.in_hand == 0


def test_whoever_has_an_outcome_finds_its_place_free() -> None:
    shallow = Device(depth=0)

    assert [shallow.submit(partial(int, n)).result(30) for n in range(300)] == list(range(300))
    shallow.close()


def test_work_that_raises_passes_it_on_and_leaves_its_place(device: Device) -> None:
    with pytest.raises(ZeroDivisionError):
        device.submit(lambda: 1 // 0).result(30)

    assert device.in_hand == 0
    assert device.submit(lambda: "next").result(30) == "next"


def test_preparation_comes_before_the_work(device: Device) -> None:
    log: list[str] = []

    device.submit(lambda: log.append("work"), prepare=lambda: log.append("prepare")).result(30)

    assert log == ["prepare", "work"]


def test_retry_after_is_the_time_the_queue_takes_at_the_last_batchs_pace(device: Device, clock: FakeClock) -> None:
    device.submit(lambda: clock.sleep(1.5)).result(30)
    gate = Gate("a", [])
    device.submit(gate)
    for _ in range(2):
        device.submit(lambda: None)

    with pytest.raises(Unavailable) as refusal:
        device.submit(lambda: None)

    assert refusal.value.retry_after_s == 5  # 3 x 1.5 s, whole seconds
    gate.open.set()


def test_busy_time_counts_from_when_the_work_began(device: Device, clock: FakeClock) -> None:
    assert device.busy_s() == 0
    gate = Gate("a", [])
    future = device.submit(gate)
    assert gate.running.wait(timeout=30)
    clock.now_s = 7.0

    assert device.busy_s() == 7.0
    gate.open.set()
    future.result(30)
    assert device.busy_s() == 0


def test_closing_finishes_what_is_queued(clock: FakeClock) -> None:
    device = Device(depth=2, clock=clock)
    futures = [device.submit(partial(int, n)) for n in range(3)]

    device.close()

    assert [future.result(timeout=0) for future in futures] == [0, 1, 2]
