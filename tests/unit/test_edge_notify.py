"""systemd's notification protocol, against real datagram sockets."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from edge_server.notify import notify, watchdog_s


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_a_state_arrives_as_one_datagram(kind: str, tmp_path: Path) -> None:
    name = str(tmp_path / "notify") if kind == "path" else f"@edgeburst-{tmp_path.name}-{id(tmp_path)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name.replace("@", "\0"))
        receiver.settimeout(10)

        notify("READY=1\nSTATUS=Serving digits", environ={"NOTIFY_SOCKET": name})

        assert receiver.recv(1000) == b"READY=1\nSTATUS=Serving digits"


def test_without_systemd_nothing_is_said() -> None:
    notify("READY=1", environ={})


def test_a_socket_that_is_gone_is_a_warning_and_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notify("READY=1", environ={"NOTIFY_SOCKET": str(tmp_path / "gone")})

    assert "gone" in caplog.text


def test_a_receiver_that_never_reads_holds_nobody_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name)

        for _ in range(2000):
            notify("WATCHDOG=1" + "x" * 500, environ={"NOTIFY_SOCKET": name})

    assert "WATCHDOG=1" in caplog.text


@pytest.mark.parametrize(
    ("environ", "expected_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "1500000"}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "42"}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "41"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_obeyed_only_where_it_watches_this_process(
    environ: dict[str, str], expected_s: float | None
) -> None:
    assert watchdog_s(environ=environ, pid=42) == expected_s
