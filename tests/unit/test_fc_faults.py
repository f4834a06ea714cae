"""Faults repeat with their seed, whatever else happens, and say what they did."""

from __future__ import annotations

from typing import Any

import pytest

from serverless_fn.local_fc.errors import FcError
from serverless_fn.local_fc.faults import KINDS, Faults


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def struck(faults: Faults, function: str, calls: int) -> list[int]:
    """Return the numbers of the calls that were hit."""
    return [number for number in range(1, calls + 1) if faults.strike(function)]


def test_the_same_seed_hits_the_same_calls_and_another_one_others() -> None:
    def hits(seed: int, noise: bool) -> list[int]:
        faults = Faults(seed=seed, clock_s=Clock())
        faults.add({"kind": "reset", "function": "f", "rate": 0.3})
        if noise:
            # Other functions and instance starts draw too, and must not shift what hits f.
            struck(faults, "g", 17)
            faults.cold_start_delay_s("f")
        return struck(faults, "f", 2000)

    assert hits(1, noise=False) == hits(1, noise=True)
    assert hits(1, noise=False) != hits(2, noise=False)
    # Four standard errors of the binomial.
    assert abs(len(hits(1, noise=False)) - 600) <= 82


def test_a_script_names_the_calls_by_their_number() -> None:
    faults = Faults(seed=0, clock_s=Clock())
    faults.add({"kind": "status", "calls": [2, 5]})
    assert struck(faults, "f", 6) == [2, 5]


def test_a_window_counts_from_when_the_fault_was_set() -> None:
    clock = Clock()
    faults = Faults(seed=0, clock_s=clock)
    faults.add({"kind": "capacity", "window_s": [1, 3]})
    seen = []
    for moment in (100.5, 101.0, 102.9, 103.0):
        clock.now_s = moment
        seen.append(faults.capacity_is_out("f"))
    assert seen == [False, True, True, False]


def test_delays_are_lognormal_around_their_median() -> None:
    faults = Faults(seed=3, clock_s=Clock())
    faults.add({"kind": "cold_start", "delay_s": 2.0, "sigma": 0.5})
    delays = sorted(faults.cold_start_delay_s("f") for _ in range(401))
    assert 1.8 < delays[200] < 2.2
    assert delays[0] < 1.0 < 4.0 < delays[-1]


def test_the_log_says_what_hit_whom_and_removed_rules_hit_nobody() -> None:
    faults = Faults(seed=0, clock_s=Clock())
    first, second = faults.add({"kind": "close", "function": "f"}), faults.add({"kind": "drip", "function": "g"})
    (hit,) = faults.strike("f")
    assert hit.fault.kind == "close"
    assert faults.report()["log"] == []
    faults.happened(hit)
    assert faults.remove(first.id) == 1
    assert faults.strike("f") == []
    assert faults.report()["log"] == [{"at_s": 0.0, "kind": "close", "fault": 1, "function": "f", "number": 1}]
    assert faults.report()["faults"] == [{"id": second.id, "kind": "drip", "function": "g"}]
    assert faults.remove(None) == 1


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({}, "kind"),
        ({"kind": "gremlin"}, "gremlin"),
        ({"kind": "reset", "rate": 1.5}, "rate"),
        ({"kind": "reset", "delay_s": 1}, "'delay_s'"),
        ({"kind": "status", "status": 200}, "status"),
        ({"kind": "status", "body": "xml"}, "body"),
        ({"kind": "stall", "window_s": [3, 1]}, "window_s"),
        ({"kind": "stall", "calls": ["1"]}, "calls"),
        ([], "JSON object"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_by_name(content: Any, named: str) -> None:
    with pytest.raises(FcError, match=named):
        Faults(seed=0, clock_s=Clock()).add(content)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_has_defaults_for_all_it_needs(kind: str) -> None:
    assert Faults(seed=0, clock_s=Clock()).add({"kind": kind}).kind == kind
