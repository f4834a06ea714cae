"""TLS of the edge server's and the function's HTTP server: strangers, slow ones and clients without it harm none."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

import pytest
import requests
from support.certificates import Authority, Certified
from support.wsgi_servers import LIMIT_S, Served, answer_on, connect, limits_for, refused, serving

from scheduler.wsgi.tls import TlsError, TlsFiles

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [environ["wsgi.url_scheme"].encode(), body]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> Certified:
    return authority.server("server")


@pytest.fixture(scope="module")
def client(authority: Authority) -> Certified:
    return authority.client("client")


@pytest.fixture(scope="module")
def served(own: Certified) -> Iterator[Served]:
    files = TlsFiles(own.certificate, own.key)
    with serving(echo, replace(limits_for("edge"), body_bytes=10**7, header_s=0.5), tls=files) as running:
        yield running


@pytest.fixture(scope="module")
def mutual(own: Certified, authority: Authority) -> Iterator[Served]:
    with serving(echo, limits_for("edge"), tls=TlsFiles(own.certificate, own.key, authority.ca_file)) as running:
        yield running


def trusting(authority: Authority, pair: Certified | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return context


def test_large_bodies_go_through_both_ways_on_a_kept_connection(served: Served, authority: Authority) -> None:
    with requests.Session() as session:
        for size in (0, 3_000_000, 5):
            url = f"https://127.0.0.1:{served.port}/"
            answer = session.post(url, data=b"a" * size, verify=str(authority.ca_file), timeout=LIMIT_S)
            assert answer.content == b"https" + b"a" * size


def test_a_client_that_trusts_another_authority_ends_it_itself(served: Served, tmp_path: Path) -> None:
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"https://127.0.0.1:{served.port}/", verify=str(Authority(tmp_path).ca_file), timeout=LIMIT_S)


def test_http_without_tls_is_told_in_plain_text(served: Served) -> None:
    status, sentence = refused(served.port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (status, "use https:// in the address" in sentence) == (400, True)


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01", b"\x00" * 50])
def test_a_handshake_that_does_not_end_keeps_none_out(served: Served, authority: Authority, begun: bytes) -> None:
    with ExitStack() as stack:
        halves = [stack.enter_context(connect(served.port)) for _ in range(20)]
        for half in halves:
            half.sendall(begun)
        answer = requests.get(f"https://127.0.0.1:{served.port}/", verify=str(authority.ca_file), timeout=LIMIT_S)
        assert answer.status_code == 200
        for half in halves:
            try:
                while half.recv(1000):
                    pass
            except ConnectionResetError:
                pass


def test_without_a_certificate_of_the_authority_none_gets_in(
    mutual: Served, authority: Authority, client: Certified, tmp_path: Path
) -> None:
    url = f"https://127.0.0.1:{mutual.port}/"
    with_it = (str(client.certificate), str(client.key))
    assert requests.get(url, verify=str(authority.ca_file), cert=with_it, timeout=LIMIT_S).status_code == 200
    stranger = Authority(tmp_path, "other").client("stranger")
    for cert in (None, (str(stranger.certificate), str(stranger.key))):
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get(url, verify=str(authority.ca_file), cert=cert, timeout=LIMIT_S)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken_and_http_1_1_is_chosen(
    mutual: Served, authority: Authority, client: Certified, version: ssl.TLSVersion
) -> None:
    context = trusting(authority, client)
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    with connect(mutual.port) as plain, context.wrap_socket(plain, server_hostname="localhost") as connection:
        assert connection.selected_alpn_protocol() == "http/1.1"
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer_on(connection)[2] == b"https"


@pytest.mark.skipif(which("openssl") is None, reason="openssl is not installed")
def test_openssl_itself_sees_the_certificate_and_nothing_old(
    mutual: Served, authority: Authority, client: Certified
) -> None:
    def says(*options: str) -> str:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{mutual.port}", "-CAfile", str(authority.ca_file)]
        command += ["-cert", str(client.certificate), "-key", str(client.key), *options]
        done = subprocess.run(command, input="", capture_output=True, text=True, timeout=LIMIT_S, check=False)
        return done.stdout + done.stderr

    assert "Verify return code: 0 (ok)" in says()
    assert "Cipher is (NONE)" in says("-tls1_1")


@pytest.mark.skipif(which("curl") is None, reason="curl is not installed")
def test_curl_gets_an_answer(mutual: Served, authority: Authority, client: Certified) -> None:
    command = ["curl", "-sS", "--cacert", str(authority.ca_file), "--cert", str(client.certificate)]
    command += ["--key", str(client.key), "--data-binary", "abc", f"https://localhost:{mutual.port}/"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (done.stdout, done.stderr) == ("httpsabc", "")


def test_the_certificate_is_read_again_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    first, second = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    pair, other = first.server("server"), second.server("other")
    with serving(echo, limits_for("edge"), tls=TlsFiles(pair.certificate, pair.key)) as running:
        url = f"https://127.0.0.1:{running.port}/"
        with requests.Session() as kept:
            assert kept.get(url, verify=str(first.ca_file), timeout=LIMIT_S).status_code == 200
            pair.certificate.write_bytes(other.certificate.read_bytes())
            with pytest.raises(TlsError, match="cannot be used together"):
                running.server.reload_tls()
            assert requests.get(url, verify=str(first.ca_file), timeout=LIMIT_S).status_code == 200
            pair.key.write_bytes(other.key.read_bytes())
            running.server.reload_tls()
            assert requests.get(url, verify=str(second.ca_file), timeout=LIMIT_S).status_code == 200
            # A connection that is kept goes on.
            assert kept.get(url, verify=str(first.ca_file), timeout=LIMIT_S).status_code == 200


def test_files_that_do_not_do_are_named(own: Certified, authority: Authority, tmp_path: Path) -> None:
    other = authority.server("second")
    text = tmp_path / "text.pem"
    text.write_text("text")
    locked = tmp_path / "locked.pem"
    _lock(own.key, locked)
    for files, words in (
        (TlsFiles(tmp_path / "none.pem", own.key), "none.pem cannot be read: No such file"),
        (TlsFiles(own.certificate, other.key), "KEY_VALUES_MISMATCH"),
        (TlsFiles(text, own.key), "cannot be used together"),
        (TlsFiles(own.certificate, locked), "without a passphrase"),
        (TlsFiles(own.certificate, own.key, text), "holds no certificate"),
    ):
        with pytest.raises(TlsError) as raised:
            files.context()
        assert words in str(raised.value)
        assert "\n" not in str(raised.value)


def _lock(key: Path, locked: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    locked.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )


def test_closing_ends_encrypted_connections_too(own: Certified, authority: Authority) -> None:
    with serving(echo, limits_for("edge"), tls=TlsFiles(own.certificate, own.key)) as running:
        plain = connect(running.port)
        connection = trusting(authority).wrap_socket(plain, server_hostname="localhost")
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(1) == b"H"
    with connection:
        connection.settimeout(LIMIT_S)
        try:
            while connection.recv(1000):
                pass
        except (ssl.SSLError, ConnectionError):
            pass  # an end without farewell is an end


def test_errors_are_json_through_tls(served: Served, authority: Authority) -> None:
    with connect(served.port) as plain:
        connection = trusting(authority).wrap_socket(plain, server_hostname="localhost")
        connection.sendall(b"GET /\r\n\r\n")
        status, _, body = answer_on(connection)
        assert (status, list(json.loads(body))) == (400, ["error"])
        connection.shutdown(socket.SHUT_RDWR)
