"""Required costs over load beside measured ones, at equal lateness: in a budget kept, and in one that is spent."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from scheduler.simulator.scenario import ORACLES, POLICIES
from scripts.evaluation.case import BOUND, Figure, Row
from scripts.evaluation.costs import Mean, means_by_load
from scripts.evaluation.options import OURS
from scripts.evaluation.tables import GOOD, ORACLE, percent

SPEND = f"{OURS}, spend"
"""The engine with the budget that is spent on purpose."""
NEVER_BELOW = 0.9995
"""Required fraction within the SLO without noise, where no request is late on purpose."""
LEAST_OF_ONE = 0.988
"""Required fraction within the SLO of each seed, with noise."""
LATER: Mapping[tuple[float, float], float] = {(0.6, 4.0): 0.989}
"""(SLO in s, factor on the rate) -> required mean fraction within the SLO with noise, where it is not 0.99."""
STATIC_PART, STATIC_MORE = 0.03, 0.002
"""What a cost may be above that of `static`: a part of it, or this much, whichever is more."""
LEARNING: Mapping[tuple[float, float], float] = {(1.0, 4.0): 0.0083}
"""(SLO in s, factor on the rate) -> maximum cost of learning with noise; half of what it was."""
LEARNING_ELSEWHERE = 0.0035
AFTER_A_BURST = 0.0100
"""Maximum cost of the bursty traffic, SLO 1 s, factor 2, with noise: low load after a burst."""


@dataclass(frozen=True, slots=True)
class Target:
    """Maximum costs, as fractions of serving everything by function.

    Attributes:
        keep: of a budget kept.
        spend: of a budget spent; with noise also what a budget kept should come to.
    """

    keep: float
    spend: float


NOISE_TARGETS: Mapping[tuple[float, float], Target] = {
    (0.6, 2.0): Target(0.008, 0.004),
    (0.6, 2.4): Target(0.144, 0.139),
    (0.6, 3.0): Target(0.400, 0.398),
    (0.6, 4.0): Target(0.681, 0.677),
    (1.0, 2.4): Target(0.051, 0.048),
    (1.0, 3.0): Target(0.270, 0.265),
    (1.0, 4.0): Target(0.541, 0.532),
}
"""By (SLO in s, factor on the rate): with noise, at equal lateness, on the first 20,000 gaps of a trace."""
CALM_TARGETS: Mapping[tuple[float, float], Target] = {
    (0.6, 2.2): Target(0.0235, 0.0135),
    (0.6, 2.4): Target(0.0765, 0.0664),
    (0.6, 3.0): Target(0.2435, 0.2345),
    (0.6, 4.0): Target(0.423, 0.4135),
    (1.0, 2.4): Target(0.0242, 0.0152),
    (1.0, 3.0): Target(0.198, 0.191),
    (1.0, 4.0): Target(0.392, 0.3835),
}
"""The same without noise, as paid."""
Load = tuple[str, float, float]
"""Traffic, SLO in seconds, factor on the rate."""


def _loads(rows: Sequence[Row], suite: str, *, on_trace: bool) -> Iterator[tuple[Load, dict[str, Mean]]]:
    """Yields the means of each load; on traces without other stretches than the first."""
    of_suite = [row for row in rows if row["suite"] == suite and row["on_trace"] == on_trace]
    for load, means, _ in means_by_load(of_suite):
        if " from gap " not in load[0]:
            yield load, means


def _asked(load: Load, what: str) -> str:
    source, slo_s, scale = load
    return f"{source}, rate x {scale:g}, SLO {slo_s:g} s, {what}"


def _by_source(
    rows: Sequence[Row], suite: str, targets: Mapping[tuple[float, float], Target]
) -> Iterator[tuple[Load, Target, dict[str, Mean]]]:
    """Yields every load that has targets, for each trace, without means where it did not run."""
    at = dict(_loads(rows, suite, on_trace=True))
    for source in dict.fromkeys(source for source, _, _ in at):
        for (slo_s, scale), target in targets.items():
            load = (source, slo_s, scale)
            yield load, target, at.get(load, {})


def with_noise(rows: Sequence[Row]) -> Iterator[Figure]:
    """Yields whether cost at equal lateness and percentile hold with noise, at the loads of `NOISE_TARGETS`."""
    for load, target, means in _by_source(rows, "noise", NOISE_TARGETS):
        least = LATER.get(load[1:], GOOD)
        share = f"within at least {least:g} in the mean and {LEAST_OF_ONE:g} in each seed"
        for name, what, most in (
            (OURS, "must keep", target.keep),
            (OURS, "aim, keep", target.spend),
            (SPEND, "must spend", target.spend),
        ):
            mean = means.get(name)
            asked = _asked(load, f"noise, {what}: at equal lateness at most {most:.3f}, {share}")
            if mean is None or mean.equal is None:
                yield Figure(asked, "" if mean is None else mean.raw(), None if mean is None else False)
                continue
            ok = mean.equal <= most and mean.within >= least and mean.least_within >= LEAST_OF_ONE
            yield Figure(asked, f"{mean.compared()}, paid {mean.raw()}, worst {mean.least_within:.4f}", ok)


def without_noise(rows: Sequence[Row]) -> Iterator[Figure]:
    """Yields the costs without noise at the loads of `CALM_TARGETS`."""
    for load, target, means in _by_source(rows, "load", CALM_TARGETS):
        for name, what, most, least in (
            (OURS, "must keep", target.keep, NEVER_BELOW),
            (SPEND, "must spend", target.spend, GOOD),
        ):
            mean = means.get(name)
            asked = _asked(load, f"no noise, {what}: at most {most:.4f}, within at least {least:g}")
            ok = None if mean is None else mean.cost <= most and mean.least_within >= least
            yield Figure(asked, "" if mean is None else mean.raw(), ok)


def near_the_bound(rows: Sequence[Row]) -> Iterator[Figure]:
    """Yields for each load without noise: at most 3 % of the bound or 0.005 above the bound, 99.9 % within the SLO."""
    for load, means in _loads(rows, "load", on_trace=True):
        ours, bound = means.get(OURS), means.get(BOUND)
        if ours is not None and bound is not None:
            most = bound.cost + max(0.03 * bound.cost, 0.005)
            asked = f"no noise: cost at most {most:.4f} (bound {bound.cost:.4f}), 99.9 % within SLO"
            ok = ours.cost <= most and ours.least_within >= 0.999
            yield Figure(_asked(load, asked), f"{ours.cost:.4f}, {percent(ours.least_within, 1)}", ok)


def beside_static(rows: Sequence[Row]) -> Iterator[Figure]:
    """Yields whether the cost with noise is near that of parameters tuned on the same requests, on all traffic."""
    of_suite = [row for row in rows if row["suite"] == "noise"]
    for load, means, _ in means_by_load(of_suite):
        ours, static = means.get(OURS), means.get("static")
        if ours is None or static is None or static.equal is None or not 2.4 <= load[2] <= 3.0:
            continue
        most = static.equal + max(STATIC_PART * static.equal, STATIC_MORE)
        asked = _asked(load, f"noise: at equal lateness at most {most:.4f} (static {static.equal:.4f})")
        yield Figure(asked, ours.compared(), ours.equal is not None and ours.equal <= most)


def learning(rows: Sequence[Row]) -> Iterator[Figure]:
    """Yields what learning costs: at equal lateness, above the same engine with true laws and rate."""
    for load, means in _loads(rows, "noise", on_trace=True):
        ours, told = means.get(OURS), means.get(ORACLE)
        if ours is None or told is None or ours.equal is None or told.equal is None:
            continue
        most = LEARNING.get(load[1:], LEARNING_ELSEWHERE)
        asked = _asked(load, f"noise: at equal lateness at most {most:.4f} above {ORACLE} ({told.equal:.4f})")
        yield Figure(asked, f"{ours.equal - told.equal:+.4f}", ours.equal - told.equal <= most)


def after_a_burst(rows: Sequence[Row]) -> Iterator[Figure]:
    """Yields the cost where the load is low after a burst."""
    for load, means in _loads(rows, "noise", on_trace=False):
        ours = means.get(OURS)
        if load == ("bursty", 1.0, 2.0) and ours is not None:
            asked = _asked(load, f"noise: at most {AFTER_A_BURST:.4f}, within at least {GOOD:g}")
            yield Figure(asked, ours.raw(), ours.cost <= AFTER_A_BURST and ours.within >= GOOD)


def cheapest(rows: Sequence[Row]) -> Iterator[Figure]:
    """Yields whether no other policy costs less at equal lateness; `static` knows the requests and is not asked."""
    for suite in ("load", "noise"):
        loads = list(_loads(rows, suite, on_trace=True))
        for slo_s in dict.fromkeys(load[1] for load, _ in loads):
            of_slo = [(load, means) for load, means in loads if load[1] == slo_s]
            if not any(RIVALS & means.keys() for _, means in of_slo):
                continue
            lost = [f"rate x {load[2]:g} to {rival}" for load, means in of_slo if (rival := _beaten_by(means))]
            yield Figure(
                f"{suite}, SLO {slo_s:g} s: cheapest of the policies at equal lateness at every load",
                f"at {len(of_slo) - len(lost)} of {len(of_slo)} loads" + (f"; lost {', '.join(lost)}" if lost else ""),
                not lost,
            )


RIVALS = frozenset(POLICIES) - {OURS, "static", *ORACLES}
"""The oracles are the engine with true values, and the bound is no policy."""


def _beaten_by(means: Mapping[str, Mean]) -> str:
    """Returns a policy that is cheaper (or, where the bound is above 0.005, as cheap); "" if none."""
    ours, bound = means.get(OURS), means.get(BOUND)
    if ours is None or ours.equal is None:
        return "its own lateness"
    strictly = bound is not None and bound.cost > 0.005
    for name in means.keys() & RIVALS:
        equal = means[name].equal
        if equal is not None and (equal < ours.equal or (strictly and equal == ours.equal)):
            return name
    return ""


JUDGES: tuple[Callable[[Sequence[Row]], Iterator[Figure]], ...] = (
    without_noise,
    near_the_bound,
    with_noise,
    beside_static,
    learning,
    after_a_burst,
    cheapest,
)
