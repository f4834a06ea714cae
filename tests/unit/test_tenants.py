"""Tenants: the edge's time, the money and the places in the queue are shared by weight, and nothing is left unused."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from support.engine_kit import answered, finish, refused, sent, settings

from scheduler.control import Control
from scheduler.dispatch.edge_batch import compose
from scheduler.dispatch.ledger import Ledger
from scheduler.dispatch.queue import QueuedRequest
from scheduler.dispatch.shared_batch import LEAST_GOODPUT, compose_shared
from scheduler.dispatch.spend_cap import OPEN, SpendCap
from scheduler.dispatch.tenant_memory import tenants_part
from scheduler.dispatch.tenant_money import HOUR_S, TenantMoney, water_filling
from scheduler.dispatch.tenants import Tenants
from scheduler.dispatch.waiting_line import Rank
from scheduler.domain.errors import RefusalKind
from scheduler.domain.memory import Remembered
from scheduler.domain.messages import Command, DrainStarted, RequestArrived, SettingsChanged
from scheduler.domain.requests import Request
from scheduler.domain.service_times import ServiceTimes, service_times
from scheduler.domain.tenants import OTHER, TenantSettings
from scheduler.engine import Engine

CAP = 64
NAMES = ("a", "b", "c", "elsewhere")


def sharing(**shares: float) -> Tenants:
    tenants = Tenants()
    tenants.configure([TenantSettings(name, share) for name, share in shares.items()])
    return tenants


def queued(request_id: int, tenant: str, deadline_s: float, items: int = 1) -> QueuedRequest:
    return QueuedRequest(Request(request_id, "m", 0.0, deadline_s, items=items, tenant=tenant))


def line(waiting: Sequence[QueuedRequest]) -> Rank:
    return Rank(False, waiting, ())


def orin() -> ServiceTimes:
    return service_times([0.04234 + 0.008165 * items for items in range(1, CAP + 1)], margin=1.0)


def filled_slowly(amount: float, needs: dict[str, float], weights: dict[str, float]) -> dict[str, float]:
    """Water-filling as it is defined: small drops, each to the one that has least for its weight and needs more."""
    parts, drop = dict.fromkeys(needs, 0.0), amount / 500
    for _ in range(500):
        thirsty = [name for name in needs if parts[name] + drop <= needs[name] + 1e-12]
        if not thirsty:
            break
        parts[min(thirsty, key=lambda name: parts[name] / weights[name])] += drop
    return parts


@examples(max_examples=50)
@given(
    st.lists(st.tuples(st.floats(0, 20), st.floats(0.1, 10)), min_size=1, max_size=5),
    st.floats(0.1, 30),
)
def test_water_filling_is_what_filling_drop_by_drop_gives(each: list[tuple[float, float]], amount: float) -> None:
    needs = {str(i): need for i, (need, _) in enumerate(each)}
    weights = {str(i): weight for i, (_, weight) in enumerate(each)}
    parts = water_filling(amount, needs, weights)
    slowly = filled_slowly(amount, needs, weights)
    assert all(parts[name] == pytest.approx(slowly[name], abs=amount / 50) for name in needs)
    assert sum(parts.values()) <= amount * (1 + 1e-9)


@examples(max_examples=50)
@given(st.lists(st.floats(0.05, 20), min_size=2, max_size=4), st.lists(st.integers(1, 30), min_size=4, max_size=4))
def test_the_turns_are_water_filling_of_the_batch(shares: list[float], waiting: list[int]) -> None:
    tenants = sharing(**dict(zip(NAMES, shares, strict=False)))
    names = NAMES[: len(shares)]
    queues = {name: [queued(i, name, 1.0) for i in range(count)] for name, count in zip(names, waiting, strict=False)}
    starts = dict.fromkeys(queues, 0)
    turns = tenants.take_turns(queues, starts, items=20, per_item_s=0.01)
    took = Counter(tenants.label(q) for q in turns.taken)
    fair = water_filling(20, {name: float(len(queue)) for name, queue in queues.items()}, tenants.shares)
    assert len(turns.taken) == min(20, sum(map(len, queues.values())))
    # Each takes whole items, so that each may be one off, and all others with it.
    assert all(abs(took[name] - fair[name]) <= len(names) for name in names)
    assert turns.unsatisfied == {name for name, queue in queues.items() if took[name] < len(queue)}


@examples(max_examples=50)
@given(st.lists(st.tuples(st.floats(0.01, 1.5), st.integers(1, 6)), min_size=1, max_size=40), st.floats(0, 5))
def test_one_tenant_alone_is_served_as_if_there_were_none(each: list[tuple[float, int]], penalty: float) -> None:
    waiting = [queued(i, "a", deadline_s, items) for i, (deadline_s, items) in enumerate(sorted(each))]
    several = [queued(i, NAMES[i % 4], deadline_s, items) for i, (deadline_s, items) in enumerate(sorted(each))]
    for tenants, those in ((sharing(a=3, b=1), waiting), (Tenants(), several)):
        shared = compose_shared(tenants, line(those), orin(), now_s=0.0, cap=CAP, drop_penalty=penalty)
        blind = compose(those, orin(), now_s=0.0, cap=CAP, drop_penalty=penalty)
        assert [list(part) for part in shared] == [list(part) for part in blind]


@examples(max_examples=50)
@given(
    st.lists(st.tuples(st.floats(0.01, 1.5), st.integers(1, 6), st.sampled_from(NAMES)), min_size=1, max_size=60),
    st.sampled_from([0.0, 1.0, 5.0]),
)
def test_a_shared_batch_loses_nothing_is_in_time_and_keeps_goodput(
    each: list[tuple[float, int, str]], penalty: float
) -> None:
    waiting = [queued(i, name, deadline_s, items) for i, (deadline_s, items, name) in enumerate(sorted(each))]
    times = orin()
    result = compose_shared(sharing(a=5, b=2, c=1), line(waiting), times, now_s=0.0, cap=CAP, drop_penalty=penalty)
    assert {*map(id, result.chosen)}.isdisjoint(map(id, result.dropped))
    assert {*map(id, (*result.chosen, *result.dropped))} <= {*map(id, waiting)}
    assert not result.left
    blind = compose(waiting, times, now_s=0.0, cap=CAP, drop_penalty=penalty)
    assert bool(result.chosen) == bool(blind.chosen)
    if result.chosen:
        items = sum(q.request.items for q in result.chosen)
        assert times.median_s[items] <= min(q.request.deadline_s for q in result.chosen) + 1e-9
        assert list(result.chosen) == sorted(result.chosen, key=lambda q: q.request.deadline_s)
    if result.chosen and all(q.request.items == 1 for q in waiting):
        best = len(blind.chosen) / times.median_s[len(blind.chosen)]
        assert items / times.median_s[items] >= LEAST_GOODPUT * best - 1e-9


def test_a_tenant_with_tight_objectives_is_not_given_up_for_the_backlog_of_another() -> None:
    # Goodput alone takes 64 of the backlog and gives up the three that have 0.2 s left.
    waiting = [queued(i, "b", 0.2) for i in range(3)] + [queued(i, "a", 5.0) for i in range(3, 200)]
    tenants, times = sharing(a=1, b=1), orin()
    assert {q.request.tenant for q in compose(waiting, times, now_s=0.0, cap=CAP, drop_penalty=0.0).chosen} == {"a"}
    result = compose_shared(tenants, line(waiting), times, now_s=0.0, cap=CAP, drop_penalty=0.0)
    assert [q.request.tenant for q in result.chosen[:3]] == ["b"] * 3
    assert not result.dropped


def test_shares_left_unused_for_long_do_not_starve_the_others_afterwards() -> None:
    tenants = sharing(a=1, b=1)
    for i in range(1000):
        tenants.charge([queued(i, "a", 1.0)], 1.0)
    queues = {name: [queued(i, name, 1.0) for i in range(1000)] for name in ("a", "b")}
    turns = tenants.take_turns(queues, {"a": 0, "b": 0}, items=200, per_item_s=0.01)
    took = Counter(q.request.tenant for q in turns.taken)
    # One second for a whole share is a third of a second of the edge for each of three.
    assert took["b"] - took["a"] <= 35


class Overloaded:
    """An engine whose edge is busy, to which tenants send."""

    def __init__(self, *tenants: TenantSettings, **engine: object) -> None:
        self.engine = Engine(replace(settings(function=False, **engine), tenants=tenants))  # type: ignore[arg-type]
        self.ids = 0

    def send(self, tenant: str, at_s: float, *, slo_s: float = 1.0, body_bytes: int = 1000) -> list[Command]:
        self.ids += 1
        request = Request(self.ids, "m", at_s, at_s + slo_s, 1, body_bytes, tenant=tenant)
        return self.engine.handle([RequestArrived(request)], at_s)


def test_what_is_not_configured_is_other_and_its_share_is_the_least() -> None:
    tenants = sharing(a=6, b=3)
    assert tenants.shares == pytest.approx({"a": 0.5, "b": 0.25, OTHER: 0.25})
    assert {tenants.label(queued(1, name, 1.0)) for name in ("", "x", OTHER)} == {OTHER}


def test_a_full_queue_puts_out_the_tenant_beyond_its_share() -> None:
    shell = Overloaded(TenantSettings("a", 3), TenantSettings("b", 1), queue_max_requests=40)
    commands = [c for _ in range(60) for c in shell.send("a", 0.0, slo_s=30.0)]
    [_, *_] = sent(commands)
    assert {c.refusal.kind for c in refused(commands).values()} == {RefusalKind.QUEUE_FULL}
    told = refused(shell.send("b", 0.0, slo_s=30.0))
    [(request_id, refusal)] = told.items()
    assert request_id != shell.ids, "the newcomer is in"
    assert "tenant 'a' holds more than its share" in refusal.refusal.message
    assert refusal.refusal.retry_after_s is not None
    for _ in range(40):
        shell.send("b", 0.0, slo_s=30.0)
    held = {tenant.name: tenant.open_requests for tenant in shell.engine.statistics().tenants}
    # Of the requests held, one is in the batch in flight.
    assert held["b"] / held["a"] == pytest.approx(1 / 3, abs=0.1)


@pytest.mark.parametrize("gone", ["draining", "model"])
def test_what_is_refused_anyway_takes_no_other_place(gone: str) -> None:
    shell = Overloaded(TenantSettings("a"), TenantSettings("b"), queue_max_requests=4)
    for _ in range(8):
        shell.send("a", 0.0, slo_s=30.0)
    newcomer = RequestArrived(Request(99, "gone" if gone == "model" else "m", 0.0, 30.0, tenant="b"))
    messages = [DrainStarted(), newcomer] if gone == "draining" else [newcomer]
    assert list(refused(shell.engine.handle(messages, 0.0))) == [99]


def test_those_that_cannot_make_room_stay() -> None:
    shell = Overloaded(TenantSettings("a"), TenantSettings("b"), queue_max_bytes=100_000)
    for _ in range(7):
        shell.send("a", 0.0, slo_s=30.0, body_bytes=10_000)
    shell.send("b", 0.0, slo_s=30.0, body_bytes=30_000)
    # Room for 35,000 bytes would take four of a's, of which three are within its share beside so large a request.
    assert list(refused(shell.send("b", 0.0, slo_s=30.0, body_bytes=35_000))) == [shell.ids]


def test_without_tenants_a_full_queue_refuses_the_newcomer() -> None:
    shell = Overloaded(queue_max_requests=4)
    for _ in range(5):
        shell.send("a", 0.0, slo_s=30.0)
    assert list(refused(shell.send("b", 0.0, slo_s=30.0))) == [shell.ids]
    assert shell.engine.statistics().tenants == ()


def test_bytes_count_like_requests_for_which_tenant_is_put_out() -> None:
    shell = Overloaded(TenantSettings("a"), TenantSettings("b"), queue_max_bytes=100_000)
    for _ in range(10):
        shell.send("a", 0.0, slo_s=30.0, body_bytes=10_000)
    told = refused(shell.send("b", 0.0, slo_s=30.0, body_bytes=30_000))
    assert len(told) == 3
    assert shell.ids not in told, "three of a's made room"
    assert list(refused(shell.send("b", 0.0, slo_s=30.0, body_bytes=60_000))) == [shell.ids]


def test_a_reload_changes_shares_and_keeps_count_of_what_is_held() -> None:
    shell = Overloaded()
    for _ in range(5):
        shell.send("a", 0.0)
    tenants = (TenantSettings("a", 2), TenantSettings("b"))
    shell.engine.handle([SettingsChanged(replace(settings(function=False), tenants=tenants))], 0.01)
    assert {t.name: t.open_requests for t in shell.engine.statistics().tenants} == {"a": 5, "b": 0, OTHER: 0}
    shell.engine.handle([SettingsChanged(replace(settings(function=False), tenants=tenants[1:]))], 0.02)
    assert {t.name: t.open_requests for t in shell.engine.statistics().tenants} == {"b": 0, OTHER: 5}


def money(*tenants: TenantSettings) -> TenantMoney:
    made = TenantMoney()
    made.configure(tenants)
    return made


def spend(tenants: TenantMoney, cap: SpendCap, label: str, amount: float, at_s: float) -> bool:
    """Spends if both the tenant's share and the cap allow."""
    if tenants.closed(label, cap, cost=amount, now_s=at_s) is not OPEN or not cap.allows(amount, at_s):
        return False
    tenants.book((((label, "m", "default"), 1.0),), amount, now_s=at_s)
    cap.book(amount, at_s=at_s)
    return True


def spent(tenants: TenantMoney, now_s: float) -> dict[str, float]:
    return {t.name: t.spent_hour for t in tenants.statistics((), now_s)}


@pytest.mark.parametrize("order", ["ab", "aaaaab", "abbbbb"])
def test_a_tenant_that_asks_first_or_oftener_gets_no_more_of_a_cap(order: str) -> None:
    tenants, cap = money(TenantSettings("a", 3), TenantSettings("b", 1)), SpendCap(per_hour=1.0)
    for step in range(6000):
        spend(tenants, cap, order[step % len(order)], 0.001, step * 0.1)
    assert spent(tenants, 600.0) == pytest.approx({"a": 0.75, "b": 0.25, OTHER: 0.0}, abs=0.01)


def test_what_an_idle_tenant_does_not_need_is_lent_and_comes_back() -> None:
    tenants, cap = money(TenantSettings("a", 1), TenantSettings("b", 1)), SpendCap(per_hour=1.0)
    for step in range(2000):
        spend(tenants, cap, "a", 0.001, step * 0.1)
    assert spent(tenants, 200.0)["a"] == pytest.approx(1.0, abs=0.002)
    # Nothing is left for b until the first minute of a's leaves the window; then it is b's turn, up to its half.
    assert not spend(tenants, cap, "b", 0.001, 200.0)
    took = Counter[str]()
    for step in range(590):
        for label in "ab":
            took[label] += spend(tenants, cap, label, 0.001, HOUR_S + 60.0 + step / 10)
    # Of this hour a has had 0.4, and a half is its share.
    assert took["a"] == pytest.approx(100, abs=10)
    assert took["b"] == pytest.approx(500, abs=10)


def test_a_tenant_that_spends_little_leaves_the_rest_to_the_others() -> None:
    tenants, cap = money(TenantSettings("a", 1), TenantSettings("b", 1)), SpendCap(per_hour=1.0)
    for second in range(2 * 3600):
        for _ in range(3):
            spend(tenants, cap, "a", 0.001, float(second))
        if second % 60 == 0:
            assert spend(tenants, cap, "b", 0.002, float(second)), "it is within its share"
    now = spent(tenants, 7200.0)
    # 0.12 an hour; half as much again is kept for it.
    assert now["b"] == pytest.approx(0.12, abs=0.01)
    assert now["a"] >= 0.75


def test_caps_of_a_tenants_own_hold_and_say_when_they_open() -> None:
    tenants = money(TenantSettings("a", per_hour=0.1), TenantSettings("b"))
    cap = SpendCap()
    assert tenants.capped
    assert sum(spend(tenants, cap, "a", 0.01, 0.0) for _ in range(20)) == 10
    assert spend(tenants, cap, "b", 5.0, 0.0)
    closed = tenants.closed("a", cap, cost=0.01, now_s=1.0)
    assert (closed.window, closed.tenant, closed.own) == ("hour", "a", True)
    assert closed.opens_s == pytest.approx(HOUR_S + 60.0 - 1.0)


def test_a_tenant_that_leaves_the_configuration_and_comes_back_has_spent_what_it_spent() -> None:
    capped, cap = (TenantSettings("a", per_hour=0.1), TenantSettings("b")), SpendCap()
    tenants = money(*capped)
    assert spend(tenants, cap, "a", 0.08, 0.0)
    for those in (capped[1:], (), capped):
        tenants.configure(those)
    assert spent(tenants, 1.0)["a"] == pytest.approx(0.08)
    assert not spend(tenants, cap, "a", 0.03, 1.0)


def remembering(currency: str, *tenants: TenantSettings) -> tuple[Ledger, Remembered]:
    ledger = Ledger(tenants=money(*tenants), currency=currency)
    return ledger, tenants_part(ledger)


def test_caps_of_a_tenants_own_go_on_in_the_next_process() -> None:
    capped, cap = (TenantSettings("a", per_hour=0.1, per_day=0.15), TenantSettings("b")), SpendCap()
    before, part = remembering("CNY", *capped)
    for at_s in (0.0, 7200.0):
        assert spend(before.tenants, cap, "a", 0.07, at_s)
    content = json.loads(json.dumps(part.snapshot(7210.0)))
    # The clock of the next process begins anew; 600 s pass between the two.
    after, part = remembering("CNY", *capped)
    part.restore(content, 600.0, 5.0)
    [own, *_] = after.by_tenant(5.0)
    assert (own.spent_hour, own.spent_day) == pytest.approx((0.07, 0.14))
    assert not spend(after.tenants, cap, "a", 0.02, 5.0), "the day's cap"
    away, part = remembering("CNY", capped[1])
    part.restore(content, 600.0, 5.0)
    away.tenants.configure(capped)
    assert spent(away.tenants, 5.0)["a"] == pytest.approx(0.07)


@pytest.mark.parametrize(
    "content",
    [{"currency": "USD", "spent": {}}, {"spent": {}}, {"currency": "CNY", "spent": {"a": {"hour": [[1.0, 0.1]]}}}, []],
)
def test_what_cannot_be_taken_up_changes_nothing(content: object) -> None:
    ledger, part = remembering("CNY", TenantSettings("a", per_hour=0.1))
    with pytest.raises((KeyError, TypeError, ValueError)):
        part.restore(content, 0.0, 0.0)
    assert spent(ledger.tenants, 0.0)["a"] == 0.0


def test_the_engine_has_the_spending_of_tenants_remembered() -> None:
    run = replace(settings(), tenants=(TenantSettings("a", per_hour=1.0),))
    control = Control(run)
    Engine(run, control).handle([], 0.0)
    assert "tenants" in [part.name for part in control.saved(0.0)]


@pytest.mark.parametrize("edge", [True, False])
def test_the_engine_keeps_a_tenants_own_cap_and_tells_its_clients(edge: bool) -> None:
    own = TenantSettings("a", per_hour=2e-5)
    engine = Engine(replace(settings(edge=edge), tenants=(own, TenantSettings("b"))))
    told: dict[int, str] = {}
    paid = Counter[str]()
    batches = []
    for ids in range(1, 601):
        at_s = ids * 0.005
        for batch in [b for b in batches if b.predicted_finish_s <= at_s]:
            batches.remove(batch)
            commands = finish(engine, batch, at_s)
            batches += sent(commands)
        name = "ab"[ids % 2]
        commands = engine.handle([RequestArrived(Request(ids, "m", at_s, at_s + 1.0, 1, 1000, tenant=name))], at_s)
        batches += sent(commands)
        for request_id, refusal in refused(commands).items():
            told[request_id] = refusal.refusal.message
        paid[name] += len(answered(commands))
    by_name = {t.name: t for t in engine.statistics().tenants}
    assert 0.0 < by_name["a"].spent_hour <= 2e-5
    assert by_name["b"].spent > 2e-5
    assert [cost[:2] for cost in by_name["b"].costs] == [("m", "default")]
    if not edge:
        assert any("cap per hour of tenant 'a' is reached" in message for message in told.values())
        assert not any(request_id % 2 == 0 for request_id in told if "tenant" not in told[request_id])


def members(*names: str) -> Sequence[QueuedRequest]:
    return [queued(i, name, 1.0) for i, name in enumerate(names)]


def test_a_batch_is_split_by_items_and_a_warming_call_is_of_no_tenant() -> None:
    tenants = money(TenantSettings("a"))
    parts = tenants.parts(members("a", "a", "x"))
    assert dict(parts) == pytest.approx({("a", "m", "default"): 2 / 3, (OTHER, "m", "default"): 1 / 3})
    assert tenants.parts(()) == ()
    assert TenantMoney().parts(members("a")) == ()
    assert math.isclose(sum(part for _, part in parts), 1.0)
