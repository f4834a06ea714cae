"""Waiting for an event for a limited time, such that a cancellation is never lost."""

from __future__ import annotations

import asyncio


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Returns whether an event is set within so many seconds.

    Before Python 3.12 `asyncio.wait_for` forgets a cancellation that comes in the same moment as the event: a task that
    waits so again and again would never end.
    """
    waiting = asyncio.ensure_future(event.wait())
    try:
        done, _ = await asyncio.wait({waiting}, timeout=seconds)
        return bool(done)
    finally:
        waiting.cancel()
