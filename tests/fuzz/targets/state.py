"""The state folder. First byte: the database as bytes, or the contents of the parts in it as one JSON object.

A database that is damaged is put aside; contents that are not understood are not taken up. Either way the daemon
starts, and what it believes is sound.
"""

from __future__ import annotations

import json
import math
import random
import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from functools import cache

from fuzz import scratch
from fuzz.mutators import of_json
from fuzz.target import Target, one_sentence

from scheduler.control import Control
from scheduler.daemon.state.folder import DATABASE, StateError
from scheduler.daemon.state.store import Store
from scheduler.domain.batches import BatchReport
from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.memory import Memory, Part
from scheduler.domain.messages import BatchFinished, RequestArrived, RequestSpend, SendBatch
from scheduler.domain.plans import EngineSettings, ModelSettings, ServiceClass
from scheduler.domain.requests import Request
from scheduler.domain.tenants import TenantSettings
from scheduler.engine import Engine

INSTRUMENTED = ("scheduler.daemon.state", "scheduler.recollection", "scheduler.domain", "scheduler.estimators")
BYTES, PARTS = 0, 1
_ORIN = LatencyModel(0.04234, 0.008165, 64)
_TIER = FunctionTier("1gb", "digits", LatencyModel(0.216, 0.141, 5), Price(1.27e-5, 9e-7, 0.001, "CNY", "cny-gbs-2023"))
_SETTINGS = EngineSettings(
    models=(ModelSettings("m", 64, classes=(ServiceClass("default", slo_s=1.0),), edge_latency=_ORIN, tiers=(_TIER,)),),
    tenants=(TenantSettings("lab", share=1.0),),
    spend_per_hour=1.0,
)


def check(data: bytes) -> None:
    """Opens a state folder, or starts an engine with what was in one."""
    if not data:
        return
    if data[0] % 2 == BYTES:
        _opened(data[1:])
        return
    try:
        contents = json.loads(data[1:])
    except (ValueError, RecursionError):
        return  # the store skips such a part, see the other kind
    if isinstance(contents, dict):
        _begun_with(contents)


def _opened(content: bytes) -> None:
    folder = scratch.folder("state")
    for path in folder.iterdir():
        path.unlink()
    (folder / DATABASE).write_bytes(content)
    warned: list[str] = []
    seconds = iter(range(10**9))
    store = Store(
        folder, currency="CNY", warn=warned.append, wall_clock=lambda: 1.8e9, elapsed=lambda: float(next(seconds))
    )
    try:
        store.open()
        _used(store)
    except (StateError, sqlite3.Error) as error:
        one_sentence(error)
    finally:
        store.close()


def _used(store: Store) -> None:
    assert all(math.isfinite(ago_s) and ago_s >= 0 for ago_s, _ in store.history())
    store.limits()
    store.identities()
    memory = store.memory()
    assert math.isfinite(memory.age_s)
    assert memory.age_s >= 0
    leased = store.lease(RequestSpend(amount=0.1, left=0.0, per_hour=1.0, per_day=None))
    assert 0 <= leased.amount <= 0.1 + 1e-9
    assert store.date_anew(leased.amount) == 0
    store.give_back(leased.amount)
    store.save_memory(list(memory.parts.values()))


@cache
def _learned() -> tuple[Part, ...]:
    """The parts of an engine that has served a few requests."""
    control = Control(_SETTINGS)
    engine, now_s, numbers = Engine(_SETTINGS, control), 0.0, iter(range(1, 10**6))
    engine.handle([], 0.0)
    for _ in range(40):
        now_s += 0.05
        commands = engine.handle([RequestArrived(_request(next(numbers), now_s)) for _ in range(3)], now_s)
        for command in commands:
            if isinstance(command, SendBatch):
                batch = command.batch
                report = BatchReport(0.2, service_s=batch.predicted_service_s, instance_id="i", cold_start=False)
                now_s += 0.2
                engine.handle([BatchFinished(batch.batch_id, report)], now_s)
        engine.handle([], now_s)
    return control.saved(now_s)


def _request(number: int, at_s: float) -> Request:
    return Request(number, "m", at_s, at_s + 1.0, items=1, body_bytes=10_000)


def _begun_with(contents: dict[str, object]) -> None:
    parts = {part.name: replace(part, content=contents[part.name]) for part in _learned() if part.name in contents}
    control = Control(_SETTINGS, None, Memory(parts, age_s=60.0))
    engine = Engine(_SETTINGS, control)
    engine.handle([], 0.0)
    commands = engine.handle([RequestArrived(_request(number, 0.1)) for number in (1, 2)], 0.1)
    wakeup_s = engine.next_wakeup_s()
    assert wakeup_s is None or not math.isnan(wakeup_s)
    for command in commands:
        if isinstance(command, SendBatch):
            batch = command.batch
            for number in (
                batch.predicted_finish_s,
                batch.predicted_service_s,
                batch.give_up_at_s,
                batch.expected_cost,
            ):
                assert math.isfinite(number), f"{batch}"
            report = BatchReport(0.2, service_s=0.1, instance_id="i", cold_start=False)
            engine.handle([BatchFinished(batch.batch_id, report)], 0.5)
    engine.handle([], 2.0)
    engine.statistics()
    saved = json.dumps({part.name: part.content for part in control.saved(2.0)})
    assert "NaN" not in saved  # a wait may be infinite


def seeds() -> Iterable[bytes]:
    """Yields a database as it is saved, an empty one, one of a later version, and the parts of an engine."""
    parts = _learned()
    yield b"\1" + json.dumps({part.name: part.content for part in parts}, separators=(",", ":")).encode()
    for part in parts:
        yield b"\1" + json.dumps({part.name: part.content}, separators=(",", ":")).encode()
    yield b"\0"
    yield b"\0" + b"SQLite format 3\0"
    folder = scratch.folder("seed")
    for version in (1, 9):
        path = folder / DATABASE
        path.unlink(missing_ok=True)
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA page_size = 512")
        connection.close()
        store = Store(folder, currency="CNY", warn=lambda _: None, wall_clock=lambda: 1.8e9, elapsed=lambda: 0.0)
        store.lease(RequestSpend(amount=0.1, left=0.0, per_hour=1.0, per_day=None))
        store.save_memory([Part("uplink", 1, "f", {"a": 1})])
        store.close()
        connection = sqlite3.connect(path)
        connection.execute("""INSERT OR REPLACE INTO limits VALUES ('m', '{"window_s": 0.5}')""")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.commit()
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.close()
        yield b"\0" + path.read_bytes()


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Changes values of the parts, or a few bytes of the database, mostly where something stands."""
    if data[:1] and data[0] % 2 == PARTS:
        return data[:1] + of_json(data[1:], rng)
    out = bytearray(data or b"\0")
    places = [at for at in range(1, len(out)) if out[at]] or [0]
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.choice(places)
        out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256), out[at] ^ 1 << rng.randrange(8)))
    out[0] = BYTES
    return bytes(out)


TARGET = Target(
    name="state",
    check=check,
    seeds=seeds,
    instrumented=INSTRUMENTED,
    words=(b"1e308", b"1e999", b"NaN", b"null", b"-1", b"[]", b"{}", b"SQLite format 3\0", b"edgb", b"CREATE TABLE"),
    longest_bytes=65_536,
    mutate=mutated,
)
