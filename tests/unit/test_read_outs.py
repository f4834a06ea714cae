"""Read-outs leave most of the loop's time to inference."""

from __future__ import annotations

import asyncio

import pytest
from support.virtual_loop import run_virtual

from scheduler.daemon.http.read_outs import SHARE, ReadOuts


def test_read_outs_that_queue_up_take_their_share_of_the_time() -> None:
    async def asked() -> tuple[float, float]:
        loop, worked_s = asyncio.get_running_loop(), 0.0

        def clock() -> float:
            return loop.time() + worked_s

        def work() -> None:
            nonlocal worked_s
            worked_s += 0.01

        read_outs = ReadOuts(clock)
        await asyncio.gather(*(read_outs.make(work) for _ in range(101)))
        return worked_s, clock()

    worked_s, passed_s = run_virtual(asked())
    assert worked_s == pytest.approx(1.01)
    assert (worked_s - 0.01) / (passed_s - 0.01) == pytest.approx(SHARE)


def test_one_alone_does_not_wait_and_a_failure_holds_up_none() -> None:
    async def asked() -> float:
        loop = asyncio.get_running_loop()
        read_outs = ReadOuts(loop.time)
        with pytest.raises(ZeroDivisionError):
            await read_outs.make(lambda: 1 // 0)
        assert await read_outs.make(lambda: 7) == 7
        return loop.time()

    begun_s = run_virtual(asked())
    assert begun_s == pytest.approx(0.0, abs=1e-6)
