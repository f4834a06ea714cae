"""A bare loop: decodes in threads while it predicts the batch before, by the same runtime, without a server.

It is a process of its own, so that it has an interpreter to itself as the server has. Each line on standard input is a
number of seconds, and is answered by the number of batches that it has done in them, and the seconds that they took.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_server.loading import MEASURE_S, loaded
from edge_server.settings import parse_arguments
from models.serving import ServedModel
from scheduler.wire import InferRequest
from scripts.edge_bench.servers import batch_of

Array = npt.NDArray[Any]

# As many as wait at the server: its decoding threads must not have more to do than those of the loop.
_AHEAD = 2


class Loop:
    """The loop over one batch that is decoded again and again."""

    def __init__(self, served: ServedModel, request: InferRequest, threads: int) -> None:
        """Takes the batch apart, as a program that reads files would have it."""
        self._served = served
        self._items = request.inputs[0].items
        self._arrays = {
            tensor.name: tensor.to_numpy() for tensor in request.inputs if tensor.name not in served.encoded_inputs
        }
        self._elements = {
            tensor.name: tensor.elements() for tensor in request.inputs if tensor.name in served.encoded_inputs
        }
        self._pool = ThreadPoolExecutor(threads)

    def run(self, seconds: float) -> tuple[int, float]:
        """Returns the number of batches, of which none begins after so many seconds, and the seconds that they took."""
        began_s = time.perf_counter()
        done = 0
        ahead = deque(self._decoding() for _ in range(_AHEAD))
        while time.perf_counter() - began_s < seconds:
            ahead.append(self._decoding())
            decoded = ahead.popleft()
            inputs = {name: np.stack([one.result() for one in parts]) for name, parts in decoded.items()}
            self._served.answer({**self._arrays, **inputs}, errors=[""] * self._items)
            done += 1
        elapsed_s = time.perf_counter() - began_s
        for batch in ahead:
            for parts in batch.values():
                wait(parts)
        return done, elapsed_s

    def _decoding(self) -> dict[str, list[Future[Array]]]:
        return {
            name: [self._pool.submit(self._served.prepare, name, element) for element in elements]
            for name, elements in self._elements.items()
        }


def main() -> None:
    """Loads the model as the edge server does with these options, and measures whenever it is asked to."""
    items = int(sys.argv[1])
    settings = parse_arguments(sys.argv[2:])
    [choice] = settings.models
    max_batch = min(choice.card.max_batch, settings.max_batch or choice.card.max_batch)
    served = loaded(choice, settings, max_batch=max_batch, measure_s=MEASURE_S)
    loop = Loop(served, batch_of(choice.card, items), settings.decode_threads)
    loop.run(0.5)
    print(f"{served.runtime.name} {served.runtime.device} {served.runtime.precision}", flush=True)
    for line in sys.stdin:
        print(*loop.run(float(line)), flush=True)


if __name__ == "__main__":
    main()
