"""Leased money: whatever is killed at whatever point, no hour and no day spends more than its cap."""

import math
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.daemon.state.folder import open_database
from scheduler.daemon.state.money import BUCKET_S, DAY_BUCKETS, HOUR_BUCKETS, LedgerClock, Money

HOUR_S, DAY_S = 3600.0, 86_400.0


def memory_database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute(
        "CREATE TABLE leases (currency TEXT, bucket INTEGER, amount REAL NOT NULL, PRIMARY KEY (currency, bucket))"
    )
    return connection


def lease(money: Money, amount: float, at_s: float, *, left: float = 0.0, cap: float | None = 1.0) -> float:
    return money.lease(amount, left=left, per_hour=cap, per_day=None, at_s=at_s).amount


def total(connection: sqlite3.Connection) -> float:
    return float(connection.execute("SELECT total(amount) FROM leases").fetchone()[0])


class World:
    """Lives of a daemon, one after another, that spend what they have leased at the ledger's time."""

    def __init__(self, *, per_hour: float, per_day: float) -> None:
        self.connection = memory_database()
        self.caps = {"per_hour": per_hour, "per_day": per_day}
        self.wall_s = 1_000_000.0
        self.spent: list[tuple[float, float]] = []
        """When, in true seconds, and how much."""
        self.true_s = 0.0
        self.begin()

    def begin(self) -> None:
        self.money = Money(self.connection, "CNY")
        started_s, wall_s = self.true_s, self.wall_s
        newest = self.money.newest_bucket()
        self.clock = LedgerClock(wall_s=wall_s, newest_bucket=newest, elapsed=lambda: self.true_s - started_s)
        self.left, self.minute_s = 0.0, self.true_s

    def ask(self, amount: float) -> None:
        self.left += self.money.lease(amount, left=self.left, at_s=self.clock(), **self.caps).amount

    def spend(self, part: float) -> None:
        amount = part * max(0.0, self.left)
        self.left -= amount
        self.spent.append((self.true_s, amount))

    def cheaper_bill(self, number: int, part: float) -> None:
        """An earlier batch cost less than was held back for it."""
        if self.spent:
            at_s, amount = self.spent[number % len(self.spent)]
            if at_s >= self.minute_s - 300.0 and (at_s, amount) in self.own():
                self.spent[number % len(self.spent)] = at_s, amount * (1 - part)
                self.left += amount * part

    def own(self) -> list[tuple[float, float]]:
        return [entry for entry in self.spent if entry[0] >= self.begun_s]

    begun_s = 0.0

    def pass_time(self, seconds: float) -> None:
        """Time passes; each minute what is left is dated anew, as the daemon does."""
        end_s = self.true_s + seconds
        while self.minute_s + 60.0 <= end_s:
            self.wall_s += self.minute_s + 60.0 - self.true_s
            self.true_s = self.minute_s = self.minute_s + 60.0
            self.money.date_anew(self.left, at_s=self.clock())
        self.wall_s += end_s - self.true_s
        self.true_s = end_s

    def stop(self) -> None:
        self.money.give_back(max(0.0, self.left), at_s=self.clock())

    def next_life(self) -> None:
        self.begin()
        self.begun_s = self.true_s

    def worst(self, length_s: float) -> float:
        return max(
            (math.fsum(a for at_s, a in self.spent if end_s - length_s < at_s <= end_s) for end_s, _ in self.spent),
            default=0.0,
        )


steps = st.one_of(
    st.tuples(st.just("ask"), st.floats(0.001, 0.4)),
    st.tuples(st.just("spend"), st.floats(0.0, 1.0)),
    st.tuples(st.just("bill"), st.floats(0.0, 1.0)),
    st.tuples(st.just("wait"), st.floats(0.0, 4000.0)),
    st.tuples(st.just("kill"), st.just(0.0)),
    st.tuples(st.just("kill after the lease"), st.floats(0.001, 0.4)),
    st.tuples(st.just("stop"), st.just(0.0)),
    st.tuples(st.just("clock back"), st.floats(0.0, 1e6)),
)


@given(st.lists(steps, max_size=60), st.floats(0.5, 3.0), st.floats(1.0, 8.0))
def test_no_window_spends_more_than_its_cap_whatever_is_killed_and_however_the_clock_goes_back(
    plan: list[tuple[str, float]], per_hour: float, per_day: float
) -> None:
    world = World(per_hour=per_hour, per_day=per_day)
    for number, (step, value) in enumerate(plan):
        match step:
            case "ask":
                world.ask(value)
            case "spend":
                world.spend(value)
            case "bill":
                world.cheaper_bill(number * 7, value)
            case "wait":
                world.pass_time(value)
            case "kill after the lease":
                world.ask(value)
                world.next_life()
            case "kill":
                world.next_life()
            case "stop":
                world.stop()
                world.next_life()
            case "clock back":
                world.wall_s -= value
                world.next_life()
    assert world.worst(HOUR_S) <= per_hour * (1 + 1e-6)
    assert world.worst(DAY_S) <= per_day * (1 + 1e-6)


@pytest.mark.parametrize("kept_s", [30.0, 1800.0, 3590.0, 3650.0, 7000.0])
def test_money_that_is_spent_long_after_it_was_leased_counts_from_when_it_was_spent(kept_s: float) -> None:
    world = World(per_hour=1.0, per_day=100.0)
    world.ask(1.0)
    world.pass_time(kept_s)
    world.spend(1.0)
    for _ in range(8):
        world.pass_time(500.0)
        world.ask(1.0)
        world.spend(1.0)
    assert world.worst(HOUR_S) <= 1.0 + 1e-6
    assert sum(amount for _, amount in world.spent) == pytest.approx(2.0)


@pytest.mark.parametrize("into_bucket_s", [0.0, 1.0, 59.0])
@pytest.mark.parametrize("kept_s", [0.0, 59.0])
def test_a_bucket_is_in_the_hour_to_its_last_second(into_bucket_s: float, kept_s: float) -> None:
    world = World(per_hour=1.0, per_day=100.0)
    world.wall_s = 60_000.0 + into_bucket_s
    world.begin()
    world.ask(1.0)
    world.pass_time(kept_s)
    world.spend(1.0)
    for _ in range(80):
        world.pass_time(50.0)
        world.ask(1.0)
        world.spend(1.0)
    assert world.worst(HOUR_S) <= 1.0 + 1e-6
    assert sum(amount for _, amount in world.spent) == pytest.approx(2.0)


def test_a_cap_is_leased_once_by_however_many_lives() -> None:
    connection = memory_database()
    got = sum(lease(Money(connection, "CNY"), 0.3, 1000.0 + life) for life in range(10))
    assert got == pytest.approx(1.0)


def test_what_is_given_back_can_be_leased_again() -> None:
    connection = memory_database()
    first = Money(connection, "CNY")
    assert lease(first, 1.0, 1000.0) == 1.0
    first.give_back(0.4, at_s=1001.0)
    assert lease(Money(connection, "CNY"), 1.0, 1002.0) == pytest.approx(0.4)


def test_no_more_is_given_back_than_this_life_has_leased() -> None:
    connection = memory_database()
    lease(Money(connection, "CNY"), 0.5, 1000.0)
    Money(connection, "CNY").give_back(0.5, at_s=1001.0)
    assert total(connection) == 0.5


def test_money_returns_when_its_bucket_has_left_the_hour_and_the_answer_says_when() -> None:
    money = Money(memory_database(), "CNY")
    assert lease(money, 1.0, 600.0) == 1.0
    refused = money.lease(0.2, left=0.0, per_hour=1.0, per_day=None, at_s=700.0)
    assert (refused.amount, refused.closed_by) == (0.0, "hour")
    opens_s = 700.0 + refused.opens_in_s
    assert opens_s == (10 + HOUR_BUCKETS) * BUCKET_S
    assert lease(money, 0.2, opens_s - 1.0) == 0.0
    assert lease(money, 0.2, opens_s) == 0.2


def test_the_day_forbids_what_the_hour_would_allow() -> None:
    money = Money(memory_database(), "CNY")
    assert money.lease(1.0, left=0.0, per_hour=1.0, per_day=1.5, at_s=0.0).amount == 1.0
    later = money.lease(1.0, left=0.0, per_hour=1.0, per_day=1.5, at_s=3 * HOUR_S)
    assert (later.amount, later.closed_by) == (0.5, "day")


def test_what_was_spent_beyond_the_leases_is_booked_whatever_the_cap() -> None:
    connection = memory_database()
    money = Money(connection, "CNY")
    assert lease(money, 1.0, 0.0) == 1.0
    beyond = money.lease(0.5, left=-0.25, per_hour=1.0, per_day=None, at_s=10.0)
    assert (beyond.amount, beyond.closed_by) == (0.25, "hour")
    assert total(connection) == 1.25


def test_spending_without_a_cap_is_noted_for_a_cap_to_come() -> None:
    money = Money(memory_database(), "CNY")
    assert money.date_anew(-0.75, at_s=0.0) == 0.75
    assert lease(money, 1.0, 10.0) == pytest.approx(0.25)


def test_a_lower_cap_leases_nothing_and_a_higher_one_the_difference() -> None:
    money = Money(memory_database(), "CNY")
    assert lease(money, 1.0, 0.0) == 1.0
    assert lease(money, 1.0, 1.0, cap=0.5) == 0.0
    assert lease(money, 1.0, 2.0, cap=1.2) == pytest.approx(0.2)


def test_money_in_another_currency_does_not_count() -> None:
    connection = memory_database()
    assert lease(Money(connection, "CNY"), 1.0, 0.0) == 1.0
    assert lease(Money(connection, "USD"), 1.0, 1.0) == 1.0


def test_history_tells_how_long_ago_earlier_lives_spent() -> None:
    connection = memory_database()
    lease(Money(connection, "CNY"), 0.25, 0.0)
    lease(Money(connection, "CNY"), 0.5, 3600.0)
    # A bucket counts as its end, so that nothing leaves a window early.
    assert Money(connection, "CNY").history(7200.0) == ((7140.0, 0.25), (3540.0, 0.5))


def test_a_clock_behind_the_newest_bucket_counts_as_that_bucket_and_goes_on_from_there() -> None:
    passed = [0.0]
    clock = LedgerClock(wall_s=500.0, newest_bucket=100, elapsed=lambda: passed[0])
    assert clock() == 6000.0
    passed[0] = 90.0
    assert clock() == 6090.0
    connection = memory_database()
    lease(Money(connection, "CNY"), 1.0, 6000.0)
    assert lease(Money(connection, "CNY"), 1.0, 500.0) == 0.0
    assert connection.execute("SELECT max(bucket) FROM leases").fetchone()[0] == 100


def test_a_step_of_the_wall_clock_during_a_life_opens_no_cap() -> None:
    wall, passed = [1e9], [0.0]
    clock = LedgerClock(wall_s=wall[0], newest_bucket=None, elapsed=lambda: passed[0])
    wall[0] += 10 * HOUR_S
    passed[0] = 5.0
    assert clock() == 1e9 + 5.0


def test_buckets_are_bounded() -> None:
    connection = memory_database()
    money = Money(connection, "CNY")
    for minute in range(DAY_BUCKETS + 200):
        lease(money, 0.001, 60.0 * minute, cap=None)
        money.date_anew(0.0, at_s=60.0 * minute)
    assert connection.execute("SELECT count(*) FROM leases").fetchone()[0] <= DAY_BUCKETS


def test_a_refused_write_leaves_this_lifes_leases_as_they_were(tmp_path: Path) -> None:
    connection = open_database(tmp_path, warn=pytest.fail)
    money = Money(connection, "CNY")
    assert lease(money, 0.5, 0.0) == 0.5
    connection.execute("PRAGMA query_only = ON")
    with pytest.raises(sqlite3.OperationalError):
        lease(money, 0.25, 1.0, left=0.5)
    connection.execute("PRAGMA query_only = OFF")
    money.give_back(0.5, at_s=2.0)
    assert total(connection) == 0.0
