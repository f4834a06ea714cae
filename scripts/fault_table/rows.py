"""The rows: what goes wrong, when, under which load, and with which sides."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from scripts.fault_table.liar import FORMS, LIES, STATUSES
from scripts.fault_table.neighbours import kill_group, until
from scripts.fault_table.scene import Scene

LOADS: Mapping[str, float] = {"light": 20.0, "medium": 75.0, "overload": 165.0}
"""Requests a second; the emulated edge serves about 110, the four function instances about 20."""
BEGINS_S, MENDS_S, SECONDS = 1.5, 4.5, 6.5
"""When the fault begins, when it is mended, and how long requests are sent."""
SIDES = ("both", "edge", "function")
Action = Callable[[Scene], object]


@dataclass(frozen=True, slots=True)
class Row:
    """One fault under one load."""

    fault: str
    sides: str = "both"
    load: str = "medium"
    steps: Sequence[tuple[float, Action]] = ()
    """What happens after so many seconds."""
    before: Action | None = None
    """What happens before the daemon starts."""
    through_liar: bool = False
    """Whether the daemon reaches the edge through the liar."""
    daemon: Mapping[str, object] = field(default_factory=dict)
    """Changes of its settings."""
    again: bool = False
    """Whether clients send a request again whose connection ended: only where a daemon is killed."""
    broken_share: float = 0.0
    """Share of broken pictures among the items."""
    needs: str = ""
    """root, or libfaketime."""

    @property
    def name(self) -> str:
        """What selects it."""
        return f"{self.fault}/{self.sides}/{self.load}"


def _lasting(begin: Action, mend: Action) -> Sequence[tuple[float, Action]]:
    return ((BEGINS_S, begin), (MENDS_S, mend))


def _edge_lies(mode: str) -> Sequence[tuple[float, Action]]:
    return _lasting(lambda s: s.neighbours.edge_mode.write_text(mode), lambda s: s.neighbours.edge_mode.write_text(""))


def _function_lies(mode: str) -> Sequence[tuple[float, Action]]:
    return _lasting(
        lambda s: s.neighbours.function_mode.write_text(mode), lambda s: s.neighbours.function_mode.write_text("")
    )


def _endpoint_fault(**fault: object) -> Sequence[tuple[float, Action]]:
    return _lasting(lambda s: s.neighbours.fault(function="*", rate=1.0, **fault), lambda s: s.neighbours.no_fault())


def _paused(which: str) -> Sequence[tuple[float, Action]]:
    def send(scene: Scene, number: int) -> None:
        running = getattr(scene.neighbours, which)
        os.kill(running.process.pid, number)

    return _lasting(lambda s: send(s, signal.SIGSTOP), lambda s: send(s, signal.SIGCONT))


def _kill_container(scene: Scene) -> None:
    groups = scene.neighbours.containers()
    if groups:
        kill_group(random.Random(len(groups)).choice(groups))


def _kill_containers(scene: Scene) -> None:
    for group in scene.neighbours.containers():
        kill_group(group)


def _kill_edge_twice(scene: Scene) -> None:
    scene.neighbours.end_edge()
    scene.neighbours.end_endpoint()


def _restore_both(scene: Scene) -> None:
    scene.neighbours.start_edge()
    scene.neighbours.restore_endpoint()


EDGE_FAULTS: Mapping[str, Sequence[tuple[float, Action]]] = {
    "edge killed, back after 3 s": _lasting(lambda s: s.neighbours.end_edge(), lambda s: s.neighbours.start_edge()),
    "edge killed, stays away": ((BEGINS_S, lambda s: s.neighbours.end_edge()),),
    "edge stopped and restarted": (
        (BEGINS_S, lambda s: s.neighbours.end_edge(signal.SIGTERM)),
        (BEGINS_S + 0.1, lambda s: s.neighbours.start_edge()),
    ),
    "edge restarted with other weights": (
        (BEGINS_S, lambda s: s.neighbours.end_edge()),
        (BEGINS_S + 0.1, lambda s: s.neighbours.start_edge("--random-weights", "digits")),
    ),
    "edge hangs (SIGSTOP)": _paused("edge"),
}
AT_ALL_LOADS = ("slow", "hangs", "closes", "NaN", "429", "503")
ALONE_TOO = ("slow", "hangs", "closes", "NaN", "reordered", "HTML", "truncated", "endless", "429", "503", "500")
LYING_EDGE = ("slow", "hangs", "closes", *LIES, *FORMS, *STATUSES)
FUNCTION_FAULTS: Mapping[str, Sequence[tuple[float, Action]]] = {
    "containers crash, one each second": tuple((BEGINS_S + i, _kill_container) for i in range(3)),
    "all containers gone, cold wave": (
        (BEGINS_S, lambda s: s.neighbours.fault(function="*", rate=1.0, kind="cold_start", delay_s=2.0)),
        (BEGINS_S + 0.1, _kill_containers),
        (MENDS_S, lambda s: s.neighbours.no_fault()),
    ),
    "429 storm": _endpoint_fault(kind="status", status=429, code="Throttling", message="too many"),
    "no capacity": _endpoint_fault(kind="capacity"),
    "account error as 400": _endpoint_fault(kind="status", status=400, code="InsufficientBalance", message="pay"),
    "signature refused, 403": _endpoint_fault(kind="status", status=403, code="SignatureNotMatch", message="no"),
    "500 of the platform": _endpoint_fault(kind="status", status=500, code="InternalServerError", message="sorry"),
    "503 as HTML": _endpoint_fault(kind="status", status=503, body="html"),
    "endpoint hangs (SIGSTOP)": _paused("endpoint"),
    "calls stall": _endpoint_fault(kind="stall", delay_s=600.0),
    "reset before the answer": _endpoint_fault(kind="reset"),
    "gone mid-answer": _endpoint_fault(kind="close", after=True),
    "answer truncated": _endpoint_fault(kind="truncate", fraction=0.5),
    "answer drips": _endpoint_fault(kind="drip", bytes_per_s=20),
    "endpoint killed, back after 3 s": _lasting(
        lambda s: s.neighbours.end_endpoint(), lambda s: s.neighbours.restore_endpoint()
    ),
}
LYING_FUNCTION = ("slow", "hangs", *LIES, *FORMS)


def _successor(scene: Scene) -> None:
    scene.daemon.start("--wait-s", "60", wait=False)
    until(lambda: _waited_for(scene.disk / "state"), "a successor that waits", limit_s=30.0)
    scene.daemon.signal(signal.SIGTERM, life=-2)
    scene.daemon.running.wait_for("ready", limit_s=60.0)


def _waited_for(folder: Path) -> bool:
    """Returns whether a connection to the folder's socket is open, as the kernel lists it."""
    path = str((folder / "handover").resolve())
    lines = Path("/proc/net/unix").read_text(encoding="utf-8").splitlines()
    return any(line.endswith(path) and line.split()[5] == "03" for line in lines)


def _crash(scene: Scene) -> None:
    scene.daemon.kill()
    scene.daemon.start()


def _reload(scene: Scene, changes: Mapping[str, object]) -> None:
    scene.daemon.write(replace(scene.daemon.settings, **changes))  # type: ignore[arg-type]
    scene.daemon.signal(signal.SIGHUP)


_CHANGES: Sequence[Mapping[str, object]] = (
    {"slo_s": 0.8},
    {"late": "serve"},
    {"endpoint": ""},
    {"slo_s": 1.2, "late": "refuse"},
)
_RELOADS = tuple((1.0 + index, partial(_reload, changes=changes)) for index, changes in enumerate(_CHANGES))


def _daemon_rows() -> Iterator[Row]:
    for load in LOADS:
        with_state = {"state": True}
        yield Row("daemon stopped, successor takes over", load=load, steps=((2.0, _successor),), daemon=with_state)
        yield Row("daemon crashes, starts again", load=load, steps=((2.0, _crash),), daemon=with_state, again=True)
        yield Row("four reloads with changes", load=load, steps=_RELOADS)
    yield Row(
        "state and explain on a full disk",
        steps=_lasting(lambda s: s.fill_disk(), lambda s: s.empty_disk()),
        daemon={"state": True, "explain": True, "spend_per_hour": 10.0},
        before=lambda s: s.mount_disk(),
        needs="root",
    )
    yield Row(
        "state and explain folders turn read-only",
        steps=_lasting(lambda s: s.disk_read_only(), lambda s: s.disk_writable()),
        daemon={"state": True, "explain": True, "spend_per_hour": 10.0},
        before=lambda s: s.mount_disk(),
        needs="root",
    )
    for name, seconds in (("ahead", 3600), ("back", -3600)):
        yield Row(
            f"the daemon's clock steps an hour {name}",
            steps=_lasting(partial(Scene.step_clock, ahead_s=seconds), lambda s: s.step_clock(0)),
            before=lambda s: s.fake_clock(),
            daemon={"state": True, "spend_per_hour": 10.0},
            needs="libfaketime",
        )
    yield Row("ulimit -n 64", load="light", before=lambda s: s.few_files(64))
    yield Row("every tenth picture broken", load="light", broken_share=0.1)


def all_rows() -> list[Row]:
    """Returns the whole table, in the order in which it is run."""
    rows = [Row("none", load=load) for load in LOADS]
    rows += [Row("none", "edge"), Row("none", "function", "light")]
    for fault, steps in EDGE_FAULTS.items():
        rows += [Row(fault, load=load, steps=steps) for load in LOADS]
        rows.append(Row(fault, "edge", steps=steps))
    for mode in LYING_EDGE:
        for load in LOADS if mode in AT_ALL_LOADS else ("light",):
            rows.append(Row(f"edge: {mode}", "both", load, steps=_edge_lies(mode), through_liar=True))
        if mode in ALONE_TOO:
            rows.append(Row(f"edge: {mode}", "edge", steps=_edge_lies(mode), through_liar=True))
    for fault, steps in FUNCTION_FAULTS.items():
        rows.append(Row(fault, "both", "overload", steps=steps))
        rows.append(Row(fault, "function", "light", steps=steps))
    for mode in LYING_FUNCTION:
        if mode in ALONE_TOO:
            rows.append(Row(f"function: {mode}", "both", "overload", steps=_function_lies(mode)))
        rows.append(Row(f"function: {mode}", "function", "light", steps=_function_lies(mode)))
    for side, load in (("both", "overload"), ("function", "light")):
        rows.append(Row("functions' name is not found", side, load, daemon={"endpoint": "functions.invalid:443"}))
    rows += [
        Row("both killed, back after 3 s", load=load, steps=_lasting(_kill_edge_twice, _restore_both)) for load in LOADS
    ]
    rows += _daemon_rows()
    return rows


QUICK = (
    "none/both/medium",
    "edge killed, back after 3 s/both/medium",
    "edge restarted with other weights/both/light",
    "edge: NaN/both/light",
    "edge: reordered/edge/medium",
    "429 storm/both/overload",
    "account error as 400/both/overload",
    "daemon stopped, successor takes over/both/medium",
    "daemon crashes, starts again/both/medium",
)
"""A handful for every change."""
