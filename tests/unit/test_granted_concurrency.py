"""Learned concurrency: a steady quota is met once and then seldom, a raised one is found, a lowered one is obeyed."""

import heapq

import pytest

from scheduler.dispatch.granted_concurrency import FIRST_PAUSE_S, GrantedConcurrency

SERVICE_S, REFUSAL_S, STEP_S = 1.0, 0.05, 0.01


class Provider:
    """Sends as many batches as are allowed, each of one second, to a provider that runs `quota` at a time."""

    def __init__(self, granted: GrantedConcurrency | None = None) -> None:
        self.granted = granted or GrantedConcurrency()
        self.refused = self.ran = self.number = 0
        self.events: list[tuple[float, int, bool]] = []
        self.sent: dict[int, tuple[float, int]] = {}
        self.running = 0

    def saturate(self, start_s: float, end_s: float, *, quota: int, most: int = 64) -> None:
        now_s = start_s
        while now_s < end_s:
            while self.events and self.events[0][0] <= now_s:
                self._back(now_s, *heapq.heappop(self.events)[1:])
            limit = self.granted.limit(now_s)
            while len(self.events) < (most if limit is None else min(limit, most)):
                self.number += 1
                ran = self.running < quota
                self.running += ran
                heapq.heappush(self.events, (now_s + (SERVICE_S if ran else REFUSAL_S), self.number, ran))
                self.sent[self.number] = now_s, len(self.events)
            now_s += STEP_S

    def _back(self, now_s: float, batch_id: int, ran: bool) -> None:
        sent_at_s, running = self.sent.pop(batch_id)
        if ran:
            self.running -= 1
            self.ran += 1
            self.granted.answered(running, sent_at_s=sent_at_s, now_s=now_s)
            return
        self.refused += 1
        ahead = 1 + sum(other < batch_id for _, other, _ in self.events)
        self.granted.refused(ahead, sent_at_s=sent_at_s, now_s=now_s)


@pytest.mark.parametrize("quota", [1, 2, 4, 12, 40])
def test_a_steady_quota_is_met_once_and_then_seldom(quota: int) -> None:
    provider = Provider()
    provider.saturate(0.0, 5.0, quota=quota)
    first, provider.refused, provider.ran = provider.refused, 0, 0
    assert first >= 64 - quota
    assert provider.granted.granted == quota
    provider.saturate(5.0, 605.0, quota=quota)
    assert provider.refused <= 16
    assert provider.ran >= 0.85 * quota * 600.0


def test_a_raised_quota_is_found_and_a_lowered_one_is_obeyed() -> None:
    provider = Provider()
    provider.saturate(0.0, 30.0, quota=4)
    provider.saturate(30.0, 120.0, quota=16)
    limit = provider.granted.limit(120.0)
    assert limit is None or limit >= 14
    provider.refused = 0
    provider.saturate(120.0, 140.0, quota=3)
    assert provider.granted.limit(140.0) in (2, 3, 4)
    provider.refused = 0
    provider.saturate(140.0, 240.0, quota=3)
    assert provider.refused <= 6


def test_an_outage_of_refusals_leaves_what_was_known_before() -> None:
    granted = GrantedConcurrency()
    granted.refused(31, sent_at_s=0.0, now_s=0.1)
    granted.answered(1, sent_at_s=1.0, now_s=2.0)
    known = granted.level, granted.wall
    for running in range(20, 0, -1):  # as many as ran end one after the other, and each new batch is refused
        now_s = 40.0 - running
        granted.refused(running, sent_at_s=now_s, now_s=now_s + 0.1)
    assert (granted.level, granted.wall) == known


def test_refused_alone_nothing_is_learned() -> None:
    granted = GrantedConcurrency()
    granted.refused(1, sent_at_s=0.0, now_s=0.1)
    assert (granted.limit(0.2), granted.granted) == (None, None)


def test_what_was_known_is_taken_up_and_an_old_wall_may_be_tried_at_once() -> None:
    granted = GrantedConcurrency()
    granted.refused(31, sent_at_s=0.0, now_s=5.0)
    for at_s in range(6, 12):
        granted.answered(30, sent_at_s=at_s, now_s=at_s + 0.5)
    assert granted.limit(5.0) == 30
    saved = granted.snapshot(5.0)
    young = GrantedConcurrency.restored(saved, age_s=1.0, now_s=100.0)
    old = GrantedConcurrency.restored(saved, age_s=FIRST_PAUSE_S, now_s=100.0)
    assert (young.granted, young.limit(100.0), old.granted, old.limit(100.0)) == (30, 30, 30, 31)


@pytest.mark.parametrize("content", [None, [1.0, 2], [0.5, 2, 10.0, 0.0], [4.0, 1, 10.0, 0.0], [4.0, "5", 10.0, 0.0]])
def test_what_is_not_understood_raises(content: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        GrantedConcurrency.restored(content, age_s=0.0, now_s=0.0)
