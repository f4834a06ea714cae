"""Sockets and lock go to the daemon that waits for them, and the lock is never free in between."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.daemon.listeners import GRPC, HTTP, Listeners
from scheduler.daemon.state.folder import FolderLock, StateError
from scheduler.daemon.state.handover import NAME, Bequest, Heir


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened


def test_a_successor_gets_the_lock_and_the_sockets(tmp_path: Path, listener: socket.socket) -> None:
    async def passed() -> FolderLock:
        old = FolderLock(tmp_path)
        bequest = Bequest(tmp_path)
        waiting = asyncio.ensure_future(bequest.run())
        successor = asyncio.ensure_future(asyncio.to_thread(FolderLock, tmp_path, wait_s=30))
        await bequest.claimed.wait()
        assert bequest.give(old.descriptor, [(HTTP, listener)])
        waiting.cancel()
        bequest.close()
        old.release()
        return await successor

    new = asyncio.run(passed())
    [(name, inherited)] = new.inherited
    assert (name, inherited.getsockname()) == (HTTP, listener.getsockname())
    assert not os.get_inheritable(inherited.fileno())
    with pytest.raises(StateError, match=f"process id {os.getpid()}"):
        FolderLock(tmp_path)
    inherited.close()
    new.release()
    FolderLock(tmp_path).release()


def test_one_that_waits_for_a_daemon_that_is_killed_gets_the_free_lock(tmp_path: Path) -> None:
    async def killed() -> FolderLock:
        old = FolderLock(tmp_path)
        bequest = Bequest(tmp_path)
        waiting = asyncio.ensure_future(bequest.run())
        successor = asyncio.ensure_future(asyncio.to_thread(FolderLock, tmp_path, wait_s=30))
        await bequest.claimed.wait()
        waiting.cancel()
        bequest.close()
        old.release()
        return await successor

    new = asyncio.run(killed())
    assert new.inherited == ()
    new.release()


def test_one_that_does_not_wait_claims_nothing(tmp_path: Path) -> None:
    old, bequest = FolderLock(tmp_path), Bequest(tmp_path)
    with pytest.raises(StateError, match="in use"):
        FolderLock(tmp_path)
    assert not bequest.claimed.is_set()
    assert not bequest.give(old.descriptor, [])
    bequest.close()
    assert not (tmp_path / NAME).exists()
    old.release()


def test_a_name_that_a_killed_daemon_left_is_used_again(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / NAME))
    assert Heir(tmp_path).wait(0.01) is None
    Bequest(tmp_path).close()
    assert not (tmp_path / NAME).exists()


def test_a_folder_with_a_path_too_long_for_a_socket_has_none(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 200)
    folder.mkdir()
    Bequest(folder).close()
    assert Heir(folder).wait(0.01) is None


def test_inherited_sockets_count_where_the_configuration_still_names_their_address(listener: socket.socket) -> None:
    host, port = listener.getsockname()
    for addresses, kept in (
        ({HTTP: (host, port)}, 1),
        ({HTTP: (host, 0)}, 1),
        ({HTTP: (host, port + 1)}, 0),
        ({HTTP: ("0.0.0.0", port)}, 0),
        ({GRPC: (host, port)}, 0),
    ):
        listeners = Listeners()
        listeners.inherit([(HTTP, listener.dup())], addresses)
        assert len(listeners.of(HTTP)) == kept
        listeners.close()


def test_a_host_with_several_addresses_is_listened_on_at_each() -> None:
    listeners = Listeners()
    taken = listeners.take(HTTP, "localhost", 0)
    assert taken
    assert {each.getsockname()[0] for each in taken} <= {"127.0.0.1", "::1"}
    for each in taken:
        each.close()
    listeners.close()


def test_a_port_in_use_is_an_error(listener: socket.socket) -> None:
    with pytest.raises(OSError, match="in use"):
        Listeners().take(HTTP, *listener.getsockname())
