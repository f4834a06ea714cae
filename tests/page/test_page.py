"""The page at `/` in a real browser before a real daemon: it loads, follows, explains, and can be used by anyone."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import requests
from support import stub_fc
from support.browser import Tab, browser, tab
from support.daemon_process import daemon_process, stub_edge_process
from support.page_world import Child, PageWorld, page_world, traffic, write_config

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("page"), pytest.mark.timeout(400)]

READY = "document.getElementById('state').textContent === 'ready'"
BATCHES = "!document.getElementById('strip-told').textContent.startsWith('No batch')"
SECRET = b"correct-horse-battery"
ANSWERED = "/^[0-9]/.test(document.querySelector('#slo .big')?.textContent || '')"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageWorld]:
    """One with traffic, of which a few requests are late and some cost money."""
    folder = tmp_path_factory.mktemp("page")
    with page_world(folder, slo_s=0.6) as running, traffic(running.daemon.url, 25.0):
        yield running


@pytest.fixture
def page(chromium: Any, world: PageWorld) -> Iterator[Tab]:
    with tab(chromium, world.daemon.url) as opened:
        opened.until(READY)
        opened.until(ANSWERED, "an answer in the last minute")
        yield opened
        assert opened.said == [], "the console has errors"


def test_it_loads_and_follows_the_daemon(page: Tab) -> None:
    before = page.text("#requests")
    page.until(f"document.getElementById('requests').innerText !== {before!r}", "other counts")
    page.until(BATCHES, "batches in the strip")
    page.until("document.querySelectorAll('.uplot canvas').length === 6", "six charts")
    page.until("document.getElementById('load').innerText.includes('lab')", "tenants")
    assert "objective" in page.text("#slo").lower()


def test_charts_show_a_day_and_a_week_and_come_back(page: Tab) -> None:
    for name, step in (("24 h", "each point"), ("7 days", "each point"), ("15 min", "each point a second")):
        page.page.get_by_role("button", name=name).click()
        page.until(f"document.getElementById('charts-note').textContent.includes({step!r})")
        assert page.page.get_by_role("button", name=name).get_attribute("aria-pressed") == "true"


def test_a_filter_leaves_its_requests_only(page: Tab) -> None:
    page.page.get_by_label("Class", exact=True).select_option("archive")
    page.until("!document.getElementById('classes').innerText.includes('interactive')", "one class only")
    page.until("document.getElementById('charts-note').textContent.includes('Of class archive')")
    page.page.get_by_label("Place", exact=True).select_option("edge:main")
    page.until("document.getElementById('charts-note').textContent.includes('place edge')")


def test_a_batch_is_explained_by_keyboard_and_the_focus_comes_back(page: Tab) -> None:
    page.until(BATCHES)
    strip = page.page.locator("#strip canvas")
    strip.focus()
    page.page.keyboard.press("ArrowLeft")
    page.until("document.getElementById('strip-told').textContent.startsWith('Batch')")
    told = page.text("#strip-told")
    assert "longest wait" in told
    assert "left as" in told
    page.page.keyboard.press("Enter")
    page.until("document.querySelector('#explanation table.offers')", "offers side by side")
    body = page.text("#explanation-body")
    assert "Total" in body
    assert "chosen" in body
    assert "Why it left then" in body
    assert page.axe() == []
    page.page.keyboard.press("Escape")
    page.until("!document.getElementById('explanation').open")
    assert page.page.evaluate("document.activeElement.tagName") == "CANVAS"


def test_a_miss_or_refusal_is_explained(page: Tab, world: PageWorld) -> None:
    # A microsecond is too short for anyone: it is refused.
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": ["AAAA"]}
    body = {"inputs": [image], "parameters": {"timeout": 1, "class": "interactive"}}
    assert requests.post(f"{world.daemon.url}/v2/models/digits/infer", json=body, timeout=30).status_code != 200
    page.until("document.querySelector('#ends td button')", "a miss or a refusal")
    page.page.locator("#ends td button").first.click()
    page.until("document.querySelector('#explanation-body dl')", "its explanation")
    page.page.get_by_role("button", name="Close").click()
    page.until("!document.getElementById('explanation').open")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_it_can_be_read_and_used_by_anyone(chromium: Any, world: PageWorld, scheme: str, width: int) -> None:
    with tab(chromium, world.daemon.url, width=width, scheme=scheme) as opened:
        opened.until(READY)
        opened.until(ANSWERED)
        opened.until(BATCHES)
        assert opened.axe() == []
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        assert opened.said == []


def test_every_control_is_reached_by_the_tabulator_key(page: Tab) -> None:
    reached = set()
    focused = "(({ id, dataset, tagName }) => id || dataset.id || tagName)(document.activeElement)"
    for _ in range(60):
        page.page.keyboard.press("Tab")
        reached.add(page.page.evaluate(focused))
    assert {"filter-class", "filter-tenant", "filter-place", "span-0", "span-3", "CANVAS", "ends"} <= reached


def test_the_first_ten_seconds_and_a_minute_take_few_bytes(chromium: Any, world: PageWorld) -> None:
    with tab(chromium) as opened:
        files = []
        opened.page.on("response", lambda response: files.append(response.url) if "/v1/" not in response.url else None)
        opened.page.goto(world.daemon.url)
        opened.until("!!window.uPlot")
        opened.page.reload()
        opened.until(READY)
        # The second time the browser has the files: what comes is data.
        opened.received_bytes = 0
        opened.page.reload()
        opened.page.wait_for_timeout(10_000)
        first = opened.received_bytes
        opened.page.wait_for_timeout(50_000)
        print(f"first 10 s: {first} bytes, the minute: {opened.received_bytes} bytes")
        assert 1000 < first <= 60_000
        assert opened.received_bytes < 300_000


def test_it_survives_a_restart_and_goes_on_where_it_was(chromium: Any, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Child("functions") as functions, stub_edge_process("--alpha-s", "0.04") as edge, tab(chromium) as opened:
        config = write_config(tmp_path, edge=edge.url, functions=functions.said["port"], port=port)
        with daemon_process(config, environ=stub_fc.KEYS) as first:
            opened.page.goto(first.url)
            with traffic(first.url, 15.0):
                opened.until(ANSWERED)
                opened.until("document.getElementById('load').innerText.includes('lab')")
                opened.page.wait_for_timeout(3000)
            assert opened.said == []
            first.signal(signal.SIGTERM)
            assert first.exit_status() == 0
        opened.until("document.body.classList.contains('old')", "old values are grey")
        assert "No answer from the daemon since" in opened.text("#away")
        assert opened.axe() == []
        with daemon_process(config, environ=stub_fc.KEYS) as second:
            opened.until("!document.body.classList.contains('old')", "the daemon is back")
            opened.until(READY)
            opened.until("document.getElementById('load').innerText.includes('lab')", "the history goes on")
            with traffic(second.url, 15.0):
                opened.until(ANSWERED)
        # The browser itself says that it reaches nothing.
        assert [said for said in opened.said if "Failed to load resource" not in said and "ERR_" not in said] == []


def test_it_asks_for_a_token_and_keeps_it_nowhere(chromium: Any, tmp_path: Path) -> None:
    tokens = f"""
[[token]]
name = "reader"
sha256 = "{sha256(SECRET).hexdigest()}"
scopes = ["read"]
"""
    with stub_edge_process() as edge, Child("functions") as at:
        config = write_config(tmp_path, edge=edge.url, functions=at.said["port"])
        config.write_text(config.read_text() + tokens)
        with daemon_process(config, environ=stub_fc.KEYS) as daemon, tab(chromium, daemon.url) as opened:
            opened.until("!document.getElementById('access').hidden", "the form")
            assert "wants a token" in opened.text("#away")
            assert opened.axe() == []
            opened.page.get_by_label("Token").fill(SECRET.decode())
            opened.page.keyboard.press("Enter")
            opened.until(READY)
            kept = opened.page.evaluate(
                "JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])"
            )
            assert "correct" not in kept
            assert opened.page.evaluate("document.getElementById('token').value") == ""


ATTENTION = "document.getElementById('attention').innerText"


def test_an_infeasible_plan_and_a_missing_edge_are_said_with_what_mends_them(chromium: Any, tmp_path: Path) -> None:
    # An SLO that no place can keep.
    with (
        page_world(tmp_path, slo_s=0.045) as world,
        tab(chromium, world.daemon.url) as opened,
        traffic(world.daemon.url, 30.0),
    ):
        opened.until(f"{ATTENTION}.includes('Not feasible')", "an infeasible plan")
        assert "not feasible" in opened.text("#plan")
        assert opened.axe() == []
        world.edge.process.kill()
        opened.until(f"{ATTENTION}.includes('edge is not used since')", "the edge")
        assert "not used since" in opened.text("#places")


def test_an_edge_that_other_daemons_use_too_says_since_when_and_how_long_batches_wait(
    chromium: Any, tmp_path: Path
) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    with page_world(tmp_path) as world, tab(chromium, world.daemon.url) as opened:
        assert "other daemons" not in opened.text("#places")
        requests.post(f"{world.edge.url}/control", json={"says_waits": True}, timeout=10)
        config = write_config(beside, edge=world.edge.url, functions=world.functions.said["port"])
        with (
            daemon_process(config, environ=stub_fc.KEYS) as other,
            traffic(other.url, 30.0),
            traffic(world.daemon.url, 30.0),
        ):
            words = r"shared since \d\d:\d\d:\d\d digits: [\d.]+ ms observed, ([\d.]+ ms|not) counted with"
            opened.until(f"/{words}/.test(document.getElementById('places').innerText)", "the wait for others")
            status = requests.get(f"{world.daemon.url}/v1/status", timeout=10).json()
            (shared,) = status["engine"]["shared_edges"]
            assert (shared["edge"], shared["model"]) == ("main", "digits")
            assert 0 < shared["observed_s"] < 1
            metrics = requests.get(f"{world.daemon.url}/metrics", timeout=10).text
            assert 'edgeburst_edge_shared{edge="main",model="digits"}' in metrics
            canvas, told = opened.page.locator("#strip canvas"), "document.getElementById('strip-told').textContent"
            body = "document.getElementById('explanation-body').innerText"
            canvas.focus()
            for _ in range(20):
                opened.page.keyboard.press("ArrowLeft")
                if re.search(r"Batch .* edge", str(opened.page.evaluate(told))):
                    break
            opened.page.keyboard.press("Enter")
            opened.until(f"{body}.includes('Wait behind other daemons, expected and measured')", "its part")
            assert opened.axe() == []
            assert opened.said == []


SHADOW = "document.getElementById('shadow').innerText"


def test_a_shadow_is_shown_beside_the_live_figures(chromium: Any, tmp_path: Path) -> None:
    with (
        page_world(tmp_path, slo_s=1.0, shadow_slo_s=3.0) as world,
        tab(chromium, world.daemon.url, width=390) as opened,
    ):
        opened.until(f"{SHADOW}.includes('has learned from 16 batches')", "what it waits for")
        with traffic(world.daemon.url, 25.0):
            opened.until(f"{SHADOW}.includes('shadow (what-if.toml)')", "both sides")
            opened.until(
                f"/shadow \\(what-if.toml\\)\\s+[\\d.e-]+ CNY\\s+[\\d.]+ %\\s+\\d/.test({SHADOW})", "its figures"
            )
            told = opened.text("#shadow")
            assert re.search(r"live\s+[\d.e-]+ CNY\s+[\d.]+ %\s+\d", told)
            for head in ("Money", "Within SLO", "p99", "edge", "Refused"):
                assert head in told
            assert "sends nothing and spends nothing" in told
            assert opened.axe() == []
            assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390
            assert opened.said == []


def test_without_a_shadow_there_is_no_row_of_it(page: Tab) -> None:
    assert page.page.evaluate("document.getElementById('shadow-section').hidden")


def test_a_reached_cap_is_said(chromium: Any, tmp_path: Path) -> None:
    # Less money than any batch costs.
    with (
        page_world(tmp_path, spend="per_hour = 0.000001", tenants="") as world,
        tab(chromium, world.daemon.url) as opened,
        traffic(world.daemon.url, 10.0),
    ):
        opened.until(f"{ATTENTION}.includes('The cap of an hour is reached')", "the cap")
        opened.until("document.getElementById('money').innerText.includes('The cap of an hour is reached')")
        assert opened.axe() == []
