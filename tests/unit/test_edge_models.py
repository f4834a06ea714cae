"""The look at the edge's models: one that fails there does not keep the others from being measured and heard."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from scheduler.daemon import edge_models
from scheduler.daemon.backends.edge import EdgeBackend
from scheduler.daemon.edge_models import EdgeModels
from scheduler.daemon.edge_rehearsal import NotMeasured
from scheduler.daemon.identities import Identities


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

    def not_measured(self, model: str, reason: str) -> None:
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
        edge=SimpleNamespace(url="http://e"),
        models=[SimpleNamespace(name=name, max_items=4) for name in names],
        identities=lambda: dict.fromkeys(names),
        edge_profile=lambda index: object() if names[index] in done else None,
        to_measure=lambda: [SimpleNamespace(name=name) for name in names if name not in done],
    )

    async def profile(_: object, card: Any, **__: object) -> Any:
        if card.name == "broken":
            raise NotMeasured("its network fails", absent=absent)
        return SimpleNamespace(model=card.name, max_batch=4, rows=[])

    async def use(found: Any) -> None:
        done.append(found.model)

    async def look() -> tuple[bool, Served]:
        served = Served()
        edge = Edge(url="http://e", connect_timeout_s=1.0, clock=lambda: 0.0)
        models: Any = EdgeModels(
            edge=lambda: edge,
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
