"""Warm-up: runs every batch size once, since kernels are selected and memory is allocated for each size."""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np
import torch

from edge_server.errors import StartupError
from models.network import LoadedModel

_PICTURE = (224, 224, 3)


def blank_pictures() -> list[bytes]:
    """Returns encoded blank pictures of both formats, enough for every decoding thread."""
    blank = np.zeros(_PICTURE, dtype=np.uint8)
    return [cv2.imencode(kind, blank)[1].tobytes() for kind in (".png", ".jpg")] * 8


def warm_up(
    model: LoadedModel,
    *,
    max_batch: int,
    budget_s: float,
    stopped: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Predicts blank batches: first the largest, which needs the most memory, then the others in ascending order.

    Args:
        model: the model.
        max_batch: the largest batch size.
        budget_s: seconds after which the remaining sizes are omitted.
        stopped: returns whether to stop at once.
        clock: returns monotonic seconds.

    Returns:
        The number of sizes that have run.

    Raises:
        StartupError: the largest batch does not fit in the device's memory.
    """
    blank = model.preprocess(np.zeros(_PICTURE, dtype=np.uint8))
    end_s = clock() + budget_s
    for done, items in enumerate((max_batch, *range(1, max_batch))):
        if stopped() or (done and clock() > end_s):
            return done
        try:
            model.predict(np.repeat(blank[np.newaxis], items, axis=0))
        except torch.cuda.OutOfMemoryError as error:
            raise StartupError(
                f"a batch of {items} of model {model.spec.name!r} does not fit in the GPU's memory: lower --max-batch"
            ) from error
    return max_batch
