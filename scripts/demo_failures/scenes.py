"""The four failures, one after the other: each begins under traffic, is seen on the page, and is mended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scheduler.daemon.clocks import wall_s
from scripts.demo.processes import Processes, Running
from scripts.demo_failures.checklist import Check, Explained
from scripts.demo_failures.configuration import SLO_S, Site
from scripts.demo_failures.page import Page
from scripts.demo_failures.traffic import Sent, Traffic
from scripts.fault_table.neighbours import Neighbours

EDGE, FUNCTIONS = "edge:main", "function"
LIGHT_RPS, BEYOND_EDGE_RPS, FLOOD_RPS = 10.0, 90.0, 140.0
"""The emulated edge serves about 75 requests a second, the four function instances about 20."""
_LEAST_WITHIN = 0.6
"""What a tenant within its share keeps in time beside a flood: less than a quiet machine shows, for a busy one."""
_SEEN_LIMIT_S = 20.0
"""Within which the page has to show that something fails, or works again."""
_MENDED_LIMIT_S = 40.0
_LOOK_S = 0.2
_CAP_ROOM_CNY = 4e-4
"""Some thirty function batches of the demo."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What the scenes act on.

    Attributes:
        neighbours: edge server and function endpoint.
        processes: starts clients.
        daemon: the daemon.
        site: its configuration.
        page: what its page gets.
        folder: for files.
        pace: factor on the seconds for which a state is kept.
    """

    neighbours: Neighbours
    processes: Processes
    daemon: Running
    site: Site
    page: Page
    folder: Path
    pace: float = 1.0

    def traffic(self, **tenants: float) -> Traffic:
        """Returns clients that send until the end of its block."""
        return Traffic(self.processes, self.page.url, self.folder, tenants, slo_s=SLO_S)

    def lasts(self, seconds: float) -> None:
        """Keeps a state for a while."""
        time.sleep(seconds * self.pace)

    def cap(self, per_hour_cny: float | None) -> None:
        """Changes the cap by a reload."""
        path = self.folder / "edgeburst.toml"
        path.write_text(replace(self.site, per_hour_cny=per_hour_cny).toml(), encoding="utf-8")
        self.daemon.process.send_signal(signal.SIGHUP)


Seen = Check | Explained


def edge_killed(stage: Stage) -> Iterator[Seen]:
    """The edge server is killed, and started again."""
    scene, page = "edge killed", stage.page
    with stage.traffic(lab=LIGHT_RPS) as clients:
        stage.lasts(4)
        killed_after = page.last_record()
        stage.neighbours.end_edge()
        row = page.place(EDGE, up=False, limit_s=_SEEN_LIMIT_S)
        yield Check(scene, "the page says that the edge is not used, and why", row is not None, _why(row))
        stage.lasts(4)
        served = _answered(page.batches_after(killed_after), FUNCTIONS)
        yield Check(scene, "functions answer meanwhile", served > 0, f"{served} requests answered by functions")
        yield from _of_a_new_one(stage, scene, says=f"{EDGE} did not answer")
        stage.neighbours.start_edge()
        row = page.place(EDGE, up=True, limit_s=_MENDED_LIMIT_S)
        yield Check(scene, "the page says that the edge is used again", row is not None, _why(row))
        back_after = page.last_record()
        stage.lasts(3)
        served = _answered(page.batches_after(back_after), EDGE)
        yield Check(scene, "the edge answers again", served > 0, f"{served} requests answered by the edge")
    yield from _all_ended(scene, clients.sent)


def uplink_cut(stage: Stage) -> Iterator[Seen]:
    """Nothing comes through the uplink any more: the endpoint takes connections and never answers."""
    scene, page = "uplink cut", stage.page
    assert stage.neighbours.endpoint is not None
    endpoint = stage.neighbours.endpoint.process.pid
    with stage.traffic(lab=BEYOND_EDGE_RPS) as clients:
        stage.lasts(4)
        os.kill(endpoint, signal.SIGSTOP)
        try:
            row = page.place(FUNCTIONS, up=False, limit_s=_SEEN_LIMIT_S)
            yield Check(scene, "the page says that functions are not used, and why", row is not None, _why(row))
            cut_after = page.last_record()
            stage.lasts(4)
            batches = page.batches_after(cut_after)
            served, beyond = _answered(batches, EDGE), _answered(batches, FUNCTIONS)
            yield Check(
                scene,
                "the edge answers alone",
                served > 0 and not beyond,
                f"{served} requests answered by the edge, {beyond} by functions",
            )
            yield from _of_a_new_one(stage, scene, says="does not answer")
        finally:
            os.kill(endpoint, signal.SIGCONT)
        row = page.place(FUNCTIONS, up=True, limit_s=_MENDED_LIMIT_S)
        yield Check(scene, "the page says that functions are used again", row is not None, _why(row))
        back_after = page.last_record()
        stage.lasts(4)
        served = _answered(page.batches_after(back_after), FUNCTIONS)
        yield Check(scene, "functions answer again", served > 0, f"{served} requests answered by functions")
    yield from _all_ended(scene, clients.sent)


def cap_reached(stage: Stage) -> Iterator[Seen]:
    """A cap on the money of an hour is reached, and raised."""
    scene, page = "cap reached", stage.page
    with stage.traffic(lab=BEYOND_EDGE_RPS) as clients:
        stage.lasts(3)
        spent = float(page.now()["money"]["since_start"])
        cap = spent + _CAP_ROOM_CNY
        stage.cap(cap)
        caps = page.until(lambda now: now["caps"] if now["caps"]["closed_by"] else None, limit_s=_MENDED_LIMIT_S)
        yield Check(scene, "the page says that the cap is reached, and when it reopens", caps is not None, _cap(caps))
        closed_after = page.last_record()
        stage.lasts(4)
        served = _answered(page.batches_after(closed_after), EDGE)
        yield Check(scene, "the edge answers on", served > 0, f"{served} requests answered by the edge")
        [[_, most, used]] = page.now()["caps"]["caps"]
        yield Check(scene, "no more than the cap is spent", used <= most, f"{used:.6f} of {most:.6f} CNY")
        yield from _of_a_new_one(stage, scene, says="spend cap")
        stage.cap(None)
        free = page.until(lambda now: None if now["caps"]["closed_by"] else now["caps"], limit_s=_MENDED_LIMIT_S)
        yield Check(scene, "without the cap functions are used again", free is not None, _cap(free))
    yield from _all_ended(scene, clients.sent)


def tenant_flood(stage: Stage) -> Iterator[Seen]:
    """A tenant sends twice what edge and functions can do, beside one within its share."""
    scene, page = "tenant flood", stage.page
    with stage.traffic(ward=LIGHT_RPS) as within_share:
        stage.lasts(4)
        with stage.traffic(flood=FLOOD_RPS) as beyond:
            stage.lasts(13)
            opened = {row[0]: row[2] for row in page.now()["tenants"]}
            yield Check(
                scene,
                "the page shows which tenant has most open",
                bool(opened) and max(opened, key=lambda name: opened[name]) == "flood",
                ", ".join(f"{name} {count}" for name, count in opened.items()),
            )
            yield from _of_the_last_miss(stage, scene)
    ward, flood = within_share.sent, beyond.sent
    seen = f"ward {ward.within:.1%}, flood {flood.within:.1%} within {SLO_S:g} s"
    yield Check(
        scene,
        f"the tenant within its share keeps {_LEAST_WITHIN:.0%} in time or more, and more than the other",
        ward.within >= max(_LEAST_WITHIN, flood.within),
        seen,
    )
    yield Check(
        scene,
        "what is too much is refused to the one that sends it",
        flood.refused > ward.refused,
        f"refused: {flood.refused} of {len(flood.rows)} of flood, {ward.refused} of {len(ward.rows)} of ward",
    )
    yield from _all_ended(scene, ward, flood)


SCENES = (edge_killed, uplink_cut, cap_reached, tenant_flood)


def _all_ended(scene: str, *sent: Sent) -> Iterator[Check]:
    requests, answered, refused = (sum(counts) for counts in zip(*(each.counts for each in sent), strict=True))
    others = [sentence for each in sent for sentence in each.others]
    seen = f"{requests} requests: {answered} answered, {refused} refused"
    more = f", {len(others)} otherwise: {others[0]}" if others else ""
    yield Check(scene, "each request is answered or refused in a sentence", requests > 0 and not others, seen + more)


def _answered(batches: Sequence[Mapping[str, Any]], place: str) -> int:
    backend = place.partition(":")[0]
    return sum(row["requests"] for row in batches if row["backend"] == backend and not row["error"])


def _why(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "it does not say so"
    # The words of the page where no batch has failed yet.
    why = row["why"] or "it does not answer its probes"
    return f"{row['place']} is used" if row["up"] else f"{row['place']} is not used: {why}"


def _cap(caps: Mapping[str, Any] | None) -> str:
    if caps is None:
        return "it does not say so"
    if not caps["closed_by"]:
        return "no cap keeps functions from being used"
    reopens = f", reopens in {max(0, round(caps['opens_s'] - wall_s()))} s" if caps["opens_s"] else ""
    return f"cap of the {caps['closed_by']} reached{reopens}"


def _of_the_last_miss(stage: Stage, scene: str) -> Iterator[Seen]:
    yield from _explained(scene, stage.page.explained(scene, "/v1/explain?last=miss"), "the newest miss is explained")


def _of_a_new_one(stage: Stage, scene: str, *, says: str) -> Iterator[Seen]:
    """Explains the newest request whose explanation says what the scene is about: not each is offered every place."""
    found = None
    end_s = time.monotonic() + _SEEN_LIMIT_S
    while (found is None or says not in found.text) and time.monotonic() < end_s:
        time.sleep(_LOOK_S)
        found = stage.page.explained(scene, "/v1/explain?last=request")
    yield from _explained(scene, found, f"a new request is explained, with {says!r}", says=says)


def _explained(scene: str, found: Explained | None, what: str, *, says: str = "") -> Iterator[Seen]:
    seen = "it is not known" if found is None else f"request {found.request_id}, below"
    yield Check(scene, what, found is not None and says in found.text, seen)
    if found is not None:
        yield found
