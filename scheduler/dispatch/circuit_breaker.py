"""Circuit breakers: a failing backend gets no batches until a probe of it succeeds."""

import math
from dataclasses import dataclass, field
from typing import Any

from scheduler.domain.batches import Batch, Failure, FailureKind
from scheduler.domain.failures import HANDLING, Opens
from scheduler.domain.requests import Backend

LONGEST_PAUSE_S = 30.0
"""Whatever a backend asks for, and however often probes fail: then it is tried again. Judgement: how late a backend
that is back may be noticed; no simulated outage is so long."""

EDGE_PAUSE_S = 2.0
"""The edge is on the LAN and to ask it costs nothing, while every second without it costs functions. Judgement: in
simulations of 3,000 requests halving it changes cost by -0.7 % (in time +0.1 points), in the three of 32 that have such
outages."""


@dataclass(slots=True)
class Circuit:
    """Circuit of a backend, closed while batches may be sent. Failures open it, a successful probe or batch closes it.

    closed --failures--> open --pause over: probe--> closed (probe ok) or open again with twice the pause. A backend
    that answers probes and fails batches does not flap: until it answers one, each failure makes the pause longer.
    """

    failures_to_open: int
    first_pause_s: float
    longest_pause_s: float = LONGEST_PAUSE_S
    failures: int = 0
    pause_s: float = 0.0
    probe_at_s: float | None = None
    """When open: the time of the next probe. None: closed."""
    unproven_since_s: float = math.inf
    """When a probe closed it, if no batch has been answered since: the first failure of one sent later opens it again.
    Infinity: one has been answered."""
    asked_at_s: float | None = None
    """When the probe was sent that is under way; None: none is, or none that was asked for here."""
    not_before_s: float = 0.0
    """Until then a throttled backend gets no batches; the circuit stays closed."""
    barred: set[str] = field(default_factory=set)
    """Models of which it gets no batches, because it serves others under their names."""

    @property
    def closed(self) -> bool:
        """Whether the backend is believed to answer."""
        return self.probe_at_s is None

    def serves(self, model: str) -> bool:
        """Whether the backend is believed to answer with this model."""
        return self.probe_at_s is None and model not in self.barred

    def usable(self, now_s: float) -> bool:
        """Whether a batch may be sent now."""
        return self.probe_at_s is None and now_s >= self.not_before_s

    def changes_in_s(self, now_s: float) -> float | None:
        """Returns the seconds until the backend is probed or may get batches again; None while it gets them."""
        if self.probe_at_s is not None:
            return max(0.0, self.probe_at_s - now_s)
        return self.not_before_s - now_s if self.not_before_s > now_s else None

    def configure(self, *, failures_to_open: int, first_pause_s: float) -> None:
        """Takes over reloaded settings."""
        self.failures_to_open, self.first_pause_s = failures_to_open, first_pause_s

    def follow(self, *, back_s: float | None, silent_until_s: float) -> None:
        """Opens or closes the circuit by an outage that is known from other sources than failures.

        Args:
            back_s: when a backend that is down will answer again; None: it answers.
            silent_until_s: time before which no batch is sent.
        """
        self.failures, self.probe_at_s = 0, back_s
        self.not_before_s = max(self.not_before_s, silent_until_s)

    def succeeded(self) -> None:
        """Notes the answer to a batch."""
        self.failures, self.pause_s, self.probe_at_s, self.unproven_since_s = 0, 0.0, None, math.inf

    def probe_succeeded(self, now_s: float) -> None:
        """Notes the answer to a probe: batches may be sent. Only the answer to one of them says that all is well."""
        if not self.closed:
            self.failures, self.probe_at_s, self.unproven_since_s = 0, None, now_s

    def failed(
        self, kind: FailureKind, *, now_s: float, retry_after_s: float | None, sent_at_s: float | None = None
    ) -> None:
        """Notes the failure of a whole batch. Failures that its content caused say nothing about the backend.

        Args:
            kind: of the failure.
            now_s: the present.
            retry_after_s: when the backend wants to be asked again; None: it did not say.
            sent_at_s: when the batch was sent; None: now.
        """
        opens = HANDLING[kind].opens
        if opens is Opens.NEVER:
            return
        if opens is Opens.PAUSE:
            silence_s = self.first_pause_s if retry_after_s is None else retry_after_s
            self.not_before_s = max(self.not_before_s, now_s + min(silence_s, LONGEST_PAUSE_S))
            return
        self.failures += 1
        # Many batches may fail of one and the same cause; only a probe or the first after it makes it longer.
        unproven = self.unproven_since_s <= (now_s if sent_at_s is None else sent_at_s)
        if self.closed and (opens is Opens.AT_ONCE or unproven or self.failures >= self.failures_to_open):
            self.pause_s = self.pause_s if unproven else 0.0
            self._open(now_s)

    def probe_failed(self, now_s: float) -> None:
        """Notes a probe without an answer. The next pause began with it: the wait for its answer was one."""
        self._open(now_s)
        if self.asked_at_s is not None:
            self.probe_at_s = max(now_s, self.asked_at_s + self.pause_s)

    def _open(self, now_s: float) -> None:
        self.pause_s = min(max(self.first_pause_s, 2 * self.pause_s), self.longest_pause_s)
        self.probe_at_s = now_s + self.pause_s


@dataclass(slots=True)
class Circuits:
    """The circuits of both backends, and which of them are being probed."""

    edge: Circuit
    function: Circuit
    probing: set[Backend] = field(default_factory=set)

    def of(self, backend: Backend) -> Circuit:
        """Returns a backend's circuit."""
        return self.edge if backend is Backend.EDGE else self.function

    def failed(self, batch: Batch, failure: Failure, *, now_s: float, met_limit: bool = False) -> bool:
        """Notes the failure of a whole batch; returns whether its circuit opened.

        Args:
            batch: as it was sent.
            failure: what happened.
            now_s: the present.
            met_limit: whether it was refused beside others that run, or for its size. The next waits until one of them
                is back, or is smaller, so silence would add nothing, unless the provider asks for it.
        """
        if failure.of_model:
            return False
        circuit = self.of(batch.backend)
        was_closed = circuit.closed
        if not met_limit or failure.retry_after_s is not None:
            circuit.failed(failure.kind, now_s=now_s, retry_after_s=failure.retry_after_s, sent_at_s=batch.sent_at_s)
        return was_closed and not circuit.closed

    def follow(self, *, edge_back_s: float | None, functions_back_s: float) -> None:
        """Follows known outages. Functions that are out are silent: a request that can wait so long is sent then."""
        self.edge.follow(back_s=edge_back_s, silent_until_s=0.0)
        self.function.follow(back_s=None, silent_until_s=functions_back_s)

    def up(self) -> dict[str, Any]:
        """Returns whether each backend is believed to answer, as fields of snapshots and statistics."""
        return {"edge_up": self.edge.closed, "function_up": self.function.closed}

    def configure(self, *, failures_to_open: int, first_pause_s: float) -> None:
        """Takes over reloaded settings."""
        for circuit in (self.edge, self.function):
            circuit.configure(failures_to_open=failures_to_open, first_pause_s=first_pause_s)

    def probed(self, backend: Backend, *, ok: bool, now_s: float) -> bool:
        """Notes the end of a probe; returns whether the backend had not answered before it."""
        self.probing.discard(backend)
        circuit = self.of(backend)
        was_open = not circuit.closed
        if ok:
            circuit.probe_succeeded(now_s)
        else:
            circuit.probe_failed(now_s)
        circuit.asked_at_s = None
        return was_open

    def next_s(self, now_s: float) -> float:
        """Returns when a probe is due or a throttled backend may get batches again; inf for never."""
        wakeup_s = float("inf")
        for backend, circuit in self._both():
            if circuit.probe_at_s is not None and backend not in self.probing:
                wakeup_s = min(wakeup_s, circuit.probe_at_s)
            if circuit.not_before_s > now_s:
                wakeup_s = min(wakeup_s, circuit.not_before_s)
        return wakeup_s

    def to_probe(self, now_s: float, *, idle_link: bool) -> list[Backend]:
        """Returns the backends to probe now, and notes that they are being probed.

        Args:
            now_s: the present.
            idle_link: whether the path to the functions is to be measured although they answer.
        """
        due = []
        for backend, circuit in self._both():
            probe_at_s = circuit.probe_at_s
            wanted = (probe_at_s is not None and probe_at_s <= now_s) or (idle_link and backend is Backend.FUNCTION)
            if wanted and backend not in self.probing:
                due.append(backend)
                circuit.asked_at_s = now_s
        self.probing.update(due)
        return due

    def _both(self) -> tuple[tuple[Backend, Circuit], tuple[Backend, Circuit]]:
        return (Backend.EDGE, self.edge), (Backend.FUNCTION, self.function)
