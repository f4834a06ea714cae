"""Whatever happens: an engine that a shadow hears decides as one that nothing hears, in random worlds."""

from dataclasses import replace
from unittest import mock

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.engine_world import LIMITS, SETTINGS, Mood, World
from support.shadow_kit import replayed

from scheduler.daemon.shadow import live as live_module
from scheduler.domain.batches import FailureKind
from scheduler.domain.plans import EngineSettings
from scheduler.domain.requests import Backend

Step = tuple[str, tuple[object, ...]]


def _step(method: str, *arguments: st.SearchStrategy[object]) -> st.SearchStrategy[Step]:
    return st.tuples(st.just(method), st.tuples(*arguments))


moods = st.builds(
    Mood,
    kind=st.sampled_from([None, None, *FailureKind]),
    pace=st.sampled_from([1.0, 0.3, 3.0]),
    hangs=st.sampled_from([False, False, False, True]),
)
arrivals = _step(
    "arrive",
    st.sampled_from([2, 5, 30]),
    st.integers(0, 2),
    st.sampled_from([0, 0, 1, 2, 3, 4]),
    st.sampled_from([1, 1, 3, 8]),
    st.sampled_from([0.3, 1.0, 1.0, 4.0]),
)
steps = st.one_of(
    arrivals,
    arrivals,
    _step("advance", st.sampled_from([0.01, 0.2, 0.2, 1.0, 1.0, 40.0])),
    _step("cancel", st.integers(0, 40)),
    _step("limit", st.integers(0, 2), st.sampled_from(LIMITS)),
    _step("reload", st.sampled_from(SETTINGS)),
    _step("treat", st.sampled_from(list(Backend)), moods),
    _step("vary", st.sampled_from([1, 2, 4])),
    _step("lend_in", st.sampled_from([0.01, 5.0, None])),
    _step("drain"),
)


def scripted(begin: EngineSettings, script: list[Step]) -> World:
    world = World(begin)
    for method, arguments in [("arrive", (5, 0, 0, 1, 1.0)), ("advance", (1.0,)), *script]:
        getattr(world, method)(*arguments)
    world.handle()
    world.settle()
    return world


# Shrinking takes minutes: what is found here is cut down by hand.
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.sampled_from(SETTINGS), st.sampled_from(SETTINGS), st.lists(steps, min_size=1, max_size=15))
def test_the_live_engine_decides_as_without_a_shadow(
    begin: EngineSettings, other: EngineSettings, script: list[Step]
) -> None:
    world = scripted(begin, script)
    with mock.patch.object(live_module, "LESSONS", 0):
        commands, report = replayed(world.script, begin, replace(other, spend_leased=""))
    assert commands == world.commands
    assert report["state"] in ("waiting", "hearing", "stopped")
    assert "internal error" not in report["message"]
    assert report["counted_s"] > 0
    counts = report["shadow"]
    ended = sum(counts[end] for end in ("answered", "refused", "rejected", "cancelled"))
    assert ended <= counts["requests"]
    # After a drain each side has what had ended in it.
    assert report["state"] == "stopped" or counts["requests"] <= report["live"]["requests"]
