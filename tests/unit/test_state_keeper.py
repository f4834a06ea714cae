"""The keeper: grants, limits and failures, between the loop and a real folder."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.virtual_loop import run_virtual

from scheduler.daemon.identities import AcceptedBy
from scheduler.daemon.limits import ModelLimits
from scheduler.daemon.state import keeper, loans
from scheduler.daemon.state.folder import DATABASE, StateError
from scheduler.daemon.state.keeper import StateKeeper
from scheduler.daemon.state.lending import Report
from scheduler.daemon.state.loans import Caps
from scheduler.dispatch.spend_cap import STATE
from scheduler.domain.messages import Message, RequestSpend, ReturnSpend, SpendGranted
from scheduler.domain.plans import Limits

ASK = RequestSpend(0.4, 0.0, 1.0, None)
REPORT = Report("host:8600", "0" * 32, 1, 0.25, left=0.0, spent=0.0)


class Life:
    """A keeper with an engine that only listens."""

    def __init__(self, folder: Path) -> None:
        self.keeper = StateKeeper(folder, currency="CNY")
        self.heard: list[Message] = []
        self.left: float | None = None
        self.keeper.connect(post=self.heard.append, left=lambda: self.left)

    async def ask(self, command: RequestSpend = ASK) -> SpendGranted:
        count = len(self.heard)
        self.keeper.request(command)
        while len(self.heard) == count:
            await asyncio.sleep(0)
        grant = self.heard[-1]
        assert isinstance(grant, SpendGranted)
        return grant

    def borrowers(self) -> list[tuple[object, object]]:
        rows: Any = self.keeper.status()["borrowers"]
        return [(row["name"], row["held"]) for row in rows]

    async def end(self, *, clean: bool = True) -> None:
        await self.keeper.close(clean=clean)
        self.keeper.release()


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 30.0))


def test_lives_share_one_cap_and_the_next_hears_what_those_before_spent(tmp_path: Path) -> None:
    async def work() -> None:
        amounts, told = [], []
        for _ in range(4):
            life = Life(tmp_path)
            grant = await life.ask()
            amounts.append(grant.amount)
            told.append(sum(amount for _, amount in grant.before))
            await life.end(clean=False)
        assert amounts == pytest.approx([0.4, 0.4, 0.2, 0.0])
        assert told == pytest.approx([0.0, 0.4, 0.8, 1.0])

    run(work)


def test_a_clean_stop_gives_back_what_is_left(tmp_path: Path) -> None:
    async def work() -> None:
        life = Life(tmp_path)
        await life.ask()
        life.left = 0.3
        await life.end()
        successor = Life(tmp_path)
        grant = await successor.ask(RequestSpend(1.0, 0.0, 1.0, None))
        assert grant.amount == pytest.approx(0.9)
        assert grant.closed_by == "hour"
        await successor.end(clean=False)

    run(work)


def test_what_is_returned_can_be_asked_for_again(tmp_path: Path) -> None:
    async def work() -> None:
        life = Life(tmp_path)
        await life.ask(RequestSpend(1.0, 0.0, 1.0, None))
        life.keeper.give_back(ReturnSpend(0.25))
        assert (await life.ask(RequestSpend(1.0, 0.75, 1.0, None))).amount == pytest.approx(0.25)
        await life.end()

    run(work)


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    async def work() -> None:
        life = Life(tmp_path)
        with pytest.raises(StateError, match="in use by the daemon with process id"):
            StateKeeper(tmp_path, currency="CNY")
        await life.end()
        await Life(tmp_path).end()

    run(work)


def test_limits_that_were_set_are_there_for_the_next_life(tmp_path: Path) -> None:
    async def work() -> None:
        life = Life(tmp_path)
        limits = ModelLimits(life.heard.append, before=life.keeper.limits, save=life.keeper.save_limits)
        limits.set("digits", Limits(window_s=0.25, edge_batch_cap=4))
        await life.end()
        successor = Life(tmp_path)
        assert ModelLimits(life.heard.append, before=successor.keeper.limits).of("digits") == Limits(0.25, 4)
        await successor.end()

    run(work)


def test_an_identity_that_was_accepted_is_expected_in_the_next_life(tmp_path: Path) -> None:
    one, two = "sha256:1", "sha256:2"

    async def work() -> None:
        life = Life(tmp_path)
        identities = life.keeper.identities()
        identities.reload({"digits": (one, AcceptedBy.CONFIG)})
        identities.accept("digits", two)
        await life.end()
        successor = Life(tmp_path)
        again = successor.keeper.identities()
        again.reload({"digits": (one, AcceptedBy.CONFIG)})
        assert again.expected("digits") == (two, AcceptedBy.OPERATOR)
        await successor.end()

    run(work)


def test_limits_of_models_that_are_gone_are_forgotten_at_a_start(tmp_path: Path) -> None:
    async def work() -> None:
        life = Life(tmp_path)
        for model in ("digits", "gone"):
            life.keeper.save_limits(model, Limits(edge_batch_cap=4))
        await life.end()
        for models, kept in ((["digits", "new"], {"digits"}), (["digits", "gone"], {"digits"}), (None, {"digits"})):
            opened = StateKeeper(tmp_path, currency="CNY", models=models)
            assert set(opened.limits) == kept
            await opened.close(clean=True)
            opened.release()

    run(work)


def test_a_disk_that_refuses_is_told_once_counted_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        life = Life(tmp_path)

        def full(*_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        with monkeypatch.context() as broken:
            broken.setattr(life.keeper._store, "lease", full)
            for _ in range(2):
                grant = await life.ask()
                assert (grant.amount, grant.closed_by, grant.opens_in_s) == (0.0, STATE, 5.0)
            status = life.keeper.status()
            assert (status["up"], status["failures"]) == (False, 2)
            assert "disk is full" in str(status["message"])
        assert (await life.ask()).amount == 0.4
        assert life.keeper.status()["up"] is True
        await life.end()

    run(work)
    assert [record.getMessage() for record in caplog.records].count("state_failed") == 1


def test_a_disk_that_is_full_at_the_start_is_no_reason_not_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        def full(*_: object, **__: object) -> sqlite3.Connection:
            raise sqlite3.OperationalError("unable to open database file")

        with monkeypatch.context() as broken:
            broken.setattr("scheduler.daemon.state.store.open_database", full)
            life = Life(tmp_path)
            assert life.keeper.status()["up"] is False
            assert (await life.ask()).closed_by == STATE
        assert (await life.ask()).amount == 0.4
        await life.end()

    run(work)


def test_a_damaged_file_starts_a_new_ledger(tmp_path: Path) -> None:
    async def work() -> None:
        (tmp_path / DATABASE).write_bytes(b"x" * 9000)
        life = Life(tmp_path)
        assert (await life.ask()).amount == 0.4
        await life.end()
        assert len(list(tmp_path.glob("*.aside"))) == 1

    run(work)


def test_borrowers_that_have_all_gone_are_shown_no_more_and_a_disk_that_refuses_hides_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "LOOK_EVERY_S", 0.001)

    async def work() -> None:
        life, looked, broken = Life(tmp_path), list[bool](), True
        await life.keeper.lend(REPORT, Caps(1.0, None))
        read = life.keeper._store.borrowers

        def look() -> list[dict[str, object]]:
            looked.append(broken)
            if broken:
                raise sqlite3.OperationalError("database or disk is full")
            return read()

        monkeypatch.setattr(life.keeper._store, "borrowers", look)
        running = asyncio.get_running_loop().create_task(life.keeper.run())
        while len(looked) < 2:
            await asyncio.sleep(0)
        assert life.borrowers() == [("host:8600", 0.25)]
        # A clean stop gives back the rest, and no further report comes.
        await life.keeper.lend(replace(REPORT, number=2, amount=0.0, spent=0.125), Caps(1.0, None))
        assert life.borrowers() == [("host:8600", 0.0)]
        monkeypatch.setattr(loans, "SILENT_S", 0.0)
        looked.clear()
        broken = False
        while life.borrowers() and len(looked) < 3:
            await asyncio.sleep(0)
        assert life.borrowers() == []
        running.cancel()
        await life.end()

    run(work)


def test_spending_without_a_cap_is_booked_once_a_minute(tmp_path: Path) -> None:
    async def work() -> None:
        life = Life(tmp_path)
        life.left = -0.6
        await life.keeper.save()
        assert life.heard == [SpendGranted(0.6)]
        assert (await life.ask(RequestSpend(1.0, 0.0, 1.0, None))).amount == pytest.approx(0.4)
        life.left = None
        await life.end()

    run(work)


def test_a_disk_that_hangs_leaves_no_task_behind_not_even_of_what_came_meanwhile(tmp_path: Path) -> None:
    async def work() -> list[asyncio.Task[None]]:
        life = Life(tmp_path)

        async def hang(_: object) -> None:
            await asyncio.get_running_loop().create_future()

        life.keeper._threads.run = hang  # type: ignore[method-assign, assignment]
        life.keeper.request(ASK)
        asyncio.get_running_loop().call_later(1.0, life.keeper.save_limits, "m", Limits())
        await life.end()
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    assert run_virtual(work()) == []
