"""The comparison with servers of others: what is counted, and from which releases each is made."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from scripts import bench_peers
from scripts.bench_peers import Duel, Turns, row, turns_of
from scripts.daemon_bench.client import CLOSED, Seen, closed_loop
from scripts.peer_bench import stub_model
from scripts.peer_bench.peers import PEERS, Peer
from scripts.support import environments
from scripts.support.environments import Environment, EnvironmentFailed, python_of


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_each_server_is_one_pinned_release(peer: Peer) -> None:
    assert peer.release.replace(".", "").isdigit()
    assert all(peer.environment.release(package) for package in peer.environment.packages)


def test_a_ratio_is_that_of_the_median_turns_and_says_its_spread() -> None:
    ours, theirs = Turns((90.0, 100.0, 300.0), 1.0, 2.0, 0, 200.0), Turns((10.0, 20.0, 10.0), 3.0, 4.0, 7, 500.0)
    duel = Duel("1.0", "binary", ours, theirs)
    assert (duel.ratio, duel.spread()) == (10.0, (5.0, 30.0))
    assert row("LitServe", duel) == (
        "| LitServe | 1.0 | binary | 10, 3.0 / 4.0, 7 refused | 100, 1.0 / 2.0 | 10.00 (5.00 to 30.00) | ≥ 9 "
        "| 500 to 200 us: 2.50 |"
    )
    assert ", **missed** | ≥ 0.5 |" in row("mosec", Duel("1.0", "binary", theirs, ours))


def test_turns_count_what_was_refused() -> None:
    first = Seen([0.001, 0.002], {200: 2, 503: 1}, [(3, 1.0, 0.25)])
    turns = turns_of([first, Seen([0.003], {200: 1, CLOSED: 2}, [(1, 2.0, 0.75)])])
    assert turns == Turns((3.0, 0.5), pytest.approx(2.0), pytest.approx(3.0), 3, pytest.approx(250e3))


def test_a_server_that_answered_nothing_has_no_latency() -> None:
    assert turns_of([Seen(windows=[(0, 1.0, 0.0)])]).p99_ms == float("inf")


def test_the_stub_answers_each_item_after_its_law(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(stub_model, "ALPHA_S", 1.0)
    monkeypatch.setattr(stub_model, "BETA_S", 0.5)
    monkeypatch.setattr(stub_model.time, "sleep", slept.append)
    assert stub_model.predict([b"a", b"b"]) == [stub_model.ANSWER] * 2
    assert slept == [2.0]


def test_a_connection_that_a_server_closes_is_counted_and_opened_again() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async def loaded(*, may_close: bool) -> Seen:
        server = await asyncio.start_server(close, "127.0.0.1", 0)
        async with server:
            return await closed_loop(
                server.sockets[0].getsockname()[1],
                [b"GET / HTTP/1.1\r\n\r\n"],
                connections=2,
                warm_up_s=0.0,
                duration_s=0.01,
                cpu_s=lambda: 0.0,
                may_close=may_close,
            )

    seen = asyncio.run(loaded(may_close=True))
    assert set(seen.statuses) == {CLOSED}
    assert seen.statuses[CLOSED] > 2
    with pytest.raises(ConnectionError, match="the server has closed 2 connections"):
        asyncio.run(loaded(may_close=False))


def test_an_environment_that_cannot_be_made_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = tmp_path / "none.txt"
    pins.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(environments.sys, "executable", "false")
    with pytest.raises(EnvironmentFailed, match=r"^nothing cannot be installed for this Python; leave it out"):
        python_of(Environment("nothing", ("nothing",), str(pins)))
    with pytest.raises(EnvironmentFailed, match="pins no nothing"):
        Environment("nothing", (), str(pins)).release("nothing")


def test_duels_are_written_and_drawn(tmp_path: Path) -> None:
    turns = Turns((10.0,), 1.0, 2.0, 0, 1.0)
    bench_peers.plot({"mosec": Duel("1.0", "binary", turns, turns)}, tmp_path / "peers.png")
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")
