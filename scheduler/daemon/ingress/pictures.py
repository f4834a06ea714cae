"""The work that pictures are to decode: weighed by their first bytes, and shared out among clients."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator

from models.pictures.weight import Weight, too_large, weight_of
from scheduler.daemon.ingress.model_metadata import ModelCard
from scheduler.daemon.ingress.shares import GREEDY, RETRY_AFTER_S
from scheduler.domain.errors import Refusal, RefusalKind
from scheduler.wire import Tensor, WireError, byte_edges

PRESENT_S = 10.0
"""How long after its last request a client still counts as one that asks."""
AT_ONCE = 4
"""How many times `client_pixels` one request may have while other clients ask."""
_MAX_CLIENTS = 10_000
_BEGINNING_BYTES = 2**17
"""A picture's size stands within so many bytes, behind what a camera writes about it."""


def picture_work(card: ModelCard, inputs: tuple[Tensor, ...]) -> int:
    """Returns how many pixels the pictures of a request have to decode, about; those of unknown formats count nothing.

    Args:
        card: the model's metadata.
        inputs: as `checked_inputs` returns them.

    Raises:
        WireError: every picture is over the model's limit, or all of them together are. Where one of several is, the
            backend leaves it out alone.
    """
    weights: list[Weight | None] = []
    if len(inputs) == 1 and inputs[0].name in card.pictures and math.prod(inputs[0].shape) == 1:
        # One picture, as nearly always, is too large or not; written out without all else.
        weight = weight_of(memoryview(inputs[0].raw)[4:_BEGINNING_BYTES])
        if weight is None:
            return 0
        allowed = card.max_pixels is None or weight.width * weight.height <= card.max_pixels
        if allowed and (card.max_batch_pixels is None or weight.work <= card.max_batch_pixels):
            return weight.work
    for tensor in inputs:
        if tensor.name in card.pictures:
            if math.prod(tensor.shape) == 1:
                weights.append(weight_of(memoryview(tensor.raw)[4:_BEGINNING_BYTES]))
            else:
                weights += _weights(tensor)
    if not weights:
        return 0
    if card.max_pixels is not None:
        sentences = [too_large(weight, card.max_pixels) if weight else "" for weight in weights]
        if all(sentences):
            raise WireError(sentences[0])
    work = sum(weight.work for weight in weights if weight)
    if card.max_batch_pixels is not None and work > card.max_batch_pixels:
        raise WireError(
            f"the pictures of this request have {work} pixels to decode, over the limit of {card.max_batch_pixels}"
            " for a batch: scale them down, or send fewer at once"
        )
    return work


def _weights(tensor: Tensor) -> Iterator[Weight | None]:
    raw, edges = memoryview(tensor.raw), byte_edges(tensor, range(tensor.items + 1))
    elements = math.prod(tensor.shape[1:])
    for start, end in zip(edges, edges[1:], strict=False):
        if elements == 1:
            yield weight_of(raw[start + 4 : min(end, start + _BEGINNING_BYTES)])
            continue
        for _ in range(elements):
            length = int.from_bytes(raw[start : start + 4], "little")
            yield weight_of(raw[start + 4 : start + 4 + min(length, _BEGINNING_BYTES)])
            start += 4 + length


class PictureShares:
    """Lets each client have so many pixels decoded at a time while others ask too; more wait for their turn."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Knows no client; `client_pixels` is to be set.

        Args:
            clock: monotonic seconds.
        """
        self.client_pixels = 1
        self._clock = clock
        self._seen: OrderedDict[str, float] = OrderedDict()
        self._open: dict[str, int] = {}
        self._waiting: dict[str, deque[tuple[int, asyncio.Future[bool]]]] = {}

    def seen(self, client: str) -> None:
        """Notes that a client asks something."""
        self._seen[client] = self._clock()
        self._seen.move_to_end(client)
        if len(self._seen) > _MAX_CLIENTS:
            self._seen.popitem(last=False)

    async def begin(self, client: str, work: int, *, limit_s: float) -> Refusal | None:
        """Waits for a request's turn, which `end` ends.

        Args:
            client: the key of its client.
            work: pixels to decode.
            limit_s: longest that it waits.

        Returns:
            Why it gets none; None: its turn has come.
        """
        if work > AT_ONCE * self.client_pixels and self._is_beside_others(client):
            return self._too_much(work)
        if self._has_room(client, work):
            self._open[client] = self._open.get(client, 0) + work
            return None
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        self._waiting.setdefault(client, deque()).append((work, turn))
        # asyncio.wait_for in Python 3.11 loses a cancellation that comes together with the result.
        timer = loop.call_later(max(0.0, limit_s), _give_up, turn)
        try:
            has_come = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self.end(client, work)
            raise
        finally:
            timer.cancel()
        return None if has_come else self._too_busy()

    def end(self, client: str, work: int) -> None:
        """Ends a turn that `begin` gave."""
        self._open[client] -= work
        waiting = self._waiting.get(client, deque())
        while waiting:
            further, turn = waiting[0]
            if not turn.done():
                if not self._has_room(client, further, of_waiting=True):
                    break
                self._open[client] += further
                turn.set_result(True)
            waiting.popleft()
        if not waiting:
            self._waiting.pop(client, None)
        if not self._open[client]:
            del self._open[client]

    def _has_room(self, client: str, work: int, *, of_waiting: bool = False) -> bool:
        """Returns whether so much more of a client may be decoded: all of it while no other client asks."""
        if self._waiting.get(client) and not of_waiting:
            return False
        taken = self._open.get(client, 0)
        return not taken or taken + work <= self.client_pixels or not self._is_beside_others(client)

    def _is_beside_others(self, client: str) -> bool:
        latest = next((seen_s for key, seen_s in reversed(self._seen.items()) if key != client), -math.inf)
        return self._clock() - latest <= PRESENT_S

    def _too_much(self, work: int) -> Refusal:
        message = (
            f"the pictures of this request have {work} pixels to decode, more than {AT_ONCE * self.client_pixels} while"
            " other clients ask too; send fewer at once, or retry after the time in Retry-After"
        )
        return Refusal(RefusalKind.QUEUE_FULL, message, RETRY_AFTER_S, GREEDY)

    def _too_busy(self) -> Refusal:
        message = (
            "other pictures of this client took all the time of this one; while other clients ask too,"
            f" {self.client_pixels} pixels of one are decoded at a time; retry after the time in Retry-After"
        )
        return Refusal(RefusalKind.QUEUE_FULL, message, RETRY_AFTER_S, GREEDY)


def _give_up(turn: asyncio.Future[bool]) -> None:
    if not turn.done():
        turn.set_result(False)
