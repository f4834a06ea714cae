"""Steps of the wall clock are noticed, told apart from sleep and from slewing, and open or close no spend cap."""

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.daemon.clocks import STEP_S, ClockWatch, boot_id
from scheduler.daemon.state.folder import DATABASE
from scheduler.daemon.state.money import BUCKET_S, HOUR_BUCKETS
from scheduler.daemon.state.store import Store
from scheduler.domain.messages import RequestSpend

HOUR_S = 3600.0


class Host:
    """A host's clocks, and the lives of a daemon on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wall_s, self.up_s, self.slept_s = 1_800_000_000.0, 100.0, 0.0
        self.boot = "boot-1"
        self.store = self.life()

    def life(self) -> Store:
        self.store = Store(
            self.folder,
            currency="CNY",
            warn=pytest.fail,
            wall_clock=lambda: self.wall_s,
            elapsed=lambda: self.up_s,
            boot=lambda: self.boot,
        )
        self.store.open()
        return self.store

    def restart(self) -> None:
        self.store.close()
        self.life()

    def reboot(self, number: int, off_s: float) -> None:
        self.store.close()
        self.wall_s, self.up_s, self.boot = self.wall_s + off_s, 1.0, f"boot-{number}"
        self.life()

    def passes(self, seconds: float) -> None:
        self.wall_s, self.up_s = self.wall_s + seconds, self.up_s + seconds

    def leases(self, amount: float = 1.0) -> float:
        return self.store.lease(RequestSpend(amount, 0.0, 1.0, None)).amount

    def watch(self) -> ClockWatch:
        return ClockWatch(wall=lambda: self.wall_s, elapsed=lambda: self.up_s, awake=lambda: self.up_s - self.slept_s)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.store.close()


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S, 30 * 24 * HOUR_S, -30 * 24 * HOUR_S])
def test_a_step_neither_opens_a_cap_nor_keeps_it_closed(host: Host, step_s: float, restart: bool) -> None:
    assert host.leases() == 1.0
    host.passes(60.0)
    host.wall_s += step_s
    if restart:
        host.restart()
    assert host.leases() == 0.0
    host.passes((HOUR_BUCKETS - 2) * BUCKET_S)
    assert host.leases() == 0.0
    host.passes(2 * BUCKET_S)
    assert host.leases() == 1.0


def test_a_clock_that_is_right_again_after_the_host_has_started_anew_keeps_the_cap(host: Host) -> None:
    host.reboot(2, HOUR_S)
    assert host.leases() == 1.0
    host.reboot(3, -HOUR_S)
    assert host.leases() == 0.0
    assert "behind the time that the state folder has counted" in host.store.off
    host.passes(HOUR_BUCKETS * BUCKET_S)
    assert host.leases() == 1.0


def test_hours_in_which_the_host_was_off_count(host: Host) -> None:
    assert host.leases() == 1.0
    host.reboot(2, 2 * HOUR_S)
    assert (host.leases(), host.store.off) == (1.0, "")


def test_a_platform_that_names_no_run_of_the_host_goes_by_the_wall_clock(host: Host) -> None:
    host.boot = ""
    host.restart()
    assert host.leases() == 1.0
    host.wall_s -= HOUR_S
    host.restart()
    assert host.leases() == 0.0
    host.wall_s += 3 * HOUR_S
    host.restart()
    assert host.leases() == 1.0


def test_a_kept_time_that_is_no_number_counts_as_none(host: Host) -> None:
    with sqlite3.connect(host.folder / DATABASE) as connection:
        connection.execute("UPDATE clock SET ahead_s = 'soon'")
    host.restart()
    assert host.leases() == 1.0


@settings(max_examples=25)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["pass", "step", "restart", "lease"]), st.floats(-40_000.0, 40_000.0)), max_size=15
    )
)
def test_no_hour_spends_more_than_its_cap_however_the_clock_is_set(
    steps: list[tuple[str, float]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    host = Host(tmp_path_factory.mktemp("state"))
    spent: list[tuple[float, float]] = []
    for what, value in steps:
        match what:
            case "pass":
                host.passes(abs(value) / 10)
            case "step":
                host.wall_s += value
            case "restart":
                host.restart()
            case _:
                spent.append((host.up_s, host.leases(abs(value) / 40_000.0)))
    for at_s, _ in spent:
        assert sum(amount for when_s, amount in spent if at_s <= when_s < at_s + HOUR_S) <= 1.0 + 1e-9
    host.store.close()


@pytest.mark.parametrize(("step_s", "way"), [(HOUR_S, "ahead"), (-HOUR_S, "back")])
def test_a_step_is_logged_once(host: Host, caplog: pytest.LogCaptureFixture, step_s: float, way: str) -> None:
    watch = host.watch()
    host.passes(5.0)
    watch.look()
    assert caplog.records == []
    host.wall_s += step_s
    with caplog.at_level(logging.WARNING, logger="edgeburst"):
        watch.look()
        host.passes(5.0)
        watch.look()
    [record] = caplog.records
    assert record.getMessage() == "clock_stepped"
    assert f"set {way} by 1 h;" in record.fields["message"]  # type: ignore[attr-defined]


def test_a_clock_that_is_slewed_was_not_set(host: Host) -> None:
    watch = host.watch()
    for _ in range(100):
        host.passes(5.0)
        host.wall_s += 0.5 * STEP_S
        assert watch.stepped_s() == 0.0


def test_sleep_is_no_step(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    watch = host.watch()
    host.passes(7200.0)
    host.slept_s = 7195.0
    with caplog.at_level(logging.WARNING, logger="edgeburst"):
        watch.look()
        watch.look()
    assert [record.getMessage() for record in caplog.records] == ["host_slept"]


def test_the_name_of_the_hosts_run_does_not_change() -> None:
    assert boot_id() == boot_id()
