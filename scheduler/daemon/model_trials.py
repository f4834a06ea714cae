"""Small batches of made-up items, with which a backend is asked whether it answers with each model: as in use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from models.card import TensorSpec
from models.rehearsal import made_up_inputs
from scheduler import wire
from scheduler.daemon.backends.batch_send import BatchSend, Clock, InferenceBackend, SendFailed
from scheduler.daemon.finite_answers import BY_BACKEND
from scheduler.daemon.logs import log
from scheduler.daemon.model_outputs import ModelOutputs
from scheduler.domain.batches import Batch, FailureKind
from scheduler.domain.requests import Place
from scheduler.wire import InferRequest, Tensor

LEAST_LIMIT_S = 2.0
LIMIT_FACTOR = 4.0
"""Expected services that a trial may take, where that is longer. Judgement: as an edge batch at least."""
_SAYS_NOTHING = (FailureKind.REJECTED, FailureKind.THROTTLED)
"""What is no fault of the backend: made-up content may be refused, and a busy backend is asked later."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What is needed to try one model."""

    inputs: tuple[TensorSpec, ...]
    outputs: ModelOutputs
    limit_s: float = LEAST_LIMIT_S


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of asking for several models."""

    broken: tuple[str, ...] = ()
    unasked: tuple[str, ...] = ()
    """Those after one that hung: the backend is busy with that."""
    away: bool = False
    """Whether the backend itself could not be reached."""


class ModelTrials:
    """Tries models on edge servers, where that costs nothing."""

    def __init__(
        self,
        trials: Mapping[Place, Mapping[str, Trial]] = MappingProxyType({}),
        *,
        clock: Clock,
        heard: Callable[[str, Place, object, float], str] = lambda *_: "",
    ) -> None:
        """Stores its parts.

        Args:
            trials: by edge server and model.
            clock: monotonic seconds.
            heard: is told which identity of a model's card and files a place reports with an answer, and when its batch
                was sent; returns why its answers cannot be used, empty if they can.
        """
        self.heard = heard
        self._clock = clock
        self._trials = dict(trials)
        self._broken: dict[tuple[Place, str], str] = {}
        """By edge server and model: the sentence that was logged last."""

    def follow(self, trials: Mapping[Place, Mapping[str, Trial]]) -> None:
        """Uses the trials of another configuration, by edge server and model."""
        self._trials = dict(trials)

    def models_on(self, place: Place) -> tuple[str, ...]:
        """Returns the names of the models that can be tried at a place: none by function."""
        return tuple(self._trials.get(place, ()))

    async def on_edge(self, place: Place, backend: InferenceBackend, models: Sequence[str]) -> Tried:
        """Tries models of an edge server one after the other, as it serves batches."""
        broken: list[str] = []
        trials = self._trials.get(place, {})
        for position, name in enumerate(models):
            trial = trials.get(name)
            if trial is None:
                continue
            try:
                sentence = await asyncio.wait_for(self._problem(place, backend, name, trial), trial.limit_s)
            except SendFailed as failed:
                if failed.failure.kind is FailureKind.UNREACHABLE:
                    return Tried(away=True)
                sentence = "" if failed.failure.kind in _SAYS_NOTHING else failed.failure.message
            except asyncio.TimeoutError:
                self._note(place, name, f"it did not answer within {trial.limit_s:.3g} s")
                return Tried((*broken, name), tuple(models[position + 1 :]))
            self._note(place, name, sentence)
            if sentence:
                broken.append(name)
        return Tried(tuple(broken))

    async def _problem(self, place: Place, backend: InferenceBackend, name: str, trial: Trial) -> str:
        """Returns what is wrong with the answer to one made-up item; empty where nothing is."""
        made = made_up_inputs(trial.inputs, 1)
        inputs = tuple(Tensor.from_numpy(tensor, array) for tensor, array in made.items())
        sent_at_s = self._clock()
        send = BatchSend(_batch(place, name, trial, sent_at_s), None, sent_at_s, outputs=trial.outputs)
        send.item_crc32 = wire.item_crc32(inputs)
        reply = await backend.send(send, InferRequest("0", inputs, binary_by_default=True))
        # Another model than is expected is kept away by its identity, and says so itself.
        self.heard(name, place, reply.identity, sent_at_s)
        return BY_BACKEND if reply.not_finite else ""

    def _note(self, place: Place, name: str, sentence: str) -> None:
        """Logs what is new."""
        if sentence == self._broken.get((place, name), ""):
            return
        server = "the edge server" if len(self._trials) < 2 else f"edge server {place.name}"
        if sentence:
            self._broken[place, name] = sentence
            message = f"{server} answers, but not with model {name}: {sentence}; it gets none of its batches"
            log(logging.WARNING, "model_check", model=name, place=str(place), message=message)
        else:
            del self._broken[place, name]
            message = f"{server} answers with model {name} again"
            log(logging.INFO, "model_check", model=name, place=str(place), message=message)


def _batch(place: Place, model: str, trial: Trial, now_s: float) -> Batch:
    late_s = now_s + trial.limit_s
    return Batch(
        batch_id=0,
        place=place,
        model=model,
        request_ids=(0,),
        items=1,
        body_bytes=0,
        sent_at_s=now_s,
        deadline_s=late_s,
        give_up_at_s=late_s,
        predicted_finish_s=late_s,
        predicted_service_s=0.0,
    )
