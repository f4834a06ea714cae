"""The page before 10,000 requests a minute: it stays small on the wire, in the browser and in the daemon.

Two minutes by `make test-slow`, thirty by `make soak-page` (EDGEBURST_PAGE_MINUTES).
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
from support.browser import browser, tab
from support.page_world import page_world, traffic

MINUTES = float(os.environ.get("EDGEBURST_PAGE_MINUTES", "2"))
A_MINUTE = 10_000

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("page"), pytest.mark.timeout(60 * MINUTES + 300)]

WORKED = "performance.memory.usedJSHeapSize"
NODES = "document.querySelectorAll('*').length"


def test_an_hour_before_it_costs_no_more_than_a_minute(tmp_path: Path) -> None:
    with browser() as running, page_world(tmp_path, alpha_s=0.02, beta_s=0.003) as world:
        daemon = psutil.Process(world.daemon.process.pid)
        with traffic(world.daemon.url, A_MINUTE / 60) as senders, tab(running, world.daemon.url) as opened:
            opened.until("document.getElementById('state').textContent === 'ready'")
            rows = []
            for _ in range(max(2, round(2 * MINUTES))):
                opened.received_bytes = 0
                opened.page.wait_for_timeout(30_000)
                opened.session.send("HeapProfiler.collectGarbage")
                rows.append(
                    (
                        2 * opened.received_bytes,
                        opened.page.evaluate(WORKED) / 1e6,
                        opened.page.evaluate(NODES),
                        daemon.memory_info().rss / 1e6,
                    )
                )
                received, heap, nodes, memory = rows[-1]
                print(
                    f"{received} bytes a minute, heap {heap:.1f} MB, {nodes} elements, daemon {memory:.0f} MB",
                    flush=True,
                )
            now = opened.page.evaluate("document.getElementById('requests').innerText")
            assert opened.said == []
        sent = senders.last["sent"]
        share = sent / (MINUTES * A_MINUTE)
        print(f"{senders.last['sent']} requests sent, {share:.0%} of those asked for; {now!r}")
        assert share > 0.5, "the machine is too slow for this traffic"
        assert max(row[0] for row in rows[1:]) < 300_000
        middle, last = rows[len(rows) // 2], rows[-1]
        # A quarter of an hour of seconds is kept: until then the heap may fill up.
        assert last[1] < max(30.0, 1.3 * middle[1])
        assert last[2] < max(3000, 1.5 * middle[2])
