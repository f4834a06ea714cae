"""Who may do what with a real daemon: tokens, scopes, tenants, TLS, the operators' socket, asked by real clients."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import requests
import tritonclient.grpc
import tritonclient.http
from support import operators
from support.certificates import Authority, Certified
from support.daemon_process import (
    ROOT,
    Running,
    daemon_process,
    environment,
    refused_start,
    serve_command,
    stub_edge_process,
    until,
)
from tritonclient.utils import InferenceServerException

from scheduler import cli

pytestmark = pytest.mark.xdist_group("serve")

CAMERA, READER, ROOT_TOKEN = "secret-of-the-camera", "secret-of-the-reader", "secret-of-the-root"
TENANTS = '[[tenant]]\nname = "lab"\n[[tenant]]\nname = "ward"\n'
NO_OPERATOR = {"EDGEBURST_DAEMON__ADMIN_TOKEN_ENV": ""}
"""An environment without the token that the daemons of other tests know."""
SLOW = {"timeout": 30}


def token(name: str, secret: str, *lines: str) -> str:
    return "\n".join(["[[token]]", f'name = "{name}"', f'sha256 = "{sha256(secret.encode()).hexdigest()}"', *lines, ""])


TOKENS = (
    token("camera", CAMERA, 'tenant = "lab"')
    + token("reader", READER, 'scopes = ["read"]')
    + token("root", ROOT_TOKEN, 'scopes = ["admin"]')
    + token("slow", "secret-of-the-slow", "rate_rps = 0.2")
)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture(scope="module")
def edge() -> Iterator[Running]:
    with stub_edge_process() as running:
        yield running


def written(folder: Path, edge_url: str, daemon: str = "", more: str = "", of_edge: str = "") -> Path:
    path = folder / "edgeburst.toml"
    path.write_text(
        f'[daemon]\nport = 0\nstate = "state"\n{daemon}\n[grpc]\nport = 0\n'
        f'[edge]\nurl = "{edge_url}"\n{of_edge}\n{more}'
        '[explain]\nfile = "explain.jsonl"\n'
        '[[model]]\nname = "digits"\nedge_profile = "orin-resnet50"\n[[model.class]]\nslo_s = 20.0\n'
    )
    return path


@pytest.fixture(scope="module")
def daemon(edge: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One that knows tokens."""
    folder = tmp_path_factory.mktemp("tokens")
    with daemon_process(written(folder, edge.url, more=TENANTS + TOKENS), environ=NO_OPERATOR) as running:
        yield running


def ask(daemon: Running, path: str, secret: str = "", **options: Any) -> requests.Response:
    headers = {**(bearer(secret) if secret else {}), **options.pop("headers", {})}
    return requests.request(options.pop("method", "GET"), daemon.url + path, headers=headers, **SLOW, **options)


def classify(daemon: Running, secret: str = "", **headers: str) -> requests.Response:
    kind = {"Content-Type": "image/png", **headers}
    return ask(daemon, "/v1/classify/digits", secret, method="POST", data=b"x" * 99, headers=kind)


def error_of(response: requests.Response, status: int) -> str:
    assert response.status_code == status, response.text
    sentence: str = response.json()["error"]
    assert not any(secret in response.text for secret in (CAMERA, READER, ROOT_TOKEN))
    return sentence


def picture(library: Any) -> Any:
    tensor = library.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"x" * 99], object))
    return tensor


def over_socket(path: Path, target: str, *options: str) -> tuple[int, str]:
    """Asks with curl; returns status and body."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    command = [curl, "-sS", "--unix-socket", str(path), "-w", "\n%{http_code}", *options, f"http://localhost{target}"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    body, _, status = said.rpartition("\n")
    return int(status), body


class TestTokens:
    def test_each_token_may_do_what_its_scopes_say_and_no_more(self, daemon: Running) -> None:
        statuses = {
            name: (
                classify(daemon, secret).status_code,
                ask(daemon, "/v2/models/digits", secret).status_code,
                ask(daemon, "/v1/status", secret).status_code,
                ask(daemon, "/v1/batches", secret).status_code,
                ask(daemon, "/v1/models/digits/limits", secret, method="PUT", data="{}").status_code,
            )
            for name, secret in (("camera", CAMERA), ("reader", READER), ("root", ROOT_TOKEN), ("none", ""))
        }
        assert statuses == {
            "camera": (200, 200, 403, 403, 403),
            "reader": (403, 200, 200, 200, 403),
            "root": (200, 200, 200, 200, 200),
            "none": (401, 401, 401, 401, 401),
        }
        for path in ("/v2/health/live", "/v2/health/ready", "/"):
            assert ask(daemon, path).status_code == 200

    def test_a_wrong_token_gets_one_sentence_and_how_to_send_one(self, daemon: Running) -> None:
        wrong = classify(daemon, CAMERA + "x")
        assert error_of(wrong, 401).startswith("the bearer token is wrong")
        assert wrong.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
        assert classify(daemon).headers["WWW-Authenticate"] == "Bearer"
        assert "lacks the scope infer" in error_of(classify(daemon, READER), 403)
        assert "needs a token" in error_of(classify(daemon, **{"X-Forwarded-For": "127.0.0.1"}), 401)

    def test_the_tenant_of_a_token_counts_and_its_requests_are_its_own(self, daemon: Running) -> None:
        mine = classify(daemon, CAMERA, **{"X-Edgeburst-Tenant": "ward", "X-Request-Id": "picture-7"})
        theirs = classify(daemon, ROOT_TOKEN, **{"X-Request-Id": "picture-7"})
        numbers = [each.headers["X-Edgeburst-Request-Id"] for each in (mine, theirs)]
        [found] = ask(daemon, "/v1/explain/picture-7", CAMERA).json()["explanations"]
        assert (str(found["request_id"]), found["tenant"]) == (numbers[0], "lab")
        assert len(ask(daemon, "/v1/explain/picture-7", ROOT_TOKEN).json()["explanations"]) == 2
        assert "is unknown" in error_of(ask(daemon, f"/v1/explain/{numbers[1]}", CAMERA), 404)
        assert "is unknown" in error_of(ask(daemon, f"/v1/explain/{numbers[0]}", READER), 404)

    def test_a_token_s_rate_is_kept(self, daemon: Running) -> None:
        first, second = (ask(daemon, "/v2/models/digits", "secret-of-the-slow") for _ in range(2))
        assert first.status_code == 200
        assert "more than 0.2 requests a second" in error_of(second, 429)
        assert 1 <= int(second.headers["Retry-After"]) <= 5

    def test_tritonclient_sends_a_token_over_http(self, daemon: Running) -> None:
        with tritonclient.http.InferenceServerClient(f"127.0.0.1:{daemon.port}") as client:
            result = client.infer("digits", [picture(tritonclient.http)], headers=bearer(CAMERA))
            assert result.as_numpy("probabilities") is not None
            with pytest.raises(InferenceServerException, match="needs a token with the scope infer"):
                client.infer("digits", [picture(tritonclient.http)])

    def test_tritonclient_sends_a_token_over_grpc(self, daemon: Running) -> None:
        with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{daemon.ready['grpc_port']}") as client:
            assert client.is_server_live()
            result = client.infer("digits", [picture(tritonclient.grpc)], headers={"authorization": f"Bearer {CAMERA}"})
            assert result.as_numpy("probabilities") is not None
            unknown = "UNAUTHENTICATED"
            for secret, code in (("", unknown), ("not-known-here", unknown), (READER, "PERMISSION_DENIED")):
                headers = {"authorization": f"Bearer {secret}"} if secret else {}
                with pytest.raises(InferenceServerException) as caught:
                    client.infer("digits", [picture(tritonclient.grpc)], headers=headers)
                assert caught.value.status() == f"StatusCode.{code}"
                assert not secret or secret not in str(caught.value)
            with pytest.raises(InferenceServerException, match="needs a token"):
                client.get_model_metadata("digits")

    def test_pages_and_names_that_are_not_the_daemon_s_are_refused(self, daemon: Running) -> None:
        evil = {"Host": "evil.example", "Origin": "http://evil.example"}
        assert "not known by the name" in error_of(classify(daemon, CAMERA, **evil), 421)
        page = {"Origin": "http://evil.example", "Content-Type": "text/plain"}
        assert "scripts of other pages" in error_of(classify(daemon, CAMERA, **page), 403)

    def test_a_reload_takes_new_tokens_and_forgets_old_ones(self, edge: Running, tmp_path: Path) -> None:
        path = written(tmp_path, edge.url, more=token("old", "old-secret"))
        with daemon_process(path, environ=operators.ENVIRON) as running:
            assert classify(running, "old-secret").status_code == 200
            written(tmp_path, edge.url, more=token("new", "new-secret"))
            running.signal(signal.SIGHUP)
            until(lambda: classify(running, "new-secret").status_code == 200, "the new token")
            assert classify(running, "old-secret").status_code == 401
            written(tmp_path, edge.url, 'host = "0.0.0.0"')
            running.signal(signal.SIGHUP)
            until(lambda: "reload_refused" in running.log, "a refused reload")
            assert classify(running).status_code == 401


class TestOperators:
    def test_being_on_the_host_is_not_enough_but_the_socket_is(self, edge: Running, tmp_path: Path) -> None:
        with daemon_process(written(tmp_path, edge.url), environ=NO_OPERATOR) as running:
            assert classify(running).status_code == 200
            assert ask(running, "/v1/status").status_code == 200
            for headers in ({}, {"X-Real-IP": "203.0.113.9"}, {"Via": "1.1 proxy"}, {"X-Forwarded-For": "127.0.0.1"}):
                response = ask(running, "/v1/models/digits/limits", method="PUT", data="{}", headers=headers)
                assert "needs a token with the scope admin" in error_of(response, 401)
            path = Path(running.ready["admin_socket"])
            assert path == tmp_path / "state" / "admin.sock"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            put = ("-X", "PUT", "-d", '{"edge_batch_cap": 3}')
            assert over_socket(path, "/v1/models/digits/limits", *put)[0] == 200
            assert ask(running, "/v1/models/digits/limits").json()["edge_batch_cap"] == 3
            files = [each for each in (tmp_path / "state").iterdir() if each.is_file()]
            until((tmp_path / "explain.jsonl").exists, "the file of explanations")
            for file in (*files, tmp_path / "explain.jsonl"):
                assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file
            running.signal(signal.SIGTERM)
            assert running.exit_status() == 0
            assert not path.exists()

    def test_explain_asks_over_the_socket_or_with_a_token(
        self, edge: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = written(tmp_path, edge.url, more=token("camera", CAMERA))
        with daemon_process(config, environ=operators.ENVIRON) as running:
            number = classify(running, CAMERA).headers["X-Edgeburst-Request-Id"]
            assert cli.main(["explain", number, "--config", str(config)]) == 0
            assert cli.main(["explain", number, "--socket", str(running.ready["admin_socket"])]) == 0
            assert cli.main(["explain", number, "--url", running.url]) == 2
            assert "needs a token" in capsys.readouterr().err
            monkeypatch.setenv("CAMERA_TOKEN", CAMERA)
            assert cli.main(["explain", number, "--url", running.url, "--token-env", "CAMERA_TOKEN"]) == 0
            assert cli.main(["explain", number, "--url", running.url, "--token-env", "NO_SUCH_TOKEN"]) == 2
            assert "NO_SUCH_TOKEN is not set" in capsys.readouterr().err

    def test_a_socket_that_was_asked_for_must_be_possible(self, edge: Running, tmp_path: Path) -> None:
        refused = refused_start(written(tmp_path, edge.url, 'admin_socket = "no/such/folder/sock"'))
        assert refused.returncode == 2
        assert "cannot listen on the Unix socket" in refused.stderr


class TestOpenListeners:
    def test_the_address_of_a_passed_socket_counts(self, edge: Running, tmp_path: Path) -> None:
        config = written(tmp_path, edge.url)
        with socket.create_server(("0.0.0.0", 0)) as listener:
            listener.set_inheritable(True)
            script = f'exec 3<&{listener.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http exec "$@"'
            command = ["bash", "-c", script, "daemon", *serve_command(config)]
            refused = subprocess.run(
                command,
                cwd=ROOT,
                env=environment({}),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                pass_fds=[listener.fileno()],
            )
        assert refused.returncode == 2, refused.stderr
        assert "which was passed to the daemon, lets other hosts ask" in refused.stderr


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


class TestTls:
    def keys(self, authority: Authority, server: Certified, *, clients: bool = False) -> str:
        lines = [f'certificate_file = "{server.certificate}"', f'key_file = "{server.key}"']
        return "\n".join([*lines, f'client_ca_file = "{authority.ca_file}"'] if clients else lines)

    def test_http_and_grpc_speak_tls_and_take_new_certificates(
        self, edge: Running, tmp_path: Path, authority: Authority
    ) -> None:
        server = authority.server("first")
        config = written(tmp_path, edge.url, self.keys(authority, server), more=token("camera", CAMERA))
        with daemon_process(config, environ=operators.ENVIRON) as running:
            url = f"https://localhost:{running.port}"
            before = requests.get(
                f"{url}/v2/models/digits", headers=bearer(CAMERA), verify=str(authority.ca_file), **SLOW
            )
            assert before.status_code == 200
            with pytest.raises(requests.exceptions.SSLError):
                requests.get(f"{url}/v2", **SLOW)
            with pytest.raises(requests.exceptions.ConnectionError):
                requests.get(f"{running.url}/v2", **SLOW)
            options = {"ssl": True, "root_certificates": str(authority.ca_file)}
            with tritonclient.grpc.InferenceServerClient(
                f"localhost:{running.ready['grpc_port']}", **options
            ) as client:
                result = client.infer(
                    "digits", [picture(tritonclient.grpc)], headers={"authorization": f"Bearer {CAMERA}"}
                )
                assert result.as_numpy("probabilities") is not None
                with pytest.raises(InferenceServerException, match="needs a token"):
                    client.infer("digits", [picture(tritonclient.grpc)])
                # A renewed certificate is shown after a reload, and connections that are open go on.
                second = authority.server("second")
                shutil.copy(second.certificate, server.certificate)
                shutil.copy(second.key, server.key)
                running.signal(signal.SIGHUP)
                until(lambda: subject(running.port, authority) == "second", "the new certificate")
                until(lambda: subject(running.ready["grpc_port"], authority) == "second", "the new one for gRPC")
                client.infer("digits", [picture(tritonclient.grpc)], headers={"authorization": f"Bearer {CAMERA}"})
            assert [line for line in running.log.splitlines() if line.split()[1] in ("error", "warning")] == []

    def test_clients_without_a_certificate_are_refused_where_one_is_wanted(
        self, edge: Running, tmp_path: Path, authority: Authority
    ) -> None:
        config = written(tmp_path, edge.url, self.keys(authority, authority.server("mutual"), clients=True))
        mine, others = authority.client(), Authority(tmp_path, "other").client("stranger")
        with daemon_process(config) as running:
            url = f"https://localhost:{running.port}/v2"
            verify = str(authority.ca_file)
            assert requests.get(url, verify=verify, cert=mine.pair, **SLOW).status_code == 200
            for cert in (None, others.pair):
                with pytest.raises(requests.exceptions.ConnectionError):
                    requests.get(url, verify=verify, cert=cert, **SLOW)
            grpc_address = f"localhost:{running.ready['grpc_port']}"
            roots = authority.ca_file.read_bytes()
            pair = {"private_key": mine.key.read_bytes(), "certificate_chain": mine.certificate.read_bytes()}
            for files, fine in ((pair, True), ({}, False)):
                credentials = grpc.ssl_channel_credentials(roots, **files)
                with grpc.secure_channel(grpc_address, credentials) as channel:
                    live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
                    if fine:
                        assert live(b"", timeout=30)
                    else:
                        with pytest.raises(grpc.RpcError):
                            live(b"", timeout=5)
            self.past_the_listener()
            self.with_openssl(running.port, authority, mine)
            over_socket(Path(running.ready["admin_socket"]), "/v1/status")

    def test_a_successor_gets_the_sockets_and_speaks_tls_too(
        self, edge: Running, tmp_path: Path, authority: Authority
    ) -> None:
        config = written(tmp_path, edge.url, self.keys(authority, authority.server("third")))
        with daemon_process(config) as first:
            ports = first.port, int(first.ready["grpc_port"])
            # The configured port is any; the successor is told those that it gets.
            config.write_text(config.read_text().replace("port = 0", f"port = {ports[0]}", 1))
            command = [*serve_command(config), "--wait-s", "60"]
            second = subprocess.Popen(
                command, cwd=ROOT, env=environment({}), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            try:
                until(lambda: waited_for(tmp_path / "state" / "handover"), "a daemon that waits")
                first.signal(signal.SIGTERM)
                assert first.exit_status() == 0
                assert second.stdout is not None
                ready = json.loads(second.stdout.readline())
                assert (ready["port"], ready["grpc_port"]) == ports
                for port in ports:
                    assert subject(port, authority) == "third"
                assert over_socket(Path(ready["admin_socket"]), "/v1/status")[0] == 200
            finally:
                second.terminate()
                second.communicate(timeout=60)

    def past_the_listener(self) -> None:
        """A program of this host that finds gRPC's inner socket is no client for it."""
        lines = Path("/proc/net/unix").read_text().splitlines()
        names = {line.split("@", 1)[1] for line in lines if "@edgeburst-grpc-" in line}
        inner = sorted((name for name in names if name.count("-") == 3), key=len)
        assert inner, "the relay's socket"
        for name in inner:
            with grpc.insecure_channel(f"unix-abstract:{name}") as channel:
                call = channel.unary_unary("/inference.GRPCInferenceService/ServerMetadata")
                with pytest.raises(grpc.RpcError) as caught:
                    call(b"", timeout=30)
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED

    def with_openssl(self, port: int, authority: Authority, mine: Certified) -> None:
        openssl = shutil.which("openssl")
        if openssl is None:
            return
        command = [openssl, "s_client", "-connect", f"localhost:{port}", "-CAfile", str(authority.ca_file), "-brief"]
        shown = [*command, "-cert", str(mine.certificate), "-key", str(mine.key)]
        said = subprocess.run(shown, input="", capture_output=True, text=True, timeout=30, check=False)
        assert "Verification: OK" in said.stderr + said.stdout
        old = subprocess.run([*shown, "-tls1_1"], input="", capture_output=True, text=True, timeout=30, check=False)
        assert old.returncode != 0


def waited_for(path: Path) -> bool:
    """Whether a process is connected to a Unix socket, beside the one that listens on it."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return sum(line.endswith(str(path)) for line in lines) > 1


def subject(port: int, authority: Authority) -> str:
    """The common name of the certificate that a port shows."""
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    with (
        socket.create_connection(("localhost", port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as encrypted,
    ):
        shown = dict(pair[0] for pair in encrypted.getpeercert()["subject"])  # type: ignore[index,misc]
        return str(shown["commonName"])


@contextmanager
def guarded_edge(edge: Running, secret: str, context: ssl.SSLContext | None) -> Iterator[tuple[str, list[str]]]:
    """An edge server that wants a token, in front of one that wants none; with what it was sent in vain."""
    refused: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.passed_on()

        def do_POST(self) -> None:
            self.passed_on()

        def passed_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Authorization") != f"Bearer {secret}":
                refused.append(self.path)
                self.answer(401, {"Content-Type": "application/json"}, b'{"error": "send the token of this edge"}')
                return
            kept = {
                name: value for name, value in self.headers.items() if name.lower() not in ("host", "authorization")
            }
            got = requests.request(self.command, edge.url + self.path, data=body, headers=kept, **SLOW)
            names = ("Content-Type", "Inference-Header-Content-Length")
            self.answer(
                got.status_code, {name: got.headers[name] for name in names if name in got.headers}, got.content
            )

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"{'http' if context is None else 'https'}://localhost:{server.server_address[1]}", refused
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class TestEdge:
    SECRET = "secret-of-the-edge"

    def test_the_edge_gets_token_and_certificate_on_every_path(
        self, edge: Running, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server, mine = authority.server("edge"), authority.client("daemon")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.ca_file))
        context.load_cert_chain(server.certificate, server.key)
        context.verify_mode = ssl.CERT_REQUIRED
        keys = f'token_env = "EDGE_TOKEN"\nca_file = "{authority.ca_file}"\n'
        keys += f'client_certificate = "{mine.certificate}"\nclient_key = "{mine.key}"'
        with guarded_edge(edge, self.SECRET, context) as (url, refused):
            config = written(tmp_path, url, of_edge=keys)
            with daemon_process(config, environ={"EDGE_TOKEN": self.SECRET}) as running:
                until(lambda: classify(running).status_code == 200, "an answer of the edge")
                status = ask(running, "/v1/status").json()
                assert status["engine"]["edge_up"] is True
                assert status["edge"]["url"] == url
                assert self.SECRET not in json.dumps(status) + running.log
            assert refused == []
            monkeypatch.setenv("EDGE_TOKEN", self.SECRET)
            access = ["--ca-file", str(authority.ca_file), "--token-env", "EDGE_TOKEN"]
            access += ["--client-certificate", str(mine.certificate), "--client-key", str(mine.key)]
            command = ["profile", "edge", "--url", url, "--batches", "1,2", "--repetitions", "2", "--json"]
            assert cli.main([*command, *access]) == 0
            assert refused == []
            assert cli.main(command) == 2

    def test_an_edge_that_wants_a_token_which_is_missing_is_named(self, edge: Running, tmp_path: Path) -> None:
        with (
            guarded_edge(edge, self.SECRET, None) as (url, refused),
            daemon_process(written(tmp_path, url)) as running,
        ):
            until(lambda: "edge_check" in running.log, "a line about the edge")
            assert "answered 401: set `token_env` in [edge]" in running.log
            assert refused
