"""Plays rows and counts: right, wrong, doubled, lost, statuses, within the SLO."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from scripts.fault_table.daemon import Daemon, Settings
from scripts.fault_table.neighbours import Neighbours
from scripts.fault_table.rows import LOADS, SECONDS, Action, Row
from scripts.fault_table.scene import Scene
from scripts.fault_table.traffic import Clients, Ends
from scripts.fault_table.truth import BROKEN, Item

REFUSING = (429, 503, 504)
_COUNTS = {"wrong": "wrong", "doubled": "doubled", "lost": "lost", "400/500/502": "failed"}
"""Columns of what must be 0, and their fields."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the clients of one row saw."""

    row: Row
    sent: int
    right: int
    """Right answers; for a broken picture, 400."""
    wrong: int
    doubled: int
    lost: int
    failed: int
    """400, 500, 502 and every status that no refusal has; without those that are right."""
    refused: int
    within: int
    """Right ones within the SLO."""
    again: int
    """How often requests were sent again, after the daemon was killed."""
    faults: Sequence[str] = ()
    """What is wrong besides: counts that do not add up, exit statuses, lines of logs."""
    said: Sequence[tuple[str, int]] = ()
    """The most frequent sentences."""

    @property
    def well(self) -> bool:
        """Whether nothing was violated."""
        return not (self.wrong or self.doubled or self.lost or self.failed or self.faults)


@dataclass(slots=True)
class Stage:
    """Plays one row after the other before the same neighbours."""

    neighbours: Neighbours
    items: Sequence[Item]
    folder: Path
    _played: int = field(default=0)
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4, "step"))
    """It outlives the rows, because a process that a thread has started is told to end with it."""

    def play(self, row: Row) -> Outcome:
        """Plays one row and returns what its clients saw."""
        self._played += 1
        folder = self.folder / f"row-{self._played:03d}"
        folder.mkdir()
        edge, function = row.sides != "function", row.sides != "edge"
        self.neighbours.restore(edge=edge, function=function)
        daemon = Daemon(self.neighbours, folder, Settings())
        scene = Scene(self.neighbours, daemon, folder)
        try:
            daemon.settings = self._settings(row, scene)
            if row.before is not None:
                row.before(scene)
            daemon.start(before=scene.before, variables=scene.variables)
            ends = asyncio.run(self._traffic(row, scene))
            faults = daemon.end()
            return _outcome(row, ends, daemon.settings.slo_s, faults)
        finally:
            for life in daemon.lives:
                life.stop(limit_s=1.0)
            scene.end()

    def _settings(self, row: Row, scene: Scene) -> Settings:
        neighbours, settings = self.neighbours, Settings()
        if row.sides != "function":
            port = neighbours.liar_port if row.through_liar else neighbours.edge_port
            settings = replace(settings, edge=f"http://127.0.0.1:{port}")
        if row.sides != "edge":
            settings = replace(settings, endpoint=f"127.0.0.1:{neighbours.endpoint_port}")
        if row.sides == "function":
            settings = replace(settings, slo_s=2.0)
        places = {"state": scene.disk / "state", "explain": scene.disk / "explain.jsonl"}
        changes = {name: places.get(name, value) for name, value in row.daemon.items()}
        return replace(settings, **changes)  # type: ignore[arg-type]

    async def _traffic(self, row: Row, scene: Scene) -> Ends:
        clients = Clients(_mixed(self.items, row.broken_share), again=row.again)
        loop = asyncio.get_running_loop()

        async def step(at_s: float, action: Action) -> None:
            await asyncio.sleep(at_s)
            await loop.run_in_executor(self._threads, action, scene)

        steps = [asyncio.create_task(step(at_s, action)) for at_s, action in row.steps]
        ends = await clients.send(scene.daemon.port, rate_rps=LOADS[row.load], seconds=SECONDS)
        await asyncio.gather(*steps)
        return ends


def _mixed(items: Sequence[Item], broken_share: float) -> Sequence[Item]:
    if not broken_share:
        return items
    every = round(1 / broken_share)
    return [BROKEN if index % every == 0 else item for index, item in enumerate(items)]


def _outcome(row: Row, ends: Ends, slo_s: float, faults: Sequence[str]) -> Outcome:
    all_ends = ends.ends
    right = [end for end in all_ends if end.right]
    others = [end for end in all_ends if not end.right and end.status not in (0, 200, *REFUSING)]
    said = Counter(f"{end.status} {end.sentence}" for end in all_ends if not end.right)
    return Outcome(
        row=row,
        sent=len(all_ends),
        right=len(right),
        wrong=sum(end.status == 200 and not end.right for end in all_ends),
        doubled=ends.extra,
        lost=sum(end.status == 0 for end in all_ends),
        failed=len(others),
        refused=sum(end.status in REFUSING for end in all_ends),
        within=sum(end.latency_s <= slo_s for end in right),
        again=sum(end.cuts for end in all_ends),
        faults=faults,
        said=said.most_common(4),
    )


def line(outcome: Outcome) -> str:
    """Returns one row in words, for the terminal."""
    o = outcome
    again = f" again {o.again}" if o.again else ""
    counts = " ".join(f"{name} {getattr(o, field)}" for name, field in _COUNTS.items())
    return (
        f"{'ok ' if o.well else 'BAD'} {o.row.name:<58} sent {o.sent:>4} right {o.right:>4}"
        f" within {_percent(o.within, o.sent)} refused {o.refused:>4} | {counts}{again}"
    )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:3.0f} %" if whole else "  - "


def markdown(outcomes: Iterable[Outcome]) -> str:
    """Returns the table, one line for each fault and the sides that there are."""
    kept: dict[tuple[str, str], dict[str, Outcome]] = {}
    for outcome in outcomes:
        kept.setdefault((outcome.row.fault, outcome.row.sides), {})[outcome.row.load] = outcome
    loads = [f"{name}, {rate:g}/s" for name, rate in LOADS.items()]
    lines = [f"| fault | sides | {' | '.join(loads)} | {' | '.join(_COUNTS)} |", "|---|---|" + "---|" * 7]
    for (fault, sides), of_load in kept.items():
        cells = [_cell(of_load.get(load)) for load in LOADS]
        counts = [str(sum(getattr(each, field) for each in of_load.values())) for field in _COUNTS.values()]
        lines.append(f"| {fault} | {sides} | {' | '.join([*cells, *counts])} |")
    return "\n".join(lines)


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    within = math.floor(100 * outcome.within / max(1, outcome.sent))
    again = f", {outcome.again} again" if outcome.again else ""
    return f"{outcome.right} + {outcome.refused} of {outcome.sent}, {within} %{again}"
