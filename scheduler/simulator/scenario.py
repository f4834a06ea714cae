"""What is simulated: traffic, classes, edge, functions, uplink. From flags, or from a TOML file for what flags lack.

A scenario file may hold, all optional:

    rate_steps = [[60, 40], [60, 120]]           # seconds, requests a second; instead of another workload
    bandwidth_steps = [[0, 4.0], [60, 0.5]]      # from second, MB/s
    max_items = 64                               # most items in a batch
    function_concurrency = 300                   # instances of a tier above which a call gets 429
    max_function_in_flight = 300                 # calls that the engine may have under way
    changepoints = true                          # false: never re-plan for a change
    [[class]]                                    # who asks; shares are relative
    name = "interactive"
    slo_s = 0.6
    percentile = 0.99
    priority = 1
    share = 0.8
    late = "refuse"                              # or "serve"
    [[tier]]                                     # a function configuration
    name = "1gb"
    law = [0.216, 0.141]                         # seconds for the call, seconds an item
    max_batch = 5
    price = [1.27e-5, 9e-7]                      # CNY a second, CNY a call
    max_in_flight = 300
"""

import importlib
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

from scheduler.domain.errors import EdgeburstError
from scheduler.domain.laws import FunctionTier, LatencyLaw, Price
from scheduler.domain.plans import EngineSettings, ModelSettings, ServiceClass
from scheduler.simulator.backends import ColdStarts
from scheduler.simulator.faults import Fault
from scheduler.simulator.network import AMPLE, Bandwidth, steps

MODEL = "simulated"
POLICIES = ("edgeburst", "edge-only", "function-only")
"""edge-only and function-only are the engine with one backend taken away."""

ORIN_LAW = LatencyLaw(0.04234, 0.008165, 128)
"""The published fit of ResNet50 on a Jetson Orin; deadlines of a second end its batches before 128."""
FUNCTION_LAW = LatencyLaw(0.216, 0.141, 5)
FUNCTION_PRICE = Price(per_s=1.27e-5, per_call=9e-7, sheet="cny-gbs-2023")
CONCURRENCY = 300
"""Instances that an account has in a region; the engine is allowed as many calls at once."""


class ScenarioError(EdgeburstError):
    """A scenario cannot be simulated; the message names file and key."""


@dataclass(frozen=True, slots=True)
class SimulatedClass:
    """A service class and its part of the traffic."""

    service_class: ServiceClass
    priority: int = 2
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything but the arrival times.

    Parameters:
        policy: who decides.
        classes: who asks.
        request_bytes: of each request on the wire.
        edge_law: true latency of the edge.
        tiers: function configurations with their true laws.
        edge_noise, function_noise: sigma of the lognormal factor on a service time.
        edge_faults, function_faults: windows in which they fail.
        cold_starts: how function instances start.
        concurrency: instances of a tier above which a call gets 429.
        bandwidth: of the uplink.
        rtt_s: round trip to the functions.
        max_items: most items in a batch.
        max_function_in_flight: the engine's setting.
        changepoints: the engine's setting.
        rate_steps: (seconds, requests a second) one after the other; empty where another workload is given.
        seed: of every random number.
    """

    policy: str = "edgeburst"
    classes: tuple[SimulatedClass, ...] = (SimulatedClass(ServiceClass()),)
    request_bytes: int = 24_000
    edge_law: LatencyLaw = ORIN_LAW
    tiers: tuple[FunctionTier, ...] = (
        FunctionTier("function", "function", FUNCTION_LAW, FUNCTION_PRICE, max_in_flight=CONCURRENCY),
    )
    edge_noise: float = 0.0
    function_noise: float = 0.0
    edge_faults: tuple[Fault, ...] = ()
    function_faults: tuple[Fault, ...] = ()
    cold_starts: ColdStarts = field(default_factory=ColdStarts)
    concurrency: int = CONCURRENCY
    bandwidth: Bandwidth = AMPLE
    rtt_s: float = 0.0
    max_items: int = 128
    max_function_in_flight: int = CONCURRENCY
    changepoints: bool = True
    rate_steps: tuple[tuple[float, float], ...] = ()
    seed: int = 0

    def engine_settings(self) -> EngineSettings:
        """Returns what the engine is told: the true laws, as from profiles; bandwidth and rates it must learn."""
        model = ModelSettings(
            name=MODEL,
            max_items=self.max_items,
            classes=tuple(c.service_class for c in self.classes),
            edge_law=None if self.policy == "function-only" else self.edge_law,
            tiers=() if self.policy == "edge-only" else self.tiers,
        )
        return EngineSettings(
            models=(model,),
            queue_max_bytes=2**40,
            uplink_rtt_s=self.rtt_s,
            # The simulated LAN takes no time, so that the bound, which knows no LAN either, is comparable.
            edge_overhead_s=0.0,
            max_function_in_flight=self.max_function_in_flight,
            changepoints=self.changepoints,
        )


def read_scenario(path: Path, base: Scenario) -> Scenario:
    """Returns `base` with what a scenario file says.

    Raises:
        ScenarioError: the file is missing, no TOML, or holds an unknown key or a wrong value.
    """
    toml = _toml()
    try:
        content = toml.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ScenarioError(f"cannot read the scenario {path}: {error}") from error
    keys = _Keys(content, str(path))
    changed = replace(
        base,
        rate_steps=keys.pairs("rate_steps", base.rate_steps),
        max_items=keys.whole("max_items", base.max_items),
        concurrency=keys.whole("function_concurrency", base.concurrency),
        max_function_in_flight=keys.whole("max_function_in_flight", base.max_function_in_flight),
        changepoints=keys.flag("changepoints", base.changepoints),
    )
    bandwidth_steps = keys.pairs("bandwidth_steps", ())
    if bandwidth_steps:
        changed = replace(changed, bandwidth=steps(bandwidth_steps))
    classes = tuple(_class(table) for table in keys.tables("class"))
    tiers = tuple(_tier(table) for table in keys.tables("tier"))
    keys.done()
    return replace(changed, classes=classes or base.classes, tiers=tiers or base.tiers)


def _toml() -> ModuleType:
    name = "tomllib" if sys.version_info >= (3, 11) else "tomli"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ScenarioError(
            "reading a scenario on Python 3.10 needs tomli: from the source tree, pip install '.[client]'"
        ) from error


def _class(keys: "_Keys") -> SimulatedClass:
    late = keys.text("late", "refuse")
    if late not in ("refuse", "serve"):
        raise ScenarioError(f"{keys.where}: late must be 'refuse' or 'serve', not {late!r}")
    service_class = ServiceClass(
        name=keys.text("name", "default"),
        slo_s=keys.number("slo_s", 1.0),
        percentile=keys.number("percentile", 0.99),
        serve_late=late == "serve",
    )
    if service_class.percentile >= 1:
        raise ScenarioError(f"{keys.where}: percentile must be below 1, not {service_class.percentile}")
    made = SimulatedClass(service_class, priority=keys.whole("priority", 2), share=keys.number("share", 1.0))
    keys.done()
    return made


def _tier(keys: "_Keys") -> FunctionTier:
    name = keys.text("name", "function")
    (alpha_s, beta_s), (per_s, per_call) = keys.pair("law"), keys.pair("price")
    law = latency_law(alpha_s, beta_s, max_batch=keys.whole("max_batch", 5))
    price = Price(per_s=per_s, per_call=per_call, sheet="scenario")
    tier = FunctionTier(name, name, law, price, max_in_flight=keys.whole("max_in_flight", CONCURRENCY))
    keys.done()
    return tier


def latency_law(alpha_s: float, beta_s: float, *, max_batch: int) -> LatencyLaw:
    """Returns a law; one that cannot be is told in one sentence."""
    try:
        return LatencyLaw(alpha_s, beta_s, max_batch)
    except ValueError as error:
        raise ScenarioError(str(error)) from error


class _Keys:
    """Takes keys out of a TOML table one by one, so that a wrong or unknown one is named."""

    def __init__(self, table: Mapping[str, object], where: str) -> None:
        self.where = where
        self._left = dict(table)

    def number(self, key: str, default: float) -> float:
        value = self._left.pop(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
            raise ScenarioError(f"{self.where}: {key} must be a number above 0, not {value!r}")
        return float(value)

    def whole(self, key: str, default: int) -> int:
        value = self._left.pop(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ScenarioError(f"{self.where}: {key} must be a whole number of at least 1, not {value!r}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self._left.pop(key, default)
        if not isinstance(value, bool):
            raise ScenarioError(f"{self.where}: {key} must be true or false, not {value!r}")
        return value

    def text(self, key: str, default: str) -> str:
        value = self._left.pop(key, default)
        if not isinstance(value, str):
            raise ScenarioError(f"{self.where}: {key} must be a text, not {value!r}")
        return value

    def pair(self, key: str) -> tuple[float, float]:
        return self._pair(key, self._left.pop(key, None))

    def pairs(self, key: str, default: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
        value = self._left.pop(key, None)
        if value is None:
            return tuple(default)
        if not isinstance(value, list) or not value:
            raise ScenarioError(f"{self.where}: {key} must be a list of pairs of numbers")
        return tuple(self._pair(key, pair) for pair in value)

    def tables(self, key: str) -> "list[_Keys]":
        value = self._left.pop(key, [])
        if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
            raise ScenarioError(f"{self.where}: [[{key}]] must be a list of tables")
        return [_Keys(table, f"{self.where}: [[{key}]] {number}") for number, table in enumerate(value, start=1)]

    def done(self) -> None:
        if self._left:
            raise ScenarioError(f"{self.where}: unknown key {next(iter(self._left))!r}; remove it")

    def _pair(self, key: str, value: object) -> tuple[float, float]:
        if not isinstance(value, list) or len(value) != 2 or any(isinstance(x, bool) for x in value):
            raise ScenarioError(f"{self.where}: {key} must be a pair of numbers, not {value!r}")
        if not all(isinstance(x, (int, float)) and math.isfinite(x) and x >= 0 for x in value):
            raise ScenarioError(f"{self.where}: {key} must be a pair of numbers of at least 0, not {value!r}")
        return float(value[0]), float(value[1])
