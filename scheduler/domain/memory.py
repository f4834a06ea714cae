"""What an engine knows, as named parts that can be saved and taken up by the engine of the next process."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from scheduler.domain.latency import FunctionTier, LatencyModel

HALF_KNOWN_S = 3600.0
"""Age at which what was learned counts half. Judgement: machines, links and platforms are mostly the same after an
hour, and often not after a day; what is observed afterwards outweighs it within a dozen answers either way."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of what was known, saved."""

    name: str
    version: int
    """Of the form of its content; a part of another version is not taken up."""
    fingerprint: str
    """Of what it is true of; it is taken up only where that is the same."""
    content: object
    """Of the types of JSON."""


@dataclass(frozen=True, slots=True)
class Memory:
    """All parts that an earlier process has saved."""

    parts: Mapping[str, Part] = field(default_factory=dict)
    age_s: float = 0.0
    """Seconds since they were saved."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """One part of what is known, as its keeper offers it.

    To have something remembered, give `Control.remember_also` one of these, before the engine's first call.
    """

    name: str
    version: int
    fingerprint: str
    snapshot: Callable[[float], object]
    """Returns the content, of the types of JSON, at a time."""
    restore: Callable[[object, float, float], None]
    """Takes up a content with its age in seconds at a time. Where it does not understand the content, it raises
    KeyError, TypeError or ValueError, and what is known stays sound."""
    earlier_name: str = ""
    """Under which it may have been saved before; that is taken up where nothing is saved under its name."""


def saved(offered: Iterable[Remembered], now_s: float) -> tuple[Part, ...]:
    """Returns all parts at a time."""
    return tuple(Part(each.name, each.version, each.fingerprint, each.snapshot(now_s)) for each in offered)


def taken_up(offered: Iterable[Remembered], memory: Memory, now_s: float) -> tuple[str, ...]:
    """Takes up what is still true; returns the names of the parts that were.

    >>> known = []
    >>> part = Remembered("a", 1, "f", lambda now_s: known, lambda content, age_s, now_s: known.append(content))
    >>> memory = Memory({"a": Part("a", 1, "f", "it"), "b": Part("b", 1, "f", "that")}, age_s=3.0)
    >>> taken_up([part], memory, 0.0), known
    (('a',), ['it'])
    >>> taken_up([part], Memory({"a": Part("a", 1, "other", "it")}), 0.0), known
    ((), ['it'])
    """
    names = []
    for each in offered:
        part = memory.parts.get(each.name) or memory.parts.get(each.earlier_name)
        if part is None or (part.version, part.fingerprint) != (each.version, each.fingerprint):
            continue
        try:
            each.restore(part.content, memory.age_s, now_s)
        except (KeyError, TypeError, ValueError):
            continue
        names.append(each.name)
    return tuple(names)


def fingerprint(
    *,
    model: str = "",
    profile: LatencyModel | None = None,
    overhead_s: float = 0.0,
    tier: FunctionTier | None = None,
    model_hash: str = "",
) -> str:
    """Returns a text that is the same only where model, profile and tier are.

    Args:
        model: name of the neural network.
        profile: latency model of its profile.
        overhead_s: what is added to the profile's services.
        tier: the function tier; its price does not matter.
        model_hash: of its weights, where the backend reports one.
    """
    of_tier = None if tier is None else (tier.name, tier.function_name, tier.qualifier, tier.latency)
    return hashlib.sha256(repr((model, profile, overhead_s, of_tier, model_hash)).encode()).hexdigest()[:16]


def part_known(age_s: float) -> float:
    """Returns what remains of the weight of observations after a time: 1 now, a half after `HALF_KNOWN_S`."""
    return 1.0 / (1.0 + max(0.0, age_s) / HALF_KNOWN_S)


def entries(content: object) -> Mapping[str, object]:
    """Returns the entries of a JSON object; TypeError for anything else."""
    if not isinstance(content, Mapping):
        raise TypeError(f"an object is needed, not {type(content).__name__}")
    return content


def rows(content: object) -> Sequence[object]:
    """Returns the items of a JSON array; TypeError for anything else."""
    if not isinstance(content, (list, tuple)):
        raise TypeError(f"an array is needed, not {type(content).__name__}")
    return content


_LARGEST = 1e18
"""Of any number that is remembered: bytes, seconds, money. Computing with more could overflow."""
_LARGEST_LOG = 40.0
"""Of a logarithm: a service that is 10^17 times as slow as its profile says is none."""


def finite(content: object, largest: float = _LARGEST) -> float:
    """Returns a finite number of at most so much either way; TypeError or ValueError for anything else."""
    if isinstance(content, bool) or not isinstance(content, (int, float)):
        raise TypeError(f"a number is needed, not {type(content).__name__}")
    if not -largest <= content <= largest:
        raise ValueError(f"a number of at most {largest:g} is needed")
    return float(content)


def logarithm(content: object) -> float:
    """Returns a logarithm of what can be computed with; TypeError or ValueError for anything else."""
    return finite(content, _LARGEST_LOG)


def logarithms(content: object) -> list[float]:
    """Returns the logarithms of a JSON array; TypeError or ValueError for anything else."""
    return [logarithm(item) for item in rows(content)]


def finites(content: object) -> list[float]:
    """Returns the numbers of a JSON array; TypeError or ValueError for anything else."""
    return [finite(item) for item in rows(content)]
