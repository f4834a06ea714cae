"""Container program for cold starts by the hundred: this project's own, but its model is a pause instead of torch.

Everything that reports and bills is `serverless_fn`'s: HTTP, initializer, frame, emulated service times. An item
`crash` ends the process, an item `hang` never returns. It is configured by the same environment variables, and by
START_S, the seconds of its initializer.
"""

from __future__ import annotations

import os
import sys
import time

import numpy as np

from models import catalogue
from models.emulation import emulation_for
from scheduler import wire
from serverless_fn import __main__ as program
from serverless_fn import inference
from serverless_fn.settings import Settings

CRASH, HANG = b"crash", b"hang"
_FOREVER_S = 3600.0


class _Pause:
    """A model without weights."""

    spec = catalogue.spec("digits")


def _load(settings: Settings) -> inference._Loaded:
    time.sleep(float(os.environ["START_S"]))
    emulation = emulation_for(settings.emulate)
    return inference._Loaded(_Pause(), emulation, settings.max_batch or 8)  # type: ignore[arg-type]


def _predict(_: object, images: list[bytes]) -> tuple[wire.Tensor, ...]:
    if CRASH in images:
        os._exit(3)
    if HANG in images:
        time.sleep(_FOREVER_S)
    [output] = _Pause.spec.outputs
    rows = np.zeros((len(images), *output.shape), np.float32)
    return wire.Tensor.from_numpy(output.name, rows), wire.Tensor.from_elements(wire.ITEM_ERROR, [b""] * len(images))


if __name__ == "__main__":
    inference._load, inference._predict = _load, _predict  # type: ignore[assignment]
    sys.exit(program.main())
