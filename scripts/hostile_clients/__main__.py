"""Prints how honest clients fare beside one hostile client of each kind.

    python -m scripts.hostile_clients [KIND ...] [--seconds S] [--rate RPS] [--batches N]

Real processes on loopback: the daemon, and the edge server as slow as a Jetson Orin with ResNet-50. Honest requests
come from 127.0.0.2, the hostile ones from 127.0.0.1. Each kind meets a daemon of its own; before read-outs it gets
batches to tell of.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from models.digits_data import held_out
from models.digits_pictures import encode
from scheduler.terminal import counted
from scripts.demo.processes import Processes, child_environment
from scripts.hostile_clients import honest
from scripts.hostile_clients.attacks import ATTACKS
from scripts.support.script import run_script

NOTHING = "none"
SLO_S = 1.0
_START_S = 60.0
_LEAD_S = 2.5
"""How long a hostile client has worked before the honest ones are counted."""
_CONFIG = """
[daemon]
port = 0
late = "refuse"
{daemon}
[edge]
url = "http://127.0.0.1:{edge}"
[[model]]
name = "digits"
edge_profile = "{profile}"
[[model.class]]
slo_s = {slo_s}
percentile = 0.99
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0 where at least 99 % of the honest requests were answered in time in each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{NOTHING} or {', '.join(ATTACKS)} (default: all)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each run (default %(default)g)")
    parser.add_argument("--rate", type=float, default=60.0, help="honest requests a second (default %(default)g)")
    parser.add_argument(
        "--batches", type=int, default=10_000, help="ended batches before read-outs (default %(default)d)"
    )
    parser.add_argument("--daemon", default="", metavar="TOML", help="further lines of [daemon]")
    given = parser.parse_args(argv)
    kinds = given.kinds or [NOTHING, *ATTACKS]
    for kind in kinds:
        if kind != NOTHING and kind not in ATTACKS:
            parser.error(f"kind {kind!r} is unknown; choose from {NOTHING}, {', '.join(ATTACKS)}")
    print("| hostile client | honest within SLO | refused | late | p50 s | p99 s | daemon's memory MB |")
    print("|---|---|---|---|---|---|---|")
    shares = [_row(kind, given) for kind in counted(kinds, "playing", "hostile clients")]
    return 0 if min(shares) >= 0.99 else 1


def _row(kind: str, given: argparse.Namespace) -> float:
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        ends, peak_mb = _beside(kind, given, Path(folder))
    refused = ", ".join(f"{count} x {what}" for what, count in sorted(ends.others.items())) or "0"
    print(
        f"| {kind} | {100 * ends.share:.1f} % of {ends.sent} | {refused} | {ends.late} |"
        f" {ends.quantile_s(0.5):.2f} | {ends.quantile_s(0.99):.2f} | {peak_mb} |",
        flush=True,
    )
    return ends.share


def _beside(kind: str, given: argparse.Namespace, folder: Path) -> tuple[honest.Ends, int]:
    reads = "read-outs" in kind
    # Ten thousand batches take minutes where each takes as long as on the board.
    emulation = [] if reads else ["--emulate", "orin-resnet50"]
    with Processes(folder, child_environment(os.environ)) as processes:
        edge = processes.start("edge", ["edge_server", "--port", "0", "--model", "digits", *emulation])
        edge_port = int(edge.wait_for("ready", limit_s=_START_S)["port"])
        config = folder / "edgeburst.toml"
        config.write_text(_CONFIG.format(daemon=given.daemon, edge=edge_port, profile="orin-resnet50", slo_s=SLO_S))
        daemon = processes.start("daemon", ["scheduler.cli", "serve", "--config", str(config)])
        port = int(daemon.wait_for("ready", limit_s=_START_S)["port"])
        url, pictures = f"http://127.0.0.1:{port}/v1/classify/digits", _pictures()
        if reads:
            _fill(url, pictures[0], given.batches)
        with _hostile(kind, port):
            time.sleep(_LEAD_S)
            ends = asyncio.run(honest.run(url, pictures, rate_rps=given.rate, seconds=given.seconds, slo_s=SLO_S))
        return ends, _peak_mb(daemon.process.pid)


def _pictures() -> list[bytes]:
    return [encode(image, "jpeg", index) for index, image in enumerate(held_out()[0][:200])]


def _fill(url: str, picture: bytes, batches: int) -> None:
    """Sends requests one after the other, so that each is a batch."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(batches):
        request = urllib.request.Request(url, data=picture, headers={"Content-Type": "image/jpeg"})
        with opener.open(request, timeout=30) as answer:
            answer.read()


class _hostile:  # noqa: N801 - used as a context manager only
    """A process that attacks the daemon; none for `NOTHING`."""

    def __init__(self, kind: str, port: int) -> None:
        attack: Callable[[tuple[str, int]], None] | None = ATTACKS.get(kind)
        self._process = None
        if attack is not None:
            context = multiprocessing.get_context("spawn")
            self._process = context.Process(target=attack, args=(("127.0.0.1", port),), daemon=True)

    def __enter__(self) -> None:
        if self._process is not None:
            self._process.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()


def _peak_mb(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    return 0


if __name__ == "__main__":
    sys.exit(run_script("hostile_clients", main))
