"""Prints what a kill and a restart cost: money under a cap over many lives, and what the next process still knows.

    python -m scripts.restarts [--lives N] [--seed N] [--without]

Real processes on loopback: the daemon, a stub edge, the local Function Compute endpoint with its meter. First, lives of
one daemon are killed (SIGKILL) one after another at random moments, each under more traffic than its cap pays for; the
sum is what the meter says. Then a daemon is stopped and started again; plan, uplink and margins are compared.
With --without the daemon has no state folder, to see what that costs.
"""

import argparse
import json
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scheduler.estimators.residuals import ResidualWindow
from scripts.support.script import run_script
from scripts.support.stub_function import endpoint_config

ROOT = Path(__file__).parents[1]
LIMIT_S = 90.0
SHEET = "cny-gbs-2023"
KEY, SECRET = "demo", "demo-secret"
CAP = 3e-4
"""CNY in an hour: two batches with starts as dear as they may be before one was seen, or eighty small ones; less than
the lives spend without a folder."""
LEARN_S = 3.0
"""Length of the life before those that are killed."""
SENDERS = 24
UPLINK_MBIT_PER_S = 8
BODY = b"x" * 20_000
LARGE_BODY = b"x" * 60_000
"""60 ms on the link, which is measured well."""
UPLINK = ("uplink_bytes_per_s", "uplink_rtt_s")
TOLERANCE = 0.05
SAME_S = 1e-3
"""Round trips that differ by less are the same: on loopback they are microseconds."""

_DAEMON = """
[daemon]
port = 0
drain_limit_s = 10
{state}
{edge}
[function]
endpoint = "{endpoint}"
protocol = "http"
access_key_id_env = "RESTARTS_KEY_ID"
access_key_secret_env = "RESTARTS_KEY_SECRET"
{spend}
[[model]]
name = "digits"
{edge_profile}
[[model.class]]
slo_s = {slo_s}
late = "serve"
[[model.tier]]
name = "1gb"
function = "digits"
profile = "fc-resnet50-1gb"
memory_gb = 1.0
"""


@dataclass(frozen=True, slots=True)
class Killed:
    """What lives that were killed have spent."""

    lives: int
    cap: float
    a_slice: float
    """Most that is leased at a time: a hundredth of the cap, or the dearest batch as it was believed at the start."""
    metered: float
    """What the endpoint's meter says of all lives together."""
    answered: int
    refused: int


@dataclass(frozen=True, slots=True)
class Restarted:
    """What a daemon knew before a restart and after it."""

    before: Mapping[str, float]
    after: Mapping[str, float]

    def worst(self) -> float:
        """Returns the largest relative difference."""
        return max(_difference(name, value, self.after[name]) for name, value in self.before.items())


def _difference(name: str, before: float, after: float) -> float:
    if name.endswith("rtt_s") and abs(after - before) < SAME_S:
        return 0.0
    return abs(after - before) / abs(before) if before else float(after != before)


def killed_lives(folder: Path, *, lives: int, seed: int = 0, state: bool = True) -> Killed:
    """Kills lives of one daemon at random moments under more traffic than its cap pays for.

    The life before them ends well: it learns how long instances take to start, which would be held back in full for
    each batch otherwise, and what it spends counts too.

    Args:
        folder: for the files of the processes.
        lives: how many.
        seed: of the moments.
        state: whether the daemon has a state folder.
    """
    rng, answered, refused = random.Random(seed), 0, 0
    with _endpoint(folder) as endpoint:
        config = folder / "edgeburst.toml"
        kept = f'state = "{folder / "state"}"' if state else ""
        spend = f"[spend]\nper_hour = {CAP}"
        config.write_text(
            _DAEMON.format(state=kept, edge="", endpoint=endpoint, spend=spend, edge_profile="", slo_s=5.0)
        )
        for life in range(1 + lives):
            with _daemon(config) as (process, port):
                senders = _Senders(port, SENDERS)
                time.sleep(rng.uniform(0.3, 1.2) if life else LEARN_S)
                process.send_signal(signal.SIGKILL if life else signal.SIGTERM)
                process.wait(LIMIT_S)
                counts = senders.end()
            answered, refused = answered + counts[0], refused + counts[1]
        # What was under way when the last life ended is billed too.
        time.sleep(1.0)
        return Killed(lives, CAP, max(CAP / 100, _dearest_batch()), _metered(endpoint), answered, refused)


def restarted(folder: Path, *, learn_s: float) -> Restarted:
    """Compares plan, uplink and margins before and after a restart.

    Args:
        folder: for the files of the processes.
        learn_s: seconds of traffic before it.
    """
    with _endpoint(folder, "--uplink-mbit-per-s", str(UPLINK_MBIT_PER_S)) as endpoint, _edge() as edge:
        config = folder / "edgeburst.toml"
        content = {
            "state": f'state = "{folder / "state"}"',
            "edge": f'[edge]\nurl = "{edge}"',
            "endpoint": endpoint,
            "spend": "",
            "edge_profile": 'edge_profile = "orin-resnet50"',
            "slo_s": 2.0,
        }
        config.write_text(_DAEMON.format(**content))
        with _daemon(config) as (process, port):
            senders = _Senders(port, 20, LARGE_BODY)
            time.sleep(learn_s)
            process.send_signal(signal.SIGTERM)
            process.wait(LIMIT_S)
            senders.end()
        database = folder / "state" / "state.sqlite3"
        before = {**_saved_uplink_and_plan(database), **_saved_margins(database)}
        with _daemon(config) as (process, port):
            status = _status(port)
            process.send_signal(signal.SIGTERM)
            process.wait(LIMIT_S)
        # Before the first probe: what it measures is new.
        recalled = status["state"]["recalled"]
        uplink = {name: float(recalled[name]) for name in UPLINK}
        return Restarted(before, {**uplink, **_figures(status["engine"]["plan"]), **_saved_margins(database)})


def _saved_uplink_and_plan(database: Path) -> dict[str, float]:
    """Returns what the daemon believed of the uplink, and its plan, when it stopped."""
    known = _part(database, "uplink")["bandwidth"]
    uplink = {"uplink_bytes_per_s": float(known["bytes_per_s"] or 0.0), "uplink_rtt_s": float(known["rtt_s"])}
    return {**uplink, **_figures(_part(database, "plan")["plan"])}


def _saved_margins(database: Path) -> dict[str, float]:
    """Returns the factors on predicted services at which 99 % hold, as the daemon believed them when it stopped."""
    margins = {}
    for name, part in (("edge:digits", None), ("function:digits:1gb", "service")):
        content = _part(database, name)
        service = content if part is None else content[part]
        window = ResidualWindow(size=512, prior_sigma=0.1).restored(service["residuals"], age_s=0.0)
        margins[f"believed margin of {name}"] = math.exp(window.quantile(0.99))
        margins[f"believed level of {name}"] = math.exp(service["state"][0])
    return margins


def _part(database: Path, name: str) -> Any:
    with closing(sqlite3.connect(database)) as connection:
        return json.loads(connection.execute("SELECT content FROM parts WHERE name = ?", (name,)).fetchone()[0])


def _figures(plan: Mapping[str, Any]) -> dict[str, float]:
    figures = {}
    for group in plan["groups"]:
        figures["edge batch cap"] = float(group["edge_batch_cap"])
        figures |= {f"edge margin of {name}": value for name, value in group["edge_margins"].items()}
        for index, buffer in enumerate(group["buffers"]):
            figures[f"buffer {index} target"] = float(buffer["target_batch"])
            figures |= {f"buffer {index} margin of {name}": value for name, value in buffer["margins"].items()}
    return figures


class _Senders:
    """Threads that send one request after another until they are ended or the daemon is gone."""

    def __init__(self, port: int, count: int, body: bytes = BODY) -> None:
        self._body = body
        self._url = f"http://127.0.0.1:{port}/v1/classify/digits"
        self._over = threading.Event()
        self._counts = [0, 0]
        self._threads = [threading.Thread(target=self._send, args=(each,), daemon=True) for each in range(count)]
        for thread in self._threads:
            thread.start()

    def end(self) -> tuple[int, int]:
        """Returns how many requests were answered and refused."""
        self._over.set()
        for thread in self._threads:
            thread.join(LIMIT_S)
        return self._counts[0], self._counts[1]

    def _send(self, number: int) -> None:
        rng = random.Random(number)
        while not self._over.is_set():
            body = str(number).encode() + self._body
            request = urllib.request.Request(self._url, data=body, headers={"Content-Type": "image/png"})
            try:
                with _OPENER.open(request, timeout=20):
                    self._counts[0] += 1
            except urllib.error.HTTPError:
                self._counts[1] += 1
            except OSError:
                return
            self._over.wait(rng.uniform(0.0, 0.2))


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _get(url: str) -> Any:
    with _OPENER.open(url, timeout=20) as answer:
        return json.loads(answer.read())


def _status(port: int) -> Any:
    return _get(f"http://127.0.0.1:{port}/v1/status")


def _metered(endpoint: str) -> float:
    account = _get(f"http://{endpoint}/admin/meter")["functions"].get("digits")
    return 0.0 if account is None else float(sum(account["cost"][SHEET][kind] for kind in ("active", "calls")))


def _dearest_batch() -> float:
    from models.profile import load_profile
    from scheduler.planner.catalogue.prices import load_sheet

    profile = load_profile("fc-resnet50-1gb")
    price = load_sheet(SHEET).tier_price(memory_gb=1.0)
    longest_s = profile.alpha_s + profile.beta_s * profile.max_batch
    # The daemon holds back the 0.995 quantile of a service that scatters by a tenth.
    return price.cost(longest_s * 1.3)


def _until(condition: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > end_s:
            raise RuntimeError(f"this never came: {what}")
        time.sleep(0.02)


def _python_path() -> str:
    """Returns PYTHONPATH of the processes: this tree, before whatever is imported from already."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


@contextmanager
def _process(command: list[str], log: Path | None = None) -> "Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]":
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environ = {**kept, "PYTHONPATH": _python_path(), "RESTARTS_KEY_ID": KEY, "RESTARTS_KEY_SECRET": SECRET}
    errors = subprocess.DEVNULL if log is None else log.open("ab")
    process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=errors)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(command)} did not get ready" + (f"; see {log}" if log else ""))
        yield process, json.loads(line)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _endpoint(folder: Path, *options: str) -> Iterator[str]:
    config = folder / "local-fc.toml"
    config.write_text(endpoint_config(key=KEY, secret=SECRET))
    command = [sys.executable, "-m", "serverless_fn.local_fc", "--config", str(config), "--port", "0", *options]
    with _process(command, folder / "local-fc.log") as (_, ready):
        yield f"{ready['host']}:{ready['port']}"


@contextmanager
def _edge() -> Iterator[str]:
    with _process([sys.executable, "-m", "scripts.support.stub_edge"]) as (_, ready):
        url = f"http://127.0.0.1:{ready['port']}"
        behaviour = json.dumps({"alpha_s": 0.2, "beta_s": 0.1}).encode()
        _OPENER.open(urllib.request.Request(f"{url}/control", data=behaviour), timeout=20).close()
        yield url


@contextmanager
def _daemon(config: Path) -> "Iterator[tuple[subprocess.Popen[bytes], int]]":
    command = [sys.executable, "-m", "scheduler.cli", "serve", "--config", str(config)]
    with _process(command, config.parent / "daemon.log") as (process, ready):
        yield process, int(ready["port"])


def main() -> int:
    """Prints both figures; returns 1 where one of them is not reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lives", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learn-s", type=float, default=20.0, help="seconds of traffic before the restart")
    parser.add_argument("--without", action="store_true", help="kill a daemon without a state folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        killed = killed_lives(Path(name), lives=args.lives, seed=args.seed, state=not args.without)
    allowed = killed.cap + killed.a_slice
    print(
        f"{killed.lives} lives killed: metered {killed.metered:.3e} CNY of a cap of {killed.cap:.3e} an hour"
        f" ({killed.metered / killed.cap:.2f} caps; allowed {allowed / killed.cap:.2f}: the cap and one slice);"
        f" {killed.answered} requests answered, {killed.refused} refused"
    )
    if args.without:
        return 0
    with tempfile.TemporaryDirectory() as name:
        found = restarted(Path(name), learn_s=args.learn_s)
    for figure, value in found.before.items():
        print(f"  {figure:<40} {value:>14.5g} {found.after[figure]:>14.5g}")
    print(f"after the restart: largest difference {found.worst():.2%}, at most {TOLERANCE:.0%} is asked")
    return int(killed.metered > allowed or found.worst() > TOLERANCE)


if __name__ == "__main__":
    sys.exit(run_script("restarts", main))
