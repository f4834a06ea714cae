"""The bodies that the engine never sees: held from arrival to end, joined for a batch, cut for its answers."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from scheduler import wire
from scheduler.daemon.calls import Answer, InferenceCall
from scheduler.wire import Tensor, WireError


@dataclass(slots=True)
class PendingCall:
    """A call that has not ended, and the future that its ingress task waits for."""

    request_id: int
    call: InferenceCall
    future: "asyncio.Future[Answer]"
    engine_at_s: float = 0.0
    """When the engine was told of it."""
    attempts: int = 0


class BodyStore:
    """The calls that have not ended, by request id. The engine bounds their number and bytes by refusing."""

    def __init__(self) -> None:
        """Starts empty."""
        self._pending: dict[int, PendingCall] = {}
        self._bytes = 0

    def __len__(self) -> int:
        """Returns the number of calls that have not ended."""
        return len(self._pending)

    def __contains__(self, request_id: int) -> bool:
        """Whether the call of that id has not ended."""
        return request_id in self._pending

    def __iter__(self) -> Iterator[PendingCall]:
        """Iterates over the calls that have not ended, as they are now."""
        return iter(list(self._pending.values()))

    @property
    def body_bytes(self) -> int:
        """Bytes of the inputs held."""
        return self._bytes

    def add(self, pending: PendingCall) -> None:
        """Holds a call until `pop`."""
        self._pending[pending.request_id] = pending
        self._bytes += pending.call.body_bytes

    def pop(self, request_id: int) -> PendingCall | None:
        """Lets a call go; None where it has ended before."""
        pending = self._pending.pop(request_id, None)
        if pending is not None:
            self._bytes -= pending.call.body_bytes
        return pending

    def members(self, request_ids: Iterable[int]) -> tuple[PendingCall, ...]:
        """Returns the calls of a batch, in its order; KeyError if one has ended."""
        return tuple(self._pending[request_id] for request_id in request_ids)


def joined_inputs(calls: Sequence[InferenceCall]) -> tuple[Tensor, ...]:
    """Returns the inputs of a whole batch: each input of the first call, joined with the others' of that name.

    Raises:
        WireError: the calls differ in inputs, datatypes or trailing shapes.
    """
    by_name = [{tensor.name: tensor for tensor in call.inputs} for call in calls]
    names = by_name[0].keys()
    if any(tensors.keys() != names for tensors in by_name):
        raise WireError("requests with different inputs cannot share a batch.")
    return tuple(wire.concat([tensors[name] for tensors in by_name]) for name in names)


def parted_outputs(outputs: Sequence[Tensor], counts: Sequence[int]) -> list[tuple[Tensor, ...]]:
    """Returns each request's own rows of every output; `counts` are the requests' items, in the batch's order.

    Raises:
        WireError: an output cannot be cut so.
    """
    return list(zip(*(wire.split(output, counts) for output in outputs), strict=True))


def whole_failure(outputs: Sequence[Tensor]) -> str:
    """Returns the first item's sentence where every item of a request failed; empty where one was answered."""
    errors = wire.item_errors(outputs)
    return errors[0] if errors and all(errors) else ""
