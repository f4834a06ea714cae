"""Measures how soon a daemon notices that its edge has fallen silent, hangs, or is gone: real processes under traffic.

The script starts a daemon and a stub edge server, sends requests as a Poisson process, lets the stub fail, and prints
the seconds until the daemon sends no more batches of the model there. Asked: 2 s at most.

    python -m scripts.noticing
"""

import argparse
import asyncio
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp

from scheduler import wire
from scripts.bench_daemon import CONFIG, a_request, process, ready_port
from scripts.support.script import run_script

ASKED_S = 2.0
LOOK_S = 0.01
LIMIT_S = 30.0


async def behave(url: str, **behaviour: object) -> None:
    """Tells the stub how to behave."""
    async with aiohttp.ClientSession() as session, session.post(f"{url}/control", json=behaviour):
        pass


async def noticed_s(url: str, fail: Callable[[], None], rps: float) -> float:
    """Returns the seconds from the failure until the model is not sent to the edge any more; LIMIT_S if it is then."""
    encoded = wire.encode_request(a_request(b"a picture"))
    headers = {wire.JSON_LENGTH_HEADER: str(encoded.json_length)}
    draws = random.Random(1)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask() -> None:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.post(f"{url}/v2/models/digits/infer", data=encoded.body, headers=headers) as answer:
                    await answer.read()

        async def traffic() -> None:
            asked = set()
            while True:
                asked.add(asyncio.create_task(ask()))
                await asyncio.sleep(draws.expovariate(rps))

        sending = asyncio.create_task(traffic())
        await asyncio.sleep(2.0)
        await asyncio.to_thread(fail)
        failed_s = time.monotonic()
        while (elapsed_s := time.monotonic() - failed_s) < LIMIT_S:
            async with session.get(f"{url}/v1/status") as response:
                if not (await response.json())["engine"]["edge_up"]:
                    break
            await asyncio.sleep(LOOK_S)
        sending.cancel()
        return elapsed_s


def measured_s(how: str, rps: float) -> float:
    """Starts daemon and stub anew and returns the seconds until the failure is noticed."""
    with tempfile.TemporaryDirectory() as folder, process([sys.executable, "-m", "scripts.support.stub_edge"]) as stub:
        port = ready_port(stub)
        config = Path(folder) / "noticing.toml"
        config.write_text(CONFIG.format(port=port, profile="orin-resnet50"))
        with process([sys.executable, "-m", "scheduler.cli", "serve", "--config", str(config)]) as daemon:
            url = f"http://127.0.0.1:{ready_port(daemon)}"
            try:
                return asyncio.run(noticed_s(url, lambda: failing(how, stub, port), rps))
            finally:
                stub.send_signal(signal.SIGCONT)


def failing(how: str, stub: "subprocess.Popen[str]", port: int) -> None:
    """Lets the stub fail."""
    if how == "hangs":
        asyncio.run(behave(f"http://127.0.0.1:{port}", mode="hang"))
    else:
        stub.send_signal({"is silent": signal.SIGSTOP, "is gone": signal.SIGKILL}[how])


def main() -> int:
    """Prints the seconds; returns 0 whatever they are, since it is no test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rps", type=float, default=20.0, help="requests a second")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    figures = {how: measured_s(how, options.rps) for how in ("is silent", "hangs", "is gone")}
    if options.json:
        print(json.dumps(figures))
        return 0
    for how, seconds in figures.items():
        missed = "" if seconds <= ASKED_S else "   MISSED"
        print(f"an edge that {how:<9} is noticed after {seconds:6.3f} s (asked {ASKED_S:g}){missed}")
    return 0


if __name__ == "__main__":
    sys.exit(run_script("noticing", main))
