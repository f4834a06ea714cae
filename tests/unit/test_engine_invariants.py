"""Whatever happens, in whatever order, the engine keeps its promises: random worlds, one set of invariants.

A world is a list of steps: arrivals, cancellations, failures of every kind, changes of limits and settings, plans
that come late, a drain. Time is virtual. After every call of `handle` the promises are checked, and at the end, when
everything works again and time has passed, nobody may be left.
"""

from collections.abc import Sequence

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.engine_world import LIMITS, SETTINGS, Mood, World

from scheduler.domain.batches import FailureKind
from scheduler.domain.plans import EngineSettings
from scheduler.domain.requests import Backend
from scheduler.engine import Engine


def _step(method: str, *arguments: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[str, tuple[object, ...]]]:
    return st.tuples(st.just(method), st.tuples(*arguments))


moods = st.builds(
    Mood,
    kind=st.sampled_from([None, None, *FailureKind]),
    pace=st.sampled_from([1.0, 0.3, 3.0, 30.0]),
    hangs=st.sampled_from([False, False, False, True]),
    retry_after_s=st.sampled_from([None, 0.2, 5.0]),
    poison=st.sampled_from([0, 0, 3, 1]),
)
arrivals = _step(
    "arrive",
    st.sampled_from([1, 2, 5, 30]),
    st.integers(0, 2),
    st.sampled_from([0, 0, 1, 2, 3, 4]),
    st.sampled_from([1, 1, 1, 3, 8]),
    st.sampled_from([0.3, 1.0, 1.0, 4.0, 0.01]),
)
steps = st.one_of(
    arrivals,
    arrivals,
    _step("advance", st.sampled_from([0.0, 0.01, 0.05, 0.2, 0.2, 1.0, 1.0, 40.0])),
    _step("advance", st.floats(0.0, 1.0)),
    _step("cancel", st.integers(0, 40)),
    _step("limit", st.integers(0, 2), st.sampled_from(LIMITS)),
    _step("reload", st.sampled_from(SETTINGS)),
    _step("treat", st.sampled_from(list(Backend)), moods),
    _step("plan_in", st.sampled_from([0.0, 0.1, 45.0])),
    _step("vary", st.sampled_from([1, 2, 4, 11])),
    _step("lend_in", st.sampled_from([0.01, 0.3, 5.0, None])),
    _step("drain"),
)


def play(script: Sequence[tuple[str, tuple[object, ...]]], begin: EngineSettings = SETTINGS[0]) -> World:
    world = World(begin)
    for method, arguments in script:
        getattr(world, method)(*arguments)
    world.handle()
    world.settle()
    return world


# Shrinking takes minutes: what is found here is cut down by hand.
@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.sampled_from(SETTINGS[-3:]), st.lists(steps, min_size=1, max_size=30))
def test_the_promises_hold_with_several_slots(
    begin: EngineSettings, script: list[tuple[str, tuple[object, ...]]]
) -> None:
    play(script, begin)


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(steps, min_size=1, max_size=30))
def test_the_promises_hold_in_any_world(script: list[tuple[str, tuple[object, ...]]]) -> None:
    world = play(script)
    engine = Engine(SETTINGS[0])
    again = [command for messages, now_s in world.script for command in engine.handle(messages, now_s)]
    assert repr(again) == repr(world.commands), "the same messages gave other commands"
