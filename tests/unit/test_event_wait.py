"""Waiting for an event for a limited time."""

import asyncio

import pytest
from support.virtual_loop import run_virtual

from scheduler.daemon.event_wait import set_within


def test_it_tells_whether_the_event_was_set_in_time() -> None:
    async def main() -> None:
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        began_s = loop.time()
        assert not await set_within(event, 5.0)
        assert loop.time() == pytest.approx(began_s + 5.0)
        loop.call_later(3.0, event.set)
        assert await set_within(event, 5.0)
        assert loop.time() == pytest.approx(began_s + 8.0)
        assert await set_within(event, 0.0)

    run_virtual(main())


@pytest.mark.parametrize("turns", range(5))
def test_a_cancellation_in_the_moment_of_the_event_is_not_lost(turns: int) -> None:
    """However many turns of the loop lie between the two, before the wait has ended."""

    async def main() -> None:
        event = asyncio.Event()
        task = asyncio.ensure_future(set_within(event, 60.0))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        event.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            assert task.result()

    asyncio.run(main())
