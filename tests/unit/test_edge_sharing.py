"""Which part of a reported wait is behind other daemons' batches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.explained import a_batch

from scheduler.dispatch.edge_sharing import EdgeSharing
from scheduler.domain.batches import BatchReport, FailureKind

BATCH = a_batch(batch_id=1, request_ids=(1,))
REPORT = BatchReport(elapsed_s=0.5, service_s=0.2, queue_s=0.3)


@given(waited_s=st.floats(0.0, 0.5), queue_s=st.floats(0.0, 0.3))
def test_the_wait_for_own_batches_is_none_for_others(waited_s: float, queue_s: float) -> None:
    report = BatchReport(elapsed_s=0.5, service_s=0.2, queue_s=queue_s)
    found = EdgeSharing().without_own_waits(BATCH, report, waited_s=waited_s, clear=True)
    assert found.elapsed_s == 0.5 - waited_s
    assert found.others_s == (max(0.0, queue_s - waited_s) if queue_s else None)


@pytest.mark.parametrize("kind", [FailureKind.TIMEOUT, FailureKind.BROKEN])
def test_after_a_batch_was_given_up_as_many_as_it_has_slots_say_nothing(kind: FailureKind) -> None:
    sharing = EdgeSharing()
    sharing.failed(BATCH, kind, slots=2)
    found = [sharing.without_own_waits(BATCH, REPORT, waited_s=0.0, clear=True).others_s for _ in range(3)]
    assert found == [None, None, 0.3]


def test_nothing_is_known_where_own_ones_may_be_before_it_or_nothing_is_reported() -> None:
    sharing = EdgeSharing()
    assert sharing.without_own_waits(BATCH, REPORT, waited_s=0.0, clear=False).others_s is None
    silent = BatchReport(elapsed_s=0.5)
    assert sharing.without_own_waits(BATCH, silent, waited_s=0.0, clear=True) is silent
    sharing.failed(BATCH, FailureKind.THROTTLED, slots=1)
    assert sharing.without_own_waits(BATCH, REPORT, waited_s=0.0, clear=True).others_s == 0.3
