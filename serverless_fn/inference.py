"""Serves one invocation: decodes, predicts and answers its batch, from frame to frame."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models import catalogue
from models.emulation import Emulation, emulation_for
from models.errors import ModelError
from scheduler import wire
from serverless_fn.log_tail import LogTail
from serverless_fn.settings import Settings

if TYPE_CHECKING:
    from models.network import LoadedModel

# Limits the memory of one invocation if no profile gives the largest batch of the function.
_DEFAULT_MAX_BATCH = 32


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer to an invocation: its status, and the frame that carries it."""

    status: int
    frame: bytes


@dataclass(frozen=True, slots=True)
class _Loaded:
    model: LoadedModel
    emulation: Emulation
    max_batch: int


@dataclass(frozen=True, slots=True)
class _Served:
    payload: wire.Encoded
    service_s: float


class _NotServed(Exception):
    """Error: the whole invocation fails with this status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


FRESH_S = 1.0
"""Seconds: an instance that waited longer for its first request was provisioned, not started for it."""


class Inference:
    """Inference of one instance. Thread-safe; computes one batch at a time."""

    def __init__(self, settings: Settings, log_tail: LogTail | None = None) -> None:
        """Stores its parts.

        Args:
            settings: of the instance.
            log_tail: what the process printed last, for callers that ask for it; None: nothing is kept.
        """
        self._settings = settings
        self._log_tail = log_tail
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None
        self._invoked = False
        self._loaded_at_s = time.perf_counter()
        # Without an initializer the first invocation loads the model, and its duration contains that.
        self._init_s: float | None = 0.0

    def initialize(self) -> None:
        """Runs the platform's initializer: loads the model unless it is loaded.

        Raises:
            ModelError: there is no such model, weights or profile; the message says what to do.
        """
        started_s = time.perf_counter()
        self._load()
        self._init_s = time.perf_counter() - started_s

    def _load(self) -> None:
        with self._lock:
            if self._loaded is None:
                self._loaded = _load(self._settings)
                self._loaded_at_s = time.perf_counter()

    def answer(self, frame: bytes) -> Answer:
        """Returns the answer to one invocation.

        A broken image fails alone, in the output `item_error`. If the whole batch fails, the frame of the answer holds
        the status and an error sentence.
        """
        started_s = time.perf_counter()
        cold_start, self._invoked = not self._invoked and self._is_fresh(started_s), True
        header: dict[str, object] = {"instance_id": self._settings.instance_id, "cold_start": cold_start}
        payload, status = wire.Encoded(b"", None), 200
        request_header: Mapping[str, object] = {}
        try:
            request_header, request_payload = wire.unpack_frame(frame)
            header["batch_id"] = str(request_header.get("batch_id", ""))
            served = self._serve(request_header, request_payload)
            payload, header["service_s"] = served.payload, served.service_s
        except wire.WireError as error:
            status, header["error"] = 400, str(error)
        except ModelError as error:
            status, header["error"] = 500, str(error)
        except _NotServed as error:
            status, header["error"] = error.status, str(error)
        header |= {"status": status, "memory_bytes": memory_bytes()}
        header.setdefault("service_s", 0.0)
        header.setdefault("batch_id", "")
        init_s, self._init_s = self._init_s, None
        if init_s is not None:
            header["init_s"] = init_s
        if request_header.get("log_tail") is True and self._log_tail is not None:
            header["log_tail"] = self._log_tail.text()
        header["duration_s"] = time.perf_counter() - started_s
        return Answer(status, wire.pack_frame(header, payload))

    def _is_fresh(self, now_s: float) -> bool:
        """Returns whether the instance was started for the request that arrives at `now_s`.

        The platform does not say so. But it passes on a request that waited for a new instance as soon as the instance
        is ready.
        """
        return self._loaded is None or now_s - self._loaded_at_s < FRESH_S

    def _serve(self, header: Mapping[str, object], payload: wire.Encoded) -> _Served:
        wanted = header.get("model", self._settings.model)
        if wanted != self._settings.model:
            raise _NotServed(404, f"this function serves {self._settings.model!r}, not {wanted!r}")
        self._load()
        loaded = self._loaded
        assert loaded is not None
        if header.get("warm") is True:
            # A warming call: it only has to reach an instance with a loaded model.
            return _Served(wire.Encoded(b"", None), 0.0)
        request = wire.parse_request(payload.body, payload.json_length)
        images = _images(request, loaded)
        # Service time begins here: waiting for the lock is no service.
        with self._lock:
            started_s = time.perf_counter()
            outputs = _predict(loaded.model, images)
            elapsed_s = time.perf_counter() - started_s
            time.sleep(loaded.emulation.remaining_s(len(images), elapsed_s))
            service_s = time.perf_counter() - started_s
        response = wire.InferResponse(self._settings.model, outputs, request.id, parameters={"service_s": service_s})
        encoded = wire.encode_response(response, requested=request.outputs, binary_by_default=request.binary_by_default)
        return _Served(encoded, service_s)


def memory_bytes() -> int:
    """Returns the peak of the resident memory of this process, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB.


def _load(settings: Settings) -> _Loaded:
    catalogue.spec(settings.model)
    emulation = emulation_for(settings.emulate)
    # Here and not above: importing torch takes a second, and the platform already waits for the open port.
    import cv2
    import torch

    from models import network

    torch.set_num_threads(settings.torch_threads)
    model = network.load(
        settings.model,
        weights=settings.weights,
        weights_sha256=settings.weights_sha256,
        random_weights=settings.random_weights,
        device=settings.device,
    )
    # The first picture initialises kernels of OpenCV and torch: 5 to 100 ms that belong to the cold start.
    _predict(model, [cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()])
    profile = emulation.profile
    emulated_max_batch = profile.max_batch if profile else _DEFAULT_MAX_BATCH
    return _Loaded(model, emulation, settings.max_batch or emulated_max_batch)


def _images(request: wire.InferRequest, loaded: _Loaded) -> list[bytes]:
    spec = loaded.model.spec
    if len(request.inputs) != 1 or request.inputs[0].name != spec.input_name:
        raise wire.WireError(f"model {spec.name!r} takes one input, named {spec.input_name!r}")
    tensor = request.inputs[0]
    if tensor.datatype != spec.input_datatype or tensor.shape[1:] not in ((), (1,)):
        raise wire.WireError(
            f"input {tensor.name!r} must be {spec.input_datatype} of shape [n], one encoded image an item,"
            f" not {tensor.datatype} of shape {list(tensor.shape)}"
        )
    if not 1 <= tensor.items <= loaded.max_batch:
        raise wire.WireError(f"the batch has {tensor.items} items; this function takes 1 to {loaded.max_batch}")
    return wire.base64_elements(tensor).elements()


def _predict(model: LoadedModel, images: list[bytes]) -> tuple[wire.Tensor, ...]:
    from models.images import ImageError, decode_image

    ready: dict[int, npt.NDArray[Any]] = {}
    errors = [b""] * len(images)
    for index, image in enumerate(images):
        try:
            ready[index] = model.preprocess(decode_image(image))
        except ImageError as error:
            errors[index] = str(error).encode()
    output = model.spec.outputs[0]
    # The row of a broken image stays zero, so that the sum over a batch contains no NaN.
    probabilities = np.zeros((len(images), *output.shape), np.float32)
    if ready:
        probabilities[list(ready)] = model.predict(np.stack(list(ready.values())))
    return (
        wire.Tensor.from_numpy(output.name, probabilities),
        wire.Tensor.from_elements(wire.ITEM_ERROR, errors),
    )
