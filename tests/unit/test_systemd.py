"""systemd's protocols, against real sockets."""

import asyncio
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.virtual_loop import run_virtual

from scheduler import systemd
from scheduler.daemon.listeners import Listeners
from scheduler.daemon.serve import ping_watchdog
from scheduler.domain.errors import EdgeburstError
from scheduler.systemd import Notifier


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(10)
        yield listening


def address(listener: socket.socket) -> str:
    return str(listener.getsockname())


def test_assignments_arrive_together_in_one_datagram(listener: socket.socket) -> None:
    Notifier(address(listener)).send("READY=1", "STATUS=serving digits")
    assert listener.recv(1000) == b"READY=1\nSTATUS=serving digits"


def test_an_address_with_an_at_sign_is_in_the_abstract_namespace() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0edgeburst-test-{os.getpid()}")
        listening.settimeout(10)
        Notifier(f"@edgeburst-test-{os.getpid()}").send("READY=1")
        assert listening.recv(1000) == b"READY=1"


def test_without_systemd_nothing_is_sent() -> None:
    warnings: list[str] = []
    Notifier.from_environment({}, warn=warnings.append).send("READY=1")
    assert warnings == []


def test_a_socket_that_is_gone_is_a_warning_and_no_failure(tmp_path: Path) -> None:
    warnings: list[str] = []
    Notifier(str(tmp_path / "gone"), warn=warnings.append).send("READY=1", "STATUS=serving")
    assert warnings == [
        f"cannot send READY=1 to NOTIFY_SOCKET {tmp_path / 'gone'}: [Errno 2] No such file or directory"
    ]


def test_a_receiver_that_never_reads_delays_nothing(listener: socket.socket) -> None:
    warnings: list[str] = []
    notifier = Notifier(address(listener), warn=warnings.append)
    for _ in range(5000):
        notifier.send("WATCHDOG=1" + " " * 1000)
        if warnings:
            break
    assert [warning.startswith("cannot send WATCHDOG=1") for warning in warnings] == [True]


def test_a_reload_sends_the_time_in_microseconds(listener: socket.socket) -> None:
    Notifier(address(listener)).reloading()
    assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", listener.recv(1000))


@pytest.mark.parametrize(
    ("environ", "expected_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "1500000"}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_counts_only_where_it_watches_this_process(
    environ: dict[str, str], expected_s: float | None
) -> None:
    assert Notifier.from_environment(environ).watchdog_s == expected_s


def test_the_watchdog_is_pinged_twice_in_its_period_by_the_loop_itself(listener: socket.socket) -> None:
    async def main() -> None:
        ping_watchdog(Notifier(address(listener), watchdog_s=10.0), asyncio.get_running_loop())
        await asyncio.sleep(14.0)

    run_virtual(main())
    listener.setblocking(False)
    assert [listener.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    with pytest.raises(BlockingIOError):
        listener.recv(100)


def passed(count: int, names: str, *, pid: int | None = None) -> dict[str, str]:
    return {"LISTEN_FDS": str(count), "LISTEN_PID": str(pid or os.getpid()), "LISTEN_FDNAMES": names, "HOME": "/"}


def test_passed_sockets_come_with_their_names_and_are_announced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        monkeypatch.setattr(systemd, "FIRST_DESCRIPTOR", opened.dup().detach())
        environ = passed(1, "http")
        [(name, taken)] = systemd.passed_sockets(environ)
        with taken:
            assert (name, taken.getsockname()) == ("http", opened.getsockname())
            assert not taken.get_inheritable()
        assert environ == {"HOME": "/"}
        assert systemd.passed_sockets(environ) == []


def test_sockets_for_another_process_are_left_alone() -> None:
    environ = passed(1, "http", pid=os.getpid() + 1)
    assert systemd.passed_sockets(environ) == []
    assert "LISTEN_FDS" in environ


def test_a_passed_socket_that_does_not_listen_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        monkeypatch.setattr(systemd, "FIRST_DESCRIPTOR", other.dup().detach())
        with pytest.raises(EdgeburstError, match="ListenStream of edgeburst.socket"):
            Listeners.from_systemd(passed(1, "http"))
