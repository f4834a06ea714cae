"""A runner without engine or backends: what ingress hands in comes back as an answer that can be predicted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import count

import numpy as np
from support.explained import an_explanation

from scheduler.daemon.calls import Answer, InferenceCall, Refused
from scheduler.daemon.identities import AcceptedBy, Identities
from scheduler.daemon.ingress.parts import DaemonParts
from scheduler.daemon.limits import ModelLimits
from scheduler.daemon.model_statistics import InferenceCounters
from scheduler.daemon.own_latency import OwnLatency
from scheduler.domain.errors import Refusal, RefusalKind
from scheduler.domain.plans import Plan
from scheduler.domain.requests import Backend
from scheduler.explain.json_lines import to_values
from scheduler.explain.text import Context
from scheduler.wire import Tensor

CLASSES = 10


def digit_of(element: bytes) -> int:
    """Returns the class that the fake sees in an element."""
    return sum(element) % CLASSES


def probabilities(elements: list[bytes]) -> np.ndarray:
    """Returns the fake's output for these elements, FP32 [n, 10]; no two elements share a row by chance."""
    rows = np.full((len(elements), CLASSES), 0.01, dtype=np.float32)
    for row, element in enumerate(elements):
        rows[row, digit_of(element)] = 0.9
        rows[row, (digit_of(element) + 1) % CLASSES] = 0.02 + (len(element) % 97) / 10_000
    return rows


class FakeRunner:
    """Answers at once, unless told to refuse or to hold. Elements that begin with b"bad" are no pictures."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Stores the clock."""
        self.own_latency = OwnLatency()
        self.draining = False
        self.refusal: Refusal | None = None
        """Given to every call, if set."""
        self.hold = False
        """Whether calls wait until their client goes away, or `let_go`."""
        self.value: float | None = None
        """What all probabilities are, if set."""
        self.held = 0
        """Calls that wait so."""
        self._waiting: list[asyncio.Future[None]] = []
        self.broken = False
        """Whether submit fails as only a bug could."""
        self.calls: list[InferenceCall] = []
        self.cancelled: list[InferenceCall] = []
        self.limits = ModelLimits(lambda changed: None)
        self.counters = InferenceCounters()
        self.identities = Identities()
        self.identities.reload(dict.fromkeys(("digits", "sums", "level"), ("", AcceptedBy.CARD)))
        self.plan: Plan | None = None
        self._clock = clock
        self._batch_ids = count(1)

    def parts(self) -> DaemonParts:
        """Returns what ingress uses of a daemon."""
        return DaemonParts(
            runner=self,
            limits=self.limits,
            own_latency=self.own_latency,
            counters=self.counters,
            plan=lambda: self.plan,
            status=self.status,
            batches=self.batches,
            explain=self,
            identities=self.identities,
        )

    def let_go(self) -> None:
        """Answers the calls that wait, and holds no more; on the server's loop."""
        self.hold = False
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def now(self) -> float:
        """Returns the clock."""
        return self._clock()

    async def submit(self, call: InferenceCall) -> Answer:
        """Answers as `probabilities` says."""
        self.calls.append(call)
        if self.broken:
            raise RuntimeError("a bug, on purpose")
        if self.refusal is not None:
            raise Refused(self.refusal, len(self.calls))
        if self.hold:
            self.held += 1
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            try:
                await waiting
            except asyncio.CancelledError:
                self.cancelled.append(call)
                raise
            finally:
                self.held -= 1
        await asyncio.sleep(0)
        return self._answer(call)

    def _answer(self, call: InferenceCall) -> Answer:
        elements = call.inputs[0].elements()
        errors = [b"this is not an image: send PNG or JPEG" if e.startswith(b"bad") else b"" for e in elements]
        if all(errors):
            raise Refused(Refusal(RefusalKind.BAD_REQUEST, errors[0].decode()))
        rows = probabilities(elements)
        outputs = (
            Tensor.from_numpy("probabilities", rows if self.value is None else np.full_like(rows, self.value)),
            Tensor.from_elements("item_error", errors),
        )
        return Answer(
            request_id=len(self.calls),
            outputs=outputs,
            backend=Backend.EDGE,
            tier="",
            batch_id=next(self._batch_ids),
            batch_items=call.items + 3,
            wait_s=0.004,
            service_s=0.02,
            elapsed_s=0.025,
            cost=0.0,
            cold_start=None,
            attempts=1,
            read_at_s=self.now(),
            in_s=0.0001,
            out_s=0.0001,
        )

    def status(self) -> dict[str, object]:
        """Returns a state like the real one's."""
        return {
            "now_s": self.now(),
            "uptime_s": 12.0,
            "draining": self.draining,
            "engine": {
                "queued_requests": 3,
                "unanswered_bytes": 72_000,
                "requests_in_flight": 20,
                "edge_batches_in_flight": 1,
                "function_batches_in_flight": 2,
                "rate_rps": 150.5,
                "uplink_bytes_per_s": None,
                "uplink_rtt_s": 0.02,
                "edge_up": True,
                "function_up": False,
                "spent": 0.00123,
                "expected_drain_s": 0.2,
                "plan": None,
            },
        }

    def batches(self, after_id: int, limit: int) -> list[dict[str, object]]:
        """Returns numbered rows after that number."""
        return [{"record": number, "backend": "edge"} for number in range(after_id + 1, 51)][:limit]

    def find(self, name: str, owner: str | None, before: int | None) -> list[dict[str, object]]:
        """Returns what is known of a request, by its number or its client's id."""
        return self.explanations(name, before)

    def find_client(self, name: str, owner: str | None, before: int | None) -> list[dict[str, object]]:
        """Returns the same."""
        return self.explanations(name, before)

    def last(self, owner: str | None, *, missed: bool) -> list[dict[str, object]]:
        """Returns nothing: requests have no order here."""
        return []

    def explanations(self, name: str, before: int | None = None) -> list[dict[str, object]]:
        """Explains up to 20 calls by their client's id or their number, newest first."""
        numbered = [(number, call.client_id) for number, call in enumerate(self.calls, 1)]
        return [
            to_values(an_explanation(request_id=number), Context(client_id))
            for number, client_id in reversed(numbered)
            if name in (client_id, str(number)) and (before is None or number < before)
        ][:20]
