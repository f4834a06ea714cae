"""Throughput of the edge server against a bare loop with the same model, runtime and decoding threads."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from models.catalogue import card_of
from scheduler.measuring.errors import MeasuringError
from scripts.edge_bench.servers import ROOT, Connection, called, cpu_s, options_for, running

ASKED = {"digits": 0.90}
"""Share of the loop's throughput that is asked of the server, by model."""
ASKED_OF_OTHERS = 0.95
# As many as the daemon has on their way: one batch is served, and the next one is there when it ends.
_CONNECTIONS = 3
COLUMNS = (
    "model",
    "runtime",
    "loop /s",
    "edge /s",
    "share",
    "lowest",
    "highest",
    "asked",
    "loop CPU ms",
    "edge CPU ms",
)


@dataclass(frozen=True, slots=True)
class Row:
    """Result of one model.

    Attributes:
        model: its name.
        runtime: what computes it in the loop, device and precision too.
        loop_per_s: items a second of the loop, one for each alternation.
        edge_per_s: those of the server.
        asked: share of the loop's throughput that is asked of the server.
        loop_cpu_s: CPU time of the loop for a batch, seconds: what does not depend on other load of the machine.
        edge_cpu_s: CPU time of the server for a batch.
    """

    model: str
    runtime: str
    loop_per_s: tuple[float, ...]
    edge_per_s: tuple[float, ...]
    asked: float
    loop_cpu_s: float
    edge_cpu_s: float

    @property
    def shares(self) -> list[float]:
        """Throughput of the server over that of the loop, in ascending order."""
        return sorted(edge / loop for edge, loop in zip(self.edge_per_s, self.loop_per_s, strict=True))

    @property
    def share(self) -> float:
        """Median of the shares."""
        return statistics.median(self.shares)

    def cells(self) -> tuple[str, ...]:
        """Returns the row of the table."""
        loop, edge = statistics.median(self.loop_per_s), statistics.median(self.edge_per_s)
        shares = (f"{share:.0%}" for share in (self.share, self.shares[0], self.shares[-1], self.asked))
        cpu = (f"{cpu_s * 1e3:.2f}" for cpu_s in (self.loop_cpu_s, self.edge_cpu_s))
        return (self.model, self.runtime, f"{loop:.0f}", f"{edge:.0f}", *shares, *cpu)


def measured(model: str, options: Sequence[str], *, items: int, seconds: float, alternations: int) -> Row:
    """Measures loop and server in turn, so that both have the same machine.

    Args:
        model: a shipped model or a folder.
        options: further options of the edge server, which the loop gets too.
        items: items in a batch.
        seconds: seconds of each measurement.
        alternations: number of measurements of each.

    Raises:
        MeasuringError: one of them does not start, or a batch was refused.
        ModelError: there is no such model.
    """
    card = card_of(model)
    given = options_for(card, model, options)
    loop_per_s, edge_per_s = [], []
    loop_batches = edge_batches = 0
    with _loop(items, given) as loop, running(given) as server:
        connections = [Connection(server, card, items) for _ in range(_CONNECTIONS)]
        runtime = loop.readline()
        called(connections, 0.5)
        loop_cpu, edge_cpu = _Cpu(loop.process_id), _Cpu(server.process_id)
        for _ in range(alternations):
            with loop_cpu:
                batches, elapsed_s = loop.run(seconds)
            loop_batches += batches
            loop_per_s.append(batches * items / elapsed_s)
            with edge_cpu:
                calls = called(connections, seconds)
            edge_batches += len(calls.latencies_s)
            edge_per_s.append(calls.per_s * items)
        for connection in connections:
            connection.close()
    return Row(
        model=card.name,
        runtime=runtime,
        loop_per_s=tuple(loop_per_s),
        edge_per_s=tuple(edge_per_s),
        asked=ASKED.get(card.name, ASKED_OF_OTHERS),
        loop_cpu_s=loop_cpu.seconds / loop_batches,
        edge_cpu_s=edge_cpu.seconds / edge_batches,
    )


class _Cpu:
    """CPU time of a process, added up over the times in which it is entered."""

    def __init__(self, process_id: int) -> None:
        self.seconds = 0.0
        self._process_id = process_id
        self._before_s = 0.0

    def __enter__(self) -> None:
        self._before_s = cpu_s(self._process_id)

    def __exit__(self, *_: object) -> None:
        self.seconds += cpu_s(self._process_id) - self._before_s


class _LoopProcess:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.process_id = process.pid

    def readline(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise MeasuringError(f"the bare loop has ended with status {self._process.wait()}; its lines are above")
        return line

    def run(self, seconds: float) -> tuple[int, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        batches, elapsed_s = self.readline().split()
        return int(batches), float(elapsed_s)


@contextmanager
def _loop(items: int, options: Sequence[str]) -> Iterator[_LoopProcess]:
    command = [sys.executable, "-m", "scripts.edge_bench.loop", str(items), *options]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield _LoopProcess(process)
    finally:
        process.kill()
        process.communicate()
