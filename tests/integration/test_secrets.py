"""No secret leaves the daemon: planted ones are in no answer, log, metric, file, traceback or `repr`."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest
import requests
from support.certificates import Authority
from support.daemon_process import ROOT, daemon_process, environment, stub_edge_process, until
from support.fake_runner import FakeRunner
from support.ingress_server import IngressServer

from scheduler.client_access import client_access
from scheduler.daemon.assembly import make_backend, places
from scheduler.daemon.config.config import load_config
from scheduler.daemon.ingress.access import Access, tokens_of

pytestmark = pytest.mark.xdist_group("serve")

ID, KEY, STS = "STS.PLANTEDid4711", "PLANTEDaccessKeySecret0815", "PLANTEDsecurityToken2342"
EDGE, ADMIN, CLIENT, WRONG = "PLANTED-edge-1", "PLANTED-admin-2", "PLANTED-client-3", "PLANTED-wrong-4"
MARK = b"PLANTED"
ENVIRON = {"AK_ID": ID, "AK_SECRET": KEY, "AK_STS": STS, "EDGE_TOKEN": EDGE, "OPERATOR": ADMIN}

CONFIG = """
[daemon]
port = 0
state = "state"
admin_token_env = "OPERATOR"
certificate_file = "server.pem"
key_file = "server.key"
[grpc]
port = 0
[[token]]
name = "client"
sha256 = "{hashed}"
scopes = ["infer", "read"]
[explain]
file = "explain.jsonl"
[edge]
url = "{edge}"
token_env = "EDGE_TOKEN"
[function]
endpoint = "127.0.0.1:{function}"
protocol = "http"
access_key_id_env = "AK_ID"
access_key_secret_env = "AK_SECRET"
security_token_env = "AK_STS"
[[model]]
name = "digits"
edge_profile = "orin-resnet50"
[[model.class]]
slo_s = 5.0
[[model.tier]]
name = "1gb"
function = "digits"
profile = "fc-resnet50-1gb"
memory_gb = 1.0
"""


@contextmanager
def refusing_platform() -> Iterator[int]:
    """An endpoint that refuses every call and repeats the whole request, as a careless server does."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            said = {
                "Code": "InvalidAccessKeyId.NotFound",
                "Message": "Specified access key is not found",
                "RequestId": "1",
            }
            body = json.dumps(said).encode()
            self.send_response(403)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815 - named by the standard library

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def written(folder: Path, edge_url: str, function: int) -> Path:
    server = Authority(folder).server()
    server.key.write_bytes(b"# PLANTED beside the key\n" + server.key.read_bytes())
    path = folder / "edgeburst.toml"
    hashed = sha256(CLIENT.encode()).hexdigest()
    path.write_text(CONFIG.format(hashed=hashed, edge=edge_url, function=function))
    return path


def leaks(where: dict[str, bytes]) -> list[str]:
    return [name for name, content in where.items() if MARK in content]


def test_planted_secrets_are_nowhere(tmp_path: Path) -> None:
    with stub_edge_process() as edge, refusing_platform() as function:
        config = written(tmp_path, edge.url, function)
        verify = str(tmp_path / "ca.pem")
        found: dict[str, bytes] = {}
        with daemon_process(config, environ=ENVIRON, options=("--log-level", "debug")) as daemon:
            url = f"https://localhost:{daemon.port}"

            def ask(path: str, authorization: str, method: str = "GET", **more: object) -> requests.Response:
                headers = {"Authorization": authorization, **more.pop("headers", {})}  # type: ignore[dict-item]
                answer = requests.request(method, url + path, headers=headers, verify=verify, timeout=60, **more)  # type: ignore[arg-type]
                name = f"{method} {path} with {authorization[:9]}"
                found[name] = answer.content + repr(sorted(answer.headers.items())).encode()
                return answer

            client, picture = f"Bearer {CLIENT}", {"data": b"x" * 99, "headers": {"Content-Type": "image/png"}}
            number = ask("/v1/classify/digits", client, "POST", **picture).headers["X-Edgeburst-Request-Id"]
            for authorization in (f"Bearer {WRONG}", f"Bearer {WRONG} \t", f"Basic {WRONG}", f"bearer {WRONG} {WRONG}"):
                for path in ("/v2/models/digits", "/v1/status", f"/{WRONG[:4]}"):
                    assert ask(path, authorization).status_code == 401
            for path in (
                "/v1/status",
                "/v1/batches",
                "/metrics",
                "/",
                f"/v1/explain/{number}",
                "/v2",
                "/v2/models/cats",
            ):
                ask(path, client)
            ask("/v1/models/digits/limits", f"Bearer {ADMIN}", "PUT", data=b'{"window_s": 0}')
            ask("/v1/models/digits/limits", client, "PUT", data=b"{}")
            roots = (tmp_path / "ca.pem").read_bytes()
            with grpc.secure_channel(
                f"localhost:{daemon.ready['grpc_port']}", grpc.ssl_channel_credentials(roots)
            ) as channel:
                call = channel.unary_unary("/inference.GRPCInferenceService/ServerMetadata")
                assert call(b"", metadata=(("authorization", client),), timeout=60)
                with pytest.raises(grpc.RpcError) as refused:
                    call(b"", metadata=(("authorization", f"Bearer {WRONG}"),), timeout=60)
                found["gRPC"] = str(refused.value).encode()
            until(lambda: "function_check" in daemon.log, "a line about the refused access key")
            # Secrets in the wrong places of a file are refused without being shown.
            for key, wrong in (("access_key_id_env", ID), ("sha256", CLIENT), ("token_env", EDGE)):
                line = next(line for line in config.read_text().splitlines() if line.startswith(f"{key} ="))
                before = config.read_text()
                config.write_text(before.replace(line, f'{key} = "{wrong}"'))
                count = daemon.log.count("reload_refused")
                daemon.signal(signal.SIGHUP)
                until(lambda count=count: daemon.log.count("reload_refused") > count, f"a refused {key}")  # type: ignore[misc]
                config.write_text(before)
            until(lambda: (tmp_path / "explain.jsonl").exists(), "the file of explanations")
        found |= {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".log", ".jsonl")}
        found |= {path.name: path.read_bytes() for path in (tmp_path / "state").iterdir() if path.is_file()}
        for options in ([], ["--json"]):
            command = [sys.executable, "-m", "scheduler.cli", "check-config", "--config", str(config), *options]
            said = subprocess.run(
                command, cwd=ROOT, env=environment(ENVIRON), capture_output=True, timeout=60, check=False
            )
            found[f"check-config {options}"] = said.stdout + said.stderr
        assert len(found) > 25
        assert leaks(found) == []


def test_no_repr_shows_one(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "http://127.0.0.1:1", 1), ENVIRON)
    where = places(config, ENVIRON)
    tokens, access = tokens_of(config, ENVIRON), Access(lambda: 0.0)
    access.configure(tokens, is_open=False)
    shown = [
        config,
        where,
        where.account,
        where.edges["main"].access,
        tokens,
        access,
        access.caller([f"Bearer {CLIENT}"], peer=""),
    ]
    shown += [make_backend(place, where, lambda: 0.0) for place in where.all()]
    shown += [client_access(token=EDGE), config.model_dump(), vars(access)]
    assert len(tokens) == 2
    assert leaks({f"{index} {type(each).__name__}": repr(each).encode() for index, each in enumerate(shown)}) == []
    hashed = sha256(CLIENT.encode()).hexdigest().encode()
    assert [each for each in shown[:-2] if hashed in repr(each).encode()] == []


@pytest.mark.provokes_fault
def test_a_traceback_shows_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runner = FakeRunner()
    runner.broken = True
    config = load_config(written(tmp_path, "http://127.0.0.1:1", 1), ENVIRON)
    with caplog.at_level(logging.DEBUG), IngressServer(runner.parts(), config, ENVIRON) as server:
        headers = {"Authorization": f"Bearer {CLIENT}", "Content-Type": "image/png"}
        answer = requests.post(f"{server.url}/v1/classify/digits", data=b"x" * 9, headers=headers, timeout=20)
        assert answer.status_code == 500
    assert "a bug, on purpose" in caplog.text
    assert leaks({"answer": answer.content, "log": caplog.text.encode()}) == []
