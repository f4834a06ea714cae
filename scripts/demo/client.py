"""Client of the demo, in its own process: replays the arrivals, open-loop, and writes the results.

`python -m scripts.demo.client --url URL --pictures DIR --schedule FILE.npz --out DIR` prints a JSON line when it starts
to send, one every half second, and one at the end. It writes `requests.csv` and `outputs.npy`, the probabilities of
each answer in the same order.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scheduler.measuring.exchange import Target
from scheduler.measuring.payloads import Payload
from scheduler.measuring.replay import ReplayedRequest, ReplayOptions, ReplayResult, replay
from scheduler.measuring.replay_report import REQUEST_COLUMNS, request_row
from scripts.demo.pictures import read_pictures
from scripts.demo.settings import CLASSES, MODEL

REQUESTS = "requests.csv"
OUTPUTS = "outputs.npy"
_TELL_EVERY_S = 0.5


class _Teller:
    """Counter of requests and answers that prints its counts."""

    def __init__(self) -> None:
        self._sent = 0
        self._counts = {"answered": 0, "failed": 0, "within_slo": 0, "edge": 0, "function": 0}

    def sent(self, count: int) -> None:
        """Stores the number of requests sent."""
        self._sent = count

    def ended(self, request: ReplayedRequest) -> None:
        """Counts one request that has ended."""
        self._counts["answered" if request.answered else "failed"] += 1
        self._counts["within_slo"] += request.within_slo
        backend = request.reply.parameters.get("backend")
        if backend in ("edge", "function"):
            self._counts[str(backend)] += 1

    async def keep_telling(self) -> None:
        """Prints the counts twice a second until it is cancelled."""
        while True:
            _tell("progress", sent=self._sent, **self._counts)
            await asyncio.sleep(_TELL_EVERY_S)


def _tell(event: str, **values: object) -> None:
    print(json.dumps({"event": event, "at_s": time.monotonic(), **values}), flush=True)


async def run(options: argparse.Namespace) -> ReplayResult:
    """Replays the schedule and writes the results to the output folder."""
    schedule = np.load(options.schedule)
    files = [Payload(path.name, path.read_bytes()) for path in read_pictures(options.pictures)]
    payloads = [files[index] for index in schedule["pictures"].tolist()]
    teller = _Teller()
    _tell("started")
    telling = asyncio.create_task(teller.keep_telling(), name="tell")
    result = await replay(
        schedule["times_s"],
        payloads,
        Target(options.url, MODEL),
        options=ReplayOptions(slo_s=options.slo_s, keep_outputs=True),
        on_sent=teller.sent,
        on_answer=teller.ended,
    )
    telling.cancel()
    _write(result, payloads, options.out)
    return result


def _write(result: ReplayResult, payloads: Sequence[Payload], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with (out / REQUESTS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, REQUEST_COLUMNS)
        writer.writeheader()
        writer.writerows(request_row(request, payloads[request.index].name) for request in result.requests)
    nothing = np.full(CLASSES, np.nan, np.float32)
    outputs = [request.output for request in result.requests]
    rows = [nothing if output is None or output.shape != nothing.shape else output for output in outputs]
    np.save(out / OUTPUTS, np.stack(rows))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the client; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m scripts.demo.client", description="Client of the demo.")
    parser.add_argument("--url", required=True, help="address of the daemon")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--schedule", type=Path, required=True, help="times_s and pictures, written by numpy.savez")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--slo-s", type=float, default=1.0, help="SLO of each request (default %(default)s)")
    result = asyncio.run(run(parser.parse_args(argv)))
    _tell("done", started_at_s=result.started_at_s, wall_s=result.wall_s, warning=result.lag_warning)
    return 0


if __name__ == "__main__":
    sys.exit(main())
