"""Why a plan cannot meet its SLO and what would help, in one sentence."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shortfall:
    """The numbers behind a plan that cannot serve all requests of a class in time.

    Attributes:
        model: name of the model.
        class_name: name of the class; empty if the model has only one.
        slo_s: its SLO.
        percentile: fraction of the requests that must meet it.
        unserved: fraction of the items that no backend can answer in time.
        rate_rps: items a second of the class that arrive.
        edge_rps: items a second that the edge can answer in time.
        edge_alone_s: seconds of one item alone on the edge, with margin; infinite without an edge.
        edge_up: whether the edge answers at present.
        has_edge: whether an edge serves the model.
        function_rps: items a second that uplink and concurrency let through to the functions.
        function_alone_s: seconds of one item alone on a function, with path and margin.
        function_up: whether the functions answer at present.
        has_function: whether a function may serve the class.
        edge_only: whether its data may not leave the site.
        uplink_bytes_per_s: estimated bandwidth; None: ample.
        item_bytes: mean size of an item.
    """

    model: str
    class_name: str
    slo_s: float
    percentile: float
    unserved: float
    rate_rps: float
    edge_rps: float
    edge_alone_s: float
    edge_up: bool
    has_edge: bool
    function_rps: float
    function_alone_s: float
    function_up: bool
    has_function: bool
    edge_only: bool
    uplink_bytes_per_s: float | None
    item_bytes: float


def reason(short: Shortfall) -> str:
    """Returns the sentence for the operator: the part that is missing, the obstacle, the next step."""
    return f"{_how_much(short)}: {_obstacle(short)}"


def _how_much(short: Shortfall) -> str:
    owner = f"class {short.class_name!r} of model {short.model!r}" if short.class_name else f"model {short.model!r}"
    if short.rate_rps <= 0:
        return f"{owner} cannot be answered within its SLO of {short.slo_s:g} s"
    return (
        f"{short.unserved:.0%} of {short.rate_rps:.3g} items a second of {owner} cannot be answered "
        f"within the SLO of {short.slo_s:g} s"
    )


def _obstacle(short: Shortfall) -> str:
    if not short.has_edge and not short.has_function:
        return "neither an edge nor a function may serve it; configure one or lift the limit of 0"
    down = [name for name, is_down in (("edge", _edge_down(short)), ("function", _function_down(short))) if is_down]
    if down:
        return f"not answering: {' and '.join(down)}; bring it back"
    if short.edge_only:
        return f"{_edge_limit(short)} and its data may not leave the site; a faster edge or a longer SLO would help"
    if not short.has_function:
        return f"{_edge_limit(short)}; a function tier or a longer SLO would help"
    if short.uplink_bytes_per_s is not None and short.uplink_bytes_per_s <= 0 < short.item_bytes:
        return f"{_edge_limit(short)} and the uplink to the functions carries nothing; restore it"
    if short.function_alone_s > short.slo_s:
        return (
            f"{_edge_limit(short)} and a function needs {_seconds(short.function_alone_s)} even for a single item; "
            "a faster tier, more bandwidth or a longer SLO would help"
        )
    return (
        f"{_edge_limit(short)} and uplink and concurrency let {short.function_rps:.3g} items a second through to the "
        "functions; more bandwidth, smaller inputs or a higher max_in_flight would help"
    )


def _edge_down(short: Shortfall) -> bool:
    return short.has_edge and not short.edge_up


def _function_down(short: Shortfall) -> bool:
    return short.has_function and not short.function_up


def _edge_limit(short: Shortfall) -> str:
    if not short.has_edge:
        return "there is no edge"
    if short.edge_rps <= 0:
        return f"the edge needs {_seconds(short.edge_alone_s)} even for a single item"
    return f"the edge keeps at most {short.edge_rps:.3g} items a second"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f} s" if math.isfinite(seconds) else "for ever"
