"""What the operating system may ask of the daemon, as events that its main task waits for."""

import asyncio
import logging
import signal

from scheduler.daemon.logs import log


class Signals:
    """SIGTERM and SIGINT stop the daemon in good order, a second one at once; SIGHUP reloads."""

    def __init__(self) -> None:
        """Nothing has been asked yet."""
        self.stop = asyncio.Event()
        self.stop_at_once = asyncio.Event()
        self.reload = asyncio.Event()

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Takes the signals over."""
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self.reload.set)

    def _stop(self, number: signal.Signals) -> None:
        log(logging.INFO, "signal", name=number.name, again=self.stop.is_set())
        if self.stop.is_set():
            self.stop_at_once.set()
        self.stop.set()
