"""A model and a clock for the edge server's tests, so that they need neither torch nor time."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

import cv2
import numpy as np
from support.hygiene import at_end

from edge_server.device import Device
from edge_server.service import EdgeModel, Service, State
from models.catalogue import shipped
from models.emulation import Emulation
from models.images import decode_image
from models.runtime import RuntimeReport
from models.serving import ServedModel


class FakeClock:
    """Seconds that pass only when told, or while somebody sleeps."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.now_s = 0.0

    def __call__(self) -> float:
        """Return the seconds."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Pass the time at once."""
        self.now_s += seconds


class FakeModel:
    """Says which digit a picture's grey level, in steps of 25, stands for; can be held up. A runtime and a decoder."""

    report = RuntimeReport("fake", "cpu", tried={"fake": 0.001, "other": "not installed"})

    def __init__(self) -> None:
        """Nothing is held up."""
        self.served = ServedModel(
            replace(shipped("digits"), activation="none"),
            self,
            decoders={"image": self.decode},
            identity="sha256:" + "0" * 64,
        )
        self.batches: list[int] = []
        self.preprocessed = threading.Semaphore(0)
        self.predicting = threading.Semaphore(0)
        self.may_predict = threading.Event()
        self.may_predict.set()
        self.while_predicting: Callable[[], None] = lambda: None

    def decode(self, element: bytes) -> np.ndarray:
        """Return the mean grey level."""
        image = decode_image(element)
        self.preprocessed.release()
        return np.full((1, 2, 2), image.mean(), dtype=np.float32)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return one-hot rows."""
        batch = inputs["image"]
        self.batches.append(len(batch))
        self.predicting.release()
        assert self.may_predict.wait(timeout=30)
        self.while_predicting()
        digits = np.rint(batch.mean(axis=(1, 2, 3)) / 25).astype(int)
        return {"probabilities": np.eye(10, dtype=np.float32)[digits]}


def picture(digit: int) -> bytes:
    """Return a PNG which the fake model takes for the digit."""
    return cv2.imencode(".png", np.full((8, 8, 3), 25 * digit, dtype=np.uint8))[1].tobytes()


def make_service(
    model: FakeModel | ServedModel,
    *others: ServedModel,
    max_batch: int = 8,
    emulation: Emulation | None = None,
    clock: FakeClock | None = None,
    decode_threads: int = 2,
    limit_s: float = math.inf,
) -> Service:
    """Return a service of the fake model, or others, that is ready; with a limit, on the real clock."""
    clock = clock or FakeClock()
    served = model.served if isinstance(model, FakeModel) else model
    service = Service(
        models=[EdgeModel(one, max_batch=max_batch, decode_threads=decode_threads) for one in (served, *others)],
        device=Device(clock=clock) if math.isinf(limit_s) else Device(limit_s=limit_s),
        emulation=emulation or Emulation(),
        clock=clock,
        sleep=clock.sleep,
    )
    service.state = State.READY
    at_end(lambda: end(service))
    return service


def end(service: Service) -> None:
    """End the threads of a service whose work has ended; work that hangs keeps its own."""
    for model in service.models.values():
        model.pool.shutdown(wait=False)
    threading.Thread(target=service.device.close, daemon=True).start()
