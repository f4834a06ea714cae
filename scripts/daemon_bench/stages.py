"""Runs the daemon and notes each millisecond of its processor time in which stage it is.

python -m scripts.daemon_bench.stages FILE serve --config CONFIG

The stage is that of the innermost frame which belongs to one; what no frame of Python does is the loop's: sockets and
callbacks. SIGUSR1 begins to count, at the end the counts are written to FILE.
"""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

from scheduler.cli import main as run

EVERY_S = 0.001
LOOP = "loop and sockets"
STAGES = (
    ("/aiohttp/web", "ingress"),
    ("/daemon/http/", "ingress"),
    ("/daemon/ingress/", "ingress"),
    ("/aiohttp/client", "edge call"),
    ("/aiohttp/connector", "edge call"),
    ("/daemon/backends/", "edge call"),
    ("/scheduler/wire/", "wire format"),
    ("/scheduler/estimat", "learning"),
    ("/scheduler/beliefs", "learning"),
    ("/scheduler/control", "learning"),
    ("/scheduler/planner/", "learning"),
    ("/scheduler/dispatch/", "engine"),
    ("/scheduler/engine", "engine"),
    ("/daemon/telemetry", "counters and records"),
    ("/daemon/tenant_metrics", "counters and records"),
    ("/daemon/records", "counters and records"),
    ("/daemon/explain", "counters and records"),
    ("/daemon/model_statistics", "counters and records"),
    ("/daemon/own_latency", "counters and records"),
    ("/prometheus_client/", "counters and records"),
    ("/scheduler/daemon/", "runner"),
)
_known: dict[str, str] = {}


def stage(frame: FrameType | None) -> str:
    """Returns the stage of a frame, or of the nearest one outside it that has one."""
    while frame is not None:
        name = frame.f_code.co_filename
        found = _known.get(name)
        if found is None:
            found = next((of for part, of in STAGES if part in name), "")
            _known[name] = found
        if found:
            # The program itself stands outside of all.
            return LOOP if name.endswith("/daemon/serve.py") else found
        frame = frame.f_back
    return LOOP


def main() -> None:
    """Runs the command line after FILE."""
    counts: Counter[str] = Counter()

    def note(_: int, frame: FrameType | None) -> None:
        counts[stage(frame)] += 1

    def begin(*_: object) -> None:
        counts.clear()
        signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)

    signal.signal(signal.SIGPROF, note)
    signal.signal(signal.SIGUSR1, begin)
    into = Path(sys.argv[1])
    try:
        code = run(sys.argv[2:])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        into.write_text(json.dumps(counts))
    sys.exit(code)


if __name__ == "__main__":
    main()
