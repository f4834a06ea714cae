"""Occupancy of the edge and of the uplink."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.dispatch.edge_occupancy import EdgeOccupancy
from scheduler.dispatch.uplink import Slots, UplinkOccupancy
from scheduler.domain.service_times import service_times
from scheduler.domain.uplink import UplinkEstimate


@given(st.lists(st.floats(0.001, 10.0), min_size=1, max_size=40), st.floats(0.0, 12.0))
def test_largest_within_agrees_with_a_scan(latencies_s: list[float], seconds: float) -> None:
    times = service_times(latencies_s, margin=1.2)
    scan = max((b for b in range(1, len(latencies_s) + 1) if times.safe_s[b] <= seconds), default=0)
    assert times.largest_within(seconds, safe=True) == scan


def test_an_overdue_batch_is_expected_to_need_as_long_again_as_it_is_overdue() -> None:
    edge = EdgeOccupancy()
    edge.occupy(batch_id=1, now_s=10.0, finish_s=10.2)
    assert edge.free_at_s(10.1) == 10.2
    assert edge.free_at_s(10.5) == pytest.approx(10.8)


def test_release_of_a_batch_given_up_before_is_ignored() -> None:
    edge = EdgeOccupancy()
    edge.occupy(batch_id=2, now_s=0.0, finish_s=1.0)
    edge.release(1, now_s=0.5)
    assert not edge.idle


def test_a_batch_waits_for_the_uplink_behind_the_one_before() -> None:
    uplink = UplinkOccupancy(UplinkEstimate(bytes_per_s=1000.0, rtt_s=0.1))
    uplink.occupy(batch_id=1, body_bytes=500, now_s=0.0, finish_s=2.0)
    assert uplink.expected_path_s(200, now_s=0.1, slots=Slots(8)) == pytest.approx(0.4 + 0.2 + 0.1)


def test_without_a_free_slot_the_path_begins_when_one_is_expected() -> None:
    uplink = UplinkOccupancy(UplinkEstimate(bytes_per_s=None, rtt_s=0.0))
    uplink.occupy(batch_id=1, body_bytes=1, now_s=0.0, finish_s=2.0)
    assert uplink.expected_path_s(1, now_s=0.5, slots=Slots(1)) == pytest.approx(1.5)


def test_zero_bandwidth_is_an_input_not_a_crash() -> None:
    uplink = UplinkOccupancy(UplinkEstimate(bytes_per_s=0.0))
    assert uplink.expected_path_s(1, now_s=0.0, slots=Slots(1)) == float("inf")
    uplink.occupy(batch_id=1, body_bytes=1, now_s=0.0, finish_s=float("inf"))
    uplink.release(1, now_s=5.0)
    assert uplink.free_at_s <= 5.0
