"""The edge server beyond loopback as a process: a token, a certificate, or nothing but a sentence."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from support.certificates import Authority
from support.edge_process import ROOT, EdgeProcess, command, options_of_a_quick_server, refused, running

pytestmark = pytest.mark.xdist_group("edge_server")
QUICK = options_of_a_quick_server()
TOKEN = "0123456789abcdef0123456789abcdef"
LIMIT_S = 30


def told(*options: str) -> str:
    """Returns the one sentence of a start that was refused."""
    done = refused(*options)
    assert (done.returncode, done.stdout) == (2, "")
    [sentence] = done.stderr.splitlines()
    return sentence


def test_beyond_loopback_a_start_without_access_is_one_sentence() -> None:
    assert told("--host", "0.0.0.0") == (
        "edgeburst-edge: other machines reach 0.0.0.0, and nothing says which of them may send batches: add"
        " --token-env NAME, --client-ca FILE, or --open for all of them"
    )


def test_a_token_that_is_not_there_and_files_that_are_not_are_one_sentence() -> None:
    assert "NO_SUCH_TOKEN, which is not set" in told("--token-env", "NO_SUCH_TOKEN")
    assert "c.pem cannot be read" in told("--certificate", "/c.pem", "--key", "/k.pem")


def test_token_and_certificates_together_and_the_certificate_read_again(tmp_path: Path) -> None:
    first, clients = Authority(tmp_path, "first"), Authority(tmp_path, "clients")
    own, client = first.server("server"), clients.client("client")
    options = ("--certificate", str(own.certificate), "--key", str(own.key), "--client-ca", str(clients.ca_file))
    environ = {"EDGE_TOKEN": TOKEN}
    with running("--host", "0.0.0.0", "--token-env", "EDGE_TOKEN", *options, *QUICK, environ=environ) as edge:
        url = f"https://127.0.0.1:{edge.ready['port']}"
        cert = (str(client.certificate), str(client.key))

        def status(path: str, authority: Authority = first, **headers: str) -> int:
            answer = requests.get(
                url + path, headers=headers, verify=str(authority.ca_file), cert=cert, timeout=LIMIT_S
            )
            return answer.status_code

        assert status("/v2/health/live") == 200
        assert status("/v2/models/digits") == 401
        assert status("/v2/models/digits", Authorization=f"Bearer {TOKEN}") == 200
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get(url + "/v2/health/live", verify=str(first.ca_file), timeout=LIMIT_S)

        second = Authority(tmp_path, "second")
        other = second.server("again")
        own.certificate.write_bytes(other.certificate.read_bytes())
        own.key.write_bytes(other.key.read_bytes())
        edge.process.send_signal(signal.SIGHUP)
        while b"READY=1" not in (said := edge.notifications.recv(4096)) or b"STATUS" in said:
            pass
        assert status("/v2/health/live", second) == 200
        assert edge.stop() == 0


def test_sockets_that_systemd_holds_are_served_and_outlive_the_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        os.set_inheritable(held.fileno(), True)
        port = held.getsockname()[1]
        # As systemd does it: the descriptor is number 3, and the process knows its own number.
        start = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3);"
            " os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
            " os.execv(sys.argv[2], sys.argv[2:])"
        )
        line = [sys.executable, "-c", start, str(held.fileno()), *command(*QUICK)]
        process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True, close_fds=False)
        try:
            assert process.stdout is not None
            assert f'"port": {port},' in process.stdout.readline()
            assert requests.get(f"http://127.0.0.1:{port}/v2/health/ready", timeout=LIMIT_S).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT_S) == 0
            # What connects now waits for the next process.
            with socket.create_connection(("127.0.0.1", port), LIMIT_S):
                pass
        finally:
            process.kill()
            process.communicate()


def test_an_edge_that_says_that_it_is_open_is() -> None:
    with running("--host", "0.0.0.0", "--open", *QUICK) as edge:
        assert isinstance(edge, EdgeProcess)
        assert requests.get(f"http://127.0.0.1:{edge.ready['port']}/v2", timeout=LIMIT_S).status_code == 200
