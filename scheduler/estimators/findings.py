"""Changes that were found, as causes of plans: what has changed, from what to what, and since when, in one sentence."""

import math
from dataclasses import dataclass

from scheduler.estimators.changepoint import Change


@dataclass(frozen=True, slots=True)
class Finding:
    """Something has changed, not wobbled."""

    cause: str
    detail: str
    tier: tuple[str, str] | None = None
    """Model and tier that it is about; None: it is not about a tier."""
    slower: bool = False
    """Whether that tier is slower now."""


def of_rate(model: str, change: Change, tick_s: float) -> Finding:
    """Returns the finding of another arrival rate; the means of the change are counts in ticks of `tick_s`."""
    before_rps, after_rps = change.before_mean / tick_s, change.after_mean / tick_s
    since_s = change.run_length * tick_s
    return Finding("rate", f"{model}: {before_rps:.1f} -> {after_rps:.1f} requests/s, {since_s:.2f} s ago")


def of_edge_service(model: str, change: Change, *, edge: str = "") -> Finding:
    """Returns the finding of another speed of an edge server; the means are logarithms of service over profile.

    Args:
        model: the model.
        change: what was found.
        edge: the server's name where there are several.
    """
    return Finding("edge-service", _of_profile(model, f"edge {edge}".rstrip(), change))


def of_function_service(model: str, tier: str, change: Change) -> Finding:
    """Returns the finding of another speed of a function tier; the means are logarithms of service over profile."""
    detail = _of_profile(model, f"tier {tier}", change)
    return Finding("function-service", detail, (model, tier), slower=change.after_mean > change.before_mean)


def of_function_start(model: str, tier: str, change: Change) -> Finding:
    """Returns the finding of other starts of a tier's instances; the means are logarithms of seconds."""
    before_s, after_s = math.exp(change.before_mean), math.exp(change.after_mean)
    detail = f"{model}: starts of tier {tier} take {before_s:.2f} -> {after_s:.2f} s, {change.run_length} starts ago"
    return Finding("function-start", detail, (model, tier), slower=after_s > before_s)


def of_bandwidth(change: Change) -> Finding:
    """Returns the finding of another uplink; the means are logarithms of bytes a second."""
    before_bytes_per_s, after_bytes_per_s = math.exp(change.before_mean), math.exp(change.after_mean)
    return Finding("bandwidth", f"uplink {before_bytes_per_s / 1e6:.2f} -> {after_bytes_per_s / 1e6:.2f} MB/s")


def _of_profile(model: str, what: str, change: Change) -> str:
    before, after = math.exp(change.before_mean), math.exp(change.after_mean)
    return f"{model}: {what} at {before:.2f} -> {after:.2f} times its profile, {change.run_length} batches ago"
