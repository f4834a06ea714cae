"""A process that waits for its end notices every signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from scheduler.wsgi.stopping import Stop

LIMIT_S = 30.0


@pytest.fixture
def stop() -> Iterator[Stop]:
    with Stop() as stop:
        before = signal.signal(signal.SIGUSR1, lambda *_: stop.set())
        yield stop
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_that_another_thread_gets_ends_the_wait_too(stop: Stop) -> None:
    main_waits, done = threading.Event(), threading.Event()

    def get_it() -> None:
        main_waits.wait(0.05)  # in vain: until the main thread is in its wait
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        done.wait(LIMIT_S)

    thread = threading.Thread(target=get_it)
    thread.start()
    assert stop.wait(LIMIT_S)
    assert stop.is_set()
    done.set()
    thread.join()


def test_a_wait_ends_without_a_signal_when_its_time_is_over(stop: Stop) -> None:
    assert not stop.wait(0.01)
    assert not stop.is_set()


def test_other_signals_do_not_lengthen_the_wait(stop: Stop) -> None:
    most, ended, sent = 500, threading.Event(), []

    def disturb() -> None:
        while len(sent) < most and not ended.wait(0.02):
            sent.append(signal.SIGUSR2)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, lambda *_: None)
    thread = threading.Thread(target=disturb)
    thread.start()
    assert not stop.wait(0.1)
    ended.set()
    thread.join()
    signal.signal(signal.SIGUSR2, before)
    assert len(sent) < most


def test_a_thread_can_ask_for_the_end(stop: Stop) -> None:
    thread = threading.Thread(target=stop.set)
    thread.start()
    assert stop.wait()
    thread.join()
    assert stop.wait()
