"""Bandwidth: what the pipe carries, however transfers share it and in whatever order they are reported."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.estimators.bandwidth import WINDOW, Bandwidth
from scheduler.estimators.changepoint import Change


@dataclass(frozen=True)
class Transfer:
    sent_at_s: float
    upload_end_s: float
    sent_bytes: int


def queued(sent: list[tuple[float, int]], bytes_per_s: float) -> list[Transfer]:
    """A pipe where each transfer waits for the one before it."""
    free_s, transfers = 0.0, []
    for sent_at_s, size in sent:
        free_s = max(free_s, sent_at_s) + size / bytes_per_s
        transfers.append(Transfer(sent_at_s, free_s, size))
    return transfers


def shared(sent: list[tuple[float, int]], bytes_per_s: float) -> list[Transfer]:
    """A pipe whose bandwidth is shared equally by those under way, simulated from event to event."""
    waiting, left, ends, now_s = list(enumerate(sent)), {}, {}, 0.0
    while waiting or left:
        next_s = waiting[0][1][0] if waiting else math.inf
        done_s = now_s + min(left.values()) * len(left) / bytes_per_s if left else math.inf
        until_s = min(next_s, done_s)
        for i in left:
            left[i] -= (until_s - now_s) * bytes_per_s / len(left)
        now_s = until_s
        for i in [i for i, size in left.items() if size <= 1e-6 * sent[i][1]]:
            ends[i] = now_s
            del left[i]
        if next_s <= now_s:
            i, (_, size) = waiting.pop(0)
            left[i] = float(size)
    return [Transfer(at_s, ends[i], size) for i, (at_s, size) in enumerate(sent)]


def learn(transfers: list[Transfer], bandwidth: Bandwidth | None = None) -> Bandwidth:
    bandwidth = bandwidth or Bandwidth()
    for t in transfers:
        bandwidth.update(sent_at_s=t.sent_at_s, upload_end_s=t.upload_end_s, sent_bytes=t.sent_bytes)
    return bandwidth


Pipe = Callable[[list[tuple[float, int]], float], list[Transfer]]
SENT = st.lists(st.tuples(st.floats(0, 0.5), st.integers(20_000, 400_000)), min_size=1, max_size=7)


@given(SENT, st.sampled_from([queued, shared]), st.randoms(use_true_random=False))
def test_short_busy_periods_give_the_bandwidth_exactly(
    gaps: list[tuple[float, int]], pipe: Pipe, order: random.Random
) -> None:
    # At 8 MB/s no busy period of these reaches the length at which it is cut into pieces.
    at_s, sent = 0.0, []
    for gap_s, size in gaps:
        at_s += gap_s
        sent.append((at_s, size))
    transfers = pipe(sent, 8e6)
    order.shuffle(transfers)
    assert learn(transfers).bytes_per_s == pytest.approx(8e6, rel=1e-3)


@pytest.mark.parametrize(
    ("pipe", "offered"), [(queued, 0.3), (queued, 0.9), (queued, 1.3), (shared, 0.3), (shared, 0.9)]
)
def test_random_load_gives_the_bandwidth_within_a_tenth(pipe: Pipe, offered: float) -> None:
    rng = np.random.default_rng(5)
    sizes = rng.integers(20_000, 200_000, 200)
    at_s = np.cumsum(rng.exponential(sizes.mean() / (offered * 1e6), 200))
    sent = list(zip(at_s.tolist(), sizes.tolist(), strict=True))
    transfers = pipe(sent, 1e6)
    # The answers come back after a service time of their own, so not in the order of sending.
    transfers.sort(key=lambda t: t.upload_end_s + rng.lognormal(-1.0, 0.25))
    bandwidth, estimates = Bandwidth(), []
    for transfer in transfers:
        estimates.append(learn([transfer], bandwidth).bytes_per_s)
    assert np.median(estimates[20:]) == pytest.approx(1e6, rel=0.1)
    assert np.percentile(estimates[20:], 5) > 0.5e6
    assert np.percentile(estimates[20:], 95) < 2e6


def test_a_pipe_that_is_never_idle_is_followed_as_well() -> None:
    before = queued([(0.04 * i, 50_000) for i in range(200)], 1e6)
    slow_from_s = before[-1].upload_end_s
    after = [Transfer(slow_from_s - 0.1, slow_from_s + 0.2 * i, 50_000) for i in range(1, 21)]
    bandwidth = learn(before)
    assert bandwidth.bytes_per_s == pytest.approx(1e6, rel=0.01)
    assert learn(after, bandwidth).bytes_per_s == pytest.approx(2.5e5, rel=0.01)


def test_nothing_known_is_none() -> None:
    bandwidth = Bandwidth()
    assert bandwidth.bytes_per_s is None
    assert bandwidth.rtt_s is None


def test_transfers_too_fast_to_be_measured_leave_it_unknown() -> None:
    assert learn([Transfer(i, i + 0.0001, 100_000) for i in range(5)]).bytes_per_s is None


def test_a_small_transfer_too_short_to_be_measured_says_nothing() -> None:
    bandwidth = learn([Transfer(i, i + 0.1, 200_000) for i in range(3)])
    learn([Transfer(10 + i, 10 + i, 1000) for i in range(20)], bandwidth)
    assert bandwidth.bytes_per_s == pytest.approx(2e6)


def test_large_transfers_too_short_to_be_measured_make_it_ample_again() -> None:
    bandwidth = learn([Transfer(i, i + 0.1, 200_000) for i in range(3)])
    learn([Transfer(10 + i, 10 + i, 200_000) for i in range(20)], bandwidth)
    assert bandwidth.bytes_per_s is None


def test_one_stalled_transfer_does_not_move_it() -> None:
    transfers = [Transfer(i, i + 0.1, 200_000) for i in range(5)] + [Transfer(5.0, 5.9, 200_000)]
    assert learn(transfers).bytes_per_s == pytest.approx(2e6)


def test_a_dead_uplink_is_zero_and_recovers() -> None:
    transfers = [Transfer(3.0 * i, 3.0 * i + 2.0, 0) for i in range(WINDOW)]
    bandwidth = learn(transfers)
    assert bandwidth.bytes_per_s == 0.0
    learn([Transfer(100.0 + i, 100.0 + i + 0.1, 100_000) for i in range(3)], bandwidth)
    assert bandwidth.bytes_per_s == pytest.approx(1e6)


def test_old_measurements_do_not_count_beside_a_new_one() -> None:
    bandwidth = learn([Transfer(i, i + 0.1, 200_000) for i in range(8)])
    assert learn([Transfer(100.0, 100.1, 50_000)], bandwidth).bytes_per_s == pytest.approx(5e5)


def test_an_end_before_its_start_is_a_transfer_too_short_to_be_measured() -> None:
    bandwidth = learn([Transfer(1.0, 0.5, 1000)])
    assert bandwidth.bytes_per_s is None


def test_a_probe_on_the_idle_pipe_counts_like_a_transfer() -> None:
    assert learn([Transfer(7.0, 7.5, 64_000)]).bytes_per_s == pytest.approx(128_000)


def watched_step(seed: int, before: float, after: float) -> dict[int, Change]:
    """Changes by transfer, where the bandwidth steps at the hundredth; scatter 0.3."""
    rng = np.random.default_rng(seed)
    bandwidth, found = Bandwidth(), {}
    bandwidth.watch()
    for i in range(140):
        size = int(rng.integers(50_000, 200_000))
        speed = (before if i < 100 else after) * rng.lognormal(0, 0.3)
        change = bandwidth.update(sent_at_s=i, upload_end_s=i + size / speed, sent_bytes=size)
        if change is not None:
            found[i] = change
            assert bandwidth.bytes_per_s == pytest.approx(after, rel=0.7)
    return found


def test_a_halved_bandwidth_is_found_within_twelve_transfers_and_followed_at_once() -> None:
    first = [min(i for i in found if i >= 100) - 99 for seed in range(30) if (found := watched_step(seed, 2e6, 1e6))]
    assert len(first) == 30
    assert np.median(first) <= 7


def test_a_change_tells_the_logarithms_of_both_bandwidths() -> None:
    (change,) = watched_step(3, 4e6, 5e5).values()
    assert math.exp(change.before_mean) == pytest.approx(4e6, rel=0.1)
    assert math.exp(change.after_mean) == pytest.approx(5e5, rel=0.5)


def test_an_uplink_that_dies_is_a_change() -> None:
    bandwidth = Bandwidth()
    bandwidth.watch()
    changes = []
    for i in range(60):
        size = 100_000 if i < 50 else 0
        changes.append(bandwidth.update(sent_at_s=i, upload_end_s=i + 0.1, sent_bytes=size))
    assert [i for i, change in enumerate(changes) if change] == [52]
    assert bandwidth.bytes_per_s == 0.0


def test_no_change_is_reported_unless_it_watches() -> None:
    transfers = queued([(float(i), 100_000) for i in range(50)], 4e6)
    transfers += [Transfer(50.0 + i, 50.5 + i, 100_000) for i in range(50)]
    bandwidth = Bandwidth()
    for t in transfers:
        assert bandwidth.update(sent_at_s=t.sent_at_s, upload_end_s=t.upload_end_s, sent_bytes=t.sent_bytes) is None
    assert bandwidth.bytes_per_s == pytest.approx(2e5)


def test_round_trip_is_the_lower_quartile_of_the_last_sixteen() -> None:
    bandwidth = Bandwidth()
    for rtt_s in [9.0] * 20 + [0.01 * i for i in range(16, 0, -1)]:
        bandwidth.update_rtt(rtt_s)
    assert bandwidth.rtt_s == pytest.approx(0.04)


def test_a_busy_time_is_judged_only_when_all_it_carried_is_known() -> None:
    bandwidth = Bandwidth()
    bandwidth.watch()
    changes = []
    for i in range(60):
        start_s = 10.0 * i
        # Two transfers one behind the other at 1 MB/s; the second, from a fast function, is reported first.
        open_since_s = start_s
        changes.append(
            bandwidth.update(
                sent_at_s=start_s, upload_end_s=start_s + 2.0, sent_bytes=1_000_000, open_since_s=open_since_s
            )
        )
        changes.append(bandwidth.update(sent_at_s=start_s, upload_end_s=start_s + 1.0, sent_bytes=1_000_000))
    assert not any(changes)
    assert bandwidth.bytes_per_s == pytest.approx(1e6)


def test_counted_bytes_give_the_bandwidth_although_no_transfer_ends() -> None:
    bandwidth = learn(queued([(float(i), 100_000) for i in range(4)], 4e6))
    for i in range(4):
        bandwidth.carried(start_s=10 + 0.25 * i, end_s=10.25 + 0.25 * i, carried_bytes=250_000)
    assert bandwidth.bytes_per_s == pytest.approx(1e6)


def test_transfers_of_a_time_that_was_counted_tell_nothing_more() -> None:
    bandwidth = Bandwidth()
    for i in range(8):
        bandwidth.carried(start_s=0.25 * i, end_s=0.25 * (i + 1), carried_bytes=250_000)
    # Sixteen that shared the link come back together: alone they would look like a burst at its end.
    learn([Transfer(0.0, 2.0, 125_000)] * 16, bandwidth)
    assert bandwidth.bytes_per_s == pytest.approx(1e6)
    learn([Transfer(3.0 + i, 3.1 + i, 200_000) for i in range(5)], bandwidth)
    assert bandwidth.bytes_per_s == pytest.approx(2e6)


def test_a_step_is_followed_within_a_second_of_counted_bytes() -> None:
    bandwidth = Bandwidth()
    for i in range(12):
        rate = 1e6 if i < 8 else 2.5e5
        bandwidth.carried(start_s=0.25 * i, end_s=0.25 * (i + 1), carried_bytes=round(0.25 * rate))
    assert bandwidth.bytes_per_s == pytest.approx(2.5e5)


def test_a_link_that_carries_nothing_is_known_within_a_second() -> None:
    bandwidth = learn(queued([(float(i), 100_000) for i in range(8)], 4e6))
    for i in range(4):
        bandwidth.carried(start_s=10 + 0.25 * i, end_s=10.25 + 0.25 * i, carried_bytes=0)
    assert bandwidth.bytes_per_s == 0.0


@given(
    st.lists(
        st.tuples(st.booleans(), st.floats(0, 0.5), st.floats(0.001, 3.0), st.integers(0, 10**6)),
        min_size=1,
        max_size=40,
    )
)
def test_whatever_is_counted_or_ends_the_bandwidth_is_a_number_and_few_periods_are_kept(
    events: list[tuple[bool, float, float, int]],
) -> None:
    bandwidth, at_s = Bandwidth(), 0.0
    bandwidth.watch()
    for counted, gap_s, length_s, size in events:
        at_s += gap_s
        if counted:
            bandwidth.carried(start_s=at_s, end_s=at_s + length_s, carried_bytes=size)
        else:
            bandwidth.update(sent_at_s=at_s, upload_end_s=at_s + length_s, sent_bytes=size)
        at_s += length_s if counted else 0.0
        known = bandwidth.bytes_per_s
        assert known is None or (known >= 0 and math.isfinite(known))
        assert len(bandwidth.snapshot(at_s)["busy"]) <= WINDOW  # type: ignore[arg-type]
