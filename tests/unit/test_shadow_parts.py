"""The shadow's parts: counts of both sides, translated messages, laws that are read, the file, and what is shown."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector
from support.engine_kit import TIER, request, settings

from scheduler.control import Control
from scheduler.daemon.config.config import load_config
from scheduler.daemon.shadow.arrivals import Translation
from scheduler.daemon.shadow.live import Live
from scheduler.daemon.shadow.loop_share import CALM_S, LIMIT, LONGEST_PAUSE_S, PAUSE_S, WINDOW_S, LoopShare
from scheduler.daemon.shadow.metrics import shadow_metrics
from scheduler.daemon.shadow.part import Part
from scheduler.daemon.shadow.reading import Reading, read_shadow
from scheduler.daemon.shadow.report import class_rows, page_values, side
from scheduler.daemon.shadow.tally import Tally
from scheduler.domain.batches import Batch, BatchReport
from scheduler.domain.errors import ConfigError, Refusal, RefusalKind
from scheduler.domain.latency import LatencyModel
from scheduler.domain.messages import (
    AnswerRequest,
    BatchFinished,
    LimitsChanged,
    ModelBarred,
    ProbeMeasured,
    RefuseRequest,
    RequestArrived,
    RequestCancelled,
    SendBatch,
    SettingsChanged,
)
from scheduler.domain.plans import EngineSettings, Limits, ServiceClass
from scheduler.domain.quotas import Quota
from scheduler.domain.requests import FUNCTIONS, Place
from scheduler.domain.statistics import EdgeStatistics, EngineStatistics
from scheduler.engine import Engine
from scheduler.estimates import Estimates
from scheduler.estimators.warm_instances import WarmInstances
from scheduler.simulator.learned_laws import LearnedLink, LearnedPool, LearnedWorld, ShadowBackends


def batch(batch_id: int, place: Place, *ids: int, sent_at_s: float = 0.0) -> Batch:
    return Batch(batch_id, place, "m", ids, len(ids), 1000 * len(ids), sent_at_s, 9.0, 30.0, 1.0, 0.5)


def test_a_tally_counts_each_end_once_and_answers_by_place() -> None:
    tally = Tally()
    tally.hear([RequestArrived(request(i, 0.0)) for i in range(1, 6)], [SendBatch(batch(1, Place.edge(), 1, 2))], 0.0)
    done = BatchFinished(1, BatchReport(0.4))
    tally.hear([done], [AnswerRequest(1, 1), AnswerRequest(2, 1), SendBatch(batch(2, Place.function("1gb"), 3))], 0.4)
    tally.hear([RequestCancelled(5)], [RefuseRequest(4, Refusal(RefusalKind.DEADLINE, "late", 1.0))], 0.5)
    tally.hear([BatchFinished(2, BatchReport(0.9))], [AnswerRequest(3, 2)], 1.3)
    tally.hear([RequestCancelled(3)], [], 1.4)
    found = tally.total()
    assert (found.arrived, found.answered, found.within_slo, found.refused, found.cancelled) == (5, 3, 2, 1, 1)
    assert tally.places == {"edge:main": 2, "function:1gb": 1}
    assert found.share == 0.5
    assert found.latency_s == pytest.approx(2.1)
    assert found.percentile_s(0.99) == pytest.approx(1.3, rel=0.15)


def test_what_the_client_sent_wrongly_does_not_count_against_the_slo() -> None:
    tally = Tally()
    tally.hear([RequestArrived(request(1, 0.0))], [RefuseRequest(1, Refusal(RefusalKind.BAD_REQUEST, "no", None))], 0.1)
    assert (tally.total().rejected, tally.total().share) == (1, None)


def test_what_has_not_ended_is_left_out_at_a_pause() -> None:
    tally = Tally()
    tally.hear([RequestArrived(request(1, 0.0))], [SendBatch(batch(1, Place.edge(), 1))], 0.0)
    tally.leave_open()
    tally.hear([BatchFinished(1, BatchReport(0.4))], [AnswerRequest(1, 1)], 0.4)
    assert (tally.total().arrived, tally.total().answered) == (0, 0)


def translation(**shadow: Any) -> Translation:
    return Translation(settings(slo_s=1.0), settings(**shadow), answer_reserve_s=0.01)


def translated(own: Translation, arrived: Any) -> Any:
    message = own.of(RequestArrived(arrived))
    assert isinstance(message, RequestArrived)
    return message.request


def test_a_classes_slo_is_the_shadows_and_a_clients_deadline_its_own() -> None:
    own = translation(slo_s=3.0)
    by_class = translated(own, replace(request(1, 100.0), deadline_s=100.998, reserve_s=0.002))
    assert (by_class.deadline_s, by_class.reserve_s) == (pytest.approx(102.99), 0.01)
    assert translated(own, request(2, 100.0, slo_s=0.5)).deadline_s == pytest.approx(100.49)
    # A reload of the live configuration changes which deadline is the class's.
    assert own.of(SettingsChanged(settings(slo_s=0.5))) is None
    assert translated(own, request(3, 100.0, slo_s=0.5)).deadline_s == pytest.approx(102.99)


def test_a_class_that_the_shadow_lacks_is_its_first_one() -> None:
    assert translated(translation(), replace(request(1, 0.0), class_name="gold")).class_name == "default"


def test_only_what_an_engine_of_the_other_configuration_would_get_is_translated() -> None:
    own = translation(function=False)
    assert own.of(ProbeMeasured(Place.edge(), ok=True)) is not None
    assert own.of(ProbeMeasured(Place.edge("far"), ok=True)) is None
    assert own.of(ProbeMeasured(FUNCTIONS, ok=True)) is None
    assert own.of(ModelBarred("other", Place.edge(), barred=True)) is None
    assert own.of(BatchFinished(1, BatchReport(1.0))) is None
    assert own.of(LimitsChanged("m", Limits(window_s=0.0))) is not None
    assert own.too_large(request(1, 0.0, items=65))
    assert not own.too_large(request(1, 0.0, items=64))


def test_the_share_of_the_loop_is_of_the_last_seconds() -> None:
    share = LoopShare()
    share.begin(100.0)
    share.take(0.5 * LIMIT * WINDOW_S, 101.0)
    assert not share.too_much(101.0)
    share.take(0.6 * LIMIT * WINDOW_S, 105.0)
    assert share.too_much(105.0)
    assert not share.too_much(101.0 + WINDOW_S)
    assert share.share(105.1 + WINDOW_S) == 0.0
    assert share.taken_s == pytest.approx(1.1 * LIMIT * WINDOW_S)


def test_pauses_double_while_they_follow_soon_on_each_other() -> None:
    share, at_s, pauses = LoopShare(), 0.0, []
    for _ in range(8):
        share.begin(at_s)
        at_s += 20.0
        pauses.append(share.pause_s(at_s))
        at_s += pauses[-1]
    assert pauses == [60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 3600.0]
    assert pauses[-1] == LONGEST_PAUSE_S
    share.begin(at_s)
    assert share.pause_s(at_s + CALM_S) == PAUSE_S


def statistics(**changes: Any) -> EngineStatistics:
    return replace(Engine(settings()).statistics(), **changes)


def learned(engine: EngineSettings, seen: EngineStatistics | None = None) -> LearnedWorld:
    found = statistics() if seen is None else seen
    return LearnedWorld(Estimates(engine), lambda _: found)


def test_what_the_live_engine_knows_of_a_profile_is_the_law_of_the_same_profile_only() -> None:
    live = settings()
    world = learned(live)
    profile = live.models[0].edge_latency
    assert profile is not None
    assert world.on_edge("m", "main", profile) is world.estimates.models["m"].edges["main"]
    assert world.on_edge("m", "main", profile.slower(2.0)) is None
    assert world.on_edge("m", "far", LatencyModel(1.0, 1.0, 2)) is None
    assert world.on_edge("other", "main", profile) is None
    known = world.tier("m", TIER)
    assert known is not None
    assert known[0] is world.estimates.models["m"].functions["1gb"]
    assert world.tier("m", replace(TIER, price=replace(TIER.price, per_s=1.0))) is not None
    assert world.tier("m", replace(TIER, latency=TIER.latency.slower(2.0))) is None
    assert world.tier("m", replace(TIER, name="2gb")) is None


def test_batches_take_what_was_learned_and_fail_where_the_live_engine_sees_an_outage() -> None:
    live = settings()
    world = learned(live)
    service = world.estimates.models["m"].edges["main"]
    for _ in range(200):
        service.update(4, 0.5, others_s=None, now_s=0.0)
    made = ShadowBackends(live, world, lambda: 0.5)
    outcome = made.edges.send(batch(1, Place.edge(), 1, 2, 3, 4), now_s=10.0)
    assert outcome.at_s - 10.0 == pytest.approx(0.5, rel=0.01)
    away = learned(live, statistics(function_up=False, edges=(EdgeStatistics("main", False, 0, 1),)))
    beside = ShadowBackends(live, away, lambda: 0.5)
    assert "BatchFailed" in repr(beside.edges.send(batch(1, Place.edge(), 1), now_s=10.0).message)
    assert "BatchFailed" in repr(beside.functions["m"].send(batch(1, Place.function("1gb"), 1), now_s=10.0).message)


def test_a_device_serves_the_next_batch_while_another_travels_as_reports_tell() -> None:
    live = settings()
    world = learned(live)
    assert world.beside_s("main") == 0.0
    world.hear([], [SendBatch(batch(1, Place.edge(), 1)), SendBatch(batch(2, Place.function("1gb"), 2))])
    world.hear(
        [BatchFinished(2, BatchReport(1.0, beside_s=0.9)), BatchFinished(1, BatchReport(0.06, beside_s=0.02))], []
    )
    assert world.beside_s("main") == pytest.approx(0.02)
    made = ShadowBackends(live, world, lambda: 0.5)
    one_s = made.edges.send(batch(1, Place.edge(), 1), now_s=0.0).at_s
    two_s = made.edges.send(batch(2, Place.edge(), 2), now_s=0.0).at_s
    assert one_s == pytest.approx(world.estimates.models["m"].edges["main"].predict_s(1))
    assert two_s - one_s == pytest.approx(one_s - 0.02)


def test_transfers_follow_each_other_at_the_measured_bandwidth() -> None:
    live = settings(uplink_bytes_per_s=1e6)
    world = learned(live)
    link = LearnedLink(world, live, lambda: 0.5)
    assert link.send(500_000, now_s=1.0, give_up_at_s=9.0)[1] == pytest.approx(1.5)
    assert link.send(500_000, now_s=1.0, give_up_at_s=9.0) == (pytest.approx(1.5), pytest.approx(2.0))
    for at_s in (10.0, 11.0, 12.0):
        world.estimates.bandwidth.update(sent_at_s=at_s, upload_end_s=at_s + 0.5, sent_bytes=1_000_000)
    world.estimates.bandwidth.update_rtt(0.07)
    assert (link.bytes_per_s, link.rtt_s) == (pytest.approx(2e6), 0.07)
    assert math.isinf(link.send(10**9, now_s=20.0, give_up_at_s=21.0)[1])
    assert link.send(0, now_s=20.0, give_up_at_s=30.0)[0] == 21.0


def pool(warm: WarmInstances, draws: list[float], always_warm: int = 0) -> LearnedPool:
    return LearnedPool(lambda: (warm, always_warm), lambda running, at_s: running >= 2, lambda: draws.pop(0))


def test_an_instance_that_was_idle_for_long_is_gone_as_was_learned() -> None:
    warm = WarmInstances(prior_idle_s=240.0, prior_start_s=3.0)
    own = pool(warm, [0.5, 0.5, 0.5, 0.5])
    assert own.start_s(0.0) == pytest.approx(3.0)
    assert own.init_s(3.0) == pytest.approx(3.0)
    own.release(5.0)
    assert own.start_s(60.0) == 0.0
    own.release(61.0)
    assert own.start_s(3000.0) == pytest.approx(3.0)


def test_provisioned_and_known_idle_instances_are_warm_and_quotas_hold() -> None:
    warm = WarmInstances()
    assert pool(warm, [], always_warm=1).start_s(0.0) == 0.0
    own = pool(warm, [0.1])
    own.take_over([-20.0])
    assert own.start_s(0.0) == 0.0
    for free_at_s in (5.0, 5.0):
        own.release(free_at_s)
    assert own.is_full(1.0)
    assert not own.is_full(6.0)
    granted = learned(settings(), statistics(quotas=(Quota("", "", 1),)))
    made = ShadowBackends(settings(), granted, lambda: 0.5).functions["m"]
    assert "BatchFinished" in repr(made.send(batch(1, Place.function("1gb"), 1), now_s=10.0).message)
    assert "THROTTLED" in repr(made.send(batch(2, Place.function("1gb"), 2), now_s=10.0).message)


def test_a_part_begins_with_what_the_live_engine_knows() -> None:
    live = settings()
    control = Control(live)
    engine = Engine(live, control)
    engine.handle([], 0.0)
    edge = Live(engine, control).estimates().models["m"].edges["main"]
    for number in range(100):
        edge.update(4, 0.15, others_s=None, now_s=0.01 * number)
    tallies = {"live": Tally(), "shadow": Tally()}
    dear = Reading(live, replace(live, spend_per_hour=1.0), 0.0, ("CNY", "CNY"))
    part = Part(Live(engine, control), dear, tallies, draw=lambda: 0.5, make_plan=lambda _: None, now_s=1.0)
    part.step()
    ours, theirs = part.statistics(1.0).paces, engine.statistics(1.0).paces
    assert ours[0].place == theirs[0].place == "edge:main"
    assert ours[0].times_profile == pytest.approx(theirs[0].times_profile)
    assert abs(theirs[0].times_profile - 1.0) > 0.3


LIVE_FILE = """
[edge]
url = "http://127.0.0.1:1"
[[model]]
name = "digits"
edge_profile = "orin-resnet50"
"""


def test_the_shadows_file_is_read_without_its_addresses_and_ledgers(tmp_path: Path) -> None:
    (tmp_path / "live.toml").write_text(LIVE_FILE, encoding="utf-8")
    other = (
        LIVE_FILE
        + '[[model.class]]\nname = "default"\nslo_s = 0.3\n[spend]\nper_hour = 1.0\n[daemon]\nstate = "away"\n'
    )
    (tmp_path / "shadow.toml").write_text(other, encoding="utf-8")
    live = load_config(tmp_path / "live.toml", {})
    read = read_shadow(tmp_path / "shadow.toml", {}, live)
    assert read.shadow.models[0].classes == (ServiceClass(slo_s=0.3),)
    assert (read.shadow.spend_leased, read.shadow.spend_per_hour) == ("", 1.0)
    assert not (tmp_path / "away").exists()
    Control(read.shadow)


def test_a_file_without_a_model_of_the_daemon_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "live.toml").write_text(LIVE_FILE, encoding="utf-8")
    (tmp_path / "shadow.toml").write_text(LIVE_FILE.replace("digits", "resnet50"), encoding="utf-8")
    live = load_config(tmp_path / "live.toml", {})
    with pytest.raises(
        ConfigError, match=r"its models \(resnet50\) are none of those that the daemon serves \(digits\)"
    ):
        read_shadow(tmp_path / "shadow.toml", {}, live)
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        read_shadow(tmp_path / "nowhere.toml", {}, live)


def report(**changes: Any) -> dict[str, Any]:
    live, shadow = Tally(), Tally()
    for tally, answered_s in ((live, 0.5), (shadow, 1.5)):
        tally.hear([RequestArrived(request(1, 0.0))], [SendBatch(batch(1, Place.edge(), 1))], 0.0)
        tally.hear([BatchFinished(1, BatchReport(answered_s))], [AnswerRequest(1, 1)], answered_s)
    return {
        "state": "hearing",
        "message": "",
        "refused": "",
        "config": "what-if.toml",
        "loop_s": 0.25,
        "pauses": 1,
        "counted_s": 90.0,
        "live": side(live, spent=0.002, currency="CNY"),
        "shadow": side(shadow, spent=0.001, currency="CNY"),
        "classes": class_rows(live, shadow),
        **changes,
    }


class _Told(Collector):
    def __init__(self, status: dict[str, Any]) -> None:
        self.status = status

    def collect(self) -> Any:
        return shadow_metrics(self.status)


def exposed(status: dict[str, Any]) -> str:
    registry = CollectorRegistry()
    registry.register(_Told(status))
    return generate_latest(registry).decode()


def test_metrics_name_the_engine_that_each_figure_is_of() -> None:
    lines = exposed({"shadow": report()}).splitlines()
    for line in (
        "edgeburst_shadow_up 1.0",
        "edgeburst_shadow_pauses_total 1.0",
        'edgeburst_shadow_spent{currency="CNY",engine="live"} 0.002',
        'edgeburst_shadow_spent{currency="CNY",engine="shadow"} 0.001',
        'edgeburst_shadow_within_slo_total{class="default",engine="live",model="m"} 1.0',
        'edgeburst_shadow_within_slo_total{class="default",engine="shadow",model="m"} 0.0',
        'edgeburst_shadow_requests_total{class="default",end="answered",engine="shadow",model="m"} 1.0',
        'edgeburst_shadow_answers_total{engine="live",place="edge:main"} 1.0',
        'edgeburst_shadow_request_seconds_bucket{engine="live",le="0.512"} 1.0',
        'edgeburst_shadow_request_seconds_bucket{engine="shadow",le="0.512"} 0.0',
        'edgeburst_shadow_request_seconds_sum{engine="shadow"} 1.5',
    ):
        assert line in lines
    assert exposed({"shadow": None}) == ""
    refused = {name: value for name, value in report(state="refused").items() if name not in ("live", "shadow")}
    assert "edgeburst_shadow_up 0.0" in exposed({"shadow": refused})


def test_the_page_is_told_both_sides_in_short() -> None:
    assert page_values(None) == {}
    told = page_values(report())["shadow"]
    assert (told["live"]["share"], told["shadow"]["share"]) == (1.0, 0.0)
    assert told["shadow"]["places"] == {"edge:main": 1}
    assert told["live"]["p99_ms"] == pytest.approx(500, rel=0.1)
    assert (told["state"], told["config"], told["counted_s"]) == ("hearing", "what-if.toml", 90)
