"""The models that the container itself serves: loaded once, checked against the hash that the deployment expects."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from models.batch import Batch, outputs_as_tensors, rehearsal_request
from models.blame import answered
from models.card import Card
from models.catalogue import DEFAULT, card_of, cards_in
from models.emulation import Emulation, emulation_for
from models.errors import ModelError
from models.serving import ServedModel
from scheduler import wire
from serverless_fn.backend import NotServed, Served
from serverless_fn.settings import Settings


@dataclass(frozen=True, slots=True)
class _Loaded:
    models: Mapping[str, ServedModel]
    emulation: Emulation


class LocalModels:
    """Backend of the models of a container."""

    def __init__(self, settings: Settings) -> None:
        """Stores the settings; `load` loads."""
        self._settings = settings
        self._lock = threading.Lock()
        self._cards: Mapping[str, Card] | None = None
        self._loaded: _Loaded | None = None

    def load(self) -> None:
        """Loads the models, unless they are loaded.

        Raises:
            ModelError: there is no such model, weights, package or profile, or a model's files are not the expected
                ones.
        """
        with self._lock:
            if self._loaded is None:
                emulation = emulation_for(self._settings.emulate)
                models = {name: load_model(card, self._settings) for name, card in self._read().items()}
                self._loaded = _Loaded(models, emulation)

    def check(self, model: object) -> None:
        """Checks that a frame's model is served here.

        Raises:
            NotServed: it is not, or the frame names none and there are several.
            CardError: a card cannot be used.
        """
        self._named(model)

    def serve(self, model: object, payload: wire.Encoded, trace: wire.TraceContext | None = None) -> Served:  # noqa: ARG002
        """Answers one batch; what it raises is said in `Backend`."""
        name = self._named(model)
        loaded = self._loaded
        assert loaded is not None, "load() comes first"
        served = loaded.models[name]
        request = wire.parse_request(payload.body, payload.json_length)
        batch = Batch(served, request, max_items=self._max_batch(served, loaded.emulation), clock=time.perf_counter)
        # Service time begins here: waiting for the lock is no service.
        with self._lock:
            prepared = batch.prepare_here()
            outputs = outputs_as_tensors(answered(served, prepared))
            time.sleep(loaded.emulation.remaining_s(batch.items, time.perf_counter() - prepared.began_s))
            service_s = time.perf_counter() - prepared.began_s
        response = wire.InferResponse(name, outputs, request.id, parameters={"service_s": service_s})
        encoded = wire.encode_response(response, requested=request.outputs, binary_by_default=request.binary_by_default)
        runtime = f"{served.runtime.name} {served.runtime.device} {served.runtime.precision}"
        about = {"runtime": runtime, "identity": served.identity, "files": served.files}
        return Served(encoded, service_s, {**about, **wire.echoed(request.inputs)})

    def _named(self, model: object) -> str:
        cards = self._read()
        if model is None and len(cards) == 1:
            return next(iter(cards))
        if not isinstance(model, str) or model not in cards:
            known = ", ".join(repr(name) for name in cards)
            raise NotServed(404, f"this function serves {known}, not {model!r}")
        return model

    def _read(self) -> Mapping[str, Card]:
        if self._cards is None:
            self._cards = cards_of(self._settings)
        return self._cards

    def _max_batch(self, served: ServedModel, emulation: Emulation) -> int:
        limits = (
            served.card.max_batch,
            self._settings.max_batch,
            emulation.profile.max_batch if emulation.profile else None,
        )
        return min(limit for limit in limits if limit is not None)


def cards_of(settings: Settings) -> Mapping[str, Card]:
    """Returns the cards of the models that the settings name, by model.

    Raises:
        ModelError: there is no such model, a card cannot be used, or two models have the same name.
    """
    cards = [card_of(model) for model in settings.models]
    cards += [card for folder in settings.folders for card in cards_in(folder)]
    if settings.only is not None:
        cards = [card for card in cards if card.name == settings.only] or [card_of(settings.only)]
    by_name = {card.name: card for card in cards or [card_of(DEFAULT)]}
    if len(by_name) < len(cards):
        raise ModelError(f"two of the models {', '.join(card.name for card in cards)} have the same name: rename one")
    for name in settings.identities:
        if name not in by_name:
            raise ModelError(f"MODEL_IDENTITY names {name!r}, but this function serves {', '.join(by_name)}")
    for name in settings.runtimes.by_model:
        if name not in by_name:
            raise ModelError(f"a runtime is given for {name!r}, but this function serves {', '.join(by_name)}")
    if settings.weights is not None and len(by_name) > 1:
        raise ModelError("WEIGHTS_PATH is for one model, but there are several: name the files in their cards")
    return by_name


def load_model(card: Card, settings: Settings) -> ServedModel:
    """Loads a model and serves one made-up item, which initialises kernels: milliseconds of the cold start.

    Raises:
        ModelError: it cannot be loaded, or its card and files are not those of the identity that is expected.
    """
    expected = settings.identities.get(card.name)
    if expected is not None and settings.weights is None and settings.random_weights != card.name:
        # Before anything is loaded, where no file takes the place of the card's.
        _expect(card.name, card.identity(), expected)
    # Here and not above: importing a framework takes time, and the platform already waits for the open port.
    from models.loading import load

    served = load(
        card,
        device=settings.device,
        runtime=settings.runtimes.of(card.name),
        threads=settings.torch_threads,
        weights=settings.weights,
        weights_sha256=settings.weights_sha256,
        random_weights=settings.random_weights == card.name,
    )
    if expected is not None:
        _expect(card.name, served.identity, expected)
    _rehearse(served)
    return served


def _expect(name: str, found: str | None, expected: str) -> None:
    if found != expected:
        raise ModelError(
            f"model {name} of this image has the identity {found}, but {expected} is expected:"
            " build the image with the folder that the configuration names, or deploy anew"
        )


def _rehearse(served: ServedModel) -> None:
    try:
        prepared = Batch(served, rehearsal_request(served.card, 1), max_items=1).prepare_here()
        served.answer(prepared.inputs, errors=prepared.errors)
    except (ModelError, wire.WireError) as error:
        # Made-up items need not please every model.
        print(f"Model {served.card.name} cannot be warmed up with a made-up item: {error}", flush=True)
