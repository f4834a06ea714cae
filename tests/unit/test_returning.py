"""How arrivals follow answers: loops are recognised, arrivals of their own accord are not."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.dispatch.returning import LONGEST_WINDOW_S, WINDOW, Returning


def looped(rounds: int, clients: int, came: int) -> Returning:
    loop = Returning()
    for second in range(rounds):
        loop.answered(clients, 0.1, float(second))
        for client in range(came):
            loop.arrived(1, second + 0.001 * (client + 1))
    loop.answered(clients, 0.1, float(rounds))
    return loop


def test_clients_that_always_come_back_are_waited_for_as_long_as_it_took() -> None:
    loop = looped(5, 8, 8)
    assert loop.missing == 8
    assert loop.until_s == pytest.approx(5.008)
    loop.arrived(1, 5.002)
    assert loop.missing == 7


def test_little_is_believed_of_few_answers_and_nothing_where_few_return() -> None:
    for loop in (looped(3, 8, 8), looped(20, 8, 5), looped(20, 8, 0)):
        assert loop.missing == 0
        assert loop.until_s < 0.0
    assert looped(9, 1, 1).missing == 0
    assert looped(10, 1, 1).missing == 1


def test_a_loop_that_ended_is_forgotten() -> None:
    loop = looped(20, 8, 8)
    for second in range(21, 30):
        loop.answered(8, 0.1, float(second))
    assert loop.missing == 0
    assert loop.until_s < 29.0


def test_more_arrivals_than_answers_are_strangers() -> None:
    loop = looped(5, 2, 2)
    loop.arrived(1, 5.001)
    loop.arrived(1, 5.002)
    assert not loop.stranger_waits
    loop.arrived(1, 5.003)
    assert loop.stranger_waits


@given(rate_rps=st.floats(1.0, 500.0), seed=st.integers(0, 1000))
def test_arrivals_at_random_are_never_waited_for(rate_rps: float, seed: int) -> None:
    """An edge that serves all that came during the service before, with the law of `simulate`."""
    loop, random, now_s = Returning(), Random(seed), 0.0
    arrives_s = random.expovariate(rate_rps)
    for _ in range(60):
        came, now_s = 0, max(now_s, arrives_s)
        while arrives_s <= now_s or came == 0:
            came += 1
            arrives_s += random.expovariate(rate_rps)
        items = min(came, 100)
        service_s = 0.04234 + 0.008165 * items
        finish_s = now_s + service_s
        loop.answered(items, service_s, finish_s)
        assert loop.until_s < finish_s
        at_s = max(arrives_s, finish_s)
        while at_s < finish_s + min(WINDOW * service_s, LONGEST_WINDOW_S):
            at_s += random.expovariate(rate_rps)
            if at_s <= loop.open_until_s:
                loop.arrived(1, at_s)
        now_s = finish_s
