"""Calls of the engine in real time: when there are messages, and when the engine asked to be woken."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from scheduler.daemon.backends.batch_send import Clock
from scheduler.daemon.logs import fields
from scheduler.domain.messages import Command, Message
from scheduler.engine import Engine

_logger = logging.getLogger("edgeburst")

Perform = Callable[[Sequence[Message], Sequence[Command], float], None]
"""Takes the messages of one engine call, the commands that the engine returned, and the time of the call."""

Hear = Callable[[Sequence[Message], float], None]
"""Takes the messages of one engine call and its time; one that raises, which is a bug, hears nothing more."""


class EngineDriver:
    """The caller of the engine: it gives all messages of one iteration of the event loop to it in one `handle` call.

    It is the only part of the daemon that reads the clock for the engine. On a loop with virtual time the same code
    runs as a simulation.
    """

    def __init__(self, engine: Engine, *, clock: Clock, perform: Perform, fail: Callable[[Exception], None]) -> None:
        """Stores its parts; `wake` makes the first call.

        Args:
            engine: makes every decision.
            clock: monotonic seconds, with the same origin as the event loop's `time`.
            perform: performs the commands.
            fail: takes an exception of the engine or of `perform`, which is a bug.
        """
        self._engine = engine
        self._clock = clock
        self._perform = perform
        self._fail = fail
        self.hearers: list[Hear] = []
        """What is told of the messages before the engine is."""
        self._inbox: list[Message] = []
        self._call: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = float("inf")
        """When the timer fires."""
        self._due_s: float | None = None
        """When the engine wants to be called; None: never."""
        self._engine_at_s = float("-inf")
        self._stopped = False

    def post(self, message: Message) -> None:
        """Adds a message to the next call, which follows in the next iteration of the loop."""
        self._inbox.append(message)
        if self._call is None:
            self.wake()

    def wake(self) -> None:
        """Calls the engine soon, with or without messages."""
        if self._call is None and not self._stopped:
            self._call = asyncio.get_running_loop().call_soon(self._run)

    def stop(self) -> None:
        """Makes no further calls; drops messages that are posted later."""
        self._stopped = True
        for handle in (self._timer, self._call):
            if handle is not None:
                handle.cancel()

    def _run(self) -> None:
        """Makes one call; every exception in it ends here."""
        self._call = None
        if self._stopped:
            return
        inbox, self._inbox = self._inbox, []
        now_s = self._engine_at_s = max(self._engine_at_s, self._clock())
        try:
            for hear in self.hearers:
                try:
                    hear(inbox, now_s)
                except Exception:
                    # Requests are answered without it.
                    _logger.exception("hearer_bug")
                    self.hearers = [each for each in self.hearers if each is not hear]
            self._perform(inbox, self._engine.handle(inbox, now_s), now_s)
            self._arm(self._engine.next_wakeup_s())
        except Exception as error:
            _logger.exception("engine_bug", extra=fields(messages=len(inbox)))
            self._fail(error)

    def _arm(self, due_s: float | None) -> None:
        """Has the timer fire at that time at the latest. Most calls put it off: a timer that is too early stays."""
        self._due_s = due_s
        if due_s is None or (self._timer is not None and self._timer_at_s <= due_s):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at_s = asyncio.get_running_loop().call_at(due_s, self._wake_up), due_s

    def _wake_up(self) -> None:
        self._timer, fired_at_s = None, self._timer_at_s
        due_s = self._due_s
        if due_s is None:
            return
        if due_s > fired_at_s:
            self._arm(due_s)
            return
        # A timer may fire early by the loop's resolution (uvloop: 1 ms); the engine gets the time that it asked for.
        self._engine_at_s = max(self._engine_at_s, due_s)
        self.wake()
