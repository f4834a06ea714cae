"""Scenario files: TOML for what the flags of `simulate` cannot express.

A scenario file may hold these keys, all optional:

    rate_steps = [[60, 40], [60, 120]]           # seconds, requests a second; replaces another workload
    bursts = [[90, 2, 300]]                      # start s, length s, additional requests a second
    bandwidth_steps = [[0, 4.0], [60, 0.5]]      # start s, MB/s
    edge_rows = [[1, 0.141], [8, 0.19]]          # measured: items, seconds; beyond them --edge's slope continues
    edge_parallel = 2                            # batches that the edge serves at once; absent: --edge-parallel
    max_items = 64                               # largest number of items in a batch
    shapes = [0.9, 0.1]                          # shares of shapes of items: unlike ones share no batch of the engine's
    function_concurrency = 300                   # busy instances of a tier at which calls get 429
    max_function_in_flight = 300                 # the engine's limit of calls in flight
    changepoints = "native"                      # or "package" (extra bcd); "off": changes cause no new plan
    plan_expiry_s = 600                          # age at which a plan is replaced
    [spend]                                      # caps on the cost of functions in any hour and any day
    per_hour_cny = 0.5                           # 0: functions are never used
    per_day_cny = 5
    over_cap = "edge-only"                       # or "serve-late", "refuse-low-priority"
    [[tenant]]                                   # a tenant of the requests; absent: requests name none
    name = "lab"
    share = 3                                    # weight of its part of the edge and the money under overload
    rate = 1                                     # its part of the workload's requests, relative; 0: only its bursts
    bursts = [[90, 2, 300]]                      # of its own, as above
    per_hour_cny = 0.1                           # caps of its own
    per_day_cny = 1
    [[class]]                                    # a service class; shares are relative
    name = "interactive"
    slo_s = 0.6
    percentile = 0.99
    priority = 1                                 # 1 is the highest
    share = 0.8
    late = "refuse"                              # or "serve"
    budget = "keep"                              # or "spend": allowed misses are spent where being in time costs most
    labels = ["edge-only"]                       # never to a function; or "deferrable": waits for an idle edge
    [[edge]]                                     # one of several edge servers; absent: one, by the flags and keys above
    name = "orin"
    law = [0.04234, 0.008165]                    # of all its models; absent: that of each model
    rows = [[1, 0.141], [8, 0.19]]               # measured: items, seconds; beyond them law's slope continues
    models = ["resnet50"]                        # that it serves; absent: all
    parallel = 2                                 # absent: edge_parallel
    parallel_learned = false                     # true: the engine is not told it; absent: --edge-parallel-learned
    noise = 0.1                                  # absent: --edge-noise
    faults = ["down:30,90"]                      # absent: --edge-fault
    decode_s = 0.03                              # absent: --edge-decode-s
    lan_s = 0.01                                 # absent: --edge-lan-s
    ahead = "auto"                               # or "0", "1"; absent: --edge-ahead
    [[edge.model]]                               # the law of one model; absent: as above
    name = "resnet50"
    law = [0.04234, 0.008165]
    rows = [[1, 0.141], [8, 0.19]]
    [[tier]]                                     # a function configuration
    name = "1gb"
    law = [0.216, 0.141]                         # seconds for the call, seconds an item
    rows = [[1, 0.36], [5, 0.93]]                # measured: items, seconds; beyond them law's slope continues
    max_batch = 5
    price = [1.27e-5, 9e-7]                      # CNY a second, CNY a call
    max_in_flight = 300
    [[model]]                                    # one of several models; absent: a single model
    name = "resnet50"
    share = 0.5
    edge = [0.04234, 0.008165]                   # absent: --edge and edge_rows
    edge_rows = [[1, 0.141], [8, 0.19]]
    on_edge = true                               # false: the edge does not serve it
    on_functions = true
    request_bytes = 24000                        # absent: --request-bytes
    max_items = 64
    shapes = [1]                                 # as above
    [[model.class]]                              # keys as in [[class]]; absent: the [[class]] tables
    name = "photo"
    [[model.tier]]                               # keys as in [[tier]]; absent: the [[tier]] tables
    name = "gpu"
    law = [0.05, 0.01]
    price = [1.1e-4, 9e-7]
"""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.plans import ServiceClass
from scheduler.domain.tenants import OTHER, TenantSettings
from scheduler.simulator.edge_flags import AHEAD
from scheduler.simulator.faults import FaultError, parse_fault
from scheduler.simulator.network import NetworkError, steps
from scheduler.simulator.scenario import (
    CONCURRENCY,
    EDGE_FAULTS,
    Burst,
    EdgeServer,
    Scenario,
    ScenarioError,
    SimulatedClass,
    SimulatedModel,
    SimulatedTenant,
    SpendCaps,
    latency_model,
)
from scheduler.simulator.scenario_keys import Keys

OVER_CAP = ("edge-only", "serve-late", "refuse-low-priority")
LABELS = ("edge-only", "deferrable")


def read_scenario(path: Path, base: Scenario) -> Scenario:
    """Returns `base` with the values of a scenario file.

    Raises:
        ScenarioError: the file is missing or is not TOML, or holds an unknown key or a wrong value.
    """
    toml = _toml()
    try:
        content = toml.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ScenarioError(f"cannot read the scenario {path}: {error}") from error
    keys = Keys(content, str(path))
    try:
        bandwidth = steps(pairs) if (pairs := keys.pairs("bandwidth_steps")) else base.bandwidth
    except NetworkError as error:
        raise ScenarioError(f"{path}: `bandwidth_steps` cannot be used: {error}") from None
    changepoints = keys.changepoints()
    changed = replace(
        base,
        rate_steps=keys.pairs("rate_steps"),
        bursts=_bursts(keys),
        edge_parallel=keys.whole("edge_parallel", base.edge_parallel),
        max_items=keys.whole("max_items", base.max_items),
        shapes=keys.shares("shapes", base.shapes),
        concurrency=keys.whole("function_concurrency", base.concurrency),
        max_function_in_flight=keys.whole("max_function_in_flight", base.max_function_in_flight),
        changepoints=base.changepoints if changepoints is None else changepoints != "off",
        changepoint_package=base.changepoint_package if changepoints is None else changepoints == "package",
        plan_expiry_s=keys.number("plan_expiry_s", base.plan_expiry_s),
        caps=_caps(keys.table("spend")),
        bandwidth=bandwidth,
        tenants=_tenants(keys),
        classes=_classes(keys) or base.classes,
        tiers=_tiers(keys) or base.tiers,
    )
    changed = replace(changed, edge_latency=_with_rows(changed.edge_latency, keys, "edge_rows", changed.max_items))
    models = tuple(_model(table, changed) for table in keys.tables("model"))
    changed = replace(changed, models=models)
    changed = replace(changed, edges=_edges(keys, changed) or base.edges)
    keys.done()
    _distinct(keys.where, models)
    return changed


def _toml() -> ModuleType:
    name = "tomllib" if sys.version_info >= (3, 11) else "tomli"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ScenarioError(
            "reading a scenario on Python 3.10 needs tomli: from the source tree, pip install '.[client]'"
        ) from error


def _bursts(keys: Keys) -> tuple[Burst, ...]:
    return tuple(_burst(keys.where, numbers) for numbers in keys.rows("bursts", 3))


def _burst(where: str, numbers: Sequence[float]) -> Burst:
    start_s, duration_s, rate_rps = numbers
    if min(duration_s, rate_rps) <= 0:
        raise ScenarioError(f"{where}: a burst needs a length above 0 s and a rate above 0, not {list(numbers)}")
    return Burst(start_s, duration_s, rate_rps)


def _caps(keys: Keys) -> SpendCaps:
    caps = SpendCaps(
        per_hour_cny=keys.cap_or_none("per_hour_cny"),
        per_day_cny=keys.cap_or_none("per_day_cny"),
        over_cap=keys.choice("over_cap", OVER_CAP),
    )
    keys.done()
    return caps


def _tenants(keys: Keys) -> tuple[SimulatedTenant, ...]:
    tenants = tuple(_tenant(table) for table in keys.tables("tenant"))
    names = [tenant.settings.name for tenant in tenants]
    if len(set(names)) < len(names) or {"", OTHER} & set(names):
        raise ScenarioError(f"{keys.where}: each [[tenant]] needs its own name, and not {OTHER!r}")
    if tenants and not any(tenant.rate for tenant in tenants):
        raise ScenarioError(f"{keys.where}: all [[tenant]] have rate 0; give one of them a part of the workload")
    return tenants


def _tenant(keys: Keys) -> SimulatedTenant:
    settings = TenantSettings(
        name=keys.text("name", ""),
        share=keys.number("share", 1.0),
        per_hour=keys.cap_or_none("per_hour_cny"),
        per_day=keys.cap_or_none("per_day_cny"),
    )
    rate = keys.cap_or_none("rate")
    made = SimulatedTenant(settings, rate=1.0 if rate is None else rate, bursts=_bursts(keys))
    keys.done()
    return made


def _classes(keys: Keys) -> tuple[SimulatedClass, ...]:
    classes = tuple(_class(table) for table in keys.tables("class"))
    if len({c.service_class.name for c in classes}) < len(classes):
        raise ScenarioError(f"{keys.where}: two classes have the same name; give each [[class]] its own name")
    return classes


def _class(keys: Keys) -> SimulatedClass:
    labels = keys.choices("labels", LABELS)
    service_class = ServiceClass(
        name=keys.text("name", "default"),
        slo_s=keys.number("slo_s", 1.0),
        percentile=keys.number("percentile", 0.99),
        serve_late=keys.choice("late", ("refuse", "serve")) == "serve",
        spends=keys.choice("budget", ("keep", "spend")) == "spend",
        edge_only="edge-only" in labels,
        deferrable="deferrable" in labels,
    )
    if service_class.percentile >= 1:
        raise ScenarioError(f"{keys.where}: percentile must be below 1, not {service_class.percentile}")
    made = SimulatedClass(service_class, keys.whole("priority", 2), keys.number("share", 1.0))
    keys.done()
    return made


def _tiers(keys: Keys) -> tuple[FunctionTier, ...]:
    return tuple(_tier(table) for table in keys.tables("tier"))


def _tier(keys: Keys) -> FunctionTier:
    name = keys.text("name", "function")
    (alpha_s, beta_s), (per_s, per_call) = keys.pair("law"), keys.pair("price")
    max_batch = keys.whole("max_batch", 5)
    latency = _with_rows(latency_model(alpha_s, beta_s, max_batch=max_batch), keys, "rows", max_batch)
    price = Price(per_s=per_s, per_call=per_call, sheet="scenario")
    tier = FunctionTier(name, name, latency, price, max_in_flight=keys.whole("max_in_flight", CONCURRENCY))
    keys.done()
    return tier


def _model(keys: Keys, base: Scenario) -> SimulatedModel:
    """Returns the model of a [[model]] table; missing keys take the values of the whole scenario."""
    max_items = keys.whole("max_items", base.max_items)
    edge = keys.pair_or_none("edge")
    edge_latency = base.edge_latency if edge is None else latency_model(*edge, max_batch=max_items)
    edge_latency = _with_rows(edge_latency, keys, "edge_rows", max_items)
    tiers = _tiers(keys) or base.tiers
    on_edge, on_functions = keys.flag("on_edge", True), keys.flag("on_functions", True)
    if not (on_edge or on_functions):
        raise ScenarioError(f"{keys.where}: nothing serves it; set on_edge or on_functions to true")
    model = SimulatedModel(
        name=keys.text("name", ""),
        share=keys.number("share", 1.0),
        classes=_classes(keys) or base.classes,
        edge_latency=edge_latency if on_edge else None,
        tiers=tiers if on_functions else (),
        request_bytes=keys.whole("request_bytes", base.request_bytes),
        max_items=max_items,
        shapes=keys.shares("shapes", base.shapes),
    )
    keys.done()
    return model


def _edges(keys: Keys, base: Scenario) -> tuple[EdgeServer, ...]:
    edges = tuple(_edge(table, base) for table in keys.tables("edge"))
    names = [edge.name for edge in edges]
    if "" in names or len(set(names)) < len(names):
        raise ScenarioError(f"{keys.where}: each [[edge]] needs its own name")
    return edges


def _edge(keys: Keys, base: Scenario) -> EdgeServer:
    """Returns the edge server of an [[edge]] table; missing keys take the values of the whole scenario."""
    noise, faults, ahead = keys.cap_or_none("noise"), keys.texts("faults"), keys.take("ahead")
    decode_s, lan_s = keys.cap_or_none("decode_s"), keys.cap_or_none("lan_s")
    if ahead is not None and ahead not in AHEAD:
        raise ScenarioError(f'{keys.where}: ahead must be "auto", "0" or "1", not {ahead!r}')
    try:
        parsed = None if faults is None else tuple(parse_fault(text, EDGE_FAULTS) for text in faults)
    except FaultError as error:
        raise ScenarioError(f"{keys.where}: faults: {error}") from error
    known = {model.name for model in base.served()}
    edge = EdgeServer(
        name=keys.text("name", ""),
        latency=_law(keys, base.max_items),
        latencies=tuple(_law_of_model(table, base) for table in keys.tables("model")),
        models=tuple(keys.texts("models") or ()),
        parallel=keys.whole("parallel", base.edge_parallel),
        noise=base.edge_noise if noise is None else noise,
        faults=base.edge_faults if parsed is None else parsed,
        decode_s=base.edge_decode_s if decode_s is None else decode_s,
        lan_s=base.edge_lan_s if lan_s is None else lan_s,
        told=not keys.flag("parallel_learned", not base.edge_told),
        silent=base.edge_silent,
        ahead=base.edge_ahead if ahead is None else AHEAD[str(ahead)],
    )
    unknown = sorted({*edge.models, *dict(edge.latencies)} - known)
    if unknown:
        raise ScenarioError(f"{keys.where}: there is no model {unknown[0]!r}, only {', '.join(sorted(known))}")
    keys.done()
    return edge


def _law_of_model(keys: Keys, base: Scenario) -> tuple[str, LatencyModel]:
    name, law = keys.text("name", ""), _law(keys, base.max_items)
    if law is None:
        raise ScenarioError(f"{keys.where}: law is missing; write law = [seconds a batch, seconds an item]")
    keys.done()
    return name, law


def _law(keys: Keys, max_items: int) -> LatencyModel | None:
    law = keys.pair_or_none("law")
    if law is None:
        if keys.pairs("rows"):
            raise ScenarioError(f"{keys.where}: rows need a law, whose slope continues beyond them")
        return None
    return _with_rows(latency_model(*law, max_batch=max_items), keys, "rows", max_items)


def _with_rows(latency: LatencyModel, keys: Keys, key: str, max_batch: int) -> LatencyModel:
    """Returns the latency model with the measured rows of the table, if there are any."""
    rows = tuple((int(items), seconds) for items, seconds in keys.pairs(key)) or latency.rows
    try:
        return replace(latency, rows=rows, max_batch=max_batch)
    except ValueError as error:
        raise ScenarioError(f"{keys.where}: {key}: {error}") from error


def _distinct(where: str, models: Sequence[SimulatedModel]) -> None:
    """Checks that names are unique, since instances are counted by tier and answers by model.

    Raises:
        ScenarioError: two models have the same name, or two different tiers have.
    """
    names = [model.name for model in models]
    if "" in names or len(set(names)) < len(names):
        raise ScenarioError(f"{where}: each [[model]] needs its own name")
    tiers: dict[str, FunctionTier] = {}
    for tier in (tier for model in models for tier in model.tiers):
        if tiers.setdefault(tier.name, tier) != tier:
            raise ScenarioError(f"{where}: tier {tier.name!r} has two descriptions; rename one of them")
