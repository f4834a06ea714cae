"""Signals of the operating system, as events that the daemon's tasks wait for."""

import asyncio
import logging
import signal

from scheduler.daemon.logs import log


class Signals:
    """Events for SIGTERM and SIGINT (orderly stop; the second one: immediate stop) and SIGHUP (reload)."""

    def __init__(self) -> None:
        """Starts with no event set."""
        self.stop = asyncio.Event()
        self.stop_at_once = asyncio.Event()
        self.reload = asyncio.Event()

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Handles the signals on this loop from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self.reload.set)

    def _stop(self, number: signal.Signals) -> None:
        log(logging.INFO, "signal", name=number.name, again=self.stop.is_set())
        if self.stop.is_set():
            self.stop_at_once.set()
        self.stop.set()
