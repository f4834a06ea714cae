"""The feed of the page: a page that began at any moment and heard every event knows what a new one is told."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import pytest
from support.virtual_loop import run_virtual

from scheduler.daemon.history import feed as feed_module
from scheduler.daemon.history.counting import MOST_CELLS
from scheduler.daemon.history.feed import EVENT_BYTES, EVENTS_KEPT, WATCHED_S, Feed
from scheduler.daemon.history.figures import Sources
from scheduler.daemon.records import BatchRecord, BatchRing
from scheduler.domain.batches import Batch, BatchReport, WhyLeft
from scheduler.domain.bills import Bill, Purpose, Spent
from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.plans import EngineSettings, ModelSettings, ServiceClass
from scheduler.domain.requests import Place
from scheduler.domain.statistics import (
    CapStatistics,
    Changes,
    EdgeStatistics,
    EngineStatistics,
    FoundChange,
    ModelUp,
    Pace,
)

TIER = FunctionTier("1gb", "digits", LatencyModel(0.2, 0.1, 8), Price(per_s=2.0, per_call=0.5))
MODEL = ModelSettings("digits", classes=(ServiceClass("a", 0.5), ServiceClass("b", 2.0)), tiers=(TIER,))
STATISTICS = EngineStatistics(
    queued_requests=3,
    unanswered_bytes=10,
    requests_in_flight=2,
    edge_batches_in_flight=1,
    function_batches_in_flight=1,
    warming_calls=0,
    rate_rps=12.0,
    uplink_bytes_per_s=1e6,
    uplink_rtt_s=0.02,
    edge_up=True,
    function_up=True,
    spent=0.0,
    leased=None,
    expected_drain_s=0.1,
    draining=False,
    changes=Changes({"rate": 1}, (), (FoundChange(10.0, "rate", "digits: 1.0 -> 2.0 requests/s"),)),
    plan=None,
    edges=(EdgeStatistics("main", up=True, batches_in_flight=1, parallel=1),),
    models_up=(ModelUp("digits", True, True, (("main", True),)),),
    caps=(CapStatistics("hour", 2.0, 0.5),),
    paces=(Pace("digits", "edge:main", 1.25, 9),),
)


def a_record(
    batch_id: int, *, place: Place, sent_at_s: float = 1.0, error: str = "", cold: bool = False
) -> BatchRecord:
    batch = Batch(
        batch_id=batch_id,
        place=place,
        model="digits",
        request_ids=(batch_id,),
        items=4,
        body_bytes=10,
        sent_at_s=sent_at_s,
        deadline_s=sent_at_s + 1,
        give_up_at_s=sent_at_s + 2,
        predicted_finish_s=sent_at_s + 0.5,
        predicted_service_s=0.3,
        why_left=WhyLeft.FULL,
    )
    report = BatchReport(0.5, service_s=0.4, billed_duration_s=0.4 if place.tier else None, cold_start=cold)
    return BatchRecord(batch, sent_at_s + 0.5, 0.1, report, None, Bill(0.4 if place.tier else 0.0), error)


@dataclass
class World:
    """A feed whose clock and figures a test sets."""

    now_s: float = 1000.5
    ahead_s: float = 1_790_000_000.0
    engine: EngineStatistics = STATISTICS
    ring: BatchRing = field(default_factory=lambda: BatchRing(10_000))
    feed: Feed = field(init=False)

    def __post_init__(self) -> None:
        sources = Sources(engine=lambda: self.engine, batches=self.ring.newest)
        self.feed = Feed(
            sources,
            clock=lambda: self.now_s,
            wall=lambda: self.now_s + self.ahead_s,
            midnight_s=lambda at_s: at_s // 86_400 * 86_400,
        )
        self.feed.reload(EngineSettings((MODEL,)), version="1", config="edgeburst.toml")

    def tick(self) -> None:
        self.now_s += 1.0
        self.feed.tick()

    def answer(self, *, latency_s: float = 0.1, place: str = "edge:main", request_id: int = 1, name: str = "a") -> None:
        key = self.feed.counting.key("digits", name, "", place)
        self.feed.counting.answered(
            key, request_id=request_id, at_s=self.now_s, latency_s=latency_s, slo_s=0.5, items=2
        )

    def snapshot(self) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(orjson.dumps(self.feed.snapshot()))
        return found


class Page:
    """What the page's script does with snapshot and events, in a few lines."""

    def __init__(self, snapshot: dict[str, Any]) -> None:
        self.now, self.names, self.seconds = snapshot["now"], snapshot["names"], snapshot["seconds"]
        self.batches, self.ends, self.number = snapshot["batches"], snapshot["ends"], snapshot["id"]

    def hear(self, raw: bytes) -> None:
        event = orjson.loads(raw.removeprefix(b"data: "))
        assert event["id"] == self.number + 1
        self.number = event["id"]
        self.now = {**self.now, **event.get("now", {})}
        self.names = self.names + event.get("names", [])
        self.seconds = [*self.seconds, [event["at"], event["second"]]]
        self.batches = self.batches + event.get("batches", [])
        self.ends = self.ends + event.get("ends", [])


async def heard(world: World, page: Page) -> None:
    stream = world.feed.events(page.number)
    async for raw in stream:
        page.hear(raw)
        if page.number == world.snapshot()["id"]:
            break
    await stream.aclose()


@pytest.mark.parametrize("seed", range(5))
def test_snapshot_and_events_are_what_a_later_snapshot_says(seed: int) -> None:
    drawn, world = random.Random(seed), World()

    async def life() -> None:
        pages: list[Page] = []
        for step in range(40):
            for number in range(drawn.randrange(4)):
                world.answer(latency_s=drawn.choice([0.1, 0.9]), name=drawn.choice("ab"), request_id=step)
                place = drawn.choice([Place.edge(), Place.function("1gb")])
                world.ring.add(a_record(100 * step + number, place=place, sent_at_s=world.now_s))
            up = drawn.random() < 0.8
            edges = (replace(STATISTICS.edges[0], up=up),)
            world.engine = replace(world.engine, queued_requests=drawn.randrange(9), edges=edges)
            world.tick()
            for page in pages:
                await heard(world, page)
            if drawn.random() < 0.2:
                pages.append(Page(world.snapshot()))
        last = world.snapshot()
        assert pages
        for page in pages:
            assert page.now == last["now"]
            assert page.names == last["names"]
            assert page.seconds[-20:] == last["seconds"][-20:]
            assert page.ends[-10:] == last["ends"][-10:]
            assert page.batches[-10:] == last["batches"][-10:]

    run_virtual(life())


def test_a_second_counts_requests_money_starts_and_what_the_edge_saved() -> None:
    world = World()
    world.tick()
    world.answer()
    world.ring.add(a_record(1, place=Place.function("1gb"), cold=True))
    spent = Spent(Purpose.CALL, "1gb", "digits", "other", "CNY", 0.4)
    world.engine = replace(world.engine, spending=(spent,))
    world.tick()
    world.engine = replace(world.engine, spending=(replace(spent, amount=0.3),))
    world.answer()
    world.tick()
    money = [orjson.loads(blob).get("m", {}) for _, blob in world.feed.history.levels[0].rows]
    # Before any bill an item costs what the profile says in the largest batch; then 0.4 for four items.
    planned = TIER.price.cost(TIER.latency.predict_s(8)) / 8
    assert money[0] == {}
    assert money[1] == {"calls": 0.4, "saved": pytest.approx(2 * planned, rel=1e-4)}
    assert money[2] == {"calls": pytest.approx(-0.1), "saved": pytest.approx(2 * 0.1)}
    told = world.snapshot()["now"]["money"]["today"]
    assert told["calls"] == pytest.approx(0.3)
    seconds = [orjson.loads(blob) for _, blob in world.feed.history.levels[0].rows]
    assert [second.get("k", 0) for second in seconds] == [0, 1, 0]
    assert seconds[1]["g"]["pace digits edge:main"] == 1.25
    assert seconds[1]["g"]["bandwidth"] == 1e6


def test_a_place_that_goes_away_says_since_when_and_why() -> None:
    world = World()
    world.tick()
    went_s = world.now_s + world.ahead_s
    world.ring.add(a_record(1, place=Place.edge(), error="unreachable: refused"))
    world.engine = replace(STATISTICS, edges=(replace(STATISTICS.edges[0], up=False),))
    world.tick()
    for _ in range(5):
        world.tick()
    [edge] = [row for row in world.snapshot()["now"]["places"] if row["place"] == "edge:main"]
    assert (edge["up"], edge["why"]) == (False, "unreachable: refused")
    assert edge["since_s"] == pytest.approx(went_s + 1, abs=1)


def test_an_event_stays_small_however_many_batches_and_misses_there_are() -> None:
    world = World()
    page = Page(world.snapshot())
    for number in range(900):
        world.answer(latency_s=0.001 * number, request_id=number)
        world.ring.add(a_record(number, place=Place.function("1gb"), error="x" * 500))
    world.tick()

    async def life() -> bytes:
        stream = world.feed.events(page.number)
        raw = await stream.__anext__()
        await stream.aclose()
        return raw

    raw = run_virtual(life())
    assert len(raw) < EVENT_BYTES + 100
    event = orjson.loads(raw.removeprefix(b"data: "))
    assert event["left_out"] + len(event["batches"]) == 900
    assert event["batches"][-1][1] == 899, "the newest are shown"
    assert 60 * len(raw) < 300_000


def test_no_event_is_made_while_no_page_is_open() -> None:
    world = World()
    world.tick()
    assert world.snapshot()["id"] == 0
    world.tick()
    assert world.snapshot()["id"] == 1
    world.now_s += WATCHED_S + 1
    world.tick()
    assert world.snapshot()["id"] == 1, "the page has gone"


def test_a_page_that_takes_an_event_while_the_next_is_made_goes_on() -> None:
    world = World()
    start = world.snapshot()["id"]

    async def life() -> list[int]:
        world.tick()
        found = []
        async for raw in world.feed.events(start):
            found.append(orjson.loads(raw.removeprefix(b"data: "))["id"] - start)
            if len(found) == 3:
                break
            world.tick()
        return found

    assert run_virtual(life()) == [1, 2, 3]


def test_a_miss_has_a_name_that_pages_know_however_many_there_are_in_a_second() -> None:
    world = World()
    page = Page(world.snapshot())
    for number in range(2 * MOST_CELLS):
        world.answer(latency_s=0.9, name=f"class {number}", request_id=number)
    world.tick()
    run_virtual(heard(world, page))
    assert page.ends
    assert all(row[4] < len(page.names) for row in page.ends)


def test_a_page_that_is_too_far_behind_is_sent_away_and_all_are_at_the_end() -> None:
    world = World()
    start = world.snapshot()["id"]

    async def life() -> tuple[int, int]:
        for _ in range(EVENTS_KEPT + 5):
            world.tick()
            world.feed.watch()
        late = [raw async for raw in world.feed.events(start)]
        ahead = [raw async for raw in world.feed.events(10_000)]  # of an earlier process
        now = world.snapshot()["id"]
        waiting = asyncio.get_running_loop().create_task(anext_of(world.feed.events(now)))
        await asyncio.sleep(0)
        world.feed.close()
        assert await waiting is None
        return len(late), len(ahead)

    async def anext_of(stream: Any) -> Any:
        async for raw in stream:
            return raw
        return None

    assert run_virtual(life()) == (0, 0)


def test_a_clock_that_is_set_moves_the_history_and_loses_no_count() -> None:
    world = World()
    for _ in range(5):
        world.answer()
        world.tick()
    world.ahead_s -= 3600
    world.answer()
    world.tick()
    begins = [at_s for at_s, _ in world.feed.history.levels[0].rows]
    assert begins == sorted(begins)
    assert begins[-1] < world.now_s + world.ahead_s
    world.ahead_s += 7200
    world.answer()
    world.tick()
    assert world.feed.history.levels[0].rows[-1][0] == int(world.now_s + world.ahead_s) - 1


def test_a_tick_takes_far_less_than_a_hundredth_of_a_second() -> None:
    # Counted in figures that are made, not in time: one look at each source.
    world, looks = World(), 0
    engine = world.feed.sources.engine

    def looked() -> EngineStatistics | None:
        nonlocal looks
        looks += 1
        return engine()

    world.feed.sources.engine = looked
    world.tick()
    assert looks == 1, "without a page the engine is asked once a second"
    world.feed.watch()
    world.tick()
    assert looks <= 3
    assert feed_module.EVENTS_KEPT * EVENT_BYTES < 200_000
