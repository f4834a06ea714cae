"""A model and a clock for the edge server's tests, so that they need neither torch nor time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from edge_server.device import Device
from edge_server.service import Service, State
from models.catalogue import ModelSpec, spec
from models.emulation import Emulation


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
    """Says which digit a picture's grey level, in steps of 25, stands for; can be held up."""

    weights = "shipped"
    weights_sha256 = "0" * 64
    device = "cpu"

    def __init__(self) -> None:
        """Nothing is held up."""
        self.spec: ModelSpec = spec("digits")
        self.batches: list[int] = []
        self.preprocessed = threading.Semaphore(0)
        self.predicting = threading.Semaphore(0)
        self.may_predict = threading.Event()
        self.may_predict.set()
        self.while_predicting: Callable[[], None] = lambda: None

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        """Return the mean grey level."""
        self.preprocessed.release()
        return np.full((1, 2, 2), image.mean(), dtype=np.float32)

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Return one-hot rows."""
        self.batches.append(len(batch))
        self.predicting.release()
        assert self.may_predict.wait(timeout=30)
        self.while_predicting()
        digits = np.rint(batch.mean(axis=(1, 2, 3)) / 25).astype(int)
        rows: np.ndarray = np.eye(10, dtype=np.float32)[digits]
        return rows


def picture(digit: int) -> bytes:
    """Return a PNG which the fake model takes for the digit."""
    return cv2.imencode(".png", np.full((8, 8, 3), 25 * digit, dtype=np.uint8))[1].tobytes()


def make_service(
    model: FakeModel,
    *,
    max_batch: int = 8,
    emulation: Emulation | None = None,
    clock: FakeClock | None = None,
    pool: ThreadPoolExecutor | None = None,
) -> Service:
    """Return a service of the fake model that is ready."""
    clock = clock or FakeClock()
    service = Service(
        models={"digits": model},  # type: ignore[dict-item]
        max_batch=max_batch,
        device=Device(clock=clock),
        pool=pool or ThreadPoolExecutor(2),
        emulation=emulation or Emulation(),
        clock=clock,
        sleep=clock.sleep,
    )
    service.state = State.READY
    return service
