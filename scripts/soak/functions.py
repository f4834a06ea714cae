"""The functions of a world, and the uplink to them: they take the place of the provider's SDK."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from scheduler import fc_client, wire
from scheduler.daemon.backends.uplink_probe import PROBE_BYTES, PROBE_LIMIT_S, UplinkMeasured
from scheduler.domain.batches import Failure, FailureKind
from scheduler.domain.failures import lost
from scheduler.fc_client import CallFailed, Invoked
from scheduler.wire import Encoded, InferRequest
from scripts.soak import answers, sites, truth

if TYPE_CHECKING:
    from scripts.soak.world import World

ROUND_TRIP_S = 0.02
IDLE_S = 60.0
"""Without a call, after which an instance is gone."""
WARM_S = 0.001


class Functions:
    """The instances of all tiers, and the link that all calls share."""

    def __init__(self, world: World) -> None:
        """Starts without instances."""
        self.world = world
        self.free_at_s: dict[str, list[float]] = {}
        """By function: when each instance is, or was, done."""
        self.link_free_at_s = 0.0
        self.latest: dict[str, InferRequest] = {}
        """By model: the batch before."""
        self.measuring = 0
        """Measurements of the uplink that are under way."""
        self._instances = 0

    def forget(self) -> None:
        """Takes every instance away: a cold wave."""
        self.free_at_s.clear()

    def sent_at_s(self, sent_bytes: int, now_s: float) -> float:
        """Returns when a transfer that begins now has ended; it waits for those before it."""
        at_s, left = max(now_s, self.link_free_at_s), float(sent_bytes)
        for until_s, rate in self.world.link(at_s):
            if rate > 0 and left <= rate * (until_s - at_s):
                self.link_free_at_s = at_s + left / rate
                return self.link_free_at_s
            left -= rate * (until_s - at_s)
            at_s = until_s
        return math.inf

    def start_s(self, function: str, now_s: float) -> float:
        """Takes a warm instance, or starts one; returns the seconds of the start.

        Once all is well there are warm ones: a start that nothing foretells may make one answer in a hundred late.
        """
        if self.world.over:
            return 0.0
        warm = self.free_at_s.setdefault(function, [])
        for free_s in sorted(warm, reverse=True):
            if free_s <= now_s < free_s + IDLE_S:
                warm.remove(free_s)
                return 0.0
        return sites.START_S


class Caller:
    """What the daemon takes for `fc_client.FunctionCaller`. A call takes the time of its thread, not of the loop."""

    def __init__(self, functions: Functions) -> None:
        """Stores what it calls."""
        self._functions = functions
        self._world = functions.world

    def open(self) -> None:
        """Does nothing."""

    def check(self, *, function: str, qualifier: str) -> None:  # noqa: ARG002
        """Reads a function's description."""
        self._world.machine.take(ROUND_TRIP_S)
        self._refused(self._world.fault("function"))

    def invoke(
        self,
        *,
        function: str,
        qualifier: str,  # noqa: ARG002
        body: bytes,
        read_timeout_s: float,
        limit_bytes: int | None = None,
    ) -> Invoked:
        """Invokes a function; see `fc_client.FunctionCaller.invoke`."""
        machine, world = self._world.machine, self._world
        what = world.fault("function")
        if what == "identity" and not world.expects(function.partition("-")[0]):
            what = ""
        give_up_at_s = machine.now() + read_timeout_s
        arrives_at_s = self._functions.sent_at_s(len(body), machine.now())
        self._refused(what)
        if arrives_at_s > machine.now() + fc_client.CONNECT_TIMEOUT_S and world.cut_off():
            machine.take(fc_client.CONNECT_TIMEOUT_S)
            raise _lost(TimeoutError())
        if what == "hang" or arrives_at_s + ROUND_TRIP_S > give_up_at_s:
            machine.take(give_up_at_s - machine.now())
            raise _lost(TimeoutError())
        machine.take(arrives_at_s - machine.now() + ROUND_TRIP_S)
        answered = self._run(function, body, what, read_timeout_s)
        if machine.now() > give_up_at_s:
            machine.take(give_up_at_s - machine.now())
            raise _lost(TimeoutError())
        if limit_bytes is not None and len(answered.body) > limit_bytes:
            raise CallFailed(Failure(FailureKind.BROKEN, "Function Compute answered with too much"))
        return answered

    def _refused(self, what: str) -> None:
        """Raises what the platform says instead of calling."""
        machine, noise = self._world.machine, self._world.noise
        if what == "unreachable":
            raise _lost(ConnectionRefusedError())
        if what in ("throttled", "silence"):
            machine.take(ROUND_TRIP_S)
            wait_ms = noise.choice((None, 200.0, 1e12)) if what == "silence" else None
            raise fc_client._failed_with(429, "ResourceExhausted", "too many", retry_after_ms=wait_ms)
        if what == "500":
            machine.take(ROUND_TRIP_S)
            raise fc_client._failed_with(500, "InternalError", "sorry")
        if what == "account":
            machine.take(ROUND_TRIP_S)
            raise fc_client._failed_with(403, noise.choice(("InsufficientBalance", "InvalidAccessKeyId")), "no")

    def _run(self, function: str, body: bytes, what: str, read_timeout_s: float) -> Invoked:
        machine, functions, noise = self._world.machine, self._functions, self._world.noise
        header, payload = wire.unpack_frame(body)
        if what == "cold":
            functions.forget()
        start_s = functions.start_s(function, machine.now())
        if what == "initializer":
            machine.take(start_s)
            return Invoked(b'{"errorMessage": "no weights"}', "InitializationError")
        model, warm = str(header["model"]), bool(header.get("warm"))
        request = None if warm else wire.parse_request(payload.body, payload.json_length)
        alpha_s, beta_s, _ = sites.TIERS[function.rpartition("-")[2]]
        service_s = WARM_S if request is None else alpha_s + beta_s * request.inputs[0].items
        service_s *= noise.lognormvariate(0.0, 0.1) * (20.0 if what == "slow" else 1.0)
        if what == "late":
            service_s += read_timeout_s - 20.0 + noise.uniform(0.1, 15.0)
        machine.take(start_s + service_s)
        functions.free_at_s.setdefault(function, []).append(machine.now())
        if what == "crash":
            return Invoked(b'{"errorMessage": "killed"}', "FunctionUnhandledError")
        if what == "frame":
            return Invoked(noise.randbytes(30), "")
        if what == "huge":
            return Invoked(b" " * answers.HUGE_BYTES, "")
        said: dict[str, object] = {"status": 200, "batch_id": header["batch_id"], "duration_s": service_s}
        said |= {"service_s": service_s, "cold_start": start_s > 0, "identity": self._identity(what)}
        said |= {"init_s": start_s} if start_s else {}
        if what == "batch":
            said["batch_id"] = "another"
        if what == "lies":
            said |= answers.lies(noise, ("duration_s", "service_s", "init_s", "cold_start", "memory_bytes"))
        if request is None:
            return Invoked(wire.pack_frame(said, Encoded(b"", None)), "")
        if truth.refused(model, request.inputs):
            said |= {"status": 400, "error": "the value -1 has no meaning"}
            return Invoked(wire.pack_frame(said, Encoded(b"", None)), "")
        found = answers.response(model, request, what=what, stale=functions.latest.get(model))
        functions.latest[model] = request
        said |= found.parameters
        return Invoked(wire.pack_frame(said, wire.encode_response(found, binary_by_default=True)), "")

    def _identity(self, what: str) -> str:
        return sites.OTHER_IDENTITY if what == "identity" else sites.IDENTITY


async def probe_uplink(functions: Functions) -> UplinkMeasured | None:
    """Measures the uplink, as `uplink_probe.probe_uplink` does."""
    world = functions.world
    world.machine.refuse_the_dead()
    functions.measuring += 1
    try:
        return await _measured(functions)
    finally:
        functions.measuring -= 1


async def _measured(functions: Functions) -> UplinkMeasured | None:
    world = functions.world
    what, now_s = world.fault("function"), world.machine.now()
    if what == "unreachable":
        await asyncio.sleep(ROUND_TRIP_S)
        return None
    done_s = functions.sent_at_s(PROBE_BYTES, now_s) - now_s
    if what == "hang" or done_s > PROBE_LIMIT_S:
        await asyncio.sleep(PROBE_LIMIT_S)
        return None
    await asyncio.sleep(done_s + ROUND_TRIP_S)
    return UplinkMeasured(ROUND_TRIP_S, PROBE_BYTES, done_s)


def _lost(error: Exception) -> CallFailed:
    meaning = lost(error)
    assert meaning is not None
    return CallFailed(Failure(meaning.kind, f"Function Compute {meaning.sentence}"))
