"""Serves batches: checks, queues, decodes, predicts, answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy.typing as npt

from edge_server.device import Device, Job
from edge_server.errors import EdgeError, Failed, NotServed, Overdue, TooLarge, Unavailable
from edge_server.metrics import Metrics
from models.batch import Batch, Prepared, outputs_as_tensors
from models.blame import answered
from models.emulation import Emulation
from models.errors import DeviceLost, ModelError, OutOfDeviceMemory
from models.serving import ServedModel
from scheduler.wire import InferRequest, InferResponse, WireError, echoed

_log = logging.getLogger("edge_server")
VERSION = "1"
_RETRY_SOON_S = 1
_RETRY_STUCK_S = 30


class State(Enum):
    """State of the server."""

    WARMING = "warming up"
    READY = "ready"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Served:
    """Result of one batch, from the thread of the device.

    Attributes:
        outputs: by name, for all items.
        broken: number of broken items.
        service_s: service time in seconds: decoding plus device, without waiting for the device.
        queue_s: waiting time in seconds.
        decode_s: the part of `service_s` in which the device could serve another batch.
    """

    outputs: Mapping[str, npt.NDArray[Any]]
    broken: int
    service_s: float
    queue_s: float
    decode_s: float = 0.0


class EdgeModel:
    """A model on this server: its largest batch, its decoding threads, and whether a batch of it is stuck.

    Each model has threads of its own, so that a decoder that hangs does not stop the others.
    """

    def __init__(self, served: ServedModel, *, max_batch: int, decode_threads: int) -> None:
        """Stores the arguments; the threads start with the first batch that needs them."""
        self.served = served
        self.max_batch = max_batch
        self.decode_threads = decode_threads
        self.pool = ThreadPoolExecutor(decode_threads, thread_name_prefix=f"decode-{served.card.name}")
        self.is_stuck = False

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.served.card.name

    def stuck(self, is_stuck: bool) -> None:
        """Notes that a batch was given up, or that it has ended after all."""
        self.is_stuck = is_stuck


class Service:
    """Service of batches by the loaded models on the device.

    Args:
        models: the loaded models.
        device: the device with its queue.
        emulation: the emulated device, or none.
        clock: returns monotonic seconds.
        sleep: waits for a number of seconds.
        isolation: what this process got of the GPU by MPS; empty without MPS.
        parallel: returns the number of batches that are served at once at this server's address.
    """

    def __init__(
        self,
        *,
        models: Iterable[EdgeModel],
        device: Device,
        emulation: Emulation,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        isolation: Mapping[str, object] | None = None,
        parallel: Callable[[], int] = lambda: 1,
    ) -> None:
        """Stores the arguments; no batch is served before `state` is READY."""
        self.models = {model.name: model for model in models}
        self.emulation = emulation
        self.device = device
        self.state = State.WARMING
        self.isolation = isolation or {}
        self.parallel = parallel
        self.metrics = Metrics(in_hand=lambda: device.in_hand, ready=lambda: self.state is State.READY)
        for model in self.models.values():
            self.metrics.serves(model.name, model.served.runtime, model.served.identity)
        self._clock = clock
        self._sleep = sleep
        self.device_is_lost = False
        self.on_device_lost: Callable[[], None] = lambda: None
        """Called when the device cannot be used by this process any more."""

    def model(self, name: str, version: str = VERSION) -> EdgeModel:
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
            request: the batch.
            version: the model's version.

        Returns:
            Every output of the card, rows of ragged outputs and `item_error` included where the card has them, and the
            parameters `service_s`, `queue_s`, `decode_s`, `item_crc32` and, if it is known, `identity`.

        Raises:
            NotServed: there is no such model.
            WireError: inputs or outputs are not those of the model, there are too many items, or a JSON text is not
                base64.
            Unavailable: the server is warming up or stopping, the queue is full, or the model is stuck.
            Failed: the model failed on this batch, or has not ended it within the limit.
        """
        model = self.model(name, version)
        batch = Batch(model.served, request, max_items=model.max_batch, clock=self._clock)
        self._check_ready(model)
        served = self._through_device(model, batch)
        self.metrics.served(
            model=name, items=batch.items, broken=served.broken, service_s=served.service_s, queue_s=served.queue_s
        )
        return InferResponse(
            model_name=name,
            model_version=VERSION,
            id=request.id,
            outputs=outputs_as_tensors(served.outputs),
            parameters={
                "service_s": served.service_s,
                "queue_s": served.queue_s,
                "decode_s": served.decode_s,
                **self._identity(model),
                **echoed(request.inputs),
            },
        )

    def _identity(self, model: EdgeModel) -> dict[str, object]:
        return {} if model.served.identity is None else {"identity": model.served.identity}

    def rehearse(self, name: str, request: InferRequest) -> None:
        """Serves a batch before the server is ready, so that the first batch of a client is not slower."""
        model = self.models[name]
        self._through_device(model, Batch(model.served, request, max_items=model.max_batch, clock=self._clock))

    def is_alive(self, limit_s: float) -> bool:
        """Returns whether the device works: no batch is served for longer, and not every model is stuck."""
        return self.device.busy_s() < limit_s and any(not model.is_stuck for model in self.models.values())

    def _check_ready(self, model: EdgeModel) -> None:
        if self.state is not State.READY:
            raise Unavailable(f"the server is {self.state.value}: try again later", retry_after_s=_RETRY_SOON_S)
        if model.is_stuck:
            raise Unavailable(
                f"model {model.name!r} does not come back from an earlier batch: if it stays so, restart the server",
                retry_after_s=_RETRY_STUCK_S,
            )

    def _submit(self, model: EdgeModel, batch: Batch) -> Job[Served]:
        admitted_s, profile = self._clock(), self.emulation.profile
        decoded: list[tuple[Prepared, float]] = []

        def start() -> None:
            batch.start(model.pool, model.decode_threads)

        def emulated() -> Served:
            start()
            return self._served(model, batch, batch.wait(), admitted_s=admitted_s, waited_s=0.0)

        def decode_emulated() -> None:
            start()
            prepared = batch.wait()
            self._sleep(max(0.0, self.emulation.decode_s - (self._clock() - prepared.began_s)))
            decoded.append((prepared, self._clock()))

        def serve() -> Served:
            taken_s = self._clock()
            prepared, ended_s = decoded[0] if decoded else ((waited := batch.wait()), waited.ended_s)
            waited_s = max(0.0, taken_s - ended_s)
            times = {"admitted_s": admitted_s, "waited_s": waited_s, "decode_s": ended_s - prepared.began_s}
            return self._served(model, batch, prepared, **times, taken_s=taken_s if decoded else None)

        if profile is None:
            return self.device.submit(serve, prepare=start, stuck=model.stuck)
        if profile.decode_s:
            return self.device.submit(serve, prepare=decode_emulated, stuck=model.stuck)
        # The profile covers the whole service of one batch at a time. Decoding the next batch meanwhile would make the
        # emulation faster than the device.
        return self.device.submit(emulated, stuck=model.stuck)

    def _through_device(self, model: EdgeModel, batch: Batch) -> Served:
        job = self._submit(model, batch)
        try:
            return self.device.outcome(job)
        except Overdue as error:
            _log.error("Model %s: %s; it is not served until that batch ends.", model.name, error)
            raise Failed(f"model {model.name!r} failed on this batch: {error}; see what its code waits for") from None
        except (EdgeError, WireError):
            raise
        except DeviceLost as error:
            self.lose_device(error)
            raise Unavailable(
                "the GPU answers nothing any more, the server starts again: try again later, or elsewhere",
                retry_after_s=_RETRY_STUCK_S,
            ) from error
        except ModelError as error:
            _log.error("Model %s failed on a batch of %d: %s", model.name, batch.items, error)
            if isinstance(error, OutOfDeviceMemory) and batch.items > 1:
                raise TooLarge(str(error)) from error
            raise Failed(f"model {model.name!r} failed on this batch: {error}") from error
        except Exception as error:  # code of a handler may raise anything; its words are for the log
            _log.exception("Model %s failed on a batch of %d", model.name, batch.items)
            raise Failed(
                f"model {model.name!r} failed on this batch ({type(error).__name__}); the server's log says why"
            ) from error

    def lose_device(self, error: DeviceLost) -> None:
        """Has the process end: no batch can be served in it, and the service manager starts another one."""
        if not self.device_is_lost:
            self.device_is_lost = True
            _log.critical("Ending with status 1: %s.", error)
        self.state = State.STOPPING
        self.on_device_lost()

    def _served(
        self,
        model: EdgeModel,
        batch: Batch,
        prepared: Prepared,
        *,
        admitted_s: float,
        waited_s: float,
        decode_s: float = 0.0,
        taken_s: float | None = None,
    ) -> Served:
        """Predicts a decoded batch and returns the result.

        Args:
            model: that is asked for.
            batch: the batch.
            prepared: the same, decoded.
            admitted_s: when it came.
            waited_s: its wait for the device, seconds.
            decode_s: its decoding beside the device, seconds.
            taken_s: since when an emulated device serves it; None: since its decoding began.
        """
        outputs = answered(model.served, prepared, clock=self._clock)
        began_s = prepared.began_s if taken_s is None else taken_s
        remaining_s = self.emulation.remaining_s(batch.items, self._clock() - began_s)
        if remaining_s > 0:
            self._sleep(remaining_s)
        return Served(
            outputs=outputs,
            broken=sum(map(bool, prepared.errors)),
            service_s=self._clock() - prepared.began_s - waited_s,
            queue_s=prepared.began_s - admitted_s + waited_s,
            decode_s=decode_s,
        )
