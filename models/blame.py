"""Whose fault a failed batch is: the model's, or that of inputs that fit its card and that it cannot take all the same.

A word outside a vocabulary, say: a host that called it the model's fault would be taken for broken by its clients, and
one bad request would keep all others away.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from models.batch import Batch, Prepared, rehearsal_request
from models.errors import DeviceLost, ModelError, is_out_of_memory
from models.runtime import Array
from models.serving import ServedModel
from scheduler.wire import WireError

_log = logging.getLogger("models")
# A failure that took longer is not tried again: others wait for the device. Judgement: bad inputs fail at once.
_QUICK_S: Final = 1.0


def answered(
    model: ServedModel, prepared: Prepared, *, clock: Callable[[], float] = time.monotonic
) -> Mapping[str, Array]:
    """Returns the answer to a decoded batch.

    One that fails is tried again where a made-up item is answered meanwhile: so a failure that passes is none.

    Raises:
        WireError: it is the inputs' fault: these fail twice, others do not.
        Exception: it is the model's fault, or not known whose.
    """
    began_s = clock()
    try:
        return model.answer(prepared.inputs, errors=prepared.errors)
    except (WireError, DeviceLost):
        raise
    except Exception as error:
        if is_out_of_memory(error) or clock() - began_s > _QUICK_S or not _works(model):
            raise
        return _again(model, prepared, error)


def _again(model: ServedModel, prepared: Prepared, first: Exception) -> Mapping[str, Array]:
    name = model.card.name
    try:
        return model.answer(prepared.inputs, errors=prepared.errors)
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, DeviceLost):
            raise
        _log.warning("Model %s fails on a batch that fits its card, not on made-up items: %s", name, first)
        # The words of errors that are not ours are for the log alone.
        why = str(error) if isinstance(error, ModelError) else f"{type(error).__name__}; the server's log says more"
        raise WireError(f"model {name!r} cannot take these inputs, others it can: {why}") from error


def _works(model: ServedModel) -> bool:
    try:
        item = Batch(model, rehearsal_request(model.card, 1), max_items=1).prepare_here()
        model.answer(item.inputs, errors=item.errors)
    except Exception:  # noqa: BLE001 - whatever a model raises, it does not work
        return False
    return True
