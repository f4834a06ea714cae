"""Scripts of other pages may ask the daemon where `cors_origins` allows it, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from support.fake_runner import FakeRunner
from support.ingress_server import IngressServer

from scheduler.daemon.config.config import load_config
from scheduler.domain.errors import ConfigError

CONFIG = """
[daemon]
cors_origins = {origins}
[edge]
[[model]]
name = "digits"
edge_profile = "orin-resnet50"
"""
PAGE, OTHER = "https://shop.example:8443", "https://evil.example"
BODY = '{"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["eA=="]}]}'


@contextmanager
def serving(folder: Path, origins: str) -> Iterator[str]:
    path = folder / "edgeburst.toml"
    path.write_text(CONFIG.format(origins=origins))
    with IngressServer(FakeRunner().parts(), load_config(path, {}), {}) as server:
        yield server.url


def preflight(url: str, origin: str, method: str = "POST") -> requests.Response:
    asks = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "content-type, x-request-id"}
    return requests.options(f"{url}/v2/models/digits/infer", headers={"Origin": origin, **asks}, timeout=10)


def granted(response: requests.Response) -> dict[str, str]:
    """The headers that a browser looks at."""
    return {name: value for name, value in response.headers.items() if name.startswith("Access-Control-Allow")}


def test_an_allowed_page_is_told_so_before_it_asks_and_with_each_answer(tmp_path: Path) -> None:
    with serving(tmp_path, f'["http://localhost:3000", "{PAGE}"]') as url:
        first = preflight(url, PAGE)
        assert first.status_code == 204
        assert granted(first) == {
            "Access-Control-Allow-Origin": PAGE,
            "Access-Control-Allow-Methods": "GET, POST",
            "Access-Control-Allow-Headers": "content-type, x-request-id",
        }
        answers = [
            requests.post(f"{url}/v2/models/digits/infer", data=BODY, headers={"Origin": PAGE}, timeout=10),
            requests.get(f"{url}/v2/models/cats", headers={"Origin": PAGE}, timeout=10),
            requests.get(f"{url}/nothing", headers={"Origin": PAGE}, timeout=10),
        ]
        assert [answer.status_code for answer in answers] == [200, 404, 404]
        for answer in answers:
            assert granted(answer) == {"Access-Control-Allow-Origin": PAGE}
            assert "Inference-Header-Content-Length" in answer.headers["Access-Control-Expose-Headers"]
            assert "Origin" in answer.headers["Vary"]


def test_other_pages_are_told_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, f'["{PAGE}"]') as url:
        refused = preflight(url, OTHER)
        answer = requests.get(f"{url}/v2", headers={"Origin": OTHER}, timeout=10)
        for response in (refused, answer):
            assert response.status_code == 403
            assert response.json()["error"].startswith("scripts of other pages may not ask this daemon")
        for response in (refused, answer, requests.get(f"{url}/v2", timeout=10)):
            assert granted(response) == {}
            assert "Origin" in response.headers["Vary"], "a cache must not give it to an allowed page"


def test_a_star_allows_every_page(tmp_path: Path) -> None:
    with serving(tmp_path, '["*"]') as url:
        assert granted(preflight(url, OTHER))["Access-Control-Allow-Origin"] == "*"
        answer = requests.get(f"{url}/v2", headers={"Origin": OTHER}, timeout=10)
        assert granted(answer) == {"Access-Control-Allow-Origin": "*"}
        assert granted(requests.get(f"{url}/v2", timeout=10)) == {}


def test_no_page_may_change_limits(tmp_path: Path) -> None:
    with serving(tmp_path, '["*"]') as url:
        assert "PUT" not in granted(preflight(url, OTHER, "PUT"))["Access-Control-Allow-Methods"]


def test_without_the_key_only_the_daemon_s_own_page_may_ask(tmp_path: Path) -> None:
    with serving(tmp_path, "[]") as url:
        assert preflight(url, PAGE).status_code == 403
        for origin, status in ((PAGE, 403), ("null", 403), ("http://localhost:3000", 403), (url, 200)):
            answer = requests.post(f"{url}/v2/models/digits/infer", data=BODY, headers={"Origin": origin}, timeout=10)
            assert answer.status_code == status
            assert granted(answer) == {}
            assert "Vary" not in answer.headers


@pytest.mark.parametrize("origin", ["shop.example", "https://shop.example/", "https://a, https://b", ""])
def test_what_is_no_origin_is_refused_with_its_line(tmp_path: Path, origin: str) -> None:
    with pytest.raises(ConfigError, match=r"edgeburst\.toml:3: .*cors_origins"), serving(tmp_path, f'["{origin}"]'):
        pass
