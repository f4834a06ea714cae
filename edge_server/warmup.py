"""Warm-up: runs every batch size once, since kernels are selected and memory is allocated for each size."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from edge_server.errors import StartupError
from edge_server.service import EdgeModel
from models.batch import Batch, rehearsal_request
from models.errors import is_out_of_memory


def warm_up(
    model: EdgeModel,
    *,
    budget_s: float,
    stopped: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Predicts made-up batches: first the largest, which needs the most memory, then the others in ascending order.

    Args:
        model: the model.
        budget_s: seconds after which the remaining sizes are omitted.
        stopped: returns whether to stop at once.
        clock: returns monotonic seconds.

    Returns:
        The number of sizes that have run.

    Raises:
        StartupError: the largest batch does not fit in the device's memory.
        ModelError, WireError: the model fails on made-up items, which need not be a fault of the model.
    """
    # One item, repeated, so that decoding takes none of the budget.
    request = rehearsal_request(model.served.card, 1)
    prepared = Batch(model.served, request, max_items=1, clock=clock).prepare_here()
    end_s = clock() + budget_s
    for done, items in enumerate((model.max_batch, *range(1, model.max_batch))):
        if stopped() or (done and clock() > end_s):
            return done
        inputs = {name: np.repeat(array, items, axis=0) for name, array in prepared.inputs.items()}
        try:
            model.served.answer(inputs, errors=prepared.errors * items)
        except Exception as error:
            if is_out_of_memory(error):
                raise StartupError(
                    f"a batch of {items} of model {model.name!r} does not fit in the device's memory: lower --max-batch"
                ) from error
            raise
    return model.max_batch
