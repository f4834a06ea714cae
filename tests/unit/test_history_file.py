"""The history outlives the process; a damaged file or a full disk costs history only, and one sentence."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from pathlib import Path

import pytest

from scheduler.daemon.history import keeper
from scheduler.daemon.history.buckets import Bucket
from scheduler.daemon.history.counting import Key
from scheduler.daemon.history.feed import Feed
from scheduler.daemon.history.file import DATABASE, HistoryFile
from scheduler.daemon.history.keeper import HistoryKeeper
from scheduler.daemon.history.rings import KEPT, Row

NOW_S = 1_790_000_000


def a_feed(now_s: float = NOW_S) -> Feed:
    return Feed(clock=lambda: now_s, wall=lambda: now_s, midnight_s=lambda at_s: at_s // 86_400 * 86_400)


def kept(folder: Path, feed: Feed) -> None:
    async def life() -> None:
        keeper_of = HistoryKeeper(feed, folder)
        feed.tick()
        await keeper_of.close()

    asyncio.run(life())


def count(feed: Feed) -> None:
    key = feed.counting.key("digits", "a", "", "edge:main")
    feed.counting.answered(key, request_id=1, at_s=0.0, latency_s=0.1, slo_s=1.0, items=1)


def test_the_next_process_goes_on(tmp_path: Path) -> None:
    first = a_feed()
    count(first)
    kept(tmp_path, first)
    assert (tmp_path / DATABASE).stat().st_mode & 0o777 == 0o600
    second = a_feed(NOW_S + 5)
    HistoryKeeper(second, tmp_path)
    assert second.history.names.keys == [Key("digits", "a", "", "edge:main")]
    minutes = list(second.history.minutes(NOW_S - 3600))
    assert [bucket.cells[0].within for _, bucket in minutes] == [1]


@pytest.mark.parametrize("content", [b"", b"no database at all" * 300, None])
def test_a_damaged_file_is_put_aside_with_a_sentence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes | None
) -> None:
    first = a_feed()
    count(first)
    kept(tmp_path, first)
    path = tmp_path / DATABASE
    if content is None:
        other = tmp_path / "other"
        sqlite3.connect(other).execute("CREATE TABLE theirs (a)").connection.close()
        content = other.read_bytes()
    path.write_bytes(content)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    with caplog.at_level(logging.WARNING, "edgeburst"):
        second = a_feed(NOW_S + 5)
        count(second)
        kept(tmp_path, second)
    assert len(caplog.records) == bool(content)
    assert (tmp_path / f"{DATABASE}.aside").exists() is bool(content)
    third = a_feed(NOW_S + 9)
    HistoryKeeper(third, tmp_path)
    assert third.history.begins_s() is not None


def test_a_disk_that_takes_nothing_is_said_once_and_costs_no_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = a_feed()
    full = True
    save = HistoryFile.save

    def saved(self: HistoryFile, *args: object, **kwargs: object) -> None:
        if full:
            raise sqlite3.OperationalError("database or disk is full")
        save(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(keeper.HistoryFile, "save", saved)

    async def life() -> tuple[str, str]:
        nonlocal full
        count(feed)
        own = HistoryKeeper(feed, tmp_path)
        feed.tick()
        for _ in range(3):
            await own.save()
        failure = own.failure
        full = False
        await own.save()
        await own.close()
        return failure, own.failure

    with caplog.at_level(logging.INFO, "edgeburst"):
        failure, mended = asyncio.run(life())
    assert "disk is full" in failure
    assert mended == ""
    assert len(caplog.records) == 2, "one sentence when it fails, one when it works again"
    after = a_feed(NOW_S + 5)
    HistoryKeeper(after, tmp_path)
    assert after.history.begins_s() is not None


def test_the_file_is_bounded(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path, warn=lambda _: None)
    file.load()
    rows = [Row(1, NOW_S - ago, Bucket().dumped()) for ago in range(3 * KEPT[0])]
    file.save([], rows, now_s=NOW_S)
    file.save([], [Row(1, NOW_S + 99, b"{}")], now_s=NOW_S)
    file.close()
    _, found = file.load()
    assert len(found) == KEPT[0] + 1


@pytest.mark.parametrize("leap_s", [10**8, -(10**8)])
def test_a_wall_clock_that_is_wrong_for_a_while_empties_no_history(tmp_path: Path, leap_s: int) -> None:
    first = a_feed()
    count(first)
    kept(tmp_path, first)
    for second in range(3):
        wrong = a_feed(NOW_S + leap_s + second)
        count(wrong)
        kept(tmp_path, wrong)
    right = a_feed(NOW_S + 60)
    HistoryKeeper(right, tmp_path)
    assert [bucket.cells[0].within for _, bucket in right.history.minutes(NOW_S - 3600)] == [1]


def test_a_folder_that_cannot_be_used_keeps_the_daemon_from_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    feed = a_feed()
    with caplog.at_level(logging.WARNING, "edgeburst"):
        own = HistoryKeeper(feed, tmp_path / "gone")
    assert "cannot be written" in own.failure
    assert len(caplog.records) == 1
