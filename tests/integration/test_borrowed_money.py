"""Two daemons, one edge server, one cap: real processes that are killed and started again."""

from __future__ import annotations

import json
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from support import local_fc_process, operators
from support.daemon_process import Running, daemon_process, stub_edge_process, until
from support.local_fc_process import KEY, SECRET, LocalFc

from scheduler.daemon.state.lending import SILENT_S
from scripts.support.stub_function import endpoint_config

pytestmark = [pytest.mark.xdist_group("serve"), pytest.mark.slow]

CAP = 1.5e-3
SHEET = "cny-gbs-2023"
TOKEN = "a token of the borrower"
SENDERS = 12
DAEMON = """
[daemon]
port = {port}
open = true
{daemon}
[edge]
url = "{edge}"
[function]
endpoint = "{endpoint}"
protocol = "http"
access_key_id_env = "KEY_ID"
access_key_secret_env = "KEY_SECRET"
[spend]
{spend}
[[model]]
name = "digits"
[[model.class]]
slo_s = 5.0
[[model.tier]]
name = "1gb"
function = "digits"
profile = "fc-resnet50-1gb"
memory_gb = 1.0
[[model]]
name = "onedge"
edge_profile = "orin-resnet50"
[[model.class]]
slo_s = 5.0
[[model.inputs]]
name = "image"
datatype = "BYTES"
shape = [1]
[[model.outputs]]
name = "probabilities"
datatype = "FP32"
shape = [10]
"""
ON_EDGE = json.dumps({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1, 1], "data": ["x"]}]}).encode()
REACHED = "the spend cap per hour is reached"
LENDS = f"""
[[token]]
name = "borrower"
sha256 = "{sha256(TOKEN.encode()).hexdigest()}"
scopes = ["spend"]
"""
ENVIRON = {"KEY_ID": KEY, "KEY_SECRET": SECRET, "LENDERS_TOKEN": TOKEN, **operators.ENVIRON}


def asked(url: str, body: bytes | None = None) -> tuple[int, Any]:
    kind = "application/json" if body == ON_EDGE else "image/png"
    request = urllib.request.Request(url, data=body, headers={"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@dataclass
class Senders:
    """Threads that ask a daemon for what only functions answer, one request after another."""

    daemon: Running
    refusals: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.send, daemon=True) for _ in range(SENDERS)]
        for thread in self.threads:
            thread.start()

    def send(self) -> None:
        while not self.over.wait(0.05):
            try:
                status, content = asked(f"{self.daemon.url}/v1/classify/digits", b"x" * 2000)
            except OSError:
                return
            if status != 200:
                self.refusals.add(content["error"])
                self.over.wait(0.2)

    def heard(self, words: str) -> bool:
        return any(words in text for text in list(self.refusals))

    def end(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()


@contextmanager
def sending(daemon: Running) -> Iterator[Senders]:
    senders = Senders(daemon)
    try:
        yield senders
    finally:
        senders.end()


def status(daemon: Running) -> Any:
    return asked(f"{daemon.url}/v1/status")[1]


def spent(daemon: Running) -> float:
    return float(status(daemon)["engine"]["spent"])


def metered(endpoint: LocalFc) -> float:
    account = endpoint.admin("GET", "meter")["functions"].get("digits")
    return 0.0 if account is None else float(sum(account["cost"][SHEET][kind] for kind in ("active", "calls")))


def test_two_daemons_share_a_cap_fairly_and_live_through_each_others_deaths(tmp_path: Path) -> None:
    with ExitStack() as stack:
        endpoint = stack.enter_context(local_fc_process.running(tmp_path, endpoint_config(key=KEY, secret=SECRET)))
        edge = stack.enter_context(stub_edge_process())

        def daemon(name: str, *, port: int, daemon: str, spend: str, tokens: str = "") -> Any:
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            text = DAEMON.format(port=port, daemon=daemon, edge=edge.url, endpoint=endpoint.address, spend=spend)
            (folder / "edgeburst.toml").write_text(text + tokens)
            return daemon_process(folder / "edgeburst.toml", environ=ENVIRON)

        def lender(port: int = 0) -> Any:
            return daemon("lender", port=port, daemon='state = "state"', spend=f"per_hour = {CAP}", tokens=LENDS)

        def borrower() -> Any:
            spend = f'from = "{first.url}"\nfrom_name = "second"\nfrom_token_env = "LENDERS_TOKEN"'
            return daemon("second", port=0, daemon="", spend=spend)

        def loans() -> list[dict[str, Any]]:
            rows: list[dict[str, Any]] = status(first)["state"]["borrowers"]
            return rows

        first_stack = stack.enter_context(ExitStack())
        first = first_stack.enter_context(lender())
        with borrower() as second:
            # Both learn what starts and batches cost. How much each then wants depends on which warms more instances.
            with sending(first), sending(second):
                until(lambda: spent(first) > CAP / 8 and spent(second) > CAP / 8, "both spend")
            assert status(second)["lender"]["up"] is True
            assert status(second)["lender"]["per_hour"] == CAP
            until(lambda: bool(loans()) and loans()[0]["held"] > 0, "the borrower holds a slice")
            # What it has spent when it is killed is reported by then, so that just its slice comes back.
            time.sleep(2.0)
            held = loans()[0]["held"]
            second.signal(signal.SIGKILL)
            killed_s = time.monotonic()
        until(lambda: loans()[0]["silent"] and loans()[0]["doubt"] == pytest.approx(held), "its slice is back")
        assert time.monotonic() - killed_s > SILENT_S - 2.5

        with borrower() as second:
            with sending(second):
                until(lambda: spent(second) > CAP / 50, "the next process borrows too")
            port = first.port
            first.signal(signal.SIGKILL)
            first.exit_status()
            first_stack.close()
            with sending(second) as senders:
                until(lambda: senders.heard("that this one borrows from"), "no money left")
            assert asked(f"{second.url}/v2/models/onedge/infer", ON_EDGE)[0] == 200
            assert status(second)["lender"]["up"] is False
            assert "cannot be reached" in status(second)["lender"]["message"]
            metrics = urllib.request.urlopen(f"{second.url}/metrics", timeout=30).read().decode()
            assert "edgeburst_lender_up 0.0" in metrics
            assert second.log.count("lender_away") == 1

            first = first_stack.enter_context(lender(port))
            until(lambda: status(second)["lender"]["up"], "the lender is back")
            before = spent(second)
            with sending(first) as firsts, sending(second) as seconds:
                until(lambda: spent(second) > before + CAP / 100, "money again")
                assert second.log.count("lender_back") == 1
                until(lambda: firsts.heard(REACHED) and seconds.heard(REACHED), "the cap")
        time.sleep(1.0)
        # A slice is the dearest batch, as it was believed at the start: a tenth of this small cap. What each of three
        # kills leaves in doubt counts as spent.
        assert 0.2 * CAP < metered(endpoint) <= 1.1 * CAP
