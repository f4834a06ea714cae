"""Container program for cold starts by the hundred: this project's own, but its model is a pause instead of a network.

Everything that reports and bills is `serverless_fn`'s: HTTP, initializer, frame, emulated service times. An item
`crash` ends the process, an item `hang` never returns. It is configured by the same environment variables, and by
START_S, the seconds of its initializer.
"""

from __future__ import annotations

import os
import time

import numpy as np

from models.catalogue import shipped
from models.emulation import emulation_for
from scheduler import wire
from serverless_fn.backend import Served
from serverless_fn.process import serve
from serverless_fn.settings import Settings, read_settings

CRASH, HANG = b"crash", b"hang"
_FOREVER_S = 3600.0


class Pause:
    """Backend without weights: it answers `digits` with zeros, after the time that the profile predicts."""

    def __init__(self, settings: Settings) -> None:
        """Reads the profile."""
        self._emulation = emulation_for(settings.emulate)
        self._is_loaded = False

    def load(self) -> None:
        """Takes START_S seconds, once."""
        if not self._is_loaded:
            time.sleep(float(os.environ["START_S"]))
            self._is_loaded = True

    def check(self, model: object) -> None:
        """Takes every model."""

    def serve(self, model: object, payload: wire.Encoded, trace: wire.TraceContext | None = None) -> Served:  # noqa: ARG002
        """Answers with zeros; `model` does not matter."""
        request = wire.parse_request(payload.body, payload.json_length)
        items = request.inputs[0].elements()
        if CRASH in items:
            os._exit(3)
        if HANG in items:
            time.sleep(_FOREVER_S)
        service_s = self._emulation.remaining_s(len(items), 0.0)
        time.sleep(service_s)
        [output] = shipped("digits").outputs
        rows = np.zeros((len(items), *output.shape), np.float32)
        outputs = (
            wire.Tensor.from_numpy(output.name, rows),
            wire.Tensor.from_elements(wire.ITEM_ERROR, [b""] * len(items)),
        )
        response = wire.InferResponse(str(model), outputs, request.id, parameters={"service_s": service_s})
        encoded = wire.encode_response(response, requested=request.outputs, binary_by_default=request.binary_by_default)
        return Served(encoded, service_s)


if __name__ == "__main__":
    of_environment = read_settings(os.environ)
    serve(of_environment, Pause(of_environment))
