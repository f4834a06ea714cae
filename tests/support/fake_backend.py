"""A backend for the virtual loop: takes the time it is told to, and answers each item with its own input."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from support.engine_kit import endpoint_of

from scheduler.daemon.backends.batch_send import BatchSend, Reply
from scheduler.domain.batches import Batch, BatchReport
from scheduler.domain.messages import ProbeMeasured
from scheduler.domain.requests import Backend
from scheduler.wire import InferRequest, Tensor

Service = Callable[[Batch], float]


@dataclass
class FakeBackend:
    """Echoes input `image` as output `echo` after `service_s(batch)` seconds of the loop's time."""

    service_s: Service = lambda batch: 0.1
    error: Callable[[Batch], BaseException | None] = lambda batch: None
    item_errors: Callable[[bytes], bytes] | None = None
    written: bool = True
    backend: Backend = Backend.EDGE
    probe_s: float = 0.01
    batches: list[Batch] = field(default_factory=list)
    closed: bool = False
    duration_s: float | None = None
    hops: int = 0
    """Iterations of the loop that pass before the batch is written."""
    identity: str = ""
    """Which card and files it says that it serves."""

    async def open(self) -> None:
        pass

    async def send(self, batch_send: BatchSend, request: InferRequest) -> Reply:
        loop = asyncio.get_running_loop()
        for _ in range(self.hops):
            await asyncio.sleep(0)
        self.batches.append(batch_send.batch)
        if self.written:
            batch_send.written_at_s = loop.time()
        await asyncio.sleep(self.service_s(batch_send.batch))
        error = self.error(batch_send.batch)
        if error is not None:
            raise error
        return Reply(self.outputs(request), self.report(batch_send, loop.time()), loop.time(), self.identity)

    def outputs(self, request: InferRequest) -> tuple[Tensor, ...]:
        if not request.inputs:
            # A warming call.
            return ()
        elements = request.inputs[0].elements()
        echo = Tensor.from_elements("echo", elements)
        if self.item_errors is None:
            return (echo,)
        return echo, Tensor.from_elements("item_error", [self.item_errors(element) for element in elements])

    def report(self, batch_send: BatchSend, now_s: float) -> BatchReport:
        return BatchReport(
            elapsed_s=now_s - batch_send.batch.sent_at_s,
            service_s=self.service_s(batch_send.batch),
            billed_duration_s=self.duration_s,
        )

    async def probe(self) -> ProbeMeasured:
        await asyncio.sleep(self.probe_s)
        return ProbeMeasured(endpoint_of(self.backend), ok=True, rtt_s=self.probe_s)

    def status(self) -> dict[str, object]:
        """Returns nothing."""
        return {}

    async def close(self) -> None:
        self.closed = True
