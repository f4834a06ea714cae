"""Measures a model on the edge: made-up batches of 1, 2 and the largest size, for a few seconds at most."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date

import numpy as np

from models.card import Card
from models.latency_fit import LatencyFit, fit_latency
from models.profile import Profile, ProfileRow
from models.rehearsal import rehearsal_inputs
from scheduler import wire
from scheduler.daemon.backends.batch_send import BatchSend, Clock, InferenceBackend, SendFailed
from scheduler.daemon.model_outputs import ModelOutputs
from scheduler.domain.batches import Batch, FailureKind
from scheduler.domain.errors import EdgeburstError
from scheduler.domain.requests import Place
from scheduler.wire import InferRequest, Tensor

BUDGET_S = 4.0
"""Seconds for one model, the first batches aside. Judgement: a start should not take long, and the estimators learn the
rest from requests."""
ROUNDS, MOST_ROUNDS = 5, 25
"""Batches of each size that are timed, if there is time, and the most. Judgement: the median of five stands two that
were disturbed; batches of a few milliseconds are disturbed more often."""
ENOUGH_S = 1.0
"""Seconds after which no more than ROUNDS are timed. Judgement: a quarter of the whole time."""
CALL_LIMIT_S = 30.0
"""Longest wait for a batch: the first one of a network may compile it."""


class NotMeasured(EdgeburstError):
    """Error: the edge did not answer a made-up batch; the message says why."""

    def __init__(self, message: str, *, absent: bool) -> None:
        """Stores the sentence; `absent`: whether the edge server itself was not there, so that no model is answered."""
        super().__init__(message)
        self.absent = absent


async def measured_profile(
    backend: InferenceBackend,
    card: Card,
    *,
    largest: int,
    edge: str,
    identity: str | None,
    clock: Clock,
    budget_s: float = BUDGET_S,
) -> Profile:
    """Returns the profile of a model on the edge, as the daemon sees it: from the send to the last byte.

    Where batches are slow, the largest that is measured is smaller: no larger one is sent then either.

    Args:
        backend: the edge.
        card: the model.
        largest: the largest batch that is wanted.
        edge: URL of the edge server, for the profile.
        identity: of the model's card and files, for the profile; None: not known.
        clock: monotonic seconds.
        budget_s: seconds after which no further batch is timed.

    Raises:
        NotMeasured: the edge did not answer.
    """
    rehearsal = _Rehearsal(backend, card, clock)
    await rehearsal.seconds(1)
    first_s = await rehearsal.seconds(1)
    started_s, sizes = clock(), _sizes(largest, first_s, budget_s)
    if len(sizes) > 1:
        sizes = [*sizes[:-1], await rehearsal.largest_taken(sizes[-1])]
    sizes = sorted(set(sizes))
    samples_s: dict[int, list[float]] = {size: [] for size in sizes}
    for rounds in range(1, MOST_ROUNDS + 1):
        for size in sizes:
            samples_s[size].append(await rehearsal.seconds(size))
        spent_s = clock() - started_s
        if spent_s > budget_s or (rounds >= ROUNDS and spent_s > ENOUGH_S):
            break
    rows = tuple(_row(size, seconds) for size, seconds in samples_s.items())
    fit = fit_latency(rows) if len(rows) > 1 else LatencyFit(rows[0].p50_s, 0.0, None, None)
    known = {} if identity is None else {"identity": identity}
    return Profile(
        name=f"measured-{card.name}",
        backend="edge",
        model=card.name,
        device=f"the server at {edge}",
        source="edgeburst serve: made-up batches at its start, from the send to the last byte of the answer",
        date=date.today().isoformat(),
        note=f"{min(map(len, samples_s.values()))} batches of each size; `edgeburst profile edge` measures more sizes.",
        rows=rows,
        alpha_s=fit.alpha_s,
        beta_s=fit.beta_s,
        alpha_stderr_s=fit.alpha_stderr_s,
        beta_stderr_s=fit.beta_stderr_s,
        max_batch=sizes[-1],
        environment={**known, "edge": edge},
    )


class _Rehearsal:
    """Sends made-up batches of a model."""

    def __init__(self, backend: InferenceBackend, card: Card, clock: Clock) -> None:
        self._backend, self._card, self._clock = backend, card, clock
        self._inputs: dict[int, tuple[Tensor, ...]] = {}

    async def seconds(self, items: int) -> float:
        """Returns the seconds of a batch; NotMeasured where it is not answered well."""
        try:
            return await self._send(items)
        except SendFailed as failed:
            raise NotMeasured(failed.failure.message, absent=failed.failure.kind in _ABSENT) from None
        except asyncio.TimeoutError:
            raise NotMeasured(
                f"a made-up batch of {items} was not answered within {CALL_LIMIT_S:g} s", absent=False
            ) from None

    async def largest_taken(self, items: int) -> int:
        """Returns the largest of this size, its half, ... that the edge does not refuse; warms it up."""
        while items > 2:
            try:
                await self._send(items)
            except SendFailed as failed:
                failure = failed.failure
                if failure.kind is not FailureKind.REJECTED and not failure.by_size:
                    raise NotMeasured(failure.message, absent=failure.kind in _ABSENT) from None
                named = failure.largest_batch
                items = named if named is not None and 0 < named < items else items // 2
            except asyncio.TimeoutError:
                items //= 2
            else:
                break
        return items

    async def _send(self, items: int) -> float:
        if items not in self._inputs:
            made = rehearsal_inputs(self._card, items)
            self._inputs[items] = tuple(Tensor.from_numpy(name, array) for name, array in made.items())
        request = InferRequest("0", self._inputs[items], binary_by_default=True)
        now_s = self._clock()
        send = BatchSend(
            _batch(self._card.name, items, now_s), None, now_s, outputs=ModelOutputs(self._card.all_outputs())
        )
        reply = await asyncio.wait_for(self._backend.send(send, request), CALL_LIMIT_S)
        refused = next(filter(None, wire.item_errors(reply.outputs)), "")
        if refused:
            raise NotMeasured(f"the edge refuses a made-up item: {refused[:300]}", absent=False)
        return reply.report.elapsed_s


# Whatever else fails may be the fault of this model: 500 of its network, an answer unlike its card, no answer at all.
_ABSENT = (FailureKind.UNREACHABLE, FailureKind.THROTTLED)


def _sizes(largest: int, first_s: float, budget_s: float) -> list[int]:
    """Returns 1, 2 and the largest size of which two batches fit into the time if items take as long as alone."""
    slow = int(budget_s / (2.0 * first_s)) if first_s > 0 else largest
    return sorted({1, min(2, largest), max(min(2, largest), min(largest, slow))})


def _batch(model: str, items: int, now_s: float) -> Batch:
    late_s = now_s + CALL_LIMIT_S
    return Batch(
        batch_id=0,
        place=Place.edge(),
        model=model,
        request_ids=tuple(range(items)),
        items=items,
        body_bytes=0,
        sent_at_s=now_s,
        deadline_s=late_s,
        give_up_at_s=late_s,
        predicted_finish_s=late_s,
        predicted_service_s=0.0,
    )


def _row(items: int, samples_s: Sequence[float]) -> ProfileRow:
    p50_s, p95_s = (float(value) for value in np.quantile(samples_s, [0.5, 0.95]))
    mean_s = sum(samples_s) / len(samples_s)
    return ProfileRow(items, p50_s, max(p95_s, p50_s), items / mean_s if mean_s > 0 else 0.0, len(samples_s))
