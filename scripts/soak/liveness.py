"""What is promised once the faults have stopped: soon every request is answered in time again."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from scheduler.daemon.serve import Daemon
from scheduler.dispatch.circuit_breaker import Circuit
from scheduler.domain.batches import WhyLeft
from scheduler.domain.plans import Limits
from scheduler.domain.requests import Backend, Place
from scripts.soak.clients import Outcome
from scripts.soak.script import fresh
from scripts.soak.sites import Model
from scripts.soak.weather import BYTES_PER_S

if TYPE_CHECKING:
    from scripts.soak.world import World

HUNG_S = 75.0
"""After which functions are used again where nothing else serves a model: a batch that hangs is given up, then the
longest pause of a circuit has passed, and a probe. Seconds after the faults have stopped."""


async def all_is_well(world: World, daemon: Daemon) -> None:
    """Lets the faults stop, and checks that requests are answered in time: soon, and in the end."""
    world.over = True
    world.planning()
    world.edge.free_at_s = min(world.edge.free_at_s, world.machine.now())
    world.functions.link_free_at_s = min(world.functions.link_free_at_s, world.machine.now())
    world.note("all well", "")
    models = world.site.models
    for model in models:
        world.limits(daemon).set(model.kind, Limits())
    begun_s = world.machine.now()
    soon = [model for model in models if _soon(world, model)]
    await asyncio.sleep(2 * world.site.reopen_after_s + 1.0)
    if any(model.edge for model in models):
        sentence = daemon._service.not_ready()
        world.check(not sentence, f"not ready although all is well: {sentence}")
    await _ask_afresh(world, soon, 1_000_000)
    far = [model for model in models if model not in soon and (model.edge or world.site.per_hour is None)]
    if far:
        await asyncio.sleep(max(0.0, begun_s + HUNG_S - world.machine.now()))
        await _ask_afresh(world, far, 2_000_000)


def _soon(world: World, model: Model) -> bool:
    """Whether a model's requests are answered after two pauses and a second, from what is known when the faults stop.

    What hangs in functions keeps its places in the queue; what hangs at the edge keeps that until it is given up, after
    several of its services, and then for a pause. Of several models, one that the edge fails is probed more and
    more seldom, because that takes time of the others. A model that only functions serve waits for what hangs there,
    for the longest pause, for the time in which they asked to be left alone, and until the uplink is measured again: a
    measurement that hangs is known to have failed 10 s later.
    """
    assert world.watch is not None
    circuits = world.watch.engine._circuits
    in_functions = [batch for batch, _ in world.watch.in_flight.values() if batch.backend is Backend.FUNCTION]
    held = sum(len(batch.request_ids) for batch in in_functions)
    if held + len(fresh(world.site.models, 0)) > world.site.queue_max_requests:
        return False
    at_edge = [batch for batch, _ in world.watch.in_flight.values() if batch.backend is Backend.EDGE]
    given_up_s = max((batch.give_up_at_s for batch in at_edge), default=0.0)
    if model.edge and given_up_s > world.machine.now() + world.site.reopen_after_s:
        return False
    if model.edge:
        own = circuits.edge.of_model.get(model.kind)
        return len(world.site.models) == 1 or (own is not None and own.closed and not _doubted(world, model, own))
    hung = bool(in_functions)
    at_once = circuits.function.usable(world.machine.now(), model.kind) and circuits.function.serves(model.kind)
    thin = any(fault.what in BYTES_PER_S for fault in world.script.faults)
    measured = world.functions.measuring == 0
    return world.site.per_hour is None and not hung and not thin and measured and at_once


def _doubted(world: World, model: Model, own: Circuit) -> bool:
    """Whether the edge may yet be found to fail a model that it failed before: what shows it is still under way."""
    assert world.watch is not None
    sent = [batch for batch, _ in world.watch.in_flight.values() if batch.backend is Backend.EDGE]
    used = own.unproven_since_s < math.inf and any(batch.model == model.kind for batch in sent)
    return used or model.kind in world.watch.engine._circuits.probing.get(Place.edge(), ())


async def _ask_afresh(world: World, models: Sequence[Model], number: int) -> None:
    """Sends a few requests of the class `default`, which must all be answered in time."""
    for call in fresh(models, number):
        model = next(model for model in models if model.kind == call.content.model)
        client = world.call(call)
        if client is not None:
            client.add_done_callback(partial(_judge, world, model))
        await asyncio.sleep(0.1)
    await world.clients_end(10.0)


def _judge(world: World, model: Model, done: asyncio.Task[Outcome]) -> None:
    if done.cancelled() or world.machine.dead:
        return
    outcome = done.result()
    if not model.edge and outcome.sentence.startswith("the function had not answered"):
        return  # sent, and one of those few that a percentile allows to be late
    if not model.edge and outcome.status == 503 and _tried(world, model):
        return  # believed to be too slow, as they were: one request at a time shows that they are not
    world.check(outcome.status == 200, f"all is well, but a request is refused ({outcome.status}): {outcome.sentence}")
    in_time = outcome.latency_s <= model.slo_s or not model.edge
    world.check(in_time, f"all is well, but a request takes {outcome.latency_s:.3f} s")


def _tried(world: World, model: Model) -> bool:
    """Whether a request is under way that shows whether a model's functions are still too slow."""
    assert world.watch is not None
    sent = [batch for batch, _ in world.watch.in_flight.values() if batch.model == model.kind]
    return any(batch.why_left is WhyLeft.TRIAL for batch in sent)
