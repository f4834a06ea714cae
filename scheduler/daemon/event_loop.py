"""The event loop that the daemon runs on, the sign of life that it gives systemd, and what it waits for."""

import asyncio
from typing import Any

from scheduler.systemd import Notifier


def ping_watchdog(notifier: Notifier, loop: asyncio.AbstractEventLoop) -> None:
    """Pings systemd's watchdog now and twice in each period; a loop that hangs does not ping any more."""
    if notifier.watchdog_s is None:
        return
    notifier.send("WATCHDOG=1")
    loop.call_later(notifier.watchdog_s / 2, ping_watchdog, notifier, loop)


def new_loop() -> asyncio.AbstractEventLoop:
    """Returns uvloop's, or that of the standard library where there is no uvloop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


async def first(*awaited: "asyncio.Event | asyncio.Task[Any]") -> None:
    """Waits until one of the events is set or one of the tasks has ended."""
    loop = asyncio.get_running_loop()
    waits = [loop.create_task(a.wait()) if isinstance(a, asyncio.Event) else a for a in awaited]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait, a in zip(waits, awaited, strict=True):
        if wait is not a:
            wait.cancel()
