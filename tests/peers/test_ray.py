"""A real Ray Serve with two replicas: the service of our own server, and behind a daemon no request lost."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gzip
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml
from support.daemon_process import LIMIT_S, daemon_process
from support.edge_process import ROOT, running

from edge_server.replica import settings_of
from scheduler import wire
from scripts.bench_ray import CONFIG, digits, law, poisson, replica_options, sent
from scripts.support.ray_service import RayService, processes_of, ray_service

PYTHON = os.environ.get("EDGEBURST_RAY")
pytestmark = [
    pytest.mark.xdist_group("ray"),
    pytest.mark.timeout(400),  # Ray starts more than ten processes
    pytest.mark.skipif(PYTHON is None, reason="EDGEBURST_RAY names no environment with Ray; use make test-peers"),
]
BODY_LIMIT_BYTES = 100_000
BACK_S = 120.0
"""For a new replica in place of one that was killed."""
INFER = "/v2/models/digits/infer"
TOKEN = "a-token-of-more-than-sixteen"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> str:
    profile = law(tmp_path_factory.mktemp("law"))
    return f"{replica_options(profile)} --token-env EDGE_TOKEN --body-limit-bytes {BODY_LIMIT_BYTES}"


@pytest.fixture(scope="module")
def service(options: str) -> Iterator[RayService]:
    assert PYTHON is not None
    with ray_service(Path(PYTHON), options, replicas=2, token=TOKEN) as started:
        yield started
        written = sorted(str(path.relative_to(started.home)) for path in started.home.rglob("*"))
    assert written == []
    assert processes_of(started.folder) == {}
    assert not started.folder.exists()


@pytest.fixture(scope="module")
def own(options: str) -> Iterator[str]:
    with running(*options.split(), environ={"EDGE_TOKEN": TOKEN}) as edge:
        yield edge.url
        assert edge.stop() == 0


def of_items(*items: str) -> dict[str, Any]:
    return {"json": {"inputs": [{"name": "image", "shape": [len(items)], "datatype": "BYTES", "data": items}]}}


def binary(**headers: str) -> dict[str, Any]:
    [digit] = digits(1)
    return {"data": gzip.compress(digit.body) if headers else digit.body, "headers": {**digit.headers, **headers}}


def no_token(request: requests.PreparedRequest) -> requests.PreparedRequest:
    del request.headers["Authorization"]
    return request


def other_token(request: requests.PreparedRequest) -> requests.PreparedRequest:
    request.headers["Authorization"] = "Bearer another-token"
    return request


CALLS: Mapping[str, Callable[[], tuple[str, str, dict[str, Any]]]] = {
    "server": lambda: ("GET", "/v2", {}),
    "live": lambda: ("GET", "/v2/health/live", {}),
    "ready": lambda: ("GET", "/v2/health/ready", {}),
    "model": lambda: ("GET", "/v2/models/digits", {}),
    "model of a version": lambda: ("GET", "/v2/models/digits/versions/1", {}),
    "model ready": lambda: ("GET", "/v2/models/digits/ready", {}),
    "description": lambda: ("GET", "/openapi.json", {}),
    "binary": lambda: ("POST", INFER, binary()),
    "gzip": lambda: ("POST", INFER, binary(**{"Content-Encoding": "gzip"})),
    "a broken item": lambda: ("POST", INFER, of_items("bm8gcGljdHVyZQ==")),
    "no model": lambda: ("GET", "/v2/models/other", {}),
    "no version": lambda: ("POST", "/v2/models/digits/versions/2/infer", of_items("AAAA")),
    "no path": lambda: ("GET", "/a%20b?c=d", {}),
    "no method": lambda: ("DELETE", "/v2", {}),
    "no JSON": lambda: ("POST", INFER, {"data": b"{"}),
    "no input": lambda: ("POST", INFER, {"json": {"inputs": []}}),
    "not base64": lambda: ("POST", INFER, of_items("?")),
    "not gzip": lambda: ("POST", INFER, {"data": b"{}", "headers": {"Content-Encoding": "gzip"}}),
    "packed otherwise": lambda: ("POST", INFER, {"data": b"{}", "headers": {"Content-Encoding": "br"}}),
    "too many items": lambda: ("POST", INFER, of_items(*["AAAA"] * 65)),
    "too long": lambda: ("POST", INFER, {"data": b"x" * (2 * BODY_LIMIT_BYTES)}),
    "too long in chunks": lambda: ("POST", INFER, {"data": iter([b"x" * 60_000] * 3)}),
    "no token": lambda: ("GET", "/v2", {"auth": no_token}),
    "no token, but live": lambda: ("GET", "/v2/health/live", {"auth": no_token}),
    "another token": lambda: ("POST", INFER, {**binary(), "auth": other_token}),
}
OF_SERVERS = ("Content-Type", "Retry-After", "WWW-Authenticate", "Accept-Encoding", wire.JSON_LENGTH_HEADER)


def told(url: str, call: str) -> tuple[int, dict[str, str], Any]:
    """Status, headers and content, without the times of a batch."""
    method, path, content = CALLS[call]()
    with requests.Session() as session:
        session.trust_env = False
        session.headers.update(BEARER)
        response = session.request(method, url + path, timeout=60, **content)
    headers = {name: response.headers[name] for name in OF_SERVERS if name in response.headers}
    if method == "POST" and response.status_code == 200:
        json_length = wire.json_length_of(headers)
        headers.pop(wire.JSON_LENGTH_HEADER, None)  # that of the times
        answer = wire.parse_response(response.content, json_length)
        parameters = {name: value for name, value in answer.parameters.items() if not name.endswith("_s")}
        outputs = {
            tensor.name: tensor.elements() if tensor.datatype == "BYTES" else tensor.to_numpy().tolist()
            for tensor in answer.outputs
        }
        return response.status_code, headers, (answer.model_name, answer.model_version, parameters, outputs)
    return response.status_code, headers, response.json()


@pytest.mark.parametrize("call", CALLS)
def test_it_answers_as_our_own_server(service: RayService, own: str, call: str) -> None:
    ours, rays = told(own, call), told(service.url, call)
    if call.startswith("model") and call != "model ready":
        assert (ours[2]["parameters"].pop("parallel"), rays[2]["parameters"].pop("parallel")) == (1, 2)
    if call == "server":
        # Their environments are two.
        assert {"python", "numpy"} <= ours[2].pop("environment").keys() & rays[2].pop("environment").keys()
    assert rays == ours


def test_head_sends_the_length_alone(service: RayService) -> None:
    url = f"{service.url}/v2/health/live"
    whole = requests.get(url, timeout=60).content
    assert requests.head(url, timeout=60).headers["Content-Length"] == str(len(whole))


def test_its_metrics_are_those_of_a_replica(service: RayService) -> None:
    text = requests.get(f"{service.url}/metrics", headers=BEARER, timeout=60).text
    assert "edgeburst_edge_ready 1.0" in text
    assert 'edgeburst_edge_model_info{device="cpu"' in text


def test_ray_reads_the_shipped_configuration_and_that_with_autoscaling(tmp_path: Path) -> None:
    shipped = yaml.safe_load((ROOT / "edge_server" / "serve.yaml").read_text(encoding="utf-8"))
    text = (ROOT / "edge_server" / "serve.yaml").read_text(encoding="utf-8")
    [comment] = re.findall(r"# +(autoscaling_config: .+)", text)
    scaled = copy.deepcopy(shipped)
    [deployment] = scaled["applications"][0]["deployments"]
    del deployment["num_replicas"]
    deployment.update(yaml.safe_load(comment))
    read = "import json, sys; from ray.serve.schema import ServeDeploySchema; ServeDeploySchema(**json.load(sys.stdin))"
    environ = {**os.environ, "HOME": str(tmp_path)}
    for content in (shipped, scaled):
        command = [str(PYTHON), "-c", read]
        subprocess.run(command, input=json.dumps(content), text=True, env=environ, check=True, timeout=120)
    assert settings_of(shipped["applications"][0]["args"]["options"]).token_env == "EDGE_TOKEN"
    assert list(tmp_path.iterdir()) == []


def busy(service: RayService) -> int:
    """Waits until a replica begins a batch; returns its process."""
    urls = {number: url_of(number) for number in service.replicas()}
    before = {number: True for number in urls}
    give_up_s = time.monotonic() + LIMIT_S
    while time.monotonic() < give_up_s:
        for number, url in urls.items():
            found = re.search(
                r"^edgeburst_edge_batches_in_hand (.+)$", requests.get(url, headers=BEARER, timeout=60).text, re.M
            )
            assert found is not None
            has_one = float(found[1]) > 0
            if has_one and not before[number]:
                return number
            before[number] = has_one
    raise AssertionError("no replica gets a batch")


def url_of(replica: int) -> str:
    """Where a replica says how it is, before HAProxy."""
    for connection in psutil.Process(replica).net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.ip == "127.0.0.1":
            url = f"http://127.0.0.1:{connection.laddr.port}/metrics"
            with contextlib.suppress(requests.RequestException):
                if "edgeburst_edge_ready" in requests.get(url, headers=BEARER, timeout=5).text:
                    return url
    raise AssertionError(f"replica {replica} has no address")


class Killer(threading.Thread):
    """Kills a replica in the middle of a batch, and sees how many there are until there is another one."""

    def __init__(self, service: RayService) -> None:
        super().__init__()
        self.service = service
        self.killed = 0
        self.seen: list[int] = []

    def run(self) -> None:
        time.sleep(3.0)
        self.killed = busy(self.service)
        time.sleep(0.1)  # a batch of one takes 0.25 s
        os.kill(self.killed, signal.SIGKILL)
        give_up_s = time.monotonic() + BACK_S
        while self.seen[-2:] != [1, 2] and time.monotonic() < give_up_s:
            count = self.service.parallel()
            if count and count != (self.seen or [2])[-1]:
                self.seen.append(count)
            time.sleep(0.2)


def test_a_replica_is_killed_under_load_and_no_request_is_lost(service: RayService, tmp_path: Path) -> None:
    config = tmp_path / "edgeburst.toml"
    edge = 'token_env = "EDGE_TOKEN"\nparallel = 2'
    config.write_text(CONFIG.format(url=service.url, edge=edge, profile=law(tmp_path), slo_s=20.0))
    killer = Killer(service)
    with daemon_process(config, environ={"EDGE_TOKEN": TOKEN}) as daemon:
        killer.start()
        outcomes = asyncio.run(sent(daemon.url, poisson(10.0, 12.0, seed=3)))
        killer.join()
    assert [outcome for outcome in outcomes if outcome.error or not outcome.right] == []
    assert len(outcomes) > 80
    assert killer.seen == [1, 2]
    replicas = service.replicas()
    assert len(replicas) == 2
    assert killer.killed not in replicas
