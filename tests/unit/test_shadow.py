"""A shadow hears what the live engine hears: its figures, its pauses, and that nothing of it reaches live traffic."""

import asyncio
import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.engine_kit import arrive, settings
from support.shadow_kit import Backends, play, reading, shadow_on
from support.virtual_loop import VirtualLoop, run_virtual

from scheduler.control import Control
from scheduler.daemon.runner import Runner
from scheduler.daemon.shadow import live as live_module
from scheduler.daemon.shadow.loop_share import PAUSE_S
from scheduler.daemon.shadow.report import page_values
from scheduler.daemon.shadow.shadow import Shadow
from scheduler.dispatch.decision_ring import DecisionRing
from scheduler.domain.messages import ComputePlan, LimitsChanged
from scheduler.domain.plans import EngineSettings, Limits, Plan
from scheduler.engine import Engine
from scheduler.simulator.beside import EngineBeside
from scheduler.workloads import steps
from scripts.support.steady_queue import counted_calls

LIVE = settings(uplink_bytes_per_s=1e6)


def arrivals(rate_rps: float, seconds: float, seed: int = 5) -> list[float]:
    return [float(at_s) for at_s in steps([(seconds, rate_rps)], rng=np.random.default_rng(seed)).times_s]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shadow begins with the first message, before the live engine has learned."""
    monkeypatch.setattr(live_module, "LESSONS", 0)


def of_functions(side: dict[str, Any]) -> float:
    answers = side["places"]
    return sum(number for place, number in answers.items() if place.startswith("function")) / sum(answers.values())


def test_a_shadow_with_the_live_configuration_has_about_its_figures() -> None:
    # The edge takes twice its profile, so that about a quarter of the requests must be bought.
    played = play(LIVE, LIVE, arrivals(60.0, 40.0), backends=Backends(edge_pace=2.0))
    live, shadow = played.report["live"], played.report["shadow"]
    assert live["requests"] == shadow["requests"] > 1500
    assert shadow["within_slo"] == pytest.approx(live["within_slo"], abs=0.02)
    assert of_functions(live) > 0.1
    assert of_functions(shadow) == pytest.approx(of_functions(live), abs=0.06)
    assert shadow["spent"] == pytest.approx(live["spent"], rel=0.25)
    assert shadow["p99_s"] == pytest.approx(live["p99_s"], rel=0.1)


def test_what_another_slo_would_cost_is_told_beside_the_live_figures() -> None:
    backends, alone = Backends(edge_pace=2.0), Backends(edge_pace=2.0)
    times_s = arrivals(50.0, 20.0)
    played = play(LIVE, settings(slo_s=2.5, uplink_bytes_per_s=1e6), times_s, backends=backends)
    without = play(LIVE, None, times_s, backends=alone)
    live, shadow = played.report["live"], played.report["shadow"]
    assert played.report["state"] == "hearing"
    assert 0.0 < shadow["spent"] < 0.7 * live["spent"]
    assert shadow["p99_s"] > 1.5 * live["p99_s"]
    assert shadow["within_slo"] > 0.98
    assert (backends.sent, played.spent, played.answered) == (alone.sent, without.spent, without.answered)


def test_it_begins_when_the_live_engine_has_learned() -> None:
    few = play(LIVE, LIVE, [0.1, 0.2])
    assert few.report["state"] == "waiting"
    assert "has learned from 16 batches (2 so far)" in few.report["message"]
    assert few.report["live"]["requests"] == few.report["shadow"]["requests"] == 0
    assert play(LIVE, LIVE, arrivals(30.0, 5.0)).report["state"] == "hearing"


@pytest.mark.usefixtures("at_once")
def test_a_deadline_that_the_client_asked_for_holds_in_the_shadow_too() -> None:
    patient = settings(slo_s=8.0)
    # Nothing serves within 10 ms, whatever the class allows.
    played = play(settings(slo_s=1.0), patient, [0.1, 0.2], timeouts_s={1: 0.01})
    assert played.report["live"]["refused"] == 1
    assert (played.report["shadow"]["answered"], played.report["shadow"]["refused"]) == (1, 1)


@pytest.mark.usefixtures("at_once")
def test_operators_limits_reach_the_shadow() -> None:
    async def limit(_: Shadow, runner: Runner) -> None:
        await asyncio.sleep(0.5)
        runner.post(LimitsChanged("m", Limits(edge_batch_cap=0)))

    played = play(LIVE, LIVE, arrivals(20.0, 5.0), during=limit)
    places = played.report["shadow"]["places"]
    assert places["function:1gb"] > 50
    assert places["edge:main"] < 20


class SlowTimer:
    """A timer by which each look costs so many seconds while the shadow works."""

    def __init__(self) -> None:
        self.step_s = 0.0
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


@pytest.mark.usefixtures("at_once")
def test_it_pauses_above_a_tenth_of_the_loops_time_and_resumes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "edgeburst")
    timer, seen = SlowTimer(), []

    async def watch(shadow: Shadow, _: Runner) -> None:
        await asyncio.sleep(5.0)
        seen.append(shadow.report())
        timer.step_s = 0.02
        await asyncio.sleep(5.0)
        timer.step_s = 0.0
        seen.append(shadow.report())
        await asyncio.sleep(PAUSE_S / 2)
        seen.append(shadow.report())
        await asyncio.sleep(PAUSE_S)
        seen.append(shadow.report())

    played = play(LIVE, LIVE, arrivals(6.0, 100.0), during=watch, timer=timer)
    before, after, paused, resumed = seen
    assert [each["state"] for each in seen] == ["hearing", "paused", "paused", "hearing"]
    assert "of the event loop's time, more than 10 %" in after["message"].replace("10%", "10 %")
    assert "it is paused for 60 s" in after["message"]
    assert after["live"] == paused["live"], "what happened meanwhile was counted"
    assert resumed["pauses"] == 1
    assert before["live"]["requests"] < after["live"]["requests"] < resumed["live"]["requests"] < 560
    assert played.answered == len(arrivals(6.0, 100.0))
    assert played.report["counted_s"] == pytest.approx(100.0 - PAUSE_S, abs=3.0)
    events = [record.message for record in caplog.records if record.message.startswith("shadow_")]
    assert events == ["shadow_begins", "shadow_paused", "shadow_resumed"]


@pytest.mark.usefixtures("at_once")
def test_long_work_is_done_in_slices_between_which_the_loop_does_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    timer, order = SlowTimer(), []
    step = EngineBeside.step

    def noted(beside: EngineBeside) -> None:
        order.append("shadow")
        timer.now_s += 0.0015
        step(beside)

    async def leap(_: Shadow, __: Runner) -> None:
        await asyncio.sleep(1.0)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        # As if the process had been stopped: much is due at once.
        loop.leap(1.0)
        order.clear()
        for _turn in range(60):
            order.append("loop")
            await asyncio.sleep(0)

    monkeypatch.setattr(EngineBeside, "step", noted)
    play(LIVE, LIVE, arrivals(40.0, 1.9), during=leap, timer=timer)
    slices = [len(steps_of) for steps_of in "".join(name[0] for name in order).split("l") if steps_of]
    *between, _ = slices  # the last is that after the other work
    assert len(between) > 3
    assert max(between) == 2


@pytest.mark.provokes_fault
@pytest.mark.usefixtures("at_once")
def test_a_bug_in_the_shadow_stops_it_alone(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: object, __: object, now_s: float) -> None:
        if now_s > 1.0:
            raise KeyError("a bug")

    monkeypatch.setattr(EngineBeside, "_perform", broken)
    played = play(LIVE, LIVE, arrivals(20.0, 5.0))
    assert played.answered == len(arrivals(20.0, 5.0))
    assert played.report["state"] == "stopped"
    assert "internal error" in played.report["message"]
    assert "reload" in played.report["message"]
    assert [record.message for record in caplog.records].count("shadow_bug") == 1


@pytest.mark.provokes_fault
@pytest.mark.usefixtures("at_once")
def test_a_bug_in_its_planner_stops_it_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def no_plan(command: ComputePlan) -> tuple[Plan, float]:
        raise ZeroDivisionError

    played = play(LIVE, LIVE, arrivals(20.0, 15.0), make_plan=no_plan)
    assert played.answered == len(arrivals(20.0, 15.0))
    assert played.report["state"] == "stopped"
    assert [record.message for record in caplog.records].count("shadow_bug") == 1


@pytest.mark.usefixtures("at_once")
def test_a_reload_of_another_configuration_begins_anew_and_of_the_same_goes_on() -> None:
    seen = []

    async def reload(shadow: Shadow, _: Runner) -> None:
        await asyncio.sleep(3.0)
        shadow.use(reading(LIVE, LIVE))
        seen.append(shadow.report()["live"]["requests"])
        await asyncio.sleep(0.1)
        shadow.use(reading(LIVE, settings(slo_s=0.5)))
        seen.append(shadow.report()["live"]["requests"])

    played = play(LIVE, LIVE, arrivals(20.0, 6.0), during=reload)
    assert seen[0] > 30
    assert seen[1] == 0
    assert 30 < played.report["live"]["requests"] < played.answered - 30


def test_a_bad_file_is_told_and_an_old_configuration_stays(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        shadow = shadow_on(asyncio.get_running_loop())
        shadow.refuse("shadow.toml:3: no such key")
        report = shadow.report()
        assert report["state"] == "refused"
        assert report["message"] == "shadow.toml:3: no such key; mend the file and reload (SIGHUP)"
        assert "live" not in report
        shadow.use(reading(LIVE, LIVE))
        shadow.refuse("shadow.toml:3: no such key")
        report = shadow.report()
        assert report["state"] != "refused"
        assert report["refused"] == "shadow.toml:3: no such key; the shadow's old configuration stays in use"
        assert page_values(report)["shadow"]["refused"] == report["refused"]
        shadow.use(reading(LIVE, LIVE))
        assert shadow.report()["refused"] == ""

    run_virtual(main())
    assert "the daemon serves without a shadow" in str(caplog.records[0].__dict__["fields"])
    assert "the shadow's old configuration stays in use" in str(caplog.records[-1].__dict__["fields"])


@pytest.mark.usefixtures("at_once")
def test_a_drain_stops_it() -> None:
    async def stop(_: Shadow, runner: Runner) -> None:
        await asyncio.sleep(2.0)
        await runner.drain(1.0)

    played = play(LIVE, LIVE, arrivals(20.0, 1.9), during=stop)
    assert played.report["state"] == "stopped"
    assert played.report["shadow"]["requests"] > 30


@pytest.mark.usefixtures("at_once")
def test_equal_seeds_give_equal_figures() -> None:
    times_s = arrivals(30.0, 2.0)
    first, second, other = (play(LIVE, LIVE, times_s, seed=seed).report["shadow"] for seed in (1, 1, 2))
    assert first == second
    assert first != other


def test_a_daemon_without_a_shadow_calls_no_function_for_it() -> None:
    def calls(engine: Engine) -> int:
        arrive(engine, 0.0, 1)
        return counted_calls(lambda: arrive(engine, 0.001, 2))[1]

    async def main() -> tuple[int, int]:
        shadow = shadow_on(asyncio.get_running_loop())
        shadow.refuse("shadow.toml: no such file")
        heard = shadow.live_engine(LIVE, Control(LIVE), DecisionRing(16))
        return calls(Engine(LIVE, Control(LIVE), DecisionRing(16))), calls(heard)

    plain, heard = run_virtual(main())
    # One that cannot be used costs its engine's own `handle` and one look at its state.
    assert heard <= plain + 2


def test_a_shadow_of_other_edges_and_tiers_takes_the_laws_of_its_own_profiles() -> None:
    """Its edge is four times as fast as what the live engine has learned of another one."""
    model = LIVE.models[0]
    assert model.edge_latency is not None
    fast = replace(model, edge_latency=model.edge_latency.slower(0.5))
    quick: EngineSettings = replace(LIVE, models=(fast,))
    played = play(LIVE, quick, arrivals(60.0, 12.0), backends=Backends(edge_pace=2.0))
    assert of_functions(played.report["live"]) > 0.1
    assert of_functions(played.report["shadow"]) < 0.02
    assert played.report["shadow"]["p50_s"] < 0.5 * played.report["live"]["p50_s"]
