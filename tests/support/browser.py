"""Headless Chromium, as Debian packages it, before a page: what it loads, says and how many bytes that takes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
LIMIT_MS = 60_000
"""For whatever a page is waited for."""


@dataclass
class Tab:
    """An open page with what was heard of it."""

    page: Any
    session: Any
    said: list[str] = field(default_factory=list)
    """Of its console: warnings, errors, exceptions, and what the rules of its content forbade."""
    received_bytes: int = 0
    """On the wire, since it was opened or this was set."""

    def text(self, selector: str) -> str:
        """Returns the text of an element."""
        return str(self.page.locator(selector).inner_text())

    def until(self, expression: str, what: str = "") -> None:
        """Waits until an expression of JavaScript is true."""
        give_up_s = time.monotonic() + LIMIT_MS / 1000
        # Not Playwright's own waiting: it makes functions of texts in the page, which the page's rules forbid.
        while not self.page.evaluate(expression):
            if time.monotonic() > give_up_s:
                raise AssertionError(f"this never came: {what or expression}")
            self.page.wait_for_timeout(100)

    def axe(self) -> list[str]:
        """Returns what axe finds that is serious or critical, one line each."""
        script = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
        self.page.evaluate(script)
        found = self.page.evaluate("axe.run()")["violations"]
        return [
            f"{each['id']}: {node['target']} {node.get('failureSummary', '')}"
            for each in found
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"]
        ]


@contextmanager
def browser() -> Iterator[Any]:
    """Starts Chromium; skips where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = os.environ.get("EDGEBURST_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("there is no Chromium: apt-get install chromium, or name one in EDGEBURST_CHROMIUM")
    with api.sync_playwright() as started:
        # The tests may run as root, in a container.
        running = started.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield running
        finally:
            running.close()


@contextmanager
def tab(running: Any, url: str = "", *, width: int = 1440, height: int = 900, scheme: str = "light") -> Iterator[Tab]:
    """Opens a tab at a URL, if one is given; its bytes are counted from the start."""
    context = running.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(LIMIT_MS)
    session = context.new_cdp_session(page)
    opened = Tab(page, session)
    page.on("console", lambda said: opened.said.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: opened.said.append(str(error)))

    def received(event: dict[str, Any]) -> None:
        opened.received_bytes += event["encodedDataLength"]

    session.on("Network.dataReceived", received)
    session.send("Network.enable")
    try:
        if url:
            page.goto(url)
        yield opened
    finally:
        context.close()
