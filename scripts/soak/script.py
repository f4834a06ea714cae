"""What happens in a world: drawn from its seed before it begins, so that any part of it can be left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from scripts.soak import sites
from scripts.soak.sites import Model, Site
from scripts.soak.truth import Content

EDGE_FAULTS = (
    *("refused", "hang", "unwritten", "slow", "500", "503", "429", "html", "401", "cut", "garbage", "half", "id"),
    *("nan", "shape", "datatype", "missing", "model", "reordered", "stale", "huge", "lies", "identity"),
)
FUNCTION_FAULTS = (
    *("unreachable", "hang", "late", "slow", "throttled", "silence", "500", "account", "crash", "initializer", "frame"),
    *("batch", "nan", "shape", "missing", "reordered", "stale", "huge", "lies", "identity", "cold"),
)
HOST_FAULTS = ("thin", "no-uplink", "slow-planner", "no-planner", "slow-disk", "full-disk")
EVENTS = (
    *("limits", "reload", "crash", "stop", "stop-now", "suspend", "leap", "wall", "read", "burst", "cold"),
    *("undo-limits", "same-reload"),
)
THEMES = (*("",) * 14, "kills-under-a-cap", "reload-while-hung")
"""What some worlds are about; empty: everything."""
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Call:
    """One request of a client."""

    content: Content
    class_name: str = "default"
    tenant: str = ""
    priority: int = 0
    timeout_s: float | None = None
    grpc: bool = False
    cancel_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens at one time, in seconds since the world began, leaps of the clock apart."""

    at_s: float
    what: str
    """One of EVENTS, or "call"."""
    call: Call | None = None
    site: Site | None = None
    number: float = 0.0


@dataclass(frozen=True, slots=True)
class Fault:
    """How one side, or the host, behaves for a while."""

    where: str
    """"edge", "function" or "host"."""
    what: str
    from_s: float
    to_s: float
    share: float = 1.0
    """Of the exchanges that meet it."""


@dataclass(frozen=True, slots=True)
class Script:
    """A whole world."""

    seed: int
    site: Site
    events: tuple[Event, ...]
    faults: tuple[Fault, ...]
    ends_s: float
    """When the faults stop."""

    def without(self, *, events: Sequence[int] = (), faults: Sequence[int] = ()) -> Script:
        """Returns the world without the events and faults of these numbers."""
        return replace(
            self,
            events=tuple(event for number, event in enumerate(self.events) if number not in events),
            faults=tuple(fault for number, fault in enumerate(self.faults) if number not in faults),
        )


def draw(seed: int) -> Script:
    """Returns the world of a seed. The weights of faults and events are drawn too: a swarm of unlike worlds."""
    random = Random(seed)
    site, theme = sites.draw(random), random.choice(THEMES)
    if theme == "kills-under-a-cap":
        site = sites.tightly_capped(site, random)
    ends_s = random.uniform(3.0, 9.0)
    events = [*_calls(random, site, ends_s), *_others(random, site, ends_s)]
    faults = _faults(random, ends_s, [event.at_s for event in events])
    if theme:
        some_events, some_faults = _of_theme(theme, random, site, ends_s)
        events, faults = [*events, *some_events], (*faults, *some_faults)
    return Script(seed, site, tuple(sorted(events, key=lambda event: event.at_s)), faults, ends_s)


def _of_theme(theme: str, random: Random, site: Site, ends_s: float) -> tuple[list[Event], list[Fault]]:
    """Returns what must come together to be found out, and hardly ever does by chance."""
    at_s = random.uniform(0.5, ends_s - 1.5)
    calls = [_call(random, site, 200_000 + 16 * n, odd=0, cancelled=0, hurried=0, grpc=0) for n in range(KILLS * 6)]
    if theme == "kills-under-a-cap":
        kills = [Event(ends_s * (n + 1) / KILLS, "crash", number=float(random.randint(0, 6))) for n in range(KILLS)]
        each_s = ends_s / len(calls)
        return [*kills, *(Event(each_s * n, "call", call) for n, call in enumerate(calls))], []
    to_s = min(ends_s, at_s + random.uniform(1.0, 4.0))
    hangs = [Fault(where, "hang", at_s, to_s) for where in ("edge", "function")]
    reload = Event(at_s + random.uniform(0.05, 0.8), "reload", None, sites.retuned(site, random))
    return [*(Event(at_s + random.uniform(0.01, 0.3), "call", call) for call in calls[:4]), reload], hangs


def _weights(random: Random, words: Sequence[str], share: float) -> dict[str, float]:
    """Returns random weights of some of the words; those of the others are 0."""
    return {word: random.expovariate(1.0) for word in words if random.random() < share}


def _faults(random: Random, ends_s: float, times_s: Sequence[float]) -> tuple[Fault, ...]:
    """Returns faults, most of which begin shortly before something happens that may meet them."""
    found = []
    busy = random.choice((0, 1, 1, 2, 4))
    for where, words, share in (
        ("edge", EDGE_FAULTS, 0.2),
        ("function", FUNCTION_FAULTS, 0.2),
        ("host", HOST_FAULTS, 0.3),
    ):
        weights = _weights(random, words, share)
        for _ in range(random.randint(0, 2 * busy) if weights else 0):
            what = random.choices(list(weights), list(weights.values()))[0]
            from_s = random.uniform(0.0, ends_s)
            if times_s and random.random() < 0.7:
                from_s = max(0.0, random.choice(times_s) - random.expovariate(10.0))
            to_s = min(ends_s, from_s + random.expovariate(1.0 / random.choice((0.3, 1.5, 6.0))))
            found.append(Fault(where, what, from_s, to_s, random.choice((1.0, 1.0, 0.5, 0.2))))
    return tuple(found)


def _calls(random: Random, site: Site, ends_s: float) -> list[Event]:
    """Returns calls that come one by one, at a rate that changes, and in bursts."""
    odd, cancelled = random.choice((0.0, 0.0, 0.1)), random.choice((0.0, 0.1, 0.3))
    hurried, grpc = random.choice((0.0, 0.2)), random.choice((0.0, 0.3, 1.0))
    events: list[Event] = []
    at_s, number = random.uniform(0.0, 0.3), 1
    rate_rps = random.choice((3.0, 8.0, 20.0))
    while at_s < ends_s and len(events) < MOST_CALLS:
        together = random.choice((1, 1, 1, 1, 2, 8)) if random.random() < 0.3 else 1
        for _ in range(together):
            call = _call(random, site, number, odd=odd, cancelled=cancelled, hurried=hurried, grpc=grpc)
            number += 16
            events.append(Event(at_s, "call", call))
        at_s += random.expovariate(rate_rps / together)
    return events


KILLS = 6
"""Of a world whose money must last for several processes."""
MOST_CALLS = 40
"""A bound of the time that a world takes."""


def _call(
    random: Random, site: Site, number: int, *, odd: float, cancelled: float, hurried: float, grpc: float
) -> Call:
    model = random.choice(site.models)
    kind = {"numbers": "refused", "words": "bad", "shapes": "nan"}[model.kind]
    content = Content(model.kind, number, random.choice((1, 1, 1, 2, 5)), odd=kind if random.random() < odd else "")
    return Call(
        content,
        class_name=random.choice(("default", *model.classes)),
        tenant=random.choice(sites.TENANTS),
        priority=random.choice((0, 0, 1, 3)),
        timeout_s=random.choice((0.05, 0.3, 2.0, 8.0)) if random.random() < hurried else None,
        grpc=random.random() < grpc,
        cancel_after_s=random.expovariate(4.0) if random.random() < cancelled else None,
    )


def _others(random: Random, site: Site, ends_s: float) -> list[Event]:
    weights = _weights(random, EVENTS, 0.35)
    events: list[Event] = []
    times_s = [random.uniform(0.0, ends_s) for _ in range(random.choice((0, 1, 2, 4)) if weights else 0)]
    # In the order of time: a burst calls what is served when it comes, not what a later reload adds.
    for at_s in sorted(times_s):
        what = random.choices(list(weights), list(weights.values()))[0]
        number = {
            "crash": float(random.randint(0, 6)),
            "stop-now": random.choice((0.0, 0.01, 0.3)),
            "suspend": random.choice((1.0, 90.0, HOUR_S, 20 * HOUR_S)),
            "leap": random.choice((1.0, 90.0, HOUR_S, 30 * HOUR_S)),
            "wall": random.choice((-30 * HOUR_S, -HOUR_S, -5.0, 5.0, HOUR_S, 400 * HOUR_S)),
            "burst": float(random.choice((10, 20))),
            "limits": float(random.randint(0, 4)),
        }.get(what, 0.0)
        if what == "reload":
            site = sites.redraw(site, random)
        if what == "burst":
            calls = [
                _call(random, site, 100_000 + 1000 * len(events) + 16 * n, odd=0, cancelled=0, hurried=0, grpc=0)
                for n in range(int(number))
            ]
            events += [Event(at_s, "call", call) for call in calls]
            continue
        events.append(Event(at_s, what, None, site, number))
    return events


def fresh(models: Sequence[Model], number: int) -> list[Call]:
    """Returns calls that must all be answered in time, because all is well."""
    return [
        Call(Content(model.kind, number + 16 * (row * len(models) + at), 1))
        for row in range(2)
        for at, model in enumerate(models)
    ]
