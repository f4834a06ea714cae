"""From settings to a service that is ready: emulation, models, warm-up. The same for every server of these models."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Callable
from functools import partial

from edge_server.device import Device
from edge_server.errors import EdgeError, StartupError
from edge_server.service import EdgeModel, Service
from edge_server.settings import ModelChoice, Settings
from edge_server.warmup import warm_up
from models.batch import rehearsal_request
from models.card import Card
from models.emulation import Emulation, emulation_for
from models.errors import DeviceLost, ModelError
from models.packages import needed
from models.serving import ServedModel
from scheduler.wire import WireError

_log = logging.getLogger("edge_server")
# On a CPU nothing is compiled by batch size, and ResNet-50 would take minutes for all sizes.
_CPU_WARM_UP_S = 5.0
MEASURE_S = 10.0
"""Seconds in which the runtimes of one model are compared at the start."""


def emulation_of(settings: Settings) -> Emulation:
    """Returns the emulated device, or none.

    Raises:
        StartupError: the profile is not one of an edge device, or holds smaller batches than are asked for.
        ProfileError: there is no such profile, or it cannot be used.
    """
    emulation = emulation_for(settings.emulate)
    profile = emulation.profile
    if profile is None:
        return emulation
    if profile.backend != "edge":
        raise StartupError(f"profile {profile.name} is of a {profile.backend}, not of an edge device: choose another")
    if settings.max_batch is not None and settings.max_batch > profile.max_batch:
        raise StartupError(
            f"profile {profile.name} holds up to batches of {profile.max_batch}, not {settings.max_batch}: "
            "lower --max-batch"
        )
    _log.info(
        "Emulating %s (%s): true predictions; a batch of b items takes %g + %g b seconds, not this machine's own time.",
        profile.name,
        profile.device,
        profile.alpha_s,
        profile.beta_s,
    )
    return emulation


def load_service(settings: Settings, emulation: Emulation, *, parallel: Callable[[], int] = lambda: 1) -> Service:
    """Returns the service of the models, all loaded, before their warm-up.

    Args:
        settings: what to load.
        emulation: the emulated device, or none.
        parallel: returns the number of batches that are served at once at the server's address.

    Raises:
        StartupError: a package is missing.
        ModelError: a model, its weights or its runtime cannot be used.
    """
    models = []
    for choice in settings.models:
        max_batch = _max_batch(choice.card, settings, emulation)
        # An emulated device has the speed of its profile, whatever computes the answers.
        measure_s = MEASURE_S if emulation.profile is None else 0.0
        served = loaded(choice, settings, max_batch=max_batch, measure_s=measure_s)
        models.append(EdgeModel(served, max_batch=max_batch, decode_threads=settings.decode_threads))
    return Service(
        models=models,
        device=Device(limit_s=settings.batch_limit_s),
        emulation=emulation,
        isolation=settings.share.as_given() if settings.share else None,
        parallel=parallel,
    )


def loaded(choice: ModelChoice, settings: Settings, *, max_batch: int, measure_s: float) -> ServedModel:
    """Returns one of the models that the settings name, loaded as they say.

    Args:
        choice: the model.
        settings: of device, runtime and threads.
        max_batch: most items in a batch.
        measure_s: seconds for choosing the fastest runtime.

    Raises:
        StartupError: a package is missing.
        ModelError: the model, its weights or its runtime cannot be used.
    """
    # Here, not above: importing a framework takes seconds; a wrong option or a used port should be reported before.
    cv2 = needed("cv2", "the server")

    from models.loading import load

    # The threads of the pool decode in parallel; OpenCV's own threads would multiply them.
    cv2.setNumThreads(1)
    return load(
        choice.card,
        device=settings.device,
        runtime=settings.runtimes.of(choice.card.name),
        threads=settings.torch_threads,
        weights=choice.weights,
        weights_sha256=choice.weights_sha256,
        random_weights=choice.random_weights,
        max_batch=max_batch,
        measure_s=measure_s,
    )


def _max_batch(card: Card, settings: Settings, emulation: Emulation) -> int:
    limits = (card.max_batch, settings.max_batch, emulation.profile.max_batch if emulation.profile else None)
    return min(limit for limit in limits if limit is not None)


def warm_up_all(service: Service, *, stopped: Callable[[], bool]) -> None:
    """Runs made-up batches of all models, so that a client's first batch is not slower.

    Args:
        service: of the models.
        stopped: returns whether to stop at once.

    Raises:
        StartupError: the largest batch of a model does not fit in the device's memory.
    """
    for model in service.models.values():
        runtime = model.served.runtime
        budget_s = _CPU_WARM_UP_S if runtime.device == "cpu" else math.inf
        work = partial(warm_up, model, budget_s=budget_s, stopped=stopped)
        try:
            sizes = service.device.submit(work).result()
            service.rehearse(model.name, rehearsal_request(model.served.card, model.max_batch))
        except DeviceLost as error:
            service.lose_device(error)
            return
        except (ModelError, WireError, EdgeError) as error:
            _log.warning("Model %s cannot be warmed up with made-up items: %s", model.name, error)
            continue
        _log.info(
            "Model %s (%s weights) by %s on %s, %s: %d of %d batch sizes warmed up.",
            model.name,
            model.served.weights,
            runtime.name,
            runtime.device,
            runtime.precision,
            sizes,
            model.max_batch,
        )
    # All objects loaded so far stay: the garbage collector need not examine them while a batch is served.
    gc.collect()
    gc.freeze()
