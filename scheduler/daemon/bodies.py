"""Request bodies, which the engine never sees: held while their call is pending, joined for a batch, split again."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from scheduler import wire
from scheduler.daemon.calls import Answer, InferenceCall
from scheduler.daemon.shapes import ShapeIds
from scheduler.daemon.spans import RequestSpans
from scheduler.wire import Tensor, WireError


@dataclass(slots=True)
class PendingCall:
    """A call that has not ended, and the future that its HTTP handler waits for."""

    request_id: int
    call: InferenceCall
    future: "asyncio.Future[Answer]"
    engine_at_s: float = 0.0
    """When the engine got the request."""
    attempts: int = 0
    spans: RequestSpans | None = None
    """What is recorded of it; None: nothing."""
    shapes: tuple[tuple[int, ...], ...] = ()
    """Of its items, while it is held."""

    def ended(self, outcome: str, now_s: float, *, answer: Answer | None = None, message: str = "") -> None:
        """Ends its spans, if it is recorded; see `RequestSpans.ended`."""
        if self.spans is not None:
            self.spans.ended(outcome, now_s, answer=answer, message=message)


class BodyStore:
    """The calls that have not ended, by request id. The engine bounds their number and bytes: it refuses requests."""

    def __init__(self) -> None:
        """Starts empty."""
        self.pending: dict[int, PendingCall] = {}
        """By request id; `add` and `pop` change it."""
        self._bytes = 0
        self._shapes = ShapeIds()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        """Returns the number of calls that have not ended."""
        return len(self.pending)

    def __contains__(self, request_id: int) -> bool:
        """Returns whether the call has not ended."""
        return request_id in self.pending

    def __getitem__(self, request_id: int) -> PendingCall:
        """Returns a call; KeyError if it has ended."""
        return self.pending[request_id]

    def __iter__(self) -> Iterator[PendingCall]:
        """Iterates over a copy of the calls that have not ended."""
        return iter(list(self.pending.values()))

    @property
    def body_bytes(self) -> int:
        """Bytes of all inputs held."""
        return self._bytes

    async def wait_until_empty(self) -> None:
        """Waits until every call has ended."""
        await self._empty.wait()

    def add(self, pending: PendingCall) -> int:
        """Holds a call until `pop`; returns the number that tells its items' shapes from those of others held."""
        if not self.pending:
            self._empty.clear()
        call = pending.call
        self.pending[pending.request_id] = pending
        pending.shapes = call.item_shapes
        self._bytes += call.body_bytes
        return self._shapes.opened(call.model, pending.shapes)

    def pop(self, request_id: int) -> PendingCall | None:
        """Removes a call and returns it; None if it has ended before."""
        pending = self.pending.pop(request_id, None)
        if pending is not None:
            self._bytes -= pending.call.body_bytes
            self._shapes.closed(pending.call.model, pending.shapes)
            if not self.pending:
                self._empty.set()
        return pending

    def members(self, request_ids: Iterable[int]) -> tuple[PendingCall, ...]:
        """Returns the calls of a batch, in its order; KeyError if one has ended."""
        pending = self.pending
        return tuple([pending[request_id] for request_id in request_ids])


def joined_inputs(calls: Sequence[InferenceCall]) -> tuple[Tensor, ...]:
    """Returns the inputs of a whole batch: each input of the first call, joined with the same input of the others.

    Raises:
        WireError: the calls differ in inputs, datatypes or trailing shapes.
    """
    if len(calls) == 1:
        return calls[0].inputs
    if all([len(call.inputs) == 1 for call in calls]):
        only = calls[0].inputs[0].name
        if all([call.inputs[0].name == only for call in calls]):
            return (wire.concat([call.inputs[0] for call in calls]),)
    by_name = [{tensor.name: tensor for tensor in call.inputs} for call in calls]
    names = by_name[0].keys()
    if any([tensors.keys() != names for tensors in by_name[1:]]):
        raise WireError("requests with different inputs cannot share a batch; send the same inputs in each")
    return tuple([wire.concat([tensors[name] for tensors in by_name]) for name in names])


def whole_failure(outputs: Sequence[Tensor]) -> str:
    """Returns the first item's error if every item of a request failed; empty if at least one was processed."""
    errors = wire.item_errors(outputs)
    return errors[0] if errors and all(errors) else ""
