"""What the platform takes in one call holds on the wire: the daemon's calls stay below it, whatever clients send."""

import asyncio
import json
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import requests
import tritonclient.http as triton
from support import stub_fc
from support.client_threads import client_threads
from support.daemon_process import daemon_process
from support.stub_fc import Heard, Say

from scheduler.planner.catalogue.prices import SHIPPED

pytestmark = pytest.mark.xdist_group("serve")

LIMIT = 300_000
CONFIG = """
[daemon]
port = 0
[function]
endpoint = "127.0.0.1:{port}"
protocol = "http"
access_key_id_env = "TEST_KEY_ID"
access_key_secret_env = "TEST_KEY_SECRET"
price_sheet = "small-calls.json"
[[model]]
name = "digits"
[[model.class]]
slo_s = 2.0
late = "serve"
[[model.tier]]
name = "1gb"
function = "digits"
profile = "fc-resnet50-1gb"
memory_gb = 1.0
"""


def platform(heard: Heard) -> Say:
    if heard.method == "GET" or not heard.body.startswith(b"EBF1"):
        # Probes of the link are not frames.
        return Say(200, b"{}", {"Content-Type": "application/json"})
    if len(heard.body) > LIMIT:
        return stub_fc.error(400, "EntityTooLarge")
    return stub_fc.answer_frame(heard, cold_start=False)


def test_calls_stay_below_the_limit_and_a_larger_request_hears_why(tmp_path: Path) -> None:
    sheet = json.loads((SHIPPED / "cny-gbs-2023.json").read_text())
    (tmp_path / "small-calls.json").write_text(json.dumps({**sheet, "request_limit_bytes": LIMIT}))
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    stub, server, port = asyncio.run_coroutine_threadsafe(stub_fc.start(platform), loop).result(30)
    config = tmp_path / "edgeburst.toml"
    config.write_text(CONFIG.format(port=port))
    try:
        with daemon_process(config, environ=stub_fc.KEYS) as daemon:
            address = daemon.url.removeprefix("http://")

            def infer(body_bytes: int) -> None:
                client = triton.InferenceServerClient(address, network_timeout=60.0, connection_timeout=60.0)
                tensor = triton.InferInput("image", [1], "BYTES")
                tensor.set_data_from_numpy(np.array([bytes(body_bytes)], dtype=object))
                try:
                    client.infer("digits", [tensor])
                finally:
                    client.close()

            with client_threads(8) as threads:
                for sent in [threads.submit(infer, 100_000) for _ in range(8)]:
                    sent.result()
            with pytest.raises(triton.InferenceServerException, match=r"at most \d+ bytes of inputs in one call"):
                infer(LIMIT)
            batches = requests.get(f"{daemon.url}/v1/batches", timeout=30).json()["batches"]
        bodies = [len(heard.body) for heard in stub.heard if heard.body.startswith(b"EBF1")]
        assert max(bodies) <= LIMIT
        assert all(not batch["error"] for batch in batches)
        assert sum(batch["requests"] for batch in batches) == 8
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
