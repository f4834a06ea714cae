"""Serves batches: checks, queues, decodes, predicts, answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge_server.decoding import Decoded, Decoding
from edge_server.device import Device
from edge_server.errors import BadRequest, NotServed, Unavailable
from edge_server.metrics import Metrics
from models.emulation import Emulation
from scheduler.wire import ITEM_ERROR, InferRequest, InferResponse, Tensor, base64_elements

if TYPE_CHECKING:
    from models.network import LoadedModel

VERSION = "1"
_RETRY_SOON_S = 1


class State(Enum):
    """State of the server."""

    WARMING = "warming up"
    READY = "ready"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Served:
    """Result of one batch, from the thread of the device.

    Attributes:
        probabilities: shape items x classes; zeros for a broken picture.
        errors: one text for each item, empty if its picture is not broken.
        service_s: service time in seconds: decoding plus device, without waiting for the device.
        queue_s: waiting time in seconds.
    """

    probabilities: npt.NDArray[np.float32]
    errors: tuple[str, ...]
    service_s: float
    queue_s: float


class Service:
    """Service of batches by the loaded models on the device.

    Args:
        models: the loaded models by name.
        max_batch: the largest number of items in a batch.
        device: the device with its queue.
        pool: the threads that decode.
        emulation: the emulated device, or none.
        clock: returns monotonic seconds.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        *,
        models: Mapping[str, LoadedModel],
        max_batch: int,
        device: Device,
        pool: ThreadPoolExecutor,
        emulation: Emulation,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Stores the arguments; no batch is served before `state` is READY."""
        self.models = models
        self.max_batch = max_batch
        self.emulation = emulation
        self.device = device
        self.state = State.WARMING
        self.metrics = Metrics(in_hand=lambda: device.in_hand, ready=lambda: self.state is State.READY)
        self._pool = pool
        self._clock = clock
        self._sleep = sleep

    def model(self, name: str, version: str = VERSION) -> LoadedModel:
        """Returns a served model.

        Raises:
            NotServed: there is no model of that name and version.
        """
        if name not in self.models:
            raise NotServed(f"there is no model {name[:64]!r} here; this server has: {', '.join(self.models)}")
        if version != VERSION:
            raise NotServed(f"model {name!r} has no version {version[:64]!r}; its one version is {VERSION!r}")
        return self.models[name]

    def infer(self, name: str, request: InferRequest, *, version: str = VERSION) -> InferResponse:
        """Serves one batch.

        Args:
            name: the model.
            request: the batch; each item is one encoded picture.
            version: the model's version.

        Returns:
            The outputs `probabilities` (zeros for a broken picture) and `item_error` (empty for a good picture), and
            the parameters `service_s` and `queue_s`.

        Raises:
            NotServed: there is no such model.
            BadRequest: the inputs are not those of the model, or there are too many items.
            WireError: a JSON text is not base64.
            Unavailable: the server is warming up or stopping, or the queue is full.
        """
        model = self.model(name, version)
        _check_outputs(model, request)
        elements = _checked_elements(model, request, max_batch=self.max_batch)
        self._check_ready()
        served = self._through_device(model, elements)
        self.metrics.served(
            model=name,
            items=len(elements),
            broken=sum(map(bool, served.errors)),
            service_s=served.service_s,
            queue_s=served.queue_s,
        )
        return InferResponse(
            model_name=name,
            model_version=VERSION,
            id=request.id,
            outputs=(
                Tensor.from_numpy(model.spec.outputs[0].name, served.probabilities),
                Tensor.from_elements(ITEM_ERROR, [error.encode() for error in served.errors]),
            ),
            parameters={"service_s": served.service_s, "queue_s": served.queue_s},
        )

    def rehearse(self, name: str, pictures: Sequence[bytes]) -> None:
        """Serves a batch before the server is ready, so that the first batch of a client is not slower."""
        self._through_device(self.models[name], pictures)

    def _check_ready(self) -> None:
        if self.state is not State.READY:
            raise Unavailable(f"the server is {self.state.value}: try again later", retry_after_s=_RETRY_SOON_S)

    def _through_device(self, model: LoadedModel, elements: Sequence[bytes]) -> Served:
        admitted_s = self._clock()
        decoding = Decoding(pool=self._pool, elements=elements, preprocess=model.preprocess, clock=self._clock)
        if self.emulation.profile is not None:
            # The profile of the emulated device covers the whole service of one batch at a time. Decoding the next
            # batch meanwhile would make the emulation faster than the device.
            return self.device.submit(lambda: self._serve_emulated(model, decoding, admitted_s)).result()
        work = self.device.submit(lambda: self._serve(model, decoding, admitted_s), prepare=decoding.start)
        return work.result()

    def _serve(self, model: LoadedModel, decoding: Decoding, admitted_s: float) -> Served:
        taken_s = self._clock()
        decoded = decoding.wait()
        return self._served(model, decoded, admitted_s=admitted_s, waited_s=max(0.0, taken_s - decoded.ended_s))

    def _serve_emulated(self, model: LoadedModel, decoding: Decoding, admitted_s: float) -> Served:
        decoding.start()
        return self._served(model, decoding.wait(), admitted_s=admitted_s, waited_s=0.0)

    def _served(self, model: LoadedModel, decoded: Decoded, *, admitted_s: float, waited_s: float) -> Served:
        """Predicts a decoded batch and returns the result; `waited_s` is its wait for the device, in seconds."""
        probabilities = _predict(model, decoded)
        remaining_s = self.emulation.remaining_s(len(decoded.items), self._clock() - decoded.began_s)
        if remaining_s > 0:
            self._sleep(remaining_s)
        return Served(
            probabilities=probabilities,
            errors=tuple(item.error for item in decoded.items),
            service_s=self._clock() - decoded.began_s - waited_s,
            queue_s=decoded.began_s - admitted_s + waited_s,
        )


def _predict(model: LoadedModel, decoded: Decoded) -> npt.NDArray[np.float32]:
    pixels = {index: item.pixels for index, item in enumerate(decoded.items) if item.pixels is not None}
    probabilities = np.zeros((len(decoded.items), *model.spec.outputs[0].shape), dtype=np.float32)
    if pixels:
        probabilities[list(pixels)] = model.predict(np.stack(list(pixels.values())))
    return probabilities


def output_names(model: LoadedModel) -> tuple[str, ...]:
    """Returns the names of all outputs of a model, `item_error` included."""
    return (*(output.name for output in model.spec.outputs), ITEM_ERROR)


def _check_outputs(model: LoadedModel, request: InferRequest) -> None:
    names = output_names(model)
    for wanted in request.outputs:
        if wanted.name not in names:
            raise BadRequest(f"model {model.spec.name!r} has no output {wanted.name[:64]!r}; it has {', '.join(names)}")
        if wanted.class_count:
            raise BadRequest(
                f"output {wanted.name!r} is asked for as classification, which this server does not do: "
                "ask for the output itself and take its largest values"
            )


def _checked_elements(model: LoadedModel, request: InferRequest, *, max_batch: int) -> list[bytes]:
    spec = model.spec
    if len(request.inputs) != 1 or request.inputs[0].name != spec.input_name:
        given = ", ".join(repr(tensor.name[:64]) for tensor in request.inputs[:4])
        raise BadRequest(f"model {spec.name!r} takes one input, {spec.input_name!r}, but the request has {given}")
    tensor = request.inputs[0]
    if tensor.datatype != spec.input_datatype:
        raise BadRequest(
            f"input {tensor.name!r} has datatype {tensor.datatype}, but must be {spec.input_datatype}: "
            "one encoded PNG or JPEG picture an element"
        )
    if tensor.shape[1:] != spec.input_shape or tensor.items == 0:
        wanted = ["n", *spec.input_shape]
        raise BadRequest(
            f"input {tensor.name!r} has shape {list(tensor.shape)}, but must be [{', '.join(map(str, wanted))}] "
            "with n pictures, at least 1"
        )
    if tensor.items > max_batch:
        raise BadRequest(f"the batch has {tensor.items} items, but at most {max_batch} fit: send it in parts")
    return base64_elements(tensor).elements()
