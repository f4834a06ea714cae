"""Loads a model of any format: checks its files, opens it in a runtime, and returns it ready to serve."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from models.card import Card
from models.errors import ModelError
from models.formats.python_format import PythonHandler
from models.runtime import Array, Runtime
from models.runtime_choice import Wanted, runtime_for
from models.runtime_names import check_name
from models.serving import ElementDecoder, ServedModel
from models.weights_file import weights_of


def load(
    card: Card,
    *,
    device: str = "auto",
    runtime: str = "auto",
    threads: int = 1,
    weights: Path | None = None,
    weights_sha256: str | None = None,
    random_weights: bool = False,
    max_batch: int | None = None,
    measure_s: float = 0.0,
) -> ServedModel:
    """Loads a model; imports only the framework that serves it.

    Args:
        card: the model's card.
        device: "auto" (a GPU if there is one), "cpu" or "cuda".
        runtime: "auto", or the name of one of `runtime_names.RUNTIMES`.
        threads: threads of one operation on the CPU.
        weights: a file in place of the card's.
        weights_sha256: its SHA-256 in hexadecimal, needed with it.
        random_weights: whether an architecture gets random weights, the same on every host.
        max_batch: largest batch that the host takes; None: the card's.
        measure_s: about how long "auto" may measure which runtime is the fastest; 0: the usual one is taken.

    Raises:
        ModelError: a file is missing or has another hash, a package is missing, or the model cannot be loaded; one
            sentence says which and what to do.
    """
    check_name(runtime)
    card.check_files()
    origin = weights_of(card, weights, weights_sha256, random=random_weights)
    if card.format == "python":
        if runtime not in ("auto", "python"):
            raise ModelError(
                f"model {card.name} is a handler in Python and cannot run on {runtime!r}: choose 'auto',"
                f" on a server for this model alone by --runtime {card.name}=auto"
            )
        from models.hardware import handler_device

        handler = PythonHandler(card, handler_device(device))
        return ServedModel(
            card,
            handler,
            decoders=_decoders(card, handler),
            identity=card.identity(origin.identity),
            weights=origin.origin,
            files=card.file_hashes(origin.identity),
        )
    wanted = Wanted(device, runtime, threads, min(max_batch or card.max_batch, card.max_batch), measure_s)
    chosen: Runtime = runtime_for(card, origin, wanted)
    identity, files = card.identity(origin.identity), card.file_hashes(origin.identity)
    return ServedModel(card, chosen, decoders=_decoders(card), identity=identity, weights=origin.origin, files=files)


def _decoders(card: Card, handler: PythonHandler | None = None) -> Mapping[str, ElementDecoder]:
    """Returns for each input of pictures what turns one into an array."""
    decoder: ElementDecoder
    if card.preprocess is not None:
        # Imports OpenCV, which models without pictures do without.
        from models.preprocess import Pictures

        decoder = Pictures(card.preprocess, max_pixels=card.max_pixels).prepare
    elif handler is not None and (own := handler.decode) is not None:
        decoder = own
    else:
        decoder = _as_given
    return {spec.name: decoder for spec in card.inputs if spec.picture}


def _as_given(element: bytes) -> Array:
    return np.array(element, dtype=np.object_)
