"""The look at the edge's models: one that fails there does not keep the others from being measured and heard."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from support.virtual_loop import run_virtual

from scheduler.daemon import edge_models
from scheduler.daemon.backends.edge import EdgeBackend
from scheduler.daemon.config.config import ToMeasure
from scheduler.daemon.config.edge_sections import EdgeSection
from scheduler.daemon.edge_models import REFUSED_LOOK_S, EdgeModels
from scheduler.daemon.edge_rehearsal import NotMeasured
from scheduler.daemon.identities import AcceptedBy, Identities

EDGE = EdgeSection(url="http://e")


class Edge(EdgeBackend):
    """An edge of which only the identities are asked."""

    async def identity(self, model: str) -> str | None:
        return f"sha256:{model}"


class Served:
    """What would be shown."""

    def __init__(self) -> None:
        self.told: dict[str, str] = {}
        self.heard_of: list[str] = []
        self.identities = Identities()

    def rows(self) -> dict[str, dict[str, object]]:
        return {}

    def not_measured(self, model: str, edge: str, reason: str) -> None:
        self.told[model] = reason

    def heard(self, model: str, place: object, identity: object, *, asked: bool, sent_at_s: float) -> None:
        self.heard_of.append(model)


@pytest.mark.parametrize(("absent", "measured"), [(False, ["first", "last"]), (True, ["first"])])
def test_only_an_edge_that_is_not_there_ends_the_look(
    monkeypatch: pytest.MonkeyPatch, absent: bool, measured: list[str]
) -> None:
    done: list[str] = []
    names = ["first", "broken", "last"]
    config = SimpleNamespace(
        edges=[EDGE],
        models=[SimpleNamespace(name=name, max_items=4) for name in names],
        identities=lambda: dict.fromkeys(names),
        edge_profile=lambda index, edge: object() if names[index] in done else None,
        to_measure=lambda: [ToMeasure(SimpleNamespace(name=name), EDGE) for name in names if name not in done],  # type: ignore[arg-type]
    )

    async def profile(_: object, card: Any, **__: object) -> Any:
        if card.name == "broken":
            raise NotMeasured("its network fails", absent=absent)
        return SimpleNamespace(model=card.name, max_batch=4, rows=[])

    async def use(found: Any, edge: str) -> None:  # noqa: ARG001
        done.append(found.model)

    async def look() -> tuple[bool, Served]:
        served = Served()
        edge = Edge(url="http://e", connect_timeout_s=1.0, clock=lambda: 0.0)
        models: Any = EdgeModels(
            edge=lambda name: edge,  # noqa: ARG005
            config=lambda: config,  # type: ignore[arg-type, return-value]
            measured=use,
            served=served,  # type: ignore[arg-type]
            clock=lambda: 0.0,
        )
        return await models._look(), served

    monkeypatch.setattr(edge_models, "measured_profile", profile)
    complete, served = asyncio.run(look())
    assert (complete, done, served.told) == (False, measured, {"broken": "its network fails"})
    assert served.heard_of == ([] if absent else measured)


def test_an_edge_that_is_refused_for_an_answer_is_asked_again_soon() -> None:
    config = SimpleNamespace(
        edges=[EDGE],
        models=[SimpleNamespace(name="m")],
        edge_profile=lambda index, edge: object(),
        to_measure=tuple,
    )

    async def looks_s() -> list[float]:
        loop, times_s = asyncio.get_running_loop(), []

        class Asked(Edge):
            async def identity(self, model: str) -> str | None:
                times_s.append(loop.time())
                return None

        served, edge = Served(), Asked(url="http://e", connect_timeout_s=1.0, clock=loop.time)
        served.identities.reload({"m": ("sha256:right", AcceptedBy.CONFIG)})
        models: Any = EdgeModels(
            edge=lambda name: edge,  # noqa: ARG005
            config=lambda: config,  # type: ignore[arg-type, return-value]
            measured=None,  # type: ignore[arg-type]
            served=served,  # type: ignore[arg-type]
            clock=loop.time,
        )
        asking = loop.create_task(models.run())
        await asyncio.sleep(1.0)
        served.identities.heard("m", "edge:main", "sha256:wrong")
        await asyncio.sleep(1.5 * REFUSED_LOOK_S)
        asking.cancel()
        return times_s

    assert run_virtual(looks_s()) == [0.0, 1.0 + REFUSED_LOOK_S]


@pytest.mark.parametrize(("said", "heard_of"), [(None, []), ("", ["m"]), ("sha256:1", ["m"])])
def test_an_edge_that_does_not_answer_the_question_has_not_stopped_to_report(
    said: str | None, heard_of: list[str]
) -> None:
    config = SimpleNamespace(
        edges=[EDGE],
        models=[SimpleNamespace(name="m")],
        edge_profile=lambda index, edge: object(),
        to_measure=tuple,
    )

    class Asked(Edge):
        async def identity(self, model: str) -> str | None:
            return said

    async def look() -> list[str]:
        served, edge = Served(), Asked(url="http://e", connect_timeout_s=1.0, clock=lambda: 0.0)
        models: Any = EdgeModels(
            edge=lambda name: edge,  # noqa: ARG005
            config=lambda: config,  # type: ignore[arg-type, return-value]
            measured=None,  # type: ignore[arg-type]
            served=served,  # type: ignore[arg-type]
            clock=lambda: 0.0,
        )
        await models._look()
        return served.heard_of

    assert asyncio.run(look()) == heard_of


def test_one_edge_server_that_does_not_answer_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is measured by itself, and what it says is noted of it alone."""
    near, far = EdgeSection(name="near", url="http://near"), EdgeSection(name="far", url="http://far")
    known: list[tuple[str, str]] = []
    card = SimpleNamespace(name="m")
    config = SimpleNamespace(
        edges=[near, far],
        models=[SimpleNamespace(name="m", max_items=4)],
        identities=lambda: {"m": None},
        edge_profile=lambda index, edge: ("m", edge.name) in known or None,  # noqa: ARG005
        to_measure=lambda: [ToMeasure(card, edge) for edge in (near, far) if ("m", edge.name) not in known],  # type: ignore[arg-type]
    )

    async def profile(_: object, card: Any, *, edge: str, **__: object) -> Any:
        await asyncio.sleep(3600.0 if edge == "http://near" else 1.0)
        return SimpleNamespace(model=card.name, max_batch=4, rows=[])

    async def use(found: Any, edge: str) -> None:
        known.append((found.model, edge))

    async def look() -> tuple[list[tuple[str, str]], list[str]]:
        loop, served = asyncio.get_running_loop(), Served()
        backends = {edge.name: Edge(url=edge.url, connect_timeout_s=1.0, clock=loop.time) for edge in (near, far)}
        models: Any = EdgeModels(
            edge=backends.get,
            config=lambda: config,  # type: ignore[arg-type, return-value]
            measured=use,
            served=served,  # type: ignore[arg-type]
            clock=loop.time,
        )
        looking = loop.create_task(models._look())
        await asyncio.sleep(2.0)
        looking.cancel()
        return known, served.heard_of

    monkeypatch.setattr(edge_models, "measured_profile", profile)
    assert run_virtual(look()) == ([("m", "far")], ["m"])


def test_it_ends_when_it_is_cancelled_in_the_moment_of_a_reload() -> None:
    async def main() -> bool:
        looks = EdgeModels(
            edge=lambda name: None,  # noqa: ARG005
            config=lambda: SimpleNamespace(edges=[EDGE]),  # type: ignore[arg-type, return-value]
            measured=lambda *_: asyncio.sleep(0),
            served=Served(),  # type: ignore[arg-type]
            clock=lambda: 0.0,
        )
        task = asyncio.create_task(looks.run())
        await asyncio.sleep(1.0)
        looks.reloaded()
        await asyncio.sleep(0)  # what waits inside has noticed, the task has not
        task.cancel()
        await asyncio.wait({task}, timeout=5.0)
        ended = task.done()
        task.cancel()
        return ended

    assert run_virtual(main())
