"""Several daemons that share the edge servers and know nothing of each other, as processes on several hosts would.

Each has an engine, queues and estimates of its own, and sends to the same devices, which serve first come, first
served. Functions, uplink and quota are shared, and a spend cap is shared out.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from scheduler.domain.requests import Request
from scheduler.engine import Engine
from scheduler.simulator.policies.separate import Separate, caps_of_each
from scheduler.simulator.scenario import Scenario, ScenarioError

_SPAWN_KEY = 8
"""Of the generator that deals requests: `world.generators` spawns seven others."""


def daemons(scenario: Scenario, requests: Sequence[Request]) -> Separate:
    """Returns the engines of all daemons as one policy, for the requests that will arrive.

    Raises:
        ScenarioError: the scenario has another policy, or the engine is told true values.
    """
    if scenario.policy != "edgeburst" or scenario.told or scenario.told_changes:
        raise ScenarioError("several daemons need the policy edgeburst, which learns; choose it, or one daemon")
    count = len(scenario.daemons)
    alone = replace(scenario, daemons=(1.0,), caps=caps_of_each(scenario.caps, count))
    return Separate([Engine(alone.engine_settings()) for _ in range(count)], None, dealt(scenario, requests))


def dealt(scenario: Scenario, requests: Sequence[Request]) -> dict[int, int]:
    """Returns the number of the daemon that each request goes to, by its id; drawn by the daemons' parts."""
    rng = np.random.default_rng(np.random.SeedSequence(scenario.seed, spawn_key=(_SPAWN_KEY,)))
    parts = np.array(scenario.daemons)
    drawn = rng.choice(len(parts), len(requests), p=parts / parts.sum()).tolist()
    return {request.request_id: number for request, number in zip(requests, drawn, strict=True)}
