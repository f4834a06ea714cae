"""The billing meter against brute force on a grid of time, and its money against sums by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.planner.catalogue.prices import load_sheet
from serverless_fn.local_fc.ledger import Ledger
from serverless_fn.local_fc.meter import GRAIN_NS, ActivityMeter, Residence, Usage, total
from serverless_fn.local_fc.prices import Resources, shipped_sheets

SECOND_NS = 10**9
SHEETS = {sheet.provenance["name"]: sheet for sheet in shipped_sheets()}

Interval = tuple[int, int]
intervals = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 60)).map(lambda p: (p[0], p[0] + p[1])), max_size=12)


def metered(calls: list[Interval], end: int, residence: Residence, unit_ns: int) -> Usage:
    """Play the calls on a meter that keeps the residence from 0 to the end."""
    meter = ActivityMeter()
    meter.reside(residence, 0)
    # At one instant beginnings come first: what touches is one stretch.
    events = sorted([(start, 0) for start, _ in calls] + [(stop, 1) for _, stop in calls])
    for at, kind in events:
        (meter.begin if kind == 0 else meter.end)(at * unit_ns)
    return meter.used(end * unit_ns)


@given(calls=intervals)
def test_active_time_is_the_union_of_the_calls_and_the_rest_is_idle(calls: list[Interval]) -> None:
    end = 300
    busy = {moment for start, stop in calls for moment in range(start, stop)}
    used = metered(calls, end, Residence.ALLOCATED, GRAIN_NS)
    assert used.invocations == len(calls)
    assert used.active_ns == len(busy) * GRAIN_NS
    assert used.billed_ms == len(busy)
    assert used.allocated_idle_ns == (end - len(busy)) * GRAIN_NS


@given(calls=intervals)
def test_each_stretch_is_rounded_up_to_a_millisecond(calls: list[Interval]) -> None:
    unit_ns = 370_000
    busy = {moment for start, stop in calls for moment in range(start, stop)}
    # A moment begins a stretch if the one before it is idle.
    starts = sorted(moment for moment in busy if moment - 1 not in busy)
    lengths = [next(n for n in range(1, 400) if start + n not in busy) for start in starts]
    billed_ms = sum(-(-length * unit_ns // GRAIN_NS) for length in lengths)
    used = metered(calls, 300, Residence.ON_DEMAND, unit_ns)
    assert (used.billed_ms, used.active_ns) == (billed_ms, len(busy) * unit_ns)
    assert used.provisioned_idle_s == 0


def test_three_overlapping_calls_of_ten_seconds_are_ten_seconds() -> None:
    used = metered([(0, 10), (0, 10), (0, 10)], 20, Residence.ON_DEMAND, SECOND_NS)
    assert (used.invocations, used.billed_ms) == (3, 10_000)


def test_a_call_that_is_still_running_is_in_the_figures_and_hooks_are_counted_apart() -> None:
    meter = ActivityMeter()
    meter.begin(0, hook=True)
    meter.end(2 * SECOND_NS)
    meter.begin(3 * SECOND_NS)
    assert meter.used(4 * SECOND_NS) == Usage(invocations=1, hooks=1, active_ns=3 * SECOND_NS, billed_ms=3000)
    assert meter.used(5 * SECOND_NS).billed_ms == 4000


def test_idle_time_goes_by_the_residence_of_its_moment() -> None:
    meter = ActivityMeter()
    meter.reside(Residence.ALLOCATED, 0)
    meter.reside(Residence.HIBERNATED, 2 * SECOND_NS)
    meter.reside(Residence.ON_DEMAND, 5 * SECOND_NS)
    used = meter.used(9 * SECOND_NS)
    assert (used.allocated_idle_ns, used.hibernated_idle_ns) == (2 * SECOND_NS, 3 * SECOND_NS)


@given(
    ms=st.integers(0, 100_000),
    memory_gb=st.sampled_from([0.5, 1.0, 4.0]),
    name=st.sampled_from(sorted(SHEETS)),
)
def test_one_call_costs_what_the_planner_expects_it_to_cost(ms: int, memory_gb: float, name: str) -> None:
    bill = SHEETS[name].bill(Usage(invocations=1, billed_ms=ms), Resources(1.0, memory_gb, 0.5))
    assert bill is not None
    price = load_sheet(name).tier_price(memory_gb=memory_gb, vcpu=1.0, disk_gb=0.5)
    assert bill.total == pytest.approx(price.cost(ms / 1000), rel=1e-9)


def test_provisioned_idle_seconds_cost_the_active_rate_and_stand_apart() -> None:
    usage = Usage(invocations=2, billed_ms=500, allocated_idle_ns=3 * SECOND_NS)
    bill = SHEETS["cny-gbs-2023"].bill(usage, Resources(1.0, 2.0, 0.5))
    assert bill is not None
    assert bill.active == pytest.approx(0.5 * 2 * 1.27e-5)
    assert bill.calls == pytest.approx(2 * 9e-7)
    assert bill.provisioned_idle == pytest.approx(3 * 2 * 1.27e-5)


def test_the_documented_examples_of_compute_units() -> None:
    card = Resources(8.0, 32.0, 0.5, 16.0, "fc.gpu.tesla.1")
    active = SHEETS["fc3-cu-usd"].bill(Usage(billed_ms=1000), card)
    idle = SHEETS["fc3-cu-usd"].bill(Usage(hibernated_idle_ns=SECOND_NS), card)
    assert active is not None
    assert idle is not None
    assert (active.compute_units, idle.compute_units) == (pytest.approx(46.425), pytest.approx(12.825))
    assert active.total == pytest.approx(46.425 * 2e-5)


def test_a_configuration_without_a_price_has_none_rather_than_half_a_sum() -> None:
    ledger = Ledger()
    ledger.close("a", Resources(1.0, 1.0, 0.5), Usage(invocations=1, billed_ms=10))
    ledger.close("b", Resources(4.0, 16.0, 0.5, 16.0, "fc.gpu.ampere.1"), Usage(invocations=1, billed_ms=10))
    report = ledger.report([], SHEETS.values())
    assert report["functions"]["a"]["cost"]["cny-gbs-2023"]["total"] > 0
    assert report["functions"]["b"]["cost"] == {"cny-gbs-2023": None, "fc3-cu-usd": None}
    assert report["total"]["cost"]["cny-gbs-2023"] is None


def test_a_report_holds_what_is_gone_and_what_is_live() -> None:
    ledger, resources = Ledger(), Resources(1.0, 1.0, 0.5)
    gone, live = Usage(invocations=1, billed_ms=10, active_ns=9), Usage(invocations=2, billed_ms=5, active_ns=4)
    ledger.close("f", resources, gone)
    ledger.close("f", resources, gone)
    function = ledger.report([("f", resources, live)], SHEETS.values())["functions"]["f"]
    assert function["invocations"] == 4
    assert function["billed_s"] == pytest.approx(0.025)
    assert total([gone, gone, live]).active_ns == 22
