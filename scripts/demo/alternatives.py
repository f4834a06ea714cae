"""The same arrivals under other policies and the bound, simulated with the demo's laws: what the daemon saves."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from scheduler.domain.latency import FunctionTier
from scheduler.domain.plans import ServiceClass
from scheduler.domain.requests import Backend
from scheduler.planner.catalogue.prices import load_sheet
from scheduler.simulator import network
from scheduler.simulator.bound_note import noted_bound
from scheduler.simulator.report import within_slo
from scheduler.simulator.scenario import Scenario, SimulatedClass
from scheduler.simulator.world import make_requests, make_simulation
from scheduler.workloads import Seconds, Workload
from scripts.demo.configuration import Places
from scripts.demo.instances import WarmInstances, latency_model
from scripts.demo.settings import FUNCTION, MEMORY_GB, PRICE_SHEET, TIER, Settings

POLICIES = ("edgeburst", "edge-only", "function-only", "static")
BOUND = "bound"
WORDS = {
    "edgeburst": "edgeburst, simulated",
    "edge-only": "the edge alone",
    "function-only": "functions alone",
    "static": "static, tuned by hindsight",
    BOUND: "bound",
}
HEADS = ("the same arrivals", "in SLO", "calls, CNY", "idle instances", "bill, CNY")
_MAX_ITEMS = 64


@dataclass(frozen=True, slots=True)
class Simulated:
    """What a policy does with the arrivals.

    Attributes:
        policy: its name, or "bound".
        within_slo: fraction of the requests that are answered within the SLO; None if nothing keeps it.
        calls_cny: cost of calls; None likewise.
        busy_s: seconds for which function instances are at work; None for the bound, which keeps none warm.
        instances: provisioned instances that are kept warm for it.
        note: what is to be known about it; empty otherwise.
    """

    policy: str
    within_slo: float | None
    calls_cny: float | None
    busy_s: float | None
    instances: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A row of the table: what something costs, and keeps of the SLO.

    Attributes:
        words: what it is.
        within_slo: fraction of the requests within the SLO; None if not known.
        calls_cny: cost of calls; None if not known.
        instances: provisioned instances that are kept warm for it.
        idle_cny: cost of those while idle; None if there are none by nature.
        note: what is to be known about it; empty otherwise.
    """

    words: str
    within_slo: float | None
    calls_cny: float | None
    instances: int
    idle_cny: float | None
    note: str = ""

    @property
    def bill_cny(self) -> float | None:
        """The whole bill; None where there is none."""
        return None if self.calls_cny is None else self.calls_cny + (self.idle_cny or 0.0)


def main(argv: Sequence[str] | None = None) -> int:
    """Simulates what a file describes, and prints the results as one line of JSON; returns the exit status."""
    _let_others_first()
    given = json.loads(Path((sys.argv[1:] if argv is None else argv)[0]).read_text(encoding="utf-8"))
    settings = Settings(**{**given["settings"], "out": Path(given["settings"]["out"])})
    settings = replace(settings, rates_rps=tuple(settings.rates_rps))
    times_s = np.load(given["schedule"])["times_s"]
    found = simulate(settings, Places(**given["places"]), WarmInstances(**given["instances"]), times_s, given["bytes"])
    print(json.dumps({"event": "simulated", "found": [asdict(one) for one in found]}), flush=True)
    return 0


def _let_others_first() -> None:
    """Takes only what the measured processes leave of the machine."""
    os.nice(19)
    # A session of its own is a scheduling group of its own on Linux, whose niceness counts beside other groups.
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text("19", encoding="ascii")


def describe(
    settings: Settings, places: Places, instances: WarmInstances, *, schedule: Path, request_bytes: int
) -> str:
    """Returns the content of the file that `main` reads.

    Args:
        settings: settings of the demo, with its number of provisioned instances.
        places: with the profiles that the demo's daemon uses.
        instances: how many a policy with and without an edge keeps warm.
        schedule: file with the arrival times.
        request_bytes: mean bytes of a request.
    """
    given = {"settings": {**asdict(settings), "out": str(settings.out)}, "places": asdict(places)}
    return json.dumps({**given, "instances": asdict(instances), "schedule": str(schedule), "bytes": request_bytes})


def simulate(
    settings: Settings, places: Places, instances: WarmInstances, times_s: Seconds, request_bytes: int
) -> list[Simulated]:
    """Returns what the policies, and the bound, do with the arrivals of the demo."""
    price = load_sheet(PRICE_SHEET).tier_price(memory_gb=MEMORY_GB)
    workload, found = Workload(times_s, settings.duration_s), []
    counts = {"edge-only": 0, "function-only": instances.all_function}
    for policy in POLICIES:
        count = counts.get(policy, settings.provisioned)
        scenario = _scenario(settings, places, policy, instances=max(1, count), request_bytes=request_bytes)
        requests = make_requests(scenario, workload)
        journal = make_simulation(scenario, requests, rate=workload.rate).run()
        calls = sum(one.batch.backend is Backend.FUNCTION for one in journal.batches.values())
        busy_s = max(0.0, journal.cost() - calls * price.per_call) / price.per_s
        found.append(Simulated(policy, within_slo(journal), journal.cost(), busy_s, count))
    bound = noted_bound(scenario, requests)
    return [*found, Simulated(BOUND, None if bound.cny is None else 1.0, bound.cny, None, 0, bound.note)]


def _scenario(settings: Settings, places: Places, policy: str, *, instances: int, request_bytes: int) -> Scenario:
    price = load_sheet(PRICE_SHEET).tier_price(memory_gb=MEMORY_GB)
    function = latency_model(places.function_profile)
    edge = latency_model(places.edge_profile)
    service_class = ServiceClass(slo_s=settings.slo_s, percentile=0.99, serve_late=True)
    return Scenario(
        policy=policy,
        classes=(SimulatedClass(service_class),),
        request_bytes=request_bytes,
        edge_latency=replace(edge, max_batch=min(_MAX_ITEMS, edge.max_batch)),
        tiers=(FunctionTier(TIER, FUNCTION, function, price, max_in_flight=instances),),
        concurrency=instances,
        bandwidth=network.constant(settings.uplink_bytes_per_s / 2**20),
        max_items=_MAX_ITEMS,
        seed=settings.seed,
    )


def alternatives(found: Sequence[Simulated], *, kept_s: float) -> list[Alternative]:
    """Returns the rows of what was simulated, with instances that are kept warm for so many seconds."""
    idle_per_s = load_sheet(PRICE_SHEET).idle_per_s(memory_gb=MEMORY_GB)
    return [
        Alternative(
            WORDS[one.policy],
            one.within_slo,
            one.calls_cny,
            one.instances,
            None if one.busy_s is None else max(0.0, one.instances * kept_s - one.busy_s) * idle_per_s,
            one.note,
        )
        for one in found
    ]


def table_rows(rows: Sequence[Alternative]) -> list[tuple[str, ...]]:
    """Returns the rows as texts under `HEADS`; the first is what was measured, with which the bills are compared."""
    measured = rows[0].bill_cny
    texts: list[tuple[str, ...]] = []
    for one in rows:
        bill = one.bill_cny
        times = f" ({bill / measured:.0%})" if bill is not None and measured and one is not rows[0] else ""
        texts.append(
            (
                one.words,
                "-" if one.within_slo is None else f"{one.within_slo:.2%}",
                "-" if one.calls_cny is None else f"{one.calls_cny:.5f}",
                "-" if one.idle_cny is None else f"{one.idle_cny:.5f} ({one.instances})",
                "none keeps the SLO" if bill is None else f"{bill:.5f}{times}",
            )
        )
    return texts


def sentences(rows: Sequence[Alternative], *, uplink_rps: float, slo_s: float) -> list[str]:
    """Returns what is to be known about the table."""
    notes = [f"The bound knows every arrival beforehand: {one.note}." for one in rows if one.note]
    return [
        f"The first row is what happened; the others are simulated with the same arrivals, the same laws of service, an"
        f" SLO of {slo_s:g} s, and the uplink, which carries {uplink_rps:.0f} requests a second, without noise.",
        "Per cent are of the measured bill; a bill is worth nothing without its share within the SLO. Static has fixed"
        " batches and waits, the best ones for these very arrivals, which nothing knows beforehand.",
        *notes,
    ]


if __name__ == "__main__":
    sys.exit(main())
