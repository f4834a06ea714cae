"""Requests whose only place is an edge that is not measured for their model yet: they wait, within their deadlines.

The engine does not know the edge for such a model, and could only say that nothing answers it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from scheduler.daemon.calls import InferenceCall, Refused
from scheduler.daemon.config.config import Config
from scheduler.daemon.event_wait import set_within
from scheduler.domain.errors import Refusal, RefusalKind
from scheduler.domain.plans import ServiceClass

RETRY_AFTER_S = 5.0
"""Told where a request cannot wait for the end of the measurement. Judgement: a model takes about as long."""

_DRAINING = Refusal(RefusalKind.DRAINING, "the daemon is shutting down; send it elsewhere", 1.0)


class Unmeasured:
    """Holds calls back while their model is measured."""

    def __init__(self, *, clock: Callable[[], float], why: Callable[[str], str]) -> None:
        """Stores its parts; `reload` comes before the first call.

        Args:
            clock: monotonic seconds, those of `InferenceCall.received_at_s`.
            why: returns why a model could not be measured, in words; empty: it is being measured, or waits for it.
        """
        self._clock, self._why = clock, why
        self._classes: dict[tuple[str, str], ServiceClass] = {}
        """By model and name: classes that only the edge can serve, and not yet."""
        self.any = False
        """Whether there are such classes."""
        self._max_timeout_s = 0.0
        self._max_requests = self._max_bytes = 0
        self._requests = self._bytes = 0
        self._closed = False
        self._changed = asyncio.Event()

    def reload(self, config: Config) -> None:
        """Follows a configuration, or a model that was measured just now: calls that wait for it go on."""
        unmeasured = config.measured_later()
        self._classes = {
            (model.name, each.name): each
            for model in config.engine_settings().models
            if model.name in unmeasured
            for each in model.classes
            if each.edge_only or not model.tiers
        }
        self.any = bool(self._classes)
        self._max_timeout_s = config.daemon.max_timeout_s
        self._max_requests, self._max_bytes = config.engine.queue_max_requests, config.engine.queue_max_bytes
        self._wake()

    def close(self) -> None:
        """Refuses all that wait: the daemon stops."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, call: InferenceCall) -> None:
        """Returns when the engine knows a place for a call that is held.

        Raises:
            Refused: its model was not measured by the call's deadline, too many calls wait, or the daemon stops.
        """
        if self._requests >= self._max_requests or self._bytes + call.body_bytes > self._max_bytes:
            raise Refused(self._refusal(call, "too many requests wait for it", RefusalKind.QUEUE_FULL))
        self._requests += 1
        self._bytes += call.body_bytes
        try:
            while self.holds(call):
                left_s = self._ends_at_s(call) - self._clock()
                if left_s <= 0:
                    raise Refused(self._refusal(call, "its deadline came before that was done", RefusalKind.NO_BACKEND))
                if await set_within(self._changed, left_s) and self._closed:
                    raise Refused(_DRAINING)
        finally:
            self._requests -= 1
            self._bytes -= call.body_bytes

    def holds(self, call: InferenceCall) -> bool:
        """Returns whether a call has to wait; few do."""
        return (call.model, call.class_name) in self._classes

    def _ends_at_s(self, call: InferenceCall) -> float:
        its_class = self._classes[call.model, call.class_name]
        limit_s = its_class.slo_s if call.timeout_s is None else call.timeout_s
        return call.received_at_s + (self._max_timeout_s if its_class.serve_late else limit_s)

    def _refusal(self, call: InferenceCall, what: str, kind: RefusalKind) -> Refusal:
        why = self._why(call.model)
        how = f"could not be measured on the edge yet ({why})" if why else "is still being measured on the edge"
        message = f"model {call.model!r} {how}, and {what}; send the request again after the time in Retry-After"
        return Refusal(kind, message, RETRY_AFTER_S)
